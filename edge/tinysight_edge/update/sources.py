"""Where bundles and what is signed about them come from: a folder, or a web server (`http_source`).

In: a path in a repository.  Out: its bytes, never more than were asked for; or a file on disk that grows until it is
whole. A source is not trusted: `trust` checks what it says, and who fetches a file checks its digest.
"""

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code
from tinysight_edge.update.disk import Disk

__all__ = ["Budget", "FolderSource", "Source", "check_path", "disk_error", "open_source"]

CHUNK_BYTES: Final = 1 << 18
MAX_PATH: Final = 500
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one file may cost.

    Attributes:
        tries: connections in a row that bring next to nothing; one that brings more starts the count again.
        most_bytes: received in total, with what was thrown away; None is twice the file, and a MiB.
        seconds: in total, pauses included.
        least_bytes_s: the least speed, over any ``window_s``.
        window_s: over which speed is measured; also how long a server may say nothing.
    """

    tries: int = 6
    most_bytes: int | None = None
    seconds: float = 3600.0
    least_bytes_s: float = 500.0
    window_s: float = 30.0


class Source(Protocol):
    """Where a repository lies."""

    @property
    def name(self) -> str:
        """How people know it; without passwords."""

    def read(self, path: str, most: int) -> bytes:
        """A small file's bytes.

        Raises:
            UpdateError: NOT_FOUND, UNREACHABLE, TOO_SLOW; TOO_LARGE when there are more than ``most`` bytes.
        """

    def fetch(self, path: str, to: Path, *, size: int, disk: Disk, budget: Budget, tell: Callable[[int], None]) -> None:
        """Have the file ``path`` of ``size`` bytes in ``to``, synced; what is in ``to`` already is its beginning.

        Whatever was written stays when this fails, and the next call goes on from there. Nothing is checked but the
        length: a digest that is wrong afterwards means that ``to`` has to be removed.

        Args:
            path: in the repository.
            to: grows; need not be there yet.
            size: of the whole file, as signed.
            disk: writes.
            budget: what it may cost.
            tell: called with the number of bytes that just came from the source, and with 0 before each pause;
                what it raises ends the fetch.

        Raises:
            UpdateError: NOT_FOUND, UNREACHABLE, TOO_SLOW, TOO_LARGE, MALFORMED; DISK or NO_SPACE of ``to``.
        """


def open_source(where: str, *, ca: Path | None = None, wait: Callable[[float], object] = time.sleep) -> Source:
    """The source at a folder's path or an ``http(s)://`` address.

    Args:
        where: as said.
        ca: certificates to trust instead of the system's, of a server with a CA of its own.
        wait: sleeps for so many seconds between tries.

    Raises:
        UpdateError: UNREACHABLE, it is neither.
    """
    if "://" in where:
        from tinysight_edge.update.http_source import HttpSource  # noqa: PLC0415 -- urllib3 is slow to import

        return HttpSource(where, ca=ca, wait=wait)
    return FolderSource(Path(where))


class FolderSource:
    """A repository in a folder: a stick, a mounted share, what was sent over SSH.

    Args:
        folder: the repository's root. It may be a link itself; nothing within it may be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self._folder)

    def read(self, path: str, most: int) -> bytes:
        """See `Source.read`."""
        try:
            with self._open(path) as file:
                data = file.read(most + 1)
        except OSError as error:
            raise self._unreadable(path, error) from error
        if len(data) > most:
            raise too_large(f"{self.name}/{path}", most)
        return data

    def fetch(self, path: str, to: Path, *, size: int, disk: Disk, budget: Budget, tell: Callable[[int], None]) -> None:
        """See `Source.fetch`."""
        have = held_bytes(to, size, disk)
        began_s = time.monotonic()
        try:
            with self._open(path) as file:
                if (found := os.fstat(file.fileno()).st_size) != size:
                    raise other_length(f"{self.name}/{path}", found, size)
                file.seek(have)
                while have < size:
                    if time.monotonic() - began_s > budget.seconds:
                        raise UpdateError(
                            f"{self.name}/{path} took longer than {budget.seconds:g} s.",
                            mend="Copy the repository to a faster medium and try again; what is here is kept.",
                            code=Code.TOO_SLOW,
                        )
                    if not (data := file.read(min(CHUNK_BYTES, size - have))):
                        raise other_length(f"{self.name}/{path}", have, size)
                    append(disk, to, data)
                    have += len(data)
                    tell(len(data))
        except OSError as error:
            raise self._unreadable(path, error) from error
        sync(disk, to)

    def _open(self, path: str) -> IO[bytes]:
        """A plain file below the folder, with no link on the way.

        Raises:
            OSError: it cannot be opened.
            UpdateError: NOT_FOUND, no such path can be in a repository, or a link is on the way.
        """
        parts = check_path(path).split("/")
        handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for number, part in enumerate(parts):
                last = number == len(parts) - 1
                flags = os.O_RDONLY | os.O_NOFOLLOW | (os.O_NONBLOCK if last else os.O_DIRECTORY)
                inner = os.open(part, flags, dir_fd=handle)
                os.close(handle)
                handle = inner
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise _no_such(f"{self.name}/{path}", "it is not a plain file")
            return os.fdopen(handle, "rb")
        except BaseException:
            os.close(handle)
            raise

    def _unreadable(self, path: str, error: OSError) -> UpdateError:
        where = f"{self.name}/{path}"
        if isinstance(error, FileNotFoundError) and self._folder.is_dir():
            return _no_such(where, "there is no such file")
        if error.errno == errno.ELOOP or (isinstance(error, NotADirectoryError) and self._folder.is_dir()):
            return _no_such(where, "a link or a file is on the way")
        return UpdateError(
            f"{where} cannot be read: {error.strerror or error}.",
            mend="Check that the folder is attached and may be read.",
            code=Code.UNREACHABLE,
        )


def check_path(path: str) -> str:
    """Return ``path`` if a repository may hold it: plain names with ``/`` between them.

    Raises:
        UpdateError: NOT_FOUND, it is absolute, leaves the repository or holds what no name here does.
    """
    parts = path.split("/")
    if len(path) > MAX_PATH or any(
        part in {"", ".", ".."} or not part.isascii() or not part.isprintable() or "\\" in part for part in parts
    ):
        raise _no_such(repr(path[:MAX_PATH]), "a repository holds no such path")
    return path


def held_bytes(to: Path, size: int, disk: Disk) -> int:
    """How much of a file of ``size`` bytes is in ``to``; what is longer than that is removed.

    Raises:
        UpdateError: DISK, it cannot be seen or removed.
    """
    try:
        have = to.stat().st_size
        if have <= size:
            return have
        disk.remove(to)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise disk_error(to, error) from error
    return 0


def append(disk: Disk, to: Path, data: bytes) -> None:
    """Add to a file.

    Raises:
        UpdateError: NO_SPACE, DISK.
    """
    try:
        disk.append(to, data)
    except OSError as error:
        raise disk_error(to, error) from error


def discard(disk: Disk, to: Path) -> None:
    """Remove a file.

    Raises:
        UpdateError: DISK.
    """
    try:
        disk.remove(to)
    except OSError as error:
        raise disk_error(to, error) from error


def sync(disk: Disk, to: Path) -> None:
    """Have a file, also one of no bytes, survive a power cut.

    Raises:
        UpdateError: NO_SPACE, DISK.
    """
    try:
        if not to.exists():
            disk.append(to, b"")
        disk.sync(to)
    except OSError as error:
        raise disk_error(to, error) from error


def disk_error(path: Path, error: OSError) -> UpdateError:
    """What it means that ``path`` cannot be written."""
    if error.errno in _FULL:
        return UpdateError(
            f"{path} cannot be written: {error.strerror}.",
            mend="Free some space, or run `tinysight store gc`, and try again.",
            code=Code.NO_SPACE,
        )
    return UpdateError(
        f"{path} cannot be written: {error.strerror or error}.",
        mend="Check the folder's rights and the health of the card.",
        code=Code.DISK,
    )


def _no_such(where: str, why: str) -> UpdateError:
    return UpdateError(
        f"{where}: {why}.", mend="Check the address, and publish the repository again.", code=Code.NOT_FOUND
    )


def too_large(where: str, most: int) -> UpdateError:
    """There is more than was asked for."""
    return UpdateError(
        f"{where} has more than {most} bytes.",
        mend="Do not use this repository before its owner has looked at it.",
        code=Code.TOO_LARGE,
    )


def other_length(where: str, found: int, size: int) -> UpdateError:
    """A file is not as long as was signed."""
    code = Code.TOO_LARGE if found > size else Code.TAMPERED
    return UpdateError(
        f"{where} has {found} bytes, {size} were signed.",
        mend="Publish the repository again: this copy of it is damaged.",
        code=code,
    )
