"""Read picture files for training and for the proof, the one way both do it.

In: a path.  Out: (H, W, 3) uint8 BGR, as a camera's frame comes, and the SHA-256 of the file; or pictures fitted
into the model's input by the device's own code.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import DataError
from tinysight_contract.manifest import Input
from tinysight_converters.run import Sample
from tinysight_edge.preprocess import fit_picture

__all__ = ["fit_samples", "read_picture", "read_samples"]

Image = NDArray[np.uint8]
MAX_FILE_BYTES: Final = 256 << 20
MAX_PIXELS: Final = 100_000_000
THREADS: Final = 2  # decoding releases the GIL; more than two only fight with other work


def read_picture(path: Path) -> tuple[Image, str]:
    """A picture file, decoded, and the SHA-256 of its bytes. An EXIF rotation is applied.

    Raises:
        DataError: it is missing, unreadable, broken or too large; the message names it.
    """
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise DataError(f"{path} has {size >> 20} MiB.", mend=f"Keep pictures under {MAX_FILE_BYTES >> 20} MiB.")
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"The picture {path} is missing.", mend="Put it back, or take it out of the labels.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", mend="Check the file and its rights.") from error
    try:
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR) if raw else None
    except cv2.error:  # more pixels than OpenCV itself allows
        image = None
    if image is None:
        raise DataError(f"{path} is broken or no picture.", mend="Replace it or take it out of the data set.")
    if (pixels := image.shape[0] * image.shape[1]) > MAX_PIXELS:
        raise DataError(
            f"{path} has {pixels / 1e6:.0f} megapixels.", mend=f"Keep pictures under {MAX_PIXELS / 1e6:.0f} megapixels."
        )
    return np.asarray(image, np.uint8), hashlib.sha256(raw).hexdigest()


def read_samples(folder: Path, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Image]]:
    """Each sample with its picture, read one at a time.

    Raises:
        DataError: a picture is broken, or is not the one the run was trained beside.
    """
    for sample in samples:
        image, digest = read_picture(folder / sample.file)
        if digest != sample.sha256:
            raise DataError(
                f"{folder / sample.file} has changed since the training.", mend="Put the old data set back, or train again."
            )
        yield sample, image


def fit_samples(
    folder: Path, files: list[str], spec: Input, *, each: Callable[[], object] = lambda: None
) -> tuple[Image, list[tuple[str, int, int]]]:
    """All pictures as the model gets them.

    Args:
        folder: that the files are in.
        files: relative paths.
        spec: how a picture is fitted.
        each: called after each picture, to tell of progress.

    Returns:
        (n, height, width, channels) uint8; and of each file the SHA-256, width and height.

    Raises:
        DataError: a picture is missing, broken or too large.
    """
    out = np.empty((len(files), spec.height, spec.width, 1 if spec.color == "GRAY" else 3), np.uint8)

    def fit(index: int) -> tuple[str, int, int]:
        image, digest = read_picture(folder / files[index])
        fit_picture(image, spec, out[index])
        each()
        return digest, image.shape[1], image.shape[0]

    with ThreadPoolExecutor(THREADS) as pool:
        return out, list(pool.map(fit, range(len(files))))
