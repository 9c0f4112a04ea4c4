"""A data set as text: COCO's own JSON with a few keys more.

In: pictures and what is known of them all.  Out: the bytes of ``annotations.json``, and back. Each image also has
sha256, split, session and labelled; all else stands under info.tinysight.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tinysight_contract.errors import DataError
from tinysight_trainer.data.item import MAX_LABEL, Item, LeftOut, Sha256, Shown, Split, SplitFigures, Task

__all__ = ["SCHEMA", "About", "from_coco", "to_coco"]

SCHEMA: Final = 1


class About(Struct, kw_only=True):
    """What is known of all pictures together."""

    schema: int = SCHEMA
    task: Task | None = None
    left_out: list[LeftOut] = []
    split: SplitFigures | None = None
    source: dict[str, str] = {}


class _Wrapped(Struct, kw_only=True):
    tinysight: About


class _Image(Struct, kw_only=True, omit_defaults=True):
    id: int
    file_name: str
    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]
    sha256: Sha256
    split: Split | None = None
    session: str | None = None
    labelled: bool = True


class _Annotation(Struct, kw_only=True, omit_defaults=True):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float] | UnsetType = UNSET
    area: float | UnsetType = UNSET
    segmentation: list[list[float]] | UnsetType = UNSET
    iscrowd: int = 0


class _Category(Struct, kw_only=True):
    id: int
    name: Annotated[str, Meta(min_length=1, max_length=MAX_LABEL)]


class _Coco(Struct, kw_only=True):
    info: _Wrapped
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def to_coco(items: Sequence[Item], labels: Sequence[str], about: About) -> bytes:
    """All of it in one file.

    Raises:
        DataError: a label is empty or too long, or a number is not finite.
    """
    ids = {label: index + 1 for index, label in enumerate(labels)}
    images, annotations = [], []
    for number, item in enumerate(items, start=1):
        images.append(
            _Image(
                id=number,
                file_name=item.name,
                width=item.width,
                height=item.height,
                sha256=item.sha256,
                split=item.split,
                session=item.session,
                labelled=item.labelled,
            )
        )
        annotations += [_annotation(shown, number, ids) for shown in item.shown]
    for number, each in enumerate(annotations, start=1):
        each.id = number
    categories = [_Category(id=number, name=label) for label, number in ids.items()]
    coco = _Coco(info=_Wrapped(tinysight=about), images=images, annotations=annotations, categories=categories)
    raw = msgspec.json.encode(coco)
    try:
        msgspec.json.decode(raw, type=_Coco)  # what cannot be read back must not replace what can
    except msgspec.ValidationError as error:
        raise DataError(
            f"This data set cannot be written: {error}.",
            mend=f"Labels have 1 to {MAX_LABEL} letters, and boxes are finite numbers.",
        ) from error
    return raw


def from_coco(raw: bytes) -> tuple[tuple[Item, ...], About]:
    """The inverse.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError: it is damaged.
    """
    coco = msgspec.json.decode(raw, type=_Coco)
    return _items(coco), coco.info.tinysight


def _annotation(shown: Shown, image_id: int, ids: dict[str, int]) -> _Annotation:
    made = _Annotation(id=0, image_id=image_id, category_id=ids[shown.label], iscrowd=int(shown.crowd))
    if shown.box is not None:
        x1, y1, x2, y2 = shown.box
        made.bbox = (x1, y1, round(x2 - x1, 2), round(y2 - y1, 2))
        made.area = round((x2 - x1) * (y2 - y1), 4)
    if shown.polygons:
        made.segmentation = [list(each) for each in shown.polygons]
    return made


def _items(coco: _Coco) -> tuple[Item, ...]:
    names = {each.id: each.name for each in coco.categories}
    shown: dict[int, list[Shown]] = {image.id: [] for image in coco.images}
    for each in coco.annotations:
        box = None
        if each.bbox is not UNSET:
            x, y, w, h = each.bbox
            box = (round(x, 2), round(y, 2), round(x + w, 2), round(y + h, 2))
        polygons = () if each.segmentation is UNSET else tuple(tuple(polygon) for polygon in each.segmentation)
        shown[each.image_id].append(
            Shown(label=names[each.category_id], box=box, crowd=bool(each.iscrowd), polygons=polygons)
        )
    for image in coco.images:
        name = image.file_name
        if name.startswith(("/", "\\")) or ".." in Path(name).parts or not name.isprintable():
            raise KeyError(f"{name!a} is no name within the data set")
    return tuple(
        Item(
            name=image.file_name,
            sha256=image.sha256,
            width=image.width,
            height=image.height,
            split=image.split,
            session=image.session,
            labelled=image.labelled,
            shown=tuple(shown[image.id]),
        )
        for image in coco.images
    )
