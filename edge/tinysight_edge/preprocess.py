"""Fit a camera frame into the model's input, and remember the way back.

In: a frame (H, W, 3) uint8 BGR, as OpenCV gives it.  Out: the input tensor in the variant's dtype, and a `Fit`.
The trainer, the proof and the device all use this file, so no two of them can prepare a picture differently.
Knows nothing of cameras, models on disk, or MQTT.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import ShapeError
from tinysight_contract.manifest import Input, Tensor

__all__ = ["Fit", "Preprocessor", "fit_picture"]


@dataclass(frozen=True, slots=True)
class Fit:
    """How a frame was placed: ``model = frame * scale + pad``, per axis, in pixels.

    Attributes:
        scale_x: model pixels per frame pixel.
        scale_y: likewise, downwards.
        pad_x: where the frame's left edge lies in the model's picture; negative when cropped.
        pad_y: likewise, the top edge.
        frame_w: width of the frame in pixels.
        frame_h: height of the frame in pixels.
    """

    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float
    frame_w: int
    frame_h: int

    @classmethod
    def of(cls, frame_w: int, frame_h: int, spec: Input) -> "Fit":
        """The placement that ``spec.resize`` asks for. Letterbox and crop keep the shape and centre the frame."""
        x, y = spec.width / frame_w, spec.height / frame_h
        if spec.resize == "letterbox":
            x = y = min(x, y)
        elif spec.resize == "crop":
            x = y = max(x, y)
        # The size in whole pixels decides, so that boxes go back exactly where the pixels came from.
        inner_w, inner_h = max(1, round(frame_w * x)), max(1, round(frame_h * y))
        pad_x, pad_y = (spec.width - inner_w) // 2, (spec.height - inner_h) // 2
        return cls(inner_w / frame_w, inner_h / frame_h, float(pad_x), float(pad_y), frame_w, frame_h)

    def to_model(self, boxes_px: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (n, 4) from frame pixels to model pixels."""
        return boxes_px * self._scales + self._pads

    def to_frame(self, boxes_px: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (n, 4) from model pixels to frame pixels; the inverse of ``to_model``."""
        return (boxes_px - self._pads) / self._scales

    @property
    def _scales(self) -> NDArray[np.float32]:
        return np.array((self.scale_x, self.scale_y, self.scale_x, self.scale_y), np.float32)

    @property
    def _pads(self) -> NDArray[np.float32]:
        return np.array((self.pad_x, self.pad_y, self.pad_x, self.pad_y), np.float32)


def fit_picture(frame_bgr: NDArray[np.uint8], spec: Input, out: NDArray[np.uint8]) -> Fit:
    """Resize and place a frame into ``out`` (height, width, channels), in ``spec.color``; ``out`` is overwritten.

    Raises:
        ShapeError: the frame is not (H, W, 3) uint8.
    """
    if frame_bgr.ndim != 3 or frame_bgr.shape[2] != 3 or frame_bgr.dtype != np.uint8 or 0 in frame_bgr.shape:
        raise ShapeError(
            f"A frame has shape {frame_bgr.shape} and dtype {frame_bgr.dtype}, expected (H, W, 3) uint8.",
            mend="Check what the source delivers.",
        )
    frame_h, frame_w = frame_bgr.shape[:2]
    fit = Fit.of(frame_w, frame_h, spec)
    inner_w, inner_h = round(frame_w * fit.scale_x), round(frame_h * fit.scale_y)
    small = cv2.resize(frame_bgr, (inner_w, inner_h), interpolation=cv2.INTER_LINEAR)
    if spec.color == "RGB":
        small = cv2.cvtColor(small, cv2.COLOR_BGR2RGB, dst=small)
    elif spec.color == "GRAY":
        small = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)[..., None]
    x, y = int(fit.pad_x), int(fit.pad_y)
    if inner_w < spec.width or inner_h < spec.height:
        out[:] = spec.fill
    from_y, from_x = max(-y, 0), max(-x, 0)
    seen = small[from_y : from_y + spec.height, from_x : from_x + spec.width]
    out[max(y, 0) : max(y, 0) + seen.shape[0], max(x, 0) : max(x, 0) + seen.shape[1]] = seen
    return fit


class Preprocessor:
    """Turns frames into one variant's input tensor, in a buffer that is made once and used for every frame.

    Args:
        spec: how the frame is fitted.
        tensor: the variant's input.
    """

    def __init__(self, spec: Input, tensor: Tensor) -> None:
        self.spec = spec
        channels = 1 if spec.color == "GRAY" else 3
        self._picture = np.empty((spec.height, spec.width, channels), np.uint8)
        self._table = _value_table(spec, tensor, channels)
        dtype = np.dtype(tensor.dtype)
        self._tensor: NDArray[Any] = np.empty(tensor.shape, dtype)

    def __call__(self, frame_bgr: NDArray[np.uint8]) -> tuple[NDArray[Any], Fit]:
        """The input tensor, valid until the next call, and the way back.

        Raises:
            ShapeError: the frame is not (H, W, 3) uint8.
        """
        picture, fit = self.fit(frame_bgr)
        return self.from_picture(picture), fit

    def fit(self, frame_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Fit]:
        """The fitted picture (height, width, channels), valid until the next call, and the way back.

        Raises:
            ShapeError: the frame is not (H, W, 3) uint8.
        """
        return self._picture, fit_picture(frame_bgr, self.spec, self._picture)

    def from_picture(self, picture: NDArray[np.uint8]) -> NDArray[Any]:
        """A fitted picture (height, width, channels) as the input tensor; for uint8 models no copy is made."""
        if self._table is None:
            values: NDArray[Any] = picture
        else:
            channel = np.arange(picture.shape[2])
            values = self._table[channel, picture]  # (h, w, c), looked up per channel
        if self.spec.layout == "NHWC":
            if self._table is None:
                return values[None]
            self._tensor[0] = values
        else:
            self._tensor[0] = values.transpose(2, 0, 1)
        return self._tensor


def _value_table(spec: Input, tensor: Tensor, channels: int) -> NDArray[Any] | None:
    """What each of the 256 byte values becomes, (channels, 256); None when it stays as it is."""
    value = np.tile(np.arange(256, dtype=np.float64), (channels, 1))
    if spec.mean is not None:
        value -= np.array(spec.mean)[:, None]
    if spec.std is not None:
        value /= np.array(spec.std)[:, None]
    if tensor.dtype == "float32":
        return value.astype(np.float32)
    bounds = np.iinfo(np.dtype(tensor.dtype))
    stored = np.clip(np.rint(value / tensor.scale) + tensor.zero_point, bounds.min, bounds.max).astype(tensor.dtype)
    same = tensor.dtype == "uint8" and bool(np.array_equal(stored, np.tile(np.arange(256), (channels, 1))))
    return None if same else stored
