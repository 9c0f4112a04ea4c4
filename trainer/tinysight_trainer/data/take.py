"""Read one image file once: what it is, how it looks, what is odd about it.

In: the bytes of a file from anywhere.  Out: `Taken`, or why it cannot be used. Decoding is the device's own.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from PIL import Image, UnidentifiedImageError

from tinysight_contract.errors import DataError
from tinysight_edge.sources import MAX_PIXELS, decode_image
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.looks import Look, Looks, look_at

__all__ = ["MAX_FILE_BYTES", "WORKERS", "Taken", "in_parallel", "looks_of", "take"]

MAX_FILE_BYTES: Final = 512 << 20
CHUNK: Final = 64
WORKERS: Final = min(8, os.cpu_count() or 1)
ORIENTATION: Final = 0x0112

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # the device's limit instead of Pillow's

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """An image that can be used.

    Attributes:
        sha256: of the file.
        width: in pixels, as it is seen.
        height: likewise.
        look: to compare it by.
        oddities: what of the file the model will not see, a short phrase each.
    """

    sha256: str
    width: int
    height: int
    look: Look
    oddities: tuple[str, ...]


def take(content: bytes) -> Taken | str:
    """The image in a file's bytes, or why there is none."""
    if not content:
        return "the file is empty"
    if len(content) > MAX_FILE_BYTES:
        return f"the file is larger than {MAX_FILE_BYTES >> 20} MiB"
    image = decode_image(content)
    if image is None:
        return "it is broken, no image, or has more than 100 million pixels"
    digest = hashlib.sha256(content).hexdigest()
    return Taken(digest, image.shape[1], image.shape[0], look_at(image), _oddities(content))


def _oddities(content: bytes) -> tuple[str, ...]:
    try:
        with Image.open(io.BytesIO(content)) as head:
            mode, turned = head.mode, head.getexif().get(ORIENTATION, 1) != 1
            frames = getattr(head, "n_frames", 1)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ()  # OpenCV could read it; Pillow has nothing to add
    found = []
    if turned:
        found.append("is turned by its EXIF data")
    if mode in {"RGBA", "LA", "PA"}:
        found.append("has transparency, which is dropped")
    if mode.startswith("I;16") or mode in {"I", "F"}:
        found.append("has more than 8 bits a channel; the model sees the upper 8")
    if mode == "CMYK":
        found.append("is CMYK; its colours are converted without a profile")
    if frames > 1:
        found.append(f"has {frames} pages; the first is used")
    return tuple(found)


def in_parallel(work: Callable[[In], Out], items: Iterator[In]) -> Iterator[Out]:
    """``map`` on all cores that never holds more than a few items; decoding and hashing need no interpreter lock."""
    with ThreadPoolExecutor(WORKERS) as pool:
        while chunk := list(islice(items, CHUNK)):
            yield from pool.map(work, chunk)


def looks_of(data: Dataset, progress: Callable[[int], None] = lambda _: None) -> Looks:
    """How all pictures of a data set look, in its order.

    Raises:
        DataError: an image is missing or broken.
    """

    def look(number: int) -> Look:
        path = data.path(data.items[number])
        try:
            taken = take(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.", mend="Put it back.") from error
        if isinstance(taken, str):
            raise DataError(f"{path}: {taken}.", mend=f"Run `tinysight data clean {data.root}`.")
        return taken.look

    held = []
    for number, each in enumerate(in_parallel(look, iter(range(len(data.items)))), start=1):
        held.append(each)
        progress(number)
    return Looks.of(held)
