"""A line to a broker that is made again whenever it breaks, served by one thread, for the event loop of a reader.

In: filters, and what is to be published.  Out: messages in the order they came, and word when the broker has taken what
was published. The first connect is waited for and may fail; after that an outage is only told (`trouble`).

Bounded: when a thousand messages wait to be taken, the socket is not read until there is room. So it is the broker that
waits, and nothing is lost here.
"""

import asyncio
import logging
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tinysight_contract.errors import BrokerError, ConfigError
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.topics import Topic

__all__ = ["Letter", "Line"]

log = logging.getLogger(__name__)

Message = tuple[str, bytes, bool]
ANSWER_S: Final = 5.0
CARE_EVERY_S: Final = 1.0
MAX_WAITING: Final = 1000
READS_AT_ONCE: Final = 100
STABLE_S: Final = 1.0  # after a session that lasted so long, the next is tried at once
RETRY_S: Final = (0.1, 5.0)
RETRY_SHARE: Final = 0.1  # of the time since the line broke


@dataclass(frozen=True, slots=True, eq=False)
class Letter:
    """What is to be published; ``taken`` is done when the broker has it."""

    topic: Topic
    payload: bytes
    taken: asyncio.Future[None]


class Line:
    """Belongs to the event loop that opens it.

    Args:
        address: of the broker.
        filters: what to subscribe to.
        client_id: at the broker; empty to be named by it.
        session_s: how long the broker keeps what comes while the line is broken.
        qos: of what is heard, 0 or 1.

    Attributes:
        trouble: why there is no session; None while there is one.
        cuts: how often a session was lost.

    Raises:
        ConfigError: a session is to be kept and has no name.
    """

    def __init__(
        self, address: Address, filters: list[str], *, client_id: str = "", session_s: int = 0, qos: int = 1
    ) -> None:
        if session_s and not client_id:
            raise ConfigError("A session that is kept needs a client id.", mend="Name one that no other client uses.")
        self.trouble: BrokerError | None = None
        self.cuts = 0
        self._address, self._filters, self._client_id, self._session_s = address, filters, client_id, session_s
        self._qos = qos
        self._inbox: deque[Message] = deque()
        self._outbox: deque[Letter] = deque()
        self._unacknowledged: dict[int, Letter] = {}
        self._ready, self._told = asyncio.Event(), False
        self._hurried = 0
        self._heard = 0
        self._up = self._listening = self._ever_listened = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)

    async def open(self) -> None:
        """Connect, subscribe, begin.

        Raises:
            BrokerError: nobody is there, or the broker refuses us.
        """
        self._loop = asyncio.get_running_loop()
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._first: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()
        try:
            await self._first
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect and end the thread."""
        self._closed.set()
        self._ring()
        await asyncio.to_thread(self._thread.join, CARE_EVERY_S)  # one that is just dialling ends by itself

    async def take(self) -> list[Message]:
        """What has come; waits until something has."""
        await self._ready.wait()
        self._ready.clear()
        self._told = False
        full = len(self._inbox) >= MAX_WAITING
        taken: list[Message] = []
        with suppress(IndexError):
            while True:
                taken.append(self._inbox.popleft())
        if full:
            self._ring()
        return taken

    def post(self, topic: Topic, payload: bytes) -> Letter:
        """Publish, now or as soon as there is a session, and again in the next one if this one ends too early."""
        letter = Letter(topic, payload, self._loop.create_future())
        self._outbox.append(letter)
        self._ring()
        return letter

    def hurry(self, *, on: bool) -> None:
        """Read on however much waits, because something is waited for; to be taken back by ``on=False``."""
        self._hurried += 1 if on else -1
        self._ring()

    @property
    def hurried(self) -> bool:
        """Whether something is waited for."""
        return self._hurried > 0

    @property
    def _closing(self) -> bool:
        return self._closed.is_set()

    def _ring(self) -> None:
        with suppress(OSError):  # it rings already, or the line is closed
            self._bell.send(b"!")

    # Everything below runs in the thread.

    def _run(self) -> None:
        with self._bell, self._ear:
            self._live()

    def _live(self) -> None:
        broken_s = time.monotonic()
        while not self._closing:
            begun_s, self._up = time.monotonic(), False
            try:
                self._talk()
            except BrokerError as error:
                self.trouble = error
            except Exception as error:
                log.debug("line", exc_info=True)
                what = f"{self._address} says what is no MQTT: {error!r}."
                self.trouble = BrokerError(what, mend="Check what listens there.")
            self.cuts += self._up
            if self.trouble is not None and not self._ever_listened:
                self._call(self._fail, self.trouble)
                return
            now_s = time.monotonic()
            if self._up and now_s - begun_s >= STABLE_S:
                broken_s = now_s
            else:
                longest_s = min(max((now_s - broken_s) * RETRY_SHARE, RETRY_S[0]), RETRY_S[1])
                self._closed.wait(longest_s * random.uniform(0.5, 1.0))  # noqa: S311 -- jitter, not a secret

    def _talk(self) -> None:
        """One session.

        Raises:
            BrokerError: why it did not begin, or ended.
        """
        connection = Connection(
            self._address,
            client_id=self._client_id,
            on_message=self._on_message,
            on_ack=self._on_ack,
            session_s=self._session_s,
        )
        try:
            connection.dial(timeout_s=ANSWER_S)
            with selectors.DefaultSelector() as selector:
                selector.register(self._ear, selectors.EVENT_READ)
                self._serve(connection, selector)
        finally:
            if self._closing:
                connection.close()
            else:
                connection.abandon()

    def _serve(self, connection: Connection, selector: selectors.BaseSelector) -> None:
        if connection.fileno() < 0:
            raise connection.unanswered()
        file, until_s, care_s = connection.fileno(), time.monotonic() + ANSWER_S, 0.0
        while not self._closing:
            reads = 0 if self._full else selectors.EVENT_READ
            writes = selectors.EVENT_WRITE if connection.wants_to_write else 0
            _watch(selector, file, reads | writes)
            for key, mask in selector.select(CARE_EVERY_S):
                if key.fileobj is self._ear:
                    self._ear.recv(4096)
                elif mask & selectors.EVENT_READ:
                    self._read(connection)
                else:
                    connection.serve(readable=False)
            now_s = time.monotonic()
            if now_s >= care_s:
                care_s = now_s + CARE_EVERY_S
                connection.serve(readable=False)
            if connection.refusal is not None:
                raise connection.refusal
            if connection.fileno() != file:
                raise BrokerError(f"{self._address} has gone: {connection.ended}.", mend="See that the broker runs.")
            if connection.alive:
                self._send(connection)
            if now_s >= until_s and not (connection.alive and self._listening):
                raise connection.unanswered()

    def _read(self, connection: Connection) -> None:
        """Take in what has come, until there is no more or no room."""
        fruitless = 0
        for _ in range(READS_AT_ONCE):
            before = self._heard
            connection.serve(readable=True)
            fruitless = 0 if self._heard > before else fruitless + 1
            if fruitless == 2 or self._full or connection.fileno() < 0:  # the first may have been an acknowledgement
                break
        if self._inbox and not self._told:
            self._told = True
            self._call(self._ready.set)

    def _send(self, connection: Connection) -> None:
        if not self._up:
            self._up = True
            self.trouble = None
            connection.subscribe(*self._filters, qos=self._qos)
            self._outbox.extendleft(reversed(self._unacknowledged.values()))
            self._unacknowledged.clear()
            self._listening = False
        if not self._listening and connection.subscribed:
            if connection.denied:
                raise BrokerError(
                    f"{self._address} refuses to tell anything: {connection.denied[0]}.",
                    mend="Give this user the right to read, in the broker's access list.",
                )
            self._listening = self._ever_listened = True
            self._call(self._succeed)
        while self._outbox:
            letter = self._outbox.popleft()
            topic = letter.topic
            if not letter.taken.done():
                number = connection.publish(str(topic), letter.payload, qos=topic.QOS, retain=topic.RETAIN)
                self._unacknowledged[number] = letter

    @property
    def _full(self) -> bool:
        return len(self._inbox) >= MAX_WAITING and not self.hurried

    def _on_message(self, topic: str, payload: bytes, retained: bool) -> None:
        self._heard += 1
        self._inbox.append((topic, payload, retained))

    def _on_ack(self, number: int, refusal: str | None, _final: bool) -> None:
        if (letter := self._unacknowledged.pop(number, None)) is not None:
            self._call(_settle, letter, refusal)

    def _call(self, what: Callable[..., None], *values: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(what, *values)

    # And these in the loop again.

    def _succeed(self) -> None:
        if not self._first.done():
            self._first.set_result(None)

    def _fail(self, error: BrokerError) -> None:
        if not self._first.done():
            self._first.set_exception(error)


def _watch(selector: selectors.BaseSelector, file: int, events: int) -> None:
    """Wait for these events of a file; for none, when there are none."""
    watched = selector.get_map().get(file)
    if watched is None and events:
        selector.register(file, events)
    elif watched is not None and not events:
        selector.unregister(file)
    elif watched is not None and watched.events != events:
        selector.modify(file, events)


def _settle(letter: Letter, refusal: str | None) -> None:
    if letter.taken.done():
        return
    if refusal is None:
        letter.taken.set_result(None)
    else:
        what = f"The broker refuses {letter.topic}: {refusal}."
        letter.taken.set_exception(BrokerError(what, mend="Check what this user may write there."))
