"""Bring pictures and labels of any format into a data set.

In: a folder or file of somebody else's.  Out: a data set, whole or not at all: it is made beside the target and renamed
at the end. Pictures are copied byte for byte, a few at a time; what cannot be used is left out and listed, never
silently. Splits that came along are kept, and measured; else the pictures are split here.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConfigError, DataError
from tinysight_contract.files import fsync_folder
from tinysight_trainer.data.dataset import IMAGES, Dataset, check_free
from tinysight_trainer.data.formats.raw import Raw, pixels
from tinysight_trainer.data.item import Item, LeftOut, Shown
from tinysight_trainer.data.looks import Look, Looks
from tinysight_trainer.data.split import measure, split_dataset
from tinysight_trainer.data.take import MAX_FILE_BYTES, in_parallel, take

__all__ = ["import_pictures", "new_folder"]

LOST_SHARE: Final = 0.5  # of the pictures: more missing ones are a wrong folder, not a fault of a few


def import_pictures(
    raws: Iterator[Raw],
    out: Path,
    *,
    source: Mapping[str, str],
    rename: Mapping[str, str] | None = None,
    session: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Dataset:
    """Copy, check, split and write.

    Args:
        raws: from a format's reader.
        out: the new data set.
        source: what is written down of where it came from.
        rename: classes to be called otherwise; two may become one.
        session: a regular expression; what its first group finds in a picture's name is its capture session.
        progress: told how many pictures were read.

    Raises:
        DataError: nothing usable is there, most of it is missing, or two classes differ only in case.
        ConfigError: ``out`` is in use, or ``session`` is no regular expression.
        OSError: the disk is full; nothing is left behind.
    """
    check_free(out)
    pattern = _pattern(session)
    with new_folder(out) as folder:
        items, looks, left_out, oddities = _copy(raws, folder, pattern, progress)
        data = Dataset(folder, (), None, tuple(left_out), source=dict(source))
        looked = {item.name: look for item, look in zip(items, looks, strict=True)}
        data = data.with_items(_renamed(items, rename or {}))
        _check(data, left_out)
        ordered = Looks.of(looked[item.name] for item in data.items)
        if any(item.split is not None for item in data.items):
            data = measure(data, ordered)
        notes = [f"{count} images: each {oddity}." for oddity, count in sorted(oddities.items())]
        if data.figures is None and data.task is not None:
            try:
                data = split_dataset(data, ordered)
            except DataError as error:
                notes.append(f"It is not split: {str(error).replace(str(folder), str(out))}")
        data.save()
    return replace(data, root=out, notes=tuple(notes))


def _copy(
    raws: Iterator[Raw], folder: Path, pattern: re.Pattern[str] | None, progress: Callable[[int], None]
) -> tuple[list[Item], list[Look], list[LeftOut], Counter[str]]:
    items: list[Item] = []
    looks: list[Look] = []
    left_out: list[LeftOut] = []
    oddities: Counter[str] = Counter()
    seen: set[str] = set()

    def work(raw: Raw) -> tuple[Item, Look, tuple[str, ...]] | LeftOut:
        return _take_in(raw, folder, pattern)

    for number, made in enumerate(in_parallel(work, _unique(raws, seen)), start=1):
        if isinstance(made, LeftOut):
            left_out.append(made)
        else:
            items.append(made[0])
            looks.append(made[1])
            oddities.update(made[2])
        progress(number)
    return items, looks, left_out, oddities


def _unique(raws: Iterator[Raw], seen: set[str]) -> Iterator[Raw]:
    for raw in raws:
        if raw.name.lower() in seen:
            raise DataError(f"Two images are called {raw.name!a}.", mend="Rename one of them.")
        seen.add(raw.name.lower())
        yield raw


def _take_in(raw: Raw, folder: Path, pattern: re.Pattern[str] | None) -> tuple[Item, Look, tuple[str, ...]] | LeftOut:
    where = str(raw.file or raw.name)
    content = raw.content
    if content is None:
        try:
            if raw.file is None or raw.file.stat().st_size > MAX_FILE_BYTES:
                return LeftOut(file=where, why=f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
            content = raw.file.read_bytes()
        except OSError as error:
            return LeftOut(file=where, why="it is missing" if isinstance(error, FileNotFoundError) else str(error))
    taken = take(content)
    if isinstance(taken, str):
        return LeftOut(file=where, why=taken)
    size = (taken.width, taken.height)
    if raw.size is not None and raw.shown and raw.size != size:
        turned = "; it is turned by its EXIF data" if raw.size == size[::-1] else ""
        given = f"{raw.size[0]}x{raw.size[1]}"
        return LeftOut(file=where, why=f"it has {size[0]}x{size[1]} pixels, its labels are for {given}{turned}")
    path = folder / IMAGES / raw.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    found = None if pattern is None else pattern.search(raw.name)
    item = Item(
        name=raw.name,
        sha256=taken.sha256,
        width=taken.width,
        height=taken.height,
        split=raw.split,
        session=raw.session if found is None else found[1],
        labelled=raw.labelled,
        shown=tuple(_scaled(each, size if raw.relative else (1, 1), where) for each in raw.shown),
    )
    return item, taken.look, taken.oddities


def _scaled(shown: Shown, size: tuple[int, int], where: str) -> Shown:
    """In pixels, to a hundredth."""
    w, h = size
    box = None
    if shown.box is not None:
        x1, y1, x2, y2 = shown.box
        box = pixels(x1 * w, y1 * h, x2 * w, y2 * h, where)
    polygons = tuple(tuple(round(at * size[n % 2], 2) for n, at in enumerate(each)) for each in shown.polygons)
    return Shown(label=shown.label, box=box, crowd=shown.crowd, polygons=polygons)


def _renamed(items: Sequence[Item], names: Mapping[str, str]) -> list[Item]:
    from msgspec.structs import replace as changed  # noqa: PLC0415 -- `replace` here is that of dataclasses

    known = {shown.label for item in items for shown in item.shown}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"There is no class {unknown[0]!r} to rename.", mend=f"Known: {', '.join(sorted(known))}.")
    return [
        changed(item, shown=tuple(changed(each, label=names.get(each.label, each.label)) for each in item.shown))
        for item in items
    ]


def _check(data: Dataset, left_out: Sequence[LeftOut]) -> None:
    missing = [each for each in left_out if each.why == "it is missing"]
    if not data.items or len(missing) > LOST_SHARE * (len(data.items) + len(missing)):
        first = f" {left_out[0].file}: {left_out[0].why}." if left_out else ""
        raise DataError(
            f"Of {len(data.items) + len(left_out)} images {len(data.items)} can be used.{first}",
            mend="Check that the images lie where the labels say.",
        )
    lower: dict[str, str] = {}
    for label in data.labels:
        other = lower.setdefault(label.casefold().strip(), label)
        if other != label:
            raise DataError(
                f"The classes {other!r} and {label!r} differ only in how they are written.",
                mend=f"Give --rename {label}={other}, or correct the labels.",
            )


def _pattern(session: str | None) -> re.Pattern[str] | None:
    if session is None:
        return None
    try:
        pattern = re.compile(session)
    except re.error as error:
        raise ConfigError(f"--session {session!r} is no regular expression: {error}.", mend="Correct it.") from error
    if pattern.groups < 1:
        raise ConfigError(f"--session {session!r} has no group.", mend="Put the part that names it in parentheses.")
    return pattern


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes ``out`` when all went well, and vanishes when not.

    Raises:
        ConfigError: ``out`` is in use.
    """
    check_free(out)
    out = out.absolute()
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if out.exists():
            out.rmdir()
        os.sync()  # once, instead of for each of a hundred thousand files
        part.rename(out)
        fsync_folder(out.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
