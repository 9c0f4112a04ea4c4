"""Differences between releases: what a device that runs one needs to make the next.

In: a new bundle and the releases before it.  Out: files in ``deltas/``, and what is signed about them. A difference is
kept only where it is clearly smaller than the bundle; the device checks what it makes of it against that digest.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from tinysight_contract.files import replace_file
from tinysight_contract.updates import Release
from tinysight_edge.update.delta import make_delta
from tinysight_edge.update.signed import Delta

__all__ = ["BASES", "make_deltas"]

BASES: Final = 3
"""How many earlier releases a difference is made to."""

WORTH_SHARE: Final = 0.7
"""A difference of more than this share of the bundle is not kept: a device would save little and calculate more."""


def make_deltas(
    repo: Path,
    new: bytes,
    bases: Iterable[tuple[Release, Path]],
    *,
    digest: str,
    tell: Callable[[str], None],
) -> dict[str, Delta]:
    """Write the differences that are worth it; by the digest of the release they start from.

    Args:
        repo: the repository's folder.
        new: the new bundle.
        bases: earlier releases and their files; what is not there is left out.
        digest: of the new bundle.
        tell: told what is done, for people.

    Raises:
        OSError: the disk is full or not writable.
    """
    made: dict[str, Delta] = {}
    for release, path in bases:
        if release.digest == digest or not path.exists():
            continue
        tell(f"Difference to {release.name} {release.version}")
        difference = make_delta(path.read_bytes(), new)
        if len(difference) > WORTH_SHARE * len(new):
            continue
        name = f"deltas/{release.digest}-{digest}.delta"
        replace_file(repo / name, difference)
        made[release.digest] = Delta(
            path=name, size_bytes=len(difference), sha256=hashlib.sha256(difference).hexdigest()
        )
    return made
