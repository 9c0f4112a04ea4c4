"""A fleet's server in a thread, on real sockets, with a real broker and database; and devices that do as told."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx

from tinysight_contract import topics as t
from tinysight_contract.messages import Ack, Command, Desired, DesiredState, Reported, State, Status, decode, encode
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.updates import Release, Update, UpdateState
from tinysight_deploy.fleet.control.controller import Controller
from tinysight_deploy.fleet.keeping.examples import Kept
from tinysight_deploy.fleet.keeping.state import State as FleetState
from tinysight_deploy.fleet.keeping.tokens import Role
from tinysight_deploy.fleet.server import app
from tinysight_deploy.fleet.server.auth import Attempts
from tinysight_deploy.fleet.server.taking import Fleet
from tinysight_deploy.repo.repository import Repository

BEFORE = "a" * 64
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@dataclass
class Served:
    """A server that runs, and a token of each role; ``device`` is that of plant-1/belt-1."""

    folder: Path
    broker: str
    repo: Path
    options: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    state_url: str = ""
    name: str = "1"

    def __enter__(self) -> Self:
        self.state = FleetState(self.state_url or self.folder / "fleet.db")
        roles = (Role.READ, Role.OPERATE, Role.ADMIN)
        self.tokens = {role: self.state.add_token(f"{role}-{self.name}", role) for role in roles}
        own = {"site": "plant-1", "device": "belt-1"}
        self.tokens[Role.DEVICE] = self.state.add_token(f"belt-1-{self.name}", Role.DEVICE, **own)
        self.controller = Controller(self.state, self.broker, holder=f"test-{self.name}", turn_s=0.1)
        self.repository = Repository(self.repo, self.repo.parent / "keys")
        self.attempts = Attempts()
        self.kept = Kept(self.folder / "examples")
        fleet = Fleet(self.state, self.controller, repo=self.repository, examples=self.kept, attempts=self.attempts)
        self.app = app.application(fleet, **self.options)
        self._begun = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        assert self._begun.wait(10)
        return self

    async def _run(self) -> None:
        with app.listening(app.Bind("127.0.0.1", 0)) as (listener, port):
            self.url = f"{'https' if 'cert' in self.run else 'http'}://127.0.0.1:{port}"
            self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
            runs = asyncio.create_task(app.run(self.app, listener, self.controller.run, **self.run))
            self._begun.set()
            ends = asyncio.create_task(self._end.wait())
            await asyncio.wait({runs, ends}, return_when=asyncio.FIRST_COMPLETED)
            runs.cancel()
            ends.cancel()
            await asyncio.gather(runs, ends, return_exceptions=True)

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.state.close()

    def stop(self) -> None:
        """End it properly; once more does nothing."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def client(self, role: Role | None, **options: Any) -> httpx.Client:
        headers = {} if role is None else {"Authorization": f"Bearer {self.tokens[role]}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, **options)


class Obedient:
    """A device that installs what is wanted of it at once, and says that it stood its trial.

    Args:
        url: of the broker.
        site: its site.
        device: its id.
        fails: it says that the bundle was rolled back instead.
        mute: it hears what is wanted and ordered, and says nothing.
    """

    def __init__(
        self, url: str, device: str, *, site: str = "plant-1", fails: bool = False, mute: bool = False
    ) -> None:
        self.place, self.fails, self.mute = (site, device), fails, mute
        self.heard: list[Desired] = []
        self.orders: list[tuple[str, Command]] = []
        self._connection = Connection(Address.parse(url), client_id="", on_message=self._hear)
        self._connection.open(timeout_s=5)
        self.say(t.StatusTopic(*self.place), Status(state=State.ONLINE, boot_id="b1", reason="", at=NOW))
        self.say(t.ReportedTopic(*self.place), _report(0, BEFORE, DesiredState.NONE))
        self._connection.subscribe(str(t.DesiredTopic(*self.place)))
        self._connection.subscribe(t.CommandTopic.filter(site=site, device=device))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def say(self, topic: t.Topic, message: Any) -> None:
        self._connection.publish(str(topic), b"" if message is None else encode(message), qos=1, retain=True)

    def report(self, revision: int) -> None:
        """Say that so high a revision is known."""
        self.say(t.ReportedTopic(*self.place), _report(revision, BEFORE, DesiredState.NONE))

    def answer(self, name: str, id_: str, **more: Any) -> None:
        """Say that a command was carried out, or what else is given."""
        ack = Ack(**{"id": id_, "name": name, "ok": True, "at": NOW, **more})
        self._connection.publish(str(t.AckTopic(*self.place, id_)), encode(ack), qos=1, retain=False)

    def _hear(self, topic: str, payload: bytes, _retained: bool) -> None:
        if not payload:
            return
        if isinstance(where := t.parse(topic), t.CommandTopic):
            order = decode(payload, Command)
            self.orders.append((where.name, order))
            if not self.mute:
                self.answer(where.name, order.id, result={"did": where.name})
            return
        wanted = decode(payload, Desired)
        self.heard.append(wanted)
        if self.mute:
            return
        if wanted.bundle is None or wanted.target is None:
            self.say(t.ReportedTopic(*self.place), _report(wanted.revision, BEFORE, DesiredState.APPLIED))
            return
        release = Release(
            target=wanted.target, digest=wanted.bundle, size_bytes=1, name="belt", version="1.0.0", release=1
        )
        state = UpdateState.ROLLED_BACK if self.fails else UpdateState.CONFIRMED
        update = Update(target=wanted.target, state=state, at=NOW, bundle=release, reason="It broke." * self.fails)
        active = BEFORE if self.fails else wanted.bundle
        what = DesiredState.ROLLED_BACK if self.fails else DesiredState.APPLIED
        self.say(t.ReportedTopic(*self.place), _report(wanted.revision, active, what, update=update))


def _report(revision: int, bundle: str, state: DesiredState, *, update: Update | None = None) -> Reported:
    return Reported(revision=revision, at=NOW, bundle=bundle, state=state, boot_id="b1", update=update)


def eventually(true: Callable[[], object], *, within_s: float = 20.0) -> None:
    """Wait until something is true."""
    until_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until_s, "it did not become true"
        time.sleep(0.02)
