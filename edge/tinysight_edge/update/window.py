"""When a device may begin with what is wished for: within a window of its local time.

In: ``01:00-05:00``, the present time, a time zone.  Out: when that window is open next. `opens_at` is pure; `Hours`
remembers since when is waited, for a device whose clock nobody has set must not wait for ever.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from tinysight_contract.messages import utc_now

__all__ = ["AT_ONCE", "MOST_S", "Hours", "Opening", "opens_at"]

log = logging.getLogger(__name__)

MOST_S: Final = 26 * 3600.0
"""So long a device waits that does not know the time: a day, and the hours by which a day may be longer."""
DAYS: Final = 4
"""In each of so many days there is a window, but for one whose hour is left out when summer begins."""
MINUTE: Final = timedelta(minutes=1)
UNSET: Final = "The clock of this device is not set, so after 26 h its window is waited for no longer."


@dataclass(frozen=True, slots=True)
class Opening:
    """Whether it may begin.

    Attributes:
        due_at: when it may; None for now.
        why: what is to be said of that, for people; empty for nothing.
    """

    due_at: datetime | None = None
    why: str = ""


AT_ONCE: Final = Opening()


def opens_at(window: str, now: datetime, zone: tzinfo | None = None) -> datetime | None:
    """When a window opens next (UTC, a full minute); None when it is open. No I/O but for the zone's rules.

    Only the clock on the wall counts: minutes that come twice when summer ends are twice in the window, and those that
    are left out when it begins never come. The end does not belong to it; one that ends when it begins is always open.

    Args:
        window: ``HH:MM-HH:MM``; one that ends before it begins ends on the next day.
        now: an aware time.
        zone: of the device; None for that of its system.
    """
    begin, end = (int(each[:2]) * 60 + int(each[3:]) for each in window.split("-"))
    if _is_within(begin, end, _local(now, zone)):
        return None
    today = _local(now, zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0)
    for day in range(DAYS):
        first = today + timedelta(days=day, minutes=begin)
        for minute in _minutes(first, zone):
            if minute > now and _is_within(begin, end, _local(minute, zone)):
                return minute
    return None  # no zone leaves out so many days


def _is_within(begin: int, end: int, local: datetime) -> bool:
    """Whether minutes after midnight include what the clock on the wall shows."""
    minute = local.hour * 60 + local.minute
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def _local(at: datetime, zone: tzinfo | None) -> datetime:
    return at.astimezone(zone)


def _minutes(wall: datetime, zone: tzinfo | None) -> Iterator[datetime]:
    """When the clock on the wall shows a time: once; or, where it is put forward or back, every minute around that."""
    both = [wall.replace(fold=fold) for fold in (0, 1)]
    times = [(each.astimezone() if zone is None else each.replace(tzinfo=zone)).astimezone(UTC) for each in both]
    minute = min(times)
    while minute <= max(times):
        yield minute
        minute += MINUTE


class Hours:
    """When what is wished for may begin on one agent. All in the updates' own thread.

    Args:
        synced: whether the device's clock is known to be right.
        clock: seconds, monotonic.
        now: what the device's clock says.
        zone: of the device; None for that of its system.
    """

    def __init__(
        self,
        synced: Callable[[], bool | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
        zone: tzinfo | None = None,
    ) -> None:
        self._synced, self._clock, self._now, self._zone = synced, clock, now, zone
        self._waits: tuple[str, str] | None = None
        self._since_s = 0.0
        self._given_up = False

    def opening(self, digest: str, window: str | None) -> Opening:
        """When a bundle that is wished for may begin. To be asked often.

        Args:
            digest: of the bundle.
            window: of the wish; None for at any time.
        """
        if window is None:
            self._waits = None
            return AT_ONCE
        if self._waits != (digest, window):
            self._waits, self._since_s, self._given_up = (digest, window), self._clock(), False
        due_at = opens_at(window, self._now(), self._zone)
        if due_at is None:
            return AT_ONCE
        if self._synced() is not True and self._clock() - self._since_s >= MOST_S:
            if not self._given_up:
                log.warning("%s %s", window, UNSET)
            self._given_up = True
            return Opening(why=UNSET)
        return Opening(due_at, f"It waits for {window.replace('-', ' to ')}, the local time of this device.")
