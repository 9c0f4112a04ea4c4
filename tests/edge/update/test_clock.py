"""A board without a clock believes what is signed and what was set, and never what runs wild."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_edge.update.clock import BUILT_AT, MOST_STEP, raise_floor, right_time

DAY = timedelta(days=1)
AT_1970, AT_2040 = datetime(1970, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
times = st.integers(0, 230 * 366).map(lambda days: AT_1970 + timedelta(days=days, seconds=days % 86_400))
floors = st.none() | times
synced = st.sampled_from([True, False, None])


@pytest.mark.parametrize(
    ("system", "floor", "synced", "time", "suspect"),
    [
        pytest.param(BUILT_AT + DAY, None, True, BUILT_AT + DAY, False, id="a good clock"),
        pytest.param(BUILT_AT + DAY, None, None, BUILT_AT + DAY, False, id="nobody knows, nothing speaks against it"),
        pytest.param(AT_1970, None, False, BUILT_AT, True, id="1970 is before this program was built"),
        pytest.param(BUILT_AT, BUILT_AT + DAY, False, BUILT_AT + DAY, True, id="not set, and before the floor"),
        pytest.param(BUILT_AT, BUILT_AT + DAY, None, BUILT_AT + DAY, True, id="nobody knows, and before the floor"),
        pytest.param(BUILT_AT, BUILT_AT + DAY, True, BUILT_AT, False, id="set, which overrules the floor"),
        pytest.param(AT_1970, BUILT_AT + DAY, True, BUILT_AT + DAY, True, id="set to what cannot be"),
        pytest.param(BUILT_AT + DAY, AT_1970, False, BUILT_AT + DAY, False, id="a floor below the build"),
        pytest.param(AT_2040, None, False, AT_2040, True, id="2040 counts, since nothing proves it wrong"),
        pytest.param(AT_2040, None, True, AT_2040, False, id="2040, and somebody has set it"),
    ],
)  # fmt: skip
def test_which_time_counts(
    system: datetime, floor: datetime | None, synced: bool | None, time: datetime, suspect: bool
) -> None:
    assert right_time(system, floor, synced=synced) == (time, suspect)


@pytest.mark.parametrize(
    ("system", "synced", "released_at", "floor"),
    [
        pytest.param(BUILT_AT + DAY, True, None, BUILT_AT + DAY, id="a clock that was set"),
        pytest.param(BUILT_AT + DAY, False, None, BUILT_AT, id="a clock that was not"),
        pytest.param(BUILT_AT + DAY, None, None, BUILT_AT, id="a clock of which nobody knows"),
        pytest.param(AT_2040, False, None, BUILT_AT, id="2040"),
        pytest.param(AT_2040, True, None, BUILT_AT, id="2040, even if it was set so"),
        pytest.param(AT_1970, False, BUILT_AT + DAY, BUILT_AT + DAY, id="what was signed, against 1970"),
        pytest.param(AT_2040, False, BUILT_AT + DAY, BUILT_AT + DAY, id="what was signed, against 2040"),
        pytest.param(BUILT_AT + DAY, True, BUILT_AT + 2 * DAY, BUILT_AT + DAY, id="signed by a clock that ran ahead"),
        pytest.param(AT_1970, False, AT_2040, BUILT_AT, id="signed by a clock that ran wild"),
        pytest.param(AT_1970, True, BUILT_AT + DAY, BUILT_AT, id="set to 1970"),
    ],
)
def test_what_raises_the_floor(
    system: datetime, synced: bool | None, released_at: datetime | None, floor: datetime
) -> None:
    assert raise_floor(None, system=system, synced=synced, released_at=released_at) == floor


def test_a_workstation_whose_clock_runs_ahead_does_not_freeze_a_device_for_good() -> None:
    in_2035 = datetime(2035, 1, 1, tzinfo=UTC)
    expires = BUILT_AT + 30 * DAY
    assert raise_floor(None, system=AT_1970, synced=False, released_at=in_2035, expires=expires) == BUILT_AT
    floor = raise_floor(None, system=AT_1970, synced=False, released_at=in_2035, expires=in_2035 + 30 * DAY)
    assert floor == in_2035, "nothing speaks against it"
    assert right_time(BUILT_AT + DAY, floor, synced=True) == (BUILT_AT + DAY, False)
    assert raise_floor(floor, system=BUILT_AT + DAY, synced=True, released_at=in_2035) == BUILT_AT + DAY


@given(floors, times, synced, st.none() | times)
def test_the_floor_sinks_only_by_a_clock_that_was_set_and_never_jumps_far(
    floor: datetime | None, system: datetime, synced: bool | None, released_at: datetime | None
) -> None:
    lowest = max(floor or BUILT_AT, BUILT_AT)
    new = raise_floor(floor, system=system, synced=synced, released_at=released_at)
    if synced and BUILT_AT <= system < lowest:
        assert new == system
        return
    assert lowest <= new <= lowest + MOST_STEP
    assert new in {lowest, system, released_at}
    if not synced:
        assert new in {lowest, released_at}


@given(floors, times, synced)
def test_the_time_that_counts_is_below_the_floor_only_by_a_clock_that_was_set(
    floor: datetime | None, system: datetime, synced: bool | None
) -> None:
    time, suspect = right_time(system, floor, synced=synced)
    assert time >= BUILT_AT
    assert synced or time >= (floor or BUILT_AT)
    assert time == system or suspect


@given(st.lists(st.tuples(times, st.just(False)), max_size=20), times)
def test_a_clock_that_was_never_set_leaves_no_trace(seen: list[tuple[datetime, bool]], system: datetime) -> None:
    floor = None
    for at, known in seen:
        floor = raise_floor(floor, system=at, synced=known)
    assert right_time(system, floor, synced=None) == right_time(system, None, synced=None)


@given(floors, times, synced, st.none() | times)
def test_raising_twice_is_raising_once(
    floor: datetime | None, system: datetime, synced: bool | None, released_at: datetime | None
) -> None:
    once = raise_floor(floor, system=system, synced=synced)
    assert raise_floor(once, system=system, synced=synced) == max(once, raise_floor(once, system=system, synced=synced))
    signed = raise_floor(floor, system=system, synced=False, released_at=released_at)
    assert raise_floor(signed, system=system, synced=False, released_at=released_at) >= signed


def test_the_program_was_built_before_now() -> None:
    assert datetime.now(UTC) >= BUILT_AT
