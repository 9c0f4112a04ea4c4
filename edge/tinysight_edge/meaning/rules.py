"""Which objects are worth an event, by the rules of the configuration.

In: tracks, which zones they are in and for how long, which lines they have crossed, the local time.
Out: which rule each fulfils at this moment. Keeps nothing of the tracks: that an object which once fulfilled a rule is
told to its end is the matter of `events`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_edge.config.types import RuleConfig, ScheduleConfig
from tinysight_edge.meaning.rows import classes_of
from tinysight_edge.tracking.tracks import Tracks

__all__ = ["Rules", "in_force"]

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def in_force(schedule: ScheduleConfig, local: datetime) -> bool:
    """Whether a schedule holds when the clock on the wall shows ``local``.

    An ``end`` at or before ``start`` is on the next day. Only the wall clock counts: an hour that comes twice when
    summer ends holds twice, one that is skipped in spring never comes.
    """
    now, start, end = local.hour * 60 + local.minute, _minutes(schedule.start), _minutes(schedule.end)
    today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
    if start < end:
        return today in schedule.days and start <= now < end
    return (today in schedule.days and now >= start) or (yesterday in schedule.days and now < end)


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


class Rules:
    """The rules that apply to one camera.

    Attributes:
        names: of the rules; the columns of `fulfilled`.
        any: whether rules are configured at all, for this camera or for others. Without any, everything is an event.

    Args:
        rules: as configured, for all cameras.
        camera: which one this is.
        zones: its zones' names, in the order of their columns.
        lines: its lines' names, likewise.
        labels: of the model, by class id.
    """

    def __init__(
        self,
        rules: Mapping[str, RuleConfig],
        *,
        camera: str,
        zones: Sequence[str],
        lines: Sequence[str],
        labels: Sequence[str],
    ) -> None:
        self.any = bool(rules)
        mine = {name: rule for name, rule in rules.items() if rule.cameras is None or camera in rule.cameras}
        self.names = tuple(mine)
        each = tuple(mine.values())
        filters = [classes_of(rule.labels, labels) for rule in each]
        self._labels = np.array(filters, np.bool_).reshape(len(each), len(labels)).T
        self._min_score = np.array([rule.min_score for rule in each], np.float32)
        self._min_dwell_s = np.array([rule.min_dwell for rule in each], np.float64)
        self._zones = _wanted([rule.zones for rule in each], zones)
        self._lines = _wanted([rule.lines for rule in each], lines)
        self._anywhere = np.array([rule.zones is None for rule in each], np.bool_)
        self._lineless = np.array([rule.lines is None for rule in each], np.bool_)
        self._schedules = [rule.schedule for rule in each]

    def in_force(self, local: datetime) -> NDArray[np.bool_]:
        """Which rules' schedules hold at a local time: bool (rules,). It changes with full minutes only."""
        return np.array([each is None or in_force(each, local) for each in self._schedules], np.bool_)

    def fulfilled(
        self,
        tracks: Tracks,
        *,
        in_zones: NDArray[np.bool_],
        dwell_s: NDArray[np.float64],
        crossed: NDArray[np.bool_],
        in_force: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Which track fulfils which rule now: bool (n, rules); all conditions of a rule at once.

        Args:
            tracks: n of them.
            in_zones: (n, zones).
            dwell_s: (n, zones).
            crossed: (n, lines).
            in_force: (rules,), as `in_force` says it of now.
        """
        met = self._labels[tracks.class_ids] & in_force & (tracks.median_scores[:, None] >= self._min_score)
        there = self._anywhere & ((tracks.seen_s - tracks.started_s)[:, None] >= self._min_dwell_s)
        if in_zones.size:
            long_enough = in_zones[:, None] & (dwell_s[:, None] >= self._min_dwell_s[:, None])
            there |= np.logical_or.reduce(long_enough & self._zones, axis=2)
        over = self._lineless | np.logical_or.reduce(crossed[:, None] & self._lines, axis=2)
        return np.asarray(met & there & over)


def _wanted(chosen: Sequence[tuple[str, ...] | None], names: Sequence[str]) -> NDArray[np.bool_]:
    """Which rule names which of this camera's zones or lines: bool (rules, names)."""
    rows = [[name in (each or ()) for name in names] for each in chosen]
    return np.array(rows, np.bool_).reshape(len(chosen), len(names))
