"""Turn a picture the right way round and black what nobody may see.

In: (H, W, 3) uint8 BGR as the source delivers it.  Out: rotated, then flipped, then cropped, then with the privacy
polygons blacked; whoever comes after this file has never seen another picture. When it cannot do that it raises, and
there is no picture. Nothing is copied when there is nothing to do; blacking happens in place.
"""

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import ConfigError, ShapeError
from tinysight_edge.cameras.buffers import Buffers
from tinysight_edge.config.types import CameraConfig, Polygon

__all__ = ["Orient", "touched"]

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

ROTATE: Final = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
FLIP: Final = {"horizontal": 1, "vertical": 0}
GRAZE_PX: Final = 1e-6  # rounding must not leave a touched pixel visible


class Orient:
    """One camera's way from its sensor's picture to ours; for one thread.

    Args:
        config: rotate (clockwise), flip, crop and privacy; nothing else is read.

    Raises:
        ConfigError: the crop is empty.
    """

    def __init__(self, config: CameraConfig) -> None:
        self._rotate, self._flip = ROTATE.get(config.rotate), FLIP.get(config.flip)
        self._crop, self._polygons = config.crop, config.privacy
        if self._crop is not None and not (self._crop[0] < self._crop[2] and self._crop[1] < self._crop[3]):
            raise ConfigError(
                f"The crop {self._crop} is empty.", mend="Write it as x1, y1, x2, y2 with x1<x2 and y1<y2."
            )
        self._turned, self._flipped = Buffers(), Buffers()
        self._black: _Black | None = None

    def __call__(self, image: Image) -> Image:
        """The picture as the rest of the agent sees it; may be the same array or a view of it.

        Raises:
            ShapeError: it is no (H, W, 3) uint8 picture.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ShapeError(f"A picture is {image.dtype} {image.shape}.", mend="Report this as a bug of the source.")
        if self._rotate is not None:
            height, width = image.shape[:2] if self._rotate == cv2.ROTATE_180 else image.shape[1::-1]
            image = np.asarray(cv2.rotate(image, self._rotate, dst=self._turned.take((height, width, 3))), np.uint8)
        if self._flip is not None:
            image = np.asarray(cv2.flip(image, self._flip, dst=self._flipped.take(image.shape)), np.uint8)
        if self._crop is not None:
            x1, y1, x2, y2 = _pixels(self._crop, image.shape[1], image.shape[0])
            image = image[y1:y2, x1:x2]
        if self._polygons:
            image = self._blacken(image)
        return image

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of what comes out when such a picture goes in."""
        if self._rotate is not None and self._rotate != cv2.ROTATE_180:
            width, height = height, width
        if self._crop is None or not (width and height):
            return width, height
        x1, y1, x2, y2 = _pixels(self._crop, width, height)
        return x2 - x1, y2 - y1

    @property
    def hidden(self) -> Mask | None:
        """What is black of the last picture, bool (H, W), or None. The same object until the size changes."""
        return None if self._black is None else self._black.mask

    def _blacken(self, image: Image) -> Image:
        height, width = image.shape[:2]
        if self._black is None or self._black.mask.shape != (height, width):
            self._black = _Black(touched(self._polygons, width=width, height=height))
        if not image.flags.writeable:
            image = image.copy()
        part = image[self._black.rows, self._black.columns]
        np.bitwise_and(part, self._black.keep, out=part)
        return image


class _Black:
    """A mask, and what to apply where: the bits to keep, uint8 (h, w, 3), of the rectangle around all that is black."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        self.rows, self.columns = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        shown = np.where(mask[self.rows, self.columns], 0, 255).astype(np.uint8)
        self.keep = np.repeat(shown[:, :, None], 3, axis=2)


def _pixels(crop: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    """The whole pixels within the crop, at least one."""
    x1, y1 = math.ceil(crop[0] * width - GRAZE_PX), math.ceil(crop[1] * height - GRAZE_PX)
    x2, y2 = math.floor(crop[2] * width + GRAZE_PX), math.floor(crop[3] * height + GRAZE_PX)
    x1, y1 = min(x1, width - 1), min(y1, height - 1)
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def touched(polygons: tuple[Polygon, ...], *, width: int, height: int) -> Mask:
    """Every pixel that shares a point with a polygon: those its edges pass, and those inside.

    Args:
        polygons: corners in 0..1. What winds around itself is filled (non-zero rule).
        width: of the picture in pixels.
        height: of the picture in pixels.

    Returns:
        bool (height, width).
    """
    mask = np.zeros((height, width), np.bool_)
    for polygon in polygons:
        corners = np.asarray(polygon, np.float64) * (width, height)
        winding = np.zeros((height, width + 1), np.int32)
        edges = np.zeros((height, width + 1), np.int32)
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            _pass(edges, x1, y1, x2, y2)
            _wind(winding, x1, y1, x2, y2)
        mask |= (np.cumsum(edges, axis=1)[:, :width] > 0) | (np.cumsum(winding, axis=1)[:, :width] != 0)
    return mask


def _pass(edges: NDArray[np.int32], x1: float, y1: float, x2: float, y2: float) -> None:
    """Mark, as +1 where it begins and -1 behind its end, the pixels of each row that the edge passes."""
    height, width = edges.shape[0], edges.shape[1] - 1
    low, high = min(y1, y2) - GRAZE_PX, max(y1, y2) + GRAZE_PX
    rows = np.arange(max(math.floor(low), 0), min(math.floor(high), height - 1) + 1)
    top, bottom = np.clip(rows, low, high), np.clip(rows + 1, low, high)
    if abs(y2 - y1) > GRAZE_PX:
        slope = (x2 - x1) / (y2 - y1)
        ends = np.stack([x1 + (top - y1) * slope, x1 + (bottom - y1) * slope])
        ends = np.clip(ends, min(x1, x2), max(x1, x2))
    else:
        ends = np.repeat([[x1], [x2]], len(rows), axis=1)
    left = np.clip(np.floor(ends.min(0) - GRAZE_PX).astype(int), 0, width - 1)
    right = np.clip(np.floor(ends.max(0) + GRAZE_PX).astype(int), 0, width - 1)
    np.add.at(edges, (rows, left), 1)
    np.add.at(edges, (rows, right + 1), -1)


def _wind(winding: NDArray[np.int32], x1: float, y1: float, x2: float, y2: float) -> None:
    """Add the edge's turn to all pixels whose centre lies right of it, as a step in each row that it crosses."""
    height, width = winding.shape[0], winding.shape[1] - 1
    low, high = min(y1, y2), max(y1, y2)
    rows = np.arange(max(math.ceil(low - 0.5), 0), min(math.ceil(high - 0.5), height))
    if len(rows):
        crossing = x1 + (rows + 0.5 - y1) * ((x2 - x1) / (y2 - y1))
        columns = np.clip(np.ceil(crossing - 0.5).astype(int), 0, width)
        np.add.at(winding, (rows, columns), 1 if y2 > y1 else -1)
