"""The bundle: an uncompressed tar with the manifest first, equal bytes for equal content.

``pack_bundle`` and ``Bundle.parse`` are inverses. Opening reads the whole file once, trusts nothing in it, and
extracts nothing to disk: every cap is checked before parsing, every member against the manifest's digest.
It does not decide whether the author is to be trusted; that is the store's ``Trust``.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from tinysight_contract.errors import BundleError
from tinysight_contract.files import read_capped
from tinysight_contract.manifest import MAX_MANIFEST_BYTES, FileRef, Manifest, parse_manifest

__all__ = ["LABELS", "MANIFEST", "Bundle", "file_ref", "pack_bundle"]

MANIFEST: Final = "manifest.json"
LABELS: Final = "labels.txt"
MAX_BUNDLE_BYTES: Final = 512 << 20
MAX_MEMBERS: Final = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_AGAIN: Final = "Convert the model again, or copy the bundle again from where it was made."


def file_ref(data: bytes) -> FileRef:
    """How the manifest names ``data``."""
    return FileRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def pack_bundle(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    """The bundle's bytes; the same for the same content on any machine.

    Raises:
        BundleError: ``files`` and ``manifest.files`` differ, or the bundle would not open again.
    """
    if {name: file_ref(data) for name, data in files.items()} != manifest.files:
        raise BundleError("The manifest does not list exactly the files to be packed.", mend="Report this as a bug.")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in [(MANIFEST, manifest.to_json()), *sorted(files.items())]:
            member = tarfile.TarInfo(name)  # mtime, uid and gid are 0 by default
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    raw = buffer.getvalue()
    Bundle.parse(raw, source="the new bundle")
    return raw


class Bundle:
    """A bundle that has been checked against its own manifest and is held in memory.

    Attributes:
        manifest: what it promises.
        digest: SHA-256 of the whole file, its identity everywhere.
        size_bytes: of the whole file.
    """

    def __init__(self, manifest: Manifest, files: Mapping[str, bytes], *, digest: str, size_bytes: int) -> None:
        self.manifest = manifest
        self.digest = digest
        self.size_bytes = size_bytes
        self._files = files

    @classmethod
    def open(cls, path: Path, *, digest: str | None = None) -> Self:
        """Read and check a bundle file.

        Args:
            path: the file.
            digest: what the whole file's SHA-256 must be; members then need no hashing of their own.

        Raises:
            BundleError: it is missing, too large, half-written, not what its manifest says or not this one.
        """
        try:
            if (size := path.stat().st_size) > MAX_BUNDLE_BYTES:
                raise BundleError(f"{path} has {size} bytes, at most {MAX_BUNDLE_BYTES} are read.", mend=_AGAIN)
            raw = read_capped(path, MAX_BUNDLE_BYTES)  # what says no size may never end
        except FileNotFoundError as error:
            raise BundleError(
                f"There is no bundle {path}.", mend="Check the path, or make one with `tinysight convert`."
            ) from error
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read: {error.strerror}.", mend="Check that it is a file and may be read."
            ) from error
        return cls.parse(raw, source=str(path), digest=digest)

    @classmethod
    def parse(cls, raw: bytes, *, source: str, digest: str | None = None) -> Self:
        """Check a bundle's bytes; ``source`` names them in errors, ``digest`` is as for `open`.

        Raises:
            BundleError: as ``open``.
        """
        found = hashlib.sha256(raw).hexdigest()
        if digest is not None and found != digest:
            raise BundleError(f"{source} is not the bundle {digest[:12]}.", mend=_AGAIN)
        try:
            members = _members(raw)
            manifest = parse_manifest(members.pop(MANIFEST))
        except BundleError as error:
            raise BundleError(f"{source}: {error.what}", mend=error.mend) from error
        except (tarfile.TarError, EOFError, ValueError, KeyError, RecursionError) as error:
            raise BundleError(f"{source} is damaged or no bundle: {error}.", mend=_AGAIN) from error
        if (reason := _mismatch(manifest, members, hashed=digest is not None)) is not None:
            raise BundleError(f"{source}: {reason}.", mend=_AGAIN)
        return cls(manifest, members, digest=found, size_bytes=len(raw))

    def read(self, name: str) -> bytes:
        """One member's bytes.

        Raises:
            BundleError: the bundle does not hold it.
        """
        try:
            return self._files[name]
        except KeyError:
            raise BundleError(f"The bundle does not hold {name!r}.", mend=_AGAIN) from None


def _members(raw: bytes) -> dict[str, bytes]:
    """All members by name; only plain files with plain names, the manifest first."""
    found: dict[str, bytes] = {}
    end = 0
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
        for member in tar:
            if len(found) >= MAX_MEMBERS:
                raise BundleError(f"It holds more than {MAX_MEMBERS} files.", mend=_AGAIN)
            if member.type != tarfile.REGTYPE or member.sparse is not None:
                raise BundleError(f"{member.name!r} is not a plain file.", mend=_AGAIN)
            if _NAME.fullmatch(member.name) is None:
                raise BundleError(f"{member.name!r} is not a plain name and might leave its folder.", mend=_AGAIN)
            if member.name in found:
                raise BundleError(f"{member.name!r} stands twice.", mend=_AGAIN)
            if not found and member.name != MANIFEST:
                raise BundleError(f"It begins with {member.name!r} instead of {MANIFEST}.", mend=_AGAIN)
            if member.name == MANIFEST and member.size > MAX_MANIFEST_BYTES:
                raise BundleError(f"The manifest has {member.size} bytes.", mend=_AGAIN)
            data = raw[member.offset_data : member.offset_data + member.size]
            if len(data) != member.size:
                raise BundleError(f"It ends in the middle of {member.name!r}.", mend=_AGAIN)
            found[member.name] = data
            end = member.offset_data + (member.size + tarfile.BLOCKSIZE - 1) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    if not found:
        raise BundleError("It is empty or no bundle.", mend=_AGAIN)
    if len(raw) < end + 2 * tarfile.BLOCKSIZE or any(raw[end:]):
        raise BundleError("It ends too early or holds something after its end.", mend=_AGAIN)
    return found


def _mismatch(manifest: Manifest, members: Mapping[str, bytes], *, hashed: bool) -> str | None:
    """Why these members are not what the manifest lists, or None; ``hashed`` when the whole file is known."""
    for name in sorted(set(members) | set(manifest.files)):
        if name not in members:
            return f"{name} is listed and missing"
        if name not in manifest.files:
            return f"{name} is not listed"
        if len(members[name]) != manifest.files[name].size_bytes:
            return f"{name} has {len(members[name])} bytes, its manifest says {manifest.files[name].size_bytes}"
        if not hashed and hashlib.sha256(members[name]).hexdigest() != manifest.files[name].sha256:
            return f"{name} has the wrong digest"
    if LABELS not in members:
        return f"{LABELS} is missing"
    lines = members[LABELS].decode("utf-8", errors="replace").splitlines()
    if len(lines) != len(manifest.labels):
        return f"{LABELS} has {len(lines)} lines, the model knows {len(manifest.labels)} labels"
    if lines != manifest.labels:
        return f"{LABELS} and the manifest name different labels"
    return None
