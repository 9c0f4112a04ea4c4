"""What need not be said because the file says it: its labels and its scaling, in TFLite Metadata.

In: a file's bytes, and what the user says, which wins.  Out: labels and scaling, each with who said it. Nothing in the
file is trusted: labels are held to the same rules as a labels file, and damage is a warning.
"""

import math
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConfigError, ConversionError, DataError
from tinysight_contract.files import read_capped
from tinysight_converters.metadata import Metadata, read_metadata

__all__ = ["BY_FILE", "labels_of", "read_labels", "said_by", "scaling_of"]

BY_FILE: Final = "the file's metadata"
MAX_LABELS_BYTES: Final = 1 << 20


def said_by(content: bytes) -> tuple[Metadata | None, list[str]]:
    """A .tflite file's metadata, if there is any that can be read, and warnings."""
    try:
        return read_metadata(content), []
    except ConversionError as error:
        return None, [error.what]


def scaling_of(said: Metadata | None, channels: int) -> tuple[list[float], list[float]] | None:
    """Mean and deviation per channel on 0..255; None when they are not said, or make no sense."""
    if said is None or not {len(said.mean), len(said.std)} <= {1, channels}:
        return None
    if not all(math.isfinite(each) for each in (*said.mean, *said.std)) or min(said.std) <= 0:
        return None
    return said.mean * (channels // len(said.mean)), said.std * (channels // len(said.std))


def labels_of(path: Path | None, said: Metadata | None) -> tuple[list[str], str]:
    """The labels of a text file, else those of the metadata, and where they are from.

    Raises:
        ConfigError: neither has any.
        DataError: a label is empty, overlong or doubled.
    """
    if path is not None:
        return read_labels(path), path.name
    if said is None or not said.labels:
        raise ConfigError("The labels are not in the file.", mend="Give --labels, a text file with a label per line.")
    labels = [label.strip() for label in said.labels]
    _check(labels, BY_FILE[0].upper() + BY_FILE[1:], mend="Give --labels, a text file with a label per line.")
    return labels, BY_FILE


def read_labels(path: Path) -> list[str]:
    """A text file's lines, each a label.

    Raises:
        DataError: it cannot be read, is no UTF-8 text, or has an empty, overlong or doubled line.
    """
    try:
        raw = read_capped(path, MAX_LABELS_BYTES)
        if len(raw) > MAX_LABELS_BYTES:
            raise DataError(f"{path} has more than {MAX_LABELS_BYTES} bytes.", mend="Give a file of labels.")
        lines = [line.strip() for line in raw.decode("utf-8-sig").splitlines()]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", mend="Check the path of --labels.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text.", mend="Save it as UTF-8, one label per line.") from error
    while lines and not lines[-1]:
        lines.pop()
    _check(lines, str(path), mend="Give each class a name of its own, one per line.")
    return lines


def _check(lines: list[str], source: str, *, mend: str) -> None:
    if not 0 < len(lines) <= 10000:
        raise DataError(f"{source}: it has {len(lines)} labels, and may have 1 to 10000.", mend=mend)
    first: dict[str, int] = {}
    for number, label in enumerate(lines, start=1):
        if not label or len(label) > 100:
            raise DataError(f"{source}, line {number}: a label has 1 to 100 characters.", mend=mend)
        if first.setdefault(label, number) != number:
            raise DataError(f"{source}: {label!r} stands in lines {first[label]} and {number}.", mend=mend)
