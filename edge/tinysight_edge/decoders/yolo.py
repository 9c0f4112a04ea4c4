"""YOLO heads with boxes and classes in one output (Ultralytics' YOLOv5, v8, 11 and their kin), suppressed or not.

Source: layout of the exported heads, docs.ultralytics.com/integrations/tflite.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.manifest import Yolo
from tinysight_edge.decoders.boxes import CANDIDATES_PER_OBJECT, Detections, distinct, strongest, trusted
from tinysight_edge.decoders.stored import Task, lowest_passing, real

__all__ = ["YoloDecoder"]


class YoloDecoder:
    """Takes each box with its best class; finds those that pass on the stored numbers, only they become real."""

    def __init__(self, task: Task[Yolo]) -> None:
        self._task, self._how, self._output = task, task.how, task.outputs["predictions"]
        self._at_least = lowest_passing(self._output, task.score)
        size = (1, 1) if self._how.units == "pixels" else (task.width, task.height)
        self._size = np.array(size * 2, np.float32)

    def __call__(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        """Raw outputs by name → detections in model pixels."""
        stored = outputs[self._output.name][0]
        if self._how.layout == "end-to-end":
            return self._suppressed(stored)
        table = stored if self._how.layout == "channels-first" else stored.T  # (channels, n), a view
        first = 4 + self._how.objectness
        passing = table[first:].max(0) >= self._at_least
        if self._how.objectness:  # no product of two shares is larger than either
            passing &= table[4] >= self._at_least
        at = np.flatnonzero(passing)
        numbers = real(table[:, at], self._output)
        class_ids = numbers[first:].argmax(0)
        scores = np.minimum(numbers[first + class_ids, np.arange(len(at))], 1.0)
        if self._how.objectness:
            scores = scores * np.minimum(numbers[4], 1.0)
        passing = np.flatnonzero((scores >= self._task.score) & np.isfinite(numbers).all(0))
        most = self._how.max_objects
        passing = passing[strongest(scores[passing], most * CANDIDATES_PER_OBJECT)]
        boxes = np.clip(numbers[:4, passing].T, -1e6, 1e6) * self._size
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        corners = np.concatenate((centre - half, centre + half), 1)
        found = trusted(corners, scores[passing], class_ids[passing], self._task.labels)
        return distinct(found, iou=self._task.iou, most=most)

    def _suppressed(self, stored: NDArray[Any]) -> Detections:
        """Rows (n, 6) of corners, score and class; overlaps that the graph left are dropped as of every other kind."""
        at = np.flatnonzero(stored[:, 4] >= self._at_least)
        numbers = real(stored[at], self._output)
        most = self._how.max_objects
        numbers = numbers[strongest(numbers[:, 4], most * CANDIDATES_PER_OBJECT)]
        corners = np.clip(numbers[:, :4], -1e6, 1e6) * self._size
        found = trusted(corners, numbers[:, 4], np.rint(numbers[:, 5]), self._task.labels)
        return distinct(found, iou=self._task.iou, most=most)
