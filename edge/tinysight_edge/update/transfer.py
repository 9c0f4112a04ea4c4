"""Get a signed bundle's bytes: the difference to the active one where that was released, else the whole file.

In: a `Source`, what was signed, the store.  Out: the file under its digest, whole and checked, and `Moved`: what that
took. What came is never believed: the length, the SHA-256 and the manifest must be those that were signed.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BundleError, UpdateError
from tinysight_contract.files import read_capped, sha256_of
from tinysight_contract.updates import Code, Release
from tinysight_edge.store import Store
from tinysight_edge.update.memory import free_mib
from tinysight_edge.update.sources import Budget, Source
from tinysight_edge.update.trust import Offer
from tinysight_edge.update.update import State

__all__ = ["Moved", "bring", "make_room"]

log = logging.getLogger(__name__)

RESERVE_BYTES: Final = 16 << 20
"""Stays free for what else the device writes."""
TIMES: Final = 4
"""So many times a bundle's size it takes in memory to make it of its difference: both bundles, and zstd's own."""
_AGAIN: Final = "Release the bundle again."


@dataclass(frozen=True, slots=True)
class Moved:
    """What it took.

    Attributes:
        size_bytes: transferred.
        why_full: why the whole file was; empty when the difference was enough.
    """

    size_bytes: int
    why_full: str


def make_room(store: Store, state: State, release: Release) -> State:
    """See that a bundle has room; the one before the active one goes if that makes it. What is saved then.

    Raises:
        UpdateError: NO_SPACE, there is none.
        OSError: the disk is full or broken.
    """
    store.sweep(state)
    missing, before = _missing(store, release), state.previous
    spare = 0 if before is None or before.digest == release.digest else _size(store.path(before.digest))
    if before is not None and 0 < missing <= spare:
        log.warning("%s %s makes room; there is no way back to it.", before.name, before.version)
        state = replace(state, previous=None)
        store.save(state)
        store.sweep(state)
        missing = _missing(store, release)
    if missing:
        what = f"{store.root} has {-(-missing >> 20)} MiB too few for {release.name} {release.version}."
        raise UpdateError(what, mend="Free some space on the device.", code=Code.NO_SPACE)
    return state


def _missing(store: Store, release: Release) -> int:
    """How many bytes are missing on the disk to take a bundle in; 0 when it fits.

    Raises:
        OSError: the disk does not say.
    """
    need = release.size_bytes - _size(store.part(release.digest)) + RESERVE_BYTES
    return max(need - store.disk.free_bytes(store.root), 0)


def bring(
    store: Store,
    source: Source,
    offer: Offer,
    *,
    active: Release | None,
    budget: Budget,
    tell: Callable[[int], None],
) -> Moved:
    """Have the bundle in the store under its digest. Goes on where an earlier call ended.

    Args:
        store: where to; held by the caller.
        source: the repository.
        offer: what was signed.
        active: what the difference is to; None for nothing.
        budget: what it may cost.
        tell: hears how many bytes just came; what it raises breaks off.

    Raises:
        UpdateError: it cannot be had, or is something else.
        OSError: the disk is full or broken.
    """
    release, moved = offer.release, 0
    part, tried = store.part(release.digest), _tried(store, release)
    for path in (part, _difference(store, release)):
        if path.exists() and not os.access(path, os.W_OK):  # somebody else's, as root's
            store.disk.remove(path)

    def came(count: int) -> None:
        nonlocal moved
        moved += count
        tell(count)

    try:
        why = _by_difference(store, source, offer, active=active, budget=budget, tell=came)
    except UpdateError as error:
        if error.code is Code.SUPERSEDED:
            raise
        why = error.what
    if why and active is not None:
        log.info("%s %s comes whole: %s", release.name, release.version, why)
    while True:
        here = _size(part)
        if why:
            source.fetch(offer.path, part, size=release.size_bytes, disk=store.disk, budget=budget, tell=came)
        try:
            _check(part, release)
            break
        except UpdateError as error:
            store.disk.remove(part)
            if error.code is not Code.TAMPERED or not why or not here:
                raise
            log.warning("What was here of %s %s is damaged, as by a power cut.", release.name, release.version)
    if tried.exists():
        store.disk.remove(tried)
    store.disk.rename(part, store.path(release.digest))
    store.disk.sync_folder(part.parent)
    return Moved(moved, why)


def _by_difference(
    store: Store,
    source: Source,
    offer: Offer,
    *,
    active: Release | None,
    budget: Budget,
    tell: Callable[[int], None],
) -> str:
    """Make the bundle of the active one; why that was not done, or nothing.

    That takes memory, and may end the process on a small device. So it is done once: where an earlier try has left what
    it began with, the whole file is fetched.
    """
    from tinysight_edge.update.delta import apply_delta  # noqa: PLC0415 -- zstd is needed here alone

    release = offer.release
    if active is None:
        return "Nothing is active here."
    delta = offer.signed.deltas.get(active.digest)
    if delta is None:
        return f"No difference to {active.name} {active.version} was released."
    part, path, tried = store.part(release.digest), _difference(store, release), _tried(store, release)
    if tried.exists():
        return "An earlier try to make it of the difference did not come to an end."
    if release.size_bytes - _size(part) <= delta.size_bytes:
        return "The rest of an earlier transfer is smaller than the difference."
    need_mib = TIMES * max(release.size_bytes, active.size_bytes) >> 20
    if need_mib > free_mib():
        return f"To make it of the difference takes {need_mib} MiB of memory, which are not free."
    source.fetch(delta.path, path, size=delta.size_bytes, disk=store.disk, budget=budget, tell=tell)
    store.disk.rename(path, tried)
    try:
        raw, base = read_capped(tried, delta.size_bytes), store.path(active.digest).read_bytes()
        if hashlib.sha256(raw).hexdigest() != delta.sha256:
            return "The difference was damaged on its way."
        made = apply_delta(base, raw, size=release.size_bytes, digest=release.digest)
    except MemoryError:
        return "There is too little memory to make it of the difference."
    except OSError as error:
        return f"The file of {active.name} {active.version}, or the difference to it, cannot be read: {error.strerror}."
    finally:
        store.disk.remove(tried)
    store.disk.remove(part)
    store.disk.append(part, made)
    store.disk.sync(part)
    return ""


def _difference(store: Store, release: Release) -> Path:
    """Where the difference comes in."""
    return store.part(release.digest).with_suffix(".delta.part")


def _tried(store: Store, release: Release) -> Path:
    """Where it lies while the bundle is made of it."""
    return store.part(release.digest).with_suffix(".tried.part")


def _check(part: Path, release: Release) -> None:
    """See that a file is what was signed. Its own release number is what it was packed with; the signed one counts.

    Raises:
        UpdateError: it is not.
        OSError: it cannot be read.
    """
    if part.stat().st_size != release.size_bytes or sha256_of(part) != release.digest:
        what = f"{release.name} {release.version} is not what was signed: its bytes differ."
        raise UpdateError(what, mend="Copy the repository again; if it stays, look who changes it.", code=Code.TAMPERED)
    try:
        manifest = Bundle.open(part).manifest
    except BundleError as error:
        code = Code.SCHEMA if "has schema" in error.what else Code.MALFORMED
        raise UpdateError(error.what, mend=error.mend, code=code) from error
    said = (manifest.name, manifest.version)
    if said != (release.name, release.version):
        what = f"It was signed as {release.name} {release.version} and says that it is {said[0]} {said[1]}."
        raise UpdateError(what, mend=_AGAIN, code=Code.MALFORMED)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
