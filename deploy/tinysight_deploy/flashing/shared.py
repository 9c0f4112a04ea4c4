"""The parts of the repository that devices need, each made once: devices that need the same file share one.

In: a release, and what is active on a device.  Out: a `Slice`, a folder on this machine.
"""

import asyncio
import dataclasses
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tinysight_contract.updates import Release
from tinysight_deploy.repo.repository import Repository
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
        repository: where the release is.
        release: that is wanted.
        room: an empty folder for all of them.
    """

    def __init__(self, repository: Repository, release: Release, room: Path) -> None:
        self._repository, self._release, self._room = repository, release, room
        self._chosen: dict[str | None, asyncio.Future[Choice]] = {}
        self._made: dict[str, asyncio.Future[Payload]] = {}

    async def get(self, base: str | None) -> Slice:
        """The slice for a device where the bundle with this digest is active.

        Raises:
            TinySightError: the repository is not what it should be.
            OSError: it cannot be read, or this machine's disk is full.
        """
        if base not in self._chosen:
            self._chosen[base] = asyncio.ensure_future(self._choose(base))
        choice = await asyncio.shield(self._chosen[base])
        folder = self._room / (PurePosixPath(choice.path).name or "signed")
        if choice.path not in self._made:
            self._made[choice.path] = asyncio.ensure_future(self._make(base, folder))
        payload = await asyncio.shield(self._made[choice.path])
        return Slice(folder, dataclasses.replace(payload, why_full=choice.why_full))

    async def _choose(self, base: str | None) -> Choice:
        return await asyncio.to_thread(self._repository.choice, self._release, base=base)

    async def _make(self, base: str | None, folder: Path) -> Payload:
        return await asyncio.to_thread(self._repository.slice, self._release, base=base, to=folder)
