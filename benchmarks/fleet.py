"""A rollout to ten thousand devices: how long it takes, what the controller and the broker need for it.

    python benchmarks/fleet.py        10,000 devices, 6 minutes
    python benchmarks/fleet.py --devices 1000

The devices are those of `tinysight simulate`, in two processes: each with a session of its own, its own copy of what is
signed, and real checks of it; the self-test and the trial are simulated. Five of a hundred are not there when it
begins and come while it runs; two of a hundred fail, one by a crash and one by silence. The release is signed as a
fleet's is, with a key for each role. The controller has a process of its own, its state in SQLite and a copy of its
audit log. Stages are 1 device, 5 %, 25 % and all, watched for a second each. When the third begins, the broker is
killed and started again, with nothing of what it kept.

Confirmed, failed and silent are what the controller has found. ``wrong_bundle`` counts devices that say in the end that
they run what was never asked for, with those that know that they do; ``duplicates_acted`` installations that were begun
again for one revision; ``missing`` sound devices that do not run the release in the end, whose number has to be 0.
``total_s`` ends when the last of those has confirmed, ``rollout_s`` when the controller says that it is done. Messages
and bytes are topics and payloads in both directions, with what each device says at its beginning, twice.

All processes share the machine. Needs mosquitto. Prints one JSON line last.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from rig import program, say, wait_for
from steps import tinysight, where

from tinysight_contract.bundle import Bundle, pack_bundle
from tinysight_contract.errors import BrokerError
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.updates import Release, UpdateState
from tinysight_deploy.fleet.control.facts import gather
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Facts, Key, Outcome, Phase, Policy, parse_stages
from tinysight_deploy.repo.repository import Repository
from tinysight_edge.simulate.behave import Behaviour, behaviour_of, parse_shares

GOLDEN: Final = Path(__file__).parents[1] / "tests" / "golden" / "belt.bundle"
CHILD: Final = Path(__file__).with_name("fleet_child.py")
PROCESSES: Final = 2
SHARES: Final = "crash=1%,silent=1%,offline=5%"
POLICY: Final = Policy(
    stages=parse_stages("1,5%,25%,100%"),
    soak_s=1.0,
    max_failures=0.1,
    min_confirmed=0.9,
    deadline_s=30.0,
    per_min=100_000,
    at_once=400,
)
UPDATE_S: Final = 3.0
RESTART_AT: Final = 2  # the third stage
WAIT_S: Final = 900.0
CONFIG: Final = (
    "allow_anonymous true",
    "max_connections -1",
    "max_queued_messages 0",
    "sys_interval 1",
    "persistence false",
)


class Broker:
    """Debian's mosquitto on a port of its own; it forgets all when it is killed."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join([f"listener {self.port} 127.0.0.1", *CONFIG, ""]), encoding="ascii")
        self.rss_mb = 0.0
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin."""
        self._process = subprocess.Popen(
            [program("mosquitto"), "-c", str(self._config)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        wait_for(self.port)

    def kill(self) -> None:
        """End at once, if it runs."""
        if self._process.poll() is not None:
            return
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        if (found := re.search(r"VmHWM:\s+(\d+) kB", status)) is not None:
            self.rss_mb = max(self.rss_mb, int(found[1]) / 1024)
        self._process.kill()
        self._process.wait(10)


class Crowd:
    """Simulated devices, in processes of their own."""

    def __init__(
        self, stack: ExitStack, broker: Broker, repo: Path, count: int, *, active: str, offline_s: float
    ) -> None:
        self._processes = []
        self.names: list[str] = []
        for number in range(PROCESSES):
            share = count * (number + 1) // PROCESSES - count * number // PROCESSES
            prefix = "abcdefgh"[number]
            self.names += [f"{prefix}-{each:04d}" for each in range(1, share + 1)]
            command = [
                *(sys.executable, "-P", "-m", "tinysight_deploy", "simulate", "--broker", broker.url),
                *("--devices", str(share), "--cameras", "0", "--prefix", prefix, "--json", "--quiet"),
                *("--repository", str(repo), "--root", str(repo / "metadata" / "1.root.json"), "--active", active),
                *("--behave", SHARES, "--update-seconds", f"{UPDATE_S}", "--offline-seconds", f"{offline_s:g}"),
            ]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stack.callback(process.kill)
            self._processes.append(process)

    def of(self, *kinds: Behaviour) -> set[str]:
        """Names of those that behave so."""
        shares = parse_shares(SHARES)
        return {name for name in self.names if behaviour_of(name, shares) in kinds}

    def end(self) -> Counter[str]:
        """Let them go; sums of what they counted."""
        total: Counter[str] = Counter()
        for process in self._processes:
            process.send_signal(signal.SIGINT)
        for process in self._processes:
            out, _ = process.communicate(timeout=180)
            total.update(json.loads(out.splitlines()[-1]))
        return total


def make_repository(folder: Path) -> tuple[Path, Release, Release]:
    """A fleet's, with two releases of one model: the one that all run, and the one that they are to run."""
    options = ("--repo", folder / "repo", "--keys", folder / "keys")
    tinysight("keys", "init", "--fleet", *options, cwd=folder)
    old = Bundle.open(GOLDEN)
    files = {name: old.read(name) for name in old.manifest.files}
    newer = folder / "newer.bundle"
    newer.write_bytes(pack_bundle(replace(old.manifest, version="1.1.0", release=old.manifest.release + 1), files))
    for path in (GOLDEN, newer):
        tinysight("release", "add", path, *options, cwd=folder)
    repository = Repository(folder / "repo", folder / "keys")
    return folder / "repo", repository.find(GOLDEN), repository.find(newer)


def until(true: Callable[[], object], what: str, *, every_s: float = 0.5) -> None:
    """Wait until something is so."""
    until_s = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() >= until_s:
            raise SystemExit(f"{what}, after {WAIT_S:g} s.")
        time.sleep(every_s)


def wait_connected(url: str, count: int) -> None:
    """Until so many are connected to the broker."""
    clients = [0]

    def hear(_topic: str, payload: bytes, _retained: bool) -> None:
        clients[0] = int(payload)

    connection = Connection(Address.parse(url), client_id="", on_message=hear)
    connection.open(timeout_s=30)
    connection.subscribe("$SYS/broker/clients/connected")
    until(lambda: clients[0] > count, "Not all devices have connected")
    connection.close()


def facts_of(url: str) -> dict[Key, Facts]:
    """What the broker keeps; nothing while it is overloaded."""
    try:
        return asyncio.run(gather(url, seconds=60))
    except BrokerError as error:
        say(str(error))
        return {}


def _missing(facts: dict[Key, Facts], names: set[str], release: Release) -> set[str]:
    """Who has not confirmed the release, by what the broker keeps."""
    done = {
        name
        for (_, name), each in facts.items()
        if each.active == release.digest and each.update is not None and each.update.state is UpdateState.CONFIRMED
    }
    return names - done


def measure(folder: Path, count: int) -> dict[str, Any]:
    """One rollout."""
    repo, old, new = make_repository(folder)
    with ExitStack() as stack:
        broker = Broker(folder)
        stack.callback(broker.kill)
        begun_s = time.monotonic()
        crowd = Crowd(stack, broker, repo, count, active=old.target, offline_s=15 + count / 100)
        wait_connected(broker.url, count - len(crowd.of(Behaviour.OFFLINE)))
        time.sleep(2)
        connected_s = time.monotonic() - begun_s
        say(f"{count} devices after {connected_s:.0f} s")
        state = State(str(folder / "fleet" / "fleet.db"))
        stack.callback(state.close)
        values = [msgspec.json.encode(each).decode() for each in (new, POLICY)]
        command = [sys.executable, str(CHILD), str(folder / "fleet" / "fleet.db"), broker.url, *values, SHARES]
        controller = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        stack.callback(controller.kill)
        if controller.stdout is None:
            raise SystemExit("The controller has no output.")
        id_ = json.loads(controller.stdout.readline())["id"]
        begun_s = time.monotonic()
        stages_s: dict[int, float] = {}

        def look(stage: int) -> bool:
            rollout = state.rollout(id_)
            if rollout.phase is Phase.HALTED:
                raise SystemExit(f"The rollout has halted: {rollout.reason}")
            stages_s.setdefault(rollout.stage, round(time.monotonic() - begun_s, 1))
            return rollout.stage >= stage or rollout.phase is Phase.DONE

        until(lambda: look(RESTART_AT), "The third stage has not begun")
        time.sleep(1)
        broker.kill()
        broker.start()
        say(f"the broker was killed after {time.monotonic() - begun_s:.0f} s")
        until(lambda: look(len(POLICY.stages)), "The rollout is not done", every_s=1)
        rollout_s = time.monotonic() - begun_s
        say(f"done after {rollout_s:.0f} s; stages at {stages_s}")
        sound = crowd.of(Behaviour.SOUND, Behaviour.OFFLINE)
        until(lambda: not _missing(facts_of(broker.url), sound, new), "Some devices have not confirmed", every_s=2)
        total_s = time.monotonic() - begun_s
        outcomes = Counter(wish.outcome for wish in state.wishes(id_).values())
        facts = facts_of(broker.url)
        told = crowd.end()
        controller.send_signal(signal.SIGTERM)
        used = json.loads(controller.communicate(timeout=60)[0].splitlines()[-1])
        broker.kill()
    astray = sum(each.active not in {None, old.digest, new.digest} for each in facts.values())  # the silent tell none
    return {
        "devices": count,
        "confirmed": outcomes[Outcome.CONFIRMED],
        "failed": outcomes[Outcome.FAILED],
        "silent": outcomes[Outcome.SILENT],
        "away": outcomes[Outcome.AWAY],
        "missing": len(_missing(facts, sound, new)),
        "wrong_bundle": astray + told["wrong_bundle"],
        "duplicates_acted": told["duplicates_acted"],
        "total_s": round(total_s, 1),
        "rollout_s": round(rollout_s, 1),
        "connected_s": round(connected_s, 1),
        "controller_rss_mb": used["rss_mb"],
        "controller_cpu_s": used["cpu_s"],
        "broker_rss_mb": round(broker.rss_mb, 1),
        "messages_per_device": round((told["messages_out"] + told["messages_in"]) / count, 1),
        "bytes_per_device": round((told["bytes_out"] + told["bytes_in"]) / count),
        "verify_ms": round(1000 * told["verify_s"] / max(told["checks"], 1), 2),
        "sessions_lost": told["sessions_lost"],
        "load": round(os.getloadavg()[0], 1),
        "where": where(),
    }


def main() -> None:
    """Run it, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=10_000)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), parser.parse_args().devices)))


if __name__ == "__main__":
    main()
