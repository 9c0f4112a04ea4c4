"""Close the lives that an earlier start of the agent left open: it was killed, or its power went.

In: what the outbox kept of them.  Out: an `Event` ``end`` for each, with the new start's ``boot_id`` and ``seq``, so
that no reader believes for ever that somebody is still there. Pure; publishes nothing.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from tinysight_contract.messages import Event, EventType
from tinysight_contract.topics import EventTopic
from tinysight_edge.meaning.events import Sequence

__all__ = ["closing", "closings"]


def closing(event: Event, *, boot_id: str, seq: int) -> Event:
    """The end of an object that an earlier start of the agent left open; ``event`` is the last that was told of it.

    An ``end`` that the full outbox had to give up is told again, with its own reason.
    """
    return replace(
        event,
        type=EventType.END,
        boot_id=boot_id,
        seq=seq,
        ended_at=event.seen_at,
        replayed=False,
        reason=event.reason or "restarted",
    )


def closings(
    left: Iterable[tuple[str, Event]], *, site: str, device: str, boot_id: str, sequence: Sequence
) -> list[tuple[EventTopic, Event]]:
    """Ends for what an earlier start left open, to be published before anything else.

    Args:
        left: as `Outbox.left_open` gives it.
        site: of this device now.
        device: its id now.
        boot_id: of this start.
        sequence: of this device. What was told under another site or device has numbers of its own there, from 1.
    """
    sequences = {(site, device): sequence}
    ends = []
    for topic, event in left:
        number = sequences.setdefault((event.site, event.device), Sequence()).next()
        ends.append((EventTopic.parse(topic), closing(event, boot_id=boot_id, seq=number)))
    return ends
