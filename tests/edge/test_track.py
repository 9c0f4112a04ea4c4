"""Objects keep their number while they are followed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_edge.decode import Detections
from tinysight_edge.track import Tracker

Box = tuple[float, float, float, float]


def seen(*boxes: Box, classes: tuple[int, ...] | None = None, score: float = 0.9) -> Detections:
    n = len(boxes)
    ids = np.array(classes or (0,) * n, np.int32)
    return Detections(np.array(boxes, np.float32).reshape(n, 4), np.full(n, score, np.float32), ids)


def walk(x: float, y: float = 0.0, side: float = 40.0) -> Box:
    return (x, y, x + side, y + side)


def test_an_object_is_believed_after_three_frames_in_a_row() -> None:
    tracker = Tracker()
    alive = [len(tracker.update(seen(walk(4.0 * i)), i / 10)[0]) for i in range(4)]
    assert alive == [0, 0, 1, 1]


def test_a_flicker_is_never_believed() -> None:
    tracker = Tracker()
    for i in range(20):
        alive, ended = tracker.update(seen(walk(0)) if i % 3 == 0 else seen(), i / 10)
        assert alive == ended == []


def test_an_object_keeps_its_number_through_a_short_absence() -> None:
    tracker = Tracker()
    for i in range(5):
        tracker.update(seen(walk(12.0 * i)), i / 10)
    for i in range(5, 9):
        alive, ended = tracker.update(seen(), i / 10)
        assert len(alive) == 1
        assert not ended
    alive, _ = tracker.update(seen(walk(12.0 * 9)), 0.9)
    assert [track.number for track in alive] == [1], "its speed says where it should be"


def test_an_object_ends_once_after_it_was_unseen_for_a_second() -> None:
    tracker = Tracker()
    for i in range(5):
        tracker.update(seen(walk(0)), i / 10)
    ends = [len(tracker.update(seen(), 0.5 + i / 10)[1]) for i in range(20)]
    assert sum(ends) == 1
    assert ends.index(1) == 10
    assert tracker.end_all() == []


def test_two_objects_that_pass_each_other_keep_their_numbers() -> None:
    tracker = Tracker()
    for i in range(30):
        alive, _ = tracker.update(seen(walk(10.0 * i), walk(290.0 - 10.0 * i, y=30.0)), i / 10)
    assert {track.number: float(track.box_px[1]) for track in alive} == {1: 0.0, 2: 30.0}


def test_the_label_is_what_most_of_the_evidence_says() -> None:
    tracker = Tracker()
    for i, label in enumerate((3, 3, 8, 3, 3)):
        alive, _ = tracker.update(seen(walk(0), classes=(label,)), i / 10)
    assert [track.class_id for track in alive] == [3]


def test_a_second_reading_of_the_same_object_is_not_another_object() -> None:
    tracker = Tracker()
    for i in range(6):
        alive, _ = tracker.update(seen(walk(0), walk(2), classes=(3, 8)) if i else seen(walk(0), classes=(3,)), i / 10)
    assert len(alive) == 1


def test_a_classifier_begins_anew_when_the_class_changes() -> None:
    tracker = Tracker(same_class=True, max_lost_s=0.5)
    told = []
    for i in range(20):
        alive, ended = tracker.update(seen((0, 0, 64, 64), classes=(0 if i < 10 else 1,)), i / 10)
        told.append(([t.class_id for t in alive], [t.class_id for t in ended]))
    assert told[9] == ([0], [])
    assert [ended for _, ended in told if ended] == [[0]]
    assert told[-1] == ([1], [])


def test_in_pictures_that_have_nothing_to_do_with_each_other_an_object_lives_for_one() -> None:
    tracker = Tracker(min_hits=1, max_lost_s=0.0)
    numbers = []
    for i in range(3):
        alive, ended = tracker.update(seen(walk(0)), float(i))
        numbers.append(([t.number for t in alive], [t.number for t in ended]))
    assert numbers == [([1], []), ([2], [1]), ([3], [2])]


def test_what_does_not_move_is_stationary_after_three_seconds() -> None:
    tracker = Tracker()
    rests = [[track.stationary for track in tracker.update(seen(walk(i % 2)), i / 2)[0]] for i in range(10)]
    assert rests == [[]] * 2 + [[False]] * 4 + [[True]] * 4
    (track,), _ = tracker.update(seen(walk(25)), 5.0)
    assert not track.stationary


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200), st.integers(0, 3)), max_size=6), max_size=25)
)
def test_whatever_is_seen_numbers_are_unique_and_every_believed_object_ends_once(
    frames: list[list[tuple[int, int, int]]],
) -> None:
    tracker = Tracker()
    begun: set[int] = set()
    ended: list[int] = []
    for i, objects in enumerate(frames):
        boxes = tuple(walk(x, y) for x, y, _ in objects)
        alive, gone = tracker.update(seen(*boxes, classes=tuple(c for *_, c in objects)), i / 10)
        assert len({track.number for track in alive}) == len(alive)
        assert not {track.number for track in alive} & set(ended)
        begun |= {track.number for track in alive}
        ended += [track.number for track in gone]
    ended += [track.number for track in tracker.end_all()]
    assert sorted(ended) == sorted(begun)


@pytest.mark.parametrize("gap_s", [0.0, 1e-9])
def test_two_frames_at_the_same_time_do_no_harm(gap_s: float) -> None:
    tracker = Tracker()
    for i in range(4):
        alive, _ = tracker.update(seen(walk(0)), i * gap_s)
    assert np.isfinite(alive[0].velocity).all()
