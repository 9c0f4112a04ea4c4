"""What OpenCV opens: video files, and cameras of this machine; `rtsp` is the third.

What OpenCV and FFmpeg would say on stderr meanwhile is switched off in the package's ``__init__``: it may name an
address with its credentials, and what matters of it is told as a `CameraError`.
"""

import time
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from tinysight_contract.errors import CameraError
from tinysight_edge.cameras.buffers import Buffers
from tinysight_edge.sources.base import Image, Source

__all__ = ["Captured", "DeviceSource", "FileSource"]

MAX_FRAMES: Final = 1 << 40
WHOLE_SHARE: Final = 0.9  # the number of frames in a file's header is an estimate


class Captured(Source):
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


class FileSource(Captured):
    """A video file, every frame of it."""

    mend = "Check that it is a whole video."

    def __init__(self, path: Path) -> None:
        # More threads decode no cheaper, take the cores from the model, and put frames on hold.
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
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


class DeviceSource(Captured):
    """A camera of this machine, through V4L2; by its number or its path."""

    mend = "Check its cable, that nobody else uses it, and that you may: the group video owns it."

    def __init__(self, where: str) -> None:
        device = int(where) if where.isdecimal() else where
        name = f"camera {where}" if where.isdecimal() else where
        capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise CameraError(f"{name} cannot be opened.", mend=self.mend)
        super().__init__(name, capture)
