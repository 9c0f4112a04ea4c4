"""A web server for the repository: GET and HEAD of its files, and nothing else.

In: a folder.  Out: HTTP/1.1 with Range, ETag and headers for caches. For development: it has no TLS, and whoever holds
its few connections open keeps others out. It never lists a folder, follows no link, and serves no hidden file.
"""

import contextlib
import os
import re
import signal
import socket
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import anyio.to_thread
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tinysight_contract.errors import ConfigError

__all__ = ["application", "listening", "parse_range", "serve_folder"]

MAX_CONNECTIONS: Final = 64
MAX_HEAD_BYTES: Final = 16 << 10
IDLE_S: Final = 5
CHUNK_BYTES: Final = 256 << 10
FOREVER: Final = "public, max-age=31536000, immutable"
SHORTLY: Final = "public, max-age=60, must-revalidate"
SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_TOPS: Final = ("metadata", "targets", "deltas")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,250}")
_RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a file: from ``start`` up to and without ``end``."""

    start: int
    end: int


def parse_range(header: str | None, size: int) -> Part | None:
    """What of a file is asked for; None is all of it, also when several parts are, or it is not understood.

    Raises:
        ValueError: what is asked for is not in the file.
    """
    if header is None or (found := _RANGE.fullmatch(header.strip().replace(" ", ""))) is None:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:  # the last so many bytes
        if int(last) == 0 or size == 0:
            raise ValueError(header)
        return Part(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise ValueError(header)
    return Part(int(first), size if not last else min(size, int(last) + 1))


def application(folder: Path) -> ASGIApp:
    """The web application that serves a repository's folder."""
    root = folder.resolve()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if request.method not in {"GET", "HEAD"}:
            response = _plain(405, "Only GET and HEAD.", {"Allow": "GET, HEAD"})
        elif (file := await anyio.to_thread.run_sync(_open, root, scope["path"])) is None:
            response = _plain(404, "There is no such file.", {"Cache-Control": "no-store"})
        else:
            response = _answer(request, file)
        await response(scope, receive, send)

    return serve


def _answer(request: Request, file: BinaryIO) -> Response:
    """What is said to a request for a file that is there."""
    about = os.fstat(file.fileno())
    tag = f'"{about.st_ino:x}-{about.st_mtime_ns:x}-{about.st_size:x}"'
    headers = {
        **SECURITY,
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Cache-Control": SHORTLY if request.url.path.endswith("/timestamp.json") else FOREVER,
        "Content-Type": "application/json" if request.url.path.endswith(".json") else "application/octet-stream",
    }
    asked = request.headers
    if tag in re.findall(r'"[^"]*"', asked.get("if-none-match", "")) or asked.get("if-none-match") == "*":
        file.close()
        return Response(status_code=304, headers=headers)
    whole = asked.get("if-range") not in {None, tag}
    try:
        part = None if whole else parse_range(asked.get("range"), about.st_size)
    except ValueError:
        file.close()
        return _plain(416, "The file has no such part.", {"Content-Range": f"bytes */{about.st_size}"})
    status = 200 if part is None else 206
    if part is None:
        part = Part(0, about.st_size)
    else:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{about.st_size}"
    headers["Content-Length"] = str(part.end - part.start)
    if request.method == "HEAD":
        file.close()
        return Response(status_code=status, headers=headers)
    return StreamingResponse(_chunks(file, part), status_code=status, headers=headers)


async def _chunks(file: BinaryIO, part: Part) -> AsyncIterator[bytes]:
    """A part's bytes; a file that was replaced meanwhile is still the old one."""
    with file:
        file.seek(part.start)
        left = part.end - part.start
        while left and (data := await anyio.to_thread.run_sync(file.read, min(CHUNK_BYTES, left))):
            left -= len(data)
            yield data


def _open(root: Path, path: str) -> BinaryIO | None:
    """A file of the repository, opened step by step so that no link is followed; None when there is none."""
    names = path.removeprefix("/").split("/")
    if not 2 <= len(names) <= 3 or names[0] not in _TOPS or not all(map(_NAME.fullmatch, names)):
        return None
    with contextlib.ExitStack() as stack:
        try:
            at = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, at)
            for name in names[:-1]:
                at = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                stack.callback(os.close, at)
            handle = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            return None
        return os.fdopen(handle, "rb")


def _plain(status: int, text: str, headers: Mapping[str, str]) -> Response:
    return PlainTextResponse(f"{text}\n", status_code=status, headers={**SECURITY, **headers})


@contextlib.contextmanager
def listening(folder: Path, host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens already, and its address for people.

    Raises:
        ConfigError: there is no repository, or the address cannot be listened on.
    """
    if not (folder / "metadata" / "timestamp.json").is_file():
        raise ConfigError(f"There is no repository in {folder}.", mend="Make one with `tinysight keys init`.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((host, port))
            server.listen(MAX_CONNECTIONS)
        except OSError as error:
            raise ConfigError(
                f"{host} port {port} cannot be listened on: {error.strerror or error}.", mend="Choose another --port."
            ) from error
        name = f"[{host}]" if ":" in host else host
        yield server, f"http://{name}:{server.getsockname()[1]}"


def serve_folder(folder: Path, server: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, and end at once then, in the middle of downloads as well."""
    config = uvicorn.Config(
        application(folder),
        access_log=False,
        date_header=True,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        http="h11",
        limit_concurrency=MAX_CONNECTIONS,
        lifespan="off",
        log_config=None,  # its own ends the handlers of whatever process this runs in
        log_level="critical",
        server_header=False,
        timeout_graceful_shutdown=0,
        timeout_keep_alive=IDLE_S,
        ws="none",
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: None)  # uvicorn raises it again once it has ended
    uvicorn.Server(config).run(sockets=[server])
