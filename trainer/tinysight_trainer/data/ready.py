"""What must hold before a data set is trained on.

In: a `Dataset`.  Out: nothing, or an error that names the first fault and its mend; and notes on what is passed over.
"""

from collections import Counter
from typing import Final

from tinysight_contract.errors import DataError
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.item import MAX_LABEL, Item

__all__ = ["ROUNDING_PX", "check_ready", "fault_of_box"]

ROUNDING_PX: Final = 1.0  # labelling tools round outwards; more than this is a wrong box


def fault_of_box(item: Item, box: tuple[float, float, float, float]) -> str | None:
    """Why a box cannot be learned from, or None."""
    x1, y1, x2, y2 = box
    if not (x2 > x1 and y2 > y1):
        return "is empty"
    if x2 <= 0 or y2 <= 0 or x1 >= item.width or y1 >= item.height:
        return "lies outside"
    if min(x1, y1) < -ROUNDING_PX or x2 > item.width + ROUNDING_PX or y2 > item.height + ROUNDING_PX:
        return "sticks out"
    return None


def check_ready(data: Dataset) -> tuple[str, ...]:
    """Refuse what cannot be learned from.

    Returns:
        What the user should know, a sentence each.

    Raises:
        DataError: nothing is labelled or split; a class has no example to train on; a box is wrong; one image is in
            two splits; a picture is of several classes or of none.
    """
    if data.task is None:
        raise DataError(f"Nothing in {data.root} is labelled.", mend="Label it: `tinysight data prelabel --help`.")
    known = [item for item in data.items if item.labelled]
    if all(item.split is None for item in known):
        raise DataError(f"{data.root} is not split.", mend=f"Run `tinysight data split {data.root}`.")
    for split in ("train", "test"):
        if not data.of(split):
            raise DataError(
                f"{data.root} has no images for {split}.", mend=f"Run `tinysight data split {data.root} --anew`."
            )
    _check_labels(data)
    _check_pictures(data)
    notes = []
    if unsplit := sum(item.split is None for item in known):
        notes.append(f"{unsplit} labelled images are in no split and left out; `tinysight data split` adds them.")
    if unlabelled := len(data.items) - len(known):
        notes.append(f"{unlabelled} images are not labelled and left out.")
    return (*data.notes, *notes)


def _check_labels(data: Dataset) -> None:
    if data.task == "classify" and len(data.labels) < 2:
        raise DataError(f"{data.root} knows one class.", mend="A classifier needs at least two.")
    if bad := [label for label in data.labels if not label.isprintable() or len(label) > MAX_LABEL]:
        raise DataError(f"{bad[0]!a} is no usable label.", mend=f"Use up to {MAX_LABEL} letters that can be read.")
    trained, tested = (_named(data.of(split)) for split in ("train", "test"))
    if missing := [label for label in data.labels if label not in trained]:
        raise DataError(f"Class {missing[0]!r} has no example to train on.", mend="Add examples, or remove the class.")
    if not tested:
        raise DataError(f"The test images of {data.root} show nothing to be found.", mend="Add images with objects.")


def _named(items: tuple[Item, ...]) -> Counter[str]:
    """Classes that are there to be found; crowds are not."""
    return Counter(shown.label for item in items for shown in item.shown if not shown.crowd)


def _check_pictures(data: Dataset) -> None:
    clean = f"Run `tinysight data clean {data.root}` and apply what it finds."
    where: dict[str, Item] = {}
    for item in data.items:
        if item.split is None or not item.labelled:
            continue
        other = where.setdefault(item.sha256, item)
        if other.split != item.split:
            raise DataError(
                f"{item.name} of {item.split} is the same image as {other.name} of {other.split}.", mend=clean
            )
        if data.task == "classify" and len(item.shown) != 1:
            raise DataError(f"{item.name} is of {len(item.shown)} classes, not of one.", mend="Keep one of them.")
        for shown in item.shown:
            if shown.box is not None and (fault := fault_of_box(item, shown.box)) is not None:
                box = ", ".join(f"{side:g}" for side in shown.box)
                raise DataError(
                    f"{item.name} ({item.width}x{item.height}): the box {box} of {shown.label!r} {fault}.",
                    mend=clean,
                )
