"""Peaks of a heat map with the box of their cell (X. Zhou et al., arXiv 1904.07850), on the host."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.manifest import CenterNet, Output
from tinysight_edge.decoders.boxes import Detections, distinct, trusted
from tinysight_edge.decoders.stored import Task, lowest_passing, real

__all__ = ["CenterNetDecoder"]

LEAST_LOG: Final = -4.0  # of a box's side in cells; one that cannot be smaller has an area
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
# Neighbours of a cell in a padded map; of two equal peaks side by side the one with the lower index stays.
_BEFORE = ((-1, -1), (-1, 0), (-1, 1), (0, -1))
_AFTER = ((0, 1), (1, -1), (1, 0), (1, 1))


class CenterNetDecoder:
    """Finds peaks on the stored numbers; only they become real."""

    def __init__(self, task: Task[CenterNet]) -> None:
        self._task, self._how = task, task.how
        self._heat, self._box = task.outputs["heatmap"], task.outputs["box"]
        _, height, width, classes = self._heat.shape
        dtype = np.dtype(self._heat.dtype)
        lowest = np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf
        self._padded: NDArray[Any] = np.full((height + 2, width + 2, classes), lowest, dtype)
        self._at_least = lowest_passing(self._heat, task.score)
        self._sure = dtype.kind in "iu" and classes == task.labels and _least(self._box) > LEAST_LOG
        row, column = (width + 2) * classes, classes
        self._around = np.array([y * row + x * column for y, x in _BEFORE + _AFTER])[:, None]

    def __call__(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        """Raw outputs by name → detections in model pixels."""
        heat = self._padded
        heat[1:-1, 1:-1] = outputs[self._heat.name][0]
        flat = heat.reshape(-1)
        at = np.flatnonzero(flat >= self._at_least)
        value = flat[at]
        if self._at_least <= flat[0]:  # the padding itself, when the threshold is at the bottom of the scale
            inside = value > flat[0]
            at, value = at[inside], value[inside]
        around = flat[self._around + at]  # (8, n)
        peak = (around[:4] < value).all(0)
        peak &= (around[4:] <= value).all(0)
        at, value = at[peak], value[peak]
        order = np.argsort(-value.astype(np.float32), kind="stable")[: self._how.max_objects]
        at, value = at[order], value[order]
        cell, class_ids = np.divmod(at, heat.shape[2])
        y, x = np.divmod(cell, heat.shape[1])
        raw = outputs[self._box.name][0, y - 1, x - 1]
        told, stride = real(raw, self._box), self._how.stride
        off = np.minimum(np.maximum(told[:, :2], np.float32(-1e6)), np.float32(1e6))
        centre = (np.stack((x - 1, y - 1), 1) + off) * stride
        half = np.exp(np.minimum(told[:, 2:], np.float32(12.0))) * np.float32(stride / 2)
        boxes = np.concatenate((centre - half, centre + half), 1)
        scores = real(value, self._heat)
        if self._sure:
            found = Detections(boxes, np.minimum(np.maximum(scores, _ZERO), _ONE), class_ids.astype(np.int32))
        else:
            found = trusted(boxes, scores, class_ids, self._task.labels)
        return distinct(found, iou=self._task.iou, most=self._how.max_objects)


def _least(output: Output) -> float:
    """The least real number of an output; of floats there is none."""
    dtype = np.dtype(output.dtype)
    return float(real(np.array(np.iinfo(dtype).min), output)) if dtype.kind in "iu" else -np.inf
