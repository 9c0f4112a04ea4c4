"""Somebody else's model as the bytes of a .tflite file: taken as it is, or made of a .keras file or a SavedModel.

In: a path, and how the numbers are to be stored.  Out: a `Flat`. Keras models are converted in a child process only
(`tflite`); int8 is calibrated with pictures as the graph is fed them, scaled by mean and deviation.
"""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from tinysight_contract.errors import ConfigError, ConversionError
from tinysight_contract.manifest import Scheme
from tinysight_converters.calibration import Calibration, read_calibration
from tinysight_converters.foreign.file import naming, opened
from tinysight_converters.foreign.picture import Picture, feed, input_of
from tinysight_converters.tflite import Recipe, convert_model
from tinysight_converters.trial import read_model, try_model

__all__ = ["SCHEMES", "Flat", "flat_model"]

SCHEMES: Final[tuple[Scheme, ...]] = ("float32", "float16", "dynamic", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """A flatbuffer and how it came about.

    Attributes:
        content: its bytes.
        calibration: of int8 that was made here.
        tools: it was converted with, by version.
    """

    content: bytes
    calibration: Calibration | None = None
    tools: Mapping[str, str] = field(default_factory=dict)


def flat_model(
    model: Path, picture: Picture, *, scheme: Scheme | None, calibration: Path | None, say: Callable[[str], None]
) -> Flat:
    """Read a .tflite file, or convert a .keras file or the folder of a SavedModel.

    Args:
        model: any of these.
        picture: how frames are fitted, which int8 needs.
        scheme: of a model that is converted; None takes float32.
        calibration: pictures for int8.
        say: told what is being done.

    Raises:
        ConfigError: scheme or calibration do not fit the model or each other.
        ConversionError: the model cannot be read or converted.
        DataError: the calibration set cannot be used.
    """
    if not (model.is_dir() or model.suffix == ".keras"):
        if scheme is not None or calibration is not None:
            raise ConfigError(
                "A .tflite file is taken as it is.",
                mend="Leave --scheme and --calibration away, or give the .keras or the SavedModel that it was made of.",
            )
        return Flat(content=read_model(model))
    if model.is_dir() and not (model / "saved_model.pb").is_file():
        raise ConversionError(
            f"{model} is no SavedModel.", mend="Give a folder with saved_model.pb; of a run, use `tinysight convert`."
        )
    if not model.exists():
        raise ConversionError(f"There is no {model}.", mend="Check the path.")
    if model.is_file() and not zipfile.is_zipfile(model):
        raise ConversionError(f"{model} is no .keras file.", mend="Give one that is whole.")
    scheme = scheme or "float32"
    if calibration is None and scheme == "int8":
        raise ConfigError(
            "int8 needs pictures to find its ranges with.",
            mend="Give --calibration, a folder of about 100 images like those of the field, or a .npy.",
        )
    if calibration is not None and scheme != "int8":
        raise ConfigError(f"--calibration says nothing of {scheme}.", mend="It is for --scheme int8.")
    tools = {"tensorflow": version("tensorflow")}
    say(f"Converting {model.name} in a process of its own")
    if calibration is None:
        return Flat(content=_convert(model, scheme), tools=tools)
    _, (taken,), _ = naming(opened(try_model(_convert(model, "float32"))))
    spec, tensor, _ = input_of(taken, picture)
    chosen = read_calibration(calibration, spec, held_out=np.empty((0, *tensor.shape[1:]), np.uint8))
    say(f"Calibrating int8 with {len(chosen.pictures)} pictures")
    fed = feed(chosen.pictures, spec, tensor)
    (content,) = convert_model(model, fed, [Recipe(scheme=scheme)]).files
    return Flat(content=content, calibration=chosen, tools=tools)


def _convert(model: Path, scheme: Scheme) -> bytes:
    """Without pictures."""
    (content,) = convert_model(model, np.empty((0, 1, 1, 1), np.float32), [Recipe(scheme=scheme)]).files
    return content
