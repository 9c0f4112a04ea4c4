"""How good detections and classes are.

In: what was found and what is true, per picture.  Out: COCO average precision, accuracy, agreement. Average precision
is pycocotools' own; crowds are ignored as COCO defines it.
"""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinysight_converters.run import Example
from tinysight_edge.decode import Detections, iou_matrix

__all__ = ["above", "agreement", "average_precision", "best_threshold", "hits", "is_right"]


def average_precision(found: Sequence[Detections], true: Sequence[Example], labels: int) -> tuple[float, float]:
    """COCO AP at IoU 0.50, and the mean over 0.50 to 0.95, in 0..1.

    Args:
        found: per picture, in frame pixels, with all scores (no threshold).
        true: the same pictures' truth.
        labels: number of classes.
    """
    from pycocotools.coco import COCO  # noqa: PLC0415 -- slow to import
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 -- see above

    truth = COCO()
    truth.dataset = {
        "images": [{"id": i} for i in range(len(true))],
        "categories": [{"id": c} for c in range(labels)],
        "annotations": [],
    }
    for i, example in enumerate(true):
        for (x1, y1, x2, y2), c, crowd in zip(example.boxes, example.class_ids, example.crowd, strict=True):
            truth.dataset["annotations"].append(
                {
                    "id": len(truth.dataset["annotations"]) + 1,
                    "image_id": i,
                    "category_id": c,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(crowd),
                }
            )
    rows = [
        (i, x1, y1, x2 - x1, y2 - y1, score, c)
        for i, each in enumerate(found)
        for (x1, y1, x2, y2), score, c in zip(each.boxes_px, each.scores, each.class_ids, strict=True)
    ]
    if not rows:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        result = COCOeval(truth, truth.loadRes(np.array(rows, np.float64)), "bbox")
        result.evaluate()
        result.accumulate()
        result.summarize()
    return float(result.stats[1]), float(result.stats[0])


def is_right(found: Detections, example: Example) -> bool:
    """Whether a classifier's strongest class is the true one."""
    return len(found) > 0 and int(found.class_ids[0]) == example.class_ids[0]


def _pairs(a: Detections, b: Detections, *, iou: float = 0.5) -> int:
    """How many of a have a partner of the same class in b, one each, strongest first."""
    if not len(a) or not len(b):
        return 0
    overlap = np.where(a.class_ids[:, None] == b.class_ids[None], iou_matrix(a.boxes_px, b.boxes_px), 0.0)
    pairs = 0
    for row in overlap:
        best = int(row.argmax())
        if row[best] >= iou:
            pairs += 1
            overlap[:, best] = 0.0
    return pairs


def agreement(one: Sequence[Detections], other: Sequence[Detections], threshold: float) -> float:
    """Share of detections above the threshold on which two models agree (same class, IoU 0.5), in 0..1."""
    pairs = total = 0
    for a, b in zip(one, other, strict=True):
        kept = above(a, threshold), above(b, threshold)
        pairs += 2 * _pairs(*kept)
        total += len(kept[0]) + len(kept[1])
    return pairs / total if total else 1.0


def above(found: Detections, threshold: float) -> Detections:
    """Only detections with at least this score."""
    keep = found.scores >= threshold
    return Detections(found.boxes_px[keep], found.scores[keep], found.class_ids[keep])


def hits(
    found: Sequence[Detections], true: Sequence[Example], *, iou: float = 0.5
) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """Every detection's score, whether it is right (same class, IoU), and how many objects there are.

    What lies over a crowd counts neither way.
    """
    scores: list[float] = []
    right: list[bool] = []
    wanted = 0
    for each, example in zip(found, true, strict=True):
        crowd, ids = np.array(example.crowd, bool), np.array(example.class_ids, np.int32)
        wanted += int((~crowd).sum())
        if not len(each):
            continue
        overlap = iou_matrix(each.boxes_px, example.boxes_px) if len(ids) else np.zeros((len(each), 1), np.float32)
        same = (each.class_ids[:, None] == ids[None]) if len(ids) else np.zeros((len(each), 1), bool)
        free = ~crowd if len(ids) else np.zeros(1, bool)
        for row, match, score in zip(overlap, same, each.scores, strict=True):
            here = np.where(match & free, row, 0.0)
            best = int(here.argmax())
            hit = bool(here[best] >= iou)
            if hit:
                free[best] = False
            elif len(ids) and bool((row[crowd] > 0).any()):
                continue
            right.append(hit)
            scores.append(float(score))
    return np.array(scores), np.array(right, bool), wanted


def best_threshold(found: Sequence[Detections], true: Sequence[Example]) -> float:
    """The score from which on keeping detections gives the best F1 at IoU 0.5, within 0.05 to 0.9."""
    scores, right, wanted = hits(found, true)
    if not right.any():
        return 0.3
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + wanted)
    return float(np.clip(scores[order][int(f1.argmax())], 0.05, 0.9))
