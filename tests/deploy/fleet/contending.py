"""One of several controllers on one state: ``python contending.py URL NAME``; prints what it did.

It says when it is ready, and waits for a line on stdin. Then it asks devices that have no wish; the first time it leads
it sleeps before it writes, until another has taken over. The one that is called ann writes remarks instead.
"""

import json
import sys
import time

from tinysight_contract.errors import NotLeading
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Wish

DEVICES, LEASE_S, LONGEST_S = 16, 0.4, 60.0


def overtaken(state: State, epoch: int, until_s: float) -> None:
    """Wait until another leads."""
    seen = 0
    while time.monotonic() < until_s:
        for entry in state.audit(after=seen):
            seen = entry.seq
            if entry.what == "lead" and entry.detail["epoch"] > epoch:
                return
        time.sleep(0.02)


def main(url: str, name: str) -> dict[str, int]:
    state = State(url, lease_s=LEASE_S)
    state.rollouts()
    print("ready", flush=True)  # noqa: T201 -- whoever started this waits for it
    sys.stdin.readline()
    done = {"asked": 0, "refused": 0, "notes": 0}
    until_s = time.monotonic() + LONGEST_S
    every = [Wish(site="p", device=f"d{n}", stage=0, revision=1, sent_s=1.0) for n in range(DEVICES)]
    while time.monotonic() < until_s:
        known = state.wishes("belt-1")
        if len(known) == DEVICES:
            break
        if name == "ann":
            state.note(name, "remark", {"known": len(known)})
            done["notes"] += 1
            time.sleep(0.02)
            continue
        if (lead := state.lead(name, now_s=time.monotonic())) is None:
            time.sleep(0.01)
            continue
        batch = [wish for wish in every if wish.key not in state.wishes("belt-1")][:2]
        if batch and not done["asked"] + done["refused"]:
            overtaken(state, lead.epoch, until_s)
        try:
            state.ask("belt-1", batch, lead=lead)
            done["asked"] += len(batch)
        except NotLeading:
            done["refused"] += 1
    state.close()
    return done


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2])))
