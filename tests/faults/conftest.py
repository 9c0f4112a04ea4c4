"""A real agent under a supervisor, a real reader, and the table of what faults did to them."""

import datetime as dt
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

import numpy as np
import pytest
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from tinysight_contract import topics as t
from tinysight_contract.messages import (
    PAYLOADS,
    CameraState,
    CameraStatus,
    Event,
    EventType,
    Health,
    State,
    Status,
    decode,
)
from tinysight_contract.mqtt import Address, Connection
from tinysight_edge.belt import Belt

TABLE = Path(__file__).parents[2] / "docs" / "faults.md"
PATIENCE_S: Final = 60.0
SITE, DEVICE = "plant-1", "cam-1"
M = TypeVar("M", bound=Struct)

NO_SPACE: Final = "the disk is full from any step of an update on"
NO_DISK: Final = "the disk breaks at any step of an update"
FAULTS: Final = {
    "RTSP camera absent at start": "at once when refused, `open_timeout` and 8 s (18 s) when nobody answers",
    "RTSP server killed and started again": "at once",
    "RTSP over TCP stalls": "`read_timeout` (5 s)",
    "RTSP over UDP stalls": "`read_timeout` (5 s)",
    "MJPEG stalls": "`read_timeout` (5 s)",
    "picture frozen": "`frozen_after` and 0.5 s (10.5 s)",
    "picture black": "2.5 s",
    "lens covered": "5.5 s",
    "resolution changes": "at once",
    "every other JPEG is corrupt": "next health message (30 s)",
    "every JPEG is corrupt": "`read_timeout` (5 s)",
    "a video ends beside a camera": "at once",
    "one camera of two hangs": "`read_timeout` (5 s)",
    "clock jumps an hour ahead": "nothing depends on it",
    "clock jumps to 1970": "nothing depends on it",
    "disk full under snapshots": "next snapshot, and 1 s",
    "disk full under the outbox": "next event, and 1.5 s",
    "SIGKILL while objects are in view": "at once, by the broker",
    "crash in C (SIGSEGV)": "at once, by the broker",
    "a model hangs": "50 of its median times, 10 s or more, and 0.5 s",
    "a model fails on a picture": "at once",
    "agent.toml gets a typo": "3 s",
    "agent.toml names a camera that is not there": "3 s, `trial` and 2 s (35 s)",
    "broker killed and started again": "at once, in the log",
    "broker killed 100 times, agent 20 times": "at once, in the log",
    "end asked for with a hung camera and a frozen broker": "over within 3 s",
    "network swallows everything, without a reset": "`keep_alive` (20 s), by the broker half as much again",
    "network swallows acknowledgements alone": "`keep_alive` (20 s)",
    "the broker's side of the connection is gone": "`keep_alive` (20 s), by the broker at once",
    "the agent's side of the connection is gone": "at once",
    "slow broker with a backlog": "nothing depends on it",
    "broker refuses the login": "at once, in the log and at 127.0.0.1",
    "the broker's certificate has expired": "at once, in the log",
    "the device's certificate has expired": "at once, in the log",
    "clock jumps an hour back while the broker is away": "nothing depends on it",
    "an update's process ends at any step": "nothing depends on it",
    "the power goes at any step of an update": "nothing depends on it",
    NO_SPACE: "at once, code `no-space`",
    NO_DISK: "at once, code `disk`",
    "a release that must not be installed": "at once",
    "a new bundle crashes": "at once",
    "a new bundle hangs": "2 min",
    "a new bundle eats memory": "at once, with more than `memory` (1 GiB)",
    "a new bundle answers wrong": "at once",
    "a new bundle is slow": "at once, with more than `max_slowdown` (2) times that of the active one",
    "an update with the clock in 2040": "at once",
    "an update with the clock at 1970": "nothing depends on it",
    "two updates at once": "at once",
    "killed while it updates": "nothing depends on it",
    "an agent killed in each state of an update": "at once, by the broker",
    "a file system is full under an update": "at once",
    "a file system can only be read under an update": "at once",
    "a server of updates misbehaves": "6 tries that bring nothing, 30 s each at most",
    "errors of the kernel at random under an update": "at once, code `disk`, or status 2",
}
"""By name, within what time a fault is found with the settings that hold by default."""

HEAD: Final = """\
# What faults do

Each line is a test with a real process in [`tests/faults`](../tests/faults): `tinysight run --config` under a
supervisor that starts it again after 3 s as systemd does, a real Mosquitto, real RTSP and HTTP servers. A fault counts
as found when a reader of MQTT has heard of it, and as over when the camera is `online`, or events come, again.

Measured with time-outs that are short for the tests: `read_timeout` 1 s, `open_timeout` 2 s, `frozen_after` 2 s,
`trial` 5 s, `health.every` 1 s, `keep_alive` 2 s where the network fails. What holds by default stands in the third
column. A camera that is gone is tried again after 0.5 to 1 s, then after twice as long each time, up to 30 s, for ever.

In none of these tests was an event of a boot missing: `seq` has no gap. The disk is filled by libfiu, which makes each
write of the agent fail with ENOSPC, the clock moved by libfaketime. Where the network fails, the agent speaks through
a proxy that swallows or forgets, and the reader does not: what came twice has the same `boot_id` and `seq`.

The lines about updates are `tinysight store install` on a real store, from a real signed repository, and an agent that
was asked for the same. A point is a step of the disk: the process ends, or the disk says no, before it or amid what it
writes. What a power cut leaves is worked out from all that was written, in seven ways in which file systems lose what
was not synced. Errors of the kernel are libfiu's, on 1 to 20 of 1000 calls. A self-test may take 2 s instead of 2 min,
128 MiB instead of 1 GiB and, where the bundle is to be slow, 0.5 ms a run; a server may say nothing for 0.8 s.

"""


def _await(true: Callable[[], bool], failure: str) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until_s, failure
        time.sleep(0.002)


@dataclass
class Ear:
    """Hears all that is published, and when.

    Attributes:
        qos: at 1 a broker holds back what goes beyond 20 unacknowledged messages, and loses that when it is killed; at
            0 it writes each message to our socket before it acknowledges it to the device. There Linux keeps it for us,
            thousands of them, after the broker is gone.
        began: when we listened.
    """

    url: str
    qos: int = 1
    heard: list[tuple[float, t.Topic, bytes]] = field(default_factory=list)
    began: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listen()

    def listen(self) -> None:
        """Connect, and once more when the broker was killed. From then on we hear all that it acknowledges to others.

        What the killed one had written to us is heard before.
        """
        if (before := getattr(self, "_connection", None)) is not None:
            _await(lambda: not before.alive, "the old broker lives")
            before.close()
        self._connection = Connection(Address.parse(self.url), client_id="", on_message=self._hear)
        self._connection.open(timeout_s=5)
        self.subscribe(self.qos)
        self.began.append(time.monotonic())

    def subscribe(self, qos: int) -> None:
        """Hear at this QoS from now on, and wait until the broker has said so."""
        self.qos = qos
        self._connection.subscribe(f"{t.ROOT}/#", qos=qos)
        _await(lambda: self._connection.subscribed, "the broker does not take our subscription")

    def _hear(self, topic: str, payload: bytes, _retained: bool) -> None:
        self.heard.append((time.monotonic(), t.parse(topic), payload))

    def status(self, state: State, *, since_s: float = 0.0) -> float:
        """When the device's status was said to be this."""
        return self.wait(Status, lambda status: status.state is state, since_s=since_s)[0]

    def twice(self) -> int:
        """How many events came more than once, by (``boot_id``, ``seq``); each time they said the same."""
        said: dict[tuple[str, int], Event] = {}
        events = [event for _, event in self.of(Event)]
        for event in events:
            first = said.setdefault((event.boot_id, event.seq), event)
            assert replace(event, replayed=False) == replace(first, replayed=False)
        return len(events) - len(said)

    def check_lives(self) -> None:
        """Each object that has an end had a start before, and nothing of it came after, but for what came twice."""
        said = {(event.boot_id, event.seq): event for _, event in self.of(Event)}
        lives: dict[str, list[EventType]] = {}
        for key in sorted(said):
            lives.setdefault(said[key].id, []).append(said[key].type)
        for id_, steps in lives.items():
            assert steps[0] is EventType.START, (id_, steps)
            assert EventType.END not in steps[:-1], (id_, steps)

    def of(self, kind: type[M], *, since_s: float = 0.0, camera: str | None = None) -> list[tuple[float, M]]:
        """Messages of one kind that came since then, of one camera or all."""
        return [
            (at_s, decode(payload, kind))
            for at_s, topic, payload in list(self.heard)
            if at_s >= since_s
            and PAYLOADS.get(type(topic)) is kind
            and payload
            and camera in {None, getattr(topic, "camera", None)}
        ]

    def wait(
        self, kind: type[M], true: Callable[[M], bool], *, camera: str | None = None, since_s: float = 0.0
    ) -> tuple[float, M]:
        """The first message of a kind since then that is so, and when it came; fail after a minute."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            for at_s, message in self.of(kind, since_s=since_s, camera=camera):
                if true(message):
                    return at_s, message
            time.sleep(0.02)
        raise AssertionError(f"no such {kind.__name__} came; since then: {self.told(since_s=since_s)}")

    def state(self, state: CameraState, *, camera: str = "gate", since_s: float = 0.0) -> float:
        """When a camera's status became this."""
        return self.wait(CameraStatus, lambda each: each.state is state, camera=camera, since_s=since_s)[0]

    def event(
        self, true: Callable[[Event], bool] = lambda _: True, *, camera: str = "gate", since_s: float = 0.0
    ) -> tuple[float, Event]:
        """The first such event of a camera, and when it came."""
        return self.wait(Event, true, camera=camera, since_s=since_s)

    def alert(self, code: str, *, stands: bool = True, since_s: float = 0.0) -> float:
        """When an alert was set, or cleared."""
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            for at_s, topic, payload in list(self.heard):
                if (
                    at_s >= since_s
                    and isinstance(topic, t.AlertTopic)
                    and (topic.code, bool(payload)) == (code, stands)
                ):
                    return at_s
            time.sleep(0.02)
        raise AssertionError(f"alert {code} did not {'come' if stands else 'go'}")

    def missing(self) -> list[str]:
        """Each gap in the event numbers of the device's boots: how many, of which boot, and around when."""
        came: dict[str, dict[int, float]] = {}
        for at_s, event in self.of(Event):
            came.setdefault(event.boot_id, {}).setdefault(event.seq, at_s)
        heads: Counter[str] = Counter()
        for _, health in self.of(Health):
            heads[health.boot_id] = max(heads[health.boot_id], health.outbox.last_seq)
        return [
            f"{number - last - 1} events of {boot}, {last + 1} to {number - 1}, {self._between(seqs, last, number)}"
            for boot in came.keys() | heads.keys()
            for seqs in [came.get(boot, {})]
            for last, number in pairwise([0, *sorted(seqs), max(heads[boot], *seqs, 0) + 1])
            if number > last + 1
        ]

    def _between(self, seqs: dict[int, float], *numbers: int) -> str:
        came_s = [seqs[each] for each in numbers if each in seqs]
        near_s = [at_s for at_s in self.began if came_s and min(came_s) - 2 < at_s < max(came_s) + 2]
        came, anew = (", ".join(f"{at_s - self.began[0]:.2f} s" for at_s in times_s) for times_s in (came_s, near_s))
        return f"beside what came at {came or 'no time'} (listening anew at {anew})"

    def check_all_came(self) -> None:
        """No event number is missing; those of this moment may take a while."""
        until_s = time.monotonic() + PATIENCE_S
        while missing := self.missing():
            assert time.monotonic() < until_s, "these never came: " + "; ".join(missing)
            time.sleep(0.05)

    def told(self, *, since_s: float) -> str:
        """What was published since then, in words: states of cameras, and events that are out of the ordinary."""
        cameras: dict[str, list[str]] = {}
        for at_s, topic, payload in list(self.heard):
            if at_s >= since_s and isinstance(topic, t.CameraStatusTopic) and payload:
                states, state = cameras.setdefault(topic.camera, []), decode(payload, CameraStatus).state
                states += [state] if states[-1:] != [state] else []  # else its reason alone is new
        words = [f"`{camera}` " + " → ".join(states) for camera, states in sorted(cameras.items())]
        events = [event for _, event in self.of(Event, since_s=since_s)]
        reasons = Counter(each.reason for each in events if each.type is EventType.END and each.reason != "left")
        words += [f"{count} `end` ({reason})" for reason, count in sorted(reasons.items(), key=str)]
        if replayed := sum(event.replayed for event in events):
            words.append(f"{replayed} events `replayed`")
        return "; ".join(words)

    def close(self) -> None:
        self._connection.close()


@dataclass
class Device:
    """``tinysight run --config``, started again when it ends, as its systemd unit would."""

    folder: Path
    toml: str
    env: dict[str, str] = field(default_factory=dict)
    restart_s: float = 3.0
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
        self._over, self._lock = threading.Event(), threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()
        until_s = time.monotonic() + 10
        while not self.starts and time.monotonic() < until_s:
            time.sleep(0.01)

    def _supervise(self) -> None:
        command = [sys.executable, "-m", "tinysight_deploy", "run", "--config", str(self.path)]
        env = {**os.environ, "XDG_STATE_HOME": str(self.folder / "home"), **self.env}
        with (self.folder / "agent.log").open("ab") as log:
            while not self._over.is_set():
                with self._lock:
                    self._process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=self.folder)
                self.starts.append(time.monotonic())
                status = self._process.wait()
                self.ends.append((time.monotonic(), status))
                self._over.wait(self.restart_s)

    def kill(self) -> None:
        """Kill it, if it runs, and see it dead."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait(10)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The process stands still meanwhile, and none is started."""
        with self._lock:
            stopped = self._process if self._process is not None and self._process.poll() is None else None
            if stopped is not None:
                stopped.send_signal(signal.SIGSTOP)
            try:
                yield
            finally:
                if stopped is not None:
                    stopped.send_signal(signal.SIGCONT)

    def wait_end(self, number: int) -> tuple[float, int]:
        """When it ended for the n-th time, from 1, and its status."""
        until_s = time.monotonic() + PATIENCE_S
        while len(self.ends) < number:
            assert time.monotonic() < until_s, "the process did not end"
            time.sleep(0.02)
        return self.ends[number - 1]

    def end(self) -> int:
        """Ask it to end; its status."""
        self._over.set()
        until_s, asked = time.monotonic() + 20, None
        while self._thread.is_alive() and time.monotonic() < until_s:
            if self._process not in {None, asked}:  # once each: a second one may come when Python is half gone
                asked = self._process
                asked.send_signal(signal.SIGTERM)
            self._thread.join(0.1)
        if self._thread.is_alive():
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError("the agent does not end")
        return self.ends[-1][1]


class World:
    """What an MJPEG camera of the tests sees: the belt, or what went wrong with it.

    Attributes:
        server: the camera, not yet started.
        shows: ``belt``, ``frozen``, or a scene of ``cameras.scene``.
        scale: of its pictures; 1 is 320 by 240.
    """

    def __init__(self, cameras: Any, server: Any) -> None:
        self._cameras, self.server, self.shows, self.scale = cameras, server, "belt", 1
        server.fps, server.picture = 15.0, self
        self._belts = {scale: Belt(3, width=320 * scale, height=240 * scale, speed_px=4.0 * scale) for scale in (1, 2)}
        self._begun_s = time.monotonic()

    def __call__(self, _number: int) -> NDArray[np.uint8]:
        number = int((time.monotonic() - self._begun_s) * 15) + 100
        if self.shows in {"belt", "frozen"}:
            return self._belts[self.scale].frame(number if self.shows == "belt" else 200)[0]
        return np.asarray(self._cameras.scene(self.shows, number), np.uint8)


@pytest.fixture
def world(cameras: Any, mjpeg: Any) -> World:
    """What the MJPEG camera of this test sees."""
    return World(cameras, mjpeg)


@pytest.fixture
def ear(mosquitto: Any, wire: Any) -> Iterator[Ear]:
    """Hears all that is published, and when; in the end, when the agents have ended, nothing may be missing.

    All of it must fit the contract.
    """
    listening = Ear(mosquitto.url)
    yield listening
    listening.check_all_came()
    listening.close()
    wire.check((str(topic), payload, False) for _, topic, payload in listening.heard)


MakeDevice = Callable[..., Device]


@pytest.fixture
def make_device(ear: Ear, belt_bundle: Path, tmp_path: Path) -> Iterator[MakeDevice]:
    """Start an agent with these cameras, as TOML below ``[cameras.NAME]``; it ends before ``ear`` does."""
    made: list[Device] = []

    def make(
        *,
        bundle: Path = belt_bundle,
        store: Path | None = None,
        broker: str | None = None,
        more: str = "",
        env: dict[str, str] | None = None,
        **cameras: str,
    ) -> Device:
        broker = broker or f'url = "{ear.url}"'
        model = f'bundle = "{bundle}"' if store is None else f'store = "{store}"'
        toml = (
            f'site = "{SITE}"\ndevice = "{DEVICE}"\nstate = "state"\ntrial = "5s"\n'
            f'[broker]\n{broker}\n[model]\n{model}\n[health]\nevery = "1s"\n{more}\n'
        )
        for name, text in cameras.items():
            toml += f"[cameras.{name}]\n{text}\n"
        device = Device(tmp_path, toml, env or {})
        made.append(device)
        device.start()
        return device

    yield make
    for device in made:
        device.end()
        with suppress(OSError):
            sys.stdout.write(device.log[-4000:])  # pytest shows it when the test fails


Tell = Callable[..., None]


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Put a line into the table: the fault, seconds to find it, seconds to be well again, what was published."""

    def put(fault: str, *, found_s: float | None = None, well_s: float | None = None, published: str) -> None:
        assert fault in FAULTS
        request.node.user_properties.append(("fault", [fault, found_s, well_s, published]))

    return put


@pytest.fixture
def faults() -> dict[str, str]:
    """All faults by name, as they stand in the table."""
    return FAULTS


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table; write it with ``--regen`` when it is whole."""
    reports = terminalreporter.stats.get("passed", [])
    told = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == "fault"]
    points = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == "points"]
    rows = {fault: (found_s, well_s, published) for fault, found_s, well_s, published in told}
    rows |= _counted(points)
    if not rows:
        return
    terminalreporter.section("faults")
    lines = ["| fault | found after | by default within | over after | what was published |", "|---|---|---|---|---|"]
    for fault, default in FAULTS.items():
        if fault in rows:
            found_s, well_s, published = rows[fault]
            lines.append(f"| {fault} | {_seconds(found_s)} | {default} | {_seconds(well_s)} | {published} |")
    for line in lines:
        terminalreporter.write_line(line)
    if points:
        crashes = sum(count for fault, _, count in points if fault not in {NO_SPACE, NO_DISK})
        said = f"{crashes} crash points and {sum(count for *_, count in points) - crashes} of disks that said no"
        terminalreporter.write_line(f"{said}, all ending on a verified bundle.")
    if config.getoption("--regen") and rows.keys() == FAULTS.keys():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = re.search(r"model name\s*: (.*)", text)
        machine = f"{name[1] if name else platform.machine()}, {os.cpu_count()} cores"
        made = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {machine}; `pytest tests/faults --regen` writes it."
        TABLE.write_text(f"{HEAD}{made}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def _counted(points: list[tuple[str, str, int]]) -> dict[str, tuple[None, None, str]]:
    """Lines for what was done at every point of several acts."""
    rows: dict[str, tuple[None, None, str]] = {}
    for fault in dict.fromkeys(fault for fault, _, _ in points):
        acts = {act: count for told, act, count in points if told == fault}
        each = ", ".join(f"{act} {count}" for act, count in sorted(acts.items()))
        said = f"{sum(acts.values())} points, all ending on a verified bundle, the old or the new ({each})"
        rows[fault] = (None, None, f"{said}; tried again, each comes to its end and leaves nothing behind")
    return rows


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


@pytest.fixture(scope="session")
def faketime() -> Path:
    """Debian's library that moves the clock."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("apt-get install faketime")
    return found[0]


CountPoints = Callable[[str, str, int], None]


@pytest.fixture
def count_points(request: pytest.FixtureRequest) -> CountPoints:
    """Say at how many points of an act a fault was tried; the table tells their sum."""

    def put(fault: str, act: str, count: int) -> None:
        assert fault in FAULTS
        request.node.user_properties.append(("points", [fault, act, count]))

    return put


@pytest.fixture
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one: what is synced there a thousand times wears no disk."""
    yield from _quick(tmp_path_factory)


@pytest.fixture(scope="module")
def quick_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Likewise, for all tests of a file."""
    yield from _quick(tmp_path_factory)


def _quick(factory: pytest.TempPathFactory) -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108 -- the folder in it has a name of its own, for us alone
    if not os.access(memory, os.W_OK):
        yield factory.mktemp("quick")
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="tinysight-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def shops(module: Callable[[str], ModuleType]) -> ModuleType:
    """``update_shop.py``: repositories of signed bundles."""
    return module("faults/update_shop")


@pytest.fixture(scope="session")
def faulty(module: Callable[[str], ModuleType]) -> ModuleType:
    """``faulty.py`` of the tests of sources: a web server that misbehaves."""
    return module("edge/update/faulty")


@pytest.fixture
def serve(faulty: ModuleType) -> Iterator[Callable[..., Any]]:
    """Start web servers that misbehave; they end with the test."""
    with ExitStack() as ending:

        def start(folder: Path) -> Any:
            server = faulty.Server(folder)
            ending.callback(server.close)
            return server

        yield start


@pytest.fixture(scope="session")
def disks(module: Callable[[str], ModuleType]) -> ModuleType:
    """``update_disks.py``: disks that end the process, are full, or lose what was not synced."""
    return module("faults/update_disks")


@pytest.fixture(scope="session")
def fields(module: Callable[[str], ModuleType]) -> ModuleType:
    """``update_field.py``: devices, and the command."""
    return module("faults/update_field")


@pytest.fixture(scope="session")
def first_field(fields: Any, shops: Any, belt_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A device on which release 1 runs, and its repository, as they are before each test."""
    return fields.new_field(tmp_path_factory.mktemp("field"), shops, belt_bundle)


@pytest.fixture
def device(first_field: Any, tmp_path: Path) -> Any:
    """A device on which release 1 runs, and its repository, for this test."""
    return first_field.copied(tmp_path / "device")


@pytest.fixture
def forked(fields: Any, disks: Any, tmp_path: Path) -> Callable[..., Any]:
    """Run the command in a process of its own, with names in it replaced: time-outs, above all."""
    return partial(fields.run_forked, disks, tmp_path)


@pytest.fixture
def real(fields: Any, tmp_path: Path) -> Callable[..., Any]:
    """Run the command as a user does."""
    return partial(fields.run_real, tmp_path)
