"""One controller in a process of its own, from the beginning of a rollout until it is told to end.

`fleet.py` runs this. In: state, broker, release and policy as JSON, behaviours of the simulated devices.  Out: a line
of JSON with the rollout's id once it has begun; after SIGTERM another with seconds of processor time and peak memory.
"""

import asyncio
import json
import logging
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from tinysight_contract.updates import Release
from tinysight_deploy.fleet.control.controller import Controller
from tinysight_deploy.fleet.control.facts import gather
from tinysight_deploy.fleet.control.operate import abort, begin
from tinysight_deploy.fleet.deciding.buckets import bucket, stage_of
from tinysight_deploy.fleet.keeping.mirror import Mirror
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Facts, Key, Policy, Rollout
from tinysight_edge.simulate.behave import Behaviour, behaviour_of, parse_shares

WHO = "benchmark"


def begun(state: State, facts: dict[Key, Facts], release: Release, policy: Policy, shares: str) -> Rollout:
    """A rollout whose first device is a sound one: chosen by chance it may be none, and then a gate rightly halts."""
    while True:
        rollout = begin(state, facts, release=release, group="all", policy=policy, who=WHO, members=facts.keys())
        first = [key for key in facts if stage_of(rollout.cutoffs, bucket(rollout.salt, key)) == 0]
        if all(behaviour_of(name, parse_shares(shares)) is Behaviour.SOUND for _, name in first):
            return rollout
        abort(state, rollout.id, who=WHO, reason="its first device is to fail")


async def lead(where: Path, broker: str, release: Release, policy: Policy, shares: str) -> None:
    """Begin, and lead until SIGTERM."""
    state, mirror = State(where), Mirror(where.parent / "audit")
    facts = await gather(broker, seconds=60)
    print(json.dumps({"id": begun(state, facts, release, policy, shares).id}), flush=True)
    del facts
    running = asyncio.create_task(Controller(state, broker, holder=WHO, mirror=mirror).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


def peak_mb() -> float:
    """The most memory that this process has held; `getrusage` would tell of the process that began it, too."""
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def main() -> None:
    """See the module."""
    where, broker, release, policy, shares = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING, format="controller: %(message)s")
    made = msgspec.json.decode(release, type=Release), msgspec.json.decode(policy, type=Policy)
    asyncio.run(lead(Path(where), broker, *made, shares))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu_s": round(used.ru_utime + used.ru_stime, 1), "rss_mb": round(peak_mb(), 1)}))


if __name__ == "__main__":
    main()
