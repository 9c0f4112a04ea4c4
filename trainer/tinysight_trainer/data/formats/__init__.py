"""Formats that data sets come and go in: one module each, and which one a folder or file is in."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConfigError, DataError
from tinysight_trainer.data.dataset import DATASET, Dataset
from tinysight_trainer.data.formats import arrays, coco, csv_table, cvat, folder, label_studio, voc, yolo
from tinysight_trainer.data.formats.raw import Raw

__all__ = ["READERS", "WRITERS", "find_format", "read_source"]

READERS: Final[dict[str, tuple[Callable[[Path], bool], Callable[[Path], Iterator[Raw]]]]] = {
    "coco": (coco.claims, coco.read),
    "voc": (voc.claims, voc.read),
    "yolo": (yolo.claims, yolo.read),
    "csv": (csv_table.claims, csv_table.read),
    "npz": (arrays.claims_npz, arrays.read_npz),
    "idx": (arrays.claims_idx, arrays.read_idx),
    "folder": (folder.claims, folder.read),
}
"""Name → whether a source looks like it, and what reads it."""

WRITERS: Final[dict[str, Callable[[Dataset, Path], list[str]]]] = {
    "coco": coco.write,
    "yolo": yolo.write,
    "voc": voc.write,
    "csv": csv_table.write,
    "folder": folder.write,
    "label-studio": label_studio.write,
    "cvat": cvat.write,
}
"""Name → what writes a data set into an empty folder, and says what could not be said in that format."""


def find_format(source: Path) -> str:
    """What a folder or file is in.

    Raises:
        DataError: in none that is known, in two at once, or it is a data set of ours already.
    """
    if not source.exists():
        raise DataError(f"There is no {source}.", mend=f"Check the path, or name one of: {', '.join(arrays.PUBLIC)}.")
    if (source / DATASET).is_file():
        raise DataError(f"{source} is a TinySight data set already.", mend="Use it as it is.")
    found = [name for name, (claims, _) in READERS.items() if name != "folder" and claims(source)]
    if len(found) > 1:
        raise DataError(
            f"{source} looks like {' and '.join(found)}.", mend="Take one of them away, or say which with --format."
        )
    if found:
        return found[0]
    if folder.claims(source):
        return "folder"
    raise DataError(f"{source} holds nothing that is known here.", mend=f"Formats: {', '.join(READERS)}.")


def read_source(source: str, form: str, *, names: Sequence[str] | None = None) -> tuple[str, Iterator[Raw]]:
    """The format, and every picture, of a path or of a public set's name.

    Args:
        source: what the user named.
        form: ``auto``, or the name of a format.
        names: of the classes, for formats that only number them.

    Raises:
        ConfigError: there is no such format, or it takes no names.
        DataError: see `find_format`; reading may raise more.
    """
    if source in arrays.PUBLIC and not Path(source).exists():
        return "keras.datasets", arrays.public(source)
    if form != "auto" and form not in READERS:
        raise ConfigError(f"There is no format {form!r}.", mend=f"Choose one of: auto, {', '.join(READERS)}.")
    path = Path(source)
    if form != "auto" and not path.exists():
        raise DataError(f"There is no {source}.", mend="Check the path.")
    chosen = find_format(path) if form == "auto" else form
    read = READERS[chosen][1]
    if names is not None:
        if chosen not in {"npz", "idx"}:
            raise ConfigError(f"{chosen} names its classes itself.", mend="Leave out --names, or use --rename.")
        read = partial(arrays.read_npz if chosen == "npz" else arrays.read_idx, names=names)
    return chosen, read(path)
