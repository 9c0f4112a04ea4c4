"""A classifier's word becomes a state when it holds, and ends when it holds no longer."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_edge.decode import Detections
from tinysight_edge.tracking.states import States
from tinysight_edge.tracking.tracks import Tracks

Word = tuple[int, float] | None  # class and score
SURE, FAINT, LOW = 0.9, 0.5, 0.2  # the threshold is 0.6, so 0.45 is enough to stay


def found(word: Word) -> Detections:
    n = int(word is not None)
    class_id, score = word or (0, 0.0)
    boxes = np.array([[0, 0, 64, 48]], np.float32)
    return Detections(boxes[:n], np.full(n, score, np.float32), np.full(n, class_id, np.int32))


def told(
    words: list[Word], *, fps: float = 10.0, still: bool = False
) -> tuple[list[int | None], list[tuple[int, int]]]:
    """The state's class after each frame, and what ended: class and number."""
    states = States(threshold=0.6, still=still)
    held: list[int | None] = []
    ended: list[tuple[int, int]] = []
    for at, word in enumerate(words):
        alive, gone = states.update(found(word), at / fps)
        held.append(int(alive.class_ids[0]) if len(alive) else None)
        ended += zip(gone.class_ids.tolist(), gone.numbers.tolist(), strict=True)
    return held, ended


@pytest.mark.parametrize(
    ("words", "held"),
    [
        pytest.param([(1, SURE)] * 6, [None] * 5 + [1], id="begins after half a second"),
        pytest.param([(1, SURE)] * 5 + [(2, SURE)] * 5, [None] * 10, id="none that holds"),
        pytest.param([(1, FAINT)] * 20, [None] * 20, id="none that is sure"),
        pytest.param([(1, SURE)] * 6 + [(1, FAINT)] * 20, [None] * 5 + [1] * 21, id="less is enough to stay"),
        pytest.param([(1, SURE)] * 6 + [(1, LOW)] * 6, [None] * 5 + [1] * 6 + [None], id="fades"),
        pytest.param([(1, SURE)] * 6 + [None] * 6, [None] * 5 + [1] * 6 + [None], id="below the decoder's threshold"),
        pytest.param([(1, SURE)] * 6 + [(2, SURE)] * 6, [None] * 5 + [1] * 6 + [2], id="another takes over"),
        pytest.param([(1, SURE)] * 6 + [(2, FAINT)] * 9, [None] * 5 + [1] * 10, id="another that is not sure does not"),
        pytest.param([(1, SURE)] * 6 + [(2, SURE), (1, SURE)] * 9, [None] * 5 + [1] * 19, id="flicker changes nothing"),
    ],
)
def test_what_is_held(words: list[Word], held: list[int | None]) -> None:
    assert told(words)[0] == held


def test_slow_frames_need_three() -> None:
    assert told([(1, SURE)] * 3, fps=1.0)[0] == [None, None, 1]


def test_a_state_began_with_its_first_frame_and_was_last_seen_with_its_last() -> None:
    states = States(threshold=0.6)
    for at in range(12):
        alive, _ = states.update(found((1, 0.7 if at == 3 else 0.8)), at / 10)
    assert (alive.started_s[0], alive.seen_s[0]) == (0.0, 1.1)
    assert alive.boxes_px.tolist() == alive.first_boxes_px.tolist() == [[0, 0, 64, 48]]
    assert float(alive.best_scores[0]) == float(alive.median_scores[0]) == pytest.approx(0.8)
    for at in range(12, 18):
        alive, ended = states.update(found((2, SURE)), at / 10)
    assert ended.seen_s.tolist() == [1.1]
    assert alive.started_s.tolist() == [1.2]
    assert alive.numbers.tolist() == [2]


def test_a_frame_that_was_not_looked_at_changes_nothing() -> None:
    states = States(threshold=0.6)
    assert len(states.hold(0.0)) == 0
    for at in range(6):
        states.update(found((1, SURE)), at / 10)
    before, after = states.hold(0.6), states.hold(600.0)
    assert before.numbers.tolist() == after.numbers.tolist() == [1]
    assert before.seen_s.tolist() == after.seen_s.tolist() == [0.5]


def test_every_still_picture_is_its_own_state() -> None:
    held, ended = told([(1, SURE), (1, SURE), (2, SURE), (2, FAINT), None, (1, SURE)], still=True)
    assert held == [1, 1, 2, None, None, 1]
    assert ended == [(1, 1), (1, 2), (2, 3)]


word = st.none() | st.tuples(st.integers(0, 2), st.sampled_from([SURE, FAINT, LOW]))


@given(st.lists(word, max_size=80), st.booleans(), st.sampled_from([2.0, 10.0, 30.0]))
def test_states_follow_each_other_and_each_ends_once(words: list[Word], still: bool, fps: float) -> None:
    states = States(threshold=0.6, still=still)
    open_: dict[int, int] = {}
    begun: list[int] = []

    def end(gone: Tracks) -> None:
        for number, class_id in zip(gone.numbers.tolist(), gone.class_ids.tolist(), strict=True):
            assert open_.pop(number) == class_id

    for at, said in enumerate(words):
        alive, gone = states.update(found(said), at / fps)
        end(gone)
        for number, class_id in zip(alive.numbers.tolist(), alive.class_ids.tolist(), strict=True):
            begun += [] if number in open_ else [number]
            open_[number] = class_id
        assert len(alive) == len(open_) <= 1
    end(states.end_all())
    assert not open_
    assert begun == list(range(1, len(begun) + 1))
    assert len(states.hold(99.0)) == 0


@given(st.lists(word, min_size=1, max_size=60))
def test_a_class_is_never_held_that_was_not_sure_for_as_long(words: list[Word]) -> None:
    held, _ = told(words)
    for at, (before, now) in enumerate(zip([None, *held], held, strict=False)):
        if now is not None and now != before:
            assert all(each == (now, SURE) for each in words[at - 5 : at + 1])
        if before is not None and now != before:
            assert all(each is None or each[0] != before or each[1] == LOW for each in words[at - 5 : at + 1])


def test_types_are_those_of_tracks(tracks: Callable[..., Tracks]) -> None:
    plain, state = tracks({1: (1, 1)}, 0.0), States(threshold=0.6, still=True).update(found((1, SURE)), 0.0)[0]
    for name in Tracks.__slots__:
        one, other = getattr(plain, name), getattr(state, name)
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
