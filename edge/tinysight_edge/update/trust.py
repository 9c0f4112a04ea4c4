"""Which bundles are signed by whom: The Update Framework, over any `Source`, with a clock and a disk that we choose.

In: a target's path in a repository.  Out: an `Offer`, what its project signed about it. The root of trust was given to
the device when it was provisioned and is never rewritten; what was verified since is cached beside it. A cache that
is damaged counts as absent. Bundles themselves are not read here: their digest is in the offer.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, TargetFile  # type: ignore[attr-defined]  # public, though not listed
from tuf.api.serialization import DeserializationError, SerializationError

from tinysight_contract.bundle import MAX_BUNDLE_BYTES
from tinysight_contract.errors import UpdateError
from tinysight_contract.files import read_capped
from tinysight_contract.updates import Code, Release
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.signed import Signed, parse_signed
from tinysight_edge.update.sources import Source, disk_error
from tinysight_edge.update.tuf_client import MAX_ROOT_BYTES, Client, Fetcher

__all__ = ["MAX_ROOT_BYTES", "Offer", "Trust", "new_trust"]

ROOT: Final = "root.json"

_TARGET: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}/[a-z0-9][a-z0-9-]{0,62}-\d[0-9A-Za-z.+-]{0,99}\.bundle")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

_MENDS: Final = {
    Code.UNSIGNED: "Use the repository that this device was provisioned with, or provision it again.",
    Code.REPLAYED: "Use a current and complete copy of the repository.",
    Code.TAMPERED: "Copy or publish the repository again.",
    Code.MALFORMED: "Publish the repository again; if it is newer than this device, update TinySight here.",
}


@dataclass(frozen=True, slots=True)
class Offer:
    """A bundle that may be fetched, as its project signed it.

    Attributes:
        release: which one.
        signed: what was signed about it.
        expires: until when what the repository says as a whole may be believed.
    """

    release: Release
    signed: Signed
    expires: datetime

    @property
    def path(self) -> str:
        """Where the bundle lies in the repository."""
        project, _, name = self.release.target.partition("/")
        return f"targets/{project}/{self.release.digest}.{name}"


class Trust:
    """What a device knows of a repository's signatures. Nobody else may use the folder meanwhile.

    Args:
        folder: with ``root.json`` of provisioning; ``metadata/`` in it is ours.
        source: where the repository lies.
        now: the time that decides about expiry; see `clock`.
        disk: writes.
    """

    def __init__(self, folder: Path, source: Source, *, now: datetime, disk: Disk) -> None:
        self._folder, self._source, self._now, self._disk = folder, source, now, disk
        self._client: Client | None = None

    def refresh(self) -> None:
        """Get and check what is signed, from the root to the list of projects. All that is kept is synced.

        Raises:
            UpdateError: UNSIGNED, EXPIRED, REPLAYED, TAMPERED, MALFORMED; what `Source.read` raises; DISK, NO_SPACE.
        """
        self._client = None
        self._client = self._refreshed()

    def resolve(self, target: str) -> Offer:
        """What is signed about ``<project>/<name>-<version>.bundle``; refreshes first when that was not done.

        Raises:
            UpdateError: as `refresh`; UNSIGNED, no project has signed it; TOO_LARGE.
        """
        if len(target) > 300 or _TARGET.fullmatch(target) is None:
            raise UpdateError(
                f"{target[:300]!r} is no path of a bundle.",
                mend="Name it as <project>/<name>-<version>.bundle, see `tinysight release list`.",
                code=Code.MALFORMED,
            )
        client = self._client = self._client or self._refreshed()
        with self._telling(client):
            found = client.get_targetinfo(target)
        if found is None:
            raise UpdateError(
                f"{target} is signed by no project of {self._source.name}.",
                mend="Release it with `tinysight release add`, or name another, see `tinysight release list`.",
                code=Code.UNSIGNED,
            )
        return _offer(found, client.expires)

    def _refreshed(self) -> Client:
        client = Client(
            self._folder / "metadata",
            Fetcher(self._source),
            now=self._now,
            disk=self._disk,
            bootstrap=_given_root(self._folder),
        )
        with self._telling(client):
            client.refresh()
        return client

    @contextmanager
    def _telling(self, client: Client) -> Iterator[None]:
        """Raise what tuf finds as UpdateErrors."""
        try:
            yield
        except DownloadHTTPError as error:
            raise _cause(error) from error
        except (RepositoryError, DownloadError, ValueError) as error:
            raise self._told(error, client) from error
        except OSError as error:  # of reading, tuf takes none for an error
            raise disk_error(self._folder, error) from error

    def _told(self, error: Exception, client: Client) -> UpdateError:
        where = self._source.name
        if isinstance(error, ExpiredMetadataError):
            return UpdateError(
                f"What is signed in {where} is out of date at {self._now:%Y-%m-%d %H:%M} UTC: {error}.",
                mend="Sign the repository again on its workstation, or set this device's clock if that is wrong.",
                code=Code.EXPIRED,
            )
        code = _code(error, well_signed=client.last_is_signed())
        return UpdateError(f"{where} is not trusted: {_plain(error)}.", mend=_MENDS[code], code=code)


def new_trust(folder: Path, root: bytes, disk: Disk) -> None:
    """Give a device its root of trust. Again with the same root, or with one that the first has signed: does nothing.

    Raises:
        UpdateError: MALFORMED, ``root`` is none; UNSIGNED, the device trusts another; DISK, NO_SPACE.
    """
    new = _checked_root(root, "The new root of trust")
    path = folder / ROOT
    try:
        if path.exists():
            kept = read_capped(path, MAX_ROOT_BYTES)
            if kept == root or _has_signed(_checked_root(kept, str(path)).signed, new):
                return
            raise UpdateError(
                f"{path} is the root of another repository.",
                mend="Use that repository. To change for good, remove the store's `trust` folder on the device first.",
                code=Code.UNSIGNED,
            )
        disk.make_folder(folder)
        disk.replace(path, root)
    except OSError as error:
        raise disk_error(path, error) from error


def _given_root(folder: Path) -> bytes:
    """The root of provisioning, checked by itself."""
    path = folder / ROOT
    try:
        root = read_capped(path, MAX_ROOT_BYTES)
    except FileNotFoundError as error:
        raise UpdateError(
            f"This device trusts no repository yet: there is no {path}.",
            mend="Provision it with `tinysight device add`, or give it the root with `tinysight store trust`.",
            code=Code.UNSIGNED,
        ) from error
    except OSError as error:
        raise disk_error(path, error) from error
    _checked_root(root, str(path))
    return root


def _checked_root(raw: bytes, where: str) -> Metadata[Root]:
    """A root that is signed by its own keys."""
    try:
        if len(raw) > MAX_ROOT_BYTES:
            raise RepositoryError(f"it has more than {MAX_ROOT_BYTES} bytes")
        found: Metadata[Root] = Metadata.from_bytes(raw)
        if not isinstance(found.signed, Root):
            raise RepositoryError("it is of another kind")
        found.signed.verify_delegate(Root.type, found.signed_bytes, found.signatures)
    except (RepositoryError, ValueError) as error:
        raise UpdateError(
            f"{where} is no root of trust, or damaged: {_plain(error)}.",
            mend="Provision the device again with the repository's root.",
            code=Code.MALFORMED,
        ) from error
    return found


def _has_signed(old: Root, new: Metadata[Root]) -> bool:
    """Whether a later root was signed by an older one."""
    try:
        old.verify_delegate(Root.type, new.signed_bytes, new.signatures)
    except RepositoryError:
        return False
    return new.signed.version > old.version


def _offer(found: TargetFile, expires: datetime) -> Offer:
    """What is signed about a target, if it makes sense."""
    target = found.path
    digest = found.hashes.get("sha256", "")
    if set(found.hashes) != {"sha256"} or _SHA256.fullmatch(digest) is None:
        raise _nonsense(target, "it is not named by its SHA-256 alone")
    if found.length > MAX_BUNDLE_BYTES:
        raise UpdateError(
            f"{target} has {found.length} bytes, a bundle has at most {MAX_BUNDLE_BYTES}.",
            mend="Make a smaller model with `tinysight convert`.",
            code=Code.TOO_LARGE,
        )
    signed = parse_signed(found.custom)
    if target.partition("/")[2] != f"{signed.name}-{signed.version}.bundle":
        raise _nonsense(target, f"it is said to be {signed.name} {signed.version}")
    release = Release(
        target=target,
        digest=digest,
        size_bytes=found.length,
        name=signed.name,
        version=signed.version,
        release=signed.release,
    )
    return Offer(release, signed, expires)


def _nonsense(target: str, why: str) -> UpdateError:
    return UpdateError(
        f"What is signed about {target} contradicts itself: {why}.",
        mend="Release it again with `tinysight release add`.",
        code=Code.MALFORMED,
    )


def _code(error: Exception, *, well_signed: bool) -> Code:
    """What a refusal means. What is signed well and refused is of another time, or of another place."""
    if isinstance(error, UnsignedMetadataError):
        return Code.UNSIGNED
    if isinstance(error, BadVersionNumberError):
        return Code.REPLAYED
    if isinstance(error, LengthOrHashMismatchError):
        return Code.REPLAYED if well_signed else Code.TAMPERED
    if isinstance(error, DeserializationError | SerializationError):
        return Code.MALFORMED
    return Code.REPLAYED if well_signed else Code.MALFORMED


def _cause(error: DownloadHTTPError) -> BaseException:
    return error.__cause__ or error


def _plain(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:300].rstrip(".")
