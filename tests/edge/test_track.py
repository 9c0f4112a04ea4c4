"""Objects keep their number while they are followed."""

from collections import Counter
from dataclasses import fields
from random import Random
from statistics import median_low

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_edge.decode import Detections
from tinysight_edge.tracking.track import LOW_BAND, Tracker
from tinysight_edge.tracking.tracks import Tracks

Box = tuple[float, float, float, float]
Seen = tuple[Box, float, int]  # box, score, class

HIGH = 0.5


def seen(*boxes: Box, scores: tuple[float, ...] | float = 0.9, classes: tuple[int, ...] | int = 0) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.broadcast_to(np.array(scores, np.float32), n).copy(),
        np.broadcast_to(np.array(classes, np.int32), n).copy(),
    )


def frame(objects: list[Seen]) -> Detections:
    """As a decoder gives it: strongest first."""
    objects = sorted(objects, key=lambda it: -it[1])
    return seen(*(o[0] for o in objects), scores=tuple(o[1] for o in objects), classes=tuple(o[2] for o in objects))


def walk(x: float, y: float = 0.0, side: float = 40.0) -> Box:
    return (x, y, x + side, y + side)


def tracker(*, min_hits: int = 3, max_lost_s: float = 1.0) -> Tracker:
    return Tracker(high_score=HIGH, min_hits=min_hits, max_lost_s=max_lost_s)


def numbers(tracks: Tracks) -> list[int]:
    return [int(number) for number in tracks.numbers]


# --- what is believed


def test_an_object_is_believed_after_three_frames_in_a_row() -> None:
    it = tracker()
    assert [len(it.update(seen(walk(4.0 * i)), i / 10)[0]) for i in range(4)] == [0, 0, 1, 1]


@pytest.mark.parametrize("shown", [(True, False, False), (True, True, False)])
def test_a_flicker_is_never_believed(shown: tuple[bool, ...]) -> None:
    it = tracker()
    for i in range(20):
        alive, ended = it.update(seen(walk(0)) if shown[i % 3] else seen(), i / 10)
        assert len(alive) == len(ended) == 0


def test_an_object_that_is_sure_only_now_and_then_is_not_believed() -> None:
    it = tracker()
    for i in range(30):
        alive, _ = it.update(seen(walk(0), scores=0.8 if i % 3 == 0 else 0.4), i / 10)
        assert len(alive) == 0, "the median of its scores stays below the threshold"


def test_once_believed_an_object_stays_so_while_its_scores_are_low() -> None:
    it = tracker()
    for i in range(20):
        alive, _ = it.update(seen(walk(0), scores=0.8 if i < 3 else 0.3), i / 10)
    assert numbers(alive) == [1]
    assert alive.median_scores[0] == pytest.approx(0.3)
    assert alive.best_scores[0] == pytest.approx(0.8)


@given(st.lists(st.integers(50, 100), min_size=1, max_size=25))
def test_the_median_is_that_of_the_last_ten_scores(percents: list[int]) -> None:
    it = tracker(min_hits=1)
    for i, percent in enumerate(percents):
        alive, _ = it.update(seen(walk(0), scores=percent / 100), i / 10)
    assert alive.median_scores[0] == np.float32(median_low(percents[-10:]) / 100)
    assert alive.scores[0] == np.float32(percents[-1] / 100)
    assert alive.best_scores[0] == np.float32(max(percents) / 100)


# --- the low band


def test_a_low_score_keeps_an_object_alive() -> None:
    it = tracker(max_lost_s=0.3)
    for i in range(20):
        alive, ended = it.update(seen(walk(5.0 * i), scores=0.9 if i < 4 else HIGH * LOW_BAND), i / 10)
        assert len(ended) == 0
    assert numbers(alive) == [1]
    assert alive.boxes_px[0, 0] == 95.0


def test_a_low_score_begins_nothing() -> None:
    it = tracker(min_hits=1)
    for i in range(20):
        assert len(it.update(seen(walk(0), scores=HIGH - 0.01), i / 10)[0]) == 0
    assert numbers(it.update(seen(walk(0), scores=HIGH), 2.0)[0]) == [1], "at the threshold the first one begins"


def test_a_high_score_has_its_object_before_a_low_one_that_fits_better() -> None:
    it = tracker()
    for i in range(4):
        it.update(seen(walk(0)), i / 10)
    alive, _ = it.update(seen(walk(8), walk(0), scores=(0.8, 0.4)), 0.4)
    assert alive.boxes_px[0, 0] == 8.0


# --- being lost


def test_an_object_keeps_its_number_behind_a_post() -> None:
    it = tracker()
    for i in range(5):
        it.update(seen(walk(12.0 * i)), i / 10)
    for i in range(5, 9):
        alive, ended = it.update(seen(), i / 10)
        assert numbers(alive) == [1]
        assert alive.boxes_px[0, 0] == 48.0, "its box is where it was last seen"
        assert alive.seen_s[0] == 0.4
        assert len(ended) == 0
    alive, _ = it.update(seen(walk(12.0 * 9)), 0.9)
    assert numbers(alive) == [1], "its speed says where it should be"


def test_an_object_ends_once_after_it_was_unseen_for_a_second() -> None:
    it = tracker()
    for i in range(5):
        it.update(seen(walk(0)), i / 10)
    ends = [len(it.update(seen(), 0.5 + i / 10)[1]) for i in range(20)]
    assert sum(ends) == 1
    assert ends.index(1) == 10
    assert len(it.end_all()) == 0


@pytest.mark.parametrize(("gap_s", "kept"), [(0.9, True), (3.0, True), (600.0, False)])
def test_a_resting_object_is_the_same_after_frames_that_came_late_but_not_after_a_long_time(
    gap_s: float, kept: bool
) -> None:
    it = tracker()
    for i in range(5):
        it.update(seen(walk(0)), i / 10)
    alive, ended = it.update(seen(walk(0)), 0.4 + gap_s)
    assert (numbers(alive), numbers(ended)) == (([1], []) if kept else ([], [1]))


def test_in_pictures_that_have_nothing_to_do_with_each_other_an_object_lives_for_one() -> None:
    it = tracker(min_hits=1, max_lost_s=0.0)
    told = [tuple(map(numbers, it.update(seen(walk(0)), at_s))) for at_s in (0.0, 1.0, 1.0)]
    assert told == [([1], []), ([2], [1]), ([3], [2])]


def test_while_nothing_moves_nothing_is_lost() -> None:
    it = tracker()
    for i in range(5):
        it.update(seen(walk(9.0 * i)), i / 10)
    it.update(seen(), 0.5)  # lost for a tenth of a second
    for i in range(6, 600):
        assert numbers(it.hold(i / 10)) == [1]
    alive, ended = it.update(seen(), 60.0)
    assert (numbers(alive), numbers(ended)) == ([1], []), "and now for two tenths"
    alive, _ = it.update(seen(walk(9.0 * 7)), 60.1)
    assert numbers(alive) == [1], "it went on from where it was"
    assert numbers(it.update(seen(), 61.3)[1]) == [1]


def test_end_all_ends_what_is_believed_and_numbers_go_on() -> None:
    it = tracker(min_hits=2)
    it.update(seen(walk(0)), 0.0)
    it.update(seen(walk(0), walk(300)), 0.1)
    assert numbers(it.end_all()) == [1]
    assert numbers(it.hold(0.15)) == []
    it.update(seen(walk(0)), 0.2)
    assert numbers(it.update(seen(walk(0)), 0.3)[0]) == [3]


# --- who is who


def test_two_objects_that_pass_each_other_keep_their_numbers() -> None:
    it = tracker()
    for i in range(30):
        alive, _ = it.update(seen(walk(10.0 * i), walk(290.0 - 10.0 * i, y=30.0)), i / 10)
    assert dict(zip(numbers(alive), alive.boxes_px[:, 1].tolist(), strict=True)) == {1: 0.0, 2: 30.0}


def test_two_objects_that_cross_unseen_keep_their_numbers() -> None:
    it = tracker()
    for i in range(30):
        both = (walk(10.0 * i), walk(290.0 - 10.0 * i, y=8.0))
        alive, _ = it.update(seen(*both) if abs(i - 14.5) > 4 else seen(both[0]), i / 15)
    assert dict(zip(numbers(alive), alive.boxes_px[:, 1].tolist(), strict=True)) == {1: 0.0, 2: 8.0}


def test_a_crowd_of_a_hundred_keeps_its_numbers() -> None:
    it, dice = tracker(), np.random.default_rng(3)
    start = [(100.0 * (k % 10), 100.0 * (k // 10)) for k in range(100)]
    ways = dice.uniform(-60, 60, (100, 2))
    for i in range(15):
        places = [walk(x + vx * i / 10, y + vy * i / 10) for (x, y), (vx, vy) in zip(start, ways, strict=True)]
        alive, _ = it.update(seen(*places), i / 10)
    assert numbers(alive) == list(range(1, 101))
    np.testing.assert_allclose(alive.boxes_px, np.array(places), rtol=1e-6)


def test_the_same_walk_is_followed_at_irregular_times() -> None:
    it, dice, now = tracker(), np.random.default_rng(7), 0.0
    for i in range(100):
        alive, ended = it.update(seen(walk(150.0 * now)), now)
        assert len(ended) == 0
        # After 0.4 s it is a box and a half further on.
        now += float(dice.choice((0.001, 0.033, 0.066, 0.4))) if i > 4 else 0.033
    assert numbers(alive) == [1]


@pytest.mark.parametrize("gap_s", [0.0, 1e-9])
def test_two_frames_at_the_same_time_do_no_harm(gap_s: float) -> None:
    it = tracker()
    for i in range(8):
        alive, _ = it.update(seen(walk(0.5 * (i % 2))), i * gap_s)
    alive, _ = it.update(seen(walk(0)), 0.5)
    assert numbers(alive) == [1]


def test_a_second_reading_of_the_same_object_is_not_another_object() -> None:
    it = tracker()
    for i in range(6):
        alive, _ = it.update(seen(walk(0), walk(2), scores=(0.9, 0.8), classes=(3, 8)), i / 10)
    assert numbers(alive) == [1]
    assert alive.class_ids.tolist() == [3]


# --- what it is


def test_the_label_is_what_most_of_the_evidence_says() -> None:
    it = tracker()
    for i, label in enumerate((3, 3, 8, 3, 3)):
        alive, _ = it.update(seen(walk(0), classes=label), i / 10)
    assert alive.class_ids.tolist() == [3]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.5, 0.625, 0.75, 1.0])), min_size=1, max_size=20))
def test_the_label_has_the_highest_sum_of_scores_and_of_two_equals_the_lower_index(
    evidence: list[tuple[int, float]],
) -> None:
    it, votes = tracker(min_hits=1), dict.fromkeys(range(4), 0.0)
    for i, (label, score) in enumerate(evidence):
        alive, _ = it.update(seen(walk(0), scores=score, classes=label), i / 10)
        votes[label] += score
        assert alive.class_ids[0] == max(votes, key=votes.__getitem__)


def test_what_does_not_move_is_stationary_after_three_seconds() -> None:
    it = tracker()
    rests = [it.update(seen(walk(i % 2)), i / 2)[0].stationary.tolist() for i in range(10)]
    assert rests == [[]] * 2 + [[False]] * 4 + [[True]] * 4
    alive, _ = it.update(seen(walk(25)), 5.0)
    assert alive.stationary.tolist() == [False]


def test_what_creeps_is_not_stationary() -> None:
    it = tracker()
    for i in range(100):
        alive, _ = it.update(seen(walk(0.4 * i)), i / 10)  # a tenth of its side in a second
        assert not alive.stationary.any()


# --- laws

scenes = st.lists(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200), st.integers(25, 99), st.integers(0, 3)), max_size=6),
    max_size=25,
)
Scene = list[list[tuple[int, int, int, int]]]


def objects(places: list[tuple[int, int, int, int]]) -> list[Seen]:
    """With scores that all differ, so that an order is the only one."""
    return [(walk(x, y), score / 100 + k / 1000, label) for k, (x, y, score, label) in enumerate(places)]


@given(scenes, st.sets(st.integers(0, 24)))
def test_numbers_are_unique_and_rise_and_every_believed_object_ends_once(scene: Scene, held: set[int]) -> None:
    it = tracker(min_hits=2, max_lost_s=0.35)
    begun: set[int] = set()
    ended: list[int] = []
    for i, places in enumerate(scene):
        found = frame(objects(places))
        alive, gone = (it.hold(i / 10), Tracks.none()) if i in held else it.update(found, i / 10)
        assert numbers(alive) == sorted(set(numbers(alive)))
        assert not set(numbers(alive)) & set(ended)
        assert i not in held or set(numbers(alive)) == begun - set(ended)
        begun |= set(numbers(alive))
        ended += numbers(gone)
        now = alive.take((alive.seen_s == i / 10).nonzero()[0])
        if i not in held:
            boxes = Counter(map(tuple, found.boxes_px.tolist()))
            assert not Counter(map(tuple, now.boxes_px.tolist())) - boxes, "no two tracks share a detection"
    ended += numbers(it.end_all())
    assert sorted(ended) == sorted(begun)


@given(scenes, st.randoms(use_true_random=False))
def test_the_order_of_detections_does_not_matter(scene: Scene, dice: Random) -> None:
    one, other = tracker(min_hits=2), tracker(min_hits=2)
    for i, places in enumerate(scene):
        shifts = np.random.default_rng(i).uniform(0.0, 1.0, (len(places), 2))  # two that fit equally well are a draw
        found = frame(
            [
                (walk(box[0] + float(dx), box[1] + float(dy)), score, label)
                for (box, score, label), (dx, dy) in zip(objects(places), shifts, strict=True)
            ]
        )
        order = list(range(len(found)))
        dice.shuffle(order)
        for mine, its in zip(
            one.update(found, i / 10), other.update(found.take(np.array(order, int)), i / 10), strict=True
        ):
            for field in fields(Tracks):
                np.testing.assert_array_equal(getattr(mine, field.name), getattr(its, field.name), field.name)


@given(scenes)
def test_what_was_told_stays_as_it_was_told_and_has_the_promised_types(scene: Scene) -> None:
    it = tracker(min_hits=1)
    told: list[tuple[Tracks, list[bytes]]] = []
    for i, places in enumerate(scene):
        alive, _ = it.update(frame(objects(places)), i / 10)
        told.append((alive, [getattr(alive, field.name).tobytes() for field in fields(Tracks)]))
    for tracks, then in told:
        assert [getattr(tracks, field.name).tobytes() for field in fields(Tracks)] == then
        for field in fields(Tracks):
            got, want = getattr(tracks, field.name), getattr(Tracks.none(), field.name)
            assert (got.dtype, got.shape[1:], len(got)) == (want.dtype, want.shape[1:], len(tracks))
