"""Locks of a store: files that processes hold, and that nobody holds once they are gone, however they ended.

A lock is taken on a file that may be read, so it does not matter whose the file is.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["hold", "is_held"]


@contextmanager
def hold(path: Path, *, alone: bool) -> Iterator[None]:
    """Hold a lock as long as the ``with`` lasts: alone, or beside others who do not want to be alone.

    Raises:
        BlockingIOError: to be alone is not possible now.
        OSError: the file cannot be made.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with suppress(PermissionError):
            os.fchmod(handle, 0o644)  # whatever the umask is
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)  # to ask takes but a moment
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether somebody holds it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
