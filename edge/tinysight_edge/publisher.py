"""The publisher: one thread that keeps the broker told, whatever the network does.

In: events and state messages, never waiting.  Out: MQTT. Events go through the `Outbox` and are sent again until the
broker acknowledges them; of state (status, info, counts, camera status) only the newest of each topic matters, and it
is sent again at every connect. The inference loop is never blocked by the network or the disk.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from tinysight_contract.errors import BrokerError, ConfigError, DeviceError, TinySightError
from tinysight_contract.messages import Event, OutboxHealth, Status, decode, encode, utc_now
from tinysight_contract.mqtt import Address, Connection, Will
from tinysight_contract.topics import EventTopic, StatusTopic, Topic
from tinysight_edge.outbox import Outbox

__all__ = ["Publisher"]

log = logging.getLogger(__name__)

IN_FLIGHT: Final = 64
CONNECT_TIMEOUT_S: Final = 5.0
FIRST_TRY_S: Final = 15.0
STABLE_S: Final = 10.0  # a session that lasted so long was not refused by way of dropping us
RETRY_S: Final = (1.0, 60.0)
FIRST_REPORT_S: Final = 5.0
GOODBYE_S: Final = (0.3, 2.0)
TICK_S: Final = 0.1


class Publisher:
    """Sends what it is given, in its own thread.

    Args:
        address: gives the broker's address with its login, or raises `ConfigError`; asked at each connect, since a
            password may be another by then.
        outbox: where events wait.
        client_id: of this device at the broker.
        online: topic and message that say we are here; sent first at every connect.
        offline: what the broker shall say when we vanish.
        every_s: how often ``report`` is asked for a message; also 5 s after each connect, and at the end.
        report: makes the health message of what it is told of the outbox.
        published: told how old a frame is (ms) when its event is handed to the connection; not of events that waited.

    Attributes:
        sent: events that the broker has.
        away_since_s: since when there is no session (``time.monotonic()``); None while there is one.
        outbox_room: how many events can wait.
        every_s: as given; may be changed.
    """

    def __init__(
        self,
        address: Callable[[], Address],
        outbox: Outbox,
        *,
        client_id: str,
        online: tuple[StatusTopic, Status],
        offline: tuple[StatusTopic, Status],
        every_s: float,
        report: Callable[[OutboxHealth], tuple[Topic, Struct]],
        published: Callable[[float], None] = lambda _age_ms: None,
    ) -> None:
        self.sent = 0
        self.away_since_s: float | None = time.monotonic()
        self.outbox_room = outbox.max_events
        self._last_seq = 0
        self._address, self._outbox, self._client_id = address, outbox, client_id
        self.every_s = every_s
        self._online, self._offline, self._report = online, offline, report
        self._published = published
        self._given: deque[tuple[EventTopic, Event, float]] = deque()
        self._state: dict[Topic, bytes] = {}
        self._unsent: set[Topic] = set()
        self._acks: deque[tuple[int, str | None, bool]] = deque()
        self._wake, self._lock = threading.Event(), threading.Lock()
        self._closing = threading.Event()
        self._drain_until_s, self._reason = 0.0, ""
        self._first_try = threading.Event()
        self._first_error: BrokerError | None = None
        self._broken: TinySightError | None = None
        self._fresh: dict[int, float] = {}  # number of an event that has not waited, and when its frame was captured
        self._thread = threading.Thread(target=self._live, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def wait_first_connect(self, *, heed: Callable[[], None] = lambda: None) -> None:
        """Wait for the first attempt to connect.

        Args:
            heed: called a few times a second; what it raises ends the wait.

        Raises:
            BrokerError: it failed, or takes longer than 15 s. The publisher goes on trying.
        """
        until_s = time.monotonic() + FIRST_TRY_S
        while not self._first_try.wait(TICK_S):
            heed()
            if time.monotonic() >= until_s:
                what = f"{self._address()} does not answer in {FIRST_TRY_S:.0f} s."
                raise BrokerError(what, mend="Check the network.")
        heed()
        if self._first_error is not None:
            raise self._first_error

    def check(self) -> None:
        """See that events can still be kept; costs nothing.

        Raises:
            TinySightError: the outbox broke, so the publisher has ended.
        """
        if self._broken is not None:
            raise self._broken

    def event(self, topic: EventTopic, event: Event) -> None:
        """Give an event; never waits."""
        self._last_seq = event.seq
        self._given.append((topic, event, time.monotonic() - event.latency_ms.total / 1e3))
        self._wake.set()

    def state(self, topic: Topic, message: Struct | None) -> None:
        """Give the newest state of a topic, None to clear it; never waits."""
        payload = b"" if message is None else encode(message)
        with self._lock:
            self._state[topic] = payload
            self._unsent.add(topic)
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Events not yet acknowledged."""
        return len(self._outbox) + len(self._given)

    @property
    def trouble(self) -> TinySightError | None:
        """Why events cannot be written to disk, so that they wait in memory alone; None when they can."""
        return self._outbox.trouble

    def outbox_health(self) -> OutboxHealth:
        """How many events wait, how many were given up, and the last one's number."""
        return OutboxHealth(depth=self.waiting, discarded=dict(self._outbox.discarded), last_seq=self._last_seq)

    def close(self, *, drain_s: float, reason: str = "stopped") -> int:
        """Send what waits for up to ``drain_s``, say goodbye, end. How many events stay behind in the outbox.

        Args:
            drain_s: the goodbye takes 0.3 s more at most, whatever the broker does.
            reason: what the last status says.
        """
        self._reason = reason
        self._drain_until_s = time.monotonic() + drain_s
        self._closing.set()
        self._wake.set()
        self._thread.join(drain_s + 3 * CONNECT_TIMEOUT_S)
        return self.waiting

    # Everything below runs in the publisher's thread.

    def _live(self) -> None:
        wait_s = RETRY_S[0]
        try:
            while not self._over():
                try:
                    connection = self._connect()
                except BrokerError as error:
                    if not self._first_try.is_set():
                        self._first_error = error
                        self._first_try.set()
                    else:
                        log.warning("%s", error)
                else:
                    self._first_try.set()
                    begun_s = time.monotonic()
                    self.away_since_s = None
                    try:
                        self._talk(connection)
                    finally:
                        self.away_since_s = time.monotonic()
                        connection.abandon()
                    if time.monotonic() - begun_s >= STABLE_S:
                        wait_s = RETRY_S[0]
                self._pause(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 -- jitter, not a secret
                wait_s = min(wait_s * 2, RETRY_S[1])
            self._keep()
            self._outbox.close()
        except TinySightError as error:
            self._broken = error
        except Exception as error:
            log.debug("publisher", exc_info=True)
            self._broken = DeviceError(f"The publisher broke: {error!r}.", mend="Start again; report this as a bug.")
        finally:
            self._first_try.set()

    def _over(self) -> bool:
        return self._closing.is_set() and time.monotonic() >= self._drain_until_s

    def _tick(self) -> None:
        """Wait a moment, or until something is given; keep it."""
        self._wake.wait(TICK_S)
        self._wake.clear()
        self._keep()

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s and not self._over():
            self._tick()

    def _keep(self, *, fresh: bool = False) -> None:
        """Move given events into the outbox; what is kept while connected is fresh, the rest will be a replay."""
        while self._given:
            topic, event, captured_s = self._given[0]
            number = self._outbox.put(str(topic), event)
            self._given.popleft()
            if fresh:
                self._fresh[number] = captured_s
        self._outbox.commit()

    def _connect(self) -> Connection:
        """Open a session in a thread of its own, so that events are kept on disk meanwhile."""
        topic, gone = self._offline
        self._acks.clear()
        try:
            address = self._address()
        except ConfigError as error:
            raise BrokerError(error.what, mend=error.mend) from error
        connection = Connection(
            address,
            client_id=self._client_id,
            will=Will(str(topic), encode(replace(gone, at=utc_now()))),
            on_ack=self._on_ack,
        )
        failed: list[BrokerError] = []

        def open_it() -> None:
            try:
                connection.open(timeout_s=CONNECT_TIMEOUT_S)
            except BrokerError as error:
                failed.append(error)
            self._wake.set()

        opening = threading.Thread(target=open_it, name="connect", daemon=True)
        opening.start()
        while opening.is_alive():
            self._tick()
            if self._over():  # a broker that says nothing must not keep us
                connection.abandon()
                opening.join(TICK_S)
                raise BrokerError(f"{address} does not answer.", mend="Check the network.")
        if failed:
            raise failed[0]
        log.info("connected to %s", address)
        with self._lock:
            self._unsent = set(self._state)
        here, status = self._online
        connection.publish(str(here), encode(replace(status, at=utc_now())), qos=here.QOS, retain=True)
        return connection

    def _on_ack(self, message: int, refusal: str | None, final: bool) -> None:
        """Note it; wake the thread only when it may be waiting for that, else the next event or tick finds it."""
        self._acks.append((message, refusal, final))
        if len(self._acks) >= IN_FLIGHT // 2 or refusal is not None or self._closing.is_set():
            self._wake.set()

    def _talk(self, connection: Connection) -> None:
        """Send until the session is lost or all is said."""
        self._fresh.clear()
        in_flight: dict[int, int] = {}
        sent_up_to, next_report_s = 0, time.monotonic() + min(FIRST_REPORT_S, self.every_s)
        while connection.alive:
            self._wake.wait(TICK_S)
            self._wake.clear()
            self._keep(fresh=True)
            if not self._settle(in_flight):
                return
            self._send_state(connection)
            sent_up_to = self._send_events(connection, in_flight, sent_up_to)
            if time.monotonic() >= next_report_s:
                next_report_s = time.monotonic() + self.every_s
                self.state(*self._report(self.outbox_health()))
            if self._closing.is_set() and ((not self.waiting and not self._unsent) or self._over()):
                self._say_goodbye(connection)
                self._drain_until_s = 0.0
                return
        log.warning("connection to %s lost, %d events wait", connection.address, self.waiting)

    def _settle(self, in_flight: dict[int, int]) -> bool:
        """Forget what the broker has. False when it refuses for now, so that another session is to be tried later."""
        while self._acks:
            message, refusal, final = self._acks.popleft()
            number = in_flight.pop(message, None)
            if number is None:
                continue
            if refusal is not None:
                log.error("the broker refused an event: %s", refusal)
                if not final:
                    return False
                self._outbox.discarded["refused"] += 1
            else:
                self.sent += 1
            self._outbox.done(number)
            self._fresh.pop(number, None)
        return True

    def _send_state(self, connection: Connection) -> None:
        with self._lock:
            due = [(topic, self._state[topic]) for topic in self._unsent]
            self._unsent.clear()
        for topic, payload in due:
            connection.publish(str(topic), payload, qos=topic.QOS, retain=topic.RETAIN)

    def _send_events(self, connection: Connection, in_flight: dict[int, int], sent_up_to: int) -> int:
        """Fill the window; the number of the last event sent."""
        if len(in_flight) >= IN_FLIGHT or not len(self._outbox):
            return sent_up_to
        for number, topic, payload in self._outbox.after(sent_up_to, IN_FLIGHT - len(in_flight)):
            if (captured_s := self._fresh.get(number)) is not None:
                self._published((time.monotonic() - captured_s) * 1e3)
            else:
                payload = encode(replace(decode(payload, Event), replayed=True))  # noqa: PLW2901 -- the same, told late
            message = connection.publish(topic, payload, qos=EventTopic.QOS, retain=False)
            in_flight[message] = number
            sent_up_to = number
        return sent_up_to

    def _say_goodbye(self, connection: Connection) -> None:
        """Say that we are gone. If the broker does not take it, leave without a goodbye: then it publishes the will."""
        self._send_state(connection)  # a report that was made a moment ago and is replaced by the last one
        self.state(*self._report(self.outbox_health()))
        self._send_state(connection)
        topic, gone = self._offline
        done = replace(gone, reason=self._reason, at=utc_now())
        message = connection.publish(str(topic), encode(done), qos=topic.QOS, retain=True)
        now_s = time.monotonic()
        until_s = min(max(self._drain_until_s, now_s + GOODBYE_S[0]), now_s + GOODBYE_S[1])
        while connection.alive and time.monotonic() < until_s:
            if any(acked == message for acked, _, _ in list(self._acks)):
                connection.close()
                return
            self._wake.wait(TICK_S)
            self._wake.clear()
