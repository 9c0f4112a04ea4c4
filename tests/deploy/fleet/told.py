"""What devices say in a rollout, put together for the tests of what is decided by it; and a fleet that obeys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from tinysight_contract.orders import Desired, DesiredState
from tinysight_contract.updates import Code, Gate, Release, Update, UpdateState
from tinysight_deploy.fleet.deciding.buckets import cutoffs
from tinysight_deploy.fleet.deciding.decide import changed, decide
from tinysight_deploy.fleet.deciding.judge import settled
from tinysight_deploy.fleet.types import Decision, Facts, Key, Phase, Policy, Rollout, Wish, parse_stages

NOW = datetime(2026, 11, 26, 9, 0, tzinfo=UTC)
NEW, OLD, OTHER = "ab" * 32, "cd" * 32, "ef" * 32
TARGET = "belt/digits-2.0.0.bundle"
RELEASE = Release(target=TARGET, digest=NEW, size_bytes=1000, name="digits", version="2.0.0", release=2)


def keys(count: int) -> list[Key]:
    return [(f"plant-{number % 3}", f"belt-{number}") for number in range(count)]


def policy(stages: str = "1,5%,25%,100%", **rules: Any) -> Policy:
    return Policy(stages=parse_stages(stages), **{"soak_s": 0.0, **rules})


def rollout(members: list[Key] | None = None, rules: Policy | None = None, **more: Any) -> Rollout:
    rules = rules or policy()
    told: dict[str, Any] = {
        "id": "digits-2",
        "group": "all",
        "target": TARGET,
        "bundle": NEW,
        "size_bytes": 1000,
        "salt": "salt",
        "policy": rules,
        "cutoffs": cutoffs(rules.stages, more.get("salt", "salt"), members or []),
        "begun_at": NOW,
        "begun_by": "ann",
    }
    return Rollout(**(told | more))


def wish(key: Key = ("plant-1", "belt-7"), **more: Any) -> Wish:
    told: dict[str, Any] = {"stage": 0, "revision": 5, "sent_s": 0.0, "reached_s": 0.0, "before": OLD}
    return Wish(site=key[0], device=key[1], **(told | more))


def update(state: UpdateState = UpdateState.CONFIRMED, **more: Any) -> Update:
    told: dict[str, Any] = {"target": TARGET, "state": state, "at": NOW, "bundle": RELEASE}
    return Update(**(told | more))


def gates(slowdown: float = 1.0, agreement: float | None = None) -> dict[str, Gate]:
    found = {"trial_p95_ms": Gate(value=10.0 * slowdown, limit=100.0, ok=True, before=10.0)}
    if agreement is not None:
        found["agreement"] = Gate(value=agreement, limit=0.5, ok=True)
    return found


def before(**more: Any) -> Facts:
    """A device that has heard of nothing yet."""
    told: dict[str, Any] = {"online": True, "active": OLD, "state": DesiredState.NONE}
    return Facts(**(told | more))


def asked(revision: int = 5, **more: Any) -> Facts:
    """It has heard, and is at it."""
    told: dict[str, Any] = {
        "revision": revision,
        "state": DesiredState.WAITING,
        "desired": Desired(revision=revision, bundle=NEW, target=TARGET),
        "reason": "It is fetched.",
    }
    return before(**(told | more))


def sound(revision: int = 5, *, slowdown: float = 1.0, agreement: float | None = None, **more: Any) -> Facts:
    """It runs the bundle."""
    told: dict[str, Any] = {
        "active": NEW,
        "state": DesiredState.APPLIED,
        "update": update(gates=gates(slowdown, agreement)),
        "reason": "",
    }
    return asked(revision, **(told | more))


def failed(revision: int = 5, code: Code = Code.SLOW, **more: Any) -> Facts:
    """It has tried."""
    told: dict[str, Any] = {
        "state": DesiredState.REFUSED,
        "update": update(UpdateState.FAILED, code=code, reason="It takes 55 ms. Take a smaller one."),
        "reason": "It takes 55 ms. Take a smaller one.",
    }
    return asked(revision, **(told | more))


Behaviour = Callable[[int], Facts]


@dataclass
class Obedient:
    """A fleet and its controller, in memory: what `decide` says is done, and devices answer ``delay_s`` later.

    Attributes:
        behave: by device, what it says in the end; None for one that never answers.
        sent: who was asked, with when and in which stage, in that order.
    """

    rollout: Rollout
    behave: dict[Key, Behaviour | None]
    delay_s: float = 5.0
    online: dict[Key, bool] = field(default_factory=dict)
    held: Mapping[Key, str] = field(default_factory=dict)
    now_s: float = 0.0
    wishes: dict[Key, Wish] = field(default_factory=dict)
    sent: list[tuple[Key, float, int]] = field(default_factory=list)
    stages: list[int] = field(default_factory=lambda: [0])

    def facts(self) -> dict[Key, Facts]:
        found = {}
        for key, behaviour in self.behave.items():
            there, asked_for = self.online.get(key, True), self.wishes.get(key)
            if not there or asked_for is None or behaviour is None or self.now_s < asked_for.sent_s + self.delay_s:
                found[key] = before(online=there)
            else:
                found[key] = behaviour(asked_for.revision)
        return found

    def turn(self, passed_s: float = 1.0) -> Decision:
        facts, self.rollout = self.facts(), replace(self.rollout, clock_s=self.now_s)
        decision = decide(self.rollout, set(self.behave), facts, self.wishes, self.held, now_s=self.now_s)
        for key, verdict in decision.verdicts.items():
            self.wishes[key] = settled(self.wishes[key], verdict, now_s=self.now_s)
        if decision.change is not None:
            self.rollout = changed(self.rollout, decision.change, now_s=self.now_s)
            if decision.change.stage is not None:
                self.stages.append(decision.change.stage)
        for key in decision.ask:
            stage = self.rollout.stage
            assert key not in self.wishes, "no device is asked twice"
            self.wishes[key] = wish(key, stage=stage, revision=5, sent_s=self.now_s, reached_s=None)
            self.sent.append((key, self.now_s, stage))
        self.now_s += passed_s
        return decision

    def run(self, turns: int = 400, passed_s: float = 1.0) -> "Obedient":
        for _ in range(turns):
            if self.rollout.phase is not Phase.RUNNING:
                break
            self.turn(passed_s)
        return self
