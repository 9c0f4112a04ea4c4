"""A file that grows over many answers of a web server, whichever part of it each of them brings.

In: an answer's status, headers and bytes.  Out: the file's beginning on disk, never longer than it is to be, and the
headers that ask for the rest. Errors are those of `Source.fetch`.
"""

from collections.abc import Mapping
from pathlib import Path

from tinysight_edge.update.disk import Disk
from tinysight_edge.update.http_answer import AgainError, length_of, part_of, strong_etag, unreachable
from tinysight_edge.update.sources import append, discard, held_bytes, other_length, too_large

__all__ = ["Part"]


class Part:
    """A file that is not whole yet, and how the rest of it is asked for.

    Attributes:
        have: bytes that are on disk.
    """

    def __init__(self, url: str, to: Path, size: int, disk: Disk) -> None:
        self.have = held_bytes(to, size, disk)
        self._url, self._to, self._size, self._disk = url, to, size, disk
        self._etag: str | None = None
        self._ranges = True
        self._skip = 0

    def wanted(self) -> dict[str, str]:
        """The headers that ask for what is missing."""
        if not self.have or not self._ranges:
            return {}
        return {"Range": f"bytes={self.have}-", **({"If-Range": self._etag} if self._etag else {})}

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """See where an answer's body goes on. A whole file in place of a part is skipped up to what is here."""
        etag, before = strong_etag(headers), self._etag
        self._etag = etag or before
        changed = before is not None and etag not in {None, before}
        if changed and self.have:
            discard(self._disk, self._to)
            self.have = 0
        if status == 200:
            self._skip = self.have
            if (length := length_of(headers)) is not None and length != self._size:
                raise other_length(self._url, length, self._size)
            return
        self._skip = 0
        if (part := part_of(headers)) is not None and part[2] not in {None, self._size}:
            raise other_length(self._url, part[2] or 0, self._size)
        if part is None or part[0] != self.have or part[1] >= self._size:
            self._ranges = changed  # what changed meanwhile may be asked for in parts again
            raise AgainError(unreachable(self._url, "the server sends another part than it was asked for"))

    def take(self, data: bytes) -> None:
        """Keep what of ``data`` is new."""
        new = data[self._skip :]
        self._skip -= len(data) - len(new)
        if self.have + len(new) > self._size:
            raise too_large(self._url, self._size)
        if new:
            append(self._disk, self._to, new)
            self.have += len(new)
