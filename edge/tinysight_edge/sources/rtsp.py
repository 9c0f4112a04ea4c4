"""RTSP through OpenCV's FFmpeg, by TCP or UDP; and why a camera could not be opened, asked of the camera itself."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import cv2

from tinysight_contract.errors import CameraError
from tinysight_edge.sources.address import Address, unreachable
from tinysight_edge.sources.capture import Captured

__all__ = ["RtspSource", "why_not"]

ASK_S: Final = 2.0
LATE_S: Final = 1.0
OPTIONS: Final = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
Transport = Literal["tcp", "udp"]


class _Opening:
    """OpenCV takes FFmpeg's options from the environment alone, which the whole process shares.

    So cameras of one transport are opened side by side, and those of the other wait. The variable is written only when
    it must change, and not restored: C code that reads the environment meanwhile would not be safe from that. An
    opening that is not back a second after its time-out is waited for no more: it may never be.
    """

    def __init__(self) -> None:
        self._given = os.environ.get(OPTIONS)
        self._changed = threading.Condition()
        self._transport: Transport | None = None
        self._due_s: dict[object, float] = {}  # of each opening, when it must be back

    @contextmanager
    def by(self, transport: Transport, *, timeout_s: float) -> Iterator[None]:
        with self._changed:
            me, begun_s = object(), time.monotonic()
            while transport != self._transport and (last_s := max(self._due_s.values(), default=0.0)) > (
                now_s := time.monotonic()
            ):
                if now_s >= begun_s + timeout_s:
                    raise CameraError(
                        f"Cameras of the other transport than {transport} take long to open.",
                        mend="Use one transport for all cameras.",
                    )
                self._changed.wait(min(last_s, begun_s + timeout_s) - now_s)
            if transport != self._transport:
                os.environ[OPTIONS] = "|".join(filter(None, (self._given, f"rtsp_transport;{transport}")))
                self._transport = transport
            self._due_s[me] = time.monotonic() + timeout_s + LATE_S
        try:
            yield
        finally:
            with self._changed:
                del self._due_s[me]
                self._changed.notify_all()


_opening: Final = _Opening()


class RtspSource(Captured):
    """An RTSP stream. Decoded in one thread: FFmpeg's others would each delay it by a frame.

    Raises:
        CameraError: it cannot be opened; the reason is the camera's own, as far as it gives one.
    """

    mend = "Check its network and power."

    def __init__(self, address: Address, *, transport: Transport, open_timeout_s: float, read_timeout_s: float) -> None:
        try:  # a camera that is away must not make the others wait
            socket.create_connection((address.host, address.port), timeout=min(ASK_S, open_timeout_s)).close()
        except OSError as error:
            raise unreachable(address, error) from error
        parameters = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: max(int(open_timeout_s * 1000), 1),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: max(int(read_timeout_s * 1000), 1),
            cv2.CAP_PROP_N_THREADS: 1,
        }
        words = [word for pair in parameters.items() for word in pair]
        with _opening.by(transport, timeout_s=open_timeout_s):
            capture = cv2.VideoCapture(address.full, cv2.CAP_FFMPEG, words)
        if not capture.isOpened():
            raise why_not(address)
        super().__init__(address.shown, capture)
        self._read_s = read_timeout_s

    def grab(self) -> float | None:
        """The next frame. After a time-out OpenCV may decode the half that it has of one; that is none."""
        asked_s = time.monotonic()
        at_s = super().grab()
        if time.monotonic() - asked_s >= self._read_s:
            raise CameraError(f"{self.name} delivers no picture.", mend=self.mend)
        return at_s


def why_not(address: Address) -> CameraError:
    """Connect and ask for the stream's description, without credentials; takes four seconds at most."""
    try:
        with socket.create_connection((address.host, address.port), timeout=ASK_S) as connection:
            connection.sendall(
                f"DESCRIBE {address.plain} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n".encode()
            )
            answer = connection.recv(64).decode("latin-1").split()
    except OSError as error:
        return unreachable(address, error)
    status = answer[1] if len(answer) > 1 and answer[0].startswith("RTSP/") else ""
    match status:
        case "401" | "403" if address.username is None:
            return CameraError(f"{address.shown} wants a user name and a password.", mend="Give both.")
        case "401" | "403":
            return CameraError(
                f"{address.shown} refuses the user name or the password, or has no such stream.",
                mend="Check all three in the camera's own settings.",
            )
        case "404":
            return CameraError(f"{address.shown} has no such stream.", mend="Look its path up in the camera's manual.")
        case "":
            return CameraError(f"{address.shown} does not speak RTSP.", mend="Check the port.")
    return CameraError(
        f"{address.shown} delivers no stream that can be decoded.",
        mend="Set the camera to H.264, or try the other transport.",
    )
