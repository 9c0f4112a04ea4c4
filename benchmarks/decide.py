"""How many devices' reports a rollout decides on in a second, and how long a turn takes in which nothing is new.

    python benchmarks/decide.py        half a minute

``decisions_per_s`` is one `decide` over a stage of 100,000 devices that have all just reported, divided by them; every
twentieth is away, every fiftieth has failed. ``idle_ms`` is a turn after that, when all was written down: what the
controller does each second; ``idle_10k_ms`` the same for 10,000. ``ask_ms`` is a turn that finds whom to ask among as
many that nobody has asked, ``first_ask_ms`` the first of these. Seconds are of CPU, and the shortest of several turns
counts. Everything is in memory: no broker, no database.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from rig import say
from steps import where

from tinysight_contract.orders import Desired, DesiredState
from tinysight_contract.updates import Code, Gate, Release, Update, UpdateState
from tinysight_deploy.fleet.deciding.buckets import bucket, cutoffs
from tinysight_deploy.fleet.deciding.decide import decide
from tinysight_deploy.fleet.deciding.judge import settled
from tinysight_deploy.fleet.types import Facts, Key, Policy, Rollout, Wish, parse_stages

NOW: Final = datetime(2026, 11, 26, tzinfo=UTC)
OLD, NEW = "cd" * 32, "ab" * 32
TARGET: Final = "belt/digits-2.0.0.bundle"
FEW: Final = 10_000
TURNS: Final = 7
SENT_S, NOW_S = 100.0, 400.0


def rollout(keys: list[Key]) -> Rollout:
    """In its last stage, with every gate."""
    policy = Policy(
        stages=parse_stages("1,5%,25%,100%"),
        max_failures=0.05,
        min_confirmed=0.9,
        max_agreement_drop=0.1,
        max_drift=0.5,
    )
    return Rollout(
        id="digits-2", group="all", target=TARGET, bundle=NEW, salt="salt", policy=policy, stage=3,
        cutoffs=cutoffs(policy.stages, "salt", keys), begun_at=NOW, begun_by="benchmark",
    )  # fmt: skip


def facts(number: int) -> Facts:
    """What one device says; each has strings of its own, as they come from the wire."""
    away, fails = number % 20 == 7, number % 50 == 11
    wanted = Desired(revision=5, bundle=fresh(NEW), target=fresh(TARGET), rollout="digits-2")
    if away:
        return Facts(online=False, active=fresh(OLD), revision=4, state=DesiredState.APPLIED, desired=wanted)
    release = Release(target=TARGET, digest=fresh(NEW), size_bytes=1_000_000, name="digits", version="2.0.0", release=2)
    gates = {
        "golden": Gate(value=0.0, limit=0.0, ok=True),
        "trial_p95_ms": Gate(value=10.0 + number % 3, limit=20.0, ok=True, before=11.0),
        "agreement": Gate(value=0.9 + number % 10 / 100, limit=0.8, ok=True),
    }
    update = Update(
        target=TARGET,
        state=UpdateState.FAILED if fails else UpdateState.CONFIRMED,
        at=NOW,
        code=Code.SLOW if fails else None,
        reason="It takes 55 ms. Take a smaller one." if fails else "",
        bundle=release,
        gates=gates,
    )
    return Facts(
        online=True,
        active=fresh(OLD if fails else NEW),
        revision=5,
        state=DesiredState.REFUSED if fails else DesiredState.APPLIED,
        update=update,
        drift=0.1,
        metered=fresh(NEW),
        desired=wanted,
    )


def fresh(text: str) -> str:
    """The same text as another object."""
    return (text + " ")[:-1]


def best_s(call: Callable[[], object]) -> float:
    """Seconds of CPU of the shortest turn."""
    took_s = []
    for _ in range(TURNS):
        begun_s = time.process_time()
        call()
        took_s.append(time.process_time() - begun_s)
    return min(took_s)


def measure(count: int) -> dict[str, float]:
    """Seconds of CPU of each kind of turn, for so many devices."""
    keys = [(f"site-{number % 50}", f"belt-{number}") for number in range(count)]
    going, members = rollout(keys), set(keys)
    known = {key: facts(number) for number, key in enumerate(keys)}
    asked = {key: Wish(site=key[0], device=key[1], stage=3, revision=5, sent_s=SENT_S, before=OLD) for key in keys}
    gc.collect()
    decision = decide(going, members, known, asked, {}, now_s=NOW_S)
    if decision.change is None or decision.change.what != "soak" or len(decision.verdicts) != count:
        raise SystemExit(f"It was decided otherwise: {decision.change}")
    done = {key: settled(asked[key], verdict, now_s=NOW_S) for key, verdict in decision.verdicts.items()}
    bucket.cache_clear()
    begun_s = time.process_time()
    first = decide(going, members, known, {}, {}, now_s=NOW_S)
    first_s = time.process_time() - begun_s
    if len(first.ask) != going.policy.per_min:
        raise SystemExit(f"{len(first.ask)} are asked.")
    return {
        "judged_s": best_s(lambda: decide(going, members, known, asked, {}, now_s=NOW_S)),
        "idle_s": best_s(lambda: decide(going, members, known, done, {}, now_s=NOW_S + 1)),
        "first_s": first_s,
        "ask_s": best_s(lambda: decide(going, members, known, {}, {}, now_s=NOW_S)),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=100_000, help="that have reported")
    count = parser.parse_args().devices
    many, few = measure(count), measure(FEW)
    say(f"{count} devices: {many['judged_s'] * 1e3:.0f} ms; {FEW}: {few['judged_s'] * 1e3:.1f} ms")
    figures = {
        "devices": count,
        "decisions_per_s": round(count / many["judged_s"]),
        "idle_ms": round(many["idle_s"] * 1e3, 1),
        "idle_10k_ms": round(few["idle_s"] * 1e3, 1),
        "ask_ms": round(many["ask_s"] * 1e3, 1),
        "first_ask_ms": round(many["first_s"] * 1e3, 1),
    }
    print(json.dumps({**figures, "where": where()}))
    sys.exit(0)


if __name__ == "__main__":
    main()
