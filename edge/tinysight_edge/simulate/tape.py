"""What was heard of a broker, in a file: written by ``tinysight watch --record``, played by ``simulate --replay``.

JSON lines, compressed if the file's name ends in ``.gz``. The first line names the format and when it began; each
other is one message::

    {"tinysight_tape": 1, "begun_at": "2026-11-26T09:00:00Z"}
    {"at_s": 0.012, "topic": "…/plant-1/belt-7/status", "retained": true, "message": {…}}

``message`` is the payload itself, to the byte; one that is no single line of JSON of the contract stands in
``base64``, an empty one for a topic that was cleared. Lines are flushed a few times a second, so a recorder that is
killed loses little, and a last line that was torn is left out when the file is read.
"""

import base64
import binascii
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Self, TypeVar

import msgspec
from msgspec import Raw, Struct

from tinysight_contract.errors import DataError
from tinysight_contract.fleet import Heard
from tinysight_contract.scalars import Time

__all__ = ["Take", "TapeWriter", "read_tape"]

VERSION: Final = 1
MAX_LINE: Final = 8 << 20  # a picture in base64, and room
S = TypeVar("S", bound=Struct)


class _Head(Struct, frozen=True, kw_only=True):
    tinysight_tape: int
    begun_at: Time


class _Line(Struct, frozen=True, kw_only=True):
    at_s: float
    topic: str
    retained: bool


class _Plain(_Line, frozen=True, kw_only=True):
    message: Raw


class _Packed(_Line, frozen=True, kw_only=True):
    base64: str


class _Either(_Line, frozen=True, kw_only=True):
    message: Raw = Raw()
    base64: str = ""


class Take(Struct, frozen=True, kw_only=True):
    """One message of a tape.

    Attributes:
        at_s: when it came, in seconds since the tape began.
        topic: where.
        payload: what; empty for a topic that was cleared.
        retained: it was of the time before the tape began.
    """

    at_s: float
    topic: str
    payload: bytes
    retained: bool


class TapeWriter:
    """Writes a tape; to be used in a ``with``. What was there before is overwritten.

    Args:
        path: of the file.
        begun_at: the present time.
    """

    def __init__(self, path: Path, *, begun_at: datetime) -> None:
        self._path, self._begun_at = path, begun_at

    def __enter__(self) -> Self:
        self._raw = self._path.open("wb")
        self._file = gzip.GzipFile(fileobj=self._raw, mode="wb") if _zipped(self._path) else self._raw
        self._put(_Head(tinysight_tape=VERSION, begun_at=self._begun_at))
        self.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._raw.close()

    def write(self, heard: Heard, *, at_s: float) -> None:
        """Add a message that came ``at_s`` seconds after the beginning.

        Raises:
            OSError: it cannot be written.
        """
        at_s, topic, retained = round(at_s, 4), heard.topic, heard.retained
        if heard.message is not None and b"\n" not in heard.payload and b"\r" not in heard.payload:
            self._put(_Plain(at_s=at_s, topic=topic, retained=retained, message=Raw(heard.payload)))
        else:
            text = base64.b64encode(heard.payload).decode()
            self._put(_Packed(at_s=at_s, topic=topic, retained=retained, base64=text))

    def flush(self) -> None:
        """Hand to the system what was written.

        Raises:
            OSError: it cannot be written.
        """
        self._file.flush()
        self._raw.flush()

    def _put(self, line: Struct) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")


def read_tape(path: Path) -> Iterator[Take]:
    """The messages of a tape, read one after another.

    Raises:
        DataError: it is no tape, one of a later version, or damaged before its last line.
        OSError: it cannot be read.
    """
    with _opened(path) as file:
        lines = _lines(path, file)
        head = _decode(path, 1, next(lines, b""), _Head)
        if head.tinysight_tape != VERSION:
            raise DataError(
                f"{path} is a tape of version {head.tinysight_tape}, this release plays version {VERSION}.",
                mend="Update TinySight, or record it again.",
            )
        for number, text in enumerate(lines, start=2):
            line = _decode(path, number, text, _Either)
            try:
                payload = bytes(line.message) or base64.b64decode(line.base64, validate=True)
            except (binascii.Error, ValueError) as error:
                raise _damaged(path, number, str(error)) from error
            yield Take(at_s=line.at_s, topic=line.topic, payload=payload, retained=line.retained)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    with path.open("rb") as raw:
        if not _zipped(path):
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as file:
            yield file


def _zipped(path: Path) -> bool:
    return path.name.endswith(".gz")


def _lines(path: Path, file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    """Whole lines; a torn one ends them."""
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(MAX_LINE)
        except EOFError:
            return
        except (gzip.BadGzipFile, zlib.error) as error:
            raise _damaged(path, number, str(error)) from error
        if len(line) == MAX_LINE:
            raise _damaged(path, number, f"the line is longer than {MAX_LINE} bytes")
        if not line.endswith(b"\n"):
            return
        yield line


def _decode(path: Path, number: int, line: bytes, kind: type[S]) -> S:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, number, str(error)) from error


def _damaged(path: Path, number: int, why: str) -> DataError:
    return DataError(f"{path}, line {number}: {why}.", mend="Give a file that `tinysight watch --record` wrote.")
