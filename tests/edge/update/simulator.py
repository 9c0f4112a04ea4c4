"""A repository in memory that signs on demand, and forgets nothing that it ever published.

It is a `Source` itself; ``write(folder)`` makes a folder or a web root of it. Its metadata may be changed by hand
between ``publish`` calls: ``root``, ``targets``, ``projects``, ``snapshot``, ``timestamp`` are tuf's own objects.
``faults`` of a path are raised, ``changed`` bytes are served instead of what was published.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Signer  # type: ignore[attr-defined]  # public, but not listed as such
from tuf.api.metadata import (  # type: ignore[attr-defined]  # they are public, but not listed as such
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.sources import Budget

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
Budgeted = Budget()


def new_signer() -> Signer:
    return CryptoSigner.generate_ed25519()


def silent(_: int) -> None:
    """Tells nobody."""


class Repository:
    """A repository as the workstation makes it.

    Attributes:
        files: all that was ever published, by path.
        signers: who signs for each role, and for each project.
        asked: paths that were read, in order.
    """

    name = "the simulated repository"

    def __init__(
        self, *projects: str, now: datetime = NOW, root_keys: int = 1, root_threshold: int = 1, hashes: bool = True
    ) -> None:
        self.now, self.hashes = now, hashes
        self.files: dict[str, bytes] = {}
        self.changed: dict[str, bytes] = {}
        self.faults: dict[str, UpdateError] = {}
        self.asked: list[str] = []
        self.signers: dict[str, list[Signer]] = {"root": [new_signer() for _ in range(root_keys)]}
        self.root = Root(expires=now + timedelta(days=3650), consistent_snapshot=True)
        self.targets = Targets(expires=now + timedelta(days=365), delegations=Delegations(keys={}, roles={}))
        self.snapshot = Snapshot(expires=now + timedelta(days=30))
        self.timestamp = Timestamp(expires=now + timedelta(days=7))
        self.projects: dict[str, Targets] = {}
        for signer in self.signers["root"]:
            self.root.add_key(signer.public_key, "root")
        self.root.roles["root"].threshold = root_threshold
        for role in ("targets", "snapshot", "timestamp"):
            self.new_key(role)
        for project in projects:
            self.add_project(project)
        self.publish_root()
        self.publish()

    def new_key(self, role: str) -> Signer:
        """Replace a role's keys by a new one; the root is not published yet."""
        for key in list(self.root.roles[role].keyids):
            self.root.revoke_key(key, role)
        signer = new_signer()
        self.root.add_key(signer.public_key, role)
        self.signers[role] = [signer]
        return signer

    def add_project(self, project: str, *paths: str) -> Targets:
        """Delegate ``<project>/*``, or ``paths``, to a new key."""
        signer = new_signer()
        delegations = self.targets.delegations
        assert delegations is not None
        assert delegations.roles is not None
        delegations.roles[project] = DelegatedRole(
            project, [], 1, terminating=True, paths=list(paths or (f"{project}/*",))
        )
        self.targets.add_key(signer.public_key, project)
        self.signers[project] = [signer]
        self.projects[project] = Targets(expires=self.now + timedelta(days=365))
        return self.projects[project]

    def add(
        self,
        target: str,
        bundle: bytes = b"a bundle",
        *,
        by: str | None = None,
        release: int = 1,
        released_at: datetime | None = None,
        **custom: Any,
    ) -> str:
        """Sign ``<project>/<name>-<version>.bundle``, by its project or another; published with the next `publish`."""
        project, _, file = target.partition("/")
        name, _, version = file.removesuffix(".bundle").rpartition("-")
        digest = hashlib.sha256(bundle).hexdigest()
        found = TargetFile(len(bundle), {"sha256": digest}, target)
        at = (released_at or self.now).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        said = {"name": name, "version": version, "release": release, "released_at": at, **custom}
        found.unrecognized_fields["custom"] = {key: value for key, value in said.items() if value is not None}
        signed = self.targets if by == "targets" else self.projects[by or project]
        signed.targets[target] = found
        self.files[f"targets/{project}/{digest}.{file}"] = bundle
        return target

    def publish_root(self, *, signers: list[Signer] | None = None) -> bytes:
        """Publish the root as it is now; what rotates keys raises ``root.version`` before."""
        raw = _signed(self.root, signers or self.signers["root"])
        self.files[f"metadata/{self.root.version}.root.json"] = raw
        return raw

    def rotate_root(self, *, also: list[Signer] | None = None) -> bytes:
        """Publish a new version of the root, signed by today's keys and ``also`` those before."""
        self.root.version += 1
        return self.publish_root(signers=[*self.signers["root"], *(also or [])])

    def publish(self) -> None:
        """Sign everything below the root again, each with a higher version."""
        for role, signed in [*self.projects.items(), ("targets", self.targets)]:
            self.publish_targets(role, signed)
        self.publish_snapshot()
        self.publish_timestamp()

    def publish_targets(self, role: str, signed: Targets) -> None:
        signed.version += f"metadata/{signed.version}.{role}.json" in self.files
        raw = _signed(signed, self.signers[role])
        self.files[f"metadata/{signed.version}.{role}.json"] = raw
        self.snapshot.meta[f"{role}.json"] = self._meta(signed.version, raw)

    def publish_snapshot(self) -> None:
        self.snapshot.version += f"metadata/{self.snapshot.version}.snapshot.json" in self.files
        raw = _signed(self.snapshot, self.signers["snapshot"])
        self.files[f"metadata/{self.snapshot.version}.snapshot.json"] = raw
        self.timestamp.snapshot_meta = self._meta(self.snapshot.version, raw)

    def publish_timestamp(self) -> None:
        self.timestamp.version += "metadata/timestamp.json" in self.files
        self.files["metadata/timestamp.json"] = _signed(self.timestamp, self.signers["timestamp"])

    def write(self, folder: Path) -> Path:
        """Write all files below ``folder``."""
        for path, data in {**self.files, **self.changed}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return folder

    def read(self, path: str, most: int) -> bytes:
        """See `tinysight_edge.update.sources.Source`."""
        self.asked.append(path)
        if path in self.faults:
            raise self.faults[path]
        data = self.changed.get(path, self.files.get(path))
        if data is None:
            raise UpdateError(f"{path} is not there.", mend="Publish it.", code=Code.NOT_FOUND)
        if len(data) > most:
            raise UpdateError(f"{path} has more than {most} bytes.", mend="Look at it.", code=Code.TOO_LARGE)
        return data

    def fetch(
        self,
        path: str,
        to: Path,
        *,
        size: int,
        disk: Disk,
        budget: Budget = Budgeted,  # noqa: ARG002 -- nothing here is slow
        tell: Callable[[int], None] = silent,
    ) -> None:
        """See `tinysight_edge.update.sources.Source`."""
        have = to.stat().st_size if to.exists() else 0
        new = self.read(path, size)[have:]
        disk.append(to, new)
        tell(len(new))
        disk.sync(to)

    def _meta(self, version: int, raw: bytes) -> MetaFile:
        if not self.hashes:
            return MetaFile(version)
        return MetaFile(version, len(raw), {"sha256": hashlib.sha256(raw).hexdigest()})


def _signed(signed: Any, signers: list[Signer]) -> bytes:
    metadata: Metadata[Any] = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))
