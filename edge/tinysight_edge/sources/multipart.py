"""The parts of a ``multipart/x-mixed-replace`` stream, as MJPEG cameras send it.

In: bytes as they come.  Out: the body of one part after the other. Knows nothing of sockets or pictures. Limits: 16 MiB
a part, 16 KiB of headers. A part whose ``Content-Length`` lies ends at the next boundary all the same.
"""

import re
from collections.abc import Callable
from typing import Final

from tinysight_contract.errors import CameraError

__all__ = ["Parts", "boundary_of"]

MAX_PART: Final = 16 << 20
MAX_HEADERS: Final = 16 << 10
CHUNK: Final = 1 << 16


def boundary_of(content_type: str) -> bytes | None:
    """What stands between two parts, or None when it is no multipart stream. Some cameras count its dashes in."""
    found = re.search(r'^\s*multipart/.*;\s*boundary\s*=\s*(?:"([^"]+)"|([^\s;]+))', content_type, re.IGNORECASE)
    name = (found[1] or found[2]).strip() if found else ""
    return b"--" + name.removeprefix("--").encode("latin-1", "replace") if name else None


class Parts:
    """Cuts the stream.

    Args:
        more: gives at most so many further bytes, and none at the end; waits until there is one.
        boundary: as `boundary_of` says.
    """

    def __init__(self, more: Callable[[int], bytes], boundary: bytes) -> None:
        self._more, self._boundary = more, boundary
        self._bytes = bytearray()

    def next(self) -> bytes | None:
        """The next body, without the line end behind it, or None at the end of the stream.

        Raises:
            CameraError: a limit is exceeded.
        """
        at = self._find(self._boundary, 0, MAX_PART)
        if at < 0:
            return None
        del self._bytes[: at + len(self._boundary)]
        while (end := re.search(rb"\r?\n\r?\n", self._bytes)) is None:
            if len(self._bytes) > MAX_HEADERS:
                raise CameraError("The stream's headers never end.", mend="Check that the address is an MJPEG stream.")
            if not self._fill():
                return None
        head = bytes(self._bytes[: end.start()])
        del self._bytes[: end.end()]
        if head.startswith(b"--"):  # the end of all parts
            return None
        length = re.search(rb"(?im)^content-length\s*:\s*(\d{1,9})\s*$", head)
        return self._body(int(length[1]) if length else 0)

    def _body(self, length: int) -> bytes | None:
        """With a length a body is whole as soon as its bytes are here, without waiting for the next boundary."""
        end = self._find(self._boundary, 0, length or MAX_PART)
        if end < 0 and not (length and len(self._bytes) >= length):
            return None
        body = bytes(self._bytes[: end if end >= 0 else length])
        del self._bytes[: len(body)]
        return body.rstrip(b"\r\n") if end >= 0 else body

    def _find(self, wanted: bytes, start: int, limit: int) -> int:
        """Where it begins within the next ``limit`` bytes, read so far as needed; -1 when it does not."""
        if limit > MAX_PART:
            raise CameraError("A picture of the stream is above 16 MiB.", mend="Lower the camera's resolution.")
        while True:
            at = self._bytes.find(wanted, start, limit)
            if at >= 0:
                return at
            if len(self._bytes) >= limit:
                if limit == MAX_PART:
                    raise CameraError("A picture of the stream is above 16 MiB.", mend="Lower the camera's resolution.")
                return -1
            start = max(len(self._bytes) - len(wanted) + 1, 0)
            if not self._fill():
                return -1

    def _fill(self) -> bool:
        more = self._more(CHUNK)
        self._bytes += more
        return bool(more)
