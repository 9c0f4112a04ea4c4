"""``tinysight watch``: what the devices of a broker are and see, in the terminal.

In: what a `Client` hears.  Out: a live table, or each message as a line of JSON, and a summary that says how many
events are missing. Reads with tolerance: a message that breaks the contract is counted and shown, never fatal.
"""

import asyncio
import signal
import sys
import time
from collections import deque
from collections.abc import Collection
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.live import Live

from tinysight_contract import topics as t
from tinysight_contract.client import Client, Stream, connect
from tinysight_contract.errors import ConfigError
from tinysight_contract.fleet import Fleet, Heard
from tinysight_contract.messages import Event, EventType, utc_now
from tinysight_contract.mqtt import Address
from tinysight_deploy.watching.table import EVENTS_SHOWN, picture, safe
from tinysight_edge.console import console, finish
from tinysight_edge.simulate.tape import TapeWriter

__all__ = ["Filter", "watch"]

LOOK_EVERY_S: Final = 0.25
SESSION_S: Final = 3600
TYPES: Final = {kind.__name__.removesuffix("Topic").lower(): kind for kind in t.TOPICS}


class Filter:
    """What is to be shown. What a message does not have, such as a camera or a label, does not fit.

    Args:
        camera: None for all.
        label: None for all.
        types: of messages (``status``, ``event``, ``alert`` …) and of events (``start``, ``update``, ``end``).

    Raises:
        ConfigError: there is no such type.
    """

    def __init__(self, *, camera: str | None = None, label: str | None = None, types: Collection[str] = ()) -> None:
        known = [*TYPES, *EventType]
        if unknown := [each for each in types if each not in known]:
            raise ConfigError(f"{unknown[0]!r} is no type of message.", mend=f"Known: {', '.join(known)}.")
        self._camera, self._label, self._types = camera, label, frozenset(types)

    def fits(self, heard: Heard) -> bool:
        """Whether a message is to be shown; what breaks the contract is, if nothing is asked for."""
        event = heard.message if isinstance(heard.message, Event) else None
        if self._camera is not None and getattr(heard.where, "camera", None) != self._camera:
            return False
        if self._label is not None and (event is None or event.label != self._label):
            return False
        return (
            not self._types
            or (heard.where is not None and any(isinstance(heard.where, TYPES[n]) for n in self._types & TYPES.keys()))
            or (event is not None and event.type in self._types)
        )


def watch(
    *,
    broker: Annotated[
        str, typer.Option(envvar="TINYSIGHT_BROKER", help="mqtt://[user:password@]host[:port]; also mqtts, ws, wss.")
    ],
    site: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    device: Annotated[str | None, typer.Option(help="Only devices of this name.")] = None,
    camera: Annotated[str | None, typer.Option(help="Show only what is of cameras of this name.")] = None,
    label: Annotated[str | None, typer.Option(help="Show only events of this label.")] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Show only: start, update, end, event, counts, alert, … (again).")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write all that is heard to this file (.gz compresses), for simulate --replay.")
    ] = None,
    session: Annotated[
        str, typer.Option(help="A client id of its own: while cut off, the broker keeps events under it for an hour.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print each message as a line; end with a summary.")] = False,
    seconds: Annotated[float, typer.Option(help="End after this long; 0 goes on until Ctrl-C.", min=0)] = 0,
) -> None:
    """Watch devices, cameras and events of a broker, live. Ends by saying how many events are missing."""
    address, wanted = Address.parse(broker), Filter(camera=camera, label=label, types=types or ())

    async def run() -> dict[str, int]:
        async with connect(
            broker,
            site=site,
            device=device,
            kinds=t.TOPICS,
            client_id=session,
            session_s=SESSION_S if session else 0,
        ) as client:
            messages = client.messages()
            with TapeWriter(record, begun_at=utc_now()) if record is not None else nullcontext() as tape:
                show = _Lines(address) if as_json else _Table(client.fleet, address)
                with show:
                    await _watch(client, messages, show, wanted, tape, seconds=seconds)
            return _summary(client)

    finish(asyncio.run(run()), as_json=as_json)


def _summary(client: Client) -> dict[str, int]:
    """What a run ends with."""
    fleet = client.fleet
    return {
        "devices": len(fleet.devices),
        "events": fleet.events,
        "missing": fleet.missing,
        "awaited": fleet.awaited,
        "given_up": fleet.given_up,
        "replayed": fleet.replayed,
        "repeated": fleet.repeated,
        "broken": fleet.broken,
        "alerts": sum(len(device.alerts) for device in fleet.devices.values()),
        "cuts": client.cuts,
    }


class _Lines:
    """Each message as a line of JSON."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def __enter__(self) -> "_Lines":
        console.print(f"Watching {self._address}.")
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()

    def message(self, heard: Heard) -> None:
        line: dict[str, Any] = {"topic": heard.topic, "retained": heard.retained}
        if heard.broken is not None:
            line["broken"] = heard.broken
        else:
            line["message"] = heard.message
        if heard.repeated:
            line["repeated"] = True
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")

    def pause(self) -> None:
        sys.stdout.flush()

    def say(self, text: str) -> None:
        console.print(safe(text))


class _Table:
    """The live table."""

    def __init__(self, fleet: Fleet, address: Address) -> None:
        self._fleet, self._address = fleet, address
        self._recent: deque[Event] = deque(maxlen=EVENTS_SHOWN)
        self._drawn_s = 0.0
        self._live = Live(picture(fleet, address, ()), refresh_per_second=4, screen=False)

    def __enter__(self) -> "_Table":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.update(picture(self._fleet, self._address, self._recent))
        self._live.stop()
        sys.stdout.write("\n")

    def message(self, heard: Heard) -> None:
        if heard.broken is not None:
            self._live.console.print(safe(f"{heard.topic}: {heard.broken}"))
        elif isinstance(heard.message, Event) and not heard.repeated:
            self._recent.append(heard.message)
        if time.monotonic() - self._drawn_s >= LOOK_EVERY_S:
            self.pause()

    def pause(self) -> None:
        if time.monotonic() - self._drawn_s >= LOOK_EVERY_S:
            self._drawn_s = time.monotonic()
            self._live.update(picture(self._fleet, self._address, self._recent))

    def say(self, text: str) -> None:
        self._live.console.print(safe(text))


async def _watch(
    client: Client,
    messages: Stream[Heard],
    show: _Lines | _Table,
    wanted: Filter,
    tape: TapeWriter | None,
    *,
    seconds: float,
) -> None:
    """Show and write what is heard until time is over or a signal comes."""
    loop, begun_s = asyncio.get_running_loop(), time.monotonic()

    def take(heard: Heard) -> None:
        if tape is not None:
            tape.write(heard, at_s=time.monotonic() - begun_s)
        if wanted.fits(heard):
            show.message(heard)

    async def listen() -> None:
        async for heard in messages:
            take(heard)
            if not len(messages):
                show.pause()

    async def look() -> None:
        said = None
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if ((trouble := client.trouble) is None) != (said is None):
                show.say("Connected again." if trouble is None else f"{trouble.what} Trying again.")
            said = trouble
            show.pause()
            if tape is not None:
                tape.flush()

    tasks = [asyncio.create_task(each()) for each in (listen, look)]
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, tasks[0].cancel)
    await asyncio.wait(tasks, timeout=seconds or None, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
    while len(messages):
        take(await anext(messages))
