"""The part of a repository that one device needs: a folder that is a repository by itself.

In: a checked state of the metadata, what the device runs.  Out: all roots, timestamp, snapshot, targets, the project's
metadata, and either the difference from what it runs or the whole bundle. Bundles are hard links where that is
possible: the folder is to be read and thrown away.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tinysight_contract.errors import ConfigError
from tinysight_deploy.signing.metadata import Chain

__all__ = ["Choice", "Payload", "choose", "cut"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which file brings a bundle to a device.

    Attributes:
        path: of the delta or the whole bundle, in the repository; empty when the device runs this very bundle.
        why_full: why it is not a delta, for people; else empty.
    """

    path: str
    why_full: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What a slice holds.

    Attributes:
        transfer: ``delta``, ``full``, or ``none`` when the device runs this very bundle.
        why_full: why it is not a delta, for people; else empty.
        path: of the delta or the bundle in the folder; empty when there is none.
        size_bytes: of that file.
        files: all files of the folder by their paths, in the order in which they are best sent: timestamp last.
        total_bytes: of all of them.
    """

    transfer: str
    why_full: str
    path: str
    size_bytes: int
    files: tuple[str, ...]
    total_bytes: int


def choose(repo: Path, *, digest: str, full: str, deltas: Mapping[str, str], base: str | None) -> Choice:
    """Choose the smallest that is there.

    Args:
        repo: the repository's folder.
        digest: of the bundle.
        full: the path of the bundle in the repository.
        deltas: by the digest of the bundle that they start from, their paths.
        base: the digest of what the device runs.
    """
    if base == digest:
        return Choice("", "")
    if base is None:
        return Choice(full, "the device runs no bundle yet")
    if base not in deltas:
        return Choice(full, f"the repository holds no difference from what the device runs ({base[:12]})")
    if not (repo / deltas[base]).exists():
        return Choice(full, f"{deltas[base]} is missing in the repository")
    return Choice(deltas[base], "")


def cut(repo: Path, chain: Chain, to: Path, *, project: str, full: str, choice: Choice, root_version: int) -> Payload:
    """Make the folder.

    Args:
        repo: the repository's folder.
        chain: its state.
        to: the folder to make.
        project: whose release it is.
        full: the path of the bundle in the repository.
        choice: what is to be in it.
        root_version: of the newest root that the device has.

    Raises:
        ConfigError: the file is missing in the repository.
        OSError: the folder cannot be written.
    """
    path = choice.path
    files = [] if not path else [path]
    if path:
        _link(repo / path, to / path)
    metadata = {f"{number}.root.json": raw for number, raw in enumerate(chain.roots, 1) if number >= root_version}
    for role in (project, "targets", "snapshot"):
        metadata[f"{chain.of(role).signed.version}.{role}.json"] = chain.of(role).to_bytes()
    metadata["timestamp.json"] = chain.timestamp.to_bytes()
    (to / "metadata").mkdir(parents=True, exist_ok=True)
    for name, raw in metadata.items():
        (to / "metadata" / name).write_bytes(raw)
        files.append(f"metadata/{name}")
    size = (to / path).stat().st_size if path else 0
    return Payload(
        transfer="none" if not path else "full" if path == full else "delta",
        why_full=choice.why_full,
        path=path,
        size_bytes=size,
        files=tuple(files),
        total_bytes=size + sum(map(len, metadata.values())),
    )


def _link(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.unlink(missing_ok=True)
    try:
        os.link(source, to)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{source} is missing.", mend="Bring it back from the web server or a backup, or retire the release."
        ) from error
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, to)
