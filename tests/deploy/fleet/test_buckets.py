"""Each device has its place, whatever else happens."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_deploy.fleet.deciding.buckets import bucket, cutoffs, stage_of
from tinysight_deploy.fleet.types import Key, Stage, parse_stages

ids = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
fleets = st.lists(st.tuples(ids, ids), unique=True, max_size=60)
shares = st.lists(st.floats(0.001, 0.999), unique=True, max_size=5).map(sorted)


@given(ids, ids, ids)
def test_a_place_is_stable_and_within_bounds(salt: str, site: str, device: str) -> None:
    place = bucket(salt, (site, device))
    bucket.cache_clear()
    assert place == bucket(salt, (site, device))
    assert 0.0 <= place < 1.0


def test_a_place_is_the_same_in_every_release() -> None:
    assert bucket("salt", ("plant-1", "belt-7")) == pytest.approx(0.50997752, abs=1e-8)


def test_places_are_spread_evenly() -> None:
    tenths = [0] * 10
    for number in range(20_000):
        tenths[int(bucket("salt", ("plant-1", f"belt-{number}")) * 10)] += 1
    # Chi square with 9 degrees of freedom: 27.9 is passed once in a thousand salts, and this salt is fixed.
    assert sum((each - 2000) ** 2 / 2000 for each in tenths) < 27.9


def test_another_rollout_begins_with_another_device() -> None:
    fleet = [("plant-1", f"belt-{number}") for number in range(20)]
    assert len({min(fleet, key=lambda key: bucket(f"salt-{turn}", key)) for turn in range(40)}) > 10


@given(fleets, ids, shares)
def test_a_higher_stage_only_adds_devices(fleet: list[Key], salt: str, given_shares: list[float]) -> None:
    stages = (*(Stage(share=each) for each in given_shares), Stage(share=1.0))
    ends = cutoffs(stages, salt, fleet)
    assert len(ends) == len(stages)
    assert ends[-1] == 1.0
    assert all(one <= two for one, two in pairwise(ends))
    for key in fleet:
        first = stage_of(ends, bucket(salt, key))
        assert all((bucket(salt, key) < end) == (number >= first) for number, end in enumerate(ends))


@given(fleets, ids)
def test_each_stage_has_one_more_device_where_there_is_one(fleet: list[Key], salt: str) -> None:
    ends = cutoffs(parse_stages("1,3,0.1%,0.2%,100%"), salt, fleet)
    sizes = [sum(1 for key in fleet if bucket(salt, key) < end) for end in ends]
    assert sizes[0] == min(1, len(fleet))
    assert sizes[1] == min(3, len(fleet))
    assert sizes[2] >= min(sizes[1] + 1, len(fleet))
    assert sizes[3] >= min(sizes[2] + 1, len(fleet))
    assert sizes[4] == len(fleet)


def test_who_is_away_belongs_to_the_stage_of_its_place() -> None:
    fleet = [("plant-1", f"belt-{number}") for number in range(1000)]
    there = fleet[::2]
    ends = cutoffs(parse_stages("1,5%,100%"), "salt", there)
    assert sum(1 for key in there if bucket("salt", key) < ends[0]) == 1
    assert 0.04 < sum(1 for key in fleet if bucket("salt", key) < ends[1]) / 1000 < 0.06


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        pytest.param("1,5%,100%", (0.05, 0.05, 1.0), id="a number is taken for the share after it"),
        pytest.param("100%", (1.0,), id="all at once"),
    ],
)
def test_stages_of_nobody(text: str, ends: tuple[float, ...]) -> None:
    assert cutoffs(parse_stages(text), "salt", []) == ends
