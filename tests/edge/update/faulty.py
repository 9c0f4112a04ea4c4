"""A web server on 127.0.0.1 that does to devices what web servers do, one fault a request.

It remembers what it was asked.

``Server(files)`` serves a dict of path → bytes or a folder, with Range, If-Range, ETag and If-None-Match. Faults of
``server.faults`` are used up one by one; ``server.always`` holds those that stay, by path.

::

    server = Server({"a": b"..."})
    server.faults = [Fault(cut_after=100), Fault(status=503, headers={"Retry-After": "3"})]
    HttpSource(server.url).read("a", 1000)
    server.asked   # [Asked(path="a", headers={...}), ...]
"""

import hashlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

RESET = struct.pack("ii", 1, 0)  # with these SO_LINGER, close() sends RST instead of FIN
REASONS = {200: "OK", 206: "Partial Content", 304: "Not Modified", 404: "Not Found", 416: "Range Not Satisfiable"}
LONG_S = 60.0  # what is silent is so until the client goes, or the test is over


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one answer; by default nothing.

    Attributes:
        status: instead of 200 or 206; the body is then a short text, unless ``body`` is given.
        headers: sent too, or instead; an empty value leaves one out.
        body: instead of the file's; ranges are taken of it.
        cut_after: bytes of the body after which the connection ends.
        reset: it ends with RST instead of FIN.
        silent: ``connected``: nothing is ever answered; ``headers``: the status line, then nothing; ``body``: all
            headers and ``cut_after`` bytes, then nothing.
        drip_s: between single bytes: of the body, or with ``drip_headers`` of the headers.
        drip_headers: see there.
        ignore_range: the whole file is sent for a part.
        shift: a part is sent, and said to be, that begins so many bytes later.
        shorten: only so many bytes of the part that was asked for are sent, and said to be.
        length: Content-Length is said to be this; -1 says none, so that the end of the connection is that of the body.
        chunked: in chunks, without a length.
        endless: after the body more comes, without a length, until the client goes.
        garbage: sent instead of everything.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    reset: bool = False
    silent: str = ""
    drip_s: float = 0.0
    drip_headers: bool = False
    ignore_range: bool = False
    shift: int = 0
    shorten: int | None = None
    length: int | None = None
    chunked: bool = False
    endless: bool = False
    garbage: bytes | None = None


@dataclass(frozen=True)
class Asked:
    """One request: its path without the first slash, and its headers in lower case."""

    path: str
    headers: Mapping[str, str]


class Server:
    """Serves ``files`` below ``prefix``, over TLS when ``certificate`` is a file with certificate and key.

    Attributes:
        asked: the requests, in the order in which they came.
        sent: bytes of bodies.
        faults: of the next requests, used up one by one.
        always: by path, the fault of each request that no other fault meets.
    """

    def __init__(
        self, files: dict[str, bytes] | Path, *, prefix: str = "repo", certificate: Path | None = None
    ) -> None:
        self.files, self._prefix = files, prefix
        self.asked: list[Asked] = []
        self.sent = 0
        self.faults: list[Fault] = []
        self.always: dict[str, Fault] = {}
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}/{prefix}"
        self._begin(self._listen)

    def close(self) -> None:
        """End all connections and threads."""
        self._over.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(10)

    def _begin(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]  # it can be called
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._begin(self._serve, connection)

    def _serve(self, plain: socket.socket) -> None:
        with plain, suppress(OSError):  # also that TLS is refused
            plain.settimeout(10)
            connection = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            with connection:
                while (asked := _request(connection)) is not None:
                    self.asked.append(Asked(asked.path.removeprefix(f"{self._prefix}/"), asked.headers))
                    if not self._answer(connection, self.asked[-1]):
                        return

    def _answer(self, connection: socket.socket, asked: Asked) -> bool:
        """Answer one request; give whether the connection goes on."""
        fault = self.faults.pop(0) if self.faults else self.always.get(asked.path, Fault())
        if fault.garbage is not None:
            connection.sendall(fault.garbage)
            return False
        if fault.silent == "connected":
            return self._wait(connection)
        status, headers, body = self._content(asked, fault)
        head = f"HTTP/1.1 {status} {REASONS.get(status, 'So')}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
        if fault.silent == "headers":
            connection.sendall(head.encode("latin-1"))
            return self._wait(connection)
        self._send(connection, f"{head}\r\n".encode("latin-1"), fault.drip_s if fault.drip_headers else 0.0)
        cut = body if fault.cut_after is None else body[: fault.cut_after]
        if fault.chunked:
            cut = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in _parts(cut))
        self._send(connection, cut, 0.0 if fault.drip_headers else fault.drip_s)
        self.sent += len(cut)
        if fault.silent == "body":
            return self._wait(connection)
        while fault.endless and not self._over.is_set():
            self._send(connection, bytes(1 << 16), 0.0)
            self.sent += 1 << 16
        if fault.chunked and fault.cut_after is None:
            connection.sendall(b"0\r\n\r\n")
        if fault.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return fault.cut_after is None and "Content-Length" in headers and int(headers["Content-Length"]) == len(body)

    def _content(self, asked: Asked, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        """What the answer is, before anything goes wrong on the way."""
        whole = fault.body if fault.body is not None else self._file(asked.path)
        status, headers = 200, {"Date": "Tue, 01 Dec 2026 12:00:00 GMT", "Accept-Ranges": "bytes"}
        if whole is None or (fault.status is not None and fault.body is None):
            whole, status = b"A short text.", fault.status or 404
        else:
            headers["ETag"] = f'"{hashlib.sha256(whole).hexdigest()[:16]}"'
            if asked.headers.get("if-none-match") == headers["ETag"]:
                return self._sized(304, headers, b"", fault)
            part = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
            same = asked.headers.get("if-range", headers["ETag"]) == {**headers, **fault.headers}["ETag"]
            if part and same and not fault.ignore_range:
                first, last = int(part[1]), int(part[2] or len(whole) - 1)
                first += fault.shift if first + fault.shift <= last else 0
                if fault.shorten is not None:
                    last = min(last, first + fault.shorten - 1)
                if first >= len(whole):
                    status, headers["Content-Range"], body = 416, f"bytes */{len(whole)}", b""
                else:
                    status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{len(whole)}"
                    body = whole[first : last + 1]
                return self._sized(fault.status or status, headers, body, fault)
            status = fault.status or status
        return self._sized(status, headers, whole, fault)

    def _sized(
        self, status: int, headers: dict[str, str], body: bytes, fault: Fault
    ) -> tuple[int, dict[str, str], bytes]:
        if fault.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif fault.length != -1 and not fault.endless:
            headers["Content-Length"] = str(len(body) if fault.length is None else fault.length)
        return status, {**headers, **fault.headers}, body

    def _file(self, path: str) -> bytes | None:
        if isinstance(self.files, dict):
            return self.files.get(path)
        found = self.files / path
        return found.read_bytes() if found.is_file() else None

    def _send(self, connection: socket.socket, data: bytes, drip_s: float) -> None:
        if not drip_s:
            connection.sendall(data)
        for at in range(len(data) if drip_s else 0):
            if self._over.wait(drip_s):
                return
            connection.sendall(data[at : at + 1])

    def _wait(self, connection: socket.socket) -> bool:
        """Say nothing until the client goes; the connection does not go on."""
        until_s = time.monotonic() + LONG_S
        connection.settimeout(0.05)
        while not self._over.is_set() and time.monotonic() < until_s:
            try:
                if not connection.recv(1):
                    break
            except TimeoutError:
                continue
        return False


def _parts(data: bytes) -> list[bytes]:
    return [data[at : at + 5000] for at in range(0, len(data), 5000)]


def _request(connection: socket.socket) -> Asked | None:
    """The next request, or None when the client is gone."""
    raw = b""
    while not raw.endswith(b"\r\n\r\n"):
        if not (byte := connection.recv(1)):
            return None
        raw += byte
    line, *rest = raw.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest if each)}
    return Asked(line.split(" ")[1].lstrip("/"), headers)
