"""Raspberry Pi cameras, which OpenCV cannot open (opencv/opencv#22820), through Debian's ``python3-picamera2``.

Imported when such a camera is opened. Tested with a fake of picamera2's interface; not run on a Raspberry Pi here.
"""

import importlib
import re
import time
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from tinysight_contract.errors import CameraError
from tinysight_edge.sources.base import Image, Source

__all__ = ["PicameraSource", "options_of"]


class PicameraSource(Source):
    """``picamera2`` or ``picamera2:N``.

    Query: ``width`` (1280), ``height`` (720), ``fps`` (30).
    """

    def __init__(self, spec: str) -> None:
        name, given = spec.partition("?")[0], options_of(spec)
        number = int(name.removeprefix("picamera2").removeprefix(":") or 0)
        self.name, self.fps = name, float(given["fps"])
        self.width, self.height = given["width"], given["height"]
        try:
            module: Any = importlib.import_module("picamera2")
        except ImportError as error:
            raise CameraError(
                "picamera2 is not installed.",
                mend="Install Debian's python3-picamera2, and make the environment with --system-site-packages.",
            ) from error
        try:
            self._camera = module.Picamera2(number)
            wanted = self._camera.create_video_configuration(
                main={"size": (self.width, self.height), "format": "RGB888"},  # which libcamera lays out as B G R
                controls={"FrameRate": self.fps},
            )
            self._camera.configure(wanted)
            self._camera.start()
        except (RuntimeError, IndexError, OSError, ValueError) as error:  # what libcamera's binding throws
            raise CameraError(
                f"{self.name} cannot be opened: {error}.", mend="Check its ribbon cable and that nobody else uses it."
            ) from error
        self._begun_s = time.monotonic()
        self._image: Image | None = None

    def grab(self) -> float | None:
        """Waits for the next picture."""
        try:
            self._image = np.asarray(self._camera.capture_array("main"), np.uint8)
        except (RuntimeError, OSError) as error:
            raise CameraError(f"{self.name} delivers no picture: {error}.", mend="Check its ribbon cable.") from error
        return time.monotonic() - self._begun_s

    def retrieve(self) -> Image | None:
        """The picture."""
        return self._image

    def close(self) -> None:
        """Stop it and give it back."""
        self._camera.stop()
        self._camera.close()


def options_of(spec: str) -> dict[str, int]:
    """Width, height and fps; opens nothing.

    Raises:
        CameraError: it takes no such options.
    """
    given = {"width": 1280, "height": 720, "fps": 30}
    for key, value in parse_qsl(spec.partition("?")[2], keep_blank_values=True):
        if key not in given or re.fullmatch(r"[1-9]\d{0,3}", value) is None:
            raise CameraError(
                f"picamera2 does not take {key}={value}.", mend=f"It takes whole numbers for {', '.join(given)}."
            )
        given[key] = int(value)
    return given
