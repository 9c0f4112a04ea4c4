"""tuf's client with a source, a time and a disk of our choice.

tuf 7 has a seam for the network, which `Fetcher` fills, and none for time and disk: `Client` overrides private methods,
and a test pins each. What is cached is read with a cap, written synced and only when it changed; damaged, it counts as
absent. Which error means what is decided in `trust`.
"""

import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.api.metadata import TOP_LEVEL_ROLE_NAMES, Metadata, Root  # type: ignore[attr-defined]  # public, though not listed
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from tinysight_contract.errors import UpdateError
from tinysight_contract.files import read_capped
from tinysight_contract.updates import Code
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.sources import Source, disk_error

__all__ = ["LIMITS", "MAX_ROOT_BYTES", "Client", "Fetcher"]

MAX_ROOT_BYTES: Final = 1 << 16
MAX_METADATA_BYTES: Final = 1 << 21
"""Also what is signed may not say that more is to be read."""
LIMITS: Final = UpdaterConfig(
    max_root_rotations=128,
    max_delegations=8,
    root_max_length=MAX_ROOT_BYTES,
    timestamp_max_length=1 << 13,
    snapshot_max_length=1 << 18,
    targets_max_length=MAX_METADATA_BYTES,
)


class Fetcher(FetcherInterface):
    """What tuf asks for, out of a source; no more than a device can hold.

    Attributes:
        last: the path and bytes of what was read last.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.last: tuple[str, bytes] = ("", b"")

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """See FetcherInterface; without its temporary file."""
        try:
            data = self._source.read(url, min(max_length, MAX_METADATA_BYTES))
        except UpdateError as error:
            if error.code is Code.NOT_FOUND:  # tells tuf that there is no newer root
                raise DownloadHTTPError(error.what, 404) from error
            raise
        self.last = (url, data)
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter([self.download_bytes(url, MAX_METADATA_BYTES)])


class Client(Updater):
    """tuf's client, but that all it writes is synced, that it makes no links, and that its time is ours."""

    def __init__(self, folder: Path, fetcher: Fetcher, *, now: datetime, disk: Disk, bootstrap: bytes) -> None:
        self._folder, self._disk, self._own_fetcher = folder, disk, fetcher
        try:
            super().__init__(str(folder), "metadata/", fetcher=fetcher, config=LIMITS, bootstrap=bootstrap)
        except OSError as error:
            raise disk_error(folder, error) from error
        self._trusted_set.reference_time = now

    @property
    def expires(self) -> datetime:
        """When the timestamp that was verified does; only after ``refresh``."""
        return self._trusted_set.timestamp.expires

    def last_is_signed(self) -> bool:
        """Whether what was read last is validly signed, so that only its time or place is wrong."""
        path, data = self._own_fetcher.last
        role = path.rpartition("/")[2].removesuffix(".json").lstrip("0123456789").removeprefix(".")
        delegator = "root" if role in TOP_LEVEL_ROLE_NAMES else "targets"
        if delegator not in self._trusted_set:
            return False
        try:
            found: Metadata[Root] = Metadata.from_bytes(data)
            by = self._trusted_set.root if delegator == "root" else self._trusted_set.targets
            by.verify_delegate(role, found.signed_bytes, found.signatures)
        except (RepositoryError, ValueError):
            return False
        return True

    def _load_root(self) -> None:
        """As tuf does, which would read a file of any size."""
        for path in (self._folder / "root_history").glob("*"):
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_size > MAX_ROOT_BYTES):
                self._disk.remove(path)
        super()._load_root()

    def _load_local_metadata(self, rolename: str) -> bytes:
        return read_capped(self._folder / f"{quote(rolename, '')}.json", MAX_METADATA_BYTES)

    def _persist_root(self, version: int, data: bytes) -> None:
        self._persist_file(str(self._folder / "root_history" / f"{version}.root.json"), data)

    def _persist_file(self, filename: str, data: bytes) -> None:
        """Write what changed, so that a card is not worn by looking."""
        path = Path(filename)
        try:
            if read_capped(path, len(data)) == data:
                return
        except OSError:
            pass  # it is not there, or damaged
        self._disk.make_folder(path.parent)
        self._disk.replace(path, data)

    def _update_root_symlink(self) -> None:
        """Make none: cards of cameras know no links, and the way always starts at the root of provisioning."""
