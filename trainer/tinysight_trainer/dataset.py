"""Read a data set, check all of it before any of it is used, and split it.

In: a folder, either COCO (``annotations/*.json`` or ``annotations.json``, pictures under ``images/``) or a folder of
images per class. Out: a `Dataset`: checked image examples by split, labels, and a digest of everything. Pictures
themselves are decoded later, one by one.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from tinysight_contract.errors import DataError
from tinysight_contract.files import sha256_of
from tinysight_converters.run import BoxPx, Example
from tinysight_edge.sources import IMAGE_SUFFIXES

__all__ = ["SPLITS", "Dataset", "read_dataset"]

SPLITS: Final = ("train", "calibration", "test")
MAX_ANNOTATION_BYTES: Final = 512 << 20
TEST_SHARE: Final = 0.2
ROUNDING_PX: Final = 1.0  # labelling tools round outwards; more than this is a wrong box


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set that was checked.

    Attributes:
        root: its folder.
        task: ``detect`` or ``classify``.
        labels: by class id.
        splits: examples by split; ``calibration`` may be empty.
        digest: SHA-256 over names, contents and annotations.
    """

    root: Path
    task: str
    labels: tuple[str, ...]
    splits: dict[str, tuple[Example, ...]]
    digest: str


class _Image(Struct):
    id: int
    file_name: str
    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]


class _Annotation(Struct):
    id: int
    image_id: int
    category_id: int
    bbox: Annotated[list[float], Meta(min_length=4, max_length=4)]
    iscrowd: int = 0


class _Category(Struct):
    id: int
    name: Annotated[str, Meta(min_length=1, max_length=100)]


class _Coco(Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_dataset(root: Path, task: str) -> Dataset:
    """Read and check a data set.

    Args:
        root: its folder.
        task: ``detect`` needs COCO; ``classify`` takes a folder of images per class.

    Raises:
        DataError: anything in it is wrong; the first thing found is named, with what to do.
    """
    if not root.is_dir():
        raise DataError(f"There is no data set {root}.", mend="Check the path; `tinysight data synth belt` makes one.")
    files = _annotation_files(root)
    if task == "detect":
        if not files:
            raise DataError(
                f"{root} has no annotations.", mend="Put a COCO file at annotations.json, images in images/."
            )
        labels, splits = _read_coco(root, files)
    else:
        if files:
            raise DataError(f"{root} holds boxes, not classes.", mend="Train it with --task detect.")
        labels, splits = _read_folders(root)
    _check(root, task, labels, splits)
    return Dataset(root, task, labels, splits, _digest(labels, splits))


def _annotation_files(root: Path) -> dict[str, Path]:
    """Split to COCO file; a single file stands under ``all``."""
    named = {split: root / "annotations" / f"{split}.json" for split in SPLITS}
    found = {split: path for split, path in named.items() if path.is_file()}
    if not found and (root / "annotations.json").is_file():
        return {"all": root / "annotations.json"}
    return found


def _read_coco(root: Path, files: dict[str, Path]) -> tuple[tuple[str, ...], dict[str, tuple[Example, ...]]]:
    labels: tuple[str, ...] | None = None
    splits: dict[str, tuple[Example, ...]] = {}
    for split, path in files.items():
        coco = _parse_coco(path)
        here = tuple(category.name for category in sorted(coco.categories, key=lambda each: each.id))
        if labels is not None and here != labels:
            raise DataError(
                f"{path} names other categories than the splits before.", mend="Use one list of categories."
            )
        labels = here
        splits[split] = tuple(_coco_entries(root, path, coco))
    if "all" in splits:
        splits = _split(splits["all"])
    return labels or (), splits


def _parse_coco(path: Path) -> _Coco:
    mend = "Export it again as COCO JSON with images, annotations and categories."
    if path.stat().st_size > MAX_ANNOTATION_BYTES:
        raise DataError(f"{path} is larger than {MAX_ANNOTATION_BYTES >> 20} MiB.", mend="Split the data set.")
    try:
        coco = msgspec.json.decode(path.read_bytes(), type=_Coco)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no COCO file: {error}.", mend=mend) from error
    names = [category.name for category in coco.categories]
    if len(set(names)) != len(names) or len({category.id for category in coco.categories}) != len(names):
        raise DataError(f"{path} names a category twice.", mend="Give each category one id and one name.")
    if len({image.id for image in coco.images}) != len(coco.images):
        raise DataError(f"{path} uses an image id twice.", mend=mend)
    return coco


def _coco_entries(root: Path, path: Path, coco: _Coco) -> Iterable[Example]:
    classes = {category.id: index for index, category in enumerate(sorted(coco.categories, key=lambda each: each.id))}
    images = {image.id: image for image in coco.images}
    boxes: dict[int, list[tuple[BoxPx, int, bool]]] = {image.id: [] for image in coco.images}
    for annotation in coco.annotations:
        if annotation.image_id not in images or annotation.category_id not in classes:
            raise DataError(
                f"{path}: annotation {annotation.id} points to an image or a category that is not there.",
                mend="Remove it, or add what it points to.",
            )
        box = _corners(path, annotation, images[annotation.image_id])
        boxes[annotation.image_id].append((box, classes[annotation.category_id], bool(annotation.iscrowd)))
    for image in coco.images:
        here = boxes[image.id]
        file = _inside(root, root / "images", image.file_name)
        yield Example(
            name=file.relative_to(root).as_posix(),
            sha256=sha256_of(file),
            boxes=[box for box, _, _ in here],
            class_ids=[class_id for _, class_id, _ in here],
            crowd=[crowd for _, _, crowd in here],
        )


def _corners(path: Path, annotation: _Annotation, image: _Image) -> BoxPx:
    """x1 y1 x2 y2 within the image; COCO's x y w h checked against it."""
    x, y, w, h = annotation.bbox
    low, high_x, high_y = -ROUNDING_PX, image.width + ROUNDING_PX, image.height + ROUNDING_PX
    whole = all(map(math.isfinite, annotation.bbox)) and w > 0 and h > 0
    if not whole or x < low or y < low or x + w > high_x or y + h > high_y:
        raise DataError(
            f"{path}: box {annotation.bbox} of annotation {annotation.id} is empty or lies outside its image "
            f"{image.file_name} ({image.width}x{image.height}).",
            mend="Correct or remove it.",
        )
    return max(x, 0.0), max(y, 0.0), min(x + w, float(image.width)), min(y + h, float(image.height))


def _inside(root: Path, folder: Path, name: str) -> Path:
    """The file's path, which must lie in the data set."""
    path = folder / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{name!r} leaves the data set {root}.", mend="Copy the image into the data set's images folder."
        )
    if not path.is_file():
        raise DataError(f"The image {path} is missing.", mend="Add it, or remove its annotations.")
    return path


def _read_folders(root: Path) -> tuple[tuple[str, ...], dict[str, tuple[Example, ...]]]:
    if (root / "train").is_dir():
        named = {split: root / split for split in SPLITS if (root / split).is_dir()}
        labels = _class_names(root / "train")
        splits = {split: tuple(_class_entries(root, folder, labels)) for split, folder in named.items()}
        return labels, splits
    labels = _class_names(root)
    return labels, _split(tuple(_class_entries(root, root, labels)))


def _class_names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _class_entries(root: Path, folder: Path, labels: tuple[str, ...]) -> Iterable[Example]:
    for name in _class_names(folder):
        if name not in labels:
            raise DataError(
                f"{folder / name} is a class that training lacks.", mend="Add training images, or remove it."
            )
        for path in sorted((folder / name).iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                digest, within = sha256_of(_inside(root, folder / name, path.name)), path.relative_to(root).as_posix()
                yield Example(name=within, sha256=digest, boxes=[], class_ids=[labels.index(name)], crowd=[False])


def _split(entries: tuple[Example, ...]) -> dict[str, tuple[Example, ...]]:
    """A fifth for the test, by the hash of the name: the same image is always on the same side."""
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for entry in entries:
        share = int.from_bytes(hashlib.sha256(entry.name.encode()).digest()[:4]) / 2**32
        splits["test" if share < TEST_SHARE else "train"].append(entry)
    return {split: tuple(held) for split, held in splits.items()}


def _check(root: Path, task: str, labels: tuple[str, ...], splits: dict[str, tuple[Example, ...]]) -> None:
    for split in ("train", "test"):
        if not splits.get(split):
            raise DataError(
                f"{root} has no images for {split}.", mend="Add images; a fifth of them is kept for the test."
            )
    if len(labels) < (2 if task == "classify" else 1):
        raise DataError(f"{root} knows {len(labels)} classes.", mend="A classifier needs at least two.")
    seen = {c for each in splits["train"] for c, crowd in zip(each.class_ids, each.crowd, strict=True) if not crowd}
    if missing := [label for index, label in enumerate(labels) if index not in seen]:
        raise DataError(f"Class {missing[0]!r} has no example to train on.", mend="Add examples, or remove the class.")


def _digest(labels: tuple[str, ...], splits: dict[str, tuple[Example, ...]]) -> str:
    rows = {split: sorted(splits[split], key=lambda each: each.name) for split in sorted(splits)}
    return hashlib.sha256(msgspec.json.encode((labels, rows))).hexdigest()
