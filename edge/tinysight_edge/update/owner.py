"""Who writes a store: always its owner, so that no file of root's keeps the agent out of it.

In: the store's folder.  Out: a process that is its owner, for good or for a while. Root alone can do that; for all
others nothing changes. A store that is not there yet has the owner of the nearest folder above it. What root may read
is still read, such as a repository in root's home or on somebody's stick: of root's powers, that one is kept.
"""

import ctypes
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["acting_as_owner", "become_owner"]

_KEEP_POWERS: Final = 8  # PR_SET_KEEPCAPS of prctl(2)
_READ_ALL: Final = 1 << 2  # CAP_DAC_READ_SEARCH
_VERSION: Final = 0x20080522  # of capset(2)


def become_owner(root: Path) -> None:
    """Be the store's owner from now on, with no way back.

    Raises:
        OSError: the folder cannot be looked at, or this is a root that may not change who it is.
    """
    if (owner := _other_owner(root)) is not None:
        uid, gid = owner
        os.setgroups(_groups(uid, gid))
        os.setresgid(gid, gid, gid)
        ctypes.CDLL(None).prctl(_KEEP_POWERS, 1, 0, 0, 0)
        os.setresuid(uid, uid, uid)
        _read_all(for_good=True)


@contextmanager
def acting_as_owner(root: Path) -> Iterator[None]:
    """Touch files as the store's owner as long as the ``with`` lasts. For a process of one thread's doing.

    Raises:
        OSError: as `become_owner`.
    """
    if (owner := _other_owner(root)) is None:
        yield
        return
    before = os.getegid(), os.getgroups()
    try:
        os.setgroups([])
        os.setegid(owner[1])
        os.seteuid(owner[0])
        _read_all(for_good=False)
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[0])
        os.setgroups(before[1])


def _other_owner(root: Path) -> tuple[int, int] | None:
    """Whose the store is, for root; None when that is root too, or nobody is root here."""
    if os.geteuid() != 0:
        return None
    there = next(each for each in (root.absolute(), *root.absolute().parents) if each.exists())
    found = there.stat()
    return (found.st_uid, found.st_gid) if found.st_uid != 0 else None


def _read_all(*, for_good: bool) -> None:
    """Have of root's powers this one alone, if it is had at all; ``for_good`` gives the others up."""
    libc = ctypes.CDLL(None)
    header, powers = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, powers) != 0 or not powers[1] & _READ_ALL:
        return
    powers[0], powers[3] = _READ_ALL, 0  # effective; then permitted and inheritable, 32 of each at a time
    if for_good:
        powers[1], powers[4] = _READ_ALL, 0
        powers[2] = powers[5] = 0
    libc.capset(header, powers)


def _groups(uid: int, gid: int) -> list[int]:
    """Those of the user, such as one that may use an accelerator."""
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]
