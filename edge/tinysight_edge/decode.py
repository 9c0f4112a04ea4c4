"""Turn a model's raw outputs into detections, by the roles that the manifest names.

In: one array per output, still quantized.  Out: `Detections` in model pixels, strongest first.
Works on the stored integers as long as it can: only what passes the threshold is turned into real numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import ShapeError
from tinysight_contract.manifest import CenterNet, Classify, Manifest, Output, Variant
from tinysight_edge.preprocess import Fit

__all__ = ["Decoder", "Detections", "iou_matrix", "make_decoder"]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What one frame contains, strongest first.

    Attributes:
        boxes_px: float32 (n, 4): x1 y1 x2 y2 in pixels.
        scores: float32 (n,), 0..1.
        class_ids: int32 (n,), index into the bundle's labels.
    """

    boxes_px: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]

    def __post_init__(self) -> None:
        n = len(self.boxes_px)
        for name, got, want in (
            ("boxes_px", self.boxes_px.shape, (n, 4)),
            ("scores", self.scores.shape, (n,)),
            ("class_ids", self.class_ids.shape, (n,)),
        ):
            if got != want:
                raise ShapeError(
                    f"Detections.{name} has shape {got}, expected {want}.",
                    mend="Check the decoder named in the bundle's manifest.",
                )

    def __len__(self) -> int:
        return len(self.scores)

    def in_frame(self, fit: Fit) -> "Detections":
        """The same in pixels of the camera frame, cut at its edges."""
        boxes = fit.to_frame(self.boxes_px)
        np.clip(boxes, 0.0, np.array((fit.frame_w, fit.frame_h) * 2, np.float32), out=boxes)
        return Detections(boxes, self.scores, self.class_ids)


Decoder = Callable[[Mapping[str, NDArray[Any]]], Detections]
"""Outputs by name, raw, with their batch dimension of one → detections in model pixels."""


def make_decoder(manifest: Manifest, variant: Variant, *, min_score: float | None = None) -> Decoder:
    """The decoder that the manifest names, for this variant's tensors.

    Args:
        manifest: names the kind of decoding and its parameters.
        variant: whose outputs will be decoded.
        min_score: instead of the manifest's threshold, for evaluation.
    """
    thresholds = variant.thresholds or manifest.thresholds
    threshold = thresholds.score if min_score is None else min_score
    roles = {output.role: output for output in variant.outputs}
    if isinstance(manifest.decode, CenterNet):
        return _CenterNetDecoder(roles["heatmap"], roles["box"], manifest.decode, threshold, thresholds.iou)
    return _ClassifyDecoder(roles["scores"], manifest.decode, threshold, manifest.input.width, manifest.input.height)


def _real(stored: NDArray[Any], output: Output) -> NDArray[np.float32]:
    if output.dtype == "float32":
        return stored.astype(np.float32, copy=False)
    return (stored.astype(np.float32) - np.float32(output.zero_point)) * np.float32(output.scale)


# Neighbours of a cell in a padded map; of two equal peaks side by side the one with the lower index stays.
_BEFORE = ((-1, -1), (-1, 0), (-1, 1), (0, -1))
_AFTER = ((0, 1), (1, -1), (1, 0), (1, 1))


class _CenterNetDecoder:
    """Peaks of a heat map with the box of their cell (X. Zhou et al., arXiv 1904.07850), on the host."""

    def __init__(self, heat: Output, box: Output, how: CenterNet, threshold: float, iou: float) -> None:
        self._heat, self._box, self._how, self._iou = heat, box, how, iou
        _, height, width, classes = heat.shape
        dtype = np.dtype(heat.dtype)
        lowest = np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf
        self._padded: NDArray[Any] = np.full((height + 2, width + 2, classes), lowest, dtype)
        self._at_least: float = threshold
        if dtype.kind in "iu":
            self._at_least = threshold / heat.scale + heat.zero_point
        row, column = (width + 2) * classes, classes
        self._before = np.array([y * row + x * column for y, x in _BEFORE])
        self._after = np.array([y * row + x * column for y, x in _AFTER])

    def __call__(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        heat = self._padded
        heat[1:-1, 1:-1] = outputs[self._heat.name][0]
        flat = heat.reshape(-1)
        at = np.flatnonzero(flat >= self._at_least)
        value = flat[at]
        inside = value > flat[0]  # the padding itself, when the threshold is at the bottom of the scale
        at, value = at[inside], value[inside]
        peak = (flat[at[:, None] + self._before] < value[:, None]).all(1)
        peak &= (flat[at[:, None] + self._after] <= value[:, None]).all(1)
        at, value = at[peak], value[peak]
        strongest = np.argsort(-value.astype(np.float32), kind="stable")[: self._how.max_objects]
        at, value = at[strongest], value[strongest]
        cell, class_ids = np.divmod(at, heat.shape[2])
        y, x = np.divmod(cell, heat.shape[1])
        raw = outputs[self._box.name][0, y - 1, x - 1]
        dx, dy, log_w, log_h = _real(raw, self._box).T
        stride = self._how.stride
        centre_x, centre_y = (x - 1 + dx) * stride, (y - 1 + dy) * stride
        half_w, half_h = (np.exp(np.minimum(size, 12.0)) * (stride / 2) for size in (log_w, log_h))
        boxes = np.stack((centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h), 1)
        scores = np.clip(_real(value, self._heat), 0.0, 1.0)
        boxes, class_ids = boxes.astype(np.float32), class_ids.astype(np.int32)
        finite = np.isfinite(boxes).all(1)  # a float model may answer anything
        boxes, scores, class_ids = boxes[finite], scores[finite], class_ids[finite]
        keep = _distinct(boxes, scores, class_ids, self._iou)
        return Detections(boxes[keep], scores[keep], class_ids[keep])


class _ClassifyDecoder:
    """The strongest class, said of the whole picture; nothing when it does not pass the threshold."""

    def __init__(self, scores: Output, how: Classify, threshold: float, width: int, height: int) -> None:
        self._scores, self._how, self._threshold = scores, how, threshold
        self._whole = np.array([[0, 0, width, height]], np.float32)

    def __call__(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        scores = _real(outputs[self._scores.name][0], self._scores)
        if self._how.activation == "softmax":
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
        best = np.argmax(scores, keepdims=True).astype(np.int32)
        best = best[scores[best] >= self._threshold]
        return Detections(self._whole[: len(best)].copy(), np.clip(scores[best], 0.0, 1.0), best)


def iou_matrix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of boxes (n, 4) and (m, 4) as (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0.0, None).prod(2)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b))
    return np.asarray(common / np.maximum(area_a[:, None] + area_b[None] - common, 1e-9), np.float32)


def _distinct(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], class_ids: NDArray[np.int32], most: float
) -> NDArray[np.intp]:
    """Greedy suppression within a class; the input is strongest first. Indices of what stays."""
    if len(scores) < 2:
        return np.arange(len(scores))
    rivals = (iou_matrix(boxes, boxes) > most) & (class_ids[:, None] == class_ids[None])
    stays = np.ones(len(scores), bool)
    for i in range(len(scores)):
        if stays[i]:
            stays[i + 1 :] &= ~rivals[i, i + 1 :]
    return np.flatnonzero(stays)
