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
from tinysight_converters.run import BoxPx, Example
from tinysight_edge.sources import IMAGE_SUFFIXES, decode_image

__all__ = ["SPLITS", "Dataset", "read_dataset"]

SPLITS: Final = ("train", "calibration", "test")
MAX_ANNOTATION_BYTES: Final = 512 << 20
MAX_LABEL: Final = 100
TEST_SHARE: Final = 0.2
ROUNDING_PX: Final = 1.0  # labelling tools round outwards; more than this is a wrong box


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set that was checked.

    Attributes:
        root: its folder, absolute.
        task: ``detect`` or ``classify``.
        labels: by class id.
        splits: examples by split; ``calibration`` may be missing.
        digest: SHA-256 over names, contents and annotations.
        notes: what the user should know, a sentence each.
    """

    root: Path
    task: str
    labels: tuple[str, ...]
    splits: dict[str, tuple[Example, ...]]
    digest: str
    notes: tuple[str, ...]


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
    """Read and check a data set; every image of it is decoded once.

    Args:
        root: its folder.
        task: ``detect`` needs COCO; ``classify`` takes a folder of images per class.

    Raises:
        DataError: anything in it is wrong; the first thing found is named, with what to do.
    """
    if not root.is_dir():
        raise DataError(f"There is no data set {root}.", mend="Check the path; `tinysight data synth belt` makes one.")
    files = _annotation_files(root)
    notes: tuple[str, ...] = ()
    if task == "detect":
        if not files:
            raise DataError(f"{root} has no annotations.", mend="Put COCO JSON at annotations.json, images in images/.")
        labels, splits, notes = _read_coco(root, files)
    else:
        if files:
            raise DataError(f"{root} holds boxes, not classes.", mend="Train it with --task detect.")
        labels, splits = _read_folders(root)
    _check(root, task, labels, splits)
    return Dataset(root.resolve(), task, labels, splits, _digest(labels, splits), notes)


def _annotation_files(root: Path) -> dict[str, Path]:
    """Split to COCO file; a single file stands under ``all``."""
    found = {path.stem: path for path in sorted((root / "annotations").glob("*.json"))}
    if found:
        return _only_splits(found, root / "annotations", ".json")
    return {"all": root / "annotations.json"} if (root / "annotations.json").is_file() else {}


def _only_splits(found: dict[str, Path], where: Path, suffix: str) -> dict[str, Path]:
    """The same, after checking that no split has a name that would be passed over, and that none is missing."""
    for name in found:
        if name not in SPLITS:
            raise DataError(
                f"{where / name}{suffix} is no split TinySight knows.",
                mend=f"Name the splits {', '.join(SPLITS)}; what others call val is test, or calibration.",
            )
    for name in ("train", "test"):
        if name not in found:
            raise DataError(f"{where} has no {name}{suffix}.", mend="Add it, or give one part, to be split for you.")
    return found


def _read_coco(
    root: Path, files: dict[str, Path]
) -> tuple[tuple[str, ...], dict[str, tuple[Example, ...]], tuple[str, ...]]:
    parsed = {split: _parse_coco(path) for split, path in files.items()}
    named = {tuple((each.id, each.name) for each in _by_id(coco)) for coco in parsed.values()}
    if len(named) > 1:
        raise DataError(f"The files in {root / 'annotations'} name different categories.", mend="Use one list in all.")
    used = {each.category_id for coco in parsed.values() for each in coco.annotations}
    categories = _by_id(next(iter(parsed.values())))
    class_ids = {each.id: index for index, each in enumerate(each for each in categories if each.id in used)}
    labels = tuple(each.name for each in categories if each.id in used)
    unused = [each.name for each in categories if each.id not in used]
    notes = (f"Left out, for they have no annotation: {', '.join(unused)}.",) if unused else ()
    splits = {split: tuple(_coco_examples(root, files[split], coco, class_ids)) for split, coco in parsed.items()}
    return labels, _split(splits["all"]) if "all" in splits else splits, notes


def _by_id(coco: _Coco) -> list[_Category]:
    return sorted(coco.categories, key=lambda each: each.id)


def _parse_coco(path: Path) -> _Coco:
    mend = "Export it again as COCO JSON with images, annotations and categories."
    if path.stat().st_size > MAX_ANNOTATION_BYTES:
        raise DataError(f"{path} is larger than {MAX_ANNOTATION_BYTES >> 20} MiB.", mend="Split the data set.")
    try:
        coco = msgspec.json.decode(path.read_bytes(), type=_Coco)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no COCO file: {error}.", mend=mend) from error
    names, ids = [each.name for each in coco.categories], {each.id for each in coco.categories}
    if len(set(names)) != len(names) or len(ids) != len(names):
        raise DataError(f"{path} names a category twice.", mend="Give each category one id and one name.")
    if len({image.id for image in coco.images}) != len(coco.images):
        raise DataError(f"{path} uses an image id twice.", mend=mend)
    images = {image.id for image in coco.images}
    for annotation in coco.annotations:
        if annotation.image_id not in images or annotation.category_id not in ids:
            raise DataError(
                f"{path}: annotation {annotation.id} points to an image or a category that is not there.",
                mend="Remove it, or add what it points to.",
            )
    return coco


def _coco_examples(root: Path, path: Path, coco: _Coco, class_ids: dict[int, int]) -> Iterable[Example]:
    images = {image.id: image for image in coco.images}
    shown: dict[int, list[tuple[BoxPx, int, bool]]] = {image.id: [] for image in coco.images}
    for annotation in coco.annotations:
        box = _corners(path, annotation, images[annotation.image_id])
        shown[annotation.image_id].append((box, class_ids[annotation.category_id], bool(annotation.iscrowd)))
    for image in coco.images:
        file = _inside(root, root / "images", image.file_name)
        digest, width, height = _measure(file)
        if (width, height) != (image.width, image.height):
            turned = " It is turned by its EXIF data." if (height, width) == (image.width, image.height) else ""
            raise DataError(
                f"{file} has {width}x{height} pixels, its annotations are for {image.width}x{image.height}.{turned}",
                mend="Export images and annotations together, turned and scaled the same way.",
            )
        boxes, ids, crowd = ([each[part] for each in shown[image.id]] for part in range(3))
        name = file.relative_to(root).as_posix()
        yield Example(name=name, sha256=digest, boxes=boxes, class_ids=ids, crowd=crowd)  # type: ignore[arg-type]  # the three columns of `shown`


def _measure(path: Path) -> tuple[str, int, int]:
    """Digest, width and height of an image file, after decoding it."""
    raw = path.read_bytes()
    if (image := decode_image(raw)) is None:
        raise DataError(f"{path} is broken or no image.", mend="Repair it, or take it out of the data set.")
    return hashlib.sha256(raw).hexdigest(), image.shape[1], image.shape[0]


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
    if not name.isprintable():
        raise DataError(f"{name!a} is no usable file name.", mend="Rename the file with letters that can be read.")
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise DataError(f"{path} cannot be followed: {error}.", mend="Replace the link by the image.") from error
    if not inside:
        raise DataError(f"{name!r} leaves the data set {root}.", mend="Copy the image into the data set.")
    if not path.is_file():
        raise DataError(f"The image {path} is missing.", mend="Add it, or remove its annotations.")
    return path


def _read_folders(root: Path) -> tuple[tuple[str, ...], dict[str, tuple[Example, ...]]]:
    names = _class_names(root)
    if "train" in names and _class_names(root / "train"):
        named = _only_splits({name: root / name for name in names}, root, "/")
        labels = _class_names(root / "train")
        return labels, {split: tuple(_class_examples(root, folder, labels)) for split, folder in named.items()}
    return names, _split(tuple(_class_examples(root, root, names)))


def _class_names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _class_examples(root: Path, folder: Path, labels: tuple[str, ...]) -> Iterable[Example]:
    for name in _class_names(folder):
        if name not in labels:
            raise DataError(
                f"{folder / name} is a class that training lacks.", mend="Add images to train, or remove it."
            )
        for path in sorted((folder / name).iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                digest, _, _ = _measure(_inside(root, folder / name, path.name))
                within = path.relative_to(root).as_posix()
                yield Example(name=within, sha256=digest, boxes=[], class_ids=[labels.index(name)], crowd=[False])


def _split(examples: tuple[Example, ...]) -> dict[str, tuple[Example, ...]]:
    """A fifth for the test, by the image's digest: the same image is always on the same side, under any name."""
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for example in examples:
        splits["test" if int(example.sha256[:8], 16) / 2**32 < TEST_SHARE else "train"].append(example)
    return {split: tuple(held) for split, held in splits.items()}


def _check(root: Path, task: str, labels: tuple[str, ...], splits: dict[str, tuple[Example, ...]]) -> None:
    for split in ("train", "test"):
        if not splits[split]:
            raise DataError(f"{root} has no images for {split}.", mend="Add images; a fifth is kept for the test.")
    if len(labels) < (2 if task == "classify" else 1):
        raise DataError(f"{root} knows {len(labels)} classes.", mend="A classifier needs at least two.")
    if bad := [label for label in labels if not label.isprintable() or len(label) > MAX_LABEL]:
        raise DataError(f"{bad[0]!a} is no usable label.", mend=f"Use up to {MAX_LABEL} letters that can be read.")
    seen, tested = ({c for each in splits[name] for c in _named(each)} for name in ("train", "test"))
    if missing := [label for index, label in enumerate(labels) if index not in seen]:
        raise DataError(f"Class {missing[0]!r} has no example to train on.", mend="Add examples, or remove the class.")
    if not tested:
        raise DataError(f"The test images of {root} show nothing to be found.", mend="Add images with objects.")
    where: dict[str, tuple[str, str]] = {}
    for split, held in splits.items():
        for example in held:
            other, name = where.setdefault(example.sha256, (split, example.name))
            if other != split:
                raise DataError(
                    f"{example.name} of {split} is the same image as {name} of {other}.", mend="Remove one of them."
                )


def _named(example: Example) -> list[int]:
    """Classes that are there to be found; crowds are not."""
    return [c for c, crowd in zip(example.class_ids, example.crowd, strict=True) if not crowd]


def _digest(labels: tuple[str, ...], splits: dict[str, tuple[Example, ...]]) -> str:
    rows = {split: sorted(splits[split], key=lambda each: each.name) for split in sorted(splits)}
    return hashlib.sha256(msgspec.json.encode((labels, rows))).hexdigest()
