"""The parts of the repository that devices need, each made once: devices with the same bundle share one.

In: how a slice is made, and what is active on a device.  Out: a `Slice`, a folder on this machine.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinysight_deploy.repo.slices import Payload

__all__ = ["Slice", "Slices"]


@dataclass(frozen=True, slots=True)
class Slice:
    """A small repository with one release.

    Attributes:
        folder: where it is.
        payload: what is in it.
    """

    folder: Path
    payload: Payload


class Slices:
    """Slices by the digest of the bundle that they start from.

    Args:
        make: writes the slice for a base (None: the whole bundle) into a folder.
        room: an empty folder for all of them.
    """

    def __init__(self, make: Callable[[str | None, Path], Payload], room: Path) -> None:
        self._make, self._room = make, room
        self._made: dict[str | None, asyncio.Future[Payload]] = {}

    async def get(self, base: str | None) -> Slice:
        """The slice for a device where the bundle with this digest is active.

        Raises:
            TinySightError: the repository is not what it should be.
            OSError: it cannot be read, or this machine's disk is full.
        """
        folder = self._room / (base or "whole")
        if base not in self._made:
            self._made[base] = asyncio.ensure_future(asyncio.to_thread(self._make, base, folder))
        return Slice(folder, await asyncio.shield(self._made[base]))
