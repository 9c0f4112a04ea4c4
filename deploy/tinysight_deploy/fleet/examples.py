"""Hard examples of devices, as they come in by HTTP: bounded, resumable, each checked before it counts.

In: pieces of pictures, in any order of devices.  Out: whole JPEGs under the device that sent them, each of which says
itself what its model saw. ::

    FOLDER/<site>/<device>/<sha256>.jpg     whole, and what its name says
    FOLDER/<site>/<device>/<sha256>.part    on its way; goes on where it ended

What is whole is on disk before it is acknowledged. A device has a share of its own, so one that was captured fills no
other's. Blocks: call it from a thread.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from tinysight_contract.errors import FleetError
from tinysight_contract.files import fsync_folder
from tinysight_contract.scalars import Count, Digest, Id, Time
from tinysight_contract.topics import check_id
from tinysight_edge.pictures.examples import Example
from tinysight_edge.pictures.jpeg import MAX_COMMENT_BYTES, read_comment

__all__ = ["MAX_PIECE_BYTES", "Arrived", "FullError", "Kept", "Limits", "PieceError"]

MAX_PIECE_BYTES: Final = 1 << 20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_HEAD_BYTES: Final = MAX_COMMENT_BYTES + 4096
_STALE_S: Final = 7 * 86400.0
"""A part that has not grown for so long goes when its device needs the room."""


class Limits(Struct, frozen=True, kw_only=True):
    """How much is kept.

    Attributes:
        example_bytes: of one picture.
        device_bytes: of all of one device.
        parts: that a device may have begun at once.
    """

    example_bytes: Annotated[int, Meta(ge=1024)] = 8 << 20
    device_bytes: Annotated[int, Meta(ge=1024)] = 256 << 20
    parts: Annotated[int, Meta(ge=1)] = 4


class Arrived(Struct, frozen=True, kw_only=True):
    """One example that is here.

    Attributes:
        site: of the device that sent it.
        device: likewise.
        digest: SHA-256 of the file.
        size_bytes: of the file.
        camera: that took it.
        captured_at: when, by the device's clock.
        reason: why the device kept it.
        bundle: SHA-256 of the bundle whose model saw it.
    """

    site: Id
    device: Id
    digest: Digest
    size_bytes: Count
    camera: Id
    captured_at: Time
    reason: str
    bundle: str


class PieceError(Exception):
    """A piece is not the next one.

    Attributes:
        at: where the next one begins.
    """

    def __init__(self, at: int) -> None:
        super().__init__(f"{at} bytes are here")
        self.at = at


class FullError(Exception):
    """There is no room for what a device sends; says what is full.

    Attributes:
        mend: what to do.
    """

    def __init__(self, what: str, *, mend: str) -> None:
        super().__init__(what)
        self.mend = mend


class Kept:
    """The folder of examples.

    Args:
        folder: made when the first one comes.
        limits: what is kept; None for the usual.
    """

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self._folder, self.limits = folder, limits or Limits()

    def here(self, site: str, device: str, digest: str) -> tuple[int, bool]:
        """How many bytes of an example are here, and whether that is all of it.

        Raises:
            ContractError: a name is none.
            FleetError: the digest is none.
        """
        path = self._path(site, device, digest)
        if path.exists():
            return path.stat().st_size, True
        part = path.with_suffix(".part")
        return (part.stat().st_size if part.exists() else 0), False

    def put(self, site: str, device: str, digest: str, data: bytes, *, at: int, whole: int) -> int:
        """Take the next piece; how many bytes are here now.

        Args:
            site: of the device that sends.
            device: likewise.
            digest: SHA-256 of the whole file.
            data: the piece.
            at: where it begins.
            whole: bytes of the whole file.

        Raises:
            PieceError: it begins elsewhere than what is here ends.
            FullError: the device's share, or the disk, is full.
            FleetError: it is too large, or the whole is not what it was said to be; it is then forgotten.
        """
        path = self._path(site, device, digest)
        if len(data) > MAX_PIECE_BYTES or not 0 < whole <= self.limits.example_bytes or at + len(data) > whole:
            most = self.limits.example_bytes
            raise FleetError(
                f"An example of {whole} bytes, or its piece of {len(data)}, is too large.",
                mend=f"Send at most {most} bytes, in pieces of at most {MAX_PIECE_BYTES} that lie within.",
            )
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path.parent):
            held, done = self.here(site, device, digest)
            if done:
                return held
            if at != held:
                raise PieceError(held)
            part = path.with_suffix(".part")
            try:
                self._make_room(path.parent, part, whole - held)
                with part.open("ab") as file:
                    file.write(data)
                    if held + len(data) == whole:
                        file.flush()
                        os.fsync(file.fileno())
                if held + len(data) == whole:
                    self._finish(part, path, site, device, digest)
            except OSError as error:
                raise FullError(
                    f"An example cannot be kept: {error.strerror}.", mend="Free some space where the server keeps them."
                ) from error
        return held + len(data)

    def listing(self, *, keys: set[tuple[str, str]] | None = None, after: str = "", most: int = 100) -> list[Arrived]:
        """What is here, ordered by ``site/device/digest``.

        Args:
            keys: of these devices alone.
            after: what was last on the page before.
            most: so many.
        """
        found: list[Arrived] = []
        for site, device, path in self._all():
            name = f"{site}/{device}/{path.stem}"
            if name <= after or (keys is not None and (site, device) not in keys):
                continue
            if (said := _said(path)) is not None:
                found.append(
                    Arrived(
                        site=site,
                        device=device,
                        digest=path.stem,
                        size_bytes=path.stat().st_size,
                        camera=said.camera,
                        captured_at=said.captured_at,
                        reason=said.reason,
                        bundle=said.model.digest,
                    )
                )
            if len(found) >= most:
                break
        return found

    def devices(self) -> list[tuple[str, str]]:
        """Of whom something is here."""
        return list(dict.fromkeys((site, device) for site, device, _ in self._all()))

    def read(self, site: str, device: str, digest: str) -> bytes | None:
        """A whole example, or None when it is not here."""
        try:
            return self._path(site, device, digest).read_bytes()
        except FileNotFoundError:
            return None

    def drop(self, site: str, device: str, digest: str) -> bool:
        """Remove a whole example; False when it is not here."""
        path = self._path(site, device, digest)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def _path(self, site: str, device: str, digest: str) -> Path:
        check_id(site, what="site")
        check_id(device, what="device")
        if _DIGEST.fullmatch(digest) is None:
            raise FleetError(f"{digest[:80]!r} is no SHA-256.", mend="Write it as 64 of 0-9 and a-f.")
        return self._folder / site / device / f"{digest}.jpg"

    def _all(self) -> Iterator[tuple[str, str, Path]]:
        if not self._folder.is_dir():
            return
        for site in sorted(each for each in self._folder.iterdir() if each.is_dir()):
            for device in sorted(each for each in site.iterdir() if each.is_dir()):
                for path in sorted(device.glob("*.jpg")):
                    yield site.name, device.name, path

    def _make_room(self, folder: Path, part: Path, wanted: int) -> None:
        """See that a device has the room, giving up what it began long ago."""
        sizes = {each: each.stat() for each in folder.iterdir() if each.suffix in {".jpg", ".part"}}
        parts = sorted(
            (each for each in sizes if each.suffix == ".part" and each != part), key=lambda p: sizes[p].st_mtime
        )
        now = time.time()
        for each in parts:
            if len(parts) < self.limits.parts and now - sizes[each].st_mtime < _STALE_S:
                break
            each.unlink(missing_ok=True)
            parts, _ = [other for other in parts if other != each], sizes.pop(each)
        if sum(about.st_size for about in sizes.values()) + wanted > self.limits.device_bytes:
            raise FullError(
                f"This device has sent {self.limits.device_bytes >> 20} MiB that are still here.",
                mend="Fetch them with `tinysight data pull`, remove them on the server, and it goes on.",
            )

    @staticmethod
    def _finish(part: Path, path: Path, site: str, device: str, digest: str) -> None:
        """Give a part its name, if it is what it was said to be."""
        raw = part.read_bytes()
        said = read_comment(raw, Example) if hashlib.sha256(raw).hexdigest() == digest else None
        if said is None or (said.site, said.device) != (site, device):
            part.unlink()
            raise FleetError(
                "What came is not what its name says, or no example of this device.",
                mend="Send it again from its beginning.",
            )
        part.rename(path)
        fsync_folder(path.parent)


def _said(path: Path) -> Example | None:
    try:
        with path.open("rb") as file:
            return read_comment(file.read(_HEAD_BYTES), Example)
    except FileNotFoundError:
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Have a device's folder to oneself, among threads and processes."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
