"""Folders: of each class, of splits with each class, or Hugging Face's ImageFolder with its ``metadata.jsonl``.

A folder that holds nothing but images is a data set without labels, to be labelled.
"""

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from tinysight_contract.errors import DataError
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.formats.raw import (
    UNSPLIT,
    Raw,
    images_in,
    inside,
    other_name,
    parts,
    pixels,
    read_text,
    split_names,
)
from tinysight_trainer.data.item import Item, Shown, Split

__all__ = ["claims", "read", "write"]

SPLITS: Final = ("train", "training", "val", "valid", "validation", "calibration", "test", "testing")
METADATA: Final = ("metadata.jsonl", "metadata.csv")
MEND: Final = "Write it as Hugging Face's ImageFolder wants it."


class _Objects(Struct):
    bbox: list[tuple[float, float, float, float]]
    categories: list[str]
    iscrowd: list[int] = []


class _Row(Struct):
    file_name: str
    label: str | None = None
    objects: _Objects | None = None
    session: str | None = None


def claims(source: Path) -> bool:
    """It is a folder with an image somewhere."""
    return source.is_dir() and next(images_in(source), None) is not None


def read(source: Path) -> Iterator[Raw]:
    """Every image.

    Raises:
        DataError: it holds no image, or its metadata are broken.
    """
    if not source.is_dir():
        raise DataError(f"{source} is no folder.", mend="Check the path.")
    folders = [path for path in sorted(source.iterdir()) if not path.name.startswith(".") and claims(path)]
    named = {path.name: path for path in folders if path.name.lower() in SPLITS or path.name == UNSPLIT}
    if named and len(named) < len(folders) and any(_has_classes(path) for path in named.values()):
        other = next(path.name for path in folders if path.name not in named)
        raise DataError(
            f"{source} has splits, and {other!a} beside them.", mend="Take it away, or put it into a split."
        )
    if named and len(named) == len(folders):
        splits = split_names(named, source)
        for name, path in named.items():
            yield from _part(source, path, splits.get(name))
    else:
        yield from _part(source, source, None)


def _has_classes(split: Path) -> bool:
    return any(path.is_dir() and claims(path) for path in split.iterdir())


def _part(root: Path, where: Path, split: Split | None) -> Iterator[Raw]:
    table = next((path for name in METADATA if (path := where / name).is_file()), None)
    if table is not None:
        for at, row in enumerate(_rows(table), start=1):
            yield _told(root, where, f"{table}, line {at}", row, split)
        return
    for path in images_in(where):
        file = inside(root, path)
        within = path.relative_to(where).parts
        shown = (Shown(label=within[0]),) if len(within) > 1 else ()
        yield Raw(name=other_name(root, file), file=file, shown=shown, split=split, labelled=bool(shown))


def _rows(table: Path) -> Iterator[_Row]:
    raw = read_text(table)
    try:
        if table.suffix == ".jsonl":
            yield from msgspec.json.Decoder(_Row).decode_lines(raw)
        else:
            lines = csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
            yield from (msgspec.convert(line, _Row) for line in lines)
    except (msgspec.MsgspecError, csv.Error, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{table} is not read here: {error}.", mend=MEND) from error


def _told(root: Path, where: Path, line: str, row: _Row, split: Split | None) -> Raw:
    file = inside(root, where / row.file_name)
    shown: list[Shown] = []
    if row.label:
        shown.append(Shown(label=row.label))
    if (objects := row.objects) is not None:
        if len(objects.bbox) != len(objects.categories):
            raise DataError(f"{line}: {len(objects.bbox)} boxes and {len(objects.categories)} names.", mend=MEND)
        for at, ((x, y, w, h), label) in enumerate(zip(objects.bbox, objects.categories, strict=True)):
            crowd = bool(objects.iscrowd[at]) if at < len(objects.iscrowd) else False
            shown.append(Shown(label=label, box=pixels(x, y, x + w, y + h, line), crowd=crowd))
    labelled = row.label is not None or row.objects is not None
    name = other_name(root, file)
    return Raw(name=name, file=file, shown=tuple(shown), split=split, session=row.session or None, labelled=labelled)


def write(data: Dataset, out: Path) -> list[str]:
    """``<split>/<class>/``, or with boxes ``<split>/metadata.jsonl`` and the images beside it."""
    lost = sum(len(each.polygons) for item in data.items for each in item.shown)
    several = 0
    for word, items in parts(data, flat=data.task == "classify"):
        rows: list[dict[str, Any]] = []
        for item, name in items:
            home = out / word
            if data.task == "classify" and len(item.shown) == 1:
                home = out / word / _folder_name(item.shown[0].label)
            elif data.task == "classify" and item.labelled:
                several += 1
                continue
            target = home / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data.path(item), target)
            if data.task == "detect":
                rows.append(_row(item, name))
        if rows:
            (out / word / "metadata.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    said = [(lost, "outlines"), (several, "images of none or several classes")]
    return [f"{number} {what} were left out: folders cannot say them." for number, what in said if number]


def _folder_name(label: str) -> str:
    if label in {".", ".."} or "/" in label or label.startswith(".") or label.lower() in SPLITS:
        raise DataError(f"The class {label!r} cannot be a folder.", mend="Choose another format, or rename the class.")
    return label


def _row(item: Item, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"file_name": name}
    if item.labelled:
        boxes = [(each, each.box) for each in item.shown if each.box is not None]
        row["objects"] = {
            "bbox": [[x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)] for _, (x1, y1, x2, y2) in boxes],
            "categories": [each.label for each, _ in boxes],
            "iscrowd": [int(each.crowd) for each, _ in boxes],
        }
    return {**row, "session": item.session} if item.session is not None else row
