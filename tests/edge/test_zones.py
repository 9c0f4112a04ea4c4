"""Zones hold whom they should, and nobody comes or goes by a flicker."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from tinysight_edge.config.types import Polygon, ZoneConfig
from tinysight_edge.meaning.rows import feet_of
from tinysight_edge.meaning.zones import Polygons, Zones
from tinysight_edge.tracking.tracks import Tracks

Make = Callable[..., Tracks]
LEFT: Polygon = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
RIGHT: Polygon = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
grid = st.integers(0, 16).map(lambda k: k / 16)
corner = st.tuples(grid, grid)
polygon = st.lists(corner, min_size=3, max_size=9).map(tuple)


def homogeneous(*points: tuple[float, float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([(x, y, 1.0) for x, y in points])


def on_edge(polygon: Polygon, point: tuple[float, float]) -> bool:
    px, py = map(Fraction, point)
    for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        x1, y1, x2, y2 = map(Fraction, (ax, ay, bx, by))
        level = (x2 - x1) * (py - y1) == (px - x1) * (y2 - y1)
        if level and min(x1, x2) <= px <= max(x1, x2) and min(y1, y2) <= py <= max(y1, y2):
            return True
    return False


def winding(polygon: Polygon, point: tuple[float, float]) -> int:
    """How often the polygon goes around a point: the angles under which its edges are seen, summed."""
    turned = 0.0
    for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        ux, uy, vx, vy = ax - point[0], ay - point[1], bx - point[0], by - point[1]
        turned += math.atan2(ux * vy - uy * vx, ux * vx + uy * vy)
    return round(turned / (2 * math.pi))


@given(st.lists(polygon, min_size=1, max_size=4), st.lists(corner, min_size=1, max_size=8))
def test_a_point_is_within_when_the_polygon_winds_around_it(
    polygons: list[Polygon], points: list[tuple[float, float]]
) -> None:
    points = [point for point in points if not any(on_edge(polygon, point) for polygon in polygons)]
    assume(points)
    want = [[winding(polygon, point) != 0 for polygon in polygons] for point in points]
    assert Polygons(polygons).hold(homogeneous(*points)).tolist() == want


@given(st.lists(corner, min_size=1, max_size=20), grid, grid)
def test_zones_that_share_an_edge_share_no_point_and_leave_none_out(
    points: list[tuple[float, float]], above: float, below: float
) -> None:
    left = ((0.0, 0.0), (above, 0.0), (below, 1.0), (0.0, 1.0))
    right = ((1.0, 1.0), (below, 1.0), (above, 0.0), (1.0, 0.0))
    inside = [(min(x, 0.999), min(y, 0.999)) for x, y in points]
    assert (Polygons([left, right]).hold(homogeneous(*inside)).sum(axis=1) == 1).all()


@given(st.lists(st.tuples(st.floats(-500, 900), st.floats(-500, 900)), min_size=1, max_size=20))
def test_a_foot_beyond_the_frame_is_put_on_its_edge(feet: list[tuple[float, float]]) -> None:
    boxes = np.array([(x - 5, y - 9, x + 5, y) for x, y in feet], np.float32)
    whole = Polygons([((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))])
    assert whole.hold(feet_of(boxes, 320, 240)).all()


def slowly(inertia: int, sightings: list[bool | None]) -> list[tuple[bool, bool, float]]:
    """In it, has been in it, dwell after each frame; one frame a second, None where it was not seen."""
    now, entered, past_s, run = False, False, 0.0, [0.0][:0]
    since_s = last_s = 0.0
    told = []
    for at, within in enumerate(sightings):
        if within is not None:
            run = [*run, float(at)] if within != now else []
            if within and now:
                last_s = at
            if len(run) == inertia:
                if now:
                    past_s += last_s - since_s
                else:
                    since_s, last_s = run[0], at
                now, entered, run = not now, True, []
        told.append((now, entered, past_s + (last_s - since_s if now else 0.0)))
    return told


@given(st.integers(1, 4), st.lists(st.lists(st.sampled_from([True, False, None]), min_size=3, max_size=3), max_size=40))
def test_sightings_decide_after_the_inertia(tracks: Make, inertia: int, frames: list[list[bool | None]]) -> None:
    frames = [[True, False, True], *frames]  # a track is seen when it is first told of
    zones = Zones({"left": ZoneConfig(polygon=LEFT, inertia=inertia)}, ("cat",))
    zones.move(np.full(3, -1))
    seen_s, told = [0.0] * 3, []
    for at, frame in enumerate(frames):
        seen_s = [old if within is None else float(at) for old, within in zip(seen_s, frame, strict=True)]
        feet = {number: (10.0 if within else 90.0, 50.0) for number, within in enumerate(frame)}
        now = tracks(feet, at, seen_s=seen_s)
        zones.see(now, feet_of(now.boxes_px, 100, 100))
        told.append([(zones.now[i, 0], zones.entered[i, 0], zones.dwell_s[i, 0]) for i in range(3)])
    for column in range(3):
        assert [row[column] for row in told] == slowly(inertia, [frame[column] for frame in frames])


@given(st.integers(2, 5), st.data())
def test_a_visit_shorter_than_the_inertia_is_none(tracks: Make, inertia: int, data: st.DataObject) -> None:
    zones = Zones({"left": ZoneConfig(polygon=LEFT, inertia=inertia)}, ("cat",))
    zones.move(np.full(1, -1))
    at = 0
    for inside in data.draw(st.lists(st.integers(0, inertia - 1), max_size=10)):
        for x in [10.0] * inside + [90.0]:
            at += 1
            now = tracks({1: (x, 50.0)}, at)
            zones.see(now, feet_of(now.boxes_px, 100, 100))
            assert not zones.entered.any()


def test_a_zone_is_the_same_part_of_a_frame_of_another_size(tracks: Make) -> None:
    zones = Zones({"left": ZoneConfig(polygon=LEFT, inertia=1)}, ("cat",))
    zones.move(np.full(1, -1))
    for at, (width, x) in enumerate([(100, 40), (1000, 400), (1000, 600), (100, 60), (100, 49)], start=1):
        now = tracks({1: (x, 10.0)}, at)
        zones.see(now, feet_of(now.boxes_px, width, 100))
        assert bool(zones.now[0, 0]) is (x / width < 0.5)


def test_only_the_labels_of_a_zone_are_in_it(tracks: Make) -> None:
    zones = Zones(
        {"any": ZoneConfig(polygon=LEFT, inertia=1), "dogs": ZoneConfig(polygon=LEFT, labels=("dog",), inertia=1)},
        ("cat", "dog"),
    )
    zones.move(np.full(2, -1))
    now = tracks({1: (10, 10), 2: (20, 20)}, 1.0, classes=[0, 1])
    zones.see(now, feet_of(now.boxes_px, 100, 100))
    assert zones.now.tolist() == [[True, False], [True, True]]
    assert zones.of(1).entered == ["any", "dogs"]


def test_what_is_known_of_a_track_moves_with_its_row(tracks: Make) -> None:
    zones = Zones(
        {"left": ZoneConfig(polygon=LEFT, inertia=2), "right": ZoneConfig(polygon=RIGHT, inertia=2)}, ("cat",)
    )
    zones.move(np.full(2, -1))
    for at in (1, 2, 3):
        now = tracks({1: (10, 10), 2: (90, 10)}, at)
        zones.see(now, feet_of(now.boxes_px, 100, 100))
    zones.move(np.array([1, -1]))
    now = tracks({2: (90, 10), 3: (90, 10)}, 4)
    zones.see(now, feet_of(now.boxes_px, 100, 100))
    assert zones.now.tolist() == [[False, True], [False, False]]
    assert zones.dwell_s.tolist() == [[0.0, 3.0], [0.0, 0.0]]


def test_a_label_that_the_model_does_not_know_lets_nothing_in_and_its_neighbour_goes_on() -> None:
    named = {"dock": ("cat",), "yard": ("cat", "car")}
    configured = {name: ZoneConfig(polygon=LEFT, labels=labels) for name, labels in named.items()}
    assert Zones(configured, ("person", "car")).counted.tolist() == [[False, False], [False, True]]
