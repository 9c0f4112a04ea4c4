"""Cameras for tests: real servers on free ports of 127.0.0.1 that can be killed, stalled and told what to show.

`RtspServer` (H.264 over TCP and UDP, a process of GStreamer) and `MjpegServer` (HTTP, threads of this process). Both
begin with `start`, end with `kill` and can be started again on the same port; `stall` keeps their connections open
and sends nothing, `go_on` ends that. `scene` draws what cameras see.
"""

import contextlib
import hashlib
import shutil
import signal
import socket
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import parse_http_list, parse_keqv_list

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


def scene(kind: str, number: int, *, width: int = 320, height: int = 240) -> Image:
    """Frame ``number`` of a scene.

    ``lively``: things on a floor, one of which moves, and sensor noise. ``still``: the same and nothing moves.
    ``frozen``: without noise, every picture the same. ``dark``: noise alone. ``covered``: a hand before the lens: a
    dull slope of light and noise. ``dazzled``: the same, bright. ``lamp``: dark but for a lamp.
    """
    rng = np.random.default_rng(7)
    noise = np.random.default_rng(number).normal(0, 2.5, (height, width, 1))
    if kind in {"covered", "dazzled"}:
        slope = np.linspace(0, 40, width)[None, :, None]
        return np.clip((60 if kind == "covered" else 205) + slope + noise, 0, 255).repeat(3, 2).astype(np.uint8)
    image = np.zeros((height, width, 3), np.uint8)
    if kind == "lamp":
        cv2.circle(image, (width // 3, height // 3), height // 12, (200, 220, 255), -1)
    elif kind != "dark":
        image[:] = 90
        for _ in range(25):
            x, y = (int(v) for v in rng.uniform(0, 1, 2) * (width, height))
            shade = tuple(int(v) for v in rng.uniform(20, 235, 3))
            cv2.rectangle(image, (x, y), (x + width // 6, y + height // 6), shade, -1)
        if kind == "lively":
            cv2.circle(image, (number * width // 60 % width, height // 2), height // 10, (255, 255, 255), -1)
    if kind == "frozen":
        return image
    return np.clip(image + noise, 0, 255).astype(np.uint8)


class RtspServer:
    """``rtsp://127.0.0.1:port/stream``; patterns are those of ``videotestsrc``."""

    def __init__(self, *, width: int = 320, height: int = 240, fps: int = 15, pattern: str = "ball") -> None:
        self.port = free_port()
        self.user: str | None = None
        self.password = ""
        self._looks = ["--width", str(width), "--height", str(height), "--fps", str(fps), "--pattern", pattern]
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def start(self) -> None:
        """Start, and wait until it listens."""
        python = shutil.which("python3", path="/usr/bin")
        if python is None or subprocess.run([python, "-c", "import gi"], capture_output=True, check=False).returncode:
            pytest.skip("apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good -ugly")
        program = str(Path(__file__).with_name("rtsp_server.py"))
        who = ["--user", self.user, "--password", self.password] if self.user else []
        self._process = subprocess.Popen(
            [python, program, str(self.port), *self._looks, *who],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def show(self, pattern: str) -> None:
        """Change the picture of all connections."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{pattern}\n")
        self._process.stdin.flush()

    def stall(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._process = None


class MjpegServer:
    """``http://127.0.0.1:port/stream``.

    Attributes:
        picture: draws picture ``n``; change it while it runs.
        encode: makes the bytes of one part of it.
        length: send ``Content-Length``.
        chunked: HTTP/1.1 with chunks.
        drips: a byte a third of a second, for ever.
        auth: None, basic or digest, for ``user`` and ``password``.
        challenges: instead of what ``auth`` asks.
        status: of the answer.
        content_type: of the answer.
        ends_after: pictures of one connection; 0 is endless.
    """

    def __init__(self, *, fps: float = 20.0) -> None:
        self.port = free_port()
        self.fps = fps
        self.picture: Callable[[int], Image] = lambda number: scene("lively", number)
        self.encode: Callable[[Image, int], bytes] = lambda image, _number: jpeg(image)
        self.length, self.chunked, self.status, self.ends_after = True, False, 200, 0
        self.drips = False
        self.auth: str | None = None
        self.challenges: list[str] | None = None
        self.user, self.password = "viewer", "p@ss:w/rd"
        self.content_type = "multipart/x-mixed-replace; boundary=picture"
        self.asked: list[str] = []
        self._flows = threading.Event()
        self._flows.set()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    def start(self) -> None:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1" if camera.chunked else "HTTP/1.0"

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def do_GET(self) -> None:
                camera.asked.append(self.headers.get("Authorization", ""))
                with contextlib.suppress(OSError):  # the reader has gone, or we are killed
                    camera._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self._open: list[socket.socket] = []
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stall(self) -> None:
        self._flows.clear()

    def go_on(self) -> None:
        self._flows.set()

    def kill(self) -> None:
        """Close every connection."""
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self._flows.set()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self._open.append(handler.connection)
        if self.auth and not self._known(handler.headers.get("Authorization", "")):
            asks = 'Basic realm="camera"' if self.auth == "basic" else 'Digest realm="camera", nonce="abc", qop="auth"'
            handler.send_response(401)
            for challenge in [asks] if self.challenges is None else self.challenges:
                handler.send_header("WWW-Authenticate", challenge)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(self.status)
        handler.send_header("Content-Type", self.content_type)
        if self.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        server, number = self._server, 0
        while self._server is server and not (self.ends_after and number >= self.ends_after):
            body = self.encode(self.picture(number), number)
            head = f"Content-Length: {len(body)}\r\n" if self.length else ""
            part = f"--picture\r\nContent-Type: image/jpeg\r\n{head}\r\n".encode() + body + b"\r\n"
            for piece in (part[: len(part) // 2], part[len(part) // 2 :]):
                self._flows.wait()
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)
            number += 1
            time.sleep(1 / self.fps)
            while self._server is server and self.drips:
                handler.wfile.write(b"x")
                time.sleep(0.3)

    def _known(self, given: str) -> bool:
        if self.auth == "basic":
            return given == "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()
        if not given.startswith("Digest "):
            return False
        said = parse_keqv_list(parse_http_list(given.removeprefix("Digest ")))

        def md5(*words: str) -> str:
            return hashlib.md5(":".join(words).encode()).hexdigest()  # noqa: S324 -- what RFC 2617 asks for

        first, second = md5(self.user, "camera", self.password), md5("GET", "/stream")
        return said["response"] == md5(first, "abc", said["nc"], said["cnonce"], "auth", second)


def jpeg(image: Image) -> bytes:
    good, raw = cv2.imencode(".jpg", image)
    assert good
    return raw.tobytes()
