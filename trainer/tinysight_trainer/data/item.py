"""What a data set is made of: pictures, what each shows, and how well its splits are apart."""

import re
from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Struct

from tinysight_converters.run import BoxPx

__all__ = ["MAX_LABEL", "SPLITS", "Item", "LeftOut", "Sha256", "Shown", "Split", "SplitFigures", "Task", "natural"]

MAX_LABEL: Final = 100

Split = Literal["train", "calibration", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
Task = Literal["detect", "classify"]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]


class Shown(Struct, frozen=True, kw_only=True, omit_defaults=True, order=True):
    """One thing that a picture shows.

    Attributes:
        label: its class.
        box: x1 y1 x2 y2 in pixels of the picture as it is seen, to a hundredth; None: it is of this class as a whole.
        crowd: many at once; neither right nor wrong to find.
        polygons: outlines, each x y x y ... in pixels.
    """

    label: str
    box: BoxPx | None = None
    crowd: bool = False
    polygons: tuple[tuple[float, ...], ...] = ()


class Item(Struct, frozen=True, kw_only=True):
    """One picture.

    Attributes:
        name: of its file below ``images/``, with slashes.
        sha256: of the file.
        width: in pixels, as it is seen (turned by its EXIF data).
        height: likewise.
        split: what it is for; None: not decided.
        session: pictures of one session were taken together and stay in one split; None: on its own.
        labelled: somebody has looked; a labelled picture that shows nothing is a picture of nothing.
        shown: what it shows.
    """

    name: str
    sha256: Sha256
    width: int
    height: int
    split: Split | None = None
    session: str | None = None
    labelled: bool = True
    shown: tuple[Shown, ...] = ()


class LeftOut(Struct, frozen=True, kw_only=True):
    """A picture or annotation that could not be taken in."""

    file: str
    why: str


class SplitFigures(Struct, frozen=True, kw_only=True):
    """How well the splits are apart.

    Attributes:
        leak: share of test pictures with a near-duplicate among those for training or calibration, 0..1.
        random_leak: the same, had the pictures been split at random.
        how: by what they were split.
    """

    leak: float
    random_leak: float
    how: str


def natural(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key in which 10 follows 9; no two texts have the same one."""
    parts = [part for part in re.split(r"([0-9]+)", text) if part]
    numbers = [part.lstrip("0") if part[0] in "0123456789" else None for part in parts]
    key = [
        (1, 0, part) if number is None else (0, len(number), number)
        for part, number in zip(parts, numbers, strict=True)
    ]
    return key, text
