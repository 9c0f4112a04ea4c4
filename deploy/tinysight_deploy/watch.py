"""``tinysight watch``: what the devices of a broker are and see, in the terminal.

In: every message under the contract's root.  Out: a live table, or each message as a line of JSON. Reads with
tolerance: a message that breaks the contract is counted and shown, never fatal.
"""

import queue
import signal
import sys
import threading
import time
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tinysight_contract import topics as t
from tinysight_contract.errors import BrokerError, ContractError
from tinysight_contract.messages import PAYLOADS, CameraStatus, Counts, Event, Health, Info, Status, decode
from tinysight_contract.mqtt import Address, Connection
from tinysight_edge.console import console, finish

__all__ = ["Fleet", "watch"]

CONNECT_TIMEOUT_S: Final = 5.0
EVENTS_SHOWN: Final = 10


class Numbers:
    """A set of whole numbers, held as runs, so that it stays small however many there are."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, number: int) -> bool:
        """Take a number in; False if it is there already."""
        at = bisect_right(self._starts, number)
        if at and number <= self._ends[at - 1]:
            return False
        joins_left = bool(at) and self._ends[at - 1] == number - 1
        joins_right = at < len(self._starts) and self._starts[at] == number + 1
        if joins_left and joins_right:
            self._ends[at - 1] = self._ends.pop(at)
            del self._starts[at]
        elif joins_left:
            self._ends[at - 1] = number
        elif joins_right:
            self._starts[at] = number
        else:
            self._starts.insert(at, number)
            self._ends.insert(at, number)
        return True

    @property
    def gaps(self) -> int:
        """How many numbers between the least and the greatest are not there."""
        return sum(start - end - 1 for start, end in zip(self._starts[1:], self._ends, strict=False))


@dataclass
class _Device:
    status: Status | None = None
    info: Info | None = None
    health: Health | None = None
    cameras: dict[str, CameraStatus] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    heard: dict[str, Numbers] = field(default_factory=dict)


@dataclass
class Fleet:
    """What has been heard so far. No I/O.

    Attributes:
        events: how many events came, each counted once.
        repeated: events that came again; known by boot and seq.
        broken: messages that break the contract.
    """

    events: int = 0
    repeated: int = 0
    broken: int = 0
    recent: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS_SHOWN))
    devices: dict[tuple[str, str], _Device] = field(default_factory=dict)

    def hear(self, topic: str, payload: bytes) -> msgspec.Struct | None:
        """Take a message in; what it says, or None when it carries no JSON (a snapshot, a cleared topic).

        Raises:
            ContractError: it breaks the contract; it has been counted.
        """
        try:
            where = t.parse(topic)
            if not payload or (kind := PAYLOADS.get(type(where))) is None:
                return None
            message = decode(payload, kind)
        except ContractError:
            self.broken += 1
            raise
        self._note(where, message)
        return message

    @property
    def missing(self) -> int:
        """Events that are known to exist and did not come: the gaps in each boot's numbers since the first heard."""
        return sum(numbers.gaps for device in self.devices.values() for numbers in device.heard.values())

    def _note(self, where: t.Topic, message: msgspec.Struct) -> None:
        device = self.devices.setdefault((where.site, where.device), _Device())
        if isinstance(message, Status):
            device.status = message
        elif isinstance(message, Info):
            device.info = message
        elif isinstance(message, Health):
            device.health = message
        elif isinstance(message, CameraStatus) and isinstance(where, t.CameraStatusTopic):
            device.cameras[where.camera] = message
        elif isinstance(message, Counts) and isinstance(where, t.CountsTopic):
            device.counts[where.camera] = message
        elif isinstance(message, Event):
            if not device.heard.setdefault(message.boot_id, Numbers()).add(message.seq):
                self.repeated += 1
                return
            self.events += 1
            self.recent.append(message)


def watch(
    *,
    broker: Annotated[
        str, typer.Option(envvar="TINYSIGHT_BROKER", help="mqtt://[user:password@]host[:port]; also mqtts, ws, wss.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print each message as a line; end with a summary.")] = False,
    seconds: Annotated[float, typer.Option(help="End after this long; 0 goes on until Ctrl-C.", min=0)] = 0,
) -> None:
    """Watch devices, cameras and events of a broker, live."""
    fleet = Fleet()
    heard: queue.SimpleQueue[tuple[str, bytes, bool] | None] = queue.SimpleQueue()
    ended = threading.Event()

    def end(_number: int, _frame: object) -> None:
        ended.set()
        heard.put(None)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    address = Address.parse(broker)
    until_s = time.monotonic() + seconds if seconds else float("inf")
    first = True
    while not ended.is_set() and time.monotonic() < until_s:
        connection = Connection(address, client_id="", on_message=lambda *message: heard.put(message))
        try:
            connection.open(timeout_s=CONNECT_TIMEOUT_S)
        except BrokerError as error:
            if first:
                raise
            console.print(f"{error.what} Trying again.")
            ended.wait(2.0)
            continue
        first = False
        connection.subscribe(f"{t.ROOT}/#")
        if as_json:
            console.print(f"Watching {address}.")
            _print_lines(fleet, heard, connection, until_s)
        else:
            _show_table(fleet, heard, connection, until_s, address)
        connection.close()
    finish(
        {
            "devices": len(fleet.devices),
            "events": fleet.events,
            "missing": fleet.missing,
            "repeated": fleet.repeated,
            "broken": fleet.broken,
        },
        as_json=as_json,
    )


Heard = queue.SimpleQueue[tuple[str, bytes, bool] | None]


def _next(heard: Heard, until_s: float) -> tuple[bool, tuple[str, bytes, bool] | None]:
    """Whether to go on, and the next message if one came within a quarter second."""
    if time.monotonic() >= until_s:
        return False, None
    try:
        message = heard.get(timeout=0.25)
    except queue.Empty:
        return True, None
    return message is not None, message


def _print_lines(fleet: Fleet, heard: Heard, connection: Connection, until_s: float) -> None:
    going = True
    while going and connection.alive:
        going, message = _next(heard, until_s)
        if message is None:
            continue
        topic, payload, retained = message
        line: dict[str, Any] = {"topic": topic, "retained": retained}
        try:
            line["message"] = fleet.hear(topic, payload)
        except ContractError as error:
            line["broken"] = error.what
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()


def _show_table(fleet: Fleet, heard: Heard, connection: Connection, until_s: float, address: Address) -> None:
    going = True
    with Live(_picture(fleet, address), refresh_per_second=4, screen=False) as live:
        while going and connection.alive:
            going, message = _next(heard, until_s)
            if message is not None:
                try:
                    fleet.hear(message[0], message[1])
                except ContractError as error:
                    live.console.print(_safe(f"{message[0]}: {error.what}"))
            if message is None or heard.empty():
                live.update(_picture(fleet, address))
    sys.stdout.write("\n")


def _safe(text: str) -> str:
    """Text from outside, with nothing in it that would colour or move the terminal."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


def _clock(at: datetime) -> str:
    try:
        return at.astimezone().strftime("%H:%M:%S")
    except (OverflowError, ValueError):  # the year 1 or 9999, in another time zone
        return "?"


def _picture(fleet: Fleet, address: Address) -> Group:
    devices = Table(title=f"Devices at {address}", title_justify="left", expand=True)
    for name in ("device", "state", "model", "runtime", "fps", "frame age p95", "waiting"):
        devices.add_column(name, no_wrap=True)
    cameras = Table(title="Cameras", title_justify="left", expand=True)
    for name in ("camera", "state", "present now"):
        cameras.add_column(name)
    for (site, name), device in sorted(fleet.devices.items()):
        info, health = device.info, device.health
        flows = health.cameras.values() if health else []
        devices.add_row(
            f"{site}/{name}",
            {"online": "[green]online[/]", "offline": "[red]offline[/]"}[device.status.state] if device.status else "?",
            _safe(f"{info.bundle.name} {info.bundle.version} {info.bundle.scheme}") if info else "?",
            _safe(f"{info.runtime.get('name', '?')} {info.runtime.get('version', '')}") if info else "?",
            f"{sum(flow.fps for flow in flows):.1f}" if health else "",
            f"{max((flow.frame_age_ms.p95 for flow in flows), default=0.0):.1f} ms" if health else "",
            str(health.outbox.depth) if health else "",
        )
        for camera, state in sorted(device.cameras.items()):
            present = device.counts[camera].objects if camera in device.counts else {}
            shown = "  ".join(f"{label}:{count}" for label, count in present.items() if count)
            cameras.add_row(f"{site}/{name}/{camera}", state.state, _safe(shown) or "nothing")
    events = Table(title=f"Events: {fleet.events}, {fleet.missing} missing", title_justify="left", expand=True)
    for column in ("time", "camera", "what", "label", "score", "age", "seq"):
        events.add_column(column)
    for event in reversed(fleet.recent):
        events.add_row(
            _clock(event.seen_at),
            f"{event.device}/{event.camera}",
            {"start": "[green]start[/]", "update": "update", "end": "[dim]end[/]"}[event.type],
            _safe(event.label),
            f"{event.score:.2f}",
            f"{event.track.age_s:.1f} s",
            str(event.seq),
        )
    return Group(devices, cameras, events)
