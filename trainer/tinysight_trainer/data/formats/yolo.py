"""YOLO as Ultralytics writes it: ``data.yaml`` or ``classes.txt``, ``images/`` and ``labels/`` with a text file each.

A line is ``class cx cy w h`` or ``class x1 y1 x2 y2 x3 y3 ...``, all in 0..1 of the picture. An image without a text
file shows nothing. Folders of classes, as its classifiers take them, are read as such. Crowds, of which YOLO knows
nothing, lie in ``crowds/`` beside ``labels/``.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec.structs import replace

from tinysight_contract.errors import DataError
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.formats import folder
from tinysight_trainer.data.formats.raw import Raw, images_in, inside, other_name, parts, pixels, read_text, split_names
from tinysight_trainer.data.item import Item, Shown, Split

__all__ = ["claims", "read", "write"]

MAX_YAML_BYTES: Final = 1 << 20
MAX_LABEL_BYTES: Final = 16 << 20
NAME_FILES: Final = ("classes.txt", "obj.names", "labels/classes.txt")
SPLITS: Final = ("train", "val", "test")
CROWDS: Final = "crowds"


def claims(source: Path) -> bool:
    """There is a ``data.yaml``, or names of classes beside ``labels/``."""
    if not source.is_dir():
        return source.suffix in {".yaml", ".yml"}
    return _yaml(source) is not None or ((source / "labels").is_dir() and _names_file(source) is not None)


def _yaml(source: Path) -> Path | None:
    return next((path for name in ("data.yaml", "dataset.yaml", "data.yml") if (path := source / name).is_file()), None)


def _names_file(source: Path) -> Path | None:
    return next((path for name in NAME_FILES if (path := source / name).is_file()), None)


def read(source: Path) -> Iterator[Raw]:
    """Every image with what its text file says.

    Raises:
        DataError: a file is broken, or leaves the folder; the message names file and line.
    """
    root = source if source.is_dir() else source.parent
    path = _yaml(root) if source.is_dir() else source
    if path is None and _names_file(root) is None:
        yield from folder.read(root)
        return
    if path is not None:
        names, folders = _settings(root, path)
    else:
        listed = _names_file(root)
        names = read_text(listed).decode("utf-8", "replace").splitlines() if listed is not None else []
        folders = {name: root / "images" / name for name in SPLITS if (root / "images" / name).is_dir()}
        folders = folders or {"": root / "images"}
    splits: dict[str, Split] = split_names(folders, root) if "" not in folders else {}
    for word, pictures in folders.items():
        for file in _listed(root, pictures):
            yield _one(root, inside(root, file), names, splits.get(word))


def _settings(root: Path, path: Path) -> tuple[list[str], dict[str, Path]]:
    """Names by number, and where each split's images are."""
    mend = "Write it as Ultralytics does: names, train, val."
    try:
        held: Any = yaml.safe_load(read_text(path, most=MAX_YAML_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is no YAML that is read here: {' '.join(str(error).split())}.", mend=mend) from error
    names = held.get("names") if isinstance(held, dict) else None
    if isinstance(names, dict) and all(isinstance(key, int) and 0 <= key < 100_000 for key in names):
        names = [names.get(number, f"class {number}") for number in range(max(names, default=-1) + 1)]
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise DataError(f"{path} does not name its classes.", mend=mend)
    given_path = held.get("path")
    base = root / given_path if isinstance(given_path, str) else root
    if not base.is_dir():
        base = root  # it was written on another machine
    given = {word: held.get(word) for word in SPLITS}
    folders = {word: base / value for word, value in given.items() if isinstance(value, str)}
    if bad := [word for word, value in given.items() if value is not None and not isinstance(value, str)]:
        raise DataError(f"{path}: {bad[0]} is no single folder.", mend=mend)
    if not folders:
        raise DataError(f"{path} names no folder of images.", mend=mend)
    if "test" in folders and folders.get("val") == folders["test"]:
        del folders["val"]
    if len(set(folders.values())) == 1:
        folders = {"": next(iter(folders.values()))}
    for word, value in folders.items():
        inside(root, value)
        if not value.exists():
            raise DataError(f"{path}: {value} of {word or 'all'} is not there.", mend="Correct the path.")
    return [str(name) for name in names], folders


def _listed(root: Path, where: Path) -> Iterator[Path]:
    """Images of a folder, or of a text file that lists them."""
    if where.is_dir():
        yield from images_in(where)
        return
    for line in read_text(where).decode("utf-8", "replace").splitlines():
        if line.strip():
            yield inside(root, root / line.strip())


def _one(root: Path, file: Path, names: list[str], split: Split | None) -> Raw:
    shown = _lines(root, _beside(root, file, "labels"), names)
    crowds = []
    if "images" in file.relative_to(root).parts:
        crowds = [replace(each, crowd=True) for each in _lines(root, _beside(root, file, CROWDS), names)]
    return Raw(name=other_name(root, file), file=file, shown=(*shown, *crowds), relative=True, split=split)


def _beside(root: Path, file: Path, instead: str) -> Path:
    """The text file of an image: in the same place below ``labels/`` instead of ``images/``."""
    changed = [*file.relative_to(root).parts]
    places = [at for at, part in enumerate(changed) if part == "images"]
    if places:
        changed[places[-1]] = instead
    return (root / Path(*changed)).with_suffix(".txt")


def _lines(root: Path, note: Path, names: list[str]) -> list[Shown]:
    if not note.is_file():
        return []
    lines = read_text(inside(root, note), most=MAX_LABEL_BYTES).decode("utf-8", "replace").splitlines()
    return [_shown(f"{note}, line {at}", line.split(), names) for at, line in enumerate(lines, 1) if line.strip()]


def _shown(where: str, words: list[str], names: list[str]) -> Shown:
    try:
        number, values = int(words[0]), [float(word) for word in words[1:]]
    except ValueError as error:
        raise DataError(f"{where}: {error}.", mend="A line is a class and numbers.") from error
    if not 0 <= number < len(names):
        raise DataError(f"{where}: there is no class {number}.", mend=f"There are {len(names)}; correct the line.")
    if not values:
        return Shown(label=names[number])
    if len(values) in {4, 5}:  # a fifth is a score
        cx, cy, w, h = values[:4]
        corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        pixels(*corners, where)
        return Shown(label=names[number], box=corners)
    if len(values) < 6 or len(values) % 2:
        raise DataError(f"{where}: {len(values)} numbers are no box and no outline.", mend="Correct the line.")
    xs, ys = values[::2], values[1::2]
    corners = (min(xs), min(ys), max(xs), max(ys))
    for value in values:
        pixels(value, value, value, value, where)
    return Shown(label=names[number], box=corners, polygons=(tuple(values),))


def write(data: Dataset, out: Path) -> list[str]:
    """``data.yaml``, ``images/<split>/`` and ``labels/<split>/``; for whole pictures folders of classes."""
    if data.task == "classify":
        return folder.write(data, out)
    crowds = outlines = unlabelled = 0
    ids = {label: index for index, label in enumerate(data.labels)}
    words = []
    for word, items in parts(data):
        words.append(word)
        for item, name in items:
            if not item.labelled:
                unlabelled += 1
                continue
            target, note = out / "images" / word / name, (out / "labels" / word / name).with_suffix(".txt")
            for path in (target, note):
                path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data.path(item), target)
            note.write_text("".join(_line(item, each, ids[each.label]) for each in item.shown if not each.crowd))
            if many := [_line(item, each, ids[each.label]) for each in item.shown if each.crowd]:
                aside = (out / CROWDS / word / name).with_suffix(".txt")
                aside.parent.mkdir(parents=True, exist_ok=True)
                aside.write_text("".join(many))
                crowds += len(many)
            outlines += sum(max(len(each.polygons) - 1, 0) for each in item.shown)
    names = dict(enumerate(data.labels))
    folders = {word: f"images/{word}" for word in words if word} or {"train": "images", "val": "images"}
    if "val" not in folders and "test" in folders:
        folders["val"] = folders["test"]  # Ultralytics wants one
    (out / "data.yaml").write_text(yaml.safe_dump({**folders, "names": names}, allow_unicode=True, sort_keys=False))
    aside_too = [f"{crowds} crowds are in {CROWDS}/: YOLO itself cannot say them."] if crowds else []
    lost = [(outlines, "second outlines of an object"), (unlabelled, "unlabelled images")]
    left_out = [f"{number} {what} were left out: YOLO cannot say them." for number, what in lost if number]
    return aside_too + left_out


def _line(item: Item, each: Shown, number: int) -> str:
    values: tuple[float, ...] = ()
    if each.polygons:
        sides = (item.width, item.height)
        values = tuple(at / sides[n % 2] for n, at in enumerate(each.polygons[0]))
    elif each.box is not None:
        x1, y1, x2, y2 = each.box
        values = (
            (x1 + x2) / 2 / item.width,
            (y1 + y2) / 2 / item.height,
            (x2 - x1) / item.width,
            (y2 - y1) / item.height,
        )
    return f"{number} {' '.join(f'{value:.8f}' for value in values)}\n"
