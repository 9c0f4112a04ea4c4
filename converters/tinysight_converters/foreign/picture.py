"""What a foreign model looks at: how a frame becomes its picture, and pictures to check devices with.

In: the file's input, and what the user says of the training.  Out: the manifest's `Input`, golden pictures.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from tinysight_contract import manifest as mf
from tinysight_contract.errors import ConfigError, ConversionError, DataError
from tinysight_converters.foreign.file import picture_shape, tensor_fields
from tinysight_converters.foreign.metadata import BY_FILE, scaling_of
from tinysight_converters.metadata import Metadata
from tinysight_converters.trial import TensorFacts
from tinysight_edge.preprocess import Preprocessor, fit_picture
from tinysight_edge.sources import IMAGE_SUFFIXES, decode_image

__all__ = ["PIXELS", "Picture", "feed", "golden_pictures", "input_of"]

GOLDEN_COUNT: Final = 4
PIXELS: Final = {"0..1": (0.0, 255.0), "-1..1": (127.5, 127.5), "0..255": (0.0, 1.0)}
"""How a byte becomes the number that a model was trained with: mean and deviation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """How a camera frame becomes the model's picture, as far as the user says it.

    Attributes:
        resize: letterbox, stretch or crop; None when not said.
        pixels: a key of `PIXELS`; None when not said.
        mean: per channel on 0..255, with ``std`` instead of ``pixels``.
        std: likewise.
        color: RGB, BGR or GRAY; None takes RGB, and GRAY where the model has one channel.
        fill: of a letterbox.
    """

    resize: str | None = None
    pixels: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    color: str | None = None
    fill: int = 114


def input_of(facts: TensorFacts, picture: Picture, said: Metadata | None = None) -> tuple[mf.Input, mf.Tensor, str]:
    """How frames are fitted, the tensor, and how pixels are scaled in words.

    Args:
        facts: of the input.
        picture: what the user says.
        said: what the file says of itself, where the user and the input's scale are silent.

    Raises:
        ConfigError: something must be said that the file does not say.
        ConversionError: it takes no picture.
    """
    layout, height, width, channels = picture_shape(facts)
    tensor = mf.Tensor(**tensor_fields(facts))
    if picture.resize is None:
        raise ConfigError(
            "How a frame was made to fit the model's picture when it was trained is not in the file.",
            mend="Give --resize letterbox, stretch or crop; usual are letterbox for YOLO, stretch for SSD.",
        )
    color = picture.color or ("RGB" if channels == 3 else "GRAY")
    if (color == "GRAY") != (channels == 1):
        raise ConfigError(f"--color {color} does not fit a picture of {channels} channels.", mend="Leave --color away.")
    mean, std, pixels = _scaling(tensor, picture, channels, said)
    try:
        spec = msgspec.convert(
            {"height": height, "width": width, "layout": layout, "color": color, "resize": picture.resize,
             "fill": picture.fill, "mean": mean, "std": std}, mf.Input,
        )  # fmt: skip
    except msgspec.ValidationError as error:
        raise ConversionError(f"The model's picture cannot be fed: {error}.", mend="Use another model.") from error
    return spec, tensor, pixels


def _scaling(
    tensor: mf.Tensor, picture: Picture, channels: int, said: Metadata | None
) -> tuple[list[float] | None, list[float] | None, str]:
    """Mean and deviation per channel, and who says so."""
    if (picture.mean is None) != (picture.std is None) or (picture.pixels and picture.mean):
        raise ConfigError("Pixels are scaled in one way.", mend="Give --pixels, or both --mean and --std.")
    if picture.mean is not None and picture.std is not None:
        if len(picture.mean) != channels or len(picture.std) != channels or min(picture.std) <= 0:
            raise ConfigError(
                f"--mean {picture.mean} and --std {picture.std} do not fit {channels} channels.",
                mend="Give a number per channel, on 0..255, and no --std of zero.",
            )
        return picture.mean, picture.std, "as --mean and --std say"
    named, by = picture.pixels, "as --pixels says"
    if named is None:
        named, by = _pixels_of(tensor), "as the input's scale says"
    if named is None and (numbers := scaling_of(said, channels)) is not None:
        mean, std = numbers
        named, by = _name_of(mean, std), f"as {BY_FILE} says"
        if named is None:
            return mean, std, f"mean {_listed(mean)} and deviation {_listed(std)}, {by}"
    if named is None:
        raise ConfigError(
            f"How the pixels of the {tensor.dtype} input {tensor.name!r} were scaled in training is not in the file.",
            mend=f"Give --pixels {', '.join(PIXELS)}, or --mean and --std per channel on 0..255.",
        )
    one, other = PIXELS[named]
    words = f"{named}, {by}"
    return (None, None, words) if named == "0..255" else ([one] * channels, [other] * channels, words)


def _name_of(mean: list[float], std: list[float]) -> str | None:
    """The key of `PIXELS` that these numbers are, or None."""
    for name, (one, other) in PIXELS.items():
        if np.allclose(mean, one) and np.allclose(std, other):
            return name
    return None


def _listed(numbers: list[float]) -> str:
    return ", ".join(f"{each:.6g}" for each in numbers)


def _pixels_of(tensor: mf.Tensor) -> str | None:
    """The scaling whose range a quantized input spans, or None."""
    if tensor.dtype == "float32":
        return None
    bounds = np.iinfo(np.dtype(tensor.dtype))
    low, high = ((bound - tensor.zero_point) * tensor.scale for bound in (bounds.min, bounds.max))
    for name, (mean, std) in PIXELS.items():
        want_low, want_high = (0 - mean) / std, (255 - mean) / std
        if max(abs(low - want_low), abs(high - want_high)) <= 0.02 * (want_high - want_low):
            return name
    return None


def feed(pictures: NDArray[np.uint8], spec: mf.Input, tensor: mf.Tensor) -> NDArray[Any]:
    """Fitted pictures (n, height, width, channels) as the tensor takes them: (n, ...)."""
    prepare = Preprocessor(spec, tensor)
    return np.stack([prepare.from_picture(each)[0].copy() for each in pictures])


def golden_pictures(folder: Path | None, spec: mf.Input) -> NDArray[np.uint8]:
    """Fitted pictures (n, height, width, channels) of a folder, the first by name; or drawn ones.

    Raises:
        DataError: the folder holds none, or one that is broken.
    """
    if folder is None:
        frames = [_drawn(seed, spec.height, spec.width) for seed in range(GOLDEN_COUNT)]
    else:
        paths = sorted(each for each in _list(folder) if each.suffix.lower() in IMAGE_SUFFIXES and each.is_file())[
            :GOLDEN_COUNT
        ]
        if not paths:
            raise DataError(f"{folder} holds no pictures.", mend=f"Give a folder with {', '.join(IMAGE_SUFFIXES)}.")
        frames = []
        for path in paths:
            if (image := decode_image(path.read_bytes())) is None:
                raise DataError(f"{path} is broken or no image.", mend="Repair it, or take it out.")
            frames.append(image)
    made = np.empty((len(frames), spec.height, spec.width, 1 if spec.color == "GRAY" else 3), np.uint8)
    for frame, place in zip(frames, made, strict=True):
        fit_picture(frame, spec, place)
    return made


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.", mend="Check --pictures.") from error


def _drawn(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Soft colours with hard-edged shapes upon them; the same for the same seed."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (5, 7, 3)).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        side = int(rng.integers(2, max(3, min(height, width) // 2)))
        color = tuple(int(each) for each in rng.integers(0, 256, 3))
        cv2.rectangle(image, (x, y), (x + side, y + side), color, -1)
    return np.asarray(image, np.uint8)
