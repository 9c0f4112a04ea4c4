"""Boxes and what holds for all of them: the container, overlap, suppression.

In: what a decoder made of a foreign model's answer, which may be anything.  Out: `Detections` that can be trusted.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import ShapeError
from tinysight_edge.preprocess import Fit

__all__ = ["Detections", "distinct", "iou_matrix", "strongest", "trusted"]

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
        np.clip(boxes, 0.0, np.array((fit.frame_w, fit.frame_h) * 2, np.float32), out=boxes)
        cut = Detections(boxes, self.scores, self.class_ids)
        flat = (boxes[:, 2:] <= boxes[:, :2]).any(1)
        return cut.take(np.flatnonzero(~flat)) if flat.any() else cut


def iou_matrix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of boxes (n, 4) and (m, 4) as (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0.0, None).prod(2)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b))
    return np.asarray(common / np.maximum(area_a[:, None] + area_b[None] - common, 1e-9), np.float32)


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
    true = np.isfinite(boxes_px).all(1) & np.isfinite(scores) & (class_ids >= 0) & (class_ids < labels)
    true &= (boxes_px[:, 2:] > boxes_px[:, :2]).all(1)
    boxes = np.clip(boxes_px[true], -MAX_PX, MAX_PX).astype(np.float32)
    found = Detections(boxes, np.clip(scores[true], 0.0, 1.0), class_ids[true].astype(np.int32))
    flat = (boxes[:, 2:] <= boxes[:, :2]).any(1)  # what lies beyond the limit
    return found.take(np.flatnonzero(~flat)) if flat.any() else found


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
    stays = np.ones(len(found), bool)
    kept: list[int] = []
    for begin in range(0, len(found), BLOCK):  # so that the matrix stays small
        block, rest = slice(begin, begin + BLOCK), slice(begin, None)
        rivals = iou_matrix(boxes[block], boxes[rest]) > iou
        rivals &= class_ids[block, None] == class_ids[rest][None]
        for i, row in enumerate(rivals, start=begin):
            if stays[i]:
                kept.append(i)
                if len(kept) == most:
                    return found.take(np.array(kept))
                stays[i + 1 :] &= ~row[i + 1 - begin :]
    return found if len(kept) == len(found) else found.take(np.array(kept))
