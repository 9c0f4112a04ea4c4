"""What is given to the publisher and not yet taken by it: any thread puts in, the publisher's takes out.

Events queue; of state only the newest of each topic is kept; what is said once is dropped when nobody could hear it.
Giving never waits, and is a system call only when the publisher sleeps.
"""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from msgspec import Struct

from tinysight_contract.messages import Event, encode
from tinysight_contract.mqtt import Connection
from tinysight_contract.topics import EventTopic, Topic
from tinysight_edge.session import Letter, Session

__all__ = ["TICK_S", "Mailbox"]

TICK_S: Final = 0.1
MAX_ONCE: Final = 256
MAX_BEHIND: Final = 16


class Mailbox:
    """Events, states, and what is said once.

    Attributes:
        events: given and not yet kept: topic, event, and when its frame was captured (``time.monotonic()``).
        last_seq: of the last event given.
        open: whether there is a session; without one, what is said once at QoS 0 is dropped.
    """

    def __init__(self) -> None:
        self.events: deque[tuple[EventTopic, Event, float]] = deque()
        self.last_seq, self.open = 0, False
        self._once: deque[Letter] = deque(maxlen=MAX_ONCE)
        self._state: dict[str, Letter] = {}
        self._unsent: set[str] = set()
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._asleep = False

    def event(self, topic: EventTopic, event: Event) -> None:
        """Give an event; never waits."""
        self.events.append((topic, event, time.monotonic() - event.latency_ms.total / 1e3))
        self.last_seq = event.seq
        self.rouse()

    def state(self, topic: Topic, message: Struct | None) -> None:
        """Give the newest state of a topic, None to clear it; never waits."""
        self._put(str(topic), b"" if message is None else encode(message), topic.QOS, topic.RETAIN)

    def foreign(self, topic: str, payload: bytes) -> None:
        """Give the newest state of a topic outside of the contract, retained; empty to clear it. Never waits."""
        self._put(topic, payload, 1, True)

    def once(self, topic: Topic, message: Struct | bytes, *, lives_s: int) -> None:
        """Give a message that is said once, and not again; never waits.

        At QoS 1 it waits for a session, among at most 256; at QoS 0 it is dropped when there is none.

        Args:
            topic: where.
            message: what; bytes are sent as they are.
            lives_s: who has not got it by then shall not get it.
        """
        if topic.QOS or self.open:
            payload = message if isinstance(message, bytes) else encode(message)
            self._once.append((str(topic), payload, topic.QOS, topic.RETAIN, lives_s))
            self.rouse()

    def _put(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        with self._lock:
            self._state[topic] = topic, payload, qos, retain, None
            self._unsent.add(topic)
        self.rouse()

    def rouse(self) -> None:
        """Wake the publisher if it sleeps."""
        if self._asleep:
            self._asleep = False
            os.eventfd_write(self._wake, 1)

    # What follows is for the publisher's thread alone.

    def again(self) -> None:
        """All state is to be sent, as after a connect."""
        with self._lock:
            self._unsent = set(self._state)

    @property
    def said(self) -> bool:
        """Whether all state was sent."""
        return not self._unsent

    def letters(self, session: Session) -> Iterator[Letter]:
        """State that was not sent, then what is said once, as long as the session has room."""
        while self._unsent and session.room > 0:
            with self._lock:
                letter = self._state[self._unsent.pop()]
            yield letter
        while self._once and session.room > 0:
            letter = self._once.popleft()
            if letter[2] or session.behind < MAX_BEHIND:  # what may be lost is, rather than to hold up events
                yield letter

    def sleep(self, connection: Connection | None = None, session: Session | None = None) -> None:
        """Wait a moment, or until something is given or comes in; let the connection work.

        Args:
            connection: whose socket is to be served.
            session: over it; without one, only events are worth waking for.
        """
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if connection is not None and (file := connection.fileno()) >= 0:
            poll.register(file, select.POLLIN | (select.POLLOUT if connection.wants_to_write else 0))
        self._asleep = True
        waits = self.events or (session is not None and session.room > 0 and (self._unsent or self._once))
        ready = poll.poll(0 if waits else TICK_S * 1e3)
        self._asleep = False
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        if connection is not None:
            came = dict(ready).get(connection.fileno(), 0)
            if came & ~select.POLLOUT or not ready:  # a WebSocket may hold what no poll sees
                connection.serve(readable=True)
            connection.serve(readable=False)

    def __del__(self) -> None:
        """Not sooner: whoever still gives would write to a file that by then is another's."""
        os.close(self._wake)
