"""What goes through a command's input and outputs over SSH, each bounded."""

import contextlib
from collections.abc import Callable
from typing import Final

import asyncssh

__all__ = ["BLOCK_BYTES", "feed", "lines", "whole"]

BLOCK_BYTES: Final = 32 << 10
_MOST_LINE_BYTES: Final = 64 << 10


async def whole(source: asyncssh.SSHReader[bytes], most: int | None) -> bytes:
    """All that comes, but no more than ``most`` bytes."""
    found = bytearray()
    while chunk := await source.read(BLOCK_BYTES):
        found += chunk
        if most is not None and len(found) > most:
            raise OverflowError(f"more than {most} bytes")
    return bytes(found)


async def lines(source: asyncssh.SSHReader[bytes], most: int | None, line: Callable[[bytes], None]) -> bytes:
    """Each line as it comes, however the bytes come."""
    rest = bytearray()
    seen = 0
    while chunk := await source.read(BLOCK_BYTES):
        seen += len(chunk)
        *ended, last = (bytes(rest) + chunk).split(b"\n")
        rest = bytearray(last)
        if most is not None and seen > most:
            raise OverflowError(f"more than {most} bytes")
        if len(rest) > _MOST_LINE_BYTES or any(len(each) > _MOST_LINE_BYTES for each in ended):
            raise OverflowError(f"a line of more than {_MOST_LINE_BYTES} bytes")
        for each in ended:
            line(each)
    if rest:
        line(bytes(rest))
    return b""


async def feed(sink: asyncssh.SSHWriter[bytes], given: bytes) -> None:
    """The command's input; a command that does not want it all is no error."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for at in range(0, len(given), BLOCK_BYTES):
            sink.write(given[at : at + BLOCK_BYTES])
            await sink.drain()
        sink.write_eof()
