"""Boxes and what holds for all of them: the container, overlap, suppression.

In: what a decoder made of a foreign model's answer, which may be anything.  Out: `Detections` that can be trusted.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import ShapeError
from tinysight_edge.preprocess import Fit

__all__ = ["Detections", "distinct", "intersections", "iou_matrix", "strongest", "trusted"]

MAX_PX: Final = 1e6  # no box reaches further, so that areas stay finite in float32
CANDIDATES_PER_OBJECT: Final = 10  # of the boxes that pass the threshold, so many per wanted object are compared

BLOCK: Final = 128


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

    def take(self, which: NDArray[Any]) -> "Detections":
        """Some of them, by index."""
        return Detections(self.boxes_px[which], self.scores[which], self.class_ids[which])

    def in_frame(self, fit: Fit) -> "Detections":
        """The same in pixels of the camera frame, cut at its edges; what lies outside is left out."""
        boxes = fit.to_frame(self.boxes_px)
        np.maximum(boxes, np.float32(0.0), out=boxes)
        np.minimum(boxes, fit.limits_px, out=boxes)
        cut, full = Detections(boxes, self.scores, self.class_ids), boxes[:, 2:] > boxes[:, :2]
        return cut if full.all() else cut.take(np.flatnonzero(full.all(1)))


def iou_matrix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of boxes (n, 4) and (m, 4) as (n, m)."""
    common, area_a, area_b = intersections(a, b)
    return np.asarray(common / np.maximum(area_a[:, None] + area_b - common, np.float32(1e-9)), np.float32)


def intersections(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Areas that boxes (n, 4) and (m, 4) share (n, m), and those of each alone (n,), (m,)."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.T, b.T
    zero = np.float32(0.0)
    wide = np.minimum(ax2[:, None], bx2) - np.maximum(ax1[:, None], bx1)
    high = np.minimum(ay2[:, None], by2) - np.maximum(ay1[:, None], by1)
    return np.maximum(wide, zero) * np.maximum(high, zero), (ax2 - ax1) * (ay2 - ay1), (bx2 - bx1) * (by2 - by1)


def strongest(scores: NDArray[np.float32], most: int) -> NDArray[np.intp]:
    """Indices of the highest scores, highest first, of equal ones the first; no more than ``most``."""
    if len(scores) > 4 * most:  # a partition is cheaper than to sort all; every equal of the last one stays in
        last = np.partition(scores, -most)[-most]
        near = np.flatnonzero(scores >= last)
        return near[np.argsort(-scores[near], kind="stable")[:most]]
    return np.argsort(-scores, kind="stable")[:most]


def trusted(boxes_px: NDArray[Any], scores: NDArray[np.float32], class_ids: NDArray[Any], labels: int) -> Detections:
    """Only what can be true, in the given order: finite numbers, boxes with an area, classes that have a label.

    Args:
        boxes_px: (n, 4): x1 y1 x2 y2 in model pixels.
        scores: (n,); cut to 0..1.
        class_ids: (n,), integers or floats.
        labels: how many there are.
    """
    true = np.isfinite(boxes_px).all(1)
    true &= np.isfinite(scores)
    true &= (class_ids >= 0) & (class_ids < labels)
    if not true.all():
        boxes_px, scores, class_ids = boxes_px[true], scores[true], class_ids[true]
    boxes = np.minimum(np.maximum(boxes_px, np.float32(-MAX_PX)), np.float32(MAX_PX)).astype(np.float32, copy=False)
    scores = np.minimum(np.maximum(scores, np.float32(0.0)), np.float32(1.0))
    found, full = Detections(boxes, scores, class_ids.astype(np.int32)), boxes[:, 2:] > boxes[:, :2]
    return found if full.all() else found.take(np.flatnonzero(full.all(1)))


def distinct(found: Detections, *, iou: float, most: int) -> Detections:
    """Greedy suppression within a class: of boxes that overlap more than ``iou`` the strongest stays.

    Args:
        found: strongest first.
        iou: overlap above which two boxes of a class are the same object.
        most: no more than so many stay.
    """
    if len(found) < 2:
        return found
    boxes, class_ids = found.boxes_px, found.class_ids
    if len(found) <= BLOCK and not _rivals(boxes, boxes, class_ids, class_ids, iou)[_pairs(len(found))].any():
        return found if len(found) <= most else found.take(np.arange(most))
    stays = np.ones(len(found), bool)
    kept: list[int] = []
    for begin in range(0, len(found), BLOCK):  # so that the matrix stays small
        block, rest = slice(begin, begin + BLOCK), slice(begin, None)
        rivals = _rivals(boxes[block], boxes[rest], class_ids[block], class_ids[rest], iou)
        for i, row in enumerate(rivals, start=begin):
            if stays[i]:
                kept.append(i)
                if len(kept) == most:
                    return found.take(np.array(kept))
                stays[i + 1 :] &= ~row[i + 1 - begin :]
    return found if len(kept) == len(found) else found.take(np.array(kept))


def _rivals(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    class_a: NDArray[np.int32],
    class_b: NDArray[np.int32],
    iou: float,
) -> NDArray[np.bool_]:
    """Which boxes (n, 4) and (m, 4) would be the same object: (n, m)."""
    rivals = iou_matrix(a, b) > iou
    rivals &= class_a[:, None] == class_b
    return rivals


@cache
def _pairs(n: int) -> NDArray[np.bool_]:
    """Each pair of n once, and none with itself: (n, n)."""
    return np.triu(np.ones((n, n), bool), 1)
