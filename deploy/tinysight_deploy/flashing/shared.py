"""The parts of the repository that devices need, each made once: devices that need the same file share one.

In: how a slice is made, and what is active on a device.  Out: a `Slice`, a folder on this machine.
"""

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tinysight_deploy.repo.slices import Choice, Payload

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
    """Slices by the file that is in them: however many strange bundles run out there, the whole is copied once.

    Args:
        choose: says which file brings a device there from a base (None: from nothing).
        make: writes the slice for a base into a folder.
        room: an empty folder for all of them.
    """

    def __init__(
        self, choose: Callable[[str | None], Choice], make: Callable[[str | None, Path], Payload], room: Path
    ) -> None:
        self._choose, self._make, self._room = choose, make, room
        self._chosen: dict[str | None, asyncio.Future[Choice]] = {}
        self._made: dict[str, asyncio.Future[Payload]] = {}

    async def get(self, base: str | None) -> Slice:
        """The slice for a device where the bundle with this digest is active.

        Raises:
            TinySightError: the repository is not what it should be.
            OSError: it cannot be read, or this machine's disk is full.
        """
        if base not in self._chosen:
            self._chosen[base] = asyncio.ensure_future(asyncio.to_thread(self._choose, base))
        choice = await asyncio.shield(self._chosen[base])
        folder = self._room / (PurePosixPath(choice.path).name or "signed")
        if choice.path not in self._made:
            self._made[choice.path] = asyncio.ensure_future(asyncio.to_thread(self._make, base, folder))
        payload = await asyncio.shield(self._made[choice.path])
        return Slice(folder, dataclasses.replace(payload, why_full=choice.why_full))
