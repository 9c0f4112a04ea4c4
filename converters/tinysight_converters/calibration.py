"""The pictures that decide about the ranges of int8: chosen for coverage, checked, and named in the bundle.

In: the calibration examples of a run, or a user's own set.  Out: a `Calibration`, whose digest stands in the manifest.
None of its pictures is tested with, and its values are what the device will feed: the scale of the set matters far more
than its size, so that one scaled to 0..1 for a graph that takes 0..255 is refused and not documented.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import DataError
from tinysight_contract.manifest import Input
from tinysight_converters.run import Example
from tinysight_edge.preprocess import fit_picture
from tinysight_edge.sources import decode_image

__all__ = ["Calibration", "choose_calibration", "fit_examples", "read_calibration"]

COUNT: Final = 100
GRID: Final = 4
LEAST_SPAN: Final = 1 / 8
IMAGES: Final = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
MAX_BYTES: Final = 4 << 30
MAX_PICTURES: Final = 5000
MAX_WHY: Final = 200
BROKEN: Final = (
    OSError,
    ValueError,
    EOFError,
    OverflowError,
    LookupError,
    TypeError,
    MemoryError,
    SyntaxError,
    TokenError,
)
"""What NumPy raises of a file that is none of its own: the header is Python."""

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Pictures as the device fits them, and where they come from.

    Attributes:
        pictures: uint8 (n, height, width, channels).
        names: a line for each.
        source: how they were chosen.
    """

    pictures: Pictures
    names: list[str]
    source: str

    @property
    def digest(self) -> str:
        """Of every pixel, and of the shape."""
        return hashlib.sha256(f"{self.pictures.shape}".encode() + self.pictures.tobytes()).hexdigest()

    def to_json(self) -> bytes:
        """What the bundle says of it."""
        content = {
            "digest": self.digest,
            "source": self.source,
            "shape": self.pictures.shape,
            "low": int(self.pictures.min()),
            "high": int(self.pictures.max()),
            "pictures": self.names,
        }
        return msgspec.json.format(msgspec.json.encode(content, order="sorted"), indent=1) + b"\n"


def fit_examples(examples: Sequence[Example], root: Path, spec: Input) -> Pictures:
    """The examples as the device fits them: (n, height, width, channels).

    Raises:
        DataError: an image is missing, broken or changed.
    """
    out = np.empty((len(examples), spec.height, spec.width, 1 if spec.color == "GRAY" else 3), np.uint8)
    for number, example in enumerate(examples):
        fit_picture(example.picture(root), spec, out[number])
    return out


def choose_calibration(examples: Sequence[Example], root: Path, spec: Input) -> Calibration:
    """At most a hundred pictures that together look as different as they can, with every class among them.

    Greedy: of the pictures that show the class seen least so far, the one that is farthest from all chosen, by means
    and extremes of their parts (T. Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985). One
    pixel of the first is made black and one white, here and in a user's own set, so that the input's step is one grey
    level.

    Raises:
        DataError: there is none, or an image is missing, broken or changed.
    """
    if not examples:
        raise DataError("The run has no pictures to calibrate with.", mend="Train again with a calibration split.")
    pictures = fit_examples(examples, root, spec)
    chosen = _spread(_looks(pictures), [set(example.class_ids) for example in examples], COUNT)
    names = [f"{examples[at].sha256} {examples[at].name}" for at in chosen]
    return Calibration(_with_ends(pictures[chosen]), names, f"{len(chosen)} of {len(examples)} for coverage")


def _with_ends(pictures: Pictures) -> Pictures:
    """The same with one pixel black and one white, in place."""
    pictures[0, 0, 0], pictures[0, -1, -1] = 0, 255
    return pictures


def _looks(pictures: Pictures) -> NDArray[np.float32]:
    """(n, features): mean of each part of the picture, darkest, brightest and spread, per channel; on one scale."""
    n, height, width, channels = pictures.shape
    rows, columns = (np.linspace(0, side, GRID + 1).astype(int)[:-1] for side in (height, width))
    parts = np.add.reduceat(np.add.reduceat(pictures.astype(np.float32), rows, 1), columns, 2)
    flat = pictures.reshape(n, -1, channels)
    features = [parts.reshape(n, -1) / (height * width / GRID**2), flat.min(1), flat.max(1), flat.std(1)]
    return np.concatenate(features, 1).astype(np.float32)


def _spread(looks: NDArray[np.float32], shown: list[set[int]], count: int) -> list[int]:
    first = int(np.argmin(np.square(looks - looks.mean(0)).sum(1)))
    chosen, distance = [first], np.square(looks - looks[first]).sum(1)
    seen = {label: int(label in shown[first]) for label in sorted(set().union(*shown))}
    while len(chosen) < min(count, len(looks)):
        distance[chosen[-1]] = -1.0
        rare = sorted(seen, key=lambda label: seen[label])
        pool = next(
            (
                of
                for label in rare
                if (of := [at for at, has in enumerate(shown) if label in has and distance[at] >= 0])
            ),
            [at for at in range(len(looks)) if distance[at] >= 0],
        )
        best = max(pool, key=lambda at: distance[at])
        chosen.append(best)
        for label in shown[best]:
            seen[label] += 1
        mine = distance >= 0
        distance[mine] = np.minimum(distance[mine], np.square(looks[mine] - looks[best]).sum(1))
    return chosen


def read_calibration(path: Path, spec: Input, *, held_out: Pictures) -> Calibration:
    """A user's own set: a folder of images, or a .npy of (n, height, width, channels) as the device feeds them, 0..255.

    Args:
        path: of the folder or the file.
        spec: how pictures are fitted.
        held_out: the fitted pictures of the proof, none of which may be among them.

    Raises:
        DataError: it cannot be read, an image is broken, size or channels differ from the model's, its values are not
            those that a device feeds, or a picture is one of the proof's.
    """
    pictures, names = _from_folder(path, spec) if path.is_dir() else _from_array(path, spec)
    tested = {picture.tobytes() for picture in held_out}
    if both := [name for name, picture in zip(names, pictures, strict=True) if picture.tobytes() in tested]:
        raise DataError(f"{path}: {both[0]} is also tested with.", mend="Take it out of the calibration set.")
    return Calibration(_with_ends(pictures), names, f"{len(names)} from {path.name}")


def _from_folder(path: Path, spec: Input) -> tuple[Pictures, list[str]]:
    files = sorted(each for each in path.rglob("*") if each.suffix.lower() in IMAGES and each.is_file())
    if not files or len(files) > MAX_PICTURES:
        raise DataError(f"{path} holds {len(files)} images.", mend=f"Give 1 to {MAX_PICTURES}; 100 are enough.")
    out = np.empty((len(files), spec.height, spec.width, 1 if spec.color == "GRAY" else 3), np.uint8)
    for number, file in enumerate(files):
        if (image := decode_image(file.read_bytes())) is None:
            raise DataError(f"{file} is broken or no image.", mend="Repair it, or take it out of the set.")
        fit_picture(image, spec, out[number])
    _check_values(path, out)
    return out, [file.relative_to(path).as_posix() for file in files]


def _from_array(path: Path, spec: Input) -> tuple[Pictures, list[str]]:
    want = (spec.height, spec.width, 1 if spec.color == "GRAY" else 3)
    mend = f"Give a folder of images, or a .npy of (n, {', '.join(map(str, want))})."
    try:
        held = np.lib.format.open_memmap(path, mode="r")  # reads no zip and no pickle
    except BROKEN as error:
        why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DataError(f"{path} cannot be read: {why[:MAX_WHY]}.", mend=mend) from error
    if held.dtype.kind not in "uif":
        raise DataError(f"{path} holds no pictures.", mend=mend)
    if held.shape[1:] != want or not 0 < len(held) <= MAX_PICTURES or held.nbytes > MAX_BYTES:
        raise DataError(f"{path} holds {held.dtype} {held.shape}, the model takes {want}.", mend=mend)
    _check_values(path, held)
    return np.rint(held).astype(np.uint8), [f"picture {number}" for number in range(len(held))]


def _check_values(path: Path, values: NDArray[Any]) -> None:
    """Against what the graph is fed: grey levels 0 to 255.

    Raises:
        DataError: they go beyond, or reach over so little that brighter pictures would be cut off.
    """
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):
        raise DataError(
            f"{path} spans {low:g} to {high:g}, a device feeds 0 to 255.", mend="Give the pictures as they are."
        )
    if high - low < 255 * LEAST_SPAN:
        raise DataError(
            f"{path} spans {low:g} to {high:g} of the 0 to 255 that a device feeds.",
            mend="Give the pictures unscaled; if they are so dark indeed, add bright ones.",
        )
