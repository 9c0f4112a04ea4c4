"""One event as it stands in the outbox, and whether it still is what was put there.

In: topic, payload and check sum, as a file that may be damaged gives them.  Out: yes or no, or the event.
"""

import zlib
from functools import lru_cache

from tinysight_contract.errors import ContractError
from tinysight_contract.messages import Event, decode
from tinysight_contract.topics import EventTopic

__all__ = ["Row", "check_sum", "event_of", "is_sound"]

Row = tuple[str, bytes, bool]
"""Topic, payload, and whether it is an ``update``."""


@lru_cache(64)
def _is_topic(text: object) -> bool:
    try:
        return isinstance(text, str) and str(EventTopic.parse(text)) == text
    except ContractError:
        return False


def event_of(topic: object, payload: object) -> Event | None:
    """The event of a row, None when it cannot be read."""
    try:
        return decode(payload, Event) if isinstance(payload, bytes) and _is_topic(topic) else None
    except ContractError:
        return None


def check_sum(topic: str, payload: bytes) -> int:
    """Of a row. A disk that turns a digit into another leaves a good event, and SQLite looks at no content."""
    return zlib.crc32(payload, _check_sum_of(topic))


@lru_cache(64)
def _check_sum_of(topic: str) -> int:
    return zlib.crc32(topic.encode())


def is_sound(topic: object, payload: object, crc: object) -> bool:
    """Whether a row of the file is as it was written; one of before there were check sums, whether it can be read."""
    if crc is None:
        return event_of(topic, payload) is not None
    return (
        isinstance(topic, str) and isinstance(payload, bytes) and _is_topic(topic) and check_sum(topic, payload) == crc
    )
