"""The run folder: all that a conversion needs to know of a training, in files.

::

    RUN/run.json        what was trained, on what, how, with which versions; written last
    RUN/examples.json   the calibration and test pictures with their truth and digests; training never saw the test
    RUN/model.keras     the float model
    RUN/qat/            what was trained for int8 from it: model.keras with its own checkpoint, history and curves
    RUN/curves.png, history.csv, checkpoint.npz

The trainer writes it, the converter reads it; neither needs the other's code.
"""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from tinysight_contract.errors import ConversionError, DataError
from tinysight_contract.files import replace_file
from tinysight_contract.manifest import Input
from tinysight_edge.sources import decode_image

__all__ = [
    "EXAMPLES",
    "MODEL",
    "QAT",
    "BoxPx",
    "Example",
    "Examples",
    "Run",
    "check_target",
    "load_examples",
    "load_run",
    "save_run",
]

SCHEMA: Final = 1
RUN: Final = "run.json"
EXAMPLES: Final = "examples.json"
MODEL: Final = "model.keras"
QAT: Final = "qat/model.keras"

T = TypeVar("T")
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]
BoxPx = tuple[float, float, float, float]


class Example(Struct, frozen=True, kw_only=True):
    """One picture and what it shows.

    Attributes:
        name: the file's path within the data set, with slashes.
        sha256: of the file.
        boxes: x1 y1 x2 y2 in pixels; empty for classification.
        class_ids: one per box; for classification exactly one.
        crowd: per class id: neither right nor wrong to find.
    """

    name: str
    sha256: Sha256
    boxes: list[BoxPx]
    class_ids: list[int]
    crowd: list[bool]

    def picture(self, root: Path) -> NDArray[np.uint8]:
        """The image as (H, W, 3) uint8 BGR, as a device reads it, after checking that it is still the same file.

        Raises:
            DataError: it is missing, broken, has more than 100 million pixels, or has changed.
        """
        path = root / self.name
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.", mend="Put the data set back.") from error
        if hashlib.sha256(raw).hexdigest() != self.sha256:
            raise DataError(f"{path} has changed since it was first read.", mend="Train again on the changed data set.")
        if (image := decode_image(raw)) is None:
            raise DataError(f"{path} is broken or no image.", mend="Repair it, or take it out of the data set.")
        return image

    @property
    def boxes_px(self) -> NDArray[np.float32]:
        """float32 (n, 4)."""
        return np.array(self.boxes, np.float32).reshape(-1, 4)


class Examples(Struct, frozen=True, kw_only=True):
    """Pictures by what they are for. Calibration comes from the training side, the test was never trained on."""

    calibration: list[Example]
    test: list[Example]


class Run(Struct, frozen=True, kw_only=True):
    """What was trained.

    Attributes:
        schema: of this file.
        task: detect or classify.
        labels: by class id.
        input: how pictures are fitted.
        stride: of the detector's map; 0 for a classifier.
        dataset: the data set's folder.
        dataset_digest: of all its content.
        seed: of everything random.
        config: every setting of the training.
        tools: versions.
        figures: what the training measured.
    """

    schema: int = SCHEMA
    task: Literal["detect", "classify"]
    labels: list[str]
    input: Input
    stride: int
    dataset: str
    dataset_digest: Sha256
    seed: int
    config: dict[str, Any]
    tools: dict[str, str]
    figures: dict[str, float]


def check_target(out: Path) -> None:
    """See that a file can be written, before the work is done.

    Raises:
        ConversionError: it cannot.
    """
    if not out.parent.is_dir():
        raise ConversionError(f"{out.parent} is no folder.", mend="Make it first.")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise ConversionError(f"{out} cannot be written.", mend="Name a file in a folder that you may write to.")


def save_run(folder: Path, run: Run) -> None:
    """Write ``run.json`` in one step; its being there says that the training has ended.

    Raises:
        OSError: the disk is full or not writable.
    """
    replace_file(folder / RUN, msgspec.json.format(msgspec.json.encode(run, order="sorted"), indent=1))


def load_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        ConversionError: it is missing, unfinished, damaged, or of another version.
    """
    if not folder.is_dir():
        raise ConversionError(f"There is no run {folder}.", mend="Make one with `tinysight train`.")
    if not (folder / RUN).is_file() or not (folder / MODEL).is_file():
        raise ConversionError(f"The training in {folder} has not ended.", mend="Go on with `tinysight train --resume`.")
    run = _read(folder / RUN, Run)
    if run.schema != SCHEMA:
        raise ConversionError(f"{folder} has schema {run.schema}, this is {SCHEMA}.", mend="Train again, or update.")
    return run


def load_examples(folder: Path) -> Examples:
    """Read the calibration and test pictures of a run.

    Raises:
        ConversionError: the file is missing or damaged, or a picture serves both purposes.
    """
    examples = _read(folder / EXAMPLES, Examples)
    calibration = {each.sha256 for each in examples.calibration}
    if shared := [each.name for each in examples.test if each.sha256 in calibration]:
        raise ConversionError(
            f"{shared[0]} is used for calibration and for the test.", mend="Remove the doubled image."
        )
    return examples


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ConversionError(f"{path} cannot be read: {error.strerror}.", mend="Train again.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConversionError(f"{path} is damaged: {error}.", mend="Train again.") from error
