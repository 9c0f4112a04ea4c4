"""A real agent under a supervisor, a real reader, and the table of what faults did to them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from msgspec import Struct

from tinysight_contract import topics as t
from tinysight_contract.errors import ContractError
from tinysight_contract.messages import PAYLOADS, CameraState, CameraStatus, Event, Health, decode
from tinysight_edge.mqtt import Address, Connection

TABLE = Path(__file__).parents[2] / "docs" / "faults.md"
PATIENCE_S = 60.0
SITE, DEVICE = "plant-1", "cam-1"
M = TypeVar("M", bound=Struct)


@dataclass
class Ear:
    """Hears all that is published, and when."""

    url: str
    heard: list[tuple[float, t.Topic, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._connection = Connection(Address.parse(self.url), client_id="", on_message=self._hear)
        self._connection.open(timeout_s=5)
        self._connection.subscribe(f"{t.ROOT}/#")

    def _hear(self, topic: str, payload: bytes, _retained: bool) -> None:
        self.heard.append((time.monotonic(), t.parse(topic), payload))

    def of(self, kind: type[M], *, since_s: float = 0.0) -> list[tuple[float, t.Topic, M]]:
        """Messages of one kind that came since then, each with its time and topic."""
        found = []
        for at_s, topic, payload in list(self.heard):
            if at_s >= since_s and PAYLOADS.get(type(topic)) is kind and payload:
                found.append((at_s, topic, decode(payload, kind)))
        return found

    def wait(
        self, kind: type[M], true: Callable[[M], bool], *, camera: str | None = None, since_s: float = 0.0
    ) -> tuple[float, M]:
        """The first message of a kind since then that is so, and when it came; fail after a minute."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            for at_s, topic, message in self.of(kind, since_s=since_s):
                if (camera is None or getattr(topic, "camera", None) == camera) and true(message):
                    return at_s, message
            time.sleep(0.02)
        states = [(topic, message) for _, topic, message in self.of(CameraStatus, since_s=since_s)]
        raise AssertionError(f"no such {kind.__name__} came; camera states since then: {states}")

    def state(self, state: CameraState, *, camera: str = "gate", since_s: float = 0.0) -> float:
        """When a camera's status became this."""
        return self.wait(CameraStatus, lambda each: each.state is state, camera=camera, since_s=since_s)[0]

    def event(self, *, camera: str = "gate", since_s: float = 0.0) -> float:
        """When an event of a camera came."""
        return self.wait(Event, lambda _: True, camera=camera, since_s=since_s)[0]

    def count(self, *, since_s: float, until_s: float, camera: str = "gate") -> int:
        """How many events of a camera came between two moments."""
        events = self.of(Event, since_s=since_s)
        return sum(at_s < until_s and getattr(topic, "camera", None) == camera for at_s, topic, _ in events)

    def missing(self) -> int:
        """How many of the device's event numbers never came, over all its boots."""
        numbers: dict[str, set[int]] = {}
        for _, _, event in self.of(Event):
            numbers.setdefault(event.boot_id, set()).add(event.seq)
        return sum(max(each) - len(each) for each in numbers.values())

    def close(self) -> None:
        self._connection.close()


@dataclass
class Device:
    """``tinysight run --config``, started again when it ends, as its systemd unit would."""

    folder: Path
    toml: str
    wrapper: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    restart_s: float = 1.0
    starts: list[float] = field(default_factory=list)
    ends: list[tuple[float, int]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def log(self) -> str:
        return (self.folder / "agent.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def configure(self, toml: str) -> None:
        """Replace the file as an editor does."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(toml)
        fresh.rename(self.path)

    def start(self) -> None:
        self.configure(self.toml)
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()
        until_s = time.monotonic() + 10
        while not self.starts and time.monotonic() < until_s:
            time.sleep(0.01)

    def _supervise(self) -> None:
        command = [*self.wrapper, sys.executable, "-m", "tinysight_deploy", "run", "--config", str(self.path)]
        with (self.folder / "agent.log").open("ab") as log:
            while not self._over.is_set():
                self._process = subprocess.Popen(
                    command, stdout=log, stderr=log, env={**os.environ, **self.env}, cwd=self.folder
                )
                self.starts.append(time.monotonic())
                self.ends.append((0.0, self._process.wait()))
                self.ends[-1] = (time.monotonic(), self.ends[-1][1])
                self._over.wait(self.restart_s)

    def end(self) -> int:
        """Ask it to end; its status."""
        self._over.set()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                return self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
                raise
        return self.ends[-1][1]


@pytest.fixture
def ear(mosquitto: Any) -> Iterator[Ear]:
    """Hears all that is published, and when."""
    listening = Ear(mosquitto.url)
    yield listening
    listening.close()


MakeDevice = Callable[..., Device]


@pytest.fixture
def make_device(mosquitto: Any, belt_bundle: Path, tmp_path: Path) -> Iterator[MakeDevice]:
    """Start an agent with these cameras, as TOML below ``[cameras.NAME]``; it ends with the test."""
    made: list[Device] = []

    def make(*, bundle: Path = belt_bundle, more: str = "", start: bool = True, **cameras: str) -> Device:
        toml = (
            f'site = "{SITE}"\ndevice = "{DEVICE}"\nstate = "state"\ntrial = "5s"\n{more}\n'
            f'[broker]\nurl = "{mosquitto.url}"\n[model]\nbundle = "{bundle}"\n[health]\nevery = "1s"\n'
        )
        for name, text in cameras.items():
            toml += f"[cameras.{name}]\n{text}\n"
        device = Device(tmp_path, toml)
        made.append(device)
        if start:
            device.start()
        return device

    yield make
    for device in made:
        if device.starts:
            device.end()


Tell = Callable[..., None]


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Put a line into the table: the fault, seconds to find it, seconds to be well again, what was published."""

    def put(fault: str, *, found_s: float | None, well_s: float | None, published: str) -> None:
        request.node.user_properties.append(("fault", [fault, found_s, well_s, published]))

    return put


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table; write it with ``--regen``."""
    reports = terminalreporter.stats.get("passed", [])
    rows = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == "fault"]
    if not rows:
        return
    terminalreporter.section("faults")
    lines = ["| fault | found after | well again after | what was published |", "|---|---|---|---|"]
    for fault, found_s, well_s, published in rows:
        lines.append(f"| {fault} | {seconds(found_s)} | {seconds(well_s)} | {published} |")
    for line in lines:
        terminalreporter.write_line(line)


def seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"


__all__ = ["ContractError", "Health"]
