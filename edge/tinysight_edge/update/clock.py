"""What time it is on a board without a clock. Pure: the caller reads the clock and keeps the floor.

In: what the system's clock says, whether it was set from outside, and the floor that was kept.  Out: the time that
decides about expiry. The floor is a time that is believed to be past. Two things raise it: the time at which a release
was signed, if that lies before the expiry of what was signed last, and a clock that is known to be right; so a clock
that runs wild does not poison it. A workstation whose clock ran ahead does, where the device's own is not set; hence a
clock that was set from outside overrules the floor, and lowers it, down to the time at which this program was built.
Whoever can set a device's clock over the network can so have it believe what has expired, yet no older version of it.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["BUILT_AT", "MOST_STEP", "Now", "raise_floor", "right_time"]

BUILT_AT: Final = datetime(2026, 11, 26, tzinfo=UTC)
"""This program was not there before."""
MOST_STEP: Final = timedelta(days=3653)
"""No board lies in a drawer longer than ten years; what claims that it did has a wrong clock."""

Now = tuple[datetime, bool]
"""The time that counts, and whether the system's clock is suspect."""


def right_time(system: datetime, floor: datetime | None, *, synced: bool | None) -> Now:
    """The time that decides about expiry, and whether the clock is suspect.

    A clock below the floor does not count unless it was set. One far ahead does, since nothing proves it wrong: then
    nothing is installed, and what runs goes on.

    Args:
        system: what the system's clock says.
        floor: what was kept; None when nothing was.
        synced: whether that clock was set from outside; None when nobody knows.
    """
    lowest = _lowest(floor, system, synced=synced)
    if system < lowest:
        return lowest, True
    return system, not synced and system > lowest + MOST_STEP


def raise_floor(
    floor: datetime | None,
    *,
    system: datetime,
    synced: bool | None,
    released_at: datetime | None = None,
    expires: datetime | None = None,
) -> datetime:
    """The new floor: never above a time that has a reason, and below the old one only by a clock that was set.

    Args:
        floor: what was kept; None when nothing was.
        system: what the system's clock says.
        synced: whether that clock was set from outside.
        released_at: when a release was signed whose signatures were checked.
        expires: until when what the repository said last is to be believed; who signed later had a wrong clock.
    """
    lowest = _lowest(floor, system, synced=synced)
    latest = lowest + MOST_STEP
    believed = [lowest]
    if synced:
        latest = min(latest, system)  # what is signed for later was signed by a clock that runs ahead
        believed.append(latest if system == latest else lowest)
    if expires is not None:
        latest = min(latest, expires)
    if released_at is not None and released_at <= latest:
        believed.append(released_at)
    return max(believed)


def _lowest(floor: datetime | None, system: datetime, *, synced: bool | None) -> datetime:
    """No time before this is believed; a clock that was set overrules what was kept."""
    lowest = BUILT_AT if floor is None else max(floor, BUILT_AT)
    return system if synced and BUILT_AT <= system < lowest else lowest
