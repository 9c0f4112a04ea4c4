"""Why a device is where it is: each gate has its figure."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract.orders import Desired
from tinysight_contract.updates import Gate
from tinysight_deploy.fleet.deciding.buckets import bucket, stage_of
from tinysight_deploy.fleet.deciding.decide import BOXED, decide
from tinysight_deploy.fleet.deciding.why import why
from tinysight_deploy.fleet.types import Check, Facts, Outcome, Phase, Rollout, Wish


@pytest.fixture(scope="module")
def told(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("deploy/fleet/told")


Say = Callable[..., dict[str, Check]]


@pytest.fixture
def ask(told: ModuleType) -> Say:
    """Every check about one device, by name."""

    def say(
        rollout: Rollout, facts: Facts | None, wish: Wish | None, held: str = "", *, place: int = 0, member: bool = True
    ) -> dict[str, Check]:
        fleet = sorted(told.keys(100), key=lambda key: bucket("salt", key))
        key = fleet[place] if wish is None else wish.key
        wishes = {} if wish is None else {key: wish}
        known = {} if facts is None else {key: facts}
        decision = decide(rollout, fleet, known, wishes, {key: held} if held else {}, now_s=100.0)
        checks = why(rollout, key, facts, wish, decision, held or None, now_s=100.0, member=member)
        assert all(each.value for each in checks)
        return {each.name: each for each in checks}

    return say


@pytest.fixture
def rollout(told: ModuleType) -> Rollout:
    made: Rollout = told.rollout(
        told.keys(100), told.policy(soak_s=60.0, per_min=1, max_drift=0.3, max_agreement_drop=0.1)
    )
    return made


def test_one_that_is_not_of_the_group(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    found = ask(rollout, None, None, member=False)
    assert list(found) == ["member"]
    assert found["member"].ok is False
    assert "not of all" in found["member"].what
    found = ask(rollout, told.sound(), told.wish(), member=False)
    assert "counts on" in found["member"].what
    assert found["outcome"].value == "confirmed"


def test_one_that_is_asked_now(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    found = ask(rollout, told.before(), None)
    assert list(found) == ["member", "rollout", "stage", "penalty", "rate"]
    assert all(each.ok for each in found.values())
    assert found["rate"].what == "It is asked now."


def test_one_whose_stage_is_not_open(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    found = ask(rollout, told.before(), None, place=99)
    assert found["stage"].ok is False
    assert (found["stage"].value, found["stage"].limit) == ("3 (100%)", "open is 0 (1)")
    assert found["rate"].value == "not its turn"


def test_one_that_waits_for_its_turn(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    found = ask(replace(rollout, stage=3), told.before(), None, place=99)
    assert found["stage"].ok is True
    assert (found["rate"].ok, found["rate"].value, found["rate"].limit) == (False, "waits", "1 a minute, 1000 at once")


def test_one_that_is_held(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    found = ask(rollout, told.before(), None, held=f"{BOXED}It failed 2 hours ago.")
    assert (found["penalty"].ok, found["penalty"].what) == (False, "boxed: It failed 2 hours ago.")
    assert found["rate"].ok is None
    for spared in (replace(rollout, stage=3), replace(rollout, reverts="digits-1")):
        found = ask(spared, told.before(), None, held=f"{BOXED}It failed 2 hours ago.")
        assert (found["penalty"].ok, found["penalty"].value, found["rate"].ok) == (True, "not now", True)
        assert ask(spared, told.before(), None, held="It is busy.")["penalty"].ok is False


def test_one_whose_stage_waits_for_somebody(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    held = replace(rollout, policy=replace(rollout.policy, hold=(2,)), stage=1)
    found = ask(held, told.before(), None, place=99)
    assert (found["approval"].ok, found["approval"].value) == (False, "waits")
    assert "Stage 2" in found["approval"].what
    found = ask(replace(held, approved=2), told.before(), None, place=99)
    assert found["approval"].ok is True


def test_a_later_stage_is_not_to_be_approved_yet(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    held = replace(rollout, policy=replace(rollout.policy, hold=(2,)))
    assert "will wait" in ask(held, told.before(), None, place=99)["approval"].what


def test_all_that_decides_about_the_whole_rollout_is_there(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    later = replace(rollout, stage=2, opened_s=40.0, reason="Stage 2 (25%) waits for plant-1/belt-8: It is busy.")
    found = ask(later, told.failed(), told.wish(stage=1))
    gate = found["failures of all stages"]
    assert (gate.ok, gate.value, gate.limit) == (False, "1 of 1 (100%)", "at most 2%")
    assert found["rollout"].what == later.reason
    assert found["stage"].what.endswith("Stage 2 was opened 1 min ago.")


def test_one_of_a_rollout_that_halted(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    found = ask(replace(rollout, phase=Phase.HALTED, reason="Too many failed."), told.before(), None)
    assert (found["rollout"].ok, found["rollout"].value, found["rollout"].what) == (False, "halted", "Too many failed.")
    assert found["rate"].ok is None


@pytest.mark.parametrize(
    ("made", "wish", "ok", "value"),
    [
        pytest.param("sound", {"outcome": "confirmed", "settled_s": 40.0}, True, "confirmed, 1 min ago", id="well"),
        pytest.param("failed", {"outcome": Outcome.FAILED, "settled_s": 95.0}, False, "failed, 5 s ago", id="failed"),
        pytest.param("asked", {}, None, "going", id="going"),
        pytest.param("asked", {"outcome": Outcome.SILENT, "settled_s": 50.0}, False, "silent, 50 s ago", id="silent"),
    ],
)  # fmt: skip
def test_one_that_was_asked(
    told: ModuleType, rollout: Rollout, ask: Say, made: str, wish: dict[str, Any], ok: bool | None, value: str
) -> None:
    found = ask(rollout, getattr(told, made)(), told.wish(**wish))
    assert (found["outcome"].ok, found["outcome"].value) == (ok, value)
    assert found["asked"].value == "1.7 min ago"
    assert found["reached"].ok is True
    assert found["reported"].limit == "revision 5"
    assert {"stage 0: failures", "stage 0: confirmed", "stage 0: soak"} <= found.keys()


def test_one_that_is_away(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    found = ask(rollout, told.before(online=False), told.wish(reached_s=None))
    assert (found["reached"].ok, found["reached"].value) == (None, "offline")
    assert found["outcome"].value == "away"
    assert "time before" in found["reported"].what
    assert "keeps no desired state" in found["reported"].what
    assert ask(rollout, None, told.wish(reached_s=None))["reached"].value == "not known"


def test_one_that_has_left(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    found = ask(rollout, told.sound(desired=Desired(revision=9, bundle=told.OTHER)), told.wish())
    assert found["outcome"].value == "left"
    assert "The broker keeps revision 9." in found["reported"].what


def test_each_gate_of_the_device_has_its_figure(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    gates = {
        "agreement": Gate(value=0.85, limit=0.8, ok=True),
        "trial_p95_ms": Gate(value=13.0, limit=20.0, ok=True, before=10.0),
        "frames": Gate(value=2.0, limit=2.0, ok=True),
        "memory_mib": Gate(value=80.5, limit=256.0, ok=True, before=70.0),
        "p95_ms": Gate(value=55.0, limit=20.0, ok=False, before=10.0),
        "golden": Gate(value=0.0, limit=0.0, ok=True),
    }
    facts = told.sound(update=told.update(gates=gates, moved_bytes=900), drift=0.1, metered=told.NEW)
    found = ask(rollout, facts, told.wish())
    figures = {
        name: (each.ok, each.value, each.limit) for name, each in found.items() if not name.startswith("stage 0")
    }
    assert figures["update"] == (True, "digits 2.0.0: confirmed, 900 bytes moved", "")
    assert figures["golden"] == (True, "0", "at most 0")
    assert figures["p95_ms"] == (False, "55 ms, 10 ms before", "at most 20 ms")
    assert figures["memory_mib"] == (True, "80.5 MiB, 70 MiB before", "at most 256 MiB")
    assert figures["frames"] == (True, "2", "at least 2")
    assert figures["trial_p95_ms"] == (True, "13 ms, 10 ms before", "at most 20 ms")
    assert figures["agreement"] == (True, "0.85", "at least 0.8")
    assert figures["slowdown"] == (False, "1.3 times", "at most 1.2 times")
    assert figures["seen alike"] == (False, "85%", "at least 90%")
    assert figures["drift"] == (True, "0.1", "at most 0.3")
    assert list(figures)[-1] == "outcome"


def test_what_is_not_told_is_not_called_good(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    found = ask(rollout, told.sound(update=None), told.wish())
    assert (found["drift"].ok, found["drift"].value) == (None, "not told")
    assert "update" not in found
    assert "slowdown" not in found
    found = ask(rollout, told.asked(due=True), told.wish())
    assert found["reported"].value == "revision 5, waiting, waits for its window"


def test_the_stage_it_names_is_that_of_its_place(told: ModuleType, rollout: Rollout, ask: Say) -> None:
    fleet = sorted(told.keys(100), key=lambda key: bucket("salt", key))
    for place in (0, 3, 40, 99):
        stage = stage_of(rollout.cutoffs, bucket("salt", fleet[place]))
        assert ask(rollout, None, None, place=place)["stage"].value.startswith(f"{stage} (")
