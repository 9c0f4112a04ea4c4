"""What one device's reports mean."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.orders import Desired, DesiredState
from tinysight_contract.updates import Code, Gate, Update, UpdateState
from tinysight_deploy.fleet.deciding.judge import judge, settled
from tinysight_deploy.fleet.types import Facts, Outcome, Verdict

DAY_S = 86400.0


@pytest.fixture(scope="module")
def told(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("deploy/fleet/told")


@pytest.fixture(scope="module")
def say(told: ModuleType) -> Callable[..., Verdict]:
    def verdict(facts: Facts, *, now_s: float = 10.0, rules: dict[str, Any] | None = None, **wish: Any) -> Verdict:
        rollout = told.rollout(rules=told.policy(**(rules or {})))
        return judge(rollout, told.wish(**wish), facts, now_s=now_s)

    return verdict


@pytest.mark.parametrize(
    ("made", "more", "outcome", "reason"),
    [
        pytest.param("before", {"online": False}, Outcome.AWAY, "not been there", id="was never there"),
        pytest.param("before", {"online": None}, Outcome.AWAY, "not been there", id="is not known to be there"),
        pytest.param("before", {}, Outcome.GOING, "not said yet", id="is there, and silent so far"),
        pytest.param("asked", {}, Outcome.GOING, "It is fetched.", id="has heard"),
        pytest.param("sound", {}, Outcome.CONFIRMED, "", id="runs it"),
        pytest.param("sound", {"online": False}, Outcome.CONFIRMED, "", id="runs it, and was switched off"),
        pytest.param("sound", {"state": DesiredState.REFUSED}, Outcome.CONFIRMED, "", id="refuses a zone only"),
        pytest.param("failed", {}, Outcome.FAILED, "slow: It takes 55 ms. Take a smaller one.", id="is too slow"),
        pytest.param("failed", {"update": None}, Outcome.FAILED, "refused: It takes 55", id="has no code"),
        pytest.param("failed", {"update": None, "reason": ""}, Outcome.FAILED, "does not say why", id="says nothing"),
        pytest.param("failed", {"revision": 4}, Outcome.GOING, "not said yet", id="failed before it was asked"),
        pytest.param("failed", {"state": DesiredState.WAITING}, Outcome.GOING, "55 ms", id="failed, and tries again"),
        pytest.param("sound", {"revision": 4}, Outcome.GOING, "not said yet", id="ran it before it was asked"),
        pytest.param("sound", {"update": None}, Outcome.GOING, "not how", id="claims it without an update"),
        pytest.param("sound", {"revision": 2**60}, Outcome.CONFIRMED, "", id="has a revision from nowhere"),
        pytest.param("asked", {"revision": 2**60}, Outcome.GOING, "fetched", id="has a number from nowhere"),
        pytest.param("asked", {"state": DesiredState.APPLIED}, Outcome.GOING, "fetched", id="runs another"),
    ],
)  # fmt: skip
def test_what_a_report_means(
    told: ModuleType, say: Callable[..., Verdict], made: str, more: dict[str, Any], outcome: Outcome, reason: str
) -> None:
    verdict = say(getattr(told, made)(**more), reached_s=None)
    assert verdict.outcome is outcome
    assert reason in verdict.reason


def test_progress_is_told(told: ModuleType, say: Callable[..., Verdict]) -> None:
    loading = told.update(UpdateState.DOWNLOADING, share=0.4)
    assert say(told.asked(update=loading)).reason == "It is fetched, 40% are there."
    assert say(told.asked(update=told.update(UpdateState.TRIAL))).reason == "It is on trial."
    unnamed = told.update(UpdateState.QUEUED, bundle=None)
    assert say(told.asked(update=unnamed)).reason == "It is queued."


def test_who_ran_it_before_needs_no_update(told: ModuleType, say: Callable[..., Verdict]) -> None:
    assert say(told.sound(update=None), before=told.NEW).outcome is Outcome.CONFIRMED


def test_an_update_of_another_bundle_proves_nothing(told: ModuleType, say: Callable[..., Verdict]) -> None:
    other = told.update(bundle=replace(told.RELEASE, digest=told.OTHER))
    assert say(told.sound(update=other)).outcome is Outcome.GOING
    assert say(told.sound(update=other), outcome=Outcome.CONFIRMED).outcome is Outcome.CONFIRMED


@pytest.mark.parametrize(
    ("revision", "bundle", "outcome"),
    [
        pytest.param(6, "OTHER", Outcome.LEFT, id="another bundle since"),
        pytest.param(6, None, Outcome.LEFT, id="none since"),
        pytest.param(5, "OTHER", Outcome.LEFT, id="another one that was written over ours"),
        pytest.param(4, "OTHER", Outcome.CONFIRMED, id="what was asked for before, said again"),
        pytest.param(6, "NEW", Outcome.CONFIRMED, id="the same by somebody else"),
    ],
)
def test_who_is_wanted_for_something_else_has_left(
    told: ModuleType, say: Callable[..., Verdict], revision: int, bundle: str | None, outcome: Outcome
) -> None:
    desired = Desired(revision=revision, bundle=None if bundle is None else getattr(told, bundle))
    assert say(told.sound(desired=desired)).outcome is outcome


def test_silence_past_the_deadline_is_failure(told: ModuleType, say: Callable[..., Verdict]) -> None:
    rules = {"deadline_s": 60.0}
    for facts in (told.before(), told.before(online=False), told.asked(), Facts(), told.sound(update=None)):
        assert say(facts, rules=rules, now_s=59.9).outcome is Outcome.GOING
        silent = say(facts, rules=rules, now_s=60.0)
        assert silent.outcome is Outcome.SILENT
        assert "within 60 s" in silent.reason


def test_who_was_never_there_is_never_silent(told: ModuleType, say: Callable[..., Verdict]) -> None:
    assert say(told.before(online=False), now_s=90 * DAY_S, reached_s=None).outcome is Outcome.AWAY
    assert say(told.before(), now_s=90 * DAY_S, reached_s=None).outcome is Outcome.GOING  # the broker never took it


def test_the_deadline_does_not_run_before_the_window_but_not_for_ever(
    told: ModuleType, say: Callable[..., Verdict]
) -> None:
    rules = {"deadline_s": 60.0, "window": "01:00-05:00"}
    due = told.asked(due=True, reason="")
    assert say(due, rules=rules, now_s=DAY_S).outcome is Outcome.GOING
    assert "01:00-05:00" in say(due, rules=rules, now_s=DAY_S).reason
    assert say(due, rules=rules, now_s=26 * 3600.0).outcome is Outcome.SILENT
    begun = told.asked()  # its window has opened
    assert say(begun, rules=rules, now_s=DAY_S).outcome is Outcome.GOING
    assert say(begun, rules=rules, now_s=26 * 3600.0 + 60.0).outcome is Outcome.SILENT
    assert say(told.before(), rules=rules, now_s=60.0).outcome is Outcome.SILENT  # it has not even heard
    assert say(due, rules={"deadline_s": 60.0}, now_s=60.0).outcome is Outcome.SILENT  # nobody told it to wait


@pytest.mark.parametrize(
    ("was", "made", "more", "outcome"),
    [
        pytest.param(Outcome.SILENT, "sound", {}, Outcome.CONFIRMED, id="silent, and confirms late"),
        pytest.param(Outcome.FAILED, "sound", {}, Outcome.CONFIRMED, id="failed, and confirms late"),
        pytest.param(Outcome.SILENT, "failed", {}, Outcome.FAILED, id="silent, and fails late"),
        pytest.param(Outcome.SILENT, "asked", {}, Outcome.SILENT, id="silent, and on its way"),
        pytest.param(Outcome.FAILED, "asked", {}, Outcome.FAILED, id="failed, and on its way again"),
        pytest.param(Outcome.CONFIRMED, "failed", {}, Outcome.FAILED, id="confirmed, and rolled back"),
        pytest.param(Outcome.CONFIRMED, "asked", {}, Outcome.FAILED, id="confirmed, and lost it"),
        pytest.param(Outcome.CONFIRMED, "asked", {"active": None}, Outcome.FAILED, id="confirmed, and runs nothing"),
        pytest.param(Outcome.CONFIRMED, "before", {}, Outcome.CONFIRMED, id="confirmed, and an old report comes again"),
        pytest.param(Outcome.FAILED, "before", {}, Outcome.FAILED, id="failed, and an old report comes again"),
        pytest.param(Outcome.SILENT, "before", {}, Outcome.SILENT, id="silent, and an old report comes again"),
        pytest.param(Outcome.LEFT, "sound", {}, Outcome.CONFIRMED, id="left, and wanted again"),
    ],
)
def test_what_has_ended_ends_in_another_way_only(
    told: ModuleType, say: Callable[..., Verdict], was: Outcome, made: str, more: dict[str, Any], outcome: Outcome
) -> None:
    assert say(getattr(told, made)(**more), outcome=was, settled_s=5.0).outcome is outcome


def test_drift_of_the_bundle_is_failure_of_another_not(told: ModuleType, say: Callable[..., Verdict]) -> None:
    rules = {"max_drift": 0.3}
    drifts = say(told.sound(drift=0.4, metered=told.NEW), rules=rules)
    assert drifts.outcome is Outcome.FAILED
    assert drifts.reason.startswith("drifts: ")
    assert "0.4" in drifts.reason
    assert say(told.sound(drift=0.3, metered=told.NEW), rules=rules).outcome is Outcome.CONFIRMED
    assert say(told.sound(drift=0.4, metered=told.OLD), rules=rules).outcome is Outcome.CONFIRMED
    assert say(told.sound(drift=0.4, metered=told.NEW)).outcome is Outcome.CONFIRMED


def test_figures_are_those_of_the_trial_or_of_the_self_test(told: ModuleType, say: Callable[..., Verdict]) -> None:
    verdict = say(told.sound(slowdown=1.3, agreement=0.9))
    assert verdict.slowdown == pytest.approx(1.3)
    assert verdict.agreement == 0.9
    tested = {"p95_ms": Gate(value=8.0, limit=9.0, ok=True, before=4.0)}
    assert say(told.sound(update=told.update(gates=tested))).slowdown == 2.0
    both = tested | {"trial_p95_ms": Gate(value=8.0, limit=9.0, ok=True)}  # was run too few times
    assert say(told.sound(update=told.update(gates=both))).slowdown == 2.0
    assert say(told.sound(update=told.update())).slowdown is None


@pytest.mark.parametrize(
    ("value", "ago"),
    [(1e308, 1e-308), (-1.0, 1.0), (1.0, -1.0), (1.0, 0.0), (1e308, 0.0), (-1e308, 1e308), (1.0, None)],
)
def test_figures_that_cannot_be_are_none(
    told: ModuleType, say: Callable[..., Verdict], value: float, ago: float | None
) -> None:
    lies = {
        "trial_p95_ms": Gate(value=value, limit=1.0, ok=True, before=ago),
        "agreement": Gate(value=value * 2, limit=0.0, ok=True),
    }
    verdict = say(told.sound(update=told.update(gates=lies)))
    assert verdict.outcome is Outcome.CONFIRMED
    assert verdict.slowdown is None
    assert verdict.agreement is None


def test_what_a_device_says_is_cut_and_made_plain(told: ModuleType, say: Callable[..., Verdict]) -> None:
    lie = told.failed(update=told.update(UpdateState.FAILED, code=Code.WRONG, reason="\x1b[2J\n" + "x" * 10_000))
    reason = say(lie).reason
    assert reason.isprintable()
    assert len(reason) < 400


anything = st.builds(
    Facts,
    online=st.sampled_from([None, True, False]),
    active=st.sampled_from([None, "ab" * 32, "cd" * 32]),
    revision=st.integers(0, 2**60),
    state=st.sampled_from([None, *DesiredState]),
    reason=st.text(max_size=5),
    due=st.booleans(),
    drift=st.none() | st.floats(0, 1),
    metered=st.sampled_from([None, "ab" * 32]),
    desired=st.none()
    | st.builds(Desired, revision=st.integers(0, 2**60), bundle=st.sampled_from([None, "ab" * 32, "cd" * 32])),
)


@given(
    facts=anything,
    state=st.sampled_from([None, *UpdateState]),
    code=st.sampled_from([None, *Code]),
    figures=st.tuples(*[st.floats(allow_nan=False)] * 3),
    outcome=st.sampled_from([each for each in Outcome if each is not Outcome.HELD]),
    reached_s=st.none() | st.floats(0, 1e6),
    now_s=st.floats(0, 1e7),
)
def test_whatever_comes_is_judged_and_the_same_again_is_the_same(
    told: ModuleType,
    facts: Facts,
    state: UpdateState | None,
    code: Code | None,
    figures: tuple[float, float, float],
    outcome: Outcome,
    reached_s: float | None,
    now_s: float,
) -> None:
    value, ago, agreement = figures
    gates = {
        "trial_p95_ms": Gate(value=value, limit=1.0, ok=True, before=ago),
        "agreement": Gate(value=agreement, limit=0.0, ok=True),
    }
    update: Update | None = None if state is None else told.update(state, code=code, gates=gates)
    rollout = told.rollout(rules=told.policy(max_drift=0.5, window="01:00-05:00"))
    wish = told.wish(outcome=outcome, reached_s=reached_s, settled_s=None if reached_s is None else reached_s)
    verdict = judge(rollout, wish, replace(facts, update=update), now_s=now_s)
    assert verdict.outcome is not Outcome.HELD
    assert verdict.slowdown is None or 0.0 <= verdict.slowdown < float("inf")
    assert verdict.agreement is None or 0.0 <= verdict.agreement <= 1.0
    if verdict.outcome is Outcome.CONFIRMED and outcome is not Outcome.CONFIRMED:
        assert facts.active == told.NEW
    kept = settled(wish, verdict, now_s=now_s)
    again = judge(rollout, kept, replace(facts, update=update), now_s=now_s)
    assert again.outcome is verdict.outcome
    assert settled(kept, again, now_s=now_s + 1.0) == kept


def test_what_is_kept_of_a_wish(told: ModuleType) -> None:
    def verdict(outcome: Outcome) -> Verdict:
        return Verdict(outcome=outcome)

    away = told.wish(reached_s=None)
    assert settled(away, verdict(Outcome.AWAY), now_s=3.0) is away
    going = settled(away, verdict(Outcome.GOING), now_s=4.0)
    assert (going.outcome, going.reached_s, going.settled_s) == (Outcome.GOING, 4.0, None)
    assert settled(going, verdict(Outcome.GOING), now_s=5.0) is going
    confirmed = settled(going, verdict(Outcome.CONFIRMED), now_s=6.0)
    assert (confirmed.reached_s, confirmed.settled_s) == (4.0, 6.0)
    assert settled(confirmed, verdict(Outcome.FAILED), now_s=9.0).settled_s == 9.0
    silent = settled(going, verdict(Outcome.SILENT), now_s=7.0)
    assert settled(silent, verdict(Outcome.CONFIRMED), now_s=9.0).settled_s == 7.0
    left = settled(away, verdict(Outcome.LEFT), now_s=9.0)
    assert (left.outcome, left.reached_s, left.settled_s) == (Outcome.LEFT, None, None)
