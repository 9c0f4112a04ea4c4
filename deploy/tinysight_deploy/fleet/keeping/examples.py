"""Hard examples of devices, as they come in by HTTP: bounded, resumable, each checked before it counts.

In: pieces of pictures, in any order of devices.  Out: whole JPEGs under the device that sent them, each of which says
itself what its model saw. ::

    FOLDER/<site>/<device>/<sha256>.jpg     whole, and what its name says
    FOLDER/<site>/<device>/<sha256>.part    on its way; goes on where it ended

What is whole is on disk before it is acknowledged. A device has a share of its own, so one that was captured fills no
other's; all together have a bound, and the disk a rest that stays free. Blocks: call it from a thread.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from tinysight_contract.errors import FleetError
from tinysight_contract.files import fsync_folder, sha256_of
from tinysight_contract.scalars import Count, Digest, Id, Time
from tinysight_contract.topics import check_id
from tinysight_deploy.fleet.types import Key
from tinysight_edge.pictures.examples import Example
from tinysight_edge.pictures.jpeg import MAX_COMMENT_BYTES, read_comment

__all__ = ["MAX_PIECE_BYTES", "Arrived", "FullError", "Kept", "Limits", "PieceError"]

MAX_PIECE_BYTES: Final = 1 << 20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_HEAD_BYTES: Final = MAX_COMMENT_BYTES + 4096
_STALE_S: Final = 7 * 86400.0
"""A part that has not grown for so long goes."""
_COUNT_S: Final = 3600.0
_RECOUNT_S: Final = 30.0
"""Before a device is refused what was counted longer ago is counted again: somebody may have removed some."""


class Limits(Struct, frozen=True, kw_only=True):
    """How much is kept.

    Attributes:
        example_bytes: of one picture.
        device_bytes: of all of one device.
        parts: that a device may have begun at once.
        keep_bytes: of all devices together.
        free_bytes: of the disk that nothing is written into.
    """

    example_bytes: Annotated[int, Meta(ge=1024)] = 8 << 20
    device_bytes: Annotated[int, Meta(ge=1024)] = 256 << 20
    parts: Annotated[int, Meta(ge=1)] = 4
    keep_bytes: Annotated[int, Meta(ge=1024)] = 20 << 30
    free_bytes: Annotated[int, Meta(ge=0)] = 512 << 20


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
        self._lock = threading.Lock()
        self._sizes: dict[Key, int] = {}
        self._counted_s = -_COUNT_S

    def here(self, site: str, device: str, digest: str) -> tuple[int, bool]:
        """How many bytes of an example are here, and whether that is all of it.

        Raises:
            ContractError: a name is none.
            FleetError: the digest is none.
            OSError: the folder cannot be read.
        """
        path = self._path(site, device, digest)
        held, done = _held(path)
        if done or not held:
            return held, done
        with _alone(path.parent):  # a server that died before the rename has left all of it as a part
            held, done = _held(path)
            if held and not done and sha256_of(path.with_suffix(".part")) == digest:
                try:
                    self._finish(path, (site, device), began_at=0)
                except FleetError:
                    return 0, False
                return held, True
        return held, done

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
            PieceError: it begins elsewhere than what is here ends; or what was here before it was damaged, is
                forgotten, and the picture begins again.
            FullError: the device's share, that of all, or the disk is full.
            FleetError: it is too large, or the whole is not what it was said to be; it is then forgotten.
        """
        path = self._path(site, device, digest)
        if len(data) > MAX_PIECE_BYTES or not 0 < whole <= self.limits.example_bytes or at + len(data) > whole:
            most = self.limits.example_bytes
            raise FleetError(
                f"An example of {whole} bytes, or its piece of {len(data)}, is too large.",
                mend=f"Send at most {most} bytes, in pieces of at most {MAX_PIECE_BYTES} that lie within.",
            )
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _alone(path.parent):
                return self._put(path, (site, device), data, at=at, whole=whole)
        except OSError as error:
            raise FullError(
                f"An example cannot be kept: {error.strerror}.",
                mend="Free some space where the server keeps them, and check that it may write there.",
            ) from error

    def _put(self, path: Path, key: Key, data: bytes, *, at: int, whole: int) -> int:
        held, done = _held(path)
        if done:
            return held
        part = path.with_suffix(".part")
        if held > whole:
            self._forget(part, key)
            held = 0
        if at != held:
            if held == whole:
                self._finish(path, key, began_at=held)
                return held
            raise PieceError(held)
        self._make_room(key, part, whole - held)
        with part.open("ab") as file:
            file.write(data)
            if held + len(data) == whole:
                file.flush()
                os.fsync(file.fileno())
        self._add(key, len(data))
        if held + len(data) == whole:
            self._finish(path, key, began_at=held)
        return held + len(data)

    def listing(self, *, keys: Collection[Key] | None = None, after: str = "", most: int = 100) -> list[Arrived]:
        """What is here, ordered by site, then device, then digest.

        Args:
            keys: of these devices alone.
            after: ``site/device/digest`` of what was last on the page before.
            most: so many.

        Raises:
            OSError: the folder cannot be read.
        """
        found: list[Arrived] = []
        last = tuple(after.split("/"))
        for site, device in self.devices():
            if (site, device) < last[:2] or (keys is not None and (site, device) not in keys):
                continue
            for path in sorted((self._folder / site / device).glob("*.jpg")):
                if (site, device, path.stem) <= last or (about := _said(path)) is None:
                    continue
                said, size = about
                found.append(
                    Arrived(
                        site=site,
                        device=device,
                        digest=path.stem,
                        size_bytes=size,
                        camera=said.camera,
                        captured_at=said.captured_at,
                        reason=said.reason,
                        bundle=said.model.digest,
                    )
                )
                if len(found) >= most:
                    return found
        return found

    def devices(self) -> list[Key]:
        """Who has sent something, in order.

        Raises:
            OSError: the folder cannot be read.
        """
        return [(site, device) for site in _folders(self._folder) for device in _folders(self._folder / site)]

    def read(self, site: str, device: str, digest: str) -> bytes | None:
        """A whole example, or None when it is not here."""
        try:
            return self._path(site, device, digest).read_bytes()
        except FileNotFoundError:
            return None

    def drop(self, site: str, device: str, digest: str) -> bool:
        """Remove a whole example; False when it is not here.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self._path(site, device, digest)
        try:
            with _alone(path.parent):
                self._forget(path, (site, device))
        except FileNotFoundError:
            return False
        return True

    def _path(self, site: str, device: str, digest: str) -> Path:
        check_id(site, what="site")
        check_id(device, what="device")
        if _DIGEST.fullmatch(digest) is None:
            raise FleetError(f"{digest[:80]!r} is no SHA-256.", mend="Write it as 64 of 0-9 and a-f.")
        return self._folder / site / device / f"{digest}.jpg"

    def _make_room(self, key: Key, part: Path, wanted: int) -> None:
        """See that a device has the room, giving up what it began long ago; its folder is ours alone.

        Raises:
            FullError: it has not.
        """
        if part.exists():
            os.utime(part)  # so that it does not count as begun long ago
        else:
            begun = sorted(part.parent.glob("*.part"), key=lambda each: each.stat().st_mtime)
            for each in begun[: max(len(begun) + 1 - self.limits.parts, 0)]:
                self._forget(each, key)
        with self._lock:
            since_s = time.monotonic() - self._counted_s
            if since_s >= _COUNT_S or (since_s >= _RECOUNT_S and self._full(key, wanted) is not None):
                self._count()
            full = self._full(key, wanted)
        if full is not None:
            raise full
        disk = os.statvfs(part.parent)
        if disk.f_bavail * disk.f_frsize < self.limits.free_bytes + wanted:
            raise FullError("The server's disk is nearly full.", mend="Free some space where the server keeps them.")

    def _full(self, key: Key, wanted: int) -> FullError | None:
        """What is full, if anything is."""
        mend = "Fetch them with `tinysight data pull`, remove them on the server, and it goes on."
        if self._sizes.get(key, 0) + wanted > self.limits.device_bytes:
            what = f"This device has sent {self.limits.device_bytes >> 20} MiB that are still here."
            return FullError(what, mend=mend)
        if sum(self._sizes.values()) + wanted > self.limits.keep_bytes:
            more = f"{mend[:-1]}; or start it with a larger --examples-keep."
            return FullError(f"The server keeps {self.limits.keep_bytes >> 20} MiB, and no more.", mend=more)
        return None

    def _count(self) -> None:
        """Count what all devices have here, and remove what was begun long ago."""
        self._sizes.clear()
        now = time.time()
        for site, device in self.devices():
            total = 0
            for each in os.scandir(self._folder / site / device):
                with contextlib.suppress(FileNotFoundError):
                    about = each.stat()
                    if each.name.endswith(".part") and now - about.st_mtime > _STALE_S:
                        Path(each).unlink()
                    else:
                        total += about.st_size
            self._sizes[site, device] = total
        self._counted_s = time.monotonic()

    def _add(self, key: Key, size: int) -> None:
        with self._lock:
            self._sizes[key] = max(self._sizes.get(key, 0) + size, 0)

    def _forget(self, path: Path, key: Key) -> None:
        """Remove a file of a device.

        Raises:
            FileNotFoundError: there is none.
        """
        size = path.stat().st_size
        path.unlink()
        self._add(key, -size)

    def _finish(self, path: Path, key: Key, *, began_at: int) -> None:
        """Give a part its name, if it is what it was said to be.

        Args:
            path: its name.
            key: of its device.
            began_at: where the last piece of it began.

        Raises:
            PieceError: it is not, and not all of it came in one piece: what came before may have been damaged.
            FleetError: it is not.
        """
        part = path.with_suffix(".part")
        raw = part.read_bytes()
        right = hashlib.sha256(raw).hexdigest() == path.stem
        said = read_comment(raw, Example) if right else None
        if said is None or (said.site, said.device) != key:
            self._forget(part, key)
            if not right and began_at:
                raise PieceError(0)
            raise FleetError(
                "What came is not what its name says, or no example of this device.",
                mend="Send pictures as the device's own agent keeps them, each under its SHA-256.",
            )
        part.rename(path)
        fsync_folder(path.parent)


def _held(path: Path) -> tuple[int, bool]:
    """How many bytes are there, and whether they have their name."""
    for each, done in ((path, True), (path.with_suffix(".part"), False)):
        with contextlib.suppress(FileNotFoundError):
            return each.stat().st_size, done
    return 0, False


def _folders(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir() if each.is_dir())
    except FileNotFoundError:
        return []


def _said(path: Path) -> tuple[Example, int] | None:
    """What a picture says, and its bytes; None when it is gone or says nothing."""
    try:
        with path.open("rb") as file:
            said, size = read_comment(file.read(_HEAD_BYTES), Example), os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return None
    return None if said is None else (said, size)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Have a device's folder to oneself, among threads and processes."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
