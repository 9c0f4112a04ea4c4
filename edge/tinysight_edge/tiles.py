"""Look at parts of a frame, for objects that are small in it, and tell each object once.

In: a frame's size and the `TilesConfig`; later what was found in each part.  Out: the parts, and one `Detections`.
Slicing aided inference after F. C. Akyon et al., arXiv 2202.06934; what differs is the care for objects that a tile's
edge cuts: a whole box wins against a cut one of any score, and two cut halves become one box.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_edge.config.types import TilesConfig
from tinysight_edge.decoders.boxes import Detections, intersections

__all__ = ["Tile", "join", "lay_out"]

NEAR_EDGE: Final = 0.03  # of a tile's side: a box that ends so close to its edge may go on beyond it
SAME_PART: Final = 0.6  # so much of a cut box within another means that it is a part of that


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of the frame.

    Attributes:
        x1: left edge in frame pixels.
        y1: top edge.
        x2: right edge, exclusive.
        y2: bottom edge, exclusive.
        inner: which of its edges (left, top, right, bottom) lie inside the frame, so that they may cut an object.
    """

    x1: int
    y1: int
    x2: int
    y2: int
    inner: tuple[bool, bool, bool, bool]

    def view(self, image_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """This part of a frame; no copy."""
        return image_bgr[self.y1 : self.y2, self.x1 : self.x2]

    def moves(self, moving: NDArray[np.bool_], width: int, height: int) -> bool:
        """Whether any cell that moves, of a grid (rows, columns) over the whole frame, touches it."""
        rows, columns = moving.shape
        top, left = self.y1 * rows // height, self.x1 * columns // width
        bottom, right = -(-self.y2 * rows // height), -(-self.x2 * columns // width)
        return bool(moving[top:bottom, left:right].any())

    def in_frame(self, found: Detections) -> Detections:
        """What was found in its view, in pixels of the frame."""
        offset = np.array((self.x1, self.y1) * 2, np.float32)
        return Detections(found.boxes_px + offset, found.scores, found.class_ids)

    def cuts(self, boxes_px: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which of the boxes (n, 4), in frame pixels, end at which of its inner edges: (n, 4)."""
        edges = np.array((self.x1, self.y1, self.x2, self.y2), np.float32)
        near = NEAR_EDGE * np.array((self.x2 - self.x1, self.y2 - self.y1) * 2, np.float32)
        return np.asarray((np.abs(boxes_px - edges) <= near) & np.array(self.inner))


def lay_out(width: int, height: int, config: TilesConfig) -> list[Tile]:
    """Tiles of one size that cover the frame, row by row, and the whole frame last if it is asked for."""
    across = _spans(width, config.columns, config.overlap)
    down = _spans(height, config.rows, config.overlap)
    tiles = [Tile(x1, y1, x2, y2, (x1 > 0, y1 > 0, x2 < width, y2 < height)) for y1, y2 in down for x1, x2 in across]
    if config.whole and len(tiles) > 1:
        tiles.append(Tile(0, 0, width, height, (False,) * 4))
    return tiles


def _spans(length: int, count: int, overlap: float) -> list[tuple[int, int]]:
    """``count`` spans of one length, the first at 0 and the last at the end, neighbours sharing ``overlap`` of one."""
    count = min(count, length)
    side = min(length, int(np.ceil(length / (count - (count - 1) * overlap))))
    starts = [round(number * (length - side) / max(count - 1, 1)) for number in range(count)]
    return [(start, start + side) for start in starts]


def join(parts: Sequence[tuple[Tile, Detections]], *, iou: float) -> Detections:
    """What was found in all parts, each object once, strongest first.

    Args:
        parts: tiles with what was found in them, in frame pixels.
        iou: overlap above which two boxes of a class are the same object.
    """
    parts = [(tile, found) for tile, found in parts if len(found)]
    if len(parts) < 2:
        return parts[0][1] if parts else _NOTHING
    boxes = np.concatenate([found.boxes_px for _, found in parts])
    scores = np.concatenate([found.scores for _, found in parts])
    class_ids = np.concatenate([found.class_ids for _, found in parts])
    cuts = np.concatenate([tile.cuts(found.boxes_px) for tile, found in parts])
    boxes, scores, cuts = _mend(boxes, scores, class_ids, cuts)
    cut: NDArray[np.bool_] = np.asarray(cuts.any(1))
    order = np.lexsort((-scores, cut))  # whole ones first, of each kind the strongest
    boxes, scores, class_ids, cut = boxes[order], scores[order], class_ids[order], cut[order]
    common, area, _ = intersections(boxes, boxes)
    union = np.maximum(area[:, None] + area - common, np.float32(1e-9))
    same = np.asarray(common > iou * union)  # [winner, loser]
    same |= cut & (common > SAME_PART * area)
    same &= class_ids[:, None] == class_ids
    stays = np.ones(len(boxes), bool)
    for number in np.flatnonzero(np.triu(same, 1).any(1)):
        if stays[number]:
            stays[number + 1 :] &= ~same[number, number + 1 :]
    kept = np.flatnonzero(stays)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    return Detections(boxes[kept], scores[kept], class_ids[kept])


def _mend(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], class_ids: NDArray[np.int32], cuts: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Grow each cut box by the parts of the same object in other tiles.

    Two boxes of a class are such parts when one is cut at the edge towards the other, that one at the edge towards the
    first, both hold the strip that the tiles share, and they agree on where the object ends to the sides.
    """
    at = np.flatnonzero(cuts.any(1))
    if len(at) < 2:
        return boxes, scores, cuts
    boxes, scores, cuts = boxes.copy(), scores.copy(), cuts.copy()
    for axis in (0, 1):  # left and right, then above and below; what is cut both ways is mended twice
        for first in at[cuts[at, axis + 2]]:
            for second in at[cuts[at, axis]]:
                if class_ids[first] != class_ids[second] or not cuts[first, axis + 2] or not cuts[second, axis]:
                    continue
                if not _continues(boxes[first], boxes[second], axis):
                    continue
                whole = np.concatenate(
                    (np.minimum(boxes[first, :2], boxes[second, :2]), np.maximum(boxes[first, 2:], boxes[second, 2:]))
                )
                boxes[first] = boxes[second] = whole
                scores[first] = scores[second] = max(scores[first], scores[second])
                left = cuts[first] | cuts[second]
                left[axis], left[axis + 2] = cuts[first, axis], cuts[second, axis + 2]
                cuts[first] = cuts[second] = left
    return boxes, scores, cuts


def _continues(first: NDArray[np.float32], second: NDArray[np.float32], axis: int) -> bool:
    """Whether ``second`` goes on where ``first`` is cut, to the right (axis 0) or downwards (axis 1)."""
    if not first[axis] <= second[axis] <= first[axis + 2] <= second[axis + 2]:
        return False
    across = 1 - axis
    common = min(first[across + 2], second[across + 2]) - max(first[across], second[across])
    spans = (first[across + 2] - first[across], second[across + 2] - second[across])
    return bool(common > SAME_PART * max(spans))


_NOTHING: Final = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
