"""The bundle: an uncompressed tar with the manifest first, equal bytes for equal content.

``pack_bundle`` and ``Bundle.parse`` are inverses. Opening reads the file once, trusts nothing in it, and extracts
nothing to disk: every cap is checked before parsing, a member's size against the manifest before it is read and its
digest after. Of what a tar may hold only plain files are understood: Python's own reader would follow extended headers,
one of which can keep it busy for minutes. It does not decide whether the author is to be trusted; that is the store's
``Trust``.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final, Self

from tinysight_contract.errors import BundleError
from tinysight_contract.manifest import MAX_MANIFEST_BYTES, FileRef, Manifest, parse_manifest

__all__ = ["LABELS", "MANIFEST", "Bundle", "file_ref", "pack_bundle"]

MANIFEST: Final = "manifest.json"
LABELS: Final = "labels.txt"
MAX_BUNDLE_BYTES: Final = 512 << 20
MAX_MEMBERS: Final = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OCTAL: Final = re.compile(rb"([0-7]{11})[\0 ]")
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
            with path.open("rb") as source:
                return cls._read(_Tape(source, size or MAX_BUNDLE_BYTES), str(path), digest)
        except FileNotFoundError as error:
            raise BundleError(
                f"There is no bundle {path}.", mend="Check the path, or make one with `tinysight convert`."
            ) from error
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read: {error.strerror}.", mend="Check that it is a file and may be read."
            ) from error

    @classmethod
    def parse(cls, raw: bytes, *, source: str, digest: str | None = None) -> Self:
        """Check a bundle's bytes; ``source`` names them in errors, ``digest`` is as for `open`.

        Raises:
            BundleError: as ``open``.
        """
        return cls._read(_Tape(io.BytesIO(raw), len(raw)), source, digest)

    @classmethod
    def _read(cls, tape: "_Tape", source: str, digest: str | None) -> Self:
        try:
            manifest, files = _members(tape, known=digest is not None)
        except BundleError as error:
            raise BundleError(f"{source}: {error.what}", mend=error.mend) from error
        if digest is not None and tape.whole.hexdigest() != digest:
            raise BundleError(f"{source} is not the bundle {digest[:12]}.", mend=_AGAIN)
        return cls(manifest, files, digest=tape.whole.hexdigest(), size_bytes=tape.size_bytes)

    def read(self, name: str) -> bytes:
        """One member's bytes.

        Raises:
            BundleError: the bundle does not hold it.
        """
        try:
            return self._files[name]
        except KeyError:
            raise BundleError(f"The bundle does not hold {name!r}.", mend=_AGAIN) from None


class _Tape:
    """A file from its beginning to its end, counted and hashed.

    Attributes:
        size_bytes: of what was read.
        whole: SHA-256 of it.
    """

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream = stream
        self._most = most  # bytes there are, or may be
        self.size_bytes = 0
        self.whole = hashlib.sha256()

    def take(self, count: int) -> bytes:
        """The next bytes, fewer only at the end; no more memory than that, whatever a header claims.

        Raises:
            BundleError: the file does not end where it should.
            OSError: it cannot be read.
        """
        data = self._stream.read(min(count, self._most - self.size_bytes + 1))
        self.size_bytes += len(data)
        self.whole.update(data)
        if self.size_bytes > self._most:  # what says no size may never end
            raise BundleError(f"It has more than {self._most} bytes.", mend=_AGAIN)
        return data


def _members(tape: _Tape, *, known: bool) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, which comes first, and what it lists: plain files with plain names, and nothing else.

    Digests of members are not compared when that of the whole file is ``known``.
    """
    manifest: Manifest | None = None
    found: dict[str, bytes] = {}
    while any(block := tape.take(tarfile.BLOCKSIZE)):
        name, size = _header(block)
        if (reason := _refusal(name, size, manifest, found)) is not None:
            raise BundleError(f"{reason}.", mend=_AGAIN)
        if len(data := tape.take(size)) != size or any(tape.take(-size % tarfile.BLOCKSIZE)):
            raise BundleError(f"It ends in the middle of {name!r}, or holds something behind it.", mend=_AGAIN)
        if manifest is None:
            manifest = parse_manifest(data)
        elif not known and hashlib.sha256(data).hexdigest() != manifest.files[name].sha256:
            raise BundleError(f"{name} has the wrong digest.", mend=_AGAIN)
        else:
            found[name] = data
    if manifest is None:
        raise BundleError("It is empty or no bundle.", mend=_AGAIN)
    rest = tape.take(tarfile.RECORDSIZE + 1)  # a second block of zeros, and zeros up to the end of a record
    if any(rest) or not 2 * tarfile.BLOCKSIZE - len(block) <= len(rest) <= tarfile.RECORDSIZE:
        raise BundleError("It ends too early or holds something after its end.", mend=_AGAIN)
    if (reason := _contradiction(manifest, found)) is not None:
        raise BundleError(f"{reason}.", mend=_AGAIN)
    return manifest, found


def _refusal(name: str, size: int, manifest: Manifest | None, found: Mapping[str, bytes]) -> str | None:
    """Why a member of this name and so many bytes is not even read, or None. No I/O."""
    if manifest is None:
        if name != MANIFEST:
            return f"It begins with {name!r} instead of {MANIFEST}"
        return f"The manifest has {size} bytes" if size > MAX_MANIFEST_BYTES else None
    if len(found) >= MAX_MEMBERS - 1:
        return f"It holds more than {MAX_MEMBERS} files"
    if name in found or name == MANIFEST:
        return f"{name!r} stands twice"
    if name not in manifest.files:
        return f"{name} is not listed"
    if size != (listed := manifest.files[name].size_bytes):
        return f"{name} has {size} bytes, its manifest says {listed}"
    return None


def _header(block: bytes) -> tuple[str, int]:
    """Name and size of the plain file that a header tells of.

    Raises:
        BundleError: it is damaged, tells of anything else, or the name might leave its folder.
    """
    total = sum(block[:148]) + sum(b" " * 8) + sum(block[156:])
    size = _OCTAL.fullmatch(block[124:136])
    if block[257:265] != b"ustar\x0000" or block[148:154] != b"%06o" % total or len(block) < tarfile.BLOCKSIZE:
        raise BundleError("It is damaged or no bundle.", mend=_AGAIN)
    raw, _, rest = block[:100].partition(b"\0")
    name = raw.decode("ascii", errors="replace")
    if block[156:157] != tarfile.REGTYPE or size is None or any(block[157:257]):
        raise BundleError(f"{name!r} is not a plain file.", mend=_AGAIN)
    if _NAME.fullmatch(name) is None or any(rest) or any(block[345:]):
        raise BundleError(f"{name!r} is not a plain name and might leave its folder.", mend=_AGAIN)
    return name, int(size[1], 8)


def _contradiction(manifest: Manifest, files: Mapping[str, bytes]) -> str | None:
    """Why these files are not all that the manifest lists, or None."""
    if missing := sorted(set(manifest.files) - set(files)):
        return f"{missing[0]} is listed and missing"
    if LABELS not in files:
        return f"{LABELS} is missing"
    lines = files[LABELS].decode("utf-8", errors="replace").splitlines()
    if len(lines) != len(manifest.labels):
        return f"{LABELS} has {len(lines)} lines, the model knows {len(manifest.labels)} labels"
    if lines != manifest.labels:
        return f"{LABELS} and the manifest name different labels"
    return None
