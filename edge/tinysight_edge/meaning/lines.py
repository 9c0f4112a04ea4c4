"""Count what crosses a line, once, and in which direction.

In: tracks and their feet, frame by frame.  Out: totals per line and direction, and what each object has crossed.

A crossing is where the straight path between two sightings of an object meets the line, so skipped frames lose
nothing, and the path begins where the object was first seen, before it was believed. Crossings to and fro cancel: what
is left is counted once the object is away from the line by a tenth of its box, or has ended. Two kinds of mistakes of a
tracker are taken back, because they would count twice: two objects that exchange their numbers in one frame, and one
whose number is lost and which gets another nearby, shortly after.

The same foot point as for zones decides, so an object is past the line when it is in the zone behind it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import ConfigError
from tinysight_contract.messages import Crossing
from tinysight_edge.config.types import LineConfig
from tinysight_edge.meaning.rows import carry, classes_of, feet_of
from tinysight_edge.tracking.tracks import Tracks

__all__ = ["Lines"]

AWAY: Final = 0.1  # of the box's shorter side
AWAY_PX: Final = 2.0  # at least
HEIR_WITHIN_S: Final = 2.0
NEWS: Final = 0.2  # the share of the last step in what is taken for an object's speed; boxes tremble
DIRECTIONS: Final[tuple[Literal["in"], Literal["out"]]] = ("in", "out")
Array = NDArray[np.float64]


@dataclass(slots=True, eq=False)
class _Gone:
    """Where an object that has ended was last seen."""

    at: Array
    speed: Array
    right: NDArray[np.bool_]
    seen_s: float


class Lines:
    """The lines of one camera and what has crossed them.

    Attributes:
        names: of the lines; the columns below.
        crossed: bool (n, lines), it has crossed it.
        crossings: int64 (n,), how many times it has crossed any.

    Args:
        lines: as configured.
        labels: of the model, by class id.
        so_far: totals to go on from, as `totals` gives them.

    Raises:
        ConfigError: a line has no length.
    """

    def __init__(
        self,
        lines: Mapping[str, LineConfig],
        labels: Sequence[str],
        so_far: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        self.names = tuple(lines)
        for name, line in lines.items():
            if line.start == line.end:
                raise ConfigError(f"lines.{name} has no length.", mend="Give it an end that is not its start.")
        ends = np.array([(line.start, line.end) for line in lines.values()], np.float64).reshape(-1, 2, 2)
        self._start, self._end = ends[:, 0], ends[:, 1]
        across, down = (self._end - self._start).T
        self._beside = np.stack((-down, across, self._start[:, 0] * down - self._start[:, 1] * across))
        filters = [classes_of(line.labels, labels) for line in lines.values()]
        self._counted = np.array(filters, np.bool_).reshape(len(lines), len(labels))
        self._totals: dict[str, dict[str, int]] = {
            name: {way: int((so_far or {}).get(name, {}).get(way, 0)) for way in DIRECTIONS} for name in lines
        }
        self._of: dict[int, list[Crossing]] = {}
        self._gone: list[_Gone] = []
        none = (0, len(lines))
        self.crossed, self.crossings = np.zeros(none, np.bool_), np.zeros(0, np.int64)
        self._net = np.zeros(none, np.int64)  # crossings in minus out that are not counted yet
        self._right = np.zeros(none, np.bool_)  # of the line, or on it
        self._at, self._speed = np.zeros((0, 3)), np.zeros((0, 3))  # last foot, and its way per second
        self._seen_s = np.zeros(0)
        self._has_heir = np.zeros(0, np.bool_)

    @property
    def totals(self) -> dict[str, dict[str, int]]:
        """Line → direction → crossings so far."""
        return {name: dict(ways) for name, ways in self._totals.items()}

    def of(self, number: int) -> list[Crossing]:
        """What a track has crossed, in order."""
        return list(self._of.get(number, ()))

    def end(self, ended: Tracks, rows: NDArray[np.intp]) -> None:
        """Count what ended tracks, which are still in ``rows``, had crossed without getting away from the line."""
        if not self.names:
            return
        for index, row in enumerate(rows):
            if row >= 0:
                self._count(ended, index, row, np.flatnonzero(self._net[row]))
                if not self._has_heir[row]:
                    gone = _Gone(self._at[row], self._speed[row], self._right[row], float(self._seen_s[row]))
                    self._gone.append(gone)

    def move(self, rows: NDArray[np.intp], tracks: Tracks, *, width: int, height: int) -> None:
        """Tracks have come and gone: row ``i`` is now what was row ``rows[i]``, or new when that is -1."""
        if not self.names:
            self.crossed, self.crossings = np.zeros((len(rows), 0), np.bool_), np.zeros(len(rows), np.int64)
            return
        self.crossed, self.crossings = carry(self.crossed, rows), carry(self.crossings, rows)
        self._net, self._right = carry(self._net, rows), carry(self._right, rows)
        self._at, self._speed = carry(self._at, rows), carry(self._speed, rows)
        self._seen_s, self._has_heir = carry(self._seen_s, rows, -np.inf), carry(self._has_heir, rows)
        new = np.flatnonzero(rows < 0)
        if len(new):
            self._at[new] = feet_of(tracks.first_boxes_px[new], width, height)
            self._right[new] = self._at[new] @ self._beside >= 0
            self._seen_s[new] = tracks.started_s[new]
            self._gone = [gone for gone in self._gone if tracks.started_s[new[-1]] - gone.seen_s <= HEIR_WITHIN_S]
            for row in new:
                self._inherit(int(row), tracks, np.array((width, height)))
        if self._of and (ended := self._of.keys() - set(tracks.numbers.tolist())):
            for number in ended:
                del self._of[number]

    def see(self, tracks: Tracks, feet: Array, *, width: int, height: int) -> None:
        """Take in a frame. The rows are those of the last `move`."""
        if not self.names:
            return
        passed_s = tracks.seen_s - self._seen_s
        seen = passed_s > 0
        if not np.count_nonzero(seen):
            return
        right = feet @ self._beside >= 0
        if np.count_nonzero(anew := seen & self._has_heir):  # another has gone on from where it was
            self._at[anew], self._right[anew], self._speed[anew] = feet[anew], right[anew], 0.0
            self._has_heir[anew] = False
        turned = (right != self._right) & seen[:, None]
        if turns := np.count_nonzero(turned):
            if turns > 1:
                self._give_back(np.flatnonzero(turned.any(axis=1)), feet, right, passed_s)
                turned = (right != self._right) & seen[:, None]
            for row, line in np.argwhere(turned):
                if _meets(self._at[row], feet[row], self._start[line], self._end[line]):
                    self._net[row, line] += 1 if right[row, line] else -1
        news = np.where(self._seen_s == tracks.started_s, 1.0, NEWS) * seen / np.where(seen, passed_s, 1.0)
        self._speed = self._speed * (1.0 - news * passed_s)[:, None] + (feet - self._at) * news[:, None]
        if seen.all():
            self._at, self._right = feet, right
        else:
            self._at, self._right = np.where(seen[:, None], feet, self._at), np.where(seen[:, None], right, self._right)
        self._seen_s = tracks.seen_s
        if np.count_nonzero(self._net):
            self._settle(tracks, np.array((width, height)))

    def _settle(self, tracks: Tracks, size: NDArray[np.int64]) -> None:
        """Count the crossings of objects that are away from the line."""
        for row, line in np.argwhere(self._net):
            x1, y1, x2, y2 = tracks.boxes_px[row].tolist()
            ends_px = self._start[line] * size, self._end[line] * size
            if _distance(self._at[row, :2] * size, *ends_px) > max(AWAY * min(x2 - x1, y2 - y1), AWAY_PX):
                self._count(tracks, row, row, [line])

    def _count(self, tracks: Tracks, index: int, row: int, lines: Sequence[int] | NDArray[np.intp]) -> None:
        for line in lines:
            net, self._net[row, line] = int(self._net[row, line]), 0
            if self._counted[line, tracks.class_ids[index]]:
                name, way = self.names[line], DIRECTIONS[net < 0]
                self._totals[name][way] += abs(net)
                self._of.setdefault(int(tracks.numbers[index]), []).extend(
                    [Crossing(line=name, direction=way)] * abs(net)
                )
                self.crossed[row, line] = True
                self.crossings[row] += abs(net)

    def _give_back(self, rows: NDArray[np.intp], feet: Array, right: NDArray[np.bool_], passed_s: Array) -> None:
        """Undo exchanged numbers among ``rows``, which change sides now: each path goes on with whom it leads to."""
        expected = self._at + self._speed * passed_s[:, None]
        for i, a in enumerate(rows):
            for b in rows[i + 1 :]:
                opposite = (right[a] != right[b]) & (self._right[a] == right[b]) & (self._right[b] == right[a])
                kept = _length(feet[a] - expected[a]) + _length(feet[b] - expected[b])
                if opposite.any() and _length(feet[a] - expected[b]) + _length(feet[b] - expected[a]) < kept:
                    for state in (self._at, self._right, self._net, self._speed):
                        state[[a, b]] = state[[b, a]]
                    expected[[a, b]] = expected[[b, a]]

    def _inherit(self, row: int, tracks: Tracks, size: NDArray[np.int64]) -> None:
        """Let a new track go on from where another was lost, if it was near enough."""
        began_s, foot = float(tracks.started_s[row]), self._at[row]
        x1, y1, x2, y2 = tracks.first_boxes_px[row].tolist()
        near_px = min(x2 - x1, y2 - y1)

        def unlike(at: Array, speed: Array, seen_s: float) -> float:
            """How far it is from where the lost one should be by now, or, if it has stopped, from where it was."""
            ahead_px, there_px = (_length((each - foot)[:2] * size) for each in (at + speed * (began_s - seen_s), at))
            return ahead_px if ahead_px < near_px else near_px + there_px

        least = 2 * near_px
        heir_of: _Gone | int | None = None
        unseen = (self._seen_s < began_s) & (began_s - self._seen_s <= HEIR_WITHIN_S) & ~self._has_heir
        for other in np.flatnonzero(unseen & (tracks.seen_s == self._seen_s)):
            if (far := unlike(self._at[other], self._speed[other], float(self._seen_s[other]))) < least:
                least, heir_of = far, int(other)
        for gone in self._gone:
            if gone.seen_s < began_s and (far := unlike(gone.at, gone.speed, gone.seen_s)) < least:
                least, heir_of = far, gone
        if isinstance(heir_of, _Gone):
            self._gone.remove(heir_of)
            self._at[row], self._right[row] = heir_of.at, heir_of.right
            self._speed[row], self._seen_s[row] = heir_of.speed, heir_of.seen_s
        elif heir_of is not None:
            for state in (self._at, self._right, self._net, self._speed, self._seen_s):
                state[row] = state[heir_of]
            self._net[heir_of], self._has_heir[heir_of] = 0, True


def _length(way: Array) -> float:
    return float(np.hypot(way[0], way[1]))


def _cross(a: Array, b: Array) -> float:
    return float(a[0] * b[1] - a[1] * b[0])


def _meets(before: Array, now: Array, start: Array, end: Array) -> bool:
    """Whether a path that changes sides of a line's endless extension does so between its ends, ends included."""
    path = (now - before)[:2]
    return _cross(path, start - before[:2]) * _cross(path, end - before[:2]) <= 0


def _distance(point: Array, start: Array, end: Array) -> float:
    """From a point to the nearest point between two ends."""
    way = end - start
    along = float(np.clip(np.dot(point - start, way) / np.dot(way, way), 0.0, 1.0))
    return _length(point - start - along * way)
