"""A fleet in the field, as tests of rollouts use it: a broker, devices that update, controllers, and who listens."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.messages import Desired, Reported, decode, encode
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.updates import Release
from tinysight_deploy.fleet.control.controller import Controller
from tinysight_deploy.fleet.control.facts import gather
from tinysight_deploy.fleet.control.operate import begin
from tinysight_deploy.fleet.keeping.mirror import Mirror
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Key, Outcome, Phase, Policy, Rollout, parse_stages
from tinysight_edge.simulate.behave import Behaviour
from tinysight_edge.simulate.updates import UpdatePlan
from tinysight_edge.simulate.updating import UpdatingCrowd, running

TURN_S: Final = 0.05
LEASE_S: Final = 0.4
PATIENCE_S: Final = 40.0
SITE: Final = "sim"
POLICY: Final = Policy(
    stages=parse_stages("1,50%,100%"),
    soak_s=0.1,
    max_failures=0.0,
    min_confirmed=1.0,
    deadline_s=60.0,
    per_min=100_000,
)


def until(true: Callable[[], object], what: str) -> None:
    """Wait until something is so; fail when it does not become so."""
    until_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until_s, what
        time.sleep(0.02)


@dataclass
class Tap:
    """Hears every desired state that a broker passes on, and may say what others would.

    Attributes:
        wanted: by device, what was asked of it, in the order it came.
        kept: what the broker keeps now, by topic.
    """

    url: str
    wanted: dict[Key, list[Desired]] = field(default_factory=lambda: defaultdict(list))
    kept: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.listen()

    def listen(self) -> None:
        """Connect; once more when the broker was gone."""
        if (before := getattr(self, "_connection", None)) is not None:
            before.close()
        self.kept.clear()
        self._connection = Connection(Address.parse(self.url), client_id="", on_message=self._hear)
        self._connection.open(timeout_s=5)
        self._connection.subscribe(t.DesiredTopic.filter())

    def say(self, topic: t.Topic, message: Desired | Reported | None) -> None:
        """Publish as one who has taken the broker."""
        payload = b"" if message is None else encode(message)
        self._connection.publish(str(topic), payload, qos=1, retain=True)

    def revisions(self, rollout: str) -> dict[Key, set[int]]:
        """By device, under which revisions a rollout has asked it."""
        told = {
            key: {each.revision for each in list(all_) if each.rollout == rollout} for key, all_ in self.wanted.items()
        }
        return {key: found for key, found in told.items() if found}

    def close(self) -> None:
        self._connection.close()

    def _hear(self, topic: str, payload: bytes, _retained: bool) -> None:
        self.kept[topic] = payload
        if payload:
            where = t.DesiredTopic.parse(topic)
            self.wanted[where.site, where.device].append(decode(payload, Desired))


@dataclass
class Field:
    """All of it.

    Attributes:
        broker: a Mosquitto that runs.
        shop: the repository.
        first: the release that runs at first.
        second: the one that is to be rolled out.
        state: where rollouts are kept.
        folder: for files.
        crowd: the devices.
        tap: who listens.
    """

    broker: Any
    shop: Any
    first: Release
    second: Release
    state: State
    folder: Path
    crowd: UpdatingCrowd
    tap: Tap

    @property
    def names(self) -> list[str]:
        return [device.name for device in self.crowd.devices]

    def begin(self, *, release: Release | None = None, **policy: Any) -> Rollout:
        """Begin a rollout to all devices that the broker knows of, once all of them are there."""
        ready = sum(device.begins_s is not None for device in self.crowd.devices)
        until(lambda: sum(device.ready for device in self.crowd.devices) >= ready, "the devices do not come")
        facts = asyncio.run(gather(self.broker.url, seconds=5))
        return begin(
            self.state,
            facts,
            release=release or self.second,
            group="all",
            policy=replace(POLICY, **policy),
            who="test",
            members=facts.keys(),
        )

    def phase(self, id_: str) -> Phase:
        return self.state.rollout(id_).phase

    def wait(self, id_: str, phase: Phase) -> Rollout:
        """Until a rollout is so far."""
        until(lambda: self.phase(id_) is phase, f"it does not become {phase}: {self.state.rollout(id_)}")
        return self.state.rollout(id_)

    def outcomes(self, id_: str) -> dict[str, Outcome]:
        return {device: wish.outcome for (_, device), wish in self.state.wishes(id_).items()}

    def active(self) -> dict[str, str]:
        """What each device runs in truth."""
        return {each.name: each.state.active.digest for each in self.crowd.devices if each.state.active is not None}

    def leaders(self) -> list[str]:
        """Who has led, one after another."""
        return [entry.who for entry in self.state.audit(most=10_000) if entry.what == "lead"]

    def check_once(self, id_: str) -> None:
        """No device got two wishes, none began twice, none runs what it must not; the stages came one after another."""
        twice = {key: found for key, found in self.tap.revisions(id_).items() if len(found) > 1}
        assert twice == {}
        counts = self.crowd.counts()
        assert counts["duplicates_acted"] == 0
        assert counts["wrong_bundle"] == 0
        assert set(self.active().values()) <= {self.first.digest, self.second.digest}
        wishes, open_ = self.state.wishes(id_), 0
        for entry in self.state.audit(most=10_000):
            if entry.detail.get("rollout") != id_:
                continue
            if entry.what == "stage":
                assert entry.detail["set"]["stage"] == open_ + 1
                open_ += 1
            if entry.what == "ask":
                asked = [(each["site"], each["device"]) for each in entry.detail["wishes"]]
                assert {wishes[key].stage for key in asked} == {open_}


@contextmanager
def leading(field_: Field, *, holder: str = "one", mirror: Path | None = None, **more: Any) -> Iterator[Controller]:
    """A controller in a thread of its own."""
    state = State(more.pop("state", field_.state.path), lease_s=LEASE_S)
    more.setdefault("patience_s", 0.0)  # nothing but a broker that forgets makes devices come late
    kept = None if mirror is None else Mirror(mirror)
    controller = Controller(state, field_.broker.url, holder=holder, mirror=kept, turn_s=TURN_S, **more)
    loop, task, failed = asyncio.new_event_loop(), None, []

    async def life() -> None:
        nonlocal task
        task = asyncio.current_task()
        await controller.run()

    def live() -> None:
        try:
            loop.run_until_complete(life())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 -- handed to the test
            failed.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        yield controller
    finally:
        until(lambda: task is not None or failed, "it does not begin")
        if task is not None and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        state.close()
        assert not failed, failed
        assert not thread.is_alive()


class Zygote:
    """Starts controllers in processes of their own, quickly; see ``fleet_lead.py``."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fleet_lead.py"))],
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, field_: Field, holder: str, *, dies_at: int | None = None, patience_s: float = 0.0) -> int:
        """A controller; its process's number."""
        given = {
            "state": field_.state.url if field_.state.path is None else str(field_.state.path),
            "broker": field_.broker.url,
            "holder": holder,
            "turn_s": TURN_S,
            "lease_s": LEASE_S,
            "patience_s": patience_s,
            "dies_at": dies_at,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


def shifted(faketime: Path, days: int) -> dict[str, str]:
    """The environment of a process whose clock is so many days ahead."""
    return {
        "LD_PRELOAD": str(faketime),
        "FAKETIME": f"{days:+d}d",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def field_of(
    broker: Any, shops: Any, folder: Path, *, devices: int = 5, url: str | None = None, **shares: float
) -> Iterator[Field]:
    """Devices that run the first release of a repository that has two.

    Args:
        broker: a Mosquitto that runs.
        shops: ``update_shop.py``.
        folder: for files.
        devices: how many.
        url: of the state; None for a file.
        shares: of behaviours.
    """
    shop = shops.Shop(folder / "repository")
    first, second = shop.add(b"first" * 100, 1), shop.add(b"second" * 100, 2)
    plan = UpdatePlan(
        address=Address.parse(broker.url),
        site=SITE,
        devices=devices,
        cameras=0,
        repository=str(shop.folder),
        root=shop.root,
        active=first,
        shares={Behaviour(name): share for name, share in shares.items()},
        update_s=0.4,
    )
    state, tap = State(url or folder / "state" / "fleet.db", lease_s=LEASE_S), Tap(broker.url)
    try:
        with running(plan) as crowd:
            yield Field(broker, shop, first, second, state, folder, crowd, tap)
    finally:
        tap.close()
        state.close()
