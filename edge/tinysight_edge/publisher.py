"""The publisher: one thread that keeps the broker told, whatever the network does.

In: events and state messages, never waiting.  Out: MQTT. Events go through the `Outbox` and are sent again until the
broker acknowledges them; of state (status, info, counts, camera status) only the newest of each topic matters, and it
is sent again at every connect. The inference loop is never blocked by the network or the disk. What is sent when, is
`Session`; here is how a session comes about and ends.
"""

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from tinysight_contract.errors import BrokerError, DeviceError, TinySightError
from tinysight_contract.messages import BrokerHealth, OutboxHealth, Status, encode, utc_now
from tinysight_contract.mqtt import KEEP_ALIVE_S, Address, Connection, Will
from tinysight_contract.topics import StatusTopic, Topic
from tinysight_edge.calling import CONNECT_TIMEOUT_S, Caller
from tinysight_edge.mailbox import TICK_S, Mailbox
from tinysight_edge.outbox import Outbox
from tinysight_edge.session import Ack, Session

__all__ = ["Publisher"]

log = logging.getLogger(__name__)

FIRST_TRY_S: Final = 15.0
STABLE_S: Final = 10.0  # a session that lasted so long was not refused by way of dropping us
RETRY_S: Final = (0.25, 60.0)
REFUSED_S: Final = 30.0
READERS_S: Final = (0.2, 5.0)
READERS_SHARE: Final = 0.1
"""After an outage events wait a moment longer, by this share of it: those who read were cut off too."""
FIRST_REPORT_S: Final = 5.0
GOODBYE_S: Final = (0.3, 2.0)
MAX_CAUSES: Final = 16
MAX_CAPTURED: Final = 10_000


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
        report: makes the health message of what it is told of the outbox and of the broker.
        keep_alive_s: a broker that is silent for twice as long, or acknowledges nothing for as long, is gone.
        published: told how old a frame is (ms) when its event is handed to the connection; not of events that waited.
        listen: topics to subscribe to. The broker keeps what comes for us for an hour while we are cut off.
        hear: told topic, payload and retained flag of what comes, in the publisher's thread; must be quick.
        also: what else is to be published for an event, given its payload, just before it.

    Attributes:
        event, state, foreign, once: what it is given to send; see `Mailbox`.
        away_since_s: since when there is no session (``time.monotonic()``); None while there is one.
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
        report: Callable[[OutboxHealth, BrokerHealth], tuple[Topic, Struct]],
        keep_alive_s: float = KEEP_ALIVE_S,
        published: Callable[[float], None] = lambda _age_ms: None,
        listen: tuple[str, ...] = (),
        hear: Callable[[str, bytes, bool], None] | None = None,
        also: Callable[[bytes], tuple[str, bytes] | None] | None = None,
    ) -> None:
        self.every_s = every_s
        self.away_since_s: float | None = time.monotonic()
        self._box = box = Mailbox()
        self.event, self.state, self.foreign, self.once = box.event, box.state, box.foreign, box.once
        self._address, self._outbox, self._keep_alive_s = address, outbox, keep_alive_s
        self._online, self._offline, self._report = online, offline, report
        self._published, self._listen, self._also = published, listen, also
        self._caller = Caller(
            address,
            client_id=client_id,
            will=lambda: Will(str(offline[0]), encode(replace(offline[1], at=utc_now()))),
            hear=hear if listen else None,
            keep_alive_s=keep_alive_s,
            rouse=box.rouse,
        )
        self._hold_until_s = 0.0
        self._last_number, self._captured = outbox.last, dict[int, float]()
        self._session: Session | None = None
        self._sent, self._sessions = 0, 0
        self._ended, self._refused = Counter[str](), Counter[str]()
        self._closing = threading.Event()
        self._drain_until_s, self._reason = 0.0, ""
        self._first_try = threading.Event()
        self._first_error: BrokerError | None = None
        self._broken: TinySightError | None = None
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

    @property
    def refusal(self) -> BrokerError | None:
        """Why the broker refuses us, as long as it does and waiting does not mend it."""
        return self._caller.refusal

    @property
    def sent(self) -> int:
        """Events that the broker has."""
        return self._sent + (self._session.events if self._session is not None else 0)

    @property
    def waiting(self) -> int:
        """Events not yet acknowledged."""
        return len(self._outbox) + len(self._box.events)

    @property
    def outbox_share(self) -> float:
        """How full the outbox is, 0..1."""
        return self._outbox.share

    @property
    def outbox_trouble(self) -> str | None:
        """Why events cannot be written to disk, so that they wait in memory alone; None when they can."""
        return None if self._outbox.trouble is None else self._outbox.trouble.what

    @property
    def outbox_damage(self) -> str | None:
        """What came of an outbox that was damaged; None when it never was since the start."""
        return self._outbox.damage

    def outbox_health(self) -> OutboxHealth:
        """How many events wait, how many were given up, and the last one's number."""
        last_seq = self._box.last_seq  # before what waits: else the last one would seem to be gone
        return OutboxHealth(depth=self.waiting, discarded=dict(self._outbox.discarded), last_seq=last_seq)

    def broker_health(self) -> BrokerHealth:
        """How many sessions there were, why they ended, and which messages were refused."""
        refused = self._refused + self._session.refused if self._session is not None else self._refused
        return BrokerHealth(sessions=self._sessions, ended=dict(self._ended), refused=dict(refused))

    def close(self, *, drain_s: float, reason: str = "stopped") -> int:
        """Send what waits for up to ``drain_s``, say goodbye, end. How many events stay behind in the outbox.

        Args:
            drain_s: the goodbye takes 0.3 s more at most, whatever the broker does.
            reason: what the last status says.
        """
        self._reason = reason
        self._drain_until_s = time.monotonic() + drain_s
        self._closing.set()
        self._box.rouse()
        self._thread.join(drain_s + 3 * CONNECT_TIMEOUT_S)
        return self.waiting

    # Everything below runs in the publisher's thread.

    def _live(self) -> None:
        wait_s = RETRY_S[0]
        try:
            while not self._over():
                begun_s = time.monotonic()
                try:
                    useful = self._talk(*self._caller.call(wait=self._wait, over=self._over))
                except BrokerError as error:
                    self._note_failure(error)
                else:
                    if useful or time.monotonic() - begun_s >= STABLE_S:
                        wait_s = RETRY_S[0]
                if self.refusal is not None:
                    wait_s = max(wait_s, REFUSED_S)
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

    def _note_failure(self, error: BrokerError) -> None:
        if not self._first_try.is_set():
            self._first_error = error
            self._first_try.set()
        else:
            log.warning("%s", error)

    def _over(self) -> bool:
        return self._closing.is_set() and time.monotonic() >= self._drain_until_s

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s and not self._over():
            self._wait(None)

    def _wait(self, connection: Connection | None) -> None:
        self._box.sleep(connection)
        self._keep()

    def _keep(self) -> None:
        """Move given events into the outbox, on disk at once when none can be sent now."""
        given, session = self._box.events, self._session
        self._outbox.away = session is None or session.room <= 0
        while given:
            topic, event, captured_s = given[0]
            self._last_number = self._outbox.put(str(topic), event)
            given.popleft()
            if self._box.open and len(self._captured) < MAX_CAPTURED:
                self._captured[self._last_number] = captured_s
        self._outbox.commit()

    def _talk(self, connection: Connection, acks: deque[Ack]) -> bool:
        """Send until the session is lost or all is said; whether the broker took any event."""
        now_s, away_since_s = time.monotonic(), self.away_since_s or 0.0
        cut_off = self._sessions > 0 or self._first_try.is_set()
        self._hold_until_s = now_s + min(READERS_S[0] + READERS_SHARE * (now_s - away_since_s), READERS_S[1])
        self._hold_until_s = self._hold_until_s if cut_off else now_s
        self._first_try.set()
        self._captured.clear()
        session = Session(
            connection,
            acks,
            self._outbox,
            begun_at=self._last_number,
            captured=self._captured,
            published=self._published,
            also=self._also,
        )
        self._sessions += 1
        self._session, self.away_since_s, self._box.open = session, None, True
        try:
            here, status = self._online
            session.send((str(here), encode(replace(status, at=utc_now())), here.QOS, True, None))
            if self._listen:
                connection.subscribe(*self._listen)
            self._box.again()
            self._serve(connection, session)
        finally:
            session.settle()  # what came with the end
            self.away_since_s, self._box.open = time.monotonic(), False
            self._session = None
            self._sent += session.events
            self._refused += session.refused
            connection.abandon()
        return session.events > 0

    def _serve(self, connection: Connection, session: Session) -> None:
        next_report_s = time.monotonic() + min(FIRST_REPORT_S, self.every_s)
        while connection.alive:
            self._pump(session)
            if time.monotonic() >= next_report_s:
                next_report_s = time.monotonic() + self.every_s
                self._tell_health()
            if self._closing.is_set() and ((not self.waiting and self._box.said) or self._over()):
                self._say_goodbye(connection, session)
                self._drain_until_s = 0.0
                return
            if not session.patience or session.idle_s > self._keep_alive_s:
                self._end("nothing is acknowledged" if session.patience else "it refuses events for now")
                return
            self._box.sleep(connection, session)
            self._keep()
        self._caller.refusal = connection.refusal
        self._end(connection.ended)

    def _pump(self, session: Session) -> None:
        session.settle()
        for letter in self._box.letters(session):
            session.send(letter)
        if self._closing.is_set() or time.monotonic() >= self._hold_until_s:
            session.send_events()

    def _tell_health(self) -> None:
        self.state(*self._report(self.outbox_health(), self.broker_health()))

    def _end(self, why: str) -> None:
        """Take note of why a session ended."""
        if why in self._ended or len(self._ended) < MAX_CAUSES:
            self._ended[why] += 1
        log.warning("the session at the broker ended (%s), %d events wait", why, self.waiting)

    def _say_goodbye(self, connection: Connection, session: Session) -> None:
        """Say that we are gone. If the broker does not take it, leave without a goodbye: then it publishes the will."""
        now_s = time.monotonic()
        until_s = min(max(self._drain_until_s, now_s + GOODBYE_S[0]), now_s + GOODBYE_S[1])
        self._tell_health()
        topic, gone = self._offline
        done = encode(replace(gone, reason=self._reason, at=utc_now()))
        message: int | None = None
        while connection.alive and time.monotonic() < until_s:
            session.settle()
            for letter in self._box.letters(session):
                session.send(letter)
            if message is None and session.room > 0:
                message = session.send((str(topic), done, topic.QOS, True, None))
            if message is not None and not session.waits_for(message):
                connection.close()
                return
            self._box.sleep(connection, session)
