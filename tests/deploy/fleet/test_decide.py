"""Whom a rollout asks, when it goes on, and what halts it."""

from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.orders import Desired
from tinysight_contract.updates import Code, Gate
from tinysight_deploy.fleet.deciding.buckets import bucket
from tinysight_deploy.fleet.deciding.decide import BOXED, decide
from tinysight_deploy.fleet.types import Change, Check, Decision, Facts, Key, Outcome, Phase, Rollout, Wish


@pytest.fixture(scope="module")
def told(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("deploy/fleet/told")


@pytest.fixture(scope="module")
def fleet(told: ModuleType) -> Callable[..., Any]:
    """A fleet of so many sound devices, some of which do otherwise, by their place in the rollout."""

    def made(count: int, odd: dict[int, Any] | None = None, *, delay_s: float = 5.0, **more: Any) -> Any:
        rules = {"stages": "1,5%,25%,100%", "at_once": 100_000, "per_min": 100_000} | more
        keys = sorted(told.keys(count), key=lambda key: bucket("salt", key))
        behave = dict.fromkeys(keys, told.sound) | {keys[place]: does for place, does in (odd or {}).items()}
        return told.Obedient(told.rollout(keys, told.policy(**rules)), behave, delay_s)

    return made


def check(decision: Decision, name: str) -> Check:
    return next(each for each in decision.checks if each.name == name)


def states(told: ModuleType, rollout: Rollout, **groups: int) -> tuple[dict[Key, Wish], dict[Key, Facts]]:
    """So many devices of each kind in the open stage."""
    wishes: dict[Key, Wish] = {}
    facts: dict[Key, Facts] = {}
    for kind, count in groups.items():
        for number in range(count):
            key = ("plant-1", f"{kind}-{number}")
            wishes[key] = told.wish(key, stage=rollout.stage)
            facts[key] = told.before(online=False) if kind == "away" else getattr(told, kind)()
            if kind == "away":
                wishes[key] = replace(wishes[key], reached_s=None)
    return wishes, facts


def test_a_sound_bundle_reaches_everybody_stage_by_stage(fleet: Callable[..., Any]) -> None:
    world = fleet(200).run()
    assert world.rollout.phase is Phase.DONE
    assert world.rollout.reason == "200 of 200 confirmed."
    assert world.stages == [0, 1, 2, 3]
    sizes = [sum(1 for _, _, stage in world.sent if stage == number) for number in range(4)]
    assert sizes[0] == 1
    assert 4 < sizes[1] < 20
    assert 20 < sizes[2] < 60
    assert sum(sizes) == 200


def test_one_device_alone_goes_through_all_stages(fleet: Callable[..., Any]) -> None:
    world = fleet(1).run()
    assert world.rollout.phase is Phase.DONE
    assert world.stages == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("does", "rules", "reason"),
    [
        pytest.param("crashed", {}, "crashed: It takes 55 ms.", id="crashes"),
        pytest.param("slow", {}, "slow: It takes 55 ms. Take a smaller one.", id="fails its own gate"),
        pytest.param("slower", {}, "takes 1.5 times as long for a run, at most 1.2 times is let", id="is slower"),
        pytest.param("drifts", {"max_drift": 0.3}, "drifts: It finds what is 0.5", id="drifts"),
        pytest.param("disagrees", {"max_agreement_drop": 0.02}, "both models see 90% alike", id="sees something else"),
        pytest.param("silent", {"deadline_s": 60.0}, "silent: No outcome within 60 s.", id="goes silent"),
        pytest.param("lies", {"deadline_s": 60.0}, "not how it has come to it", id="claims it"),
    ],
)  # fmt: skip
def test_a_bad_canary_halts_before_the_next_stage(
    told: ModuleType, fleet: Callable[..., Any], does: str, rules: dict[str, Any], reason: str
) -> None:
    behaviours: dict[str, Callable[[int], Facts] | None] = {
        "crashed": lambda revision: told.failed(revision, Code.CRASHED),
        "slow": told.failed,
        "slower": lambda revision: told.sound(revision, slowdown=1.5),
        "drifts": lambda revision: told.sound(revision, drift=0.5, metered=told.NEW),
        "disagrees": lambda revision: told.sound(revision, agreement=0.9),
        "silent": None,
        "lies": lambda revision: told.sound(revision, update=None),
    }
    world = fleet(100, {0: behaviours[does]}, **rules).run()
    assert world.rollout.phase is Phase.HALTED
    assert world.rollout.stage == 0
    assert len(world.sent) == 1
    (site, device), _, _ = world.sent[0]
    assert reason in world.rollout.reason
    assert f"{site}/{device}" in world.rollout.reason
    assert world.rollout.reason.startswith("Stage 0 (1): ")
    assert "rollout why" in world.rollout.reason


def test_the_first_that_failed_is_named(told: ModuleType) -> None:
    rollout = told.rollout(stage=3)
    wishes, facts = states(told, rollout, sound=20, failed=3)
    for number, settled_s in enumerate((8.0, 4.0, 6.0)):
        key = ("plant-1", f"failed-{number}")
        wishes[key] = replace(wishes[key], settled_s=settled_s, outcome=Outcome.FAILED)
    change = decide(rollout, wishes, facts, wishes, {}, now_s=10.0).change
    assert change is not None
    assert change.phase is Phase.HALTED
    assert "3 of 23 (13.04%) failed or were silent, at most 2% may. First plant-1/failed-1: slow: " in change.reason


@pytest.mark.parametrize(
    ("groups", "rules", "halts"),
    [
        pytest.param({"sound": 98, "failed": 2}, {}, False, id="as many as may"),
        pytest.param({"sound": 97, "failed": 3}, {}, True, id="one more"),
        pytest.param({"sound": 1, "asked": 97, "failed": 2}, {}, False, id="those on their way count"),
        pytest.param({"asked": 97, "failed": 3}, {}, True, id="at once"),
        pytest.param({"sound": 97, "away": 100, "failed": 3}, {}, True, id="those that are away do not count"),
        pytest.param({"away": 100}, {}, False, id="all away"),
        pytest.param({"asked": 100}, {"max_failures": 0.0, "min_confirmed": 1.0}, False, id="nobody has failed"),
        pytest.param({"sound": 71, "failed": 29}, {"max_failures": 0.29, "min_confirmed": 0.0}, False, id="29 %"),
        pytest.param({"sound": 94, "failed": 6}, {"max_failures": 1.0}, True, id="too few can confirm"),
        pytest.param({"sound": 95, "failed": 5}, {"max_failures": 1.0}, False, id="enough can confirm"),
    ],
)
def test_failures_that_cannot_be_made_good_halt_at_once(
    told: ModuleType, groups: dict[str, int], rules: dict[str, Any], halts: bool
) -> None:
    rollout = told.rollout(rules=told.policy(soak_s=60.0, **rules), stage=3)
    wishes, facts = states(told, rollout, **groups)
    decision = decide(rollout, wishes, facts, wishes, {}, now_s=10.0)
    assert (decision.change is not None and decision.change.what == "halt") is halts
    assert decision.ask == ()


def test_checks_have_their_figures_in_words(told: ModuleType) -> None:
    rollout = told.rollout(rules=told.policy(soak_s=60.0, max_failures=0.1, hold=(1,)))
    wishes, facts = states(told, rollout, sound=110, asked=7, failed=3, away=5)
    decision = decide(rollout, wishes, facts, wishes, {}, now_s=10.0)
    figures = {each.name: (each.ok, each.value, each.limit) for each in decision.checks}
    assert figures == {
        "asked": (True, "125 of 125 (100%)", ""),
        "reached": (True, "120 of 125 (96%)", ""),
        "settled": (None, "113 of 120 (94.17%)", ""),
        "failures": (None, "3 of 120 (2.5%)", "at most 10%"),
        "confirmed": (None, "110 of 120 (91.67%)", "at least 95%"),
        "latency": (None, "1 times", "at most 1.2 times"),
        "soak": (None, "0 s", "at least 60 s"),
        "approval": (False, "waits", "for stage 1"),
    }
    assert check(decision, "reached").what == "5 away"
    assert check(decision, "failures").what == "3 failed, 0 silent"


def test_a_stage_is_watched_before_the_next_one_opens(fleet: Callable[..., Any]) -> None:
    world = fleet(40, soak_s=30.0).run()
    assert world.rollout.phase is Phase.DONE
    opened = {stage: min(at_s for _, at_s, each in world.sent if each == stage) for stage in range(4)}
    assert all(later - sooner >= 35.0 for sooner, later in pairwise(opened.values()))


def test_one_that_fails_while_it_is_watched_halts(told: ModuleType, fleet: Callable[..., Any]) -> None:
    world = fleet(40, soak_s=30.0)
    world.run(turns=12)
    canary = world.sent[0][0]
    assert world.rollout.soaked_from_s is not None
    world.behave[canary] = told.asked
    world.run()
    assert world.rollout.phase is Phase.HALTED
    assert "lost: It ran the bundle" in world.rollout.reason
    assert len(world.sent) == 1


def test_latecomers_begin_the_watch_anew_where_they_are_many(told: ModuleType) -> None:
    rules = told.policy(soak_s=60.0)
    for sound, again in ((1, True), (18, True), (19, False), (100, False)):
        rollout = told.rollout(rules=rules, soaked_from_s=5.0)
        wishes, facts = states(told, rollout, sound=sound, asked=1)
        change = decide(rollout, wishes, facts, wishes, {}, now_s=70.0).change
        assert (change is not None and change.what == "soak" and change.soaked_from_s is None) is again
        assert again or change is None, "they were there, so it does not pass before they have ended"


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.HALTED, Phase.ABORTED, Phase.DONE])
def test_who_does_not_run_asks_nobody_and_changes_nothing(told: ModuleType, phase: Phase) -> None:
    for groups in ({"sound": 3}, {"failed": 3}, {}):
        rollout = told.rollout(phase=phase, reason="Because.", stage=3)
        wishes, facts = states(told, rollout, **groups)
        decision = decide(rollout, told.keys(50), facts, wishes, {}, now_s=10.0)
        assert decision.ask == ()
        assert decision.change is None
        assert len(decision.verdicts) == len(wishes)
        assert decision.checks


def test_what_was_settled_before_it_was_resumed_does_not_count(told: ModuleType) -> None:
    rollout = told.rollout(stage=3, window_s=10.0)
    wishes, facts = states(told, rollout, failed=3, sound=3)
    before = {key: replace(each, settled_s=9.0) for key, each in wishes.items()}
    decision = decide(rollout, wishes, facts, before, {}, now_s=20.0)
    assert check(decision, "failures").value == "0 of 0"
    assert check(decision, "settled").what == "6 judged before it was resumed"
    assert decision.change is not None
    assert decision.change.phase is Phase.DONE
    turned = {key: replace(each, outcome=Outcome.CONFIRMED) for key, each in before.items()}
    decision = decide(rollout, wishes, facts, turned, {}, now_s=20.0)
    assert decision.change is not None
    assert decision.change.phase is Phase.HALTED, "they had confirmed, and fail now"


def test_after_a_halt_somebody_may_go_on(told: ModuleType, fleet: Callable[..., Any]) -> None:
    world = fleet(100, {0: told.failed}).run()
    assert world.rollout.phase is Phase.HALTED
    world.rollout = replace(world.rollout, phase=Phase.RUNNING, window_s=world.now_s, soaked_from_s=None, reason="")
    world.run()
    assert world.rollout.phase is Phase.DONE
    assert world.rollout.reason == "99 of 100 confirmed; 1 failed."


def test_that_a_stage_waits_no_more_is_said_as_well(told: ModuleType) -> None:
    rollout = told.rollout(reason="Stage 0 (1) waits for plant-1/belt-7: not there since it was asked.")
    wishes, facts = states(told, rollout, asked=1)
    assert decide(rollout, wishes, facts, wishes, {}, now_s=10.0).change == Change(what="go on")
    soaks = replace(rollout, policy=told.policy(soak_s=60.0))
    wishes, facts = states(told, rollout, sound=1)
    change = decide(soaks, wishes, facts, wishes, {}, now_s=10.0).change
    assert change == Change(what="soak", soaked_from_s=10.0)


def test_nobody_there_is_waited_for(fleet: Callable[..., Any]) -> None:
    world = fleet(100)
    world.online = dict.fromkeys(world.behave, False)
    world.run(turns=50)
    assert (world.rollout.phase, world.rollout.stage, len(world.sent)) == (Phase.RUNNING, 0, 1)
    site, device = world.sent[0][0]
    assert world.rollout.reason.startswith(f"Stage 0 (1) waits for {site}/{device}: not there since it was asked.")
    assert world.turn().change is None, "it is said once"
    world.online = {}
    world.turn()
    assert "waits" not in world.rollout.reason, "and no longer than it is so"
    world.run()
    assert world.rollout.phase is Phase.DONE


def test_those_away_do_not_hold_up_the_others(fleet: Callable[..., Any]) -> None:
    world = fleet(200)
    world.online = dict.fromkeys(list(world.behave)[5::20], False)
    world.run()
    assert world.rollout.phase is Phase.DONE
    assert world.rollout.reason == "190 of 200 confirmed; 10 away, which catch up by themselves."


def test_who_joins_later_is_asked_in_the_stage_that_is_open(told: ModuleType, fleet: Callable[..., Any]) -> None:
    world = fleet(100, soak_s=30.0)
    world.run(turns=60)
    assert world.rollout.stage == 1
    end = world.rollout.cutoffs[0], world.rollout.cutoffs[1]
    fresh = [("plant-9", f"new-{number}") for number in range(400)]
    early = [key for key in fresh if bucket("salt", key) < end[1]]
    assert any(bucket("salt", key) < end[0] for key in early)
    world.behave |= dict.fromkeys(fresh, told.sound)
    world.turn()
    assert {key for key, _, stage in world.sent if key in fresh} == set(early)
    assert {stage for key, _, stage in world.sent if key in fresh} == {1}


def test_who_leaves_the_group_is_not_asked_and_counts_if_he_was(told: ModuleType) -> None:
    rollout = told.rollout(stage=3)
    wishes, facts = states(told, rollout, failed=3, sound=3)
    decision = decide(rollout, [], facts, wishes, {}, now_s=10.0)
    assert decision.ask == ()
    assert len(decision.verdicts) == 6
    assert decision.change is not None
    assert decision.change.phase is Phase.HALTED


def test_who_is_wanted_for_something_else_does_not_count(told: ModuleType) -> None:
    rollout = told.rollout(stage=0)
    wishes, facts = states(told, rollout, failed=1)
    key = next(iter(wishes))
    facts[key] = replace(facts[key], desired=Desired(revision=9, bundle=told.OTHER))
    alone = replace(rollout, cutoffs=(0.0, *rollout.cutoffs[1:]))
    decision = decide(alone, told.keys(50), facts, wishes, {}, now_s=10.0)
    assert decision.ask == ()
    assert decision.change is not None, "nobody has tried it, so it waits"
    assert decision.change.reason.startswith("Stage 0 (1) waits for a device that can try it: all 1 that were asked")
    last = replace(rollout, stage=3)
    decision = decide(last, [], facts, wishes, {}, now_s=10.0)
    assert decision.change is not None
    assert decision.change.phase is Phase.DONE
    assert "1 wanted for something else" in decision.change.reason


def test_the_next_device_stands_in_where_all_have_left(told: ModuleType, fleet: Callable[..., Any]) -> None:
    world = fleet(30, soak_s=30.0)
    order = list(world.behave)
    world.online, world.held = {order[1]: False}, {order[2]: BOXED}
    wanted = Desired(revision=9, bundle=told.OTHER)
    world.behave[order[0]] = lambda revision: told.asked(revision, desired=wanted)
    world.run(turns=12)
    assert [(key, stage) for key, _, stage in world.sent] == [(order[0], 0), (order[3], 0)]
    site, device = order[3]
    assert f"wanted for something else. {site}/{device}, the next of the later" in world.rollout.reason
    world.online = {}
    world.run()
    assert world.rollout.phase is Phase.DONE
    assert "1 wanted for something else" in world.rollout.reason


def test_nobody_stands_in_faster_than_the_rate(told: ModuleType) -> None:
    rollout = told.rollout(told.keys(50), told.policy(per_min=1))
    wishes, facts = states(told, rollout, failed=1)
    key = next(iter(wishes))
    facts |= dict.fromkeys(told.keys(50), told.before())
    facts[key] = replace(facts[key], desired=Desired(revision=9, bundle=told.OTHER))
    members = [key, *told.keys(50)]
    rollout = replace(rollout, cutoffs=(0.0, *rollout.cutoffs[1:]))  # nobody else is of the stage
    now = decide(rollout, members, facts, wishes, {}, now_s=10.0)
    assert (now.ask, now.change) == ((), None)
    assert len(decide(rollout, members, facts, wishes, {}, now_s=61.0).ask) == 1


def of_two_stages(
    told: ModuleType, earlier: dict[str, int], now: dict[str, int], **more: Any
) -> tuple[Rollout, dict[Key, Wish], dict[Key, Facts]]:
    """Devices of the stage that has passed, and of the open one."""
    rollout = told.rollout(stage=2, **more)
    wishes, facts = states(told, replace(rollout, stage=1), **earlier)
    wishes = {(f"{site}-before", name): replace(each, site=f"{site}-before") for (site, name), each in wishes.items()}
    facts = {(f"{site}-before", name): each for (site, name), each in facts.items()}
    mine, said = states(told, rollout, **now)
    return rollout, wishes | mine, facts | said


@pytest.mark.parametrize(
    ("earlier", "now", "halts"),
    [
        pytest.param({"failed": 50}, {"asked": 3}, True, id="all that had passed are rolled back"),
        pytest.param({"sound": 98, "failed": 2}, {"sound": 0}, False, id="as many as may"),
        pytest.param({"sound": 97, "failed": 3}, {"sound": 0}, True, id="one more"),
        pytest.param({"sound": 97, "failed": 3}, {"sound": 60}, False, id="of all, they are few"),
        pytest.param({"sound": 97, "failed": 1}, {"sound": 99, "failed": 1}, False, id="few in each"),
        pytest.param({"away": 97, "failed": 1}, {"asked": 3}, True, id="those that are away do not count"),
    ],
)
def test_those_that_had_passed_are_judged_on(
    told: ModuleType, earlier: dict[str, int], now: dict[str, int], halts: bool
) -> None:
    rollout, wishes, facts = of_two_stages(told, earlier, now)
    decision = decide(rollout, wishes, facts, wishes, {}, now_s=10.0)
    assert (decision.change is not None and decision.change.what == "halt") is halts
    assert (check(decision, "failures of all stages").ok is False) is halts
    assert check(decision, "failures").ok is not False
    if halts:
        assert decision.change is not None
        assert decision.change.reason.startswith("Of all stages up to now ")
        assert "at most 2% may. First plant-1-before/failed-0: slow: " in decision.change.reason


def test_one_that_passed_and_drifts_later_halts(told: ModuleType, fleet: Callable[..., Any]) -> None:
    world = fleet(60, soak_s=30.0, max_drift=0.3)
    world.run(turns=40)
    assert world.rollout.stage == 1
    canary = world.sent[0][0]
    world.behave[canary] = lambda revision: told.sound(revision, drift=0.5, metered=told.NEW)
    world.run()
    assert (world.rollout.phase, world.rollout.stage) == (Phase.HALTED, 1)
    assert f"{canary[0]}/{canary[1]}: drifts: " in world.rollout.reason


def test_those_that_were_away_and_fail_when_they_come_back_halt(told: ModuleType, fleet: Callable[..., Any]) -> None:
    world = fleet(200, soak_s=5.0)
    away = list(world.behave)[1:12]
    world.online = dict.fromkeys(away[:-1], False)
    world.behave |= dict.fromkeys(away[:-1], told.failed)
    while world.rollout.stage < 2:
        world.turn()
    world.online = {}
    world.run()
    assert world.rollout.phase is Phase.HALTED
    assert world.rollout.stage == 2


def test_what_passed_and_failed_before_it_was_resumed_halts_no_more(told: ModuleType) -> None:
    rollout, wishes, facts = of_two_stages(told, {"failed": 50, "sound": 50}, {"asked": 3}, window_s=10.0)
    before = {
        key: each if each.stage == 2 else replace(each, settled_s=9.0, outcome=Outcome.FAILED)
        for key, each in wishes.items()
    }
    before |= {
        key: replace(each, outcome=Outcome.CONFIRMED) for key, each in before.items() if key[1].startswith("sound")
    }
    decision = decide(rollout, before, facts, before, {}, now_s=20.0)
    assert decision.change is None
    assert check(decision, "failures of all stages").value == "0 of 53 (0%)"
    facts["plant-1-before", "sound-0"] = told.failed()
    decision = decide(rollout, before, facts, before, {}, now_s=20.0)
    assert check(decision, "failures of all stages").value == "1 of 53 (1.89%)", "who has confirmed is still there"
    facts["plant-1-before", "sound-1"] = told.failed()
    assert decide(rollout, before, facts, before, {}, now_s=20.0).change is not None


@pytest.mark.parametrize(
    ("groups", "came_s", "rules", "passes"),
    [
        pytest.param({"sound": 95, "asked": 5}, 6.0, {}, True, id="few came late"),
        pytest.param({"sound": 94, "asked": 5}, 6.0, {}, False, id="more"),
        pytest.param({"sound": 95, "asked": 5}, 4.0, {}, False, id="they were there before"),
        pytest.param({"sound": 93, "failed": 2, "asked": 5}, 6.0, {}, False, id="the others are not enough"),
        pytest.param({"sound": 95, "failed": 1, "asked": 4}, 6.0, {}, True, id="the others are"),
        pytest.param({"sound": 90, "failed": 5, "asked": 5}, 6.0, {"max_failures": 1.0}, False, id="few confirmed"),
    ],
)
def test_a_stage_does_not_wait_for_a_few_who_came_late(
    told: ModuleType, groups: dict[str, int], came_s: float, rules: dict[str, Any], passes: bool
) -> None:
    for stage, what in ((2, "stage"), (3, "done")):
        rollout = told.rollout(rules=told.policy(soak_s=60.0, **rules), stage=stage, soaked_from_s=5.0)
        wishes, facts = states(told, rollout, **groups)
        wishes = {key: replace(each, reached_s=came_s if "asked" in key[1] else 1.0) for key, each in wishes.items()}
        soaking = decide(rollout, wishes, facts, wishes, {}, now_s=64.0)
        assert soaking.change is None or soaking.change.what == "soak"
        decision = decide(rollout, wishes, facts, wishes, {}, now_s=65.0)
        assert (decision.change is not None and decision.change.what == what) is passes
        assert ("came late, and are not waited for" in check(decision, "settled").what) is passes
        assert (check(decision, "settled").ok, check(decision, "soak").ok) == ((True, True) if passes else (None, None))


def test_a_fleet_that_trickles_back_does_not_keep_a_rollout_open(told: ModuleType, fleet: Callable[..., Any]) -> None:
    world = fleet(200, soak_s=60.0, delay_s=0.0)
    late = list(world.behave)[100:]
    world.online = dict.fromkeys(late, False)
    world.behave |= dict.fromkeys(late, told.asked)  # each is on its way for long
    while world.rollout.stage < 3 or world.rollout.soaked_from_s is None:
        world.turn()
    world.online[late[0]] = True
    world.run(turns=80)
    assert world.rollout.phase is Phase.DONE
    assert "1 on their way" in world.rollout.reason


def test_a_stage_begins_to_be_watched_though_devices_trickle_back(told: ModuleType) -> None:
    rollout = told.rollout(rules=told.policy(soak_s=60.0, deadline_s=100.0), stage=3)
    for came_s, begins in ((99.0, False), (101.0, True)):
        wishes, facts = states(told, rollout, sound=50, asked=2)
        wishes = {key: replace(each, reached_s=came_s if "asked" in key[1] else 1.0) for key, each in wishes.items()}
        change = decide(rollout, wishes, facts, wishes, {}, now_s=150.0).change
        assert (change is not None and change.what == "soak") is begins, "a day of them would hold it up for a day"


def test_what_the_broker_does_not_take_is_told(told: ModuleType) -> None:
    rollout = told.rollout(stage=3)
    wishes, facts = states(told, rollout, before=2)
    wishes = {key: replace(each, reached_s=None, outcome=Outcome.GOING) for key, each in wishes.items()}
    assert decide(rollout, wishes, facts, wishes, {}, now_s=60.0).change is None
    change = decide(rollout, wishes, facts, wishes, {}, now_s=61.0).change
    assert change is not None
    assert change.reason.startswith(
        "Stage 3 (100%) waits for the broker, which does not show what is wished of plant-1/"
    )
    said = replace(rollout, reason=change.reason)
    assert decide(said, wishes, facts, wishes, {}, now_s=62.0).change is None, "it is said once"


def test_a_minute_has_no_more_wishes_than_it_may(fleet: Callable[..., Any]) -> None:
    world = fleet(100, stages="100%", per_min=7).run(turns=2000)
    assert world.rollout.phase is Phase.DONE
    times = [at_s for _, at_s, _ in world.sent]
    assert all(later - sooner >= 60.0 for sooner, later in zip(times, times[7:], strict=False))


def test_no_more_are_on_their_way_than_may(fleet: Callable[..., Any]) -> None:
    world = fleet(100, stages="100%", at_once=7, delay_s=20.0)
    world.run(turns=10)
    assert len(world.sent) == 7
    world.run(turns=2000)
    assert world.rollout.phase is Phase.DONE
    times = [at_s for _, at_s, _ in world.sent]
    assert all(later - sooner >= 20.0 for sooner, later in zip(times, times[7:], strict=False))


def test_a_stage_on_hold_waits_for_somebody(fleet: Callable[..., Any]) -> None:
    world = fleet(100, hold=(0, 2)).run(turns=20)
    assert world.sent == []
    assert world.rollout.phase is Phase.RUNNING
    assert "Stage 0 (1) waits for somebody" in world.rollout.reason
    assert world.turn().change is None, "it is said once"
    world.rollout = replace(world.rollout, approved=0)
    world.run(turns=60)
    assert world.rollout.stage == 1
    assert "Stage 2 (25%) waits for somebody" in world.rollout.reason
    world.rollout = replace(world.rollout, approved=2)
    assert world.run().rollout.phase is Phase.DONE


def test_a_failure_halts_a_stage_that_waits_for_somebody(told: ModuleType, fleet: Callable[..., Any]) -> None:
    world = fleet(100, hold=(1,)).run(turns=20)
    world.behave[world.sent[0][0]] = told.failed
    assert world.run().rollout.phase is Phase.HALTED


def test_boxed_devices_come_last(fleet: Callable[..., Any]) -> None:
    world = fleet(200)
    boxed = set(list(world.behave)[1:60:10])
    world.held = dict.fromkeys(boxed, f"{BOXED}It failed 2 hours ago.")
    world.run()
    assert world.rollout.phase is Phase.DONE
    assert {stage for key, _, stage in world.sent if key in boxed} == {3}
    assert len(world.sent) == 200


def test_where_all_are_boxed_the_last_stage_has_them(fleet: Callable[..., Any]) -> None:
    world = fleet(3)
    world.held = dict.fromkeys(world.behave, BOXED)
    assert world.run().rollout.phase is Phase.DONE
    assert {stage for _, _, stage in world.sent} == {3}


def test_a_boxed_canary_opens_no_stage(fleet: Callable[..., Any]) -> None:
    world = fleet(100)
    world.held = {next(iter(world.behave)): BOXED}
    world.run(turns=50)
    assert (world.rollout.phase, world.rollout.stage, world.sent) == (Phase.RUNNING, 0, [])
    site, device = next(iter(world.behave))
    assert world.rollout.reason.startswith(f"Stage 0 (1) waits for {site}/{device}: boxed: ")
    assert "rollout abort" in world.rollout.reason


def test_a_rollout_that_takes_another_back_asks_boxed_devices_at_once(fleet: Callable[..., Any]) -> None:
    world = fleet(20, stages="1,100%")
    boxed, busy = list(world.behave)[:2]
    world.held = {boxed: BOXED, busy: "It is busy in another."}
    world.rollout = replace(world.rollout, reverts="digits-1")
    world.run(turns=12)
    assert world.sent[0][0] == boxed
    assert busy not in world.wishes


def test_a_later_stage_of_boxed_devices_alone_is_passed_over(fleet: Callable[..., Any]) -> None:
    world = fleet(10)  # of one, one more, some more, the rest
    second = list(world.behave)[1]
    world.held = {second: BOXED}
    world.run()
    assert world.rollout.phase is Phase.DONE
    assert world.stages == [0, 1, 2, 3]
    assert {stage for key, _, stage in world.sent if key == second} == {3}


def test_busy_devices_are_not_asked_even_in_the_last_stage(fleet: Callable[..., Any]) -> None:
    world = fleet(20)
    busy = list(world.behave)[-1]
    world.held = {busy: "It is busy in another rollout."}
    world.run()
    assert world.rollout.phase is Phase.DONE
    assert busy not in world.wishes
    assert "1 held, which were not asked" in world.rollout.reason


@pytest.mark.parametrize("stages", ["1,5%,25%,100%", "100%"])
def test_where_all_are_busy_nothing_goes_on(fleet: Callable[..., Any], stages: str) -> None:
    world = fleet(20, stages=stages)
    world.held = dict.fromkeys(world.behave, "They are busy.")
    world.run(turns=50)
    assert (world.rollout.phase, world.rollout.stage, world.sent) == (Phase.RUNNING, 0, [])
    assert " waits for plant-" in world.rollout.reason
    assert ": They are busy. It goes on by itself" in world.rollout.reason
    world.held = {}
    assert world.run().rollout.phase is Phase.DONE


@pytest.mark.parametrize(
    ("slow", "going", "halts"),
    [
        pytest.param([1.0] * 6 + [9.0] * 4, 0, False, id="less than half"),
        pytest.param([1.0] * 5 + [9.0] * 5, 0, True, id="half"),
        pytest.param([1.0] * 5 + [9.0] * 5, 1, False, id="half, and one may mend it"),
        pytest.param([9.0] * 6, 5, True, id="more than all others can mend"),
        pytest.param([9.0] * 3, 3, False, id="as many as others can mend"),
        pytest.param([1.0, 1.0, 1e308], 0, False, id="one lies upwards"),
        pytest.param([1.5, 1.5, 0.0], 0, True, id="one lies downwards"),
        pytest.param([], 0, False, id="nobody tells"),
    ],
)
def test_the_median_decides_on_latency(told: ModuleType, slow: list[float], going: int, halts: bool) -> None:
    rollout = told.rollout(rules=told.policy(soak_s=60.0), stage=3)
    wishes, facts = states(told, rollout, sound=len(slow), asked=going)
    for number, each in enumerate(slow):
        gates = {"trial_p95_ms": Gate(value=each, limit=1.0, ok=True, before=1.0)}
        facts["plant-1", f"sound-{number}"] = told.sound(update=told.update(gates=gates))
    change = decide(rollout, wishes, facts, wishes, {}, now_s=10.0).change
    assert (change is not None and change.what == "halt") is halts


def test_of_two_in_the_middle_the_worse_one_is_told(told: ModuleType) -> None:
    rollout = told.rollout(rules=told.policy(max_agreement_drop=0.05), stage=3)
    wishes, facts = states(told, rollout, sound=2)
    facts["plant-1", "sound-0"] = told.sound(slowdown=1.5, agreement=0.9)
    facts["plant-1", "sound-1"] = told.sound(slowdown=1.0, agreement=1.0)
    decision = decide(rollout, wishes, facts, wishes, {}, now_s=10.0)
    assert check(decision, "latency").value == "1.5 times"
    assert check(decision, "agreement").value == "90%"


@given(
    honest=st.lists(st.floats(0.5, 1.5), min_size=1, max_size=9),
    lies=st.lists(st.floats(allow_nan=False), max_size=8),
    agree=st.floats(0, 1),
)
def test_liars_below_half_move_no_median_beyond_the_honest(
    told: ModuleType, honest: list[float], lies: list[float], agree: float
) -> None:
    lies = lies[: len(honest) - 1]
    rollout = told.rollout(rules=told.policy(soak_s=60.0, max_agreement_drop=0.5), stage=3)
    wishes, facts = states(told, rollout, sound=len(honest) + len(lies))
    for number, each in enumerate([*honest, *lies]):
        seen = min(each / 2, 1.0) if number < len(honest) else agree
        gates = {
            "trial_p95_ms": Gate(value=each, limit=1.0, ok=True, before=1.0),
            "agreement": Gate(value=seen, limit=0.0, ok=True),
        }
        facts["plant-1", f"sound-{number}"] = told.sound(update=told.update(gates=gates))
    decision = decide(rollout, wishes, facts, wishes, {}, now_s=10.0)
    shown = float(check(decision, "latency").value.removesuffix(" times"))
    assert min(honest) - 1e-3 <= shown <= max(honest) + 1e-3
    seen = float(check(decision, "agreement").value.removesuffix("%")) / 100
    assert min(honest) / 2 - 1e-3 <= seen <= max(honest) / 2 + 1e-3


KINDS = ["failed", "silent", "away", "slow", "rolled back", "wanted elsewhere", "comes late and fails"]


@settings(max_examples=300)
@given(
    count=st.integers(1, 25),
    salt=st.text("abcdef", min_size=1, max_size=6),
    odd=st.dictionaries(st.integers(0, 24), st.sampled_from(KINDS), max_size=12),
    held=st.dictionaries(st.integers(0, 24), st.sampled_from([BOXED, "It is busy."]), max_size=6),
    per_min=st.integers(2, 30),
    at_once=st.integers(1, 30),
    max_failures=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    pause_at=st.none() | st.integers(0, 60),
    turns_at=st.integers(2, 30),
)
def test_whatever_devices_do_the_rules_hold(
    told: ModuleType,
    count: int,
    salt: str,
    odd: dict[int, str],
    held: dict[int, str],
    per_min: int,
    at_once: int,
    max_failures: float,
    pause_at: int | None,
    turns_at: int,
) -> None:
    rules = told.policy(
        "1,20%,100%", soak_s=20.0, deadline_s=90.0, per_min=per_min, at_once=at_once, max_failures=max_failures,
        min_confirmed=0.0,
    )  # fmt: skip
    keys = told.keys(count)
    world = told.Obedient(told.rollout(keys, rules, salt=salt), dict.fromkeys(keys, told.sound))
    elsewhere = Desired(revision=9, bundle=told.OTHER)

    def rolled_back(revision: int) -> Facts:
        facts: Facts = told.sound(revision) if world.now_s < 7.0 * turns_at else told.failed(revision)
        return facts

    kinds = {
        "failed": told.failed, "silent": None, "slow": lambda revision: told.sound(revision, slowdown=2.0),
        "rolled back": rolled_back, "wanted elsewhere": lambda revision: told.asked(revision, desired=elsewhere),
        "comes late and fails": told.failed,
    }  # fmt: skip
    for place, kind in odd.items():
        if place < count:
            world.behave[keys[place]] = kinds.get(kind, told.sound)
    there = {"away": False, "comes late and fails": False}
    world.online = {keys[place]: there[kind] for place, kind in odd.items() if kind in there and place < count}
    world.held = {keys[place]: why for place, why in held.items() if place < count}
    quiet = 0
    for turn in range(600):
        if turn == pause_at:
            world.rollout = replace(world.rollout, phase=Phase.PAUSED)
            asked = len(world.sent)
            for _ in range(5):
                assert world.turn(passed_s=7.0).ask == ()
            assert len(world.sent) == asked
            world.rollout = replace(world.rollout, phase=Phase.RUNNING, window_s=world.now_s, soaked_from_s=None)
        if world.rollout.phase is not Phase.RUNNING or (quiet > 20 and turn > 80):  # longer than any rule waits
            break
        if turn == turns_at:
            world.online = {key: False for key, each in world.online.items() if world.behave[key] is told.sound}
        before = world.rollout
        decision = world.turn(passed_s=7.0)
        quiet = quiet + 1 if decision.change is None and not decision.ask else 0
        if decision.change is None or decision.change.what not in {"stage", "done"}:
            continue
        assert decision.ask == ()
        mine = [decision.verdicts[key] for key, each in world.wishes.items() if each.stage == before.stage]
        going = sum(1 for each in mine if each.outcome is Outcome.GOING)
        there_too = sum(1 for each in mine if each.outcome not in {Outcome.AWAY, Outcome.LEFT})
        assert going * 20 <= there_too, "a stage passes over a few who came late at most"
        in_time = [each for each in world.wishes.values() if each.settled_s is None or each.settled_s > before.window_s]
        new = in_time if before.window_s else list(world.wishes.values())
        for some, stands in (([each for each in new if each.stage == before.stage], 0), (new, len(world.wishes))):
            failing = sum(1 for each in some if each.outcome in {Outcome.FAILED, Outcome.SILENT})
            reached = sum(1 for each in some if each.outcome not in {Outcome.AWAY, Outcome.LEFT})
            if stands:  # what has confirmed before still runs it
                old = [each for each in world.wishes.values() if each not in some]
                reached += sum(1 for each in old if each.outcome is Outcome.CONFIRMED)
            assert failing <= max_failures * reached + 1e-9, "with too many failures nothing passes, and nothing ends"
    assert world.stages == list(range(len(world.stages))), "no stage is skipped"
    times = [at_s for _, at_s, _ in world.sent]
    assert all(later - sooner >= 60.0 for sooner, later in zip(times, times[per_min:], strict=False))
    busy = {key for key, why in world.held.items() if not why.startswith(BOXED)}
    if world.rollout.phase is Phase.DONE:
        assert set(world.wishes) == set(keys) - busy
    if world.rollout.phase is Phase.RUNNING:
        assert f"Stage {world.rollout.stage} " in world.rollout.reason
        assert " waits for " in world.rollout.reason, "nothing waits for ever without a reason"


@given(st.randoms(use_true_random=False))
def test_the_order_in_which_things_are_known_decides_nothing(told: ModuleType, dice: Any) -> None:
    rollout = told.rollout(rules=told.policy(max_failures=0.5, per_min=10), stage=3)
    wishes, facts = states(told, rollout, sound=8, failed=3, asked=2, away=2)
    members = [*told.keys(30), *wishes]
    expected = decide(rollout, members, facts, wishes, {}, now_s=100.0)
    shuffled = [list(each) for each in (members, facts.items(), wishes.items())]
    for each in shuffled:
        dice.shuffle(each)
    again = decide(rollout, shuffled[0], dict(shuffled[1]), dict(shuffled[2]), {}, now_s=100.0)
    assert (again.ask, again.change, again.checks, again.verdicts) == (
        expected.ask, expected.change, expected.checks, expected.verdicts,
    )  # fmt: skip
    assert list(again.ask) == sorted(again.ask, key=lambda key: bucket("salt", key))
