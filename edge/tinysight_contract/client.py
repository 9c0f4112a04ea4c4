"""Read and command devices from Python: a small asyncio client for people who write dashboards.

::

    async for event in subscribe("mqtt://broker", site="plant-1", label="person"):
        print(event.camera, event.type, event.score)

    async with connect("mqtt://broker") as client:
        async for event in client.subscribe(camera="cam0"):
            print(event.label, client.fleet.missing)
        await client.command("plant-1", "belt-7", "snapshot", {"camera": "cam0"})

In: a broker's address.  Out: `Event`s, each once; every message as `Heard`; the `Fleet` as it is now; answers to
commands. After the first connect an outage never ends it: it goes on trying, and what the reader missed is counted in
``client.fleet.missing``. Knows nothing of cameras and pictures; needs the contract and paho.

Nothing is dropped here: who reads slowly makes the network thread wait, and with it the broker, which keeps what has
not been acknowledged (Mosquitto: ``max_queued_messages``, 1000 unless told otherwise; what it drops shows as missing).
One that takes nothing at all for half a minute is cut off by the broker and connects again.
"""

import asyncio
import secrets
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final, Generic, Self, TypeVar

from tinysight_contract import topics as t
from tinysight_contract.errors import BrokerError, DeviceError
from tinysight_contract.fleet import MAX_DEVICES, Fleet, Heard
from tinysight_contract.line import Line
from tinysight_contract.messages import Ack, Command, Desired, Event, encode, utc_now
from tinysight_contract.mqtt import Address

__all__ = ["Client", "Stream", "connect", "subscribe"]

MAX_WAITING: Final = 1000
UNLESS_ASKED: Final = frozenset({t.FrameTopic, t.SnapshotTopic})
T_co = TypeVar("T_co", covariant=True)


@asynccontextmanager
async def connect(
    url: str,
    *,
    site: str | None = None,
    device: str | None = None,
    kinds: Collection[type[t.Topic]] | None = None,
    client_id: str = "",
    session_s: int = 0,
    qos: int = 1,
    max_devices: int = MAX_DEVICES,
) -> AsyncIterator["Client"]:
    """A connected client, for as long as the ``async with`` lasts.

    Args:
        url: ``mqtt://[user:password@]host[:port]``; also mqtts, ws and wss.
        site: hear of this site alone.
        device: hear of devices of this name alone.
        kinds: of topics to hear; None is all but frames and snapshots. Answers to commands are always heard.
        client_id: at the broker; it names one there if this is empty.
        session_s: how long the broker keeps QoS 1 messages for a reader that is cut off, in seconds. Needs a
            ``client_id``; with 0 what is published meanwhile is missing.
        qos: with 0 a broker sends all that it keeps as fast as it is read; with 1 many keep no more than some
            thousand messages for a reader, and drop the rest without a word.
        max_devices: as `Fleet` takes it; what is beyond is counted in ``client.fleet.unkept``.

    Raises:
        ConfigError: the address cannot be read.
        ContractError: the site or the device is not a valid id.
        BrokerError: nobody is there, or the broker refuses us.
    """
    wanted = {*(set(t.TOPICS) - UNLESS_ASKED if kinds is None else kinds), t.AckTopic}
    filters = [kind.filter(site=site, device=device) for kind in t.TOPICS if kind in wanted]
    line = Line(Address.parse(url), filters, client_id=client_id, session_s=session_s, qos=qos)
    client = Client(line, max_devices=max_devices)
    async with client:
        yield client


async def subscribe(
    url: str,
    *,
    site: str | None = None,
    device: str | None = None,
    camera: str | None = None,
    label: str | None = None,
) -> AsyncIterator[Event]:
    """Every event that fits, each once, for ever; arguments and errors as those of `connect`."""
    async with connect(url, site=site, device=device) as client:
        async for event in client.subscribe(camera=camera, label=label):
            yield event


class Stream(Generic[T_co]):
    """Messages that wait to be taken: ``async for`` takes one after another. ``len()`` says how many wait.

    What is not taken holds all else back, so stop reading by leaving the loop and dropping the stream.
    """

    def __init__(self, want: Callable[[Heard], T_co | None], taken: Callable[[], None]) -> None:
        self._want, self._taken = want, taken
        self._items: deque[T_co] = deque()
        self._ready = asyncio.Event()
        self._end: BaseException | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        while not self._items:
            if self._end is not None:
                raise self._end
            self._ready.clear()
            await self._ready.wait()
        if len(self._items) == MAX_WAITING:
            self._taken()
        return self._items.popleft()

    def _offer(self, heard: Heard) -> None:
        if (item := self._want(heard)) is not None:
            self._items.append(item)
            self._ready.set()

    def _stop(self, end: BaseException) -> None:
        self._end = end
        self._ready.set()


class Client:
    """One reader. Made by `connect`; all of it belongs to one event loop.

    Attributes:
        fleet: all that was heard, as it is now.
    """

    def __init__(self, line: Line, *, max_devices: int = MAX_DEVICES) -> None:
        self.fleet = Fleet(max_devices=max_devices)
        self._line = line
        self._streams: weakref.WeakSet[Stream[Any]] = weakref.WeakSet()
        self._room = asyncio.Event()
        self._answers: dict[tuple[str, str, str], asyncio.Future[Ack]] = {}

    async def __aenter__(self) -> Self:
        await self._line.open()
        self._pump = asyncio.create_task(self._hear())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pump.cancel()
        with suppress(asyncio.CancelledError):
            await self._pump
        await self._line.close()
        self._end(StopAsyncIteration())

    @property
    def trouble(self) -> BrokerError | None:
        """Why there is no session now; None while there is one."""
        return self._line.trouble

    @property
    def cuts(self) -> int:
        """How often the session was lost."""
        return self._line.cuts

    def messages(self) -> Stream[Heard]:
        """Everything heard from now on, also what breaks the contract and what came before."""
        return self._stream(lambda heard: heard)

    def subscribe(
        self, *, site: str | None = None, device: str | None = None, camera: str | None = None, label: str | None = None
    ) -> Stream[Event]:
        """The events from now on that fit, each once.

        Camera and label are picked out here, not at the broker: ``seq`` runs over all cameras of a device, and without
        the others' nothing could be said of what is missing.
        """
        want = {"site": site, "device": device, "camera": camera, "label": label}
        asked = [(name, value) for name, value in want.items() if value is not None]

        def fits(heard: Heard) -> Event | None:
            event = heard.message
            if not isinstance(event, Event) or heard.repeated:
                return None
            return event if all(getattr(event, name) == value for name, value in asked) else None

        return self._stream(fits)

    async def publish(self, topic: t.Topic, message: Command | Desired | None, *, within_s: float = 10.0) -> None:
        """Publish, and return when the broker has it; None clears a retained topic.

        It is sent again if the session is lost meanwhile.

        Raises:
            BrokerError: the broker refuses it, or has not taken it ``within_s`` seconds.
        """
        letter = self._line.post(topic, b"" if message is None else encode(message))
        self._hurry(on=True)  # who reads slowly waits for this, so what comes before the answer is read
        try:
            async with asyncio.timeout(within_s):
                await letter.taken
        except TimeoutError:
            raise self.trouble or BrokerError(
                f"The broker has not taken {topic} within {within_s:g} s.", mend="Check the network and try again."
            ) from None
        finally:
            self._hurry(on=False)

    async def desire(self, site: str, device: str, desired: Desired | None, *, within_s: float = 10.0) -> None:
        """Say what is wanted of a device, None to want nothing; ``fleet`` shows what it reports.

        Raises:
            BrokerError: as `publish`.
        """
        await self.publish(t.DesiredTopic(site, device), desired, within_s=within_s)

    async def command(
        self, site: str, device: str, name: str, args: dict[str, Any] | None = None, *, within_s: float = 10.0
    ) -> Ack:
        """Have a device do something once, and return its answer.

        Args:
            site: its site.
            device: its id.
            name: of the command.
            args: of the command.
            within_s: after so many seconds it must not do it any more.

        Raises:
            DeviceError: it refuses, fails, or has not answered in time.
            BrokerError: the broker has not taken the command.
        """
        order = Command(
            id=secrets.token_hex(8), expires_at=utc_now() + timedelta(seconds=within_s), args=args or {}
        )  # fmt: skip
        key = site, device, order.id
        answer = self._answers[key] = asyncio.get_running_loop().create_future()
        self._hurry(on=True)
        try:
            async with asyncio.timeout(within_s):
                await self.publish(t.CommandTopic(site, device, name), order, within_s=within_s)
                ack: Ack = await answer
        except TimeoutError:
            raise DeviceError(
                f"{site}/{device} has not answered {name} within {within_s:g} s.{self._whereabouts(site, device)}",
                mend="See with `tinysight watch` whether it is online, and that its release knows the command.",
            ) from None
        finally:
            del self._answers[key]
            self._hurry(on=False)
        if not ack.ok:
            raise DeviceError(
                f"{site}/{device} does not {name}: {(ack.error or 'it does not say why').rstrip('.')}.",
                mend="Correct the command, or what the answer says.",
            )
        return ack

    def _hurry(self, *, on: bool) -> None:
        """Let nothing that waits to be taken hold up an answer."""
        self._line.hurry(on=on)
        self._room.set()

    def _whereabouts(self, site: str, device: str) -> str:
        known = self.fleet.devices.get((site, device))
        if known is None:
            return " Nothing was ever heard of it."
        return f" It is offline: {known.status.reason}." if known.online is False and known.status else ""

    def _stream(self, want: Callable[[Heard], T_co | None]) -> Stream[T_co]:
        stream = Stream(want, self._room.set)
        self._streams.add(stream)
        # Who breaks out of a loop drops its stream; what waited for room in it must know.
        weakref.finalize(stream, _tell, asyncio.get_running_loop(), self._room.set).atexit = False
        return stream

    async def _hear(self) -> None:
        """Take in what comes, and hand it on; wait while nobody takes it."""
        try:
            while True:
                for topic, payload, retained in await self._line.take():
                    heard = self.fleet.hear(topic, payload, retained=retained)
                    if isinstance(heard.message, Ack) and heard.where is not None:
                        answer = self._answers.get((heard.where.site, heard.where.device, heard.message.id))
                        if answer is not None and not answer.done():
                            answer.set_result(heard.message)
                    self._offer(heard)
                    while not self._line.hurried and any(len(each) >= MAX_WAITING for each in self._streams):
                        self._room.clear()
                        await self._room.wait()
        except Exception as error:
            self._end(error)
            raise

    def _offer(self, heard: Heard) -> None:
        for stream in self._streams:
            stream._offer(heard)

    def _end(self, end: BaseException) -> None:
        for stream in self._streams:
            stream._stop(end)


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    """Have the loop do something, unless it has ended; from any thread."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(what)
