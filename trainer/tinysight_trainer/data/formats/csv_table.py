"""A table: one row an object, in a CSV file beside the images.

Columns go by their usual names: ``file``, ``label``, and ``xmin ymin xmax ymax`` or ``x y width height`` in pixels;
``split``, ``session`` and ``iscrowd`` if there are. A row without a label says that its picture shows nothing; one
without a box, what its picture is of as a whole. Values between commas, semicolons or tabs.
"""

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tinysight_contract.errors import DataError
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.formats.raw import Raw, inside, other_name, parts, pixels, read_text, split_names
from tinysight_trainer.data.item import Shown, Split

__all__ = ["claims", "read", "write"]

COLUMNS: Final = {
    "file": ("file", "image", "filename", "file_name", "path", "filepath", "image_path"),
    "label": ("label", "class", "class_name", "category", "name"),
    "x1": ("xmin", "x1", "left", "x_min"),
    "y1": ("ymin", "y1", "top", "y_min"),
    "x2": ("xmax", "x2", "right", "x_max"),
    "y2": ("ymax", "y2", "bottom", "y_max"),
    "x": ("x",),
    "y": ("y",),
    "w": ("width", "w"),
    "h": ("height", "h"),
    "split": ("split", "set", "subset"),
    "session": ("session", "video", "group"),
    "crowd": ("iscrowd", "crowd"),
}
CORNERS: Final = ("x1", "y1", "x2", "y2")
SIDES: Final = ("x", "y", "w", "h")


def _file(source: Path) -> Path | None:
    if source.is_file():
        return source if source.suffix.lower() in {".csv", ".tsv"} else None
    found = [path for path in sorted(source.glob("*.csv")) if path.name != "metadata.csv"]
    return found[0] if len(found) == 1 else None


def claims(source: Path) -> bool:
    """It is a CSV file, or a folder with just one."""
    return _file(source) is not None


def read(source: Path) -> Iterator[Raw]:
    """Every image that is named, with all its rows.

    Raises:
        DataError: there is no such table, a column is missing, or a value is no number; the message names the line.
    """
    path = _file(source)
    if path is None:
        raise DataError(f"{source} holds no CSV file, or several.", mend="Name the one that is meant.")
    root = path.parent
    try:
        text = read_text(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8: {error}.", mend="Save it as UTF-8.") from error
    first = text.partition("\n")[0]
    between = max(",;\t", key=first.count)
    shown: dict[str, list[Shown]] = {}
    told: dict[str, tuple[str, str]] = {}
    try:
        table = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
        places = _places(path, next(table, []))
        for row in table:
            if any(cell.strip() for cell in row):
                _take_row(f"{path}, line {table.line_num}", row, places, shown, told)
    except csv.Error as error:
        raise DataError(f"{path} is no CSV: {error}.", mend="Save it again.") from error
    splits: dict[str, Split] = split_names({split for split, _ in told.values() if split}, path)
    for name, held in shown.items():
        file = inside(root, root / name)
        if not file.is_file() and (root / "images" / name).is_file():
            file = inside(root, root / "images" / name)
        split, session = told[name]
        yield Raw(
            name=other_name(root, file), file=file, shown=tuple(held), split=splits.get(split), session=session or None
        )


def _places(path: Path, header: list[str]) -> dict[str, int]:
    names = [cell.strip().lower() for cell in header]
    places = {}
    for column, known in COLUMNS.items():
        if found := [names.index(name) for name in known if name in names]:
            places[column] = found[0]
    if "file" not in places or "label" not in places:
        raise DataError(
            f"{path} has the columns {', '.join(names)!a}.",
            mend="Name them file, label, and xmin, ymin, xmax, ymax when there are boxes.",
        )
    return places


def _take_row(
    where: str,
    row: list[str],
    places: dict[str, int],
    shown: dict[str, list[Shown]],
    told: dict[str, tuple[str, str]],
) -> None:
    cells = {column: row[at].strip() if at < len(row) else "" for column, at in places.items()}
    if not cells["file"]:
        raise DataError(f"{where}: no file is named.", mend="Name it, or remove the line.")
    held = shown.setdefault(cells["file"], [])
    about = (cells.get("split", ""), cells.get("session", ""))
    if told.setdefault(cells["file"], about) != about:
        raise DataError(f"{where}: {cells['file']} was in another split or session before.", mend="Keep one.")
    if not cells["label"]:
        return
    crowd = cells.get("crowd", "").lower() in {"1", "true", "yes"}
    for names in (CORNERS, SIDES):
        if all(cells.get(name) for name in names):
            try:
                a, b, c, d = (float(cells[name]) for name in names)
            except ValueError as error:
                raise DataError(f"{where}: {error}.", mend="Correct the box.") from error
            corners = (a, b, c, d) if names == CORNERS else (a, b, a + c, b + d)
            held.append(Shown(label=cells["label"], box=pixels(*corners, where), crowd=crowd))
            return
    held.append(Shown(label=cells["label"], crowd=crowd))


def write(data: Dataset, out: Path) -> list[str]:
    """``annotations.csv`` with ``images/``."""
    lost = unlabelled = 0
    (out / "images").mkdir()
    with (out / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "xmin", "ymin", "xmax", "ymax", "iscrowd", "split", "session"])
        for word, items in parts(data, flat=True):
            for item, name in items:
                if not item.labelled:
                    unlabelled += 1
                    continue
                shutil.copyfile(data.path(item), out / "images" / name)
                about = [word if item.split else "", item.session or ""]
                for each in item.shown or (None,):
                    if each is None:
                        table.writerow([f"images/{name}", *[""] * 6, *about])
                        continue
                    box = [f"{side:.2f}" for side in each.box] if each.box is not None else [""] * 4
                    table.writerow([f"images/{name}", each.label, *box, int(each.crowd), *about])
                    lost += len(each.polygons)
    said = [(lost, "outlines"), (unlabelled, "unlabelled images")]
    return [f"{number} {what} were left out: the table cannot say them." for number, what in said if number]
