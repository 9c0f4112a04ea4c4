"""Where pictures come from: one small class per kind of source, and the table that names them.

In: a source as the user writes it (``synthetic:belt``, a video file, a folder of images, a camera index).
Out: a `Source` that delivers (H, W, 3) uint8 BGR pictures. Knows nothing of threads or models.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qsl

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import CameraError
from tinysight_edge.belt import Belt

__all__ = ["IMAGE_SUFFIXES", "Source", "decode_image", "open_source"]

Image = NDArray[np.uint8]
IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MAX_PIXELS: Final = 100_000_000
MAX_FRAMES: Final = 1 << 40
WHOLE_SHARE: Final = 0.9  # the number of frames in a file's header is an estimate


class Source(Protocol):
    """Something that delivers pictures one after another.

    Attributes:
        name: what may be shown to others; never holds credentials.
        width: of the pictures in pixels.
        height: of the pictures in pixels.
        fps: pictures a second as the source says; 0 when it does not.
        live: time goes on without us, so an old picture is worth nothing; else every picture is wanted.
        still: the pictures have nothing to do with each other, so an object lives for one of them.
        duration_s: of the whole recording; 0 when unknown or live.
    """

    name: str
    width: int
    height: int
    fps: float
    live: bool
    still: bool
    duration_s: float

    def read(self) -> tuple[Image, float] | None:
        """The next picture and its time in seconds since the source began, or None at the end.

        Raises:
            CameraError: the source broke; it may be opened again.
        """

    def close(self) -> None:
        """Give the device or file back."""


class BeltSource:
    """``synthetic:belt``: the drawn conveyor, at its own pace, as a live camera would.

    Query: ``seed`` (0), ``fps`` (15), ``frames`` (0 is endless), ``split`` (test), ``width`` (320), ``height`` (240).
    """

    still = False
    live = True

    def __init__(self, options: dict[str, str]) -> None:
        split = options.pop("split", "test")
        if split not in {"train", "calibration", "test"}:
            raise CameraError(f"The belt has no split {split!r}.", mend="Choose train, calibration or test.")
        given = {"seed": 0.0, "fps": 15.0, "frames": 0.0, "width": 320.0, "height": 240.0}
        for key, value in options.items():
            if key not in given or re.fullmatch(r"\d+(\.\d+)?", value) is None:
                raise CameraError(
                    f"synthetic:belt does not take {key}={value}.", mend=f"It takes numbers for {', '.join(given)}."
                )
            given[key] = float(value)
        self.width, self.height = int(given["width"]), int(given["height"])
        if not (64 <= self.width <= 4096 and 64 <= self.height <= 4096 and 0 < given["fps"] <= 1000):
            raise CameraError("The belt's size or rate is out of range.", mend="Use 64 to 4096 pixels, up to 1000 fps.")
        self.name, self.fps, self._last = "synthetic:belt", given["fps"], int(given["frames"])
        self.duration_s = 0.0
        self._belt = Belt(
            int(given["seed"]),
            split="train" if split == "train" else "calibration" if split == "calibration" else "test",
            width=self.width,
            height=self.height,
            speed_px=60.0 / self.fps * self.width / 320.0,
        )
        self._begun: float | None = None
        self._next = 0

    def read(self) -> tuple[Image, float] | None:
        """Waits until the next picture is due; those that are overdue by more than a second are skipped."""
        now = time.monotonic()
        self._begun = now if self._begun is None else self._begun
        late = now - self._begun - self._next / self.fps
        if late > 1.0:
            self._next += int(late * self.fps)
        if self._last and self._next >= self._last:
            return None
        if late < 0:
            time.sleep(-late)
        image, _ = self._belt.frame(self._next)
        at = self._next / self.fps
        self._next += 1
        return image, at

    def close(self) -> None:
        """Nothing is held."""


class VideoSource:
    """A video file, every frame of it; or a camera of the machine by its number, live."""

    still = False

    def __init__(self, where: str | int) -> None:
        self.live = isinstance(where, int)
        self.name = f"camera {where}" if self.live else Path(str(where)).name
        self._capture = cv2.VideoCapture(where)
        if not self._capture.isOpened():
            raise CameraError(
                f"{self.name} cannot be opened.",
                mend="Check that the camera is plugged in and free."
                if self.live
                else "Check that it is a whole video.",
            )
        self.fps = max(float(self._capture.get(cv2.CAP_PROP_FPS)), 0.0)
        self.width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        frames = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._promised = int(frames) if 0 < frames < MAX_FRAMES and not self.live else 0
        self.duration_s = self._promised / self.fps if self.fps else 0.0
        self._begun, self._next = time.monotonic(), 0

    def read(self) -> tuple[Image, float] | None:
        """The next frame; a live camera that delivers none is broken, a file has ended."""
        good, image = self._capture.read()
        if not good:
            if self.live or self._next == 0:
                raise CameraError(
                    f"{self.name} delivers no picture.", mend="Check its cable and that nobody else uses it."
                )
            if self._next < WHOLE_SHARE * self._promised:
                raise CameraError(
                    f"{self.name} ends after {self._next} of {self._promised} frames.",
                    mend="Copy the whole file again.",
                )
            return None
        at = time.monotonic() - self._begun if self.live else self._next / (self.fps or 25.0)
        self._next += 1
        return np.asarray(image, np.uint8), at

    def close(self) -> None:
        """Release the device or file."""
        self._capture.release()


class FolderSource:
    """A folder of images in the order of their names, one a second; a broken one is an error that names it."""

    fps, live, still = 1.0, False, True

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not self._paths:
            raise CameraError(f"{folder} holds no images.", mend=f"Put {', '.join(IMAGE_SUFFIXES)} files into it.")
        first = read_image(self._paths[0])
        self.height, self.width = first.shape[:2]
        self.duration_s = float(len(self._paths))
        self._next = 0

    def read(self) -> tuple[Image, float] | None:
        """The next image of the folder."""
        if self._next >= len(self._paths):
            return None
        number, self._next = self._next, self._next + 1
        return read_image(self._paths[number]), float(number)

    def close(self) -> None:
        """Nothing is held."""


def read_image(path: Path) -> Image:
    """An image file as (H, W, 3) uint8 BGR.

    Raises:
        CameraError: it cannot be read or decoded, or has more than 100 million pixels.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CameraError(f"{path} cannot be read: {error.strerror}.", mend="Check the file and its rights.") from error
    if (image := decode_image(raw)) is None:
        raise CameraError(f"{path} is broken or no image.", mend="Replace it or take it out of the folder.")
    return image


def decode_image(raw: bytes) -> Image | None:
    """An image file's bytes as (H, W, 3) uint8 BGR, turned as its EXIF data says.

    None when it is broken, no image, or has more than 100 million pixels.
    """
    try:
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR) if raw else None
    except cv2.error:  # OpenCV's own word for too many pixels
        return None
    if image is None or image.shape[0] * image.shape[1] > MAX_PIXELS:
        return None
    return np.asarray(image, np.uint8)


SYNTHETIC: Final[dict[str, Callable[[dict[str, str]], Source]]] = {"belt": BeltSource}


def open_source(spec: str) -> Source:
    """Open what the user named.

    Raises:
        CameraError: the kind is unknown, nothing is there, or it cannot be opened.
    """
    if spec.startswith("synthetic:"):
        kind, _, query = spec.removeprefix("synthetic:").partition("?")
        if kind not in SYNTHETIC:
            raise CameraError(f"There is no synthetic source {kind!r}.", mend=f"Choose one of: {', '.join(SYNTHETIC)}.")
        return SYNTHETIC[kind](dict(parse_qsl(query, keep_blank_values=True)))
    if (device := re.fullmatch(r"(?:/dev/video)?(\d{1,3})", spec)) is not None:
        return VideoSource(int(device[1]))
    path = Path(spec)
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return VideoSource(str(path))
    raise CameraError(
        f"Unknown source {spec!r}.",
        mend="Give synthetic:belt, a video file, a folder of images, or a camera's number.",
    )
