"""An object's life is told once, in order, with nothing left open."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.messages import Event, EventType, FrameSize, LatencyMs, ModelRef, decode, encode
from tinysight_contract.topics import EventTopic
from tinysight_edge.config.types import CameraConfig, LineConfig, RuleConfig, ScheduleConfig, ZoneConfig
from tinysight_edge.decode import Detections
from tinysight_edge.meaning.closing import closings
from tinysight_edge.meaning.events import UPDATE_EVERY_S, Identity, Lives, Moment, Sequence
from tinysight_edge.tracking.states import States
from tinysight_edge.tracking.tracks import Tracks
from tinysight_edge.units import Seconds

Make = Callable[..., Tracks]
BEGUN = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
WHO = Identity("s", "d", "cam0", "b00t", ModelRef(name="m", version="1.0.0", digest="0" * 64), ("cat", "dog"))
CAMERA = CameraConfig(
    source="0",
    zones={"dock": ZoneConfig(polygon=((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)), inertia=2)},
    lines={"gate": LineConfig(start=(0.25, 1.0), end=(0.25, 0.0))},
)


def moment(at_s: float) -> Moment:
    latency = LatencyMs(wait=0, preprocess=0, inference=0, decode=0, track=0, total=0)
    return Moment(BEGUN + timedelta(seconds=at_s), at_s, FrameSize(width=100, height=50), latency, None)


class Story:
    """One camera whose objects are shown frame after frame; those that are shown no more have ended."""

    def __init__(self, tracks: Make, rules: dict[str, RuleConfig] | None = None, zone: tzinfo = UTC) -> None:
        self.tracks = tracks
        self.lives = Lives(WHO, Sequence(), camera=CAMERA, rules=rules, zone=zone)
        self.last = Tracks.none()
        self.events: list[Event] = []

    def show(self, feet: dict[int, tuple[float, float]], at_s: float, **more: object) -> list[tuple[str, str]]:
        """What is told of one frame, as kinds and labels."""
        now = self.tracks(feet, at_s, **more)
        gone = self.last.take(~np.isin(self.last.numbers, now.numbers))
        told = self.lives.tell(now, gone, moment(at_s))
        self.last = now
        self.events += told
        return [(event.type, event.label) for event in told]

    def stop(self, at_s: float, reason: str = "stopped") -> None:
        self.events += self.lives.tell(Tracks.none(), self.last, moment(at_s), reason=reason)


def test_an_object_that_does_not_change_is_told_once_a_minute(tracks: Make) -> None:
    story = Story(tracks)
    told = [(at, kind) for at in range(150) for kind, _ in story.show({1: (5, 20)}, at)]
    story.stop(150)
    assert told == [(0, "start"), (UPDATE_EVERY_S, "update"), (2 * UPDATE_EVERY_S, "update")]
    assert len({event.id for event in story.events}) == 1
    assert [event.seq for event in story.events] == [1, 2, 3, 4]


def test_times_are_those_of_the_frames(tracks: Make) -> None:
    story = Story(tracks)
    story.show({1: (5, 20)}, 0.2)
    story.show({1: (5, 20)}, 0.4)
    story.show({1: (5, 20)}, 1.3, seen_s=[0.4])
    story.show({}, 1.5)
    start, end = story.events
    assert start.started_at == BEGUN
    assert start.seen_at == BEGUN + timedelta(seconds=0.2)
    assert end.ended_at == end.seen_at == BEGUN + timedelta(seconds=0.4)
    assert (end.track.age_s, end.reason) == (0.4, "left")


@pytest.mark.parametrize(
    "change", [{"classes": [1]}, {"stationary": True}, {"best": 0.99}], ids=["label", "rest", "score"]
)
def test_lesser_changes_are_told_once_a_second(tracks: Make, change: dict[str, object]) -> None:
    story = Story(tracks)
    story.show({1: (5, 20)}, 0.0, best=0.8)
    more = {"best": 0.8, **change}
    told = [at for at in range(1, 30) if story.show({1: (5, 20)}, at / 10, **more)]
    assert told == [10]


def test_a_score_that_is_hardly_better_is_not_told(tracks: Make) -> None:
    story = Story(tracks)
    for at in range(50):
        story.show({1: (5, 20)}, at / 10, best=0.8 + min(at, 9) / 100)
    assert len(story.events) == 1


def test_flicker_between_labels_is_told_no_more_than_once_a_second(tracks: Make) -> None:
    story = Story(tracks)
    for at in range(300):
        story.show({1: (5, 20)}, at / 30, classes=[at % 2])
    assert len(story.events) <= 11


def test_zones_and_lines_are_told_at_once(tracks: Make) -> None:
    story = Story(tracks)
    told = {x: kinds for x in range(20, 65) if (kinds := story.show({1: (x, 20)}, (x - 20) / 10))}
    assert list(told) == [
        20,
        28,
        51,
    ]  # first seen; past the gate by a tenth of the box (more than 2 px); twice in the dock
    story.show({}, 5.0)
    crossed, entered, end = story.events[1:]
    assert [(each.line, each.direction) for each in crossed.crossed] == [("gate", "in")]
    assert (entered.zones.now, entered.zones.entered, entered.zones.dwell_s) == (["dock"], ["dock"], {"dock": 0.1})
    assert (end.type, end.zones.dwell_s, end.reason) == (EventType.END, {"dock": 1.4}, "left")


def test_a_crossing_that_only_the_end_decides_is_told_with_it(tracks: Make) -> None:
    story = Story(tracks)
    for at, x in enumerate((20, 26)):
        story.show({1: (x, 20)}, at)
    story.show({}, 2)
    assert [(event.type, len(event.crossed)) for event in story.events] == [("start", 0), ("end", 1)]


def test_boxes_are_shares_of_the_frame(tracks: Make) -> None:
    story = Story(tracks)
    story.show({1: (20, 20), 2: (97, 55)}, 0.0)
    assert [event.box for event in story.events] == [(0.1, 0.0, 0.3, 0.4), (0.87, 0.7, 1.0, 1.0)]
    assert (story.events[0].frame.width, story.events[0].frame.height) == (100, 50)


@pytest.mark.parametrize("reason", ["stopped", "camera lost"])
def test_an_end_says_why(tracks: Make, reason: str) -> None:
    story = Story(tracks)
    story.show({1: (5, 20)}, 0.0)
    story.stop(1.0, reason)
    assert [event.reason for event in story.events] == [None, reason]


def test_what_fulfils_a_rule_once_is_told_to_its_end_with_its_true_beginning(tracks: Make) -> None:
    story = Story(tracks, {"loiters": RuleConfig(zones=("dock",), min_dwell=Seconds(3.0))})
    told = [at for at in range(10) if story.show({1: (60, 20), 2: (5, 20)}, at)]
    assert told == [3]
    story.show({1: (40, 20), 2: (5, 20)}, 10)
    story.show({1: (40, 20), 2: (5, 20)}, 11)
    story.show({}, 12)
    assert [(event.type, event.rules, event.zones.now) for event in story.events] == [
        ("start", ["loiters"], ["dock"]),
        ("update", ["loiters"], []),
        ("end", ["loiters"], []),
    ]
    assert story.events[0].started_at == BEGUN


def test_another_rule_is_told_when_it_is_fulfilled(tracks: Make) -> None:
    story = Story(tracks, {"cats": RuleConfig(labels=("cat",)), "late": RuleConfig(min_dwell=Seconds(0.5))})
    told = [(at, kind) for at in range(20) for kind, _ in story.show({1: (5, 20), 2: (5, 40)}, at / 10, classes=[0, 1])]
    assert told == [(0, "start"), (5, "update"), (5, "start")]
    assert story.events[1].rules == ["cats", "late"]


def test_rules_of_other_cameras_leave_nothing_to_tell(tracks: Make) -> None:
    story = Story(tracks, {"elsewhere": RuleConfig(cameras=("cam1",))})
    assert not any(story.show({1: (5, 20)}, at) for at in range(5))
    story.show({}, 5)
    assert story.events == []


def test_a_line_that_counts_at_the_end_makes_an_event_of_its_rule(tracks: Make) -> None:
    story = Story(tracks, {"gate": RuleConfig(lines=("gate",))})
    for at, x in enumerate((20, 26)):
        assert story.show({1: (x, 20)}, at) == []
    assert [kind for kind, _ in story.show({}, 2)] == ["start", "end"]


def test_schedules_go_by_local_time(tracks: Make) -> None:
    rules = {"noon": RuleConfig(schedule=ScheduleConfig(start="21:00", end="22:00"))}
    tokyo, here = timezone(timedelta(hours=9)), UTC
    assert [bool(Story(tracks, rules, zone=zone).show({1: (5, 20)}, 0)) for zone in (tokyo, here)] == [True, False]


def test_counts_hold_zeros_and_are_told_only_when_they_change(tracks: Make) -> None:
    story = Story(tracks)
    first = story.lives.counts(at=BEGUN)
    assert first is not None
    assert first.objects == {"cat": 0, "dog": 0}
    assert first.zones == {"dock": {"cat": 0, "dog": 0}}
    assert first.lines == {"gate": {"in": 0, "out": 0}}
    assert story.lives.counts(at=BEGUN) is None
    for at, x in enumerate((20, 60, 60)):
        story.show({1: (x, 20), 2: (5, 20)}, at, classes=[1, 0])
        second = story.lives.counts(at=BEGUN)
        assert story.lives.counts(at=BEGUN) is None
    assert second is not None
    assert second.objects == {"cat": 1, "dog": 1}
    assert second.zones == {"dock": {"cat": 0, "dog": 1}}
    assert second.lines == {"gate": {"in": 1, "out": 0}} == story.lives.crossed
    story.show({}, 3)
    last = story.lives.counts(at=BEGUN)
    assert last is not None
    assert (last.objects, last.zones) == (first.objects, first.zones)


def test_states_of_a_classifier_have_lives_too() -> None:
    lives, states = Lives(WHO, Sequence(), gone="changed"), States(threshold=0.5)
    events: list[Event] = []
    for at in range(40):
        found = Detections(
            np.array([[0, 0, 100, 50]], np.float32), np.ones(1, np.float32), np.array([at // 20], np.int32)
        )
        events += lives.tell(*states.update(found, at / 10), moment(at / 10))
        if at == 10:
            counts = lives.counts(at=BEGUN)
            assert counts is not None
            assert counts.objects == {"cat": 1, "dog": 0}
    assert [(event.type, event.label, event.reason) for event in events] == [
        ("start", "cat", None),
        ("end", "cat", "changed"),
        ("start", "dog", None),
    ]
    assert events[0].box == (0.0, 0.0, 1.0, 1.0)
    assert events[2].started_at == BEGUN + timedelta(seconds=2.0)


life = st.tuples(st.integers(0, 15), st.integers(1, 15), st.integers(0, 99), st.integers(-9, 9))  # from, for, x, speed
some_rules = st.sampled_from(
    [
        {},
        {"dock": RuleConfig(zones=("dock",))},
        {"gate": RuleConfig(lines=("gate",))},
        {"cats": RuleConfig(labels=("cat",)), "dogs": RuleConfig(labels=("dog",), min_dwell=Seconds(1.0))},
    ]
)


@given(st.lists(life, max_size=6), some_rules, st.data())
def test_every_life_begins_once_ends_once_and_numbers_have_no_gap(
    tracks: Make, objects: list[tuple[int, int, int, int]], rules: dict[str, RuleConfig], data: st.DataObject
) -> None:
    story, counted = Story(tracks, rules), Counter[str]()
    for at in range(32):
        feet = {
            number: (float(x + speed * (at - first)), 25.0)
            for number, (first, frames, x, speed) in enumerate(sorted(objects), start=1)
            if first <= at < first + frames
        }
        classes = data.draw(st.lists(st.integers(0, 1), min_size=len(feet), max_size=len(feet)))
        story.show(feet, at / 5, classes=classes)
        if (counts := story.lives.counts(at=BEGUN)) is not None:
            counted = Counter(counts.objects)
            assert all(0 <= counts.zones["dock"][label] <= n for label, n in counts.objects.items())
        assert counted == Counter({"cat": classes.count(0), "dog": classes.count(1)})
    events = story.events
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    for object_id in {event.id for event in events}:
        kinds = [event.type for event in events if event.id == object_id]
        assert kinds[0] is EventType.START
        assert kinds[-1] is EventType.END
        assert set(kinds[1:-1]) <= {EventType.UPDATE}
    if not rules:
        assert len({event.id for event in events}) == len(objects)
    told = Counter(each.direction for event in events if event.type is EventType.END for each in event.crossed)
    if rules in ({}, {"gate": RuleConfig(lines=("gate",))}):
        assert {"in": told["in"], "out": told["out"]} == story.lives.crossed["gate"]
    for event in events:
        assert decode(encode(event), Event) == event
        assert set(event.zones.now) <= set(event.zones.entered) == set(event.zones.dwell_s)


def test_what_the_last_start_left_open_is_closed_in_the_name_of_this_one(tracks: Make) -> None:
    story = Story(tracks)
    story.show({1: (5, 20), 2: (60, 20)}, 4.0)
    story.stop(5.0)
    left = [("tinysight/v1/s/d/camera/cam0/event", event) for event in (*story.events[:2], story.events[3])]
    sequence = Sequence()
    ends = closings(left, site="s", device="d", boot_id="next", sequence=sequence)
    assert [topic for topic, _ in ends] == [EventTopic("s", "d", "cam0")] * 3
    assert [(end.type, end.boot_id, end.seq) for _, end in ends] == [(EventType.END, "next", seq) for seq in (1, 2, 3)]
    for (_, event), (_, end) in zip(left, ends, strict=True):
        assert (end.id, end.started_at, end.ended_at) == (event.id, event.started_at, event.seen_at)
        assert not end.replayed
    assert [end.reason for _, end in ends] == ["restarted", "restarted", "stopped"]
    assert sequence.next() == 4


def test_what_was_told_under_another_name_takes_no_number_of_this_device(tracks: Make) -> None:
    story = Story(tracks)
    story.show({1: (5, 20)}, 4.0)
    sequence = Sequence()
    [(topic, end)] = closings(
        [("tinysight/v1/s/d/camera/cam0/event", story.events[0])],
        site="s",
        device="new",
        boot_id="n",
        sequence=sequence,
    )
    assert (topic.device, end.device, end.seq, sequence.last) == ("d", "d", 1, 0)
