"""One session at the broker: what is sent, in which order, and what the broker has acknowledged.

In: the outbox, the newest state, messages that are said once.  Out: as many of them on their way as the broker takes.
What is live goes first and what waited follows in what room is left, so that a backlog of a day starves nothing;
each part in the order of its ``seq``. Runs in the publisher's thread alone.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from tinysight_contract.messages import MAX_PAYLOAD_BYTES
from tinysight_contract.mqtt import Connection
from tinysight_contract.topics import EventTopic
from tinysight_edge.outbox import Outbox

__all__ = ["Ack", "Letter", "Session", "as_replayed"]

log = logging.getLogger(__name__)

IN_FLIGHT: Final = 128
REPLAY_SHARE: Final = 0.75
"""Of the window, what events that waited may take; the rest is for live ones and state."""

Ack = tuple[int, str | None, bool]
"""Message number, None or why the broker refused it, and whether it will refuse it again."""
Letter = tuple[str, bytes, int, bool, int | None]
"""Topic, payload, QoS, whether it is retained, and how many seconds it lives."""


def as_replayed(payload: bytes) -> bytes:
    """An encoded event with ``replayed`` set.

    Done on its text: decoding and encoding would cost more than all else. Within a string a quote is escaped, and the
    only other keys that a user names are those of ``zones.dwell_s``, whose values are numbers.
    """
    return payload.replace(b'"replayed":false', b'"replayed":true', 1)


class Session:
    """What is said over one connection.

    Args:
        connection: answered, and alive.
        acks: what the connection's ``on_ack`` appends to.
        outbox: where events wait.
        begun_at: number of the last event that was put before; those up to it are a replay.
        captured: when the frames of later events were captured, by number (``time.monotonic()``); taken out once sent.
        published: told how old a frame is (ms) when its event is sent; not of events that waited.
        also: what else is to be published for an event, just before it: topic and payload. Whoever acknowledges the
            event has that too.

    Attributes:
        events: that the broker has acknowledged.
        refused: messages that it refused, by why.
        patience: False once the broker refused something that it may take later, in another session.
    """

    def __init__(
        self,
        connection: Connection,
        acks: deque[Ack],
        outbox: Outbox,
        *,
        begun_at: int,
        captured: dict[int, float],
        published: Callable[[float], None],
        also: Callable[[bytes], tuple[str, bytes] | None] | None,
    ) -> None:
        self.events = 0
        self.refused: Counter[str] = Counter()
        self.patience = True
        self._connection, self._acks, self._outbox = connection, acks, outbox
        self._begun_at, self._captured, self._published, self._also = begun_at, captured, published, also
        self._live_at, self._replay_at = begun_at, 0
        self._window = min(IN_FLIGHT, connection.offers.in_flight)
        self._replays = min(self._window, max(2, int(self._window * REPLAY_SHARE)))
        if self._window < 2 and also is not None:
            log.warning("the broker takes one message at a time, so events go alone")
            self._also = None
        self._spare = 0 if self._also is None else 1  # an event may bring another message along
        self._in_flight: dict[int, int] = {}  # by message: the event's number, 0 for what is none
        self._moved_s = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Since when the broker acknowledges nothing although something is on its way."""
        return time.monotonic() - self._moved_s if self._in_flight else 0.0

    @property
    def room(self) -> int:
        """How many messages the broker takes now."""
        return self._window - len(self._in_flight)

    @property
    def behind(self) -> int:
        """Messages that the socket has not taken."""
        return self._connection.queued

    def waits_for(self, message: int) -> bool:
        """Whether the broker has not acknowledged it."""
        return message in self._in_flight

    def settle(self) -> None:
        """Forget what the broker has."""
        while self._acks:
            message, refusal, final = self._acks.popleft()
            if (number := self._in_flight.pop(message, None)) is None:
                continue
            self._moved_s = time.monotonic()
            if refusal is not None:
                self.refused[refusal] += 1
                log.error("the broker refused %s: %s", "an event" if number else "a message", refusal)
            if not number:
                continue
            if refusal is None:
                self.events += 1
            elif final:
                self._outbox.discarded["refused"] += 1
            else:
                self.patience = False
                continue
            self._outbox.done(number)

    def send(self, letter: Letter) -> int:
        """Hand a message over; its number. What the broker does not take is not sent, for it would end the session."""
        topic, payload, qos, retain, lives_s = letter
        if not self._connection.fits(topic, payload):
            self.refused["too large for the broker"] += 1
            log.error("%s: %d bytes are more than the broker takes; not sent", topic, len(payload))
            return 0
        message = self._connection.publish(topic, payload, qos=qos, retain=retain, lives_s=lives_s)
        if qos:
            self._note(message, 0)
        return message

    def send_events(self) -> None:
        """Fill the window: live events, then those that waited."""
        if not len(self._outbox):
            return
        if self.room > self._spare:
            for row in self._outbox.after(self._live_at, self.room - self._spare):
                if self.room <= self._spare:
                    break
                self._live_at = row[0]
                self._send_event(*row)
        if self._replay_at < self._begun_at and self._replay_room > 0:
            waiting = len(self._outbox)
            rows = self._outbox.after(self._replay_at, self._replay_room, up_to=self._begun_at)
            for number, topic, payload in rows:
                if self._replay_room <= 0:
                    return
                self._replay_at = number
                self._send_event(number, topic, as_replayed(payload))
            unread = len(self._outbox) < waiting or self._outbox.trouble is not None
            if not rows and not unread:  # else what it could not read hides what comes after it
                self._replay_at = self._begun_at

    @property
    def _replay_room(self) -> int:
        return self._replays - self._spare - len(self._in_flight)

    def _send_event(self, number: int, topic: str, payload: bytes) -> None:
        if len(payload) > MAX_PAYLOAD_BYTES or not self._connection.fits(topic, payload):
            log.error("an event of %d bytes is more than the broker takes; given up", len(payload))
            self._outbox.discarded["oversize"] += 1
            self._outbox.done(number)
            return
        if self._also is not None and (more := self._also(payload)) is not None:
            self.send((*more, 1, False, None))
        if (captured_s := self._captured.pop(number, None)) is not None:
            self._published((time.monotonic() - captured_s) * 1e3)
        self._note(self._connection.publish(topic, payload, qos=EventTopic.QOS, retain=False, often=True), number)

    def _note(self, message: int, number: int) -> None:
        if not self._in_flight:
            self._moved_s = time.monotonic()
        self._in_flight[message] = number
