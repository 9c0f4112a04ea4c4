"""How far two histograms are apart: the laws of a distance."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinysight_contract.metrics import BINS, LEAST, Reference, distance, drift

counts = st.lists(st.integers(0, 10_000), min_size=BINS, max_size=BINS)
some = counts.filter(any)


@given(counts, counts)
def test_it_is_the_same_from_both_sides_and_within_0_and_1(one: list[int], other: list[int]) -> None:
    assert 0.0 <= distance(one, other) <= 1.0
    assert distance(one, other) == pytest.approx(distance(other, one), abs=1e-7)


@given(some, st.integers(1, 1000))
def test_what_has_the_same_shares_is_alike(one: list[int], times: int) -> None:
    assert distance(one, one) == 0.0
    assert distance(one, [times * each for each in one]) == pytest.approx(0.0, abs=1e-6)


@given(some, some)
def test_what_has_other_shares_is_not(one: list[int], other: list[int]) -> None:
    assume(any(a * sum(other) != b * sum(one) for a, b in zip(one, other, strict=True)))
    assert distance(one, other) > 0.0


@given(some, some, some)
def test_no_way_round_is_shorter(one: list[int], other: list[int], third: list[int]) -> None:
    """It is the root of the divergence, which alone is no metric."""
    assert distance(one, third) <= distance(one, other) + distance(other, third) + 1e-7


@given(st.integers(0, BINS), st.data())
def test_what_shares_nothing_is_1_apart(at: int, data: st.DataObject) -> None:
    left, right = (data.draw(st.lists(st.integers(1, 99), min_size=n, max_size=n)) for n in (at, BINS - at))
    one, other = [*left, *[0] * (BINS - at)], [*[0] * at, *right]
    assert distance(one, other) == pytest.approx(1.0)


def test_known_figures() -> None:
    assert distance([1, 0], [1, 1]) == pytest.approx(math.sqrt(0.75 * math.log2(4 / 3)))  # worked out by hand
    assert distance([0, 0], [0, 0]) == 0.0
    assert distance([0, 0], [0, 5]) == 1.0
    with pytest.raises(ValueError, match="argument"):
        distance([1], [1, 2])


def test_drift_needs_enough_of_both_and_takes_labels_that_only_one_has() -> None:
    scores = [0] * (BINS - 1)
    reference = Reference(scores=[*scores, LEAST], labels={"cat": LEAST})
    assert drift([*scores, LEAST], {"cat": LEAST}, None) is None
    assert drift([*scores, LEAST - 1], {"cat": LEAST - 1}, reference) is None
    assert drift([*scores, LEAST], {"cat": LEAST}, Reference(scores=[*scores, LEAST - 1], labels={})) is None
    assert drift([*scores, LEAST], {"cat": LEAST}, reference) == (0.0, 0.0)
    assert drift([LEAST, *scores], {"dog": LEAST}, reference) == (1.0, 1.0)
