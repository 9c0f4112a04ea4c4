"""The COCO file format: its types, and reading one so that nothing unchecked gets past.

In: the bytes of an annotation file.  Out: labels and, per picture, boxes as x1, y1, x2, y2 in pixels.
Knows the JSON only; whether the pictures are there and whole is found out by `dataset`.
Format: T.-Y. Lin et al., https://cocodataset.org/#format-data.
"""

import math
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec
from msgspec import Struct

from tinysight_contract.errors import DataError

__all__ = ["Annotation", "Category", "Coco", "Labelled", "Picture", "read_coco"]

MAX_JSON_BYTES: Final = 512 << 20
ROUNDING_PX: Final = 1.0  # boxes that leave the picture by no more are cut; tools round differently


class Picture(Struct):
    """``images[]``."""

    id: int
    file_name: str
    width: int
    height: int


class Annotation(Struct):
    """``annotations[]``; ``bbox`` is x, y, width, height in pixels."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float = 0.0
    iscrowd: int = 0


class Category(Struct):
    """``categories[]``."""

    id: int
    name: str


class Coco(Struct):
    """The file."""

    images: list[Picture]
    annotations: list[Annotation]
    categories: list[Category]


class Labelled(Struct, frozen=True):
    """A picture's name and size as the file says, and its objects; ``labels`` index the sorted categories."""

    file: str
    width: int
    height: int
    labels: list[int]
    boxes_px: list[tuple[float, float, float, float]]
    crowd: list[bool]


def read_coco(path: Path) -> tuple[list[str], list[Labelled]]:
    """Read an annotation file.

    Returns:
        The labels in the order of their ids, and the pictures in the order of the file.

    Raises:
        DataError: it is missing, too large, not COCO, or contradicts itself; the message names the entry.
    """
    coco = _decode(path)
    if not coco.images:
        raise DataError(f"{path} lists no images.", mend="Add images, or name another data set.")
    if not coco.annotations:
        raise DataError(f"{path} holds no annotations.", mend="Label the images first.")
    _refuse_twice(path, "image id", [str(picture.id) for picture in coco.images])
    _refuse_twice(path, "file_name", [picture.file_name for picture in coco.images])
    _refuse_twice(path, "category id", [str(category.id) for category in coco.categories])
    _refuse_twice(path, "category name", [category.name for category in coco.categories])
    categories = sorted(coco.categories, key=lambda category: category.id)
    index_of = {category.id: index for index, category in enumerate(categories)}
    found: dict[int, Labelled] = {}
    for picture in coco.images:
        _check_name(path, picture)
        found[picture.id] = Labelled(picture.file_name, picture.width, picture.height, [], [], [])
    for annotation in coco.annotations:
        if (to := found.get(annotation.image_id)) is None:
            raise DataError(
                f"{path}: annotation {annotation.id} belongs to image {annotation.image_id}, which is not listed.",
                mend="Remove it, or add the image.",
            )
        if annotation.category_id not in index_of:
            raise DataError(
                f"{path}: annotation {annotation.id} has category {annotation.category_id}, which is not listed.",
                mend="Remove it, or add the category.",
            )
        to.labels.append(index_of[annotation.category_id])
        to.boxes_px.append(_corners(path, annotation, to))
        to.crowd.append(annotation.iscrowd != 0)
    return [category.name for category in categories], list(found.values())


def _decode(path: Path) -> Coco:
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise DataError(f"{path} has {size >> 20} MiB, at most {MAX_JSON_BYTES >> 20} are read.", mend="Split it.")
        return msgspec.json.decode(path.read_bytes(), type=Coco)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", mend="Check the file and its rights.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a COCO file: {error}.", mend="Export the labels as COCO JSON again.") from error


def _refuse_twice(path: Path, what: str, values: list[str]) -> None:
    value, count = Counter(values).most_common(1)[0] if values else ("", 0)
    if count > 1:
        raise DataError(f"{path}: the {what} {value!r} stands {count} times.", mend="Give each its own.")


def _check_name(path: Path, picture: Picture) -> None:
    name = PurePosixPath(picture.file_name)
    if name.is_absolute() or ".." in name.parts or "\\" in picture.file_name or not name.parts:
        raise DataError(
            f"{path}: the file name {picture.file_name!r} of image {picture.id} leaves the data set.",
            mend="Use names relative to its images folder.",
        )


def _corners(path: Path, annotation: Annotation, picture: Labelled) -> tuple[float, float, float, float]:
    x, y, w, h = annotation.bbox
    where = f"{path}: annotation {annotation.id} of {picture.file}"
    if not all(math.isfinite(value) for value in annotation.bbox):
        raise DataError(f"{where} has a box that is no number.", mend="Correct or remove it.")
    if w <= 0 or h <= 0:
        raise DataError(f"{where} has a box of {w:g}x{h:g} pixels.", mend="Correct or remove it.")
    x1, y1, x2, y2 = x, y, x + w, y + h
    beyond = max(-x1, -y1, x2 - picture.width, y2 - picture.height)
    inner = (max(x1, 0.0), max(y1, 0.0), min(x2, float(picture.width)), min(y2, float(picture.height)))
    if beyond > ROUNDING_PX or inner[2] <= inner[0] or inner[3] <= inner[1]:
        raise DataError(
            f"{where} has the box {x1:g}, {y1:g}, {x2:g}, {y2:g} outside its {picture.width}x{picture.height} picture.",
            mend="Correct or remove it.",
        )
    return inner
