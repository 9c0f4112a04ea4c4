"""What every format's reader delivers, and how they all treat paths, splits and numbers.

A format is one module with ``claims(source)``, ``read(source)`` and, where it can be written, ``write(data, out)``.
Readers are generators that hold annotations in memory and never pictures.
"""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from msgspec import Struct

from tinysight_contract.errors import DataError
from tinysight_converters.run import BoxPx
from tinysight_edge.sources import IMAGE_SUFFIXES
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.item import Item, Shown, Split

__all__ = [
    "MAX_TEXT_BYTES",
    "Proposal",
    "Raw",
    "images_in",
    "inside",
    "other_name",
    "outline",
    "parts",
    "pixels",
    "read_text",
    "split_names",
]

MAX_TEXT_BYTES: Final = 512 << 20
UNSPLIT: Final = "unsplit"
_VALIDATION: Final = ("calibration", "val", "valid", "validation", "dev")
_TRAIN: Final = ("train", "training")
_TEST: Final = ("test", "testing")


class Raw(Struct, frozen=True, kw_only=True):
    """One picture as its source tells of it.

    Attributes:
        name: wished for below ``images/``, with slashes; unique in its source.
        file: where its bytes are; None when they are in ``content``.
        content: an encoded image, for sources without files.
        shown: its annotations; with ``relative`` their boxes and polygons are in 0..1 of the picture.
        relative: see above.
        size: width and height that the annotations are for, when the source says so.
        split: as the source names it, through `split_names`.
        session: taken together with others of this name.
        labelled: somebody has looked at it.
    """

    name: str
    file: Path | None = None
    content: bytes | None = None
    shown: tuple[Shown, ...] = ()
    relative: bool = False
    size: tuple[int, int] | None = None
    split: Split | None = None
    session: str | None = None
    labelled: bool = True


class Proposal(Struct, frozen=True, kw_only=True):
    """What a model thinks that a picture shows, and how sure it is, 0..1."""

    shown: Shown
    score: float


def split_names(given: Iterable[str], where: Path) -> dict[str, Split]:
    """A source's own names of splits to ours.

    What others call validation becomes the test when there is no test of its own, and else calibration.

    Raises:
        DataError: a name says nothing to us, or there is nothing to train on.
    """
    names = set(given)
    out: dict[str, Split] = {}
    has_test = any(name.lower() in _TEST for name in names)
    for name in names:
        low = name.lower()
        if low == UNSPLIT:
            continue
        if low in _TRAIN:
            out[name] = "train"
        elif low in _TEST:
            out[name] = "test"
        elif low in _VALIDATION:
            out[name] = "calibration" if has_test or low == "calibration" else "test"
        else:
            raise DataError(
                f"{where} has a split {name!a}, which says nothing to TinySight.",
                mend="Name splits train, val and test, or merge them and let `tinysight data split` part them.",
            )
    if out and "train" not in out.values():
        raise DataError(f"{where} has splits and none to train on.", mend="Name one of them train.")
    return out


def inside(root: Path, path: Path) -> Path:
    """The path without detours, after checking that it lies in the source, by its name and with links followed.

    A file that is missing is no error here: the import lists it.

    Raises:
        DataError: it leaves the source, or its name cannot be shown.
    """
    if not str(path).isprintable():
        raise DataError(f"{str(path)!a} is no usable file name.", mend="Rename the file with letters that can be read.")
    path = Path(os.path.normpath(path))
    try:
        within = path.is_relative_to(os.path.normpath(root)) and path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise DataError(f"{path} cannot be followed: {error}.", mend="Replace the link by the image.") from error
    if not within:
        raise DataError(f"{path} leaves {root}.", mend="Copy the image into the folder that is imported.")
    return path


def images_in(folder: Path) -> Iterator[Path]:
    """All image files below a folder, in order, without hidden ones."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file():
            yield path


def read_text(path: Path, *, most: int = MAX_TEXT_BYTES) -> bytes:
    """The bytes of an annotation file.

    Raises:
        DataError: it is larger than ``most`` or cannot be read.
    """
    try:
        if path.stat().st_size > most:
            raise DataError(f"{path} is larger than {most >> 10} KiB.", mend="Split the data set.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", mend="Check the file and its rights.") from error


def pixels(x1: float, y1: float, x2: float, y2: float, where: str) -> BoxPx:
    """A box of finite numbers to a hundredth of a pixel; whether it makes sense is for `tinysight data clean` to say.

    Raises:
        DataError: one is no finite number, or absurdly large.
    """
    box = (x1, y1, x2, y2)
    if not all(math.isfinite(each) and abs(each) < 1e7 for each in box):
        raise DataError(f"{where}: {box} is no box.", mend="Correct or remove it.")
    return (round(float(x1), 2), round(float(y1), 2), round(float(x2), 2), round(float(y2), 2))


def outline(values: Iterable[float], where: str) -> tuple[float, ...]:
    """A polygon's numbers to a hundredth of a pixel.

    Raises:
        DataError: one is no finite number.
    """
    made = tuple(round(float(value), 2) for value in values)
    if not all(map(math.isfinite, made)):
        raise DataError(f"{where}: an outline holds a number that is none.", mend="Correct or remove it.")
    return made


def other_name(root: Path, file: Path) -> str:
    """An image's name in the data set: its path in the source, without the folders that only say "images"."""
    kept = [part for part in file.relative_to(os.path.normpath(root)).parts[:-1] if part.lower() not in _SAY_NOTHING]
    return "/".join([*kept, file.name])


_SAY_NOTHING: Final = {"images", "jpegimages", "."}
_WORDS: Final = {"train": "train", "calibration": "val", "test": "test"}


def parts(data: Dataset, *, flat: bool = False) -> Iterator[tuple[str, list[tuple[Item, str]]]]:
    """What goes out together: a split's word as others know it, and its pictures with names below that split's folder.

    Pictures without a split come under ``unsplit`` when there are splits, and under no word when there are none.

    Args:
        data: goes out.
        flat: names are without folders, and unique in the whole set; else within their split.
    """
    by_word: dict[str, list[Item]] = {}
    has_test = any(item.split == "test" for item in data.items)
    split = any(item.split is not None for item in data.items)
    for item in data.items:
        word = UNSPLIT if split else ""
        if item.split is not None:
            word = _WORDS[item.split] if has_test else item.split
        by_word.setdefault(word, []).append(item)
    seen: set[str] = set()
    for word, items in by_word.items():
        firsts = {item.name.partition("/")[0].lower() for item in items}
        said = len(firsts) == 1 and firsts <= {*_VALIDATION, *_TRAIN, *_TEST} and word != ""
        names = [item.name.partition("/")[2] if said else item.name for item in items]
        if flat:
            names = [f"{word}/{name}".strip("/").replace("/", "_") for name in names]
        where = "" if flat else f"{word}/"
        yield word, [(item, _unique(name, where, item, seen)) for item, name in zip(items, names, strict=True)]


def _unique(name: str, where: str, item: Item, seen: set[str]) -> str:
    """The name, changed when another one differs only in its suffix or case: label files go by what is before that."""
    made = PurePosixPath(name)
    if (where + str(made.with_suffix(""))).lower() in seen:
        made = made.with_name(f"{item.sha256[:12]}_{len(seen)}_{made.name}")
    seen.add((where + str(made.with_suffix(""))).lower())
    return str(made)
