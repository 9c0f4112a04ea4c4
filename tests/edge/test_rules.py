"""A rule is fulfilled when all that it asks for is so at once."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_edge.config.types import RuleConfig, ScheduleConfig
from tinysight_edge.meaning.rules import DAYS, Rules, in_force
from tinysight_edge.tracking.tracks import Tracks
from tinysight_edge.units import Seconds

Make = Callable[..., Tracks]
LABELS, ZONES, LINES = ("cat", "dog"), ("dock", "door"), ("gate", "fence")
MONDAY = datetime(2026, 11, 23)  # noqa: DTZ001 -- what a clock on the wall shows has no zone
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

clock = st.integers(0, 24 * 60 - 1).map(lambda minute: f"{minute // 60:02d}:{minute % 60:02d}")
schedules = st.builds(
    ScheduleConfig,
    days=st.lists(st.sampled_from(DAYS), max_size=7).map(tuple),
    start=clock,
    end=clock | st.just("24:00"),
)


def spans(schedule: ScheduleConfig, around: datetime) -> list[tuple[datetime, datetime]]:
    """When a schedule holds in the days around a time, as spans of the wall clock."""
    found = []
    for offset in range(-2, 3):
        day = datetime.combine(around.date(), datetime.min.time()) + timedelta(days=offset)
        if DAYS[day.weekday()] in schedule.days:
            start, end = (
                day + timedelta(hours=int(text[:2]), minutes=int(text[3:])) for text in (schedule.start, schedule.end)
            )
            found.append((start, end if end > start else end + timedelta(days=1)))
    return found


@given(schedules, st.integers(0, 14 * 24 * 3600))
def test_a_schedule_holds_within_its_spans(schedule: ScheduleConfig, second: int) -> None:
    local = MONDAY + timedelta(seconds=second)
    assert in_force(schedule, local) is any(start <= local < end for start, end in spans(schedule, local))


@pytest.mark.parametrize(
    ("start", "end", "days", "day", "holds"),
    [
        pytest.param("22:00", "06:00", ("fri",), timedelta(days=5, hours=3), True, id="friday's night on saturday"),
        pytest.param("22:00", "06:00", ("fri",), timedelta(days=4, hours=3), False, id="thursday's night on friday"),
        pytest.param("22:00", "06:00", ("sun",), timedelta(hours=5, minutes=59), True, id="sunday's night on monday"),
        pytest.param("22:00", "06:00", ("sun",), timedelta(hours=6), False, id="the end is no part of it"),
        pytest.param(
            "00:00", "24:00", ("mon",), timedelta(hours=23, minutes=59, seconds=59), True, id="the last second"
        ),
        pytest.param("00:00", "24:00", ("mon",), timedelta(days=1), False, id="the next day"),
        pytest.param("08:00", "08:00", ("mon",), timedelta(days=1, hours=7), True, id="from eight to eight is a day"),
    ],
)
def test_when_schedules_hold(start: str, end: str, days: tuple[Day, ...], day: timedelta, *, holds: bool) -> None:
    assert in_force(ScheduleConfig(days=days, start=start, end=end), MONDAY + day) is holds


@pytest.mark.parametrize(
    ("start", "end", "day", "hours"),
    [
        pytest.param("02:00", "03:00", datetime(2026, 10, 24, 22), 2, id="an hour that comes twice"),  # noqa: DTZ001
        pytest.param("02:00", "03:00", datetime(2026, 3, 28, 23), 0, id="an hour that is skipped"),  # noqa: DTZ001
        pytest.param("22:00", "06:00", datetime(2026, 10, 24, 12), 9, id="the long night"),  # noqa: DTZ001
        pytest.param("22:00", "06:00", datetime(2026, 3, 28, 12), 7, id="the short night"),  # noqa: DTZ001
    ],
)
def test_only_the_wall_clock_counts_when_summer_begins_or_ends(start: str, end: str, day: datetime, hours: int) -> None:
    berlin, utc = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
    schedule = ScheduleConfig(start=start, end=end)
    minutes = (day.replace(tzinfo=utc) + timedelta(minutes=minute) for minute in range(20 * 60))
    assert sum(in_force(schedule, minute.astimezone(berlin)) for minute in minutes) == hours * 60


names = st.none() | st.lists(st.sampled_from([*ZONES, "elsewhere"]), min_size=1, max_size=2).map(tuple)
rules = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.builds(
        RuleConfig,
        cameras=st.sampled_from([None, ("cam0",), ("cam1",), ("cam0", "cam1")]),
        labels=st.sampled_from([None, ("cat",), ("cat", "dog")]),
        zones=names,
        lines=st.none() | st.lists(st.sampled_from([*LINES, "elsewhere"]), min_size=1, max_size=2).map(tuple),
        min_dwell=st.sampled_from([0.0, 2.0, 5.0]).map(Seconds),
        min_score=st.sampled_from([0.0, 0.5, 0.8]),
        schedule=st.none() | schedules,
    ),
    max_size=3,
)


@given(rules, st.data())
def test_rules_say_what_a_slow_reading_of_them_says(
    tracks: Make, configured: dict[str, RuleConfig], data: st.DataObject
) -> None:
    n = data.draw(st.integers(0, 4))

    def matrix(columns: int) -> list[list[bool]]:
        row = st.lists(st.booleans(), min_size=columns, max_size=columns)
        return data.draw(st.lists(row, min_size=n, max_size=n))

    classes = data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    begun = data.draw(st.lists(st.sampled_from([0.0, 6.0, 9.0]), min_size=n, max_size=n))
    dwell = data.draw(
        st.lists(st.lists(st.sampled_from([0.0, 2.0, 7.0]), min_size=2, max_size=2), min_size=n, max_size=n)
    )
    score = data.draw(st.sampled_from([0.4, 0.5, 0.9]))
    within, crossed = matrix(2), matrix(2)
    local = MONDAY + timedelta(minutes=data.draw(st.integers(0, 7 * 24 * 60)))
    now = tracks(dict.fromkeys(range(n), (0.0, 0.0)), 10.0, classes=classes, started_s=begun, median=score)
    judge = Rules(configured, camera="cam0", zones=ZONES, lines=LINES, labels=LABELS)
    got = judge.fulfilled(
        now,
        in_zones=np.array(within, np.bool_).reshape(n, 2),
        dwell_s=np.array(dwell).reshape(n, 2),
        crossed=np.array(crossed, np.bool_).reshape(n, 2),
        in_force=judge.in_force(local),
    )

    def slowly(rule: RuleConfig, i: int) -> bool:
        if rule.labels is not None and LABELS[classes[i]] not in rule.labels:
            return False
        if score < rule.min_score or (rule.schedule is not None and not in_force(rule.schedule, local)):
            return False
        if rule.zones is None and 10.0 - begun[i] < rule.min_dwell:
            return False
        if rule.zones is not None and not any(
            zone in rule.zones and within[i][z] and dwell[i][z] >= rule.min_dwell for z, zone in enumerate(ZONES)
        ):
            return False
        return rule.lines is None or any(line in rule.lines and crossed[i][at] for at, line in enumerate(LINES))

    mine = {name: rule for name, rule in configured.items() if rule.cameras is None or "cam0" in rule.cameras}
    assert judge.names == tuple(mine)
    assert judge.any is bool(configured)
    assert got.tolist() == [[slowly(rule, i) for rule in mine.values()] for i in range(n)]


def test_a_label_that_the_model_does_not_know_fulfils_nothing_and_is_not_taken_for_no_filter(
    tracks: Callable[..., Tracks],
) -> None:
    configured = {"gone": RuleConfig(labels=("unicorn",)), "half": RuleConfig(labels=("unicorn", LABELS[0]))}
    judge = Rules(configured, camera="cam0", zones=(), lines=(), labels=LABELS)
    none = np.zeros((2, 0))
    got = judge.fulfilled(
        tracks({1: (10, 10), 2: (20, 20)}, 1.0, classes=[0, 1]),
        in_zones=none.astype(np.bool_), dwell_s=none, crossed=none.astype(np.bool_), in_force=np.ones(2, np.bool_),
    )  # fmt: skip
    assert judge.any
    assert got.tolist() == [[False, True], [False, False]]
