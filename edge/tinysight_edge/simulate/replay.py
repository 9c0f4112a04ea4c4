"""Play a tape to a broker: what was heard once is said again, at the same pace.

In: the `Take`s of a tape.  Out: the same payloads under the same topics, with two exceptions: the site is the one that
is given, in topics and events, so that nobody mistakes a tape for the devices that it is of; and orders (``cmd``,
``desired``, ``ack``) are left out, so that no device does again what it was told then. ``boot_id``, ``seq`` and all
times stay as they were: a reader counts on the tape what it counted then, and shows when it was seen.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import Condition, Event
from typing import Final

import msgspec

from tinysight_contract import topics as t
from tinysight_contract.errors import BrokerError, ContractError
from tinysight_contract.messages import Event as Seen
from tinysight_contract.messages import decode, encode
from tinysight_contract.mqtt import Address, Connection
from tinysight_edge.simulate.tape import Take

__all__ = ["replay"]

CONNECT_TIMEOUT_S: Final = 5.0
MOST_WAITING: Final = 1000
ACK_S: Final = 30.0
IN_FLIGHT: Final = 100
ORDERS: Final = (t.CommandTopic, t.DesiredTopic, t.AckTopic)


def moved(take: Take, site: str) -> tuple[t.Topic, bytes] | None:
    """Topic and payload of a message as it is said at another site; None when it is not to be said."""
    try:
        where = t.parse(take.topic)
        if isinstance(where, ORDERS):
            return None
        payload = take.payload
        if isinstance(where, t.EventTopic):
            payload = encode(msgspec.structs.replace(decode(payload, Seen), site=site))
    except ContractError:
        return None
    return replace(where, site=site), payload


class _Deck:
    """A connection that counts what the broker has not acknowledged yet."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._sent = self._acknowledged = 0
        self._refusal: str | None = None
        self._news = Condition()
        self._connection = Connection(address, client_id="", on_ack=self._on_ack, in_flight=IN_FLIGHT)

    def __enter__(self) -> "_Deck":
        self._connection.open(timeout_s=CONNECT_TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def say(self, topic: t.Topic, payload: bytes) -> None:
        self.wait(until=MOST_WAITING)
        self._sent += 1
        self._connection.publish(str(topic), payload, qos=1, retain=topic.RETAIN)

    def wait(self, *, until: int = 0) -> None:
        """Wait until no more than so many are unacknowledged.

        Raises:
            BrokerError: the session is lost, the broker says nothing, or it refuses a message.
        """
        until_s = time.monotonic() + ACK_S
        with self._news:
            while self._sent - self._acknowledged > until:
                if not self._connection.alive or time.monotonic() >= until_s:
                    raise BrokerError(f"{self._address} has gone while the tape was played.", mend="Play it again.")
                self._news.wait(0.1)
            if self._refusal is not None:
                what = f"{self._address} refuses what is on the tape: {self._refusal}."
                raise BrokerError(what, mend="Check what this user may write at that --site.")

    def _on_ack(self, _number: int, refusal: str | None, _final: bool) -> None:
        with self._news:
            self._acknowledged += 1
            self._refusal = self._refusal or refusal
            self._news.notify()


def replay(
    takes: Iterable[Take],
    address: Address,
    *,
    site: str,
    rate: float = 1.0,
    duration_s: float | None = None,
    clear: bool = False,
    stop: Event,
    ready: Callable[[], None] = lambda: None,
) -> dict[str, int | float]:
    """Say what is on a tape until it ends, time is over or ``stop`` is set.

    Args:
        takes: of the tape.
        address: of the broker.
        site: at which it is said.
        rate: how fast; 1 is as it was.
        duration_s: None for all of the tape.
        clear: take back at the end what the broker retains.
        stop: ends it soon.
        ready: called once, when the broker is there.

    Returns:
        Messages said, those left out, topics that the broker retains now, seconds.

    Raises:
        BrokerError: no broker is there, it refuses us, or goes.
        DataError: the tape is damaged.
    """
    said = left_out = 0
    retained: set[t.Topic] = set()
    begun_s = time.monotonic()
    with _Deck(address) as deck:
        ready()
        for take in takes:
            due_s = take.at_s / rate
            if duration_s is not None and due_s > duration_s:
                stop.wait(max(begun_s + duration_s - time.monotonic(), 0.0))
                break
            if stop.wait(max(begun_s + due_s - time.monotonic(), 0.0)):
                break
            if (message := moved(take, site)) is None:
                left_out += 1
                continue
            deck.say(*message)
            said += 1
            if message[0].RETAIN:
                retained.add(message[0])
        for topic in retained if clear else ():
            deck.say(topic, b"")
        deck.wait()
    seconds = round(time.monotonic() - begun_s, 3)
    return {"said": said, "left_out": left_out, "retained": 0 if clear else len(retained), "seconds": seconds}
