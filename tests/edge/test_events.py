"""An object's life is told once, in order, with nothing left open."""

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.messages import Event, EventType, FrameSize, LatencyMs, ModelRef, decode, encode
from tinysight_edge.decode import Detections
from tinysight_edge.events import Identity, Lives, Moment, Sequence
from tinysight_edge.track import Tracker

BEGUN = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
WHO = Identity("s", "d", "cam0", "b00t", ModelRef(name="m", version="1.0.0", digest="0" * 64), ("cat", "dog"))


def moment(at_s: float) -> Moment:
    latency = LatencyMs(wait=0, preprocess=0, inference=0, decode=0, track=0, total=0)
    return Moment(BEGUN + timedelta(seconds=at_s), at_s, FrameSize(width=100, height=50), latency, None)


def story(frames: list[list[tuple[int, int]]], *, step_s: float = 0.1) -> list[Event]:
    """Events of frames that each hold (x, class) objects; all ended at the end."""
    tracker, lives = Tracker(), Lives(WHO, Sequence())
    told: list[Event] = []
    for i, objects in enumerate(frames):
        boxes = np.array([(x, 0, x + 20, 20) for x, _ in objects], np.float32).reshape(-1, 4)
        found = Detections(boxes, np.full(len(objects), 0.9, np.float32), np.array([c for _, c in objects], np.int32))
        told += lives.tell(*tracker.update(found, i * step_s), moment(i * step_s))
    return [*told, *lives.tell([], tracker.end_all(), moment(len(frames) * step_s))]


def test_one_object_starts_once_updates_and_ends_once() -> None:
    events = story([[(i, 0)] for i in range(60)])
    assert [event.type for event in events] == ["start", "update", "update", "end"]
    assert len({event.id for event in events}) == 1
    assert [event.seq for event in events] == [1, 2, 3, 4]


def test_times_are_those_of_the_frames() -> None:
    start, end = story([[(0, 0)]] * 5 + [[]] * 15)
    assert start.started_at == BEGUN
    assert start.seen_at == BEGUN + timedelta(seconds=0.2)
    assert end.ended_at == end.seen_at == BEGUN + timedelta(seconds=0.4)
    assert end.track.age_s == 0.4


def test_a_change_of_mind_about_the_label_is_told_at_once() -> None:
    events = story([[(0, 0)]] * 3 + [[(0, 1)]] * 6)
    assert [(event.type, event.label) for event in events] == [("start", "cat"), ("update", "dog"), ("end", "dog")]


def test_boxes_are_shares_of_the_frame() -> None:
    first = story([[(10, 0)]] * 3)[0]
    assert first.box == (0.1, 0.0, 0.3, 0.4)
    assert (first.frame.width, first.frame.height) == (100, 50)


def test_counts_hold_zeros_and_are_told_only_when_they_change() -> None:
    tracker, lives = Tracker(min_hits=1), Lives(WHO, Sequence())
    first = lives.counts([], at=BEGUN)
    assert first is not None
    assert first.objects == {"cat": 0, "dog": 0}
    assert lives.counts([], at=BEGUN) is None
    found = Detections(np.array([[0, 0, 9, 9]], np.float32), np.ones(1, np.float32), np.ones(1, np.int32))
    alive, _ = tracker.update(found, 0.0)
    second = lives.counts(alive, at=BEGUN)
    assert second is not None
    assert second.objects == {"cat": 0, "dog": 1}


@given(st.lists(st.lists(st.tuples(st.integers(-5, 105), st.integers(0, 1)), max_size=4), max_size=40))
def test_every_life_begins_ends_once_and_numbers_have_no_gap(frames: list[list[tuple[int, int]]]) -> None:
    events = story(frames)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    for object_id in {event.id for event in events}:
        kinds = [event.type for event in events if event.id == object_id]
        assert kinds[0] is EventType.START
        assert kinds[-1] is EventType.END
        assert set(kinds[1:-1]) <= {EventType.UPDATE}
    for event in events:
        assert decode(encode(event), Event) == event
