"""The hub: live frames are fresh, files are whole, cameras take turns, and come and go."""

import threading
import time

import numpy as np

from tinysight_contract.messages import utc_now
from tinysight_edge.cameras.hub import Frame, Gap, Hub, Seat
from tinysight_edge.cameras.pace import BackOff, RateLimit


def frame(camera: str, number: int) -> Frame:
    return Frame(camera, np.full((2, 2, 3), number, np.uint8), float(number), utc_now(), time.monotonic())


def read(seat: Seat, count: int) -> None:
    """What a file's thread does."""
    for i in range(count):
        seat.put(frame("a", i), live=False)


def taken(hub: Hub) -> list[tuple[str, int] | Gap]:
    """What the loop gets until all have left."""
    return [
        each if isinstance(each, Gap) else (each.camera, int(each.image_bgr[0, 0, 0]))
        for each in hub
        if each is not None
    ]


def test_on_a_live_source_the_newest_frame_wins_and_the_others_are_counted() -> None:
    hub = Hub()
    seat = hub.join("a")
    for i in range(5):
        seat.put(frame("a", i), live=True)
    seat.drop("rate")
    seat.leave()
    assert taken(hub) == [("a", 4), Gap("a")]
    assert hub.frames["a"] == 6
    assert hub.dropped["a"] == {"stale": 4, "rate": 1}


def test_a_gap_comes_after_the_frames_before_it_and_is_never_dropped() -> None:
    hub = Hub()
    seat = hub.join("a")
    seat.put(frame("a", 0), live=True)
    seat.lose()
    seat.put(frame("a", 1), live=True)
    seat.put(frame("a", 2), live=True)
    seat.leave()
    assert taken(hub) == [Gap("a"), ("a", 2), Gap("a")], "what waited before the gap is stale, the gap is not"
    assert hub.dropped["a"]["stale"] == 2


def test_a_file_waits_for_the_reader_and_loses_nothing() -> None:
    hub = Hub()
    seat = hub.join("a")

    def read_file() -> None:
        read(seat, 50)
        seat.leave()

    thread = threading.Thread(target=read_file)
    thread.start()
    assert taken(hub) == [*(("a", i) for i in range(50)), Gap("a")]
    thread.join()
    assert hub.dropped["a"] == {}


def test_cameras_take_turns() -> None:
    hub = Hub()
    for camera in "abc":
        seat = hub.join(camera)
        for i in range(2):
            seat.put(frame(camera, i), live=False)
        seat.leave()
    assert [each for each in taken(hub) if isinstance(each, tuple)] == [
        ("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("c", 1),
    ]  # fmt: skip


def test_a_fast_camera_takes_nothing_from_a_slow_one() -> None:
    hub = Hub()
    fast, slow = hub.join("fast"), hub.join("slow")
    got = []
    for i in range(20):
        fast.put(frame("fast", i), live=True)
        fast.put(frame("fast", i), live=True)
        if i % 4 == 0:
            slow.put(frame("slow", i), live=True)
        item = next(each for each in hub if each is not None)
        got.append(item.camera)
    assert got.count("slow") == 5


def test_stopping_ends_the_loop_and_frees_a_thread_that_waits() -> None:
    hub = Hub()
    seat = hub.join("a")
    thread = threading.Thread(target=read, args=(seat, 10))
    thread.start()
    hub.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert taken(hub) == []


def test_a_camera_that_leaves_at_once_takes_its_frames_along_and_frees_its_thread() -> None:
    hub = Hub()
    other, seat = hub.join("b"), hub.join("a")
    thread = threading.Thread(target=read, args=(seat, 10))
    thread.start()
    while len(seat.waiting) < 2:
        time.sleep(0.001)
    seat.leave(now=True)
    thread.join(5)
    assert not thread.is_alive()
    seat.leave(now=True)
    seat.lose()
    other.put(frame("b", 7), live=True)
    other.leave()
    got = taken(hub)
    assert sorted(map(str, got)) == sorted(map(str, [Gap("a"), ("b", 7), Gap("b")]))
    assert hub.frames["a"] == hub.dropped["a"]["stopped"] == 2, "each that arrived is accounted for"


def test_a_camera_that_comes_again_follows_its_own_gap_and_the_old_seat_is_dead() -> None:
    hub = Hub()
    old = hub.join("a")
    with hub.held():
        old.put(frame("a", 1), live=True)
        old.leave(now=True)
        new = hub.join("a")
        old.put(frame("a", 2), live=True)
        new.put(frame("a", 3), live=True)
        new.leave()
    assert taken(hub) == [Gap("a"), ("a", 3), Gap("a")]


def test_the_loop_is_held_while_the_last_camera_is_replaced() -> None:
    hub = Hub()
    seat = hub.join("a")
    got: list[tuple[str, int] | Gap] = []
    loop = threading.Thread(target=lambda: got.extend(taken(hub)))
    with hub.held():
        loop.start()
        seat.leave(now=True)
        time.sleep(0.05)
        assert loop.is_alive()
        new = hub.join("b")
    new.put(frame("b", 1), live=True)
    new.leave()
    loop.join(5)
    assert got == [Gap("a"), ("b", 1), Gap("b")]


def test_a_limit_passes_its_rate_evenly_with_jitter_and_after_a_pause() -> None:
    rng = np.random.default_rng(3)
    for fps in (30.0, 25.0, 15.0):
        times = np.arange(0, 60, 1 / fps) + rng.uniform(-0.005, 0.005, int(60 * fps))
        limit = RateLimit(10.0)
        passed = [at_s for at_s in times if limit.passes(at_s)]
        assert 595 <= len(passed) <= 605
        assert max(np.diff(passed)) < 0.1 + 1 / fps + 0.02
    assert sum(limit.passes(100.0 + i / 30) for i in range(30)) <= 11, "a pause saves nothing up"
    free = RateLimit(None)
    assert all(free.passes(0.0) for _ in range(5))


def test_a_limit_of_a_files_own_rate_passes_all() -> None:
    limit = RateLimit(30.0)
    assert all(limit.passes(i / 30) for i in range(10_000))


def test_waits_grow_to_half_a_minute_with_jitter_and_begin_anew_after_a_stable_time() -> None:
    back_off = BackOff()
    waits = [back_off.next_s(delivered_s=0.0) for _ in range(12)]
    for wait_s, most_s in zip(waits, [1, 2, 4, 8, 16, *[30] * 7], strict=True):
        assert most_s / 2 <= wait_s <= most_s
    assert len(set(waits[5:])) > 1
    assert back_off.next_s(delivered_s=9.0) >= 15.0, "one that breaks again soon is not stable"
    assert back_off.next_s(delivered_s=10.0) <= 1.0
