"""No other choice of pairs is worth more."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinysight_edge.decode import iou_matrix
from tinysight_edge.tracking import assign as module
from tinysight_edge.tracking.assign import assign, overlapping

worth = st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0.2, 1.0)
tables = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=worth)
)


def best_total(gains: np.ndarray) -> float:
    """By trying everything."""
    wide = gains if gains.shape[0] <= gains.shape[1] else gains.T
    rows = list(range(wide.shape[0]))
    orders = permutations(range(wide.shape[1]), len(rows))
    return max(float(wide[rows, order].sum()) for order in orders)


def taken(gains: np.ndarray) -> list[tuple[int, int]]:
    rows, cols = gains.nonzero()
    return [(int(rows[k]), int(cols[k])) for k in assign(rows.tolist(), cols.tolist(), gains[rows, cols].tolist())]


@given(tables)
def test_the_total_is_the_highest_that_any_choice_has(gains: np.ndarray) -> None:
    pairs = taken(gains)
    assert len({row for row, _ in pairs}) == len({col for _, col in pairs}) == len(pairs)
    assert sum(gains[pair] for pair in pairs) == pytest.approx(best_total(gains))


def test_the_best_pair_gives_way_when_both_others_gain_by_it() -> None:
    assert sorted(taken(np.array([[0.9, 0.8], [0.8, 0.0]]))) == [(0, 1), (1, 0)]


def test_a_chain_of_rivals_is_solved_as_a_whole() -> None:
    gains = np.zeros((30, 30))
    for i in range(30):
        gains[i, i] = 0.5
        if i < 29:
            gains[i, i + 1] = 0.5 + 0.001 * i
    pairs = dict(taken(gains))
    # From some place on it pays to move up; the last one has nowhere to go, so nobody moves beyond it.
    total = max(sum(0.5 for _ in range(30)), *(sum(0.5 + 0.001 * i for i in range(k, 29)) + 0.5 * k for k in range(30)))
    assert sum(gains[pair] for pair in pairs.items()) == pytest.approx(total)


def test_of_nothing_nothing_is_taken() -> None:
    assert assign([], [], []) == []


sides = st.integers(0, 60).map(float)
box = st.tuples(sides, sides, st.integers(1, 40), st.integers(1, 40)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@pytest.mark.parametrize("by_hand", [0, 10**6])
@given(
    a=st.lists(box, max_size=8), b=st.lists(box, max_size=8), least=st.sampled_from([0.1234567, 0.2345678, 0.5123456])
)
def test_pairs_that_overlap_are_found_few_or_many(
    by_hand: int, a: list[tuple[float, ...]], b: list[tuple[float, ...]], least: float
) -> None:
    mine, its = np.array(a, np.float32).reshape(-1, 4), np.array(b, np.float32).reshape(-1, 4)
    want = iou_matrix(mine, its)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEW_PAIRS", by_hand - 1)
        rows, cols, overlaps = overlapping(mine.T.astype(np.float64), its, least)
    assert (rows, cols) == tuple(found.tolist() for found in (want >= np.float32(least)).nonzero())
    np.testing.assert_allclose(overlaps, want[rows, cols] if rows else [], rtol=1e-5)
