"""A controller that is killed at each of its steps, and what it leaves: ``python dying.py URL``; prints how often.

Each child does a rollout's work from where the state is, and is killed by SIGKILL before the n-th time that something
goes to the database, or comes back from there. After each death everything must hold together.
"""

import os
import signal
import sys
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace

from tinysight_deploy.fleet.keeping.audit import verify
from tinysight_deploy.fleet.keeping.state import Boxed, State
from tinysight_deploy.fleet.types import Outcome, Phase, Policy, Rollout, Wish, parse_stages

DEVICES = 6


def work(url: str) -> None:
    """One turn of a controller, whatever the one before has left."""
    state = State(url, lease_s=0.0)
    lead = state.lead(f"turn-{os.getpid()}", now_s=0.0) or state.lead(f"turn-{os.getpid()}", now_s=1.0)
    assert lead is not None
    known = state.rollouts()
    if not known or known[-1].phase is Phase.DONE:
        whole = Rollout(
            id=f"belt-{len(known)}",
            group="all",
            target="belt/belt-1.bundle",
            bundle="ab" * 32,
            salt="x",
            policy=Policy(stages=parse_stages("100%")),
            cutoffs=(1.0,),
            begun_at=datetime.now(UTC),
            begun_by="ann",
        )
        state.begin(whole, who="ann")
        known.append(whole)
    name = known[-1].id
    asked = state.wishes(name)
    every = [Wish(site="p", device=f"d{n}", stage=0, revision=1, sent_s=1.0) for n in range(DEVICES)]
    state.ask(name, [wish for wish in every if wish.key not in asked], lead=lead)
    boxes = {("p", "d0"): Boxed(until=datetime.now(UTC))}
    state.settle(name, [replace(wish, outcome=Outcome.FAILED) for wish in every], boxes=boxes, lead=lead)
    state.tick({name: known[-1].clock_s + 1}, lead=lead)
    state.change(name, lambda old: replace(old, phase=Phase.DONE), who="one", what="done", lead=lead)
    state.close()


def look(url: str) -> None:
    """What must hold at any moment."""
    state = State(url)
    log = state.audit(most=10_000)
    assert verify(log)[1] is None
    begun = [entry.detail["rollout"] for entry in log if entry.what == "begin"]
    done = [entry.detail["rollout"] for entry in log if entry.what == "done"]
    rollouts = state.rollouts()
    assert [each.id for each in rollouts] == begun
    assert [each.id for each in rollouts if each.phase is Phase.DONE] == done
    assert bool(state.boxed()) == any(entry.what == "settle" for entry in log)
    for each in rollouts:
        told = [
            (wish["site"], wish["device"])
            for entry in log
            if entry.what == "ask" and entry.detail["rollout"] == each.id
            for wish in entry.detail["wishes"]
        ]
        kept = state.wishes(each.id)
        assert sorted(kept) == sorted(told), "asked twice, or not as the log says"
        assert len({wish.outcome for wish in kept.values()}) <= 1, "half of them settled"
    state.close()


def killed_at(step: int, url: str) -> bool:
    """Whether there was such a step."""
    if (child := os.fork()) == 0:
        left = [step]

        def die(*_: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        for moment in ("before_cursor_execute", "after_cursor_execute", "commit", "begin"):
            sa.event.listen(sa.Engine, moment, die)
        status = 1
        try:
            work(url)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in {0, -signal.SIGKILL}:
        raise SystemExit(f"step {step} ended with {status}")
    return status != 0


def main(url: str) -> None:
    step = 1
    while killed_at(step, url):
        look(url)
        step += 1 if step < 40 else 3
    look(url)
    sys.stdout.write(f"{step - 1}\n")


if __name__ == "__main__":
    main(sys.argv[1])
