"""What is told of rollouts and devices, put together from what is known: sizes of stages, outcomes, rows. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from tinysight_deploy.fleet.deciding.buckets import bucket, stage_of
from tinysight_deploy.fleet.server import forms
from tinysight_deploy.fleet.types import Facts, Key, Rollout, Stage, Verdict, Wish

__all__ = ["behind", "device_row", "member_row", "outcomes_of", "sizes", "sizes_of"]


def behind(keys: Iterable[Key], after: str) -> list[Key]:
    """Sorted, and only those behind ``SITE/DEVICE``."""
    site, _, device = after.partition("/")
    return sorted(key for key in keys if not after or key > (site, device))


def sizes(stages: tuple[Stage, ...], count: int) -> list[int]:
    """About how many devices each stage adds, of so many."""
    found, done = [], 0
    for stage in stages:
        wanted = stage.count if stage.share is None else math.ceil((stage.share or 0.0) * count - 1e-9)
        upto = min(count, max(wanted or 0, done + 1))
        found.append(upto - done)
        done = upto
    return found


def sizes_of(rollout: Rollout, members: Iterable[Key]) -> list[int]:
    """How many devices are in each stage."""
    counts = Counter(stage_of(rollout.cutoffs, bucket(rollout.salt, key)) for key in members)
    return [counts[stage] for stage in range(len(rollout.policy.stages))]


def outcomes_of(wishes: Iterable[Wish], verdicts: Mapping[Key, Verdict], stages: int) -> list[Counter[str]]:
    """How many devices have come how far, by stage."""
    found: list[Counter[str]] = [Counter() for _ in range(stages)]
    for wish in wishes:
        verdict = verdicts.get(wish.key)
        found[min(wish.stage, stages - 1)][str(wish.outcome if verdict is None else verdict.outcome)] += 1
    return found


def member_row(wish: Wish, verdict: Verdict | None) -> forms.MemberRow:
    """A device that was asked; without a verdict as it was judged last."""
    told = Verdict(outcome=wish.outcome) if verdict is None else verdict
    return forms.MemberRow(
        site=wish.site,
        device=wish.device,
        stage=wish.stage,
        outcome=told.outcome,
        reason=told.reason,
        revision=wish.revision,
        sent_s=wish.sent_s,
        reached_s=wish.reached_s,
        settled_s=wish.settled_s,
        slowdown=told.slowdown,
        agreement=told.agreement,
    )


def device_row(key: Key, facts: Facts) -> forms.DeviceRow:
    """A device as it is known."""
    return forms.DeviceRow(
        site=key[0],
        device=key[1],
        online=facts.online,
        active=facts.active,
        wanted=None if facts.desired is None else facts.desired.bundle,
        revision=facts.revision,
        state=facts.state,
        reason=facts.reason,
        drift=facts.drift,
    )
