"""What a store knows without its state: beside each bundle that was confirmed lies a note of what it was signed as.

In: the folder of the bundles.  Out: the `State` that it comes to. A bundle whose test was not over has no note, so it
does not run; but where there are no notes at all, a bundle that is whole is better than none.
"""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BundleError
from tinysight_contract.files import read_capped
from tinysight_contract.updates import Code, Release
from tinysight_edge.update.update import Bad, State, project_of

__all__ = ["Note", "checked", "salvage", "unchecked"]

MAX_NOTE_BYTES: Final = 16 * 1024


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Of a bundle.

    Attributes:
        release: what it was confirmed as.
        left: whether it failed or was given up since.
    """

    release: Release
    left: bool = False


def checked(what: msgspec.Struct) -> bytes:
    """A line of JSON and its SHA-256."""
    line = msgspec.json.encode(what, order="sorted")
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


def unchecked(raw: bytes) -> bytes | None:
    """The line, or None when it is damaged."""
    line, _, check = raw.partition(b"\n")
    return line if hashlib.sha256(line).hexdigest().encode() == check.strip() else None


def salvage(bundles: Path) -> State:
    """The newest that was confirmed is active, and not one that was left; where there are no notes, the newest."""
    notes = [note for path in sorted(bundles.glob("[!.]*.json")) if (note := _read(path)) is not None]
    notes.sort(key=lambda each: (not each.left, each.release.release), reverse=True)
    found = [each.release for each in notes] or _of_themselves(bundles)
    floor: dict[str, int] = {}
    for each in found:
        project = project_of(each.target)
        floor[project] = max(floor.get(project, 0), each.release)
    whole = [each for each in found if _is_whole(bundles / f"{each.digest}.bundle", each.digest)]
    bad = [Bad(digest=each.release.digest, code=Code.OPERATOR) for each in notes if each.left]
    return State(
        active=whole[0] if whole else None, previous=whole[1] if len(whole) > 1 else None, floor=floor, bad=bad
    )


def _read(path: Path) -> Note | None:
    """What a bundle was confirmed as; None when that cannot be read."""
    try:
        line = unchecked(read_capped(path, MAX_NOTE_BYTES))
        note = None if line is None else msgspec.json.decode(line, type=Note)
    except (OSError, msgspec.MsgspecError, RecursionError):
        return None
    return note if note is not None and note.release.digest == path.stem else None


def _is_whole(path: Path, digest: str) -> bool:
    try:
        Bundle.open(path, digest=digest)
    except BundleError:
        return False
    return True


def _of_themselves(bundles: Path) -> list[Release]:
    """What whole bundles say of themselves, the newest first. Their names were given after they were verified."""
    found: list[Release] = []
    for path in sorted(bundles.glob("*.bundle")):
        with suppress(BundleError):
            bundle = Bundle.open(path)
            if bundle.digest == path.stem:
                found.append(_release_of(bundle))
    return sorted(found, key=lambda each: each.release, reverse=True)


def _release_of(bundle: Bundle) -> Release:
    manifest = bundle.manifest
    return Release(
        target=f"{manifest.name}/{manifest.name}-{manifest.version}.bundle",
        digest=bundle.digest,
        size_bytes=bundle.size_bytes,
        name=manifest.name,
        version=manifest.version,
        release=manifest.release,
    )
