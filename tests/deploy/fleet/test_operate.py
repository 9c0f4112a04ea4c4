"""What people do to rollouts."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract.errors import FleetError
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Release, Update, UpdateState
from tinysight_deploy.fleet.control import operate
from tinysight_deploy.fleet.deciding.buckets import bucket
from tinysight_deploy.fleet.keeping.rows import Boxed
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Facts, Key, Outcome, Phase, Policy, Rollout, Wish, parse_stages

POLICY = Policy(stages=parse_stages("1,50%,100%"), hold=(1, 2), window="01:00-05:00")
RELEASE = Release(
    target="belt/belt-1.2.0.bundle", digest="ab" * 32, size_bytes=7, name="Belt 2", version="1.2.0", release=12
)
KEYS: list[Key] = [("plant-1", f"belt-{number}") for number in range(8)]


@pytest.fixture
def begin(state: State) -> Callable[..., Rollout]:
    def begun(facts: dict[Key, Facts] | None = None, **more: Any) -> Rollout:
        given: dict[str, Any] = {"release": RELEASE, "group": "all", "policy": POLICY, "who": "ann", "members": KEYS}
        return operate.begin(state, facts or {}, **{**given, **more})

    return begun


def wished(state: State, rollout: Rollout, *keys: Key) -> None:
    lead = state.lead("test", now_s=0.0)
    assert lead is not None
    wishes = [
        Wish(site=site, device=name, stage=0, revision=1, sent_s=0.0, outcome=Outcome.CONFIRMED) for site, name in keys
    ]
    state.ask(rollout.id, wishes, lead=lead)


def test_a_rollout_begins_among_those_who_are_online(state: State, begin: Callable[..., Rollout]) -> None:
    facts = {key: Facts(online=key in KEYS[5:]) for key in KEYS}
    rollout = begin(facts)
    assert state.rollout(rollout.id) == rollout
    assert rollout.id.startswith("belt-2-12-")
    assert (rollout.target, rollout.bundle, rollout.size_bytes) == (RELEASE.target, RELEASE.digest, 7)
    places = {key: bucket(rollout.salt, key) for key in KEYS}
    first = [key for key in KEYS[5:] if places[key] < rollout.cutoffs[0]]
    assert first == [min(KEYS[5:], key=lambda key: places[key])]


def test_when_nobody_is_online_stages_are_cut_among_all(begin: Callable[..., Rollout]) -> None:
    rollout = begin()
    assert sum(bucket(rollout.salt, key) < rollout.cutoffs[0] for key in KEYS) == 1


def test_a_group_without_devices_is_refused(state: State, begin: Callable[..., Rollout]) -> None:
    with pytest.raises(FleetError, match=r"Nothing was heard of any device of 'all'. See `tinysight watch`"):
        begin(members=[])
    assert state.rollouts() == []


@pytest.mark.parametrize("acts", [["pause", "resume", "pause", "abort"], ["abort"]])
def test_each_act_is_done_once_and_told(state: State, begin: Callable[..., Rollout], acts: list[str]) -> None:
    rollout = begin()
    after = {"pause": Phase.PAUSED, "resume": Phase.RUNNING, "abort": Phase.ABORTED}
    for act in acts:
        assert getattr(operate, act)(state, rollout.id, who="bea", reason="lunch").phase is after[act]
        with pytest.raises(FleetError, match=f"See `tinysight rollout status {rollout.id}`"):
            getattr(operate, act)(state, rollout.id, who="bea")
    told = [(entry.who, entry.what, entry.detail["reason"]) for entry in state.audit()[1:]]
    assert told == [("bea", act, "lunch") for act in acts]


def test_what_was_settled_before_it_was_resumed_counts_no_more(state: State, begin: Callable[..., Rollout]) -> None:
    rollout = begin()
    lead = state.lead("test", now_s=0.0)
    assert lead is not None
    state.change(
        rollout.id, lambda now: replace(now, phase=Phase.HALTED, reason="bad", soaked_from_s=3.0), who="c", what="halt"
    )
    state.tick({rollout.id: 50.0}, lead=lead)
    resumed = operate.resume(state, rollout.id, who="ann")
    assert (resumed.phase, resumed.window_s, resumed.soaked_from_s, resumed.reason) == (Phase.RUNNING, 50.0, None, "")


def test_stages_are_approved_one_after_another(state: State, begin: Callable[..., Rollout]) -> None:
    rollout = begin()
    state.change(rollout.id, lambda now: replace(now, reason="Stage 1 (50%) waits for somebody."), who="c", what="wait")
    approved = operate.approve(state, rollout.id, who="ann")
    assert (approved.approved, approved.reason) == (1, ""), "nobody reads that it waits, and approves the next one"
    with pytest.raises(FleetError, match=r"waits .* now. Stage 2 \(100%\) will, and open is stage 0 \(1\)"):
        operate.approve(state, rollout.id, who="bea")
    state.change(rollout.id, lambda now: replace(now, stage=1), who="c", what="stage")
    assert operate.approve(state, rollout.id, who="ann").approved == 2
    with pytest.raises(FleetError, match=r"No stage of .* waits for approval"):
        operate.approve(state, rollout.id, who="ann")


def test_stages_are_cut_among_those_who_may_be_asked(state: State, begin: Callable[..., Rollout]) -> None:
    facts = {key: Facts(online=True) for key in KEYS}
    lead = state.lead("test", now_s=0.0)
    assert lead is not None
    boxed, busy = KEYS[:3], KEYS[3:6]
    boxes = {key: Boxed(until=utc_now() + timedelta(hours=1)) for key in boxed}
    boxes[KEYS[7]] = Boxed(until=utc_now() - timedelta(hours=1))  # is over
    state.settle("any", [], boxes=boxes, lead=lead)
    other = begin(facts)
    going = [Wish(site=site, device=name, stage=0, revision=1, sent_s=0.0) for site, name in busy]
    state.ask(other.id, going, lead=lead)
    for _ in range(5):
        rollout = begin(facts)
        first = min(KEYS[6:], key=lambda key: bucket(rollout.salt, key))
        assert bucket(rollout.salt, first) < rollout.cutoffs[0]
        assert all(bucket(rollout.salt, key) >= rollout.cutoffs[0] for key in KEYS[6:] if key != first)
    alone = begin(facts, members=boxed)
    assert sum(bucket(alone.salt, key) < alone.cutoffs[0] for key in boxed) == 1, "there is nobody else"


def test_a_rollout_is_taken_back_by_another(state: State, begin: Callable[..., Rollout]) -> None:
    old = begin()
    wished(state, old, *KEYS[:3])
    facts = {key: Facts(online=True, active=RELEASE.digest if key in KEYS[1:5] else "cd" * 32) for key in KEYS}
    back = replace(RELEASE, release=13, digest="cd" * 32)
    new = operate.revert(state, facts, old.id, release=back, who="ann", reason="worse", reverted=12)
    assert state.rollout(old.id).phase is Phase.ABORTED
    assert (new.reverts, new.bundle, new.policy.hold) == (old.id, back.digest, ())
    assert (new.cutoffs, new.policy.window) == ((1.0,), None), "all at once, and now"
    rules = Policy(stages=parse_stages("1,100%"), window=POLICY.window)
    slower = operate.revert(state, facts, old.id, release=back, who="ann", reverted=12, policy=rules)
    assert (slower.policy.stages, slower.policy.window) == (rules.stages, None)
    assert sum(bucket(slower.salt, key) < slower.cutoffs[0] for key in KEYS[1:3]) == 1


NEWER = Update(target=RELEASE.target, state=UpdateState.CONFIRMED, at=utc_now(), bundle=RELEASE)


@pytest.mark.parametrize(
    ("release", "reverted", "said"),
    [
        pytest.param(None, 12, "--release 13 or higher", id="none"),
        pytest.param(replace(RELEASE, release=11, digest="cd" * 32), 12, "--release 13 or higher", id="lower"),
        pytest.param(
            replace(RELEASE, release=11, digest="cd" * 32), None, "--release 13 or higher", id="by the devices"
        ),
        pytest.param(replace(RELEASE, release=99), 12, "--release 13 or higher", id="the same"),
    ],
)
def test_there_is_no_way_back_but_by_a_higher_number(
    state: State, begin: Callable[..., Rollout], release: Release | None, reverted: int | None, said: str
) -> None:
    old = begin()
    wished(state, old, KEYS[0])
    facts = {KEYS[0]: Facts(online=True, active=RELEASE.digest, update=NEWER)}
    with pytest.raises(FleetError, match=r"tinysight release add OLD --release N.*" + said):
        operate.revert(state, facts, old.id, release=release, who="ann", reverted=reverted)
    assert state.rollout(old.id).phase is Phase.RUNNING


def test_who_has_nothing_to_take_back_is_told_to_abort(state: State, begin: Callable[..., Rollout]) -> None:
    old = begin()
    with pytest.raises(FleetError, match="rollout abort"):
        operate.revert(
            state, {}, old.id, release=replace(RELEASE, release=13, digest="cd" * 32), who="ann", reverted=12
        )
