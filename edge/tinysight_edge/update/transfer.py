"""Get a signed bundle's bytes: the difference to the active one where that was released, else the whole file.

In: a `Source`, what was signed, the store.  Out: the file under its digest, whole and checked, and `Moved`: what that
took. What came is never believed: the length, the SHA-256 and the manifest must be those that were signed.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BundleError, UpdateError
from tinysight_contract.files import read_capped, sha256_of
from tinysight_contract.updates import Code, Release
from tinysight_edge.store import Store
from tinysight_edge.update.signed import Signed
from tinysight_edge.update.sources import Budget, Source

__all__ = ["Moved", "bring", "payload_path", "room"]

log = logging.getLogger(__name__)

RESERVE_BYTES: Final = 16 << 20
"""Stays free for what else the device writes."""
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


def payload_path(release: Release) -> str:
    """Where a repository has the whole file."""
    folder, _, name = release.target.rpartition("/")
    return f"targets/{folder}/{release.digest}.{name}"


def room(store: Store, release: Release) -> int:
    """How many bytes are missing on the disk to take a bundle in; 0 when it fits.

    Raises:
        OSError: the disk does not say.
    """
    need = release.size_bytes - _size(store.part(release.digest)) + RESERVE_BYTES
    return max(need - store.disk.free_bytes(store.root), 0)


def bring(
    store: Store,
    source: Source,
    release: Release,
    signed: Signed,
    *,
    active: Release | None,
    budget: Budget,
    tell: Callable[[int], None],
) -> Moved:
    """Have the bundle in the store under its digest. Goes on where an earlier call ended.

    Args:
        store: where to; held by the caller.
        source: the repository.
        release: what was signed.
        signed: what was signed of it.
        active: what the difference is to; None for nothing.
        budget: what it may cost.
        tell: hears how many bytes just came; what it raises breaks off.

    Raises:
        UpdateError: it cannot be had, or is something else.
        OSError: the disk is full or broken.
    """
    part, moved = store.part(release.digest), 0

    def came(count: int) -> None:
        nonlocal moved
        moved += count
        tell(count)

    try:
        why = _by_difference(store, source, release, signed=signed, active=active, budget=budget, tell=came)
    except UpdateError as error:
        why = error.what
    if why and active is not None:
        log.info("%s %s comes whole: %s", release.name, release.version, why)
    while True:
        here = _size(part)
        if why:
            source.fetch(
                payload_path(release), part, size=release.size_bytes, disk=store.disk, budget=budget, tell=came
            )
        try:
            _check(part, release)
            break
        except UpdateError as error:
            store.disk.remove(part)
            if error.code is not Code.TAMPERED or not why or not here:
                raise
            log.warning("What was here of %s %s is damaged, as by a power cut.", release.name, release.version)
    store.disk.rename(part, store.path(release.digest))
    store.disk.sync_folder(part.parent)
    return Moved(moved, why)


def _by_difference(
    store: Store,
    source: Source,
    release: Release,
    *,
    signed: Signed,
    active: Release | None,
    budget: Budget,
    tell: Callable[[int], None],
) -> str:
    """Make the bundle of the active one; why that was not done, or nothing."""
    from tinysight_edge.update.delta import apply_delta  # noqa: PLC0415 -- zstd is needed here alone

    if active is None:
        return "Nothing is active here."
    delta = signed.deltas.get(active.digest)
    if delta is None:
        return f"No difference to {active.name} {active.version} was released."
    try:
        base = store.path(active.digest).read_bytes()
    except OSError:
        return f"The file of {active.name} {active.version} cannot be read."
    part = store.part(release.digest)
    if release.size_bytes - _size(part) <= delta.size_bytes:
        return "The rest of an earlier transfer is smaller than the difference."
    path = part.with_name(f"{release.digest}.delta.part")
    source.fetch(delta.path, path, size=delta.size_bytes, disk=store.disk, budget=budget, tell=tell)
    raw = read_capped(path, delta.size_bytes)
    try:
        if hashlib.sha256(raw).hexdigest() != delta.sha256:
            return "The difference was damaged on its way."
        made = apply_delta(base, raw, size=release.size_bytes, digest=release.digest)
    finally:
        store.disk.remove(path)
    store.disk.remove(part)
    store.disk.append(part, made)
    store.disk.sync(part)
    return ""


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
