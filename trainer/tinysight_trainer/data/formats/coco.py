"""COCO: annotations in JSON, images in folders beside it.

Read are ``annotations.json``, ``annotations/*.json`` (a split's word in the name, as in ``instances_train2017.json``),
and Roboflow's ``<split>/_annotations.coco.json``. An annotation without a box says what its picture is of as a whole.
"""

import glob
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from tinysight_contract.errors import DataError
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.formats.raw import Raw, inside, other_name, outline, parts, pixels, read_text, split_names
from tinysight_trainer.data.item import Shown, Split

__all__ = ["claims", "read", "write"]

MEND: Final = "Export it again as COCO JSON with images, annotations and categories."
WORDS: Final = re.compile(r"(training|train|validation|valid|val|calibration|dev|testing|test)", re.IGNORECASE)


class _Image(Struct):
    id: int
    file_name: str
    width: int | None = None
    height: int | None = None
    session: str | None = None
    video_id: int | str | None = None
    labelled: bool = True


class _Annotation(Struct):
    id: int
    image_id: int
    category_id: int
    bbox: list[float] | None = None
    segmentation: Any = None
    iscrowd: int = 0


class _Category(Struct):
    id: int
    name: str


class _Coco(Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix == ".json" else []
    found = sorted((source / "annotations").glob("*.json")) or sorted(source.glob("annotations.json"))
    return found or sorted(source.glob("*/_annotations.coco.json")) or sorted(source.glob("_annotations.coco.json"))


def claims(source: Path) -> bool:
    """There is a COCO file where one is looked for."""
    return bool(_files(source))


def read(source: Path) -> Iterator[Raw]:
    """Every image of every file.

    Raises:
        DataError: a file is no COCO, points to nothing, or names something twice.
    """
    files = _files(source)
    if not files:
        raise DataError(f"{source} holds no COCO file.", mend="Put it at annotations.json, images in images/.")
    root = source.parent if source.is_file() else source
    named = {path: _split_word(path) for path in files}
    splits: dict[str, Split] = {}
    if len(files) > 1:
        splits = split_names((word or path.stem for path, word in named.items()), files[0].parent)
    for path in files:
        word = named[path] or path.stem
        yield from _read_file(root, path, word, splits.get(word))


def _split_word(path: Path) -> str | None:
    text = path.parent.name if path.name.startswith("_annotations") else path.stem
    found = WORDS.search(text)
    return found[1] if found else None


def _read_file(root: Path, path: Path, word: str, split: Split | None) -> Iterator[Raw]:
    try:
        coco = msgspec.json.decode(read_text(path), type=_Coco)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no COCO file: {error}.", mend=MEND) from error
    names = {each.id: each.name for each in coco.categories}
    if len({each.name for each in coco.categories}) != len(coco.categories) or len(names) != len(coco.categories):
        raise DataError(f"{path} names a category twice.", mend="Give each category one id and one name.")
    shown: dict[int, list[Shown]] = {image.id: [] for image in coco.images}
    if len(shown) != len(coco.images):
        raise DataError(f"{path} uses an image id twice.", mend=MEND)
    for each in coco.annotations:
        if each.image_id not in shown or each.category_id not in names:
            raise DataError(
                f"{path}: annotation {each.id} points to an image or a category that is not there.",
                mend="Remove it, or add what it points to.",
            )
        shown[each.image_id].append(_shown(path, each, names[each.category_id]))
    folders = [
        path.parent,
        root / "images",
        root / "images" / word,
        root / word,
        *sorted(root.glob(f"*{glob.escape(word)}*")),
        root,
    ]
    for image in coco.images:
        file = _where(root, folders, image.file_name)
        size = (image.width, image.height) if image.width and image.height else None
        session = image.session or (None if image.video_id is None else f"video {image.video_id}")
        yield Raw(
            name=other_name(root, file),
            file=file,
            shown=tuple(shown[image.id]),
            size=size,
            split=split,
            session=session,
            labelled=image.labelled,
        )


def _where(root: Path, folders: list[Path], name: str) -> Path:
    """The first place that has the file; the usual one when none has it."""
    for folder in folders:
        path = inside(root, folder / name)
        if path.is_file():
            return path
    return folders[1] / name


def _shown(path: Path, each: _Annotation, label: str) -> Shown:
    where = f"{path}: annotation {each.id}"
    box = None
    if each.bbox:
        if len(each.bbox) != 4:
            raise DataError(f"{where}: a box has four numbers, not {len(each.bbox)}.", mend=MEND)
        x, y, w, h = each.bbox
        box = pixels(x, y, x + w, y + h, where)
    polygons = each.segmentation if isinstance(each.segmentation, list) else []  # else run lengths, not kept
    try:
        made = msgspec.convert(polygons, tuple[tuple[float, ...], ...])
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: its segmentation is no list of polygons.", mend=MEND) from error
    outlines = tuple(outline(polygon, where) for polygon in made)
    return Shown(label=label, box=box, crowd=bool(each.iscrowd), polygons=outlines)


def write(data: Dataset, out: Path) -> list[str]:
    """``annotations/<split>.json`` with ``images/<split>/``, or one ``annotations.json`` with ``images/``."""
    ids = {label: index + 1 for index, label in enumerate(data.labels)}
    for word, items in parts(data):
        content: dict[str, Any] = {"images": [], "annotations": []}
        content["categories"] = [{"id": number, "name": label} for label, number in ids.items()]
        for number, (item, name) in enumerate(items, start=1):
            target = out / "images" / word / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data.path(item), target)
            image = {"id": number, "file_name": name, "width": item.width, "height": item.height}
            image |= {"session": item.session} if item.session is not None else {}
            content["images"].append(image if item.labelled else {**image, "labelled": False})
            for each in item.shown:
                content["annotations"].append(_annotation(each, len(content["annotations"]) + 1, number, ids))
        path = out / "annotations" / f"{word}.json" if word else out / "annotations.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(msgspec.json.encode(content))
    return []


def _annotation(each: Shown, number: int, image_id: int, ids: dict[str, int]) -> dict[str, Any]:
    made: dict[str, Any] = {"id": number, "image_id": image_id, "category_id": ids[each.label]}
    made["iscrowd"] = int(each.crowd)
    if each.box is not None:
        x1, y1, x2, y2 = each.box
        made["bbox"] = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
        made["area"] = round((x2 - x1) * (y2 - y1), 4)
    if each.polygons:
        made["segmentation"] = [list(polygon) for polygon in each.polygons]
    return made
