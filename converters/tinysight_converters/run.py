"""The run folder: what a training run leaves behind, and all that converting it needs.

::

    RUN/run.json      what was trained: task, labels, input, how to decode, configuration, data set and its digest
    RUN/samples.json  the held-out and the calibration pictures, with their truth and their content's SHA-256
    RUN/model.keras   the trained model, one named output per role

The trainer writes these and `Run.load` reads them. A run is finished when ``run.json`` is there: it is written last.
"""

from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

import msgspec
from msgspec import Struct

from tinysight_contract.errors import ConversionError
from tinysight_contract.files import replace_file
from tinysight_contract.manifest import Decode, Input

__all__ = ["MODEL", "RUN", "SAMPLES", "HeldOut", "Run", "Sample", "Task"]

Task = Literal["detect", "classify"]
RUN: Final = "run.json"
SAMPLES: Final = "samples.json"
MODEL: Final = "model.keras"
MAX_JSON_BYTES: Final = 512 << 20
_T = TypeVar("_T")


class Sample(Struct, frozen=True):
    """One picture and what it shows.

    Attributes:
        file: its path below the data set's folder of pictures.
        sha256: of the file's content.
        width: in pixels.
        height: in pixels.
        labels: indices into the labels, one per box; for a classifier one for the whole picture.
        boxes_px: x1, y1, x2, y2 in pixels of the picture; for a classifier none.
        crowd: per box, whether it marks a region to be ignored instead of an object.
    """

    file: str
    sha256: str
    width: int
    height: int
    labels: list[int]
    boxes_px: list[tuple[float, float, float, float]] = []
    crowd: list[bool] = []


class HeldOut(Struct, frozen=True, kw_only=True):
    """The pictures a run kept from training. ``test`` proves; ``calibration`` sets ranges and the threshold."""

    calibration: list[Sample]
    test: list[Sample]


class Run(Struct, frozen=True, kw_only=True):
    """A finished training run.

    Attributes:
        pictures: the folder that the samples' files are relative to.
        outputs: role to the model's output name.
        config: how it was trained.
        tools: versions of what trained it.
        figures: what training measured.
    """

    task: Task
    labels: list[str]
    input: Input
    decode: Decode
    outputs: dict[str, str]
    pictures: str
    dataset_digest: str
    seed: int
    config: dict[str, Any]
    tools: dict[str, str]
    figures: dict[str, float]

    def save(self, folder: Path, held_out: HeldOut) -> None:
        """Write ``samples.json``, then ``run.json``; each in one step.

        Raises:
            OSError: the folder cannot be written.
        """
        replace_file(folder / SAMPLES, msgspec.json.encode(held_out))
        replace_file(folder / RUN, msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1) + b"\n")

    @classmethod
    def load(cls, folder: Path) -> tuple[Self, HeldOut]:
        """Read a run and its samples.

        Raises:
            ConversionError: the folder is no finished run, or its files are damaged.
        """
        if not folder.is_dir():
            raise ConversionError(f"There is no run {folder}.", mend="Make one with `tinysight train`.")
        if not (folder / RUN).is_file():
            raise ConversionError(
                f"{folder} holds no finished run.", mend="Finish it with `tinysight train ... --resume`."
            )
        run, held_out = _read(folder / RUN, cls), _read(folder / SAMPLES, HeldOut)
        if not (folder / MODEL).is_file():
            raise ConversionError(f"{folder / MODEL} is missing.", mend="Train again.")
        return run, held_out


def _read(path: Path, kind: type[_T]) -> _T:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ConversionError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB.", mend="Train again.")
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ConversionError(f"{path} cannot be read: {error.strerror}.", mend="Train again.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConversionError(f"{path} is damaged: {error}.", mend="Train again.") from error
