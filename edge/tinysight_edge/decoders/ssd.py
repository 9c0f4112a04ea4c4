"""SSD detectors: with their post-processing inside the graph, and with raw heads.

Sources: W. Liu et al., SSD, arXiv 1512.02325; box coder of the TensorFlow Object Detection API; MediaPipe's
``SsdAnchorsCalculator``, whose order of anchors this is.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.manifest import Anchors, Ssd, SsdAnchors
from tinysight_edge.decoders.boxes import CANDIDATES_PER_OBJECT, Detections, distinct, strongest, trusted
from tinysight_edge.decoders.stored import Task, activated, lowest_passing, real

__all__ = ["SsdAnchorsDecoder", "SsdDecoder", "anchor_boxes"]


class SsdDecoder:
    """Reads what ``TFLite_Detection_PostProcess`` says; overlaps that it left are dropped as of every other kind."""

    def __init__(self, task: Task[Ssd]) -> None:
        self._task = task
        self._size = np.array((task.width, task.height) * 2, np.float32)

    def __call__(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        """Raw outputs by name → detections in model pixels."""
        boxes, classes, scores, count = (
            real(outputs[output.name][0], output)
            for output in (self._task.outputs[role] for role in ("boxes", "classes", "scores", "count"))
        )
        hold = int(np.clip(np.nan_to_num(count, nan=0.0), 0, len(scores)))
        passing = np.flatnonzero(scores[:hold] >= self._task.score)
        most = self._task.how.max_objects
        passing = passing[strongest(scores[passing], most * CANDIDATES_PER_OBJECT)]
        class_ids = np.rint(classes[passing]) - self._task.how.background
        corners = np.clip(boxes[passing][:, [1, 0, 3, 2]], -1e6, 1e6) * self._size
        found = trusted(corners, scores[passing], class_ids, self._task.labels)
        return distinct(found, iou=self._task.iou, most=most)


class SsdAnchorsDecoder:
    """Puts raw boxes upon their anchors; only those whose best class passes the threshold become real."""

    def __init__(self, task: Task[SsdAnchors]) -> None:
        self._task, self._how = task, task.how
        self._boxes, self._scores = task.outputs["boxes"], task.outputs["scores"]
        self._anchors = anchor_boxes(self._how.anchors, task.height, task.width)
        self._alone = self._how.activation != "softmax"  # a score then depends on no other
        self._at_least = lowest_passing(self._scores, task.score, self._how.activation) if self._alone else -np.inf
        self._scales = np.array(self._how.scales, np.float32)
        self._size = np.array((task.width, task.height) * 2, np.float32)

    def __call__(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        """Raw outputs by name → detections in model pixels."""
        stored, first = outputs[self._scores.name][0], int(self._how.background)
        if self._alone:
            stored, first = stored[:, first:], 0
            at = np.flatnonzero(stored.max(1) >= self._at_least)
            scores = activated(real(stored[at], self._scores), self._how.activation)
        else:
            at = np.arange(len(stored))
            scores = activated(real(stored, self._scores), "softmax")[:, first:]
        class_ids = scores.argmax(1)
        best = scores[np.arange(len(at)), class_ids]
        passing = np.flatnonzero((best >= self._task.score) & np.isfinite(best))
        most = self._how.max_objects
        passing = passing[strongest(best[passing], most * CANDIDATES_PER_OBJECT)]
        at, class_ids, best = at[passing], class_ids[passing], best[passing]
        coded = np.clip(real(outputs[self._boxes.name][0, at], self._boxes), -1e6, 1e6) / self._scales
        y, x, h, w = self._anchors[at].T
        centre_y, centre_x = coded[:, 0] * h + y, coded[:, 1] * w + x
        half_h, half_w = np.exp(np.minimum(coded[:, 2], 12.0)) * h / 2, np.exp(np.minimum(coded[:, 3], 12.0)) * w / 2
        corners = np.stack((centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h), 1)
        found = trusted(corners * self._size, best, class_ids, self._task.labels)
        return distinct(found, iou=self._task.iou, most=most)


def anchor_boxes(anchors: Anchors, height: int, width: int) -> NDArray[np.float32]:
    """All anchors of a picture of this size: float32 (n, 4), centre y, centre x, height, width as shares of it."""
    made = []
    for rows, columns, layers in anchors.grids(height, width):
        cell = np.array([each for layer in layers for each in anchors.cell(layer)], np.float64)
        scale, root = cell[:, 0], np.sqrt(cell[:, 1])
        sizes = np.ones((len(cell), 2)) if anchors.fixed_anchor_size else np.stack((scale / root, scale * root), 1)
        y, x = np.mgrid[:rows, :columns].astype(np.float64) + anchors.offset
        centres = np.stack((y / rows, x / columns), -1)  # (rows, columns, 2)
        shape = (rows, columns, len(cell), 2)
        placed = np.concatenate((np.broadcast_to(centres[:, :, None], shape), np.broadcast_to(sizes, shape)), -1)
        made.append(placed.reshape(-1, 4))
    return np.concatenate(made).astype(np.float32)
