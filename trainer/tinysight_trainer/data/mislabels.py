"""Labels that a model disagrees with, though it never saw them.

In: pictures, the labels they carry, what models say that were trained on other pictures.  Out: findings. Classes by
confident learning (C. Northcutt et al., arXiv 1911.00068; the package cleanlab); boxes by the three questions of
ObjectLab (U. Tkachenko et al., arXiv 2309.00832): overlooked, misplaced, swapped.
"""

from collections.abc import Callable, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_converters.metrics import above, best_threshold
from tinysight_edge.decode import Detections, iou_matrix
from tinysight_edge.sources import decode_image
from tinysight_trainer.data.checks import Finding, Remedy, finding
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.item import Item
from tinysight_trainer.data.quick import SIDE, detections_out_of_fold, probabilities_out_of_fold, turns_out_of_fold
from tinysight_trainer.data.take import in_parallel

__all__ = ["check_boxes_by_model", "check_labels", "check_turned"]

LEAST_PICTURES: Final = 30  # with fewer a quick model knows nothing
MARGIN: Final = 0.1  # around a box, of its sides
APART: Final = 0.3  # IoU below which a detection belongs to none of the boxes
MISPLACED: Final = (0.2, 0.55)  # IoU of a box with what the model sees there
TURNED_SURE: Final = 0.95
WHOLE: Final = -1

Said = Callable[[str], None]


def check_labels(data: Dataset, items: Sequence[Item], groups: NDArray[np.int64], say: Said) -> list[Finding]:
    """Whole pictures, or boxes, that are probably of another class.

    Args:
        data: the data set.
        items: those of its pictures that can be read.
        groups: int64 (len(items),), relatives share one.
        say: told what is being done.
    """
    from cleanlab.filter import find_label_issues  # noqa: PLC0415 -- slow to import

    where = [
        (number, index)
        for number, item in enumerate(items)
        for index, shown in enumerate(item.shown)
        if item.labelled and not shown.crowd and _usable(item, index)
    ]
    ids = {label: index for index, label in enumerate(data.labels)}
    given = np.array([ids[items[number].shown[index].label] for number, index in where], np.int32)
    if len(where) < LEAST_PICTURES or len(set(given.tolist())) < 2:
        return []
    crops = _crops(data, items, where)
    own = np.array([groups[number] for number, _ in where], np.int64)
    probabilities = probabilities_out_of_fold(crops, given, own, len(data.labels), say)
    doubtful = find_label_issues(given, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    out = []
    for at in np.flatnonzero(doubtful):
        number, index = where[int(at)]
        item, shown = items[number], items[number].shown[index]
        likely = int(probabilities[at].argmax())
        if likely == given[at]:
            continue
        label = data.labels[likely]
        why = f"labelled {shown.label!r}, looks like {label!r} ({probabilities[at][likely]:.0%})"
        remedy = Remedy(act="set-label", index=index, label=label)
        strength = float(probabilities[at][likely] - probabilities[at][given[at]] + 1) / 2
        out.append(finding("mislabel" if shown.box is None else "box-mislabel", [item], why, remedy, strength=strength))
    return out


def _usable(item: Item, index: int) -> bool:
    box = item.shown[index].box
    return box is None or (
        box[2] - box[0] >= 2 and box[3] - box[1] >= 2 and box[0] < item.width and box[1] < item.height
    )


def _crops(data: Dataset, items: Sequence[Item], where: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    """Small pictures (n, 32, 32, 3) RGB of whole pictures, or of what is in the boxes."""
    out = np.zeros((len(where), SIDE, SIDE, 3), np.uint8)
    by_picture: dict[int, list[int]] = {}
    for at, (number, _) in enumerate(where):
        by_picture.setdefault(number, []).append(at)

    def cut(number: int) -> None:
        image = decode_image(data.path(items[number]).read_bytes())
        if image is None:
            return
        for at in by_picture[number]:
            index = where[at][1]
            box = None if index == WHOLE else items[number].shown[index].box
            part = image if box is None else _around(image, box)
            small = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            out[at] = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)

    for _ in in_parallel(cut, iter(by_picture)):
        pass
    return out


def _around(image: NDArray[np.uint8], box: Sequence[float]) -> NDArray[np.uint8]:
    x1, y1, x2, y2 = box
    dx, dy = (x2 - x1) * MARGIN, (y2 - y1) * MARGIN
    left, top = max(int(x1 - dx), 0), max(int(y1 - dy), 0)
    part = image[top : max(int(y2 + dy), top + 1), left : max(int(x2 + dx), left + 1)]
    return part if part.size else image


def check_boxes_by_model(data: Dataset, items: Sequence[Item], groups: NDArray[np.int64], say: Said) -> list[Finding]:
    """Objects without a box, and boxes that are not where the object is."""
    labelled = [number for number, item in enumerate(items) if item.labelled]
    if len(labelled) < LEAST_PICTURES:
        return []
    examples = data.examples(items[number] for number in labelled)
    found = detections_out_of_fold(examples, data.root, data.labels, groups[labelled], say)
    sure = best_threshold(found, examples)
    out: list[Finding] = []
    for number, each in zip(labelled, found, strict=True):
        out += _compare(items[number], above(each, sure), data.labels)
    return out


def _compare(item: Item, found: Detections, labels: tuple[str, ...]) -> list[Finding]:
    """What is surely seen, against the boxes that are there."""
    boxes = np.array([shown.box for shown in item.shown], np.float32).reshape(-1, 4)
    overlap = iou_matrix(found.boxes_px, boxes)
    out = []
    for row, box, score, class_id in zip(overlap, found.boxes_px, found.scores, found.class_ids, strict=True):
        corners = tuple(round(float(side), 2) for side in box)
        if not len(row) or row.max() < APART:
            label = labels[int(class_id)]
            remedy = Remedy(act="add-box", label=label, box=corners)  # type: ignore[arg-type]  # four of them
            out.append(finding("box-overlooked", [item], f"a {label!r} ({score:.0%})", remedy, strength=float(score)))
            continue
        index = int(row.argmax())
        shown = item.shown[index]
        best = row[index] == overlap[:, index].max()
        if best and MISPLACED[0] <= row[index] < MISPLACED[1] and not shown.crowd and shown.label == labels[class_id]:
            remedy = Remedy(act="set-box", index=index, box=corners)  # type: ignore[arg-type]  # four of them
            why = f"a {shown.label!r} whose box covers {row[index]:.0%} of what is seen there ({score:.0%})"
            out.append(finding("box-misplaced", [item], why, remedy, strength=float(score * (1 - row[index]))))
    return out


def check_turned(data: Dataset, items: Sequence[Item], groups: NDArray[np.int64], say: Said) -> list[Finding]:
    """Pictures that seem to lie on their side or upside down.

    A quick model learns, from other pictures, in which of four positions a picture is; whichever is surely not upright
    is named. Where things look the same in several positions the model is not sure, and nothing is said.
    """
    if len(items) < LEAST_PICTURES:
        return []
    pictures = _crops(data, items, [(number, WHOLE) for number in range(len(items))])
    out = []
    for item, row in zip(items, turns_out_of_fold(pictures, groups, say), strict=True):
        turn = int(row.argmax())
        if turn and row[turn] >= TURNED_SURE:
            why = f"seems to be turned by {90 * turn} degrees to the left ({row[turn]:.0%})"
            out.append(finding("turned", [item], why, Remedy(act="remove-picture"), strength=float(row[turn])))
    return out
