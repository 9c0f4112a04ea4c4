"""Disks that end the process at a step, are full from a step on, or remember what a power cut would undo.

All that a store writes goes through its `Disk`, what python-tuf keeps as well.
"""

import errno
import os
import random
import sys
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from unittest import mock

from tinysight_edge.update.disk import Disk

CRASHED: Final = 86
"""Exit status of a process that came to its step."""


class SteppedDisk(Disk, ABC):
    """Calls `step` before each change, and once amid those that write bytes, after the first half of them."""

    @abstractmethod
    def step(self, what: str) -> None:
        """What happens there."""

    def make_folder(self, path: Path) -> None:
        if not path.is_dir():
            self.step("make_folder")
        super().make_folder(path)

    def write(self, path: Path, data: bytes) -> None:
        self.step("write")
        super().write(path, data[: len(data) // 2])
        self.step("write")
        super().write(path, data)

    def append(self, path: Path, data: bytes) -> None:
        self.step("append")
        super().append(path, data[: len(data) // 2])
        self.step("append")
        super().append(path, data[len(data) // 2 :])

    def sync(self, path: Path) -> None:
        self.step("sync")
        super().sync(path)

    def rename(self, path: Path, to: Path) -> None:
        self.step("rename")
        super().rename(path, to)

    def remove(self, path: Path) -> None:
        self.step("remove")
        super().remove(path)

    def sync_folder(self, path: Path) -> None:
        self.step("sync_folder")
        super().sync_folder(path)


class CrashingDisk(SteppedDisk):
    """Ends the process at its n-th step, from 0, with no goodbye."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self, what: str) -> None:  # noqa: ARG002 -- each is as good as another
        if self.left == 0:
            os._exit(CRASHED)
        self.left -= 1


class RefusingDisk(SteppedDisk):
    """Says no from its n-th step on; with ``full`` what removes bytes still works.

    Attributes:
        refused: how often it did.
    """

    def __init__(self, at: int, *, full: bool) -> None:
        self.left, self.full, self.refused = at, full, 0

    def step(self, what: str) -> None:
        if self.full and what == "remove":
            return
        if self.left == 0:
            self.refused += 1
            number = errno.ENOSPC if self.full else errno.EIO
            raise OSError(number, os.strerror(number))
        self.left -= 1


@contextmanager
def through(disk: Disk) -> Iterator[None]:
    """Stores that are made meanwhile, also by the command line, write through this disk."""
    with mock.patch("tinysight_edge.store.Disk", return_value=disk):
        yield


def in_child(do: Callable[[], object]) -> int:
    """Do this in a process of its own; its exit status. Forked: hundreds of these are cheap."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, none of which is used there
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            do()
            status = 0
        except BaseException:  # noqa: BLE001 -- the parent hears of it by the status
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@dataclass(eq=False)
class _File:
    """Attributes: now: bytes as they are read. synced: those that survive."""

    now: bytes
    synced: bytes = b""


Kept = _File | None
"""A file, or None for a folder."""
Change = tuple[str, Path, bytes | Path | None]
Tree = dict[Path, bytes | None]


class NotingDisk(Disk):
    """Does what it is told and notes it.

    Attributes:
        changes: all of them.
        promises: by the number of changes before it, what was promised to hold.
    """

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.promises: dict[int, object] = {}

    def promise(self, state: object) -> None:
        """Whatever comes, this holds from now on."""
        self.promises[len(self.changes)] = state

    def make_folder(self, path: Path) -> None:
        missing = [each for each in (path, *path.parents) if not each.is_dir()]
        self.changes += [("folder", each, None) for each in reversed(missing)]
        super().make_folder(path)

    def write(self, path: Path, data: bytes) -> None:
        self.changes.append(("write", path, data))
        super().write(path, data)

    def append(self, path: Path, data: bytes) -> None:
        self.changes.append(("append", path, data))
        super().append(path, data)

    def sync(self, path: Path) -> None:
        super().sync(path)
        self.changes.append(("sync", path, None))

    def rename(self, path: Path, to: Path) -> None:
        self.changes.append(("rename", path, to))
        super().rename(path, to)

    def remove(self, path: Path) -> None:
        if path.exists():
            self.changes.append(("remove", path, None))
        super().remove(path)

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.changes.append(("sync_folder", path, None))


@dataclass
class Card:
    """A file system as it reads now, and as it is kept: what was synced.

    Attributes:
        now: by path, what is read.
        kept: by path, what is there after a power cut for certain.
    """

    now: dict[Path, Kept] = field(default_factory=dict)
    kept: dict[Path, Kept] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "Card":
        """All of a folder, synced."""
        found: dict[Path, Kept] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_dir():
                found[path] = None
            else:
                data = path.read_bytes()
                found[path] = _File(data, data)
        return cls(found, dict(found))

    def change(self, change: Change) -> None:
        """What becomes of it by this."""
        what, path, more = change
        file = self.now.get(path)
        match what, more:
            case "folder", None:
                self.now[path] = None
            case (("write" | "append"), bytes()):
                if not isinstance(file, _File):
                    file = self.now[path] = _File(b"")
                file.now = more if what == "write" else file.now + more
            case "sync", None:
                assert isinstance(file, _File)
                file.synced = file.now
            case "rename", Path():
                self.now[more] = self.now.pop(path)
            case "remove", None:
                self.now.pop(path)
            case "sync_folder", None:
                for each in {*self.now, *self.kept}:
                    if each.parent == path:
                        _same(each, self.now, self.kept)
            case _:
                raise AssertionError(change)

    def cut(self, *, undone: Callable[[Path], bool], lost: Callable[[_File], bytes]) -> Tree:
        """What is found after a power cut.

        Args:
            undone: whether the changes of names in this folder are, that were not synced.
            lost: what is read of a file.
        """
        names: dict[Path, Kept] = {}
        for each in {*self.now, *self.kept}:
            _same(each, self.kept if undone(each.parent) else self.now, names)
        tree: Tree = {}
        for path in sorted(names):
            here = names[path]
            above = path.parent
            if above in {*self.now, *self.kept} and above not in tree:
                continue  # its folder is gone, and all below it
            tree[path] = lost(here) if isinstance(here, _File) else here
        return tree


def _same(path: Path, source: dict[Path, Kept], to: dict[Path, Kept]) -> None:
    if path in source:
        to[path] = source[path]
    else:
        to.pop(path, None)


def _synced(file: _File) -> bytes:
    return file.synced


def _half(file: _File) -> bytes:
    kept = _synced(file)
    if not file.now.startswith(kept):
        return kept
    return file.now[: len(kept) + (len(file.now) - len(kept)) // 2]


def _garbage(file: _File) -> bytes:
    """As long as it was, and nothing that was not synced is right."""
    kept = _synced(file)
    if file.now == kept:
        return kept
    head = kept if file.now.startswith(kept) else b""
    return head + random.Random(len(file.now)).randbytes(len(file.now) - len(head))


CUTS: Final[dict[str, tuple[Callable[[Path], bool], Callable[[_File], bytes]]]] = {
    "all that was not synced is lost": (lambda _: True, _synced),
    "names survive, bytes do not": (lambda _: False, _synced),
    "names survive, half of the bytes do": (lambda _: False, _half),
    "names survive, bytes are garbage": (lambda _: False, _garbage),
    "bytes survive, names do not": (lambda _: True, lambda file: file.now),
    "names of bundles alone survive": (lambda folder: folder.name != "bundles", _synced),
    "names of bundles alone are lost": (lambda folder: folder.name == "bundles", _garbage),
}


def lay(tree: Tree) -> None:
    """Have these files and folders; nothing is there yet."""
    for path, here in sorted(tree.items()):
        if here is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(here)
