"""Image files: one, and a folder of them."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np

from tinysight_contract.errors import CameraError
from tinysight_edge.sources.base import Image, Source

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "FolderSource", "decode_image", "read_image"]

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MAX_PIXELS: Final = 100_000_000


class FolderSource(Source):
    """A folder of images in the order of their names, one a second; a broken one is an error that names it."""

    fps = 1.0

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        try:
            self._paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        except OSError as error:
            what = f"{folder} cannot be read: {error.strerror}."
            raise CameraError(what, mend="Check the folder and its rights.") from error
        if not self._paths:
            raise CameraError(f"{folder} holds no images.", mend=f"Put {', '.join(IMAGE_SUFFIXES)} files into it.")
        first = read_image(self._paths[0])
        self.height, self.width = first.shape[:2]
        self.duration_s = float(len(self._paths))
        self._number = -1

    def grab(self) -> float | None:
        """The next image of the folder."""
        if self._number + 1 >= len(self._paths):
            return None
        self._number += 1
        return float(self._number)

    def retrieve(self) -> Image:
        """Read it now."""
        return read_image(self._paths[self._number])

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
