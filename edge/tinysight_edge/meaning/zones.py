"""Who stands in which part of the frame, since when, and for how long in all.

In: tracks and their feet, frame by frame.  Out: arrays with a row per track and a column per zone.
An object has entered or left only after so many sightings in a row (`ZoneConfig.inertia`), so one that sways on an edge
does not come and go. Frames on which it was not seen say nothing. A polygon that crosses itself holds every point that
it winds around (non-zero winding number, D. Sunday, Practical Geometry Algorithms, 2021).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.messages import Zones as ZonesInfo
from tinysight_edge.config.types import Polygon, ZoneConfig
from tinysight_edge.meaning.rows import carry, classes_of
from tinysight_edge.tracking.tracks import Tracks

__all__ = ["Polygons", "Zones"]


class Polygons:
    """Several polygons, tested at once.

    Args:
        polygons: their corners.
    """

    def __init__(self, polygons: Sequence[Polygon]) -> None:
        corners = max((len(polygon) for polygon in polygons), default=1)
        closed = np.zeros((len(polygons), corners + 1, 2))
        for index, polygon in enumerate(polygons):
            closed[index] = polygon[0]  # all surplus edges lead from the first corner to itself and are never crossed
            closed[index, : len(polygon)] = polygon
        x, y = closed[:, :, 0], closed[:, :, 1]
        across, down = np.diff(x, axis=1), np.diff(y, axis=1)
        beside = np.stack((-down, across, x[:, :-1] * down - y[:, :-1] * across)) * np.where(down < 0, -1, 1)
        self._y, self._edges = (
            y,
            beside.reshape(3, -1),
        )  # (x, y, 1) @ edges is above 0 left of an edge that it is level with

    def hold(self, feet: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which points (n, 3) are in which polygons: bool (n, polygons). Left and upper edges belong to it."""
        above = self._y[None] <= feet[:, 1, None, None]
        begins, ends = above[:, :, :-1].view(np.int8), above[:, :, 1:].view(np.int8)
        turns = (begins - ends) * (feet @ self._edges > 0).reshape(begins.shape)
        return np.asarray(np.add.reduce(turns, axis=2, dtype=np.int64) != 0)


class Zones:
    """The zones of one camera and who is in them.

    Attributes:
        names: of the zones; the columns below.
        now: bool (n, zones), it is in it.
        entered: bool (n, zones), it has been in it.

    Args:
        zones: as configured.
        labels: of the model, by class id.
    """

    def __init__(self, zones: Mapping[str, ZoneConfig], labels: Sequence[str]) -> None:
        self.names = tuple(zones)
        self._polygons = Polygons([zone.polygon for zone in zones.values()])
        self._inertia = np.array([zone.inertia for zone in zones.values()], np.int64)
        filters = [classes_of(zone.labels, labels) for zone in zones.values()]
        self.counted = np.array(filters, np.bool_).reshape(len(zones), len(labels))
        none = (0, len(zones))
        self.now, self.entered = np.zeros(none, np.bool_), np.zeros(none, np.bool_)
        self._contrary = np.zeros(none, np.int64)  # sightings in a row that say otherwise than ``now``
        self._since_s, self._last_in_s, self._summed_s = np.zeros(none), np.zeros(none), np.zeros(none)
        self._seen_s = np.zeros(0)

    def move(self, rows: NDArray[np.intp]) -> None:
        """Tracks have come and gone: row ``i`` is now what was row ``rows[i]``, or new when that is -1."""
        self.now, self.entered = carry(self.now, rows), carry(self.entered, rows)
        self._contrary = carry(self._contrary, rows)
        self._since_s, self._last_in_s = carry(self._since_s, rows), carry(self._last_in_s, rows)
        self._summed_s = carry(self._summed_s, rows)
        self._seen_s = carry(self._seen_s, rows, -np.inf)

    def see(self, tracks: Tracks, feet: NDArray[np.float64]) -> None:
        """Take in a frame. The rows are those of the last `move`."""
        seen = (tracks.seen_s > self._seen_s)[:, None]
        if not self.names or not np.count_nonzero(seen):
            return
        self._seen_s = tracks.seen_s
        at_s = tracks.seen_s[:, None]
        within = self._polygons.hold(feet) & self.counted.T[tracks.class_ids]
        contrary = within != self.now
        np.copyto(self._contrary, np.where(contrary, self._contrary + 1, 0), where=seen)
        np.copyto(self._last_in_s, at_s, where=within & seen)
        if not np.count_nonzero(contrary):
            return
        np.copyto(self._since_s, at_s, where=seen & (self._contrary == 1) & within)
        turned = seen & (self._contrary >= self._inertia)
        left = turned & self.now
        self._summed_s = np.where(left, self._summed_s + self._last_in_s - self._since_s, self._summed_s)
        self.now = self.now ^ turned
        self.entered = self.entered | self.now
        self._contrary = np.where(turned, 0, self._contrary)

    @property
    def dwell_s(self) -> NDArray[np.float64]:
        """From the first to the last sighting of each visit, summed: float64 (n, zones)."""
        return self._summed_s + np.where(self.now, self._last_in_s - self._since_s, 0.0)

    def of(self, row: int) -> ZonesInfo:
        """What is told of one object."""
        dwell_s = self.dwell_s[row]
        entered = np.flatnonzero(self.entered[row])
        return ZonesInfo(
            now=[self.names[column] for column in np.flatnonzero(self.now[row])],
            entered=[self.names[column] for column in entered],
            dwell_s={self.names[column]: round(float(dwell_s[column]), 3) for column in entered},
        )
