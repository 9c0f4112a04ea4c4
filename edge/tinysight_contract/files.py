"""Files that are the old one or the new one, never half.

Standard library only. A power cut at any moment leaves either the previous content or the new content under
the final name; the only thing it may leave behind besides is a ``.part`` file that nobody reads.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["fsync_folder", "locked", "read_capped", "replace_file", "sha256_of"]

_CHUNK_BYTES = 1 << 20


def fsync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut.

    Raises:
        OSError: the folder cannot be opened.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path, busy: Exception) -> Iterator[None]:
    """Have a folder to oneself while the ``with`` lasts; the lock ends with the process, however it ends.

    Raises:
        OSError: the folder cannot be opened.
        Exception: ``busy``, when another process has it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy from error
        yield
    finally:
        os.close(handle)


def read_capped(path: Path, most: int) -> bytes:
    """The file's bytes, but no more than ``most`` + 1: enough to see that it holds too many, or never ends.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as source:
        return source.read(most + 1)


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` under ``path`` so that a reader sees the old bytes or the new, never a part.

    The temporary file lies in the same folder, is synced before the rename, and is removed when writing fails.

    Raises:
        OSError: the disk is full, the folder is missing or not writable; ``path`` is then as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as 64 hex digits, read in chunks.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
