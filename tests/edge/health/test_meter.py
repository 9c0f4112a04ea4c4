"""The meter adds up, forgets nothing between two reports, and does not grow."""

import threading
import tracemalloc
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.messages import LatencyMs, utc_now
from tinysight_edge.cameras.hub import Frame, Hub
from tinysight_edge.health.meter import AGE_AT_PUBLISH, STAGES, Meter, Totals


@dataclass
class Counters:
    frames: Counter[str] = field(default_factory=Counter)
    dropped: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    forgotten: set[str] = field(default_factory=set)


def took(total: float, **stages: float) -> LatencyMs:
    zeros = dict.fromkeys(("wait", "preprocess", "inference", "decode", "track"), 0.0)
    return LatencyMs(**{**zeros, **stages}, total=total)


def test_a_report_says_what_each_stage_took_and_how_old_frames_were() -> None:
    hub = Counters(Counter(a=3))
    meter = Meter(hub)
    for i in (1.0, 2.0, 3.0):
        latency = took(10 * i, wait=i, preprocess=2 * i, inference=3 * i, decode=4 * i, track=5 * i)
        meter.note("a", latency, meaning_ms=6 * i, pictures_ms=7 * i)
    flow = meter.take()
    assert set(flow.latency_ms) == {*STAGES, AGE_AT_PUBLISH}
    assert [flow.latency_ms[stage].p50 for stage in STAGES] == [2, 4, 6, 8, 10, 12, 14]
    assert flow.cameras["a"].frame_age_ms.p50 == 32, "up to when its events were ready: with their meaning"


@given(st.lists(st.floats(0, 1e4, width=32), min_size=1, max_size=300))
def test_percentiles_are_those_of_numpy(ages: list[float]) -> None:
    meter = Meter(Counters(Counter(a=1)))
    for age in ages:
        meter.note("a", took(age))
    age_ms = meter.take().cameras["a"].frame_age_ms
    assert (age_ms.p50, age_ms.p95) == pytest.approx(tuple(np.percentile(ages, (50, 95))), rel=1e-5, abs=1e-3)


def test_each_report_begins_anew_and_totals_go_on() -> None:
    hub = Counters()
    meter = Meter(hub)
    for number in (1, 2):
        hub.frames["a"] += 5
        hub.dropped["a"]["stale"] += 2
        hub.dropped["a"]["damaged"] += 1
        meter.drop("a", "governed")
        meter.note("a", took(float(number)))
        told = meter.take().cameras["a"]
        assert (told.frames, told.inferred) == (5, 1)
        assert told.dropped == {"stale": 2, "damaged": 1, "governed": 1}
        assert told.frame_age_ms.p95 == number
    dropped = {("a", "stale"): 4, ("a", "damaged"): 2, ("a", "governed"): 2}
    assert meter.totals() == Totals({"a": 10}, {"a": 2}, dropped)
    assert meter.frames == 2
    assert meter.take().latency_ms == {}, "nothing was inferred, so nothing took time"


def test_cameras_are_told_apart_and_one_that_delivers_nothing_is_there_with_zeros() -> None:
    meter = Meter(Counters(Counter(a=2, b=1, idle=0)))
    meter.note("a", took(1.0))
    meter.note("b", took(9.0))
    cameras = meter.take().cameras
    assert {camera: each.frame_age_ms.p50 for camera, each in cameras.items()} == {"a": 1.0, "b": 9.0, "idle": 0.0}
    assert cameras["idle"].fps == cameras["idle"].fps_in == 0.0


def test_rates_are_per_second_of_what_came_and_of_what_was_inferred() -> None:
    hub = Counters(Counter(a=30))
    meter = Meter(hub)
    for _ in range(15):
        meter.note("a", took(1.0))
    flow = meter.take()
    assert flow.cameras["a"].fps_in == pytest.approx(30 / flow.seconds, abs=0.01)
    assert flow.cameras["a"].fps == pytest.approx(15 / flow.seconds, abs=0.01)


def test_when_more_come_than_it_holds_the_last_ones_count() -> None:
    meter = Meter(Counters(Counter(a=1)))
    for _ in range(20_000):
        meter.note("a", took(1000.0))
    for _ in range(8192):
        meter.note("a", took(1.0))
    assert meter.take().cameras["a"].frame_age_ms.p95 == 1.0


def test_a_hundred_thousand_frames_take_no_memory() -> None:
    meter, latency = Meter(Counters()), took(1.0)

    def note() -> None:
        for _ in range(50_000):
            meter.note("a", latency, meaning_ms=0.1)
            meter.drop("a", "still")
            meter.published(3.0)

    note()
    tracemalloc.start()
    note()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 4096


def test_a_report_while_frames_come_loses_none() -> None:
    meter, inferred = Meter(Counters(Counter(a=1))), 0

    def write() -> None:
        for _ in range(30_000):
            meter.note("a", took(2.0))

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        flow = meter.take()
        inferred += flow.cameras["a"].inferred
        assert flow.cameras["a"].frame_age_ms.p95 in {0.0, 2.0}
    assert inferred + meter.take().cameras["a"].inferred == 30_000


def test_the_age_at_publish_is_told_beside_the_stages() -> None:
    meter = Meter(Counters(Counter(a=1)))
    meter.note("a", took(1.0))
    for age in (10.0, 20.0, 30.0):
        meter.published(age)
    assert meter.take().latency_ms[AGE_AT_PUBLISH].p50 == 20.0


def test_a_look_takes_nothing_from_the_next_report() -> None:
    hub = Counters(Counter(a=2))
    meter = Meter(hub)
    meter.note("a", took(1.0))
    meter.drop("a", "still")
    meter.published(7.0)
    looked = meter.take(keep=True)
    told = meter.take()
    assert (looked.cameras["a"].frames, looked.latency_ms) == (2, told.latency_ms)
    assert looked.cameras["a"].dropped == told.cameras["a"].dropped == {"stale": 0, "still": 1}
    assert told.latency_ms[AGE_AT_PUBLISH].p50 == 7.0
    assert (told.cameras["a"].frames, told.cameras["a"].inferred) == (2, 1)
    assert meter.take().cameras["a"].frames == 0


def test_a_closed_account_has_what_was_on_its_way_as_stopped_and_counts_no_more() -> None:
    hub = Counters(Counter(a=9, b=1))
    meter = Meter(hub)
    hub.dropped["a"].update(stale=2, damaged=1)
    meter.drop("a", "governed")
    meter.note("a", took(1.0))
    meter.note("b", took(1.0))
    assert "stopped" not in meter.take().cameras["a"].dropped, "they are on their way, and may be told yet"
    hub.frames["a"] += 1
    meter.close()
    hub.frames["a"] += 1  # what a thread that was left behind still does
    hub.dropped["a"]["rate"] += 1
    meter.drop("a", "governed")
    meter.note("a", took(1.0))
    last = meter.take().cameras
    assert (last["a"].frames, last["a"].inferred) == (1, 0)
    assert last["a"].dropped == {"stale": 0, "damaged": 0, "governed": 0, "stopped": 5}
    assert last["b"].dropped == {"stale": 0}
    assert meter.take().cameras["a"].dropped["stopped"] == 0


def test_a_camera_that_is_gone_is_told_until_all_of_it_is_and_goes_on_when_it_is_back() -> None:
    hub = Counters(Counter(a=3, b=1))
    meter = Meter(hub)
    meter.note("a", took(1.0))
    meter.take()
    hub.frames["a"] += 1
    hub.forgotten.add("a")
    assert meter.take().cameras["a"].frames == 1
    assert set(meter.take().cameras) == {"b"}
    meter.drop("a", "reloaded")
    assert meter.take().cameras["a"].dropped == {"stale": 0, "reloaded": 1}
    assert set(meter.take().cameras) == {"b"}
    hub.forgotten.discard("a")
    hub.frames["a"] += 2
    assert meter.take().cameras["a"].frames == 2


def test_a_camera_that_goes_and_comes_back_between_two_reports_is_told_whole() -> None:
    hub = Hub()
    meter = Meter(hub)

    def come(count: int) -> None:
        seat = hub.join("a")
        for _ in range(count):
            seat.put(Frame("a", np.zeros((2, 2, 3), np.uint8), 0.0, utc_now(), 0.0), live=True)
        seat.leave(now=True)

    come(5)
    meter.take()
    come(3)
    hub.forget("a")
    come(2)
    told = meter.take().cameras["a"]
    assert (told.frames, told.dropped) == (5, {"stale": 3, "stopped": 2})
    hub.forget("a")
    assert meter.take().cameras == {}


def test_two_threads_that_drop_for_one_cause_lose_no_count() -> None:
    meter = Meter(Counters(Counter(a=1)))

    def drop() -> None:
        for _ in range(20_000):
            meter.drop("a", "reloaded")

    threads = [threading.Thread(target=drop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.totals().dropped == {("a", "reloaded"): 80_000}
