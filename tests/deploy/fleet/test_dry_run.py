"""What a rollout would do, by what devices did before."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.errors import DataError
from tinysight_contract.fleet import Fleet
from tinysight_contract.messages import ModelMetrics, Reported, State, Status, encode
from tinysight_contract.orders import DesiredState
from tinysight_contract.updates import Code, Gate, Update, UpdateState
from tinysight_deploy.fleet.deciding.dry_run import Plan, plan
from tinysight_deploy.fleet.deciding.habits import habits
from tinysight_deploy.fleet.types import Key, Outcome, Phase
from tinysight_edge.simulate.tape import Take, TapeWriter, read_tape


@pytest.fixture(scope="module")
def told(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("deploy/fleet/told")


def take(topic: t.Topic, message: Struct, at_s: float = 0.0) -> Take:
    return Take(at_s=at_s, topic=str(topic), payload=encode(message), retained=at_s == 0.0)


def device(
    told: ModuleType, key: Key, *, online: bool = True, took_s: float | None = None, update: Update | None = None
) -> list[Take]:
    """What is heard of one device: that it is there, and how its last update went."""
    now: datetime = told.NOW
    state = State.ONLINE if online else State.OFFLINE
    takes = [take(t.StatusTopic(*key), Status(state=state, boot_id="b1", reason="", at=now))]

    def reported(update: Update | None, at_s: float) -> Take:
        became = Reported(revision=3, at=now, bundle=told.OLD, state=DesiredState.APPLIED, boot_id="b1", update=update)
        return take(t.ReportedTopic(*key), became, at_s)

    if took_s is None:
        return [*takes, reported(update, 0.0)]
    ended = update or told.update()
    begun = [UpdateState.QUEUED, UpdateState.DOWNLOADING, UpdateState.TRIAL]
    steps = [told.update(each, at=now + timedelta(seconds=number)) for number, each in enumerate(begun)]
    steps.append(replace(ended, at=now + timedelta(seconds=took_s)))
    return [*takes, *(reported(step, 1.0 + number) for number, step in enumerate(steps))]


@pytest.fixture(scope="module")
def taped(told: ModuleType) -> Callable[..., list[Take]]:
    """A tape of so many devices, each of which took so long for its last update."""

    def made(count: int, odd: dict[int, dict[str, Any]] | None = None, took_s: float = 30.0) -> list[Take]:
        made: list[Take] = []
        for number, key in enumerate(told.keys(count)):
            made += device(told, key, **({"took_s": took_s} | (odd or {}).get(number, {})))
        return sorted(made, key=lambda each: each.at_s)

    return made


def test_a_device_is_remembered_by_its_last_update(told: ModuleType) -> None:
    one, two, three, four = told.keys(4)
    delta = told.update(moved_bytes=100, transfer="delta")
    metrics = ModelMetrics(
        at=told.NOW, boot_id="b1", bundle=told.OLD, name="digits", version="1.0.0", since=told.NOW, frames=9,
        scores=[0] * 20, labels={}, drift=0.25,
    )  # fmt: skip
    takes = [
        *device(told, one, took_s=40.0, update=delta),
        take(t.ModelTopic(*one), metrics),
        *device(told, two, online=False, update=told.update(UpdateState.FAILED, code=Code.SLOW)),
        *device(told, three),
        *device(told, four, took_s=9.0, update=told.update(UpdateState.FAILED, code=Code.SUPERSEDED)),
    ]
    found = habits(takes)
    assert (found[one].online, found[one].takes_s, found[one].moved_share) == (True, 40.0, 0.1)
    assert found[one].drift == 0.25
    assert (found[two].online, found[two].takes_s, found[two].moved_share) == (False, None, 1.0)
    remembered = found[two].update
    assert remembered is not None
    assert remembered.code is Code.SLOW
    assert found[three].update is None
    assert (found[four].update, found[four].takes_s) == (None, None), "it says nothing of another bundle"


def test_an_update_that_took_a_day_waited_for_something_else(told: ModuleType) -> None:
    key = told.keys(1)[0]
    assert habits(device(told, key, took_s=86400.0))[key].takes_s is None
    assert habits(device(told, key, took_s=-5.0))[key].takes_s is None


def test_a_sound_fleet_is_done_when_its_devices_and_soaks_are(
    told: ModuleType, taped: Callable[..., list[Take]]
) -> None:
    found = plan(taped(100), told.policy(soak_s=600.0), size_bytes=1000)
    assert (found.phase, found.devices, found.online, found.told) == (Phase.DONE, 100, 100, 100)
    assert found.reason == "100 of 100 confirmed."
    assert [each.size for each in found.stages] == ["1", "5%", "25%", "100%"]
    assert [each.begins_s for each in found.stages] == pytest.approx([0.0, 630.0, 1260.0, 1890.0], abs=2.0)
    assert found.stages[-1].ends_s == found.takes_s == pytest.approx(2520.0, abs=2.0)
    assert len(found.stages[0].devices) == 1
    assert sum(len(each.devices) for each in found.stages) == 100
    assert found.size_bytes == 100_000
    for one, two in pairwise(found.stages):
        assert one.ends_s == two.begins_s


def test_a_delta_moves_the_share_that_it_moved_before(told: ModuleType, taped: Callable[..., list[Take]]) -> None:
    delta = told.update(moved_bytes=100, transfer="delta")  # of 1000
    odd = {number: {"update": delta} for number in range(10)}
    assert plan(taped(20, odd), told.policy(), size_bytes=5000).size_bytes == 10 * 500 + 10 * 5000


def test_whoever_failed_before_is_expected_to_fail_and_halts(
    told: ModuleType, taped: Callable[..., list[Take]]
) -> None:
    slow = told.update(UpdateState.ROLLED_BACK, code=Code.SLOW, reason="It takes 55 ms. Take a smaller one.")
    odd = {number: {"update": slow} for number in range(0, 100, 4)}
    found = plan(taped(100, odd), told.policy(soak_s=60.0), size_bytes=1000)
    assert found.phase is Phase.HALTED
    assert "slow: It takes 55 ms. Take a smaller one." in found.reason
    halted = found.stages[-1]
    assert halted.ends_s is None
    assert halted.failing
    assert f"{halted.failing[0].site}/{halted.failing[0].device}" in found.reason
    assert {each.outcome for each in halted.failing} == {Outcome.FAILED}
    assert sum(len(each.devices) for each in found.stages) < 100
    assert all(not each.failing for each in found.stages[:-1])


def test_with_patience_for_failures_it_goes_on(told: ModuleType, taped: Callable[..., list[Take]]) -> None:
    slow = told.update(UpdateState.FAILED, code=Code.MEMORY, reason="Too much.")
    odd = {number: {"update": slow} for number in range(0, 100, 10)}
    found = plan(taped(100, odd), told.policy(max_failures=1.0, min_confirmed=0.0), size_bytes=1000)
    assert found.phase is Phase.DONE
    assert sum(len(each.failing) for each in found.stages) == 10
    assert sum(each.confirmed for each in found.stages) == 90


def test_whoever_found_no_repository_is_silent(told: ModuleType, taped: Callable[..., list[Take]]) -> None:
    gone = told.update(UpdateState.FAILED, code=Code.UNREACHABLE, reason="Nobody answers there.")
    found = plan(taped(1, {0: {"update": gone}}), told.policy(deadline_s=500.0), size_bytes=1000)
    assert found.phase is Phase.HALTED
    assert found.stages[0].failing[0].outcome is Outcome.SILENT
    assert "Nobody answers there." in found.reason
    assert found.takes_s == pytest.approx(500.0, abs=1.0)


def test_slower_and_drifting_devices_meet_the_gates(told: ModuleType, taped: Callable[..., list[Take]]) -> None:
    gates = {"trial_p95_ms": Gate(value=15.0, limit=30.0, ok=True, before=10.0)}
    slow = {number: {"update": told.update(gates=gates)} for number in range(50)}
    found = plan(taped(50, slow), told.policy(), size_bytes=1000)
    assert found.phase is Phase.HALTED
    assert "1.5 times" in found.reason


def test_those_away_are_planned_for_and_not_waited_for(told: ModuleType, taped: Callable[..., list[Take]]) -> None:
    found = plan(taped(100, {number: {"online": False} for number in range(20)}), told.policy(), size_bytes=1000)
    assert found.phase is Phase.DONE
    assert (found.online, sum(each.away for each in found.stages)) == (80, 20)
    assert found.size_bytes == 80_000


def test_nobody_there_is_waited_for_ever(told: ModuleType, taped: Callable[..., list[Take]]) -> None:
    found = plan(taped(5, {number: {"online": False} for number in range(5)}), told.policy(), size_bytes=1000)
    assert found.phase is Phase.RUNNING
    assert "would go no further. Stage 0 (1) waits for " in found.reason
    assert "not there since it was asked" in found.reason
    assert [each.ends_s for each in found.stages] == [None]


def test_the_pace_is_that_of_the_policy(told: ModuleType, taped: Callable[..., list[Take]]) -> None:
    found = plan(taped(100), told.policy("100%", per_min=10), size_bytes=1000)
    assert found.phase is Phase.DONE
    assert found.takes_s == pytest.approx(9 * 60 + 30, rel=0.05)
    found = plan(taped(100), told.policy("100%", at_once=10), size_bytes=1000)
    assert found.takes_s == pytest.approx(10 * 30, rel=0.1)


def test_a_stage_on_hold_is_said(told: ModuleType, taped: Callable[..., list[Take]]) -> None:
    found = plan(taped(50), told.policy(hold=(2,)), size_bytes=1000)
    assert [each.approval for each in found.stages] == [False, False, True, False]


def test_who_told_of_no_update_takes_as_long_as_the_others(told: ModuleType, taped: Callable[..., list[Take]]) -> None:
    odd = {number: {"took_s": None} for number in range(10)}
    assert plan(taped(30, odd, 45.0), told.policy("100%"), size_bytes=1).takes_s == pytest.approx(45.0, abs=1.0)
    odd = {number: {"took_s": None} for number in range(30)}
    assert plan(taped(30, odd), told.policy("100%"), size_bytes=1).takes_s == pytest.approx(60.0, abs=1.0)


def test_each_takes_as_long_as_before(told: ModuleType, taped: Callable[..., list[Take]]) -> None:
    odd = {0: {"took_s": 200.0}}
    assert plan(taped(9, odd), told.policy("100%"), size_bytes=1).takes_s == pytest.approx(200.0, abs=1.0)


def test_a_group_is_planned_alone(told: ModuleType, taped: Callable[..., list[Take]]) -> None:
    def of_plant(heard: Any) -> Any:
        return [key for key in heard if key[0] == "plant-1"] + [("plant-1", "not-yet-there")]

    found = plan(taped(30), told.policy(), size_bytes=1, group="site:plant-1", members=of_plant)
    assert (found.devices, found.online) == (11, 10)
    assert {site for each in found.stages for site, _ in each.devices} == {"plant-1"}
    with pytest.raises(DataError, match="No device of 'site:plant-9'"):
        plan(taped(3), told.policy(), size_bytes=1, group="site:plant-9", members=lambda _: [])


@pytest.mark.parametrize("name", ["recorded.jsonl", "recorded.jsonl.gz"])
def test_it_reads_what_watch_records(
    told: ModuleType, taped: Callable[..., list[Take]], tmp_path: Path, name: str
) -> None:
    takes, fleet, path = taped(20), Fleet(), tmp_path / name
    with TapeWriter(path, begun_at=told.NOW) as writer:
        for each in takes:
            writer.write(fleet.hear(each.topic, each.payload, retained=each.retained), at_s=each.at_s)
    rules = told.policy(soak_s=60.0)
    assert plan(read_tape(path), rules, size_bytes=1000) == plan(takes, rules, size_bytes=1000)


def test_an_empty_tape_says_what_to_do() -> None:
    with pytest.raises(DataError, match="tinysight watch --record"):
        habits([])


@settings(max_examples=40)
@given(
    kinds=st.lists(st.sampled_from(["sound", "slow", "away", "gone", "untold"]), min_size=1, max_size=40),
    per_min=st.integers(1, 50),
    at_once=st.integers(1, 50),
    soak_s=st.floats(0, 100),
    deadline_s=st.floats(1, 1000),
    salt=st.text("abc", min_size=1, max_size=4),
)
def test_every_plan_ends_and_accounts_for_everybody_asked(
    told: ModuleType,
    taped: Callable[..., list[Take]],
    kinds: list[str],
    per_min: int,
    at_once: int,
    soak_s: float,
    deadline_s: float,
    salt: str,
) -> None:
    odd = {
        "sound": {},
        "slow": {"update": told.update(UpdateState.FAILED, code=Code.SLOW)},
        "away": {"online": False},
        "gone": {"update": told.update(UpdateState.FAILED, code=Code.UNREACHABLE)},
        "untold": {"took_s": None},
    }
    rules = told.policy(
        soak_s=soak_s, per_min=per_min, at_once=at_once, deadline_s=deadline_s, max_failures=0.3, min_confirmed=0.5
    )
    takes = taped(len(kinds), {number: odd[kind] for number, kind in enumerate(kinds)})
    found: Plan = plan(takes, rules, size_bytes=10, salt=salt)
    assert found.phase in {Phase.DONE, Phase.HALTED, Phase.RUNNING}
    assert "more turns" not in found.reason
    assert [each.stage for each in found.stages] == list(range(len(found.stages)))
    assert all(one.ends_s == two.begins_s for one, two in pairwise(found.stages))
    asked = [key for each in found.stages for key in each.devices]
    assert len(asked) == len(set(asked)) <= len(kinds)
    if found.phase is Phase.DONE:
        assert len(asked) == len(kinds)
        for each in found.stages:
            assert len(each.devices) == each.away + each.confirmed + len(each.failing)
    assert found == plan(takes, rules, size_bytes=10, salt=salt)
