"""One verdict: each code has its fact, the gravest is told first, and what stands is told once and cleared."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.messages import CameraState, Well, decode, encode
from tinysight_contract.messages import Verdict as Message
from tinysight_contract.topics import AlertTopic
from tinysight_edge.health.alerts import CLEAR_AFTER_S, Alerts
from tinysight_edge.health.machine import Reading
from tinysight_edge.health.verdict import RULES, Code, Facts, Problem, judge, verdict

ON = CameraState.ONLINE
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
WELL = Reading(
    memory_mib=90.0, memory_free=0.5, temperature_c=55.0, slowed=frozenset(), disk_free_mib=9e3, clock_synced=True
)


def camera(state: CameraState) -> dict[str, Any]:
    return {"cameras": {"gate": state, "yard": ON}}


def machine(**changes: Any) -> dict[str, Any]:
    return {"machine": replace(WELL, **changes)}


FACTS: dict[Code, dict[str, Any]] = {
    Code.CAMERAS_NONE: {"cameras": {"gate": CameraState.STALLED, "yard": CameraState.RECONNECTING}},
    Code.OUTBOX_DISCARDING: {"discarded": 3},
    Code.DISK_FULL: machine(disk_free_mib=5.0),
    Code.CAMERA_FAILED: {**camera(CameraState.DISABLED), "said": {Code.CAMERA_FAILED: "gate: there is no device."}},
    Code.CAMERA_RECONNECTING: camera(CameraState.RECONNECTING),
    Code.CAMERA_STALLED: camera(CameraState.STALLED),
    Code.CAMERA_FROZEN: camera(CameraState.FROZEN),
    Code.CAMERA_COVERED: camera(CameraState.COVERED),
    Code.CAMERA_DARK: camera(CameraState.DARK),
    Code.CONFIG_REFUSED: {"said": {Code.CONFIG_REFUSED: "agent.toml: unknown key 'camras'."}},
    Code.CONFIG_LABELS: {"said": {Code.CONFIG_LABELS: "rules.a.labels[0]: The model knows no label 'cat'."}},
    Code.BROKER_ABSENT: {"broker_away_s": 31.0},
    Code.OUTBOX_FULL: {"outbox_share": 0.81},
    Code.OUTBOX_DAMAGED: {"said": {Code.OUTBOX_DAMAGED: "The outbox was damaged (database disk image is malformed)."}},
    Code.OUTBOX_FAILING: {"said": {Code.OUTBOX_FAILING: "The outbox cannot be written: database or disk is full."}},
    Code.BROKER_REFUSED: {"said": {Code.BROKER_REFUSED: "mqtt://h:1883 refuses the connection: Not authorized."}},
    Code.DISK_LOW: machine(disk_free_mib=100.0),
    Code.PICTURES_FAILING: {"said": {Code.PICTURES_FAILING: "Pictures cannot be written: No space left on device."}},
    Code.UPDATE_FAILED: {"said": {Code.UPDATE_FAILED: "pets 1.2.0: rolled-back (slow): a run takes 80 ms."}},
    Code.MODEL_DRIFTED: {"said": {Code.MODEL_DRIFTED: "The newest 812 scores of pets 1.2.0 differ by 0.52."}},
    Code.MEMORY_HIGH: machine(memory_free=0.05),
    Code.POWER_LOW: machine(slowed=frozenset({"undervoltage"})),
    Code.THERMAL_THROTTLED: machine(slowed=frozenset({"heat"})),
    Code.THERMAL_HOT: machine(temperature_c=80.0),
    Code.GOVERNOR_LIMITING: {"limits_fps": {"gate": 2.5}, "limit_reason": "heat"},
    Code.INFERENCE_SLOW: {"age_p95_ms": {"gate": 501.0, "yard": 12.0}},
    Code.CLOCK_UNSYNCED: machine(clock_synced=False),
}
"""What each code stands for, and nothing else."""

UNKNOWN = Reading(memory_free=None, temperature_c=None, slowed=None, clock_synced=None)
WELL_FACTS: list[Any] = [
    pytest.param({}, id="nothing known"),
    pytest.param({"machine": UNKNOWN}, id="a machine that says nothing"),
    pytest.param({"cameras": {"gate": ON, "clip": CameraState.DISABLED}}, id="a file that ended"),
    pytest.param({"cameras": {"clip": CameraState.DISABLED}}, id="all files ended"),
    pytest.param({"broker_away_s": 29.0}, id="a broker that restarts"),
    pytest.param({"age_p95_ms": {"gate": 500.0}}, id="just young enough"),
    pytest.param({"outbox_share": 0.79}, id="room in the outbox"),
]


@pytest.mark.parametrize("facts", WELL_FACTS)
def test_what_is_no_problem(facts: dict[str, Any]) -> None:
    assert judge(Facts(**{"machine": WELL, **facts})) == []


@pytest.mark.parametrize("code", Code)
def test_each_code_stands_for_its_facts(code: Code) -> None:
    first, *others = judge(Facts(**{"machine": WELL, **FACTS[code]}))
    assert first.code is code
    assert {each.code for each in others} <= {Code.CAMERA_STALLED, Code.CAMERA_RECONNECTING}
    told = verdict([first])
    assert (told.state, told.code, told.mend) == (RULES[code].state, code.value, RULES[code].mend)
    assert decode(encode(told), Message) == told
    assert told.what.endswith(".")


def test_a_device_whose_cameras_have_all_left_is_not_well_when_one_of_them_failed() -> None:
    gone = {"gate": CameraState.DISABLED, "clip": CameraState.DISABLED}
    assert verdict(judge(Facts(machine=WELL, cameras=gone))).state is Well.OK
    failed = judge(Facts(machine=WELL, cameras=gone, said={Code.CAMERA_FAILED: "gate: there is no device."}))
    assert [each.code for each in failed] == [Code.CAMERAS_NONE, Code.CAMERA_FAILED]


def test_an_alert_is_told_again_when_its_cause_is_another() -> None:
    alerts = Alerts("plant-1", "belt-7", "b1")
    told = []
    for now_s, cause in enumerate(["gate: no device.", "gate: no device.", "gate, yard: no device."]):
        found = alerts.changes([Problem(Code.CAMERA_FAILED, cause)], now_s=float(now_s), now=NOW)
        told.append([alert.what for _, alert in found if alert is not None])
    assert told == [["gate: no device."], [], ["gate, yard: no device."]]


def test_every_code_has_a_rule_in_the_order_of_its_gravity_with_an_imperative_sentence() -> None:
    assert list(RULES) == list(Code)
    states = [rule.state for rule in RULES.values()]
    assert states == sorted(states, key=[Well.FAILING, Well.DEGRADED].index)
    for rule in RULES.values():
        assert rule.mend[0].isupper()
        assert rule.mend.endswith((".", "`."))
        assert not rule.when.endswith(".")


@given(st.sets(st.sampled_from([code for code in Code if code not in {Code.CAMERAS_NONE, Code.DISK_LOW}])))
def test_the_gravest_comes_first_and_the_others_are_counted(codes: set[Code]) -> None:
    facts: dict[str, Any] = {"machine": WELL, "cameras": {"well": ON}}
    for number, code in enumerate(codes):
        for name, value in FACTS[code].items():
            if name == "cameras":
                facts[name] = {**facts[name], f"cam{number}": value["gate"]}
            elif name == "machine":
                changed = {
                    key: getattr(value, key) for key in Reading.__slots__ if getattr(value, key) != getattr(WELL, key)
                }
                if "slowed" in changed:
                    changed["slowed"] = (facts[name].slowed or frozenset()) | value.slowed
                facts[name] = replace(facts[name], **changed)
            elif name == "said":
                facts[name] = {**facts.get(name, {}), **value}
            else:
                facts[name] = value
    found = judge(Facts(**facts))
    assert [each.code for each in found] == [code for code in Code if code in codes]
    told = verdict(found)
    if codes:
        assert told.code == found[0].code
        assert (f"({len(codes) - 1} more)" in told.what) == (len(codes) > 1)
    else:
        assert told == Message(state=Well.OK)


def test_cameras_with_the_same_trouble_are_one_problem_that_names_them() -> None:
    states = {"b": CameraState.FROZEN, "a": CameraState.FROZEN, "c": ON}
    assert judge(Facts(machine=WELL, cameras=states)) == [Problem(Code.CAMERA_FROZEN, "a, b: frozen.", ("a", "b"))]


def topic(code: Code) -> AlertTopic:
    return AlertTopic("plant-1", "belt-7", code.replace(".", "-"))


def test_an_alert_is_told_once_again_for_other_cameras_and_cleared_when_it_has_been_over_for_a_while() -> None:
    alerts = Alerts("plant-1", "belt-7", "b1")
    stalled = Problem(Code.CAMERA_STALLED, "a: stalled.", ("a",))
    first = dict(alerts.changes([stalled], now_s=0.0, now=NOW))
    assert len(first) == len(Code), "what an earlier boot left at the broker is cleared at first"
    told = first.pop(topic(Code.CAMERA_STALLED))
    assert told is not None
    assert (told.severity, told.what, told.since, told.boot_id) == ("warning", "a: stalled.", NOW, "b1")
    assert set(first.values()) == {None}
    later = NOW.replace(minute=1)
    assert alerts.changes([stalled], now_s=1.0, now=later) == []
    both = Problem(Code.CAMERA_STALLED, "a, b: stalled.", ("a", "b"))
    [(where, again)] = alerts.changes([both], now_s=2.0, now=later)
    assert again is not None
    assert (where, again.what, again.since) == (topic(Code.CAMERA_STALLED), "a, b: stalled.", NOW)
    assert alerts.changes([], now_s=2.0 + CLEAR_AFTER_S - 0.1, now=later) == [], "it may come back at once"
    assert alerts.changes([], now_s=2.0 + CLEAR_AFTER_S, now=later) == [(topic(Code.CAMERA_STALLED), None)]
    assert alerts.changes([], now_s=99.0, now=later) == []


def test_figures_that_only_vary_are_not_told_again() -> None:
    alerts = Alerts("plant-1", "belt-7", "b1")
    alerts.changes([], now_s=0.0, now=NOW)
    for degrees in (81, 82, 83):
        told = alerts.changes([Problem(Code.THERMAL_HOT, f"{degrees} °C.")], now_s=float(degrees), now=NOW)
        assert len(told) == (degrees == 81)


def test_a_failing_device_raises_errors_and_an_absent_broker_is_not_told_to_itself() -> None:
    alerts = Alerts("plant-1", "belt-7", "b1")
    problems = judge(Facts(machine=WELL, broker_away_s=99.0, discarded=1))
    told = {where.code: alert for where, alert in alerts.changes(problems, now_s=0.0, now=NOW) if alert}
    assert {code: alert.severity for code, alert in told.items()} == {"outbox-discarding": "error"}
