"""What a repository offers a device: what was signed under a path as of now, and whether the machine suits it.

In: a `Source`, the store's `State`, a clock that may be wrong.  Out: an `Offer`, and what the device learned of time.
"""

import logging
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from tinysight_contract.errors import UpdateError
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Code, Release
from tinysight_edge.update.clock import raise_floor, right_time
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.signed import Machine, Requires, lack
from tinysight_edge.update.sources import Source
from tinysight_edge.update.trust import Offer, Trust
from tinysight_edge.update.update import State

__all__ = ["Keeper", "ask", "misfit"]

log = logging.getLogger(__name__)


class Keeper(Protocol):
    """What is needed of a store."""

    @property
    def trust(self) -> Path:
        """The folder of what is known of signatures."""

    @property
    def disk(self) -> Disk:
        """Writes there."""


def ask(
    store: Keeper, source: Source, target: str, *, digest: str | None, state: State, synced: bool
) -> tuple[Offer, State]:
    """What was signed under a path; nothing is saved but what was verified of the signatures.

    Args:
        store: that takes it in; held by the caller.
        source: the repository.
        target: the release's path in it.
        digest: only if it is this one.
        state: as it is.
        synced: whether the machine's clock is known to be right.

    Raises:
        UpdateError: nothing, or something else; see `Trust`.
    """
    now, suspect = right_time(utc_now(), state.clock_floor, synced=synced)
    if suspect:
        log.warning("The clock cannot be right; %s counts.", now.isoformat())
    trust = Trust(store.trust, source, now=now, disk=store.disk)
    trust.refresh()
    offer = trust.resolve(target)
    if digest is not None and digest != offer.release.digest:
        what = f"{target} is signed as {offer.release.digest[:12]}, asked for is {digest[:12]}."
        raise UpdateError(what, mend="Ask for what the repository has.", code=Code.UNSIGNED)
    floor = raise_floor(
        state.clock_floor,
        system=utc_now(),
        synced=synced,
        released_at=offer.signed.released_at,
        expires=offer.expires,
    )
    return offer, replace(state, clock_floor=floor)


def misfit(release: Release, needs: Requires, machine: Machine | None) -> UpdateError | None:
    """Why a machine, this one if none is given, is not what a release needs; or None."""
    if (lacking := lack(needs, machine or Machine.here())) is None:
        return None
    code, why = lacking
    what = f"{release.name} {release.version} does not fit this device: {why}."
    return UpdateError(what, mend="Flash a release that was made for it.", code=code)
