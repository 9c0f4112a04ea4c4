"""Who writes a store: always its owner, so that no file of root's keeps the agent out of it.

In: the store's folder.  Out: a process that is its owner, for good or for a while. Root alone can do that; for all
others nothing changes. A store that is not there yet has the owner of the nearest folder above it.
"""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["acting_as_owner", "become_owner"]


def become_owner(root: Path) -> None:
    """Be the store's owner from now on, with no way back.

    Raises:
        OSError: the folder cannot be looked at, or this is a root that may not change who it is.
    """
    if (owner := _other_owner(root)) is not None:
        uid, gid = owner
        os.setgroups(_groups(uid, gid))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


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


def _groups(uid: int, gid: int) -> list[int]:
    """Those of the user, such as one that may use an accelerator."""
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]
