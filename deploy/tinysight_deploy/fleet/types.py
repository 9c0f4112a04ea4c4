"""What a rollout is: its rules, how far it is, what is known of each device. Values only; no I/O and no clock.

Times are seconds of the rollout's own clock, unless they say otherwise: it runs while a controller leads, and hears the
broker. So nobody is called silent whom nobody could hear, and no clock of any machine is compared with another's.
"""

import re
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final

from msgspec import Meta, Struct

from tinysight_contract.errors import ConfigError
from tinysight_contract.orders import Desired, DesiredState, Window
from tinysight_contract.scalars import Count, Digest, Id, Time, Unit
from tinysight_contract.updates import Update

__all__ = [
    "Change",
    "Check",
    "Decision",
    "Facts",
    "Key",
    "Outcome",
    "Phase",
    "Policy",
    "Rollout",
    "Stage",
    "Verdict",
    "Wish",
    "parse_stages",
]

Key = tuple[str, str]
"""Site and device."""

_STAGE: Final = re.compile(r"(\d{1,6})|(\d{1,3}(?:\.\d{1,3})?)%")
_MOST_STAGES: Final = 20


class Stage(Struct, frozen=True, kw_only=True):
    """So many devices, or such a share of them, have the bundle when this stage is over. One of both is set."""

    count: Annotated[int, Meta(ge=1)] | None = None
    share: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None

    def __str__(self) -> str:
        return str(self.count) if self.share is None else f"{self.share * 100:.10g}%"


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Read ``1,5%,25%,100%``.

    Raises:
        ConfigError: it cannot be read, a stage is smaller than the one before, or the last is not 100 %.
    """
    stages: list[Stage] = []
    for word in text.split(","):
        found = _STAGE.fullmatch(word.strip())
        number = 0.0 if found is None else float(found[1] or found[2])
        if found is None or number <= 0 or (found[2] and number > 100):
            raise ConfigError(f"{word.strip()!r} is no stage.", mend="Write numbers or shares, such as 1,5%,25%,100%.")
        stages.append(Stage(count=int(number)) if found[1] else Stage(share=number / 100))
    for one, two in pairwise(stages):
        falls = one.count is not None and two.count is not None and two.count <= one.count
        falls = falls or (one.share is not None and (two.share is None or two.share <= one.share))
        if falls:
            raise ConfigError(f"Stage {two} does not follow {one}.", mend="Let them rise: numbers, then shares.")
    if stages[-1].share != 1.0 or len(stages) > _MOST_STAGES:
        raise ConfigError(f"{text!r} are no stages.", mend=f"End with 100%; at most {_MOST_STAGES} are taken.")
    return tuple(stages)


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of a rollout. What is null is not asked for.

    Attributes:
        stages: in their order; each has all devices of those before.
        soak_s: how long a stage is watched, once all of it that can be reached has an outcome.
        max_failures: share that may fail of a stage's judged devices, and of those of all stages up to the open one.
        min_confirmed: share of a stage's reached devices that have to confirm.
        max_latency_regression: by how much of itself the median device's 95th percentile of a run may grow.
        max_agreement_drop: how far from all the median share of what both models see alike may be, 0..1.
        max_drift: distance from the signed reference at which a device counts as failing.
        deadline_s: a device that was reached and has no outcome after so long is silent, which is failing.
        per_min: wishes that are sent in a minute at most.
        at_once: devices that may be on their way at once.
        window: in each device's local time, as in `Desired`.
        hold: numbers of the stages, from 0, that wait for somebody's approval before they begin.
    """

    stages: Annotated[tuple[Stage, ...], Meta(min_length=1, max_length=_MOST_STAGES)]
    soak_s: Annotated[float, Meta(ge=0.0, le=30 * 86400.0)] = 1800.0
    max_failures: Unit = 0.02
    min_confirmed: Unit = 0.95
    max_latency_regression: Annotated[float, Meta(ge=0.0, le=100.0)] | None = 0.2
    max_agreement_drop: Unit | None = None
    max_drift: Unit | None = None
    deadline_s: Annotated[float, Meta(ge=1.0, le=30 * 86400.0)] = 3600.0
    per_min: Annotated[int, Meta(ge=1, le=100_000)] = 600
    at_once: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    window: Window | None = None
    hold: tuple[Count, ...] = ()


class Phase(StrEnum):
    """What a rollout does. `paused` is a person's, `halted` a gate's; both send no wish and open no stage."""

    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    ABORTED = "aborted"
    DONE = "done"


class Rollout(Struct, frozen=True, kw_only=True):
    """One rollout, as far as it is.

    Attributes:
        id: names it; begins with the bundle's name.
        group: of devices: ``all``, ``site:NAME``, or a group of the inventory.
        target: the release's path in the devices' repository.
        bundle: SHA-256 of the bundle.
        size_bytes: of the bundle.
        salt: that puts each device in its place, another one in each rollout.
        policy: its rules.
        cutoffs: by stage, the place below which a device belongs to it or to one before, 0..1.
        begun_at: UTC, by the machine that began it; decides nothing.
        begun_by: who began it.
        phase: what it does.
        stage: the open one, from 0.
        opened_s: when that was opened.
        window_s: what was settled before is not counted, because a person has resumed since.
        soaked_from_s: since when all of the stage that can be reached is settled; null while it is not.
        approved: the highest stage that somebody has approved.
        reason: of the phase, with what to do.
        clock_s: the rollout's clock.
        reverts: the rollout that this one takes back; null when it takes back none.
    """

    id: Id
    group: Annotated[str, Meta(max_length=100)]
    target: Annotated[str, Meta(max_length=300)]
    bundle: Digest
    size_bytes: Count = 0
    salt: Annotated[str, Meta(max_length=64)]
    policy: Policy
    cutoffs: tuple[Unit, ...]
    begun_at: Time
    begun_by: Annotated[str, Meta(max_length=100)]
    phase: Phase = Phase.RUNNING
    stage: Count = 0
    opened_s: float = 0.0
    window_s: float = 0.0
    soaked_from_s: float | None = None
    approved: int = -1
    reason: str = ""
    clock_s: float = 0.0
    reverts: Id | None = None


class Outcome(StrEnum):
    """What has become of one device in a rollout."""

    HELD = "held"
    """It was not asked: `Verdict.reason` says why not yet."""
    AWAY = "away"
    """It was asked and has not been there since; it counts once it is."""
    GOING = "going"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    SILENT = "silent"
    LEFT = "left"
    """Somebody wants something else of it since; it does not count."""


class Wish(Struct, frozen=True, kw_only=True):
    """What one device was asked for.

    Attributes:
        site: its site.
        device: its id.
        stage: in which it was asked.
        revision: of its desired state.
        sent_s: when it was written down, which is before it was sent.
        reached_s: since when it is known that the broker had the wish and the device was there; null while that is not
            so. Its deadline counts from then.
        settled_s: when it first had an outcome; null while it has none.
        outcome: as it was judged last.
        before: what was active in it.
    """

    site: Id
    device: Id
    stage: Count
    revision: Count
    sent_s: float
    reached_s: float | None = None
    settled_s: float | None = None
    outcome: Outcome = Outcome.AWAY
    before: Digest | None = None

    @property
    def key(self) -> Key:
        """Whose it is."""
        return self.site, self.device


class Facts(Struct, frozen=True, kw_only=True):
    """What is known of a device from the broker. What was never told is null.

    Attributes:
        online: whether it is connected.
        active: the bundle that it runs.
        revision: of the desired state that it has seen.
        state: what became of that.
        reason: why, in its words.
        due: it waits for its window.
        update: what became of the newest bundle there.
        drift: by its model's metrics, if they are of the bundle that it runs.
        metered: whose metrics these are.
        desired: what the broker keeps as wanted of it.
    """

    online: bool | None = None
    active: Digest | None = None
    revision: int = 0
    state: DesiredState | None = None
    reason: str = ""
    due: bool = False
    update: Update | None = None
    drift: float | None = None
    metered: Digest | None = None
    desired: Desired | None = None


class Check(Struct, frozen=True, kw_only=True):
    """One thing that was looked at, with its figure.

    Attributes:
        name: of the gate, such as ``failures``.
        ok: whether it lets through; null when it cannot be said yet.
        value: the figure, in words, such as ``3 of 120 (2.5%)``.
        limit: what it may be, in words; empty without one.
        what: one sentence for people, empty where the figures say all.
    """

    name: str
    ok: bool | None
    value: str = ""
    limit: str = ""
    what: str = ""


class Verdict(Struct, frozen=True, kw_only=True):
    """What a device's reports mean for a rollout.

    Attributes:
        outcome: in one word.
        reason: why, for people.
        slowdown: its 95th percentile of a run against the bundle's before, 1.2 for a fifth slower; null if not told.
        agreement: share of what both models see alike; null if not told.
    """

    outcome: Outcome
    reason: str = ""
    slowdown: float | None = None
    agreement: float | None = None


class Change(Struct, frozen=True, kw_only=True):
    """What a rollout is to become. What is null stays.

    Attributes:
        what: for the audit log: ``stage``, ``halt``, ``done``, ``soak``, ``wait``, and ``go on`` when that is over.
        phase: the new one.
        stage: the new one.
        reason: why.
        soaked_from_s: since when it soaks; null when it does not, or not any more.
    """

    what: str
    phase: Phase | None = None
    stage: int | None = None
    reason: str = ""
    soaked_from_s: float | None = None


class Decision(Struct, frozen=True, kw_only=True):
    """What is to be done now.

    Attributes:
        ask: devices that are to be asked now, at most as many as the rules let through.
        change: what the rollout is to become; null when it goes on as it is.
        checks: the open stage's gates, each with its figure.
        verdicts: of every device that was asked.
    """

    ask: tuple[Key, ...] = ()
    change: Change | None = None
    checks: tuple[Check, ...] = ()
    verdicts: dict[Key, Verdict] = {}
