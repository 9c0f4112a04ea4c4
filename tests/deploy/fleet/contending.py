"""One of several controllers on one state: ``python contending.py URL NAME``; prints what it did.

It asks devices that have no wish, and sleeps for longer than the lease now and then, before it writes. The one that is
called ann writes remarks as fast as it can instead.
"""

import json
import random
import sys
import time

from tinysight_contract.errors import NotLeading
from tinysight_deploy.fleet.state import State
from tinysight_deploy.fleet.types import Wish

DEVICES, LEASE_S, LONGEST_S = 40, 0.1, 30.0


def main(url: str, name: str) -> dict[str, int]:
    state, dice = State(url, lease_s=LEASE_S), random.Random(name)
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
            time.sleep(0.005)
            continue
        if (lead := state.lead(name, now_s=time.monotonic())) is None:
            time.sleep(0.01)
            continue
        wanted = [wish for wish in every if wish.key not in state.wishes("belt-1")]
        batch = dice.sample(wanted, min(2, len(wanted)))
        if dice.random() < 0.25:
            time.sleep(LEASE_S * 3)
        try:
            state.ask("belt-1", batch, lead=lead)
            done["asked"] += len(batch)
        except NotLeading:
            done["refused"] += 1
    state.close()
    return done


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2])))
