"""The part of the repository that one device needs: what is signed, and one payload.

In: the repository, a release, what is active on a device.  Out: a `Slice`, a folder on this machine that is a small
repository of its own. Devices with the same bundle share one.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["Slice", "Slices", "slice_of"]


@dataclass(frozen=True, slots=True)
class Slice:
    """A repository with one release.

    Attributes:
        folder: where it is.
        files: all files in it, relative, what is signed first.
        transfer: ``delta`` or ``full``.
        why_full: why it is not a delta.
    """

    folder: Path
    files: tuple[PurePosixPath, ...]
    transfer: str
    why_full: str

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum((self.folder / each).stat().st_size for each in self.files)

    def without_payload(self) -> "Slice":
        """The same for a device that has the bundle already."""
        return Slice(self.folder, tuple(each for each in self.files if each.parts[0] == "metadata"), "", "")


class Slices:
    """Slices by what they start from, each made once.

    Args:
        make: writes the slice for a base (None: the whole bundle) into a folder.
        room: an empty folder for all of them.
    """

    def __init__(self, make: Callable[[str | None, Path], Slice], room: Path) -> None:
        self._make, self._room = make, room
        self._made: dict[str | None, asyncio.Task[Slice]] = {}

    async def get(self, base: str | None) -> Slice:
        """The slice for a device where the bundle with this digest is active.

        Raises:
            TinySightError: the repository is not what it should be.
            OSError: it cannot be read, or this machine's disk is full.
        """
        if base not in self._made:
            work = asyncio.to_thread(self._make, base, self._room / (base or "whole"))
            self._made[base] = asyncio.ensure_future(work)
        return await asyncio.shield(self._made[base])


def slice_of(folder: Path, transfer: str, why_full: str) -> Slice:
    """The slice that a folder is."""
    found = [PurePosixPath(each.relative_to(folder).as_posix()) for each in folder.rglob("*") if each.is_file()]
    return Slice(folder, tuple(sorted(found, key=lambda each: (each.parts[0] != "metadata", each))), transfer, why_full)
