"""Fit a camera frame into the model's input, and remember the way back.

In: a frame (H, W, 3) uint8 BGR, as OpenCV gives it.  Out: the input tensor in the variant's dtype, and a `Fit`.
The trainer, the proof and the device all use this file, so no two of them can prepare a picture differently.
Knows nothing of cameras, models on disk, or MQTT.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import ShapeError
from tinysight_contract.manifest import Input, Tensor

__all__ = ["Fit", "Fitted", "Preprocessor", "fit_picture"]

MAX_SIZES: Final = 64  # of frames whose placement is remembered; tiles and cameras have a few


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
        limits_px: float32 (4,): the largest x, y, x, y in the frame.
    """

    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float
    frame_w: int
    frame_h: int
    limits_px: NDArray[np.float32] = field(init=False, repr=False, compare=False)
    _scales: NDArray[np.float32] = field(init=False, repr=False, compare=False)
    _pads: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, x, y in (
            ("limits_px", self.frame_w, self.frame_h),
            ("_scales", self.scale_x, self.scale_y),
            ("_pads", self.pad_x, self.pad_y),
        ):
            object.__setattr__(self, name, np.array((x, y, x, y), np.float32))  # made once: every box needs them

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


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A frame as the model sees it.

    Attributes:
        picture: uint8 (height, width, channels); nobody writes into it.
        fit: the way back.
        took_ms: to make it.
        spec: of the model that it was made for.
    """

    picture: NDArray[np.uint8]
    fit: Fit
    took_ms: float
    spec: Input


def fit_picture(frame_bgr: NDArray[np.uint8], spec: Input, out: NDArray[np.uint8]) -> Fit:
    """Resize and place a frame into ``out`` (height, width, channels), in ``spec.color``; ``out`` is overwritten.

    Raises:
        ShapeError: the frame is not (H, W, 3) uint8.
    """
    _check(frame_bgr)
    fit = Fit.of(frame_bgr.shape[1], frame_bgr.shape[0], spec)
    _place(frame_bgr, spec, fit, out)
    return fit


def _check(frame_bgr: NDArray[np.uint8]) -> None:
    if frame_bgr.ndim != 3 or frame_bgr.shape[2] != 3 or frame_bgr.dtype != np.uint8 or 0 in frame_bgr.shape:
        raise ShapeError(
            f"A frame has shape {frame_bgr.shape} and dtype {frame_bgr.dtype}, expected (H, W, 3) uint8.",
            mend="Check what the source delivers.",
        )


def _place(frame_bgr: NDArray[np.uint8], spec: Input, fit: Fit, out: NDArray[np.uint8]) -> None:
    """Only what the frame does not cover is filled; a colour picture that is not cropped is resized in its place."""
    inner_w, inner_h = round(fit.frame_w * fit.scale_x), round(fit.frame_h * fit.scale_y)
    x, y = int(fit.pad_x), int(fit.pad_y)
    if y > 0 or inner_h < spec.height:
        out[: max(y, 0)] = out[max(y, 0) + inner_h :] = spec.fill
    if x > 0 or inner_w < spec.width:
        out[:, : max(x, 0)] = out[:, max(x, 0) + inner_w :] = spec.fill
    seen = out[max(y, 0) : max(y, 0) + inner_h, max(x, 0) : max(x, 0) + inner_w]
    direct = x >= 0 and y >= 0 and spec.color != "GRAY"
    small = cv2.resize(frame_bgr, (inner_w, inner_h), dst=seen if direct else None, interpolation=cv2.INTER_LINEAR)
    if spec.color == "RGB":
        small = cv2.cvtColor(small, cv2.COLOR_BGR2RGB, dst=small)
    elif spec.color == "GRAY":
        small = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)[..., None]
    if not direct:
        seen[:] = small[max(-y, 0) :, max(-x, 0) :][: spec.height, : spec.width]


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
        table = _value_table(spec, tensor, channels)
        self._table = None if table is None else np.ascontiguousarray(table.T[None])  # (1, 256, channels)
        self._as_it_is = table is None and spec.layout == "NHWC"
        self._tensor: NDArray[Any] = np.empty(tensor.shape, np.dtype(tensor.dtype))
        self._fits: dict[tuple[int, ...], Fit] = {}

    def __call__(self, frame_bgr: NDArray[np.uint8], out: NDArray[Any] | None = None) -> tuple[NDArray[Any], Fit]:
        """The input tensor, and the way back.

        Args:
            frame_bgr: uint8 (H, W, 3).
            out: the tensor to fill, such as the interpreter's own; without it one of ours, valid until the next call.

        Raises:
            ShapeError: the frame is not (H, W, 3) uint8.
        """
        tensor = self._tensor if out is None else out
        picture = tensor[0] if self._as_it_is else self._picture
        fit = self._fit(frame_bgr, picture)
        if not self._as_it_is:
            self._store(picture, tensor)
        return tensor, fit

    def fit(self, frame_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Fit]:
        """The fitted picture (height, width, channels), valid until the next call, and the way back.

        Raises:
            ShapeError: the frame is not (H, W, 3) uint8.
        """
        return self._picture, self._fit(frame_bgr, self._picture)

    def fill(self, picture: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Put a fitted picture (height, width, channels) into a tensor, such as the interpreter's own."""
        self._store(picture, out)

    def from_picture(self, picture: NDArray[np.uint8]) -> NDArray[Any]:
        """A fitted picture (height, width, channels) as the input tensor; for uint8 models no copy is made."""
        if self._as_it_is:
            return picture[None]
        self._store(picture, self._tensor)
        return self._tensor

    def _fit(self, frame_bgr: NDArray[np.uint8], picture: NDArray[np.uint8]) -> Fit:
        _check(frame_bgr)
        fit = self._fits.get(frame_bgr.shape)
        if fit is None:
            if len(self._fits) >= MAX_SIZES:
                self._fits.clear()
            fit = self._fits[frame_bgr.shape] = Fit.of(frame_bgr.shape[1], frame_bgr.shape[0], self.spec)
        _place(frame_bgr, self.spec, fit, picture)
        return fit

    def _store(self, picture: NDArray[np.uint8], tensor: NDArray[Any]) -> None:
        """Each byte as the number that the model wants for it, in the model's order."""
        values: NDArray[Any] = picture
        if self._table is not None:
            values = cv2.LUT(picture, self._table).reshape(picture.shape)
        tensor[0] = values if self.spec.layout == "NHWC" else values.transpose(2, 0, 1)


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
