"""A repository of signed bundles in a folder, as a workstation makes it, and as it must not be.

Every change is published at once. What hostile owners do, a test does to the files, or says with ``signed`` and
``days``.
"""

import copy
import hashlib
import io
import random
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # public, but not listed as such
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

from tinysight_contract.bundle import Bundle, file_ref, pack_bundle
from tinysight_contract.updates import Release
from tinysight_edge.update.delta import make_delta
from tinysight_edge.update.signed import Delta, Requires, Signed

PROJECT: Final = "pets"
NOISE: Final = random.Random(7).randbytes(40_000)  # what two releases of a model have in common


def bundle_bytes(sample: Any, release: int, *, size: int = 20_000) -> bytes:
    """A bundle that holds no real model; the later half of its weights is another one in each release."""
    manifest, files = sample()
    files["int8.tflite"] = NOISE + random.Random(release).randbytes(size)
    listed = {name: file_ref(data) for name, data in files.items()}
    return pack_bundle(replace(manifest, version=f"1.{release}.0", release=release, files=listed), files)


def repacked(path: Path, release: int, **changed: Any) -> bytes:
    """A real bundle as another release; files by name without its ending may be filled with another byte."""
    bundle = Bundle.open(path)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    for name, fill in changed.items():
        (whole,) = (each for each in files if each.partition(".")[0].replace("-", "_") == name)
        files[whole] = fill * len(files[whole])
    listed = {name: file_ref(data) for name, data in files.items()}
    return pack_bundle(
        replace(bundle.manifest, name="pets", version=f"1.{release}.0", release=release, files=listed), files
    )


def tar_of(files: Iterable[tuple[str, bytes]], *, link: bool = False) -> bytes:
    """A tar that no honest tool makes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if link:
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def target_of(release: int) -> str:
    return f"{PROJECT}/pets-1.{release}.0.bundle"


@dataclass
class Shop:
    """The repository and its keys.

    Attributes:
        folder: of the repository.
        days: how long what is published from now on holds.
        targets: what the project offers, by path.
        strange: signs for the project instead of its own key.
    """

    folder: Path
    days: float = 30.0
    targets: dict[str, TargetFile] = field(default_factory=dict)
    strange: Any = None

    def __post_init__(self) -> None:
        self.signers = {name: CryptoSigner.generate_ed25519() for name in (*self.top, PROJECT)}
        self.version = 0
        for name in ("metadata", "targets", "deltas"):
            (self.folder / name).mkdir(parents=True)
        root = Root(expires=self.expires(), consistent_snapshot=True)
        for name in self.top:
            root.add_key(self.signers[name].public_key, name)
        self.root = self._sign("root", root)
        self._put("1.root.json", self.root)
        self.publish()

    top = ("root", "targets", "snapshot", "timestamp")

    def moved(self, folder: Path) -> "Shop":
        """The same, in a folder to which all of it was copied."""
        twin = copy.copy(self)
        twin.folder, twin.targets = folder, copy.deepcopy(self.targets)
        return twin

    def expires(self) -> datetime:
        return (datetime.now(UTC) + timedelta(days=self.days)).replace(microsecond=0)

    def add(
        self,
        data: bytes,
        release: int,
        *,
        base: bytes | None = None,
        requires: Requires = Requires(),  # noqa: B008 -- it is frozen
        content: bytes | None = None,
        **signed: Any,
    ) -> Release:
        """Release a bundle; ``content`` is what lies there instead of what was signed."""
        digest = hashlib.sha256(data).hexdigest()
        target = target_of(release)
        deltas = {}
        if base is not None:
            delta, start = make_delta(base, data), hashlib.sha256(base).hexdigest()
            path = f"deltas/{start}-{digest}.delta"
            (self.folder / path).write_bytes(delta)
            deltas[start] = Delta(path=path, size_bytes=len(delta), sha256=hashlib.sha256(delta).hexdigest())
        said = Signed(
            name="pets",
            version=f"1.{release}.0",
            release=release,
            released_at=datetime.now(UTC).replace(microsecond=0),
            requires=requires,
            deltas=deltas,
        )
        file = TargetFile.from_data(target, data, ["sha256"])
        file.unrecognized_fields["custom"] = {**msgspec.to_builtins(said), **signed}
        self.targets[target] = file
        lies = self.payload(target)
        lies.parent.mkdir(exist_ok=True)
        lies.write_bytes(data if content is None else content)
        self.publish()
        return Release(
            target=target, digest=digest, size_bytes=len(data), name="pets", version=said.version, release=release
        )

    def payload(self, target: str) -> Path:
        """Where a target's file lies."""
        folder, _, name = target.rpartition("/")
        return self.folder / "targets" / folder / f"{self.targets[target].hashes['sha256']}.{name}"

    def publish(self) -> None:
        """Sign all but the root again, under the next version."""
        self.version += 1
        number, project = self.version, self.signers[PROJECT].public_key
        role = DelegatedRole(PROJECT, [project.keyid], 1, terminating=True, paths=[f"{PROJECT}/*"])
        top = Targets(
            number, expires=self.expires(), delegations=Delegations({project.keyid: project}, {PROJECT: role})
        )
        self._put(f"{number}.targets.json", self._sign("targets", top))
        mine = Targets(number, expires=self.expires(), targets=dict(self.targets))
        self._put(f"{number}.{PROJECT}.json", self._sign(PROJECT, mine))
        meta = {f"{name}.json": MetaFile(number) for name in ("targets", PROJECT)}
        self._put(
            f"{number}.snapshot.json", self._sign("snapshot", Snapshot(number, expires=self.expires(), meta=meta))
        )
        stamp = Timestamp(number, expires=self.expires(), snapshot_meta=MetaFile(number))
        self._put("timestamp.json", self._sign("timestamp", stamp))

    def _sign(self, name: str, signed: Any) -> bytes:
        metadata: Metadata[Any] = Metadata(signed)
        metadata.sign(self.strange if self.strange is not None and name == PROJECT else self.signers[name])
        return metadata.to_bytes()

    def _put(self, name: str, data: bytes) -> None:
        (self.folder / "metadata" / name).write_bytes(data)
