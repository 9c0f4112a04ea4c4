"""What is wrong with pictures and boxes, found by looking at them one by one or side by side. No I/O, no model.

In: items, how they look.  Out: findings. Nothing is changed here; see `clean` and `apply`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

import numpy as np
from msgspec import Meta, Struct

from tinysight_converters.run import BoxPx
from tinysight_edge.decode import iou_matrix
from tinysight_trainer.data.item import Item, Shown
from tinysight_trainer.data.looks import Look, Pairs
from tinysight_trainer.data.ready import fault_of_box

__all__ = ["KINDS", "Finding", "Remedy", "check_boxes", "check_copies", "check_looks", "finding"]

KINDS: Final = {
    "broken": "cannot be read any more, or has changed",
    "tiny": "too small to show anything",
    "blank": "shows nothing but one shade",
    "turned": "seems to lie on its side or upside down",
    "exact-duplicate": "is the same file as another one",
    "near-duplicate": "looks the same as another one",
    "contradiction": "is labelled differently from its copy",
    "box-empty": "a box without area",
    "box-outside": "a box outside the picture",
    "box-sticks-out": "a box that reaches beyond the picture",
    "box-doubled": "one object with two boxes",
    "box-contradiction": "one object with two classes",
    "mislabel": "probably of another class",
    "box-mislabel": "a box that is probably of another class",
    "box-overlooked": "an object that seems to have no box",
    "box-misplaced": "a box that seems to be in the wrong place",
}

TINY_PX: Final = 8
BLANK_SPREAD: Final = 2.0  # of 256 grey levels
DOUBLED_IOU: Final = 0.9  # two boxes of one object, whatever they call it


class Remedy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `tinysight data apply` would do to the finding's first picture.

    Attributes:
        act: what.
        index: which of the things it shows.
        label: the class to be given.
        box: the box to be given, in pixels.
    """

    act: Literal["remove-picture", "remove-box", "set-box", "add-box", "set-label"]
    index: int = -1
    label: str = ""
    box: BoxPx | None = None


class Finding(Struct, frozen=True, kw_only=True):
    """Something that should be looked at.

    Attributes:
        id: names it; the same fault has the same one in every run.
        kind: see `KINDS`.
        pictures: names; the first is the one that the remedy is for.
        why: in words.
        strength: how sure, 0..1; the surest come first.
        remedy: what could be done.
        decision: of a person.
    """

    id: str
    kind: str
    pictures: Annotated[list[str], Meta(min_length=1)]
    why: str
    strength: float
    remedy: Remedy
    decision: Literal["open", "accept", "reject"] = "open"


def finding(kind: str, items: Sequence[Item], why: str, remedy: Remedy, *, strength: float = 1.0) -> Finding:
    """A finding with its id."""
    mark = hashlib.sha256(repr((kind, [item.sha256 for item in items], remedy.index, remedy.box)).encode())
    return Finding(
        id=mark.hexdigest()[:12],
        kind=kind,
        pictures=[item.name for item in items],
        why=why,
        strength=round(float(strength), 4),
        remedy=remedy,
    )


_REMOVE: Final = Remedy(act="remove-picture")


def check_looks(item: Item, look: Look) -> Iterator[Finding]:
    """One picture that shows nothing."""
    if min(item.width, item.height) < TINY_PX:
        yield finding("tiny", [item], f"{item.width}x{item.height} pixels", _REMOVE)
    elif look.spread < BLANK_SPREAD:
        yield finding("blank", [item], f"its grey values spread by {look.spread:.1f} of 255", _REMOVE)


def check_copies(items: Sequence[Item], pairs: Pairs) -> Iterator[Finding]:
    """Pictures that are there twice; of each pair the later one is offered for removal."""
    same: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        same[item.sha256].append(item)
    for held in same.values():
        for copy in held[1:]:
            yield from _copy("exact-duplicate", held[0], copy, "the same bytes", 1.0)
    gone: set[int] = set()
    order = np.lexsort((pairs.first, -pairs.likeness))
    for first, second, likeness in zip(
        pairs.first[order].tolist(), pairs.second[order].tolist(), pairs.likeness[order].tolist(), strict=True
    ):
        if items[first].sha256 == items[second].sha256 or second in gone:
            continue
        gone.add(second)
        yield from _copy("near-duplicate", items[first], items[second], f"alike to {likeness:.3f} of 1", likeness)


def _copy(kind: str, kept: Item, copy: Item, why: str, strength: float) -> Iterator[Finding]:
    split = f"; they are in {kept.split} and {copy.split}" if kept.split != copy.split else ""
    yield finding(kind, [copy, kept], why + split, _REMOVE, strength=strength)
    one, other = ({shown.label for shown in item.shown} for item in (kept, copy))
    if one != other and kept.labelled and copy.labelled:
        names = " and ".join(", ".join(sorted(names)) or "nothing" for names in (other, one))
        yield finding("contradiction", [copy, kept], f"they are labelled {names}", _REMOVE, strength=strength)


def check_boxes(item: Item) -> Iterator[Finding]:
    """The boxes of one picture."""
    boxes = [(index, shown, shown.box) for index, shown in enumerate(item.shown) if shown.box is not None]
    good = []
    for index, shown, box in boxes:
        fault = fault_of_box(item, box)
        if fault is None:
            good.append((index, shown, box))
        elif fault == "sticks out":
            inside = _inside(box, item)
            yield finding("box-sticks-out", [item], _words(shown), Remedy(act="set-box", index=index, box=inside))
        else:
            kind = "box-empty" if "empty" in fault else "box-outside"
            yield finding(kind, [item], _words(shown), Remedy(act="remove-box", index=index))
    if len(good) < 2:
        return
    corners = np.array([box for _, _, box in good], np.float32)
    overlap = np.triu(iou_matrix(corners, corners), 1)
    for a, b in zip(*np.nonzero(overlap >= DOUBLED_IOU), strict=True):
        first, (index, second, _) = good[int(a)][1], good[int(b)]
        if first.crowd or second.crowd:
            continue
        remedy = Remedy(act="remove-box", index=index)
        share = float(overlap[a, b])
        if first.label == second.label:
            yield finding("box-doubled", [item], f"{_words(second)} twice", remedy, strength=share)
        else:
            words = f"{_words(second)} is {first.label!r} as well"
            yield finding("box-contradiction", [item], words, remedy, strength=share)


def _inside(box: BoxPx, item: Item) -> BoxPx:
    x1, y1, x2, y2 = box
    return (max(x1, 0.0), max(y1, 0.0), min(x2, float(item.width)), min(y2, float(item.height)))


def _words(shown: Shown) -> str:
    box = ", ".join(f"{side:g}" for side in shown.box or ())
    return f"the box {box} of {shown.label!r}"
