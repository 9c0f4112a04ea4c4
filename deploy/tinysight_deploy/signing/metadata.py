"""The signed files of a repository: read and checked from the first root on, changed, and written in a safe order.

::

    metadata/N.root.json  N.targets.json  N.PROJECT.json  N.snapshot.json  timestamp.json

``timestamp.json`` is the only commit point: it names a snapshot, which names the rest, each by version. A file with a
version in its name is written before anything names it, and what it says never changes, so a reader sees the state
before or the state after. A root counts from the moment it is there; how that stays consistent is in `rotation`, which
may add a signature to what is there.
"""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar, cast

import msgspec
from securesystemslib.signer import Key, Signer  # type: ignore[attr-defined]  # public, though not listed
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # public, though not listed
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import read_capped, replace_file
from tinysight_deploy.signing.keys import Signers
from tinysight_edge.update.tuf_client import LIMITS

__all__ = ["TOP", "Chain", "Days", "Policy", "ends", "publish", "sign", "signers_for"]

TOP: Final = ("root", "targets", "snapshot", "timestamp")
KEPT_VERSIONS: Final = 10
MAX_METADATA_BYTES: Final = 8 << 20
POLICY_FIELD: Final = "x-tinysight"
_BACKUP: Final = "Bring the repository back from its web server or a backup."

T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


class Days(msgspec.Struct, frozen=True):
    """How long each role's signature holds."""

    root: int
    targets: int
    snapshot: int
    timestamp: int


class Policy(msgspec.Struct, frozen=True):
    """What was chosen at ``keys init``; stands in the root, signed.

    Attributes:
        kind: ``hobby`` is one key for everything, ``fleet`` a key for each role.
        days: how long signatures hold.
    """

    kind: Literal["hobby", "fleet"]
    days: Days


@dataclass(frozen=True, slots=True)
class Chain:
    """A consistent state of the metadata, each part checked against what names it.

    Attributes:
        roots: the bytes of every root, the first one first.
        projects: by the role's name.
    """

    roots: Sequence[bytes]
    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    projects: dict[str, Metadata[Targets]]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the state that ``timestamp.json`` names. How long it holds is not looked at.

        Raises:
            ConfigError: there is none, or a part is missing, damaged or not signed by whom it must be.
            OSError: a file cannot be read.
        """
        roots, root = _roots(folder)
        timestamp = _load(folder / "timestamp.json", Timestamp, root.signed, "timestamp")
        at = timestamp.signed.snapshot_meta.version
        snapshot = _load(folder / f"{at}.snapshot.json", Snapshot, root.signed, "snapshot", at)
        at = _named(snapshot.signed, "targets")
        targets = _load(folder / f"{at}.targets.json", Targets, root.signed, "targets", at)
        projects = {}
        for name in _delegated(targets.signed):
            at = _named(snapshot.signed, name)
            projects[name] = _load(folder / f"{at}.{name}.json", Targets, targets.signed, name, at)
        return cls(roots, root, targets, snapshot, timestamp, projects)

    @property
    def policy(self) -> Policy:
        """What was chosen at ``keys init``.

        Raises:
            ConfigError: the root does not say.
        """
        try:
            return msgspec.convert(self.root.signed.unrecognized_fields.get(POLICY_FIELD), Policy)
        except msgspec.ValidationError as error:
            raise ConfigError(f"The root has no policy: {error}.", mend="Begin with `tinysight keys init`.") from error

    def roles(self) -> list[str]:
        """All, in the order in which they vouch for each other."""
        return ["root", "targets", *sorted(self.projects), "snapshot", "timestamp"]

    def of(self, role: str) -> Metadata[Any]:
        """A role's metadata."""
        tops: dict[str, Metadata[Any]] = {
            "root": self.root, "targets": self.targets, "snapshot": self.snapshot, "timestamp": self.timestamp
        }  # fmt: skip
        return tops.get(role) or self.projects[role]

    def delegator(self, role: str) -> Root | Targets:
        """Who says which keys a role has."""
        return self.root.signed if role in TOP else self.targets.signed

    def keys(self, role: str) -> list[Key]:
        """The keys of a role, in the order in which they are named."""
        delegator = self.delegator(role)
        return [delegator.get_key(keyid) for keyid in delegator.get_delegated_role(role).keyids]

    def threshold(self, role: str) -> int:
        """How many of its keys must sign."""
        return int(self.delegator(role).get_delegated_role(role).threshold)

    def lives(self, role: str) -> timedelta:
        """How long a new signature of this role holds."""
        days = self.policy.days
        return timedelta(days=getattr(days, role) if role in TOP else days.targets)

    def copied(self) -> Self:
        """The same, to be changed."""
        return copy.deepcopy(self)


def ends(now: datetime, days: int) -> datetime:
    """When a signature ends that holds so many days."""
    return (now + timedelta(days=days)).replace(microsecond=0)


def signers_for(chain: Chain, role: str, signers: Signers) -> list[Signer]:
    """What signs for a role: all of its keys that are here.

    Raises:
        ConfigError: they are too few; it names the files that are missing.
        OSError: a key's file cannot be read.
    """
    keys = chain.keys(role)
    found = [(key, signers.find(key)) for key in keys]
    here = [signer for _, signer in found if signer is not None]
    if missing := chain.threshold(role) - len(here):
        if missing < 0:
            return here
        absent = [signers.place_of(key) for key, signer in found if signer is None]
        several = f"{missing} of these keys" if len(absent) > 1 else "this key"
        raise ConfigError(
            f"To sign {role}, {several} must be here: {', '.join(absent)}.",
            mend="Bring it back for as long as it takes, or run this where it is.",
        )
    return here


def sign(metadata: Metadata[Any], signers: Iterable[Signer]) -> None:
    """Sign anew; earlier signatures go."""
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)


def publish(folder: Path, chain: Chain, changed: Iterable[str], signers: Signers, *, now: datetime) -> None:
    """Give changed roles their next version, sign them, the snapshot and the timestamp, and write: timestamp last.

    Nothing is written unless everything can be signed. ``chain`` is then what is published.

    Raises:
        ConfigError: a key is not here, or cannot be used.
        OSError: the disk is full or not writable; what is published is as it was.
    """
    roles = sorted({*changed} - set(TOP)) + [role for role in ("targets", "snapshot", "timestamp")
                                             if role != "targets" or role in {*changed}]  # fmt: skip
    able = {role: signers_for(chain, role, signers) for role in roles}
    files: dict[Path, bytes] = {}
    for role in roles:
        metadata = chain.of(role)
        highest = max([metadata.signed.version, *_versions(folder, role)])
        metadata.signed.version = highest + 1
        metadata.signed.expires = (now + chain.lives(role)).replace(microsecond=0)
        if role == "snapshot":
            chain.timestamp.signed.snapshot_meta = MetaFile(version=highest + 1)
        elif role != "timestamp":
            chain.snapshot.signed.meta[f"{role}.json"] = MetaFile(version=highest + 1)
        sign(metadata, able[role])
        raw = metadata.to_bytes()
        _refuse_size(role, len(raw))
        files[folder / ("timestamp.json" if role == "timestamp" else f"{highest + 1}.{role}.json")] = raw
    for path, data in files.items():
        replace_file(path, data)
    _prune(folder, chain)


def _refuse_size(role: str, size_bytes: int) -> None:
    """Refuse to publish what no device would read."""
    most = getattr(LIMITS, f"{role if role in TOP else 'targets'}_max_length")
    if size_bytes > most:
        raise ConfigError(
            f"What {role} signs would have {size_bytes} bytes; devices read {most} at most.",
            mend="Retire releases that nobody needs with `tinysight release retire`, or begin another --project.",
        )


def _prune(folder: Path, chain: Chain) -> None:
    """Remove what has long been replaced; never a root, which each device may need from its own on."""
    for role in chain.roles():
        if role not in {"root", "timestamp"}:
            current = chain.of(role).signed.version
            old = sorted((version for version in _versions(folder, role) if version < current), reverse=True)
            for version in old[KEPT_VERSIONS - 1 :]:
                (folder / f"{version}.{role}.json").unlink(missing_ok=True)


def _versions(folder: Path, role: str) -> list[int]:
    """Of a role's files that are there, whether or not anything names them."""
    pattern = re.compile(rf"([1-9]\d{{0,9}})\.{re.escape(role)}\.json")
    return [int(found[1]) for path in folder.iterdir() if (found := pattern.fullmatch(path.name))]


def _roots(folder: Path) -> tuple[list[bytes], Metadata[Root]]:
    """All roots, each signed by itself and by the one before it."""
    first = folder / "1.root.json"
    if not first.exists() or not (folder / "timestamp.json").exists():
        raise ConfigError(f"There is no repository in {folder.parent}.", mend="Make one with `tinysight keys init`.")
    raws, root = [read_capped(first, MAX_METADATA_BYTES)], _load(first, Root, None, "root", 1)
    while (path := folder / f"{root.signed.version + 1}.root.json").exists():
        root = _load(path, Root, root.signed, "root", root.signed.version + 1)
        raws.append(read_capped(path, MAX_METADATA_BYTES))
    return raws, root


def _load(
    path: Path, kind: type[T], delegator: Root | Targets | None, role: str, version: int | None = None
) -> Metadata[T]:
    try:
        raw = read_capped(path, MAX_METADATA_BYTES)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing.", mend=_BACKUP) from error
    try:
        if len(raw) > MAX_METADATA_BYTES:
            raise ConfigError(f"{path} has more than {MAX_METADATA_BYTES} bytes.", mend=_BACKUP)
        metadata = Metadata[Any].from_bytes(raw)
        if not isinstance(metadata.signed, kind):
            raise ConfigError(f"{path} is not about {kind.type}.", mend=_BACKUP)
        for who in (delegator, metadata.signed if kind is Root else None):
            if who is not None:
                who.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (DeserializationError, RepositoryError, ValueError, KeyError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is damaged or not signed by its keys: {error}.", mend=_BACKUP) from error
    if version is not None and metadata.signed.version != version:
        raise ConfigError(f"{path} holds version {metadata.signed.version}.", mend=_BACKUP)
    return cast("Metadata[T]", metadata)


def _named(snapshot: Snapshot, role: str) -> int:
    meta: Mapping[str, MetaFile] = snapshot.meta
    if f"{role}.json" not in meta:
        raise ConfigError(f"The snapshot does not name {role}.", mend=_BACKUP)
    return int(meta[f"{role}.json"].version)


def _delegated(targets: Targets) -> list[str]:
    if targets.delegations is None or targets.delegations.roles is None:
        return []
    return sorted(targets.delegations.roles)
