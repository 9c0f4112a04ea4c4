"""What OpenCV opens: video files, cameras of this machine, and RTSP through its FFmpeg.

What OpenCV and FFmpeg would say on stderr meanwhile is switched off in the package's ``__init__``: it may name an
address with its credentials, and what matters of it is told as a `CameraError`.
"""

import time
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np

from tinysight_contract.errors import CameraError
from tinysight_edge.buffers import Buffers
from tinysight_edge.sources.address import Address
from tinysight_edge.sources.base import Image, Source
from tinysight_edge.sources.rtsp import why_not

__all__ = ["DeviceSource", "FileSource", "RtspSource"]

MAX_FRAMES: Final = 1 << 40
WHOLE_SHARE: Final = 0.9  # the number of frames in a file's header is an estimate


class _Captured(Source):
    """Pictures of a ``cv2.VideoCapture``. Owner of its buffers: a picture's memory is used again once it is free."""

    mend: str

    def __init__(self, name: str, capture: cv2.VideoCapture) -> None:
        self.name, self._capture = name, capture
        self.fps = max(float(capture.get(cv2.CAP_PROP_FPS)), 0.0)
        self.width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self._buffers = Buffers()
        self._begun_s, self._next = time.monotonic(), 0

    def grab(self) -> float | None:
        """The next frame; a live one that delivers none is broken."""
        if not self._capture.grab():
            raise CameraError(f"{self.name} delivers no picture.", mend=self.mend)
        self._next += 1
        return time.monotonic() - self._begun_s

    def retrieve(self) -> Image | None:
        """The frame in one of our buffers, or in a new array when it has another size than the last one."""
        buffer = self._buffers.take((self.height, self.width, 3))
        good, image = self._capture.retrieve(buffer)
        if not good or image is None or image.ndim != 3 or image.shape[2] != 3:
            return None
        self.height, self.width = image.shape[:2]
        return np.asarray(image, np.uint8)

    def close(self) -> None:
        """Release the device or file."""
        self._capture.release()


class FileSource(_Captured):
    """A video file, every frame of it."""

    mend = "Check that it is a whole video."

    def __init__(self, path: Path) -> None:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise CameraError(f"{path.name} cannot be opened.", mend=self.mend)
        super().__init__(path.name, capture)
        frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._promised = int(frames) if 0 < frames < MAX_FRAMES else 0
        self.duration_s = self._promised / self.fps if self.fps else 0.0

    def grab(self) -> float | None:
        """The next frame, or the end."""
        if self._capture.grab():
            self._next += 1
            return (self._next - 1) / (self.fps or 25.0)
        if self._next == 0:
            raise CameraError(f"{self.name} delivers no picture.", mend=self.mend)
        if self._next < WHOLE_SHARE * self._promised:
            raise CameraError(
                f"{self.name} ends after {self._next} of {self._promised} frames.", mend="Copy the whole file again."
            )
        return None


class DeviceSource(_Captured):
    """A camera of this machine, through V4L2; by its number or its path."""

    mend = "Check its cable, that nobody else uses it, and that you may: the group video owns it."

    def __init__(self, where: str) -> None:
        device = int(where) if where.isdecimal() else where
        name = f"camera {where}" if where.isdecimal() else where
        capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise CameraError(f"{name} cannot be opened.", mend=self.mend)
        super().__init__(name, capture)


class RtspSource(_Captured):
    """RTSP through FFmpeg, by TCP, or by UDP where the camera grants it.

    The transport goes with the address, as FFmpeg's own suffix, since the option that OpenCV reads from the
    environment holds for the whole process. Decodes in one thread: FFmpeg's others would each delay by a frame.
    """

    mend = "Check its network and power."

    def __init__(
        self, address: Address, *, transport: Literal["tcp", "udp"], open_timeout_s: float, read_timeout_s: float
    ) -> None:
        url = address.full
        if transport == "udp":
            url += "&udp" if "?" in url else "?udp"
        parameters = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: max(int(open_timeout_s * 1000), 1),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: max(int(read_timeout_s * 1000), 1),
            cv2.CAP_PROP_N_THREADS: 1,
        }
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, [word for pair in parameters.items() for word in pair])
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
