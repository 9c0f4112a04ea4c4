"""Turn tracks into the messages of the contract: the life of each object, and what is present now.

In: one camera's tracks after each frame.  Out: `Event`s with rising ``seq``, and `Counts` when they changed.
What zones, lines and rules make of the tracks is theirs to say; here it is told. What was told last is kept as arrays
and compared at once, so an object that does not change costs nothing of its own.
No clock and no I/O: times come with the frame. The life of an event is described in docs/events.md.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.messages import Counts, Event, EventType, FrameSize, LatencyMs, ModelRef
from tinysight_contract.messages import Track as TrackInfo
from tinysight_edge.config.types import CameraConfig, RuleConfig
from tinysight_edge.meaning.lines import Lines
from tinysight_edge.meaning.rows import carry, feet_of, rows_of
from tinysight_edge.meaning.rules import Rules
from tinysight_edge.meaning.zones import Zones
from tinysight_edge.tracking.tracks import Tracks

__all__ = ["Identity", "Lives", "Moment", "Sequence"]

UPDATE_EVERY_S: Final = 60.0
UPDATE_WITHIN_S: Final = 1.0  # changes of less weight than a zone, a line or a rule are told once in so long
BETTER_SCORE: Final = 0.1
_LESSER: Final = 2  # columns of what is compared: class and rest, which are of less weight; crossings, zones, rules


@dataclass(frozen=True, slots=True)
class Moment:
    """The frame that events speak of.

    Attributes:
        at: when it was captured, aware UTC.
        at_s: the same in the source's seconds, as in the tracks.
        frame: its size.
        latency: what it has cost so far.
        clock_synced: whether the clock is known to be right; None when that is not known.
    """

    at: datetime
    at_s: float
    frame: FrameSize
    latency: LatencyMs
    clock_synced: bool | None


class Sequence:
    """The device's event number, from 1, shared by its cameras."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        """The next number."""
        self.last += 1
        return self.last


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is speaking: what every event of a camera carries.

    Attributes:
        site: the site's id.
        device: the device's id.
        camera: the camera's id.
        boot_id: of this start of the agent.
        model: which model sees.
        labels: its labels by class id.
    """

    site: str
    device: str
    camera: str
    boot_id: str
    model: ModelRef
    labels: tuple[str, ...]


class Lives:
    """The lives of one camera's objects, told as events.

    Args:
        who: goes into every event.
        sequence: of the device.
        camera: its zones and lines.
        rules: of the device; what becomes an event.
        gone: the reason of an end when the tracker says that an object has ended: ``left``, or ``changed`` of states.
        crossed: totals of lines to go on from, when only the configuration has changed.
        zone: of the clock that schedules go by; None is the device's.

    Attributes:
        ids: of the lives that are open, by their tracks' numbers.

    Raises:
        ConfigError: a line has no length.
    """

    def __init__(
        self,
        who: Identity,
        sequence: Sequence,
        *,
        camera: CameraConfig | None = None,
        rules: Mapping[str, RuleConfig] | None = None,
        gone: str = "left",
        crossed: Mapping[str, Mapping[str, int]] | None = None,
        zone: tzinfo | None = None,
    ) -> None:
        self._who, self._sequence, self._gone, self._zone = who, sequence, gone, zone
        self._zones = Zones(camera.zones if camera else {}, who.labels)
        self._lines = Lines(camera.lines if camera else {}, who.labels, crossed)
        self._rules = Rules(
            rules or {}, camera=who.camera, zones=self._zones.names, lines=self._lines.names, labels=who.labels
        )
        self.ids: dict[int, str] = {}
        self._started: dict[int, datetime] = {}
        self._numbers, self._class_ids = np.zeros(0, np.int64), np.zeros(0, np.int32)
        self._fulfilled = np.zeros((0, len(self._rules.names)), np.bool_)
        self._told = np.zeros((0, _LESSER + 1 + len(self._zones.names) + len(self._rules.names)), np.int64)
        self._is_open, self._told_s, self._told_best = np.zeros(0, np.bool_), np.zeros(0), np.zeros(0, np.float32)
        self._minute, self._in_force = -1, np.zeros(len(self._rules.names), np.bool_)
        self._present: tuple[bytes, bytes, dict[str, dict[str, int]]] | None = None
        self._counted: NDArray[np.int64] | None = None
        self._counted_lines: dict[str, dict[str, int]] = {}

    def tell(self, alive: Tracks, ended: Tracks, moment: Moment, *, reason: str | None = None) -> list[Event]:
        """Events for what changed with this frame: ends first, then starts and updates.

        Args:
            alive: believed tracks that are alive.
            ended: believed tracks that ended with this frame.
            moment: the frame.
            reason: why they ended, when it is not that they left: ``stopped``, ``camera lost``,
                ``model changed``.
        """
        events: list[Event] = []
        if len(ended):
            self._end(ended, moment, reason or self._gone, events)
        width, height = moment.frame.width, moment.frame.height
        if alive.numbers.tobytes() != self._numbers.tobytes():
            self._move(alive, width, height)
        self._class_ids = alive.class_ids
        if not len(alive):
            return events
        if self._zones.names or self._lines.names:
            feet = feet_of(alive.boxes_px, width, height)
            self._zones.see(alive, feet)
            self._lines.see(alive, feet, width=width, height=height)
        if self._rules.names:
            self._fulfilled |= self._judge(alive, slice(None), moment)
        now = np.empty_like(self._told)
        now[:, 0], now[:, 1], now[:, 2] = alive.class_ids, alive.stationary, self._lines.crossings
        now[:, 3 : 3 + len(self._zones.names)], now[:, 3 + len(self._zones.names) :] = self._zones.now, self._fulfilled
        for row in np.flatnonzero(self._due(alive, now, moment.at_s)).tolist():
            self._told[row] = now[row]
            kind = EventType.UPDATE if self._is_open[row] else EventType.START
            events.append(self._tell(kind, alive, row, moment, row=row))
        return events

    def counts(self, *, at: datetime) -> Counts | None:
        """What is present since the last `tell`, and crossings so far, if that changed since it was last asked for."""
        present = self._class_ids.tobytes(), self._zones.now.tobytes(), self._lines.totals
        if present == self._present:
            return None
        self._present = present
        classes = len(self._who.labels)
        columns, rows = np.nonzero(self._zones.now.T)
        places = np.concatenate((self._class_ids, (columns + 1) * classes + self._class_ids[rows]))
        counted = np.bincount(places, minlength=(1 + len(self._zones.names)) * classes)
        lines = present[2]
        if self._counted is not None and np.array_equal(counted, self._counted) and lines == self._counted_lines:
            return None
        self._counted, self._counted_lines = counted, lines
        objects, *zones = ([int(n) for n in row] for row in counted.reshape(-1, classes))
        return Counts(
            at=at,
            boot_id=self._who.boot_id,
            objects=dict(zip(self._who.labels, objects, strict=True)),
            zones={
                name: {label: n for label, n, wanted in zip(self._who.labels, row, counts, strict=True) if wanted}
                for name, row, counts in zip(self._zones.names, zones, self._zones.counted, strict=True)
            },
            lines=lines,
        )

    def seen_by(self, model: ModelRef) -> None:
        """Another model with the same labels sees from now on; all lives go on."""
        self._who = replace(self._who, model=model)

    @property
    def crossed(self) -> dict[str, dict[str, int]]:
        """Totals of lines so far, for the lives that go on after a change of the configuration."""
        return self._lines.totals

    def _end(self, ended: Tracks, moment: Moment, reason: str, events: list[Event]) -> None:
        rows = rows_of(ended.numbers, self._numbers)
        before = self._lines.crossings.copy()
        self._lines.end(ended, rows)
        for index, row in enumerate(rows.tolist()):
            if row < 0:
                continue
            if not self._is_open[row] and self._lines.crossings[row] > before[row]:  # it may have been worth telling
                one = ended.take(np.array([index]))
                self._fulfilled[row] |= self._judge(one, slice(row, row + 1), moment)[0]
                if self._fulfilled[row].any():
                    events.append(self._tell(EventType.START, ended, index, moment, row=row))
            if self._is_open[row]:
                events.append(self._tell(EventType.END, ended, index, moment, row=row, reason=reason))

    def _move(self, alive: Tracks, width: int, height: int) -> None:
        rows = rows_of(alive.numbers, self._numbers)
        self._numbers = alive.numbers
        self._zones.move(rows)
        self._lines.move(rows, alive, width=width, height=height)
        self._fulfilled, self._told = carry(self._fulfilled, rows), carry(self._told, rows)
        self._is_open, self._told_s = carry(self._is_open, rows), carry(self._told_s, rows)
        self._told_best = carry(self._told_best, rows)

    def _judge(self, tracks: Tracks, rows: slice, moment: Moment) -> NDArray[np.bool_]:
        """Which rules ``tracks`` fulfil, whose state is in ``rows``."""
        if (minute := int(moment.at.timestamp() // 60)) != self._minute:
            self._minute, self._in_force = minute, self._rules.in_force(moment.at.astimezone(self._zone))
        return self._rules.fulfilled(
            tracks,
            in_zones=self._zones.now[rows],
            dwell_s=self._zones.dwell_s[rows],
            crossed=self._lines.crossed[rows],
            in_force=self._in_force,
        )

    def _due(self, alive: Tracks, now: NDArray[np.int64], at_s: float) -> NDArray[np.bool_]:
        """Which rows have something to be told."""
        changed = now != self._told
        silent_s = at_s - self._told_s
        lesser = changed[:, 0] | changed[:, 1] | (alive.best_scores >= self._told_best + BETTER_SCORE)
        due = (
            np.logical_or.reduce(changed[:, _LESSER:], axis=1)
            | (lesser & (silent_s >= UPDATE_WITHIN_S))
            | (silent_s >= UPDATE_EVERY_S)
        )
        return np.where(self._is_open, due, self._fulfilled.any(axis=1) if self._rules.any else True)

    def _tell(
        self, kind: EventType, tracks: Tracks, index: int, moment: Moment, *, row: int, reason: str | None = None
    ) -> Event:
        """Event of the track at ``index``, whose state is in ``row``."""
        number, frame = int(tracks.numbers[index]), moment.frame
        seen_s, started_s = float(tracks.seen_s[index]), float(tracks.started_s[index])
        if kind is EventType.START:
            started_at = moment.at - timedelta(seconds=moment.at_s - started_s)
            self.ids[number] = f"{int(started_at.timestamp() * 1000):x}-{secrets.token_hex(4)}"
            self._started[number] = started_at
        id_, started_at = self.ids[number], self._started[number]
        if kind is EventType.END:
            del self.ids[number], self._started[number]
        self._is_open[row] = kind is not EventType.END
        self._told_s[row], self._told_best[row] = moment.at_s, tracks.best_scores[index]
        seen_at = moment.at - timedelta(seconds=moment.at_s - seen_s)
        size = (frame.width, frame.height) * 2
        box = [
            round(min(max(side / of, 0.0), 1.0), 5)
            for side, of in zip(tracks.boxes_px[index].tolist(), size, strict=True)
        ]
        class_id = int(tracks.class_ids[index])
        return Event(
            id=id_,
            type=kind,
            boot_id=self._who.boot_id,
            seq=self._sequence.next(),
            site=self._who.site,
            device=self._who.device,
            camera=self._who.camera,
            model=self._who.model,
            label=self._who.labels[class_id],
            class_id=class_id,
            score=round(float(tracks.scores[index]), 4),
            best_score=round(float(tracks.best_scores[index]), 4),
            box=(box[0], box[1], box[2], box[3]),
            frame=frame,
            zones=self._zones.of(row),
            track=TrackInfo(age_s=round(seen_s - started_s, 3), stationary=bool(tracks.stationary[index])),
            started_at=started_at,
            seen_at=seen_at,
            ended_at=seen_at if kind is EventType.END else None,
            clock_synced=moment.clock_synced,
            replayed=False,
            latency_ms=moment.latency,
            crossed=self._lines.of(number),
            rules=[self._rules.names[column] for column in np.flatnonzero(self._fulfilled[row])],
            reason=reason,
        )
