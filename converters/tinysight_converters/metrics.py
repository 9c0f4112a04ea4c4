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

__all__ = [
    "above",
    "agreement",
    "average_precision",
    "best_threshold",
    "calibration",
    "coco_figures",
    "confusion",
    "hits",
    "in_crowd",
    "is_right",
]


def average_precision(found: Sequence[Detections], true: Sequence[Example], labels: int) -> tuple[float, float]:
    """COCO AP at IoU 0.50, and the mean over 0.50 to 0.95, in 0..1; see `coco_figures`."""
    figures, _ = coco_figures(found, true, labels)
    return figures["ap50"] or 0.0, figures["ap50_95"] or 0.0


COCO_STATS = ("ap50_95", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")


def coco_figures(
    found: Sequence[Detections], true: Sequence[Example], labels: int
) -> tuple[dict[str, float | None], list[float | None]]:
    """COCO's own figures, and AP50-95 of each class, in 0..1; None where nothing of that size or class is there.

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
    rows = rows or [(0, -9.0, -9.0, 1.0, 1.0, 0.0, 0)]  # COCO wants one; this one hits nothing
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        result = COCOeval(truth, truth.loadRes(np.array(rows, np.float64)), "bbox")
        result.evaluate()
        result.accumulate()
        result.summarize()
    figures = {name: _known(value) for name, value in zip(COCO_STATS, result.stats, strict=False)}
    precision = result.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class, all sizes, most detections
    by_class = [precision[:, :, c][precision[:, :, c] > -1] for c in range(labels)]
    return figures, [float(each.mean()) if each.size else None for each in by_class]


def _known(value: float) -> float | None:
    """COCO says -1 where there is nothing to measure."""
    return None if value < 0 else float(value)


def confusion(
    found: Sequence[Detections], true: Sequence[Example], labels: int, *, threshold: float | None = None
) -> NDArray[np.int64]:
    """How often each true class (row) is taken for each class (column).

    Args:
        found: per picture; for a classifier strongest first.
        true: the same pictures' truth.
        labels: number of classes.
        threshold: of a detector; a last row and column then stand for "nothing". Objects are matched with what
            overlaps them most (IoU 0.5), whatever its class.
    """
    if threshold is None:
        counts = np.zeros((labels, labels), np.int64)
        for each, example in zip(found, true, strict=True):
            counts[example.class_ids[0], each.class_ids[0]] += 1
        return counts
    counts = np.zeros((labels + 1, labels + 1), np.int64)
    for each, example in zip(found, true, strict=True):
        kept, crowd = above(each, threshold), np.array(example.crowd, bool)
        overlap = np.where(crowd, 0.0, iou_matrix(kept.boxes_px, example.boxes_px))
        taken: set[int] = set()
        for row, class_id, ignored in zip(overlap, kept.class_ids, in_crowd(kept, example), strict=True):
            free = [at for at in np.argsort(-row) if row[at] >= 0.5 and int(at) not in taken]
            if free:
                taken.add(int(free[0]))
                counts[example.class_ids[free[0]], class_id] += 1
            elif not ignored:
                counts[labels, class_id] += 1
        for at, class_id in enumerate(example.class_ids):
            if at not in taken and not crowd[at]:
                counts[class_id, labels] += 1
    return counts


def calibration(
    scores: NDArray[np.float64], right: NDArray[np.bool_], *, bins: int = 15
) -> tuple[float, list[tuple[float, float, int]]]:
    """Expected calibration error (C. Guo et al., arXiv 1706.04599), and for each bin mean score, share right, count."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    rows = []
    for number in range(bins):
        mine = place == number
        if mine.any():
            rows.append((float(scores[mine].mean()), float(right[mine].mean()), int(mine.sum())))
    total = max(len(scores), 1)
    return sum(abs(score - share) * count for score, share, count in rows) / total, rows


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


def agreement(one: Sequence[Detections], other: Sequence[Detections]) -> float:
    """Share of detections on which two models agree (same class, IoU 0.5), in 0..1; cut at their thresholds before."""
    pairs = total = 0
    for a, b in zip(one, other, strict=True):
        pairs += 2 * _pairs(a, b)
        total += len(a) + len(b)
    return pairs / total if total else 1.0


def above(found: Detections, threshold: float) -> Detections:
    """Only detections with at least this score."""
    keep = found.scores >= threshold
    return Detections(found.boxes_px[keep], found.scores[keep], found.class_ids[keep])


def hits(
    found: Sequence[Detections], true: Sequence[Example], *, iou: float = 0.5
) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """Every detection's score, whether it is right (same class, IoU), and how many objects there are.

    What is found within a crowd of its class counts neither way, as COCO defines it: by the share of the detection that
    lies in the crowd.
    """
    scores: list[float] = []
    right: list[bool] = []
    wanted = 0
    for each, example in zip(found, true, strict=True):
        crowd, ids = np.array(example.crowd, bool), np.array(example.class_ids, np.int32)
        wanted += int((~crowd).sum())
        if not len(each):
            continue
        same = each.class_ids[:, None] == ids[None]
        overlap = np.where(same & ~crowd, iou_matrix(each.boxes_px, example.boxes_px), 0.0)
        for row, ignored, score in zip(overlap, in_crowd(each, example, share=iou), each.scores, strict=True):
            hit = bool((row >= iou).any())
            if hit:
                overlap[:, int(row.argmax())] = 0.0  # an object is found once
            elif ignored:
                continue
            right.append(hit)
            scores.append(float(score))
    return np.array(scores), np.array(right, bool), wanted


def in_crowd(found: Detections, example: Example, *, share: float = 0.5) -> NDArray[np.bool_]:
    """Which detections (n,) lie in a crowd of their class, with this share of their box; they count neither way."""
    a, b = found.boxes_px, example.boxes_px
    common = np.clip(np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2]), 0, None)
    within = common.prod(2) / np.maximum((a[:, 2:] - a[:, :2]).prod(1), 1e-9)[:, None]
    mine = np.array(example.crowd, bool) & (found.class_ids[:, None] == np.array(example.class_ids, np.int32)[None])
    return np.asarray((mine & (within >= share)).any(1))


def best_threshold(found: Sequence[Detections], true: Sequence[Example]) -> float:
    """The threshold that gives the best F1 at IoU 0.5, within 0.05 to 0.9.

    It lies half-way between two scores that occur, so that no rounding decides about either: int8 scores come in 256
    steps, and many detections share one.
    """
    scores, right, wanted = hits(found, true)
    if not right.any():
        return 0.3
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + wanted)
    f1[:-1][ranked[:-1] == ranked[1:]] = 0.0  # a threshold cannot part equal scores
    best = int(f1.argmax())
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float(np.clip((ranked[best] + below) / 2, 0.05, 0.9))
