"""Every setting of a training: one type that is the flags, the TOML file and the record in the run folder.

In: a TOML file and flags; a flag given beats the file.  Out: a `Config`, or what is wrong with it in one line.
"""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from tinysight_contract.errors import ConfigError

__all__ = ["Config", "make_config", "parse_size", "read_toml", "to_toml"]

MAX_TOML_BYTES: Final = 1 << 20


def _says(
    text: str, group: str = "Training", *, ge: float | None = None, le: float | None = None, lt: float | None = None
) -> Any:  # noqa: ANN401 -- msgspec's overloads do not take the sum of the cases
    limits = {name: value for name, value in (("ge", ge), ("le", le), ("lt", lt)) if value is not None}
    return Meta(description=text, extra={"group": group}, **limits)  # type: ignore[call-overload]  # see above


_LOOK: Final = "How pictures are varied"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting of a training. The texts are those of ``tinysight train --help``."""

    task: Annotated[Literal["detect", "classify"], _says("What is learned; follows from the data set.")] = "detect"
    model: Annotated[
        Literal["small", "medium", "lite0"], _says("small, medium, or lite0: EfficientNet-Lite0 with ImageNet weights.")
    ] = "small"
    input: Annotated[
        str,
        _says("WIDTHxHEIGHT of the model's input; by default what suits it: small takes 128x96, or 64x64 to classify."),
    ] = ""
    color: Annotated[Literal["RGB", "GRAY"], _says("What the model sees.")] = "RGB"
    scale: Annotated[float, _says("Multiplies the model's channels.", ge=0.25, le=4.0)] = 1.0
    freeze: Annotated[bool, _says("lite0: learn the head alone; quick, and right for very little data.")] = False
    epochs: Annotated[int, _says("How often the pictures are gone through.", ge=1)] = 13
    batch: Annotated[int, _says("Pictures per step.", ge=1)] = 16
    learning_rate: Annotated[float, _says("At its peak, after the warm-up; lite0 takes 5e-4.", ge=0.0, le=1.0)] = 2e-3
    weight_decay: Annotated[float, _says("Of AdamW.", ge=0.0, le=1.0)] = 1e-3
    warm_up: Annotated[float, _says("Share of all steps until the peak.", ge=0.0, le=0.5)] = 0.05
    ema: Annotated[
        float, _says("The weights kept are a running average with this momentum; 0: the last.", ge=0.0, lt=1.0)
    ] = 0.0
    smoothing: Annotated[float, _says("Of a classifier's labels.", ge=0.0, le=0.5)] = 0.05
    class_weights: Annotated[bool, _says("Rare classes count for more, when classifying.")] = False
    patience: Annotated[int, _says("Stop after so many epochs without a better held-out loss; 0: never.", ge=0)] = 0
    precision: Annotated[
        Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"], _says("auto: mixed_float16 on a GPU.")
    ] = "auto"
    seed: Annotated[int, _says("Of everything random.", ge=0, le=2**32 - 1)] = 0
    ensemble: Annotated[int, _says("Teachers to train beside the model.", "Teachers", ge=0, le=16)] = 0
    distill: Annotated[bool, _says("The model learns from its teachers as well as from the labels.", "Teachers")] = (
        False
    )
    teacher_scale: Annotated[
        float, _says("The teachers' channels, times the model's; lite0 comes in one size.", "Teachers", ge=0.25, le=4.0)
    ] = 1.5
    zoom: Annotated[float, _says("Larger or smaller by up to this share.", _LOOK, ge=0.0, le=0.9)] = 0.25
    stretch: Annotated[float, _says("Wider or higher by up to this share.", _LOOK, ge=0.0, le=0.9)] = 0.15
    shift: Annotated[float, _says("Moved by up to this share of the side.", _LOOK, ge=0.0, le=0.9)] = 0.12
    turn: Annotated[float, _says("Turned by up to so many degrees.", _LOOK, ge=0.0, le=180.0)] = 8.0
    slant: Annotated[float, _says("Slanted by up to this share.", _LOOK, ge=0.0, le=0.9)] = 0.15
    flip: Annotated[float, _says("Mirrored left to right, with this probability.", _LOOK, ge=0.0, le=1.0)] = 0.0
    light: Annotated[float, _says("Brighter or darker by up to this share.", _LOOK, ge=0.0, le=0.9)] = 0.3
    tint: Annotated[float, _says("Each colour stronger or weaker by up to this share.", _LOOK, ge=0.0, le=0.9)] = 0.07
    noise: Annotated[float, _says("Up to so many grey levels of noise.", _LOOK, ge=0.0, le=64.0)] = 6.0
    blur: Annotated[float, _says("Blurred, with this probability.", _LOOK, ge=0.0, le=1.0)] = 0.0
    mosaic: Annotated[
        float, _says("Four pictures in one, to detect, with this probability.", _LOOK, ge=0.0, le=1.0)
    ] = 0.0
    mixup: Annotated[
        float, _says("Two pictures laid over each other, to classify, with this probability.", _LOOK, ge=0.0, le=1.0)
    ] = 0.0
    cutmix: Annotated[
        float, _says("A piece of another picture put in, to classify, with this probability.", _LOOK, ge=0.0, le=1.0)
    ] = 0.0

    @property
    def width(self) -> int:
        """Of the model's input in pixels."""
        return parse_size(self.input, self.task, self.model)[0]

    @property
    def height(self) -> int:
        """Of the model's input in pixels."""
        return parse_size(self.input, self.task, self.model)[1]


# What does well with another model or task than the small detector; a flag or a file beats it.
_FITTING: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("classify", "small"): {"input": "64x64"},
    ("classify", "medium"): {"input": "96x96"},
    ("classify", "lite0"): {"input": "160x160", "learning_rate": 5e-4},
    ("detect", "small"): {"input": "128x96"},
    ("detect", "medium"): {"input": "160x128"},
    ("detect", "lite0"): {"input": "192x160", "learning_rate": 5e-4},
}


def parse_size(text: str, task: str, model: str) -> tuple[int, int]:
    """Width and height in pixels.

    Raises:
        ConfigError: the text is no size, or does not fit the model.
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and len(text) < 12):
        raise ConfigError(f"--input {text!r} is no size.", mend="Write it as WIDTHxHEIGHT, such as 128x96.")
    sides = int(width), int(height)
    step = 32 if model == "lite0" else 16 if task == "detect" else 4
    if any(side % step or not max(step, 16) <= side <= 1024 for side in sides):
        raise ConfigError(
            f"--input {text} does not fit the model.", mend=f"Use multiples of {step} from {max(step, 16)} to 1024."
        )
    return sides


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as it stands.

    Raises:
        ConfigError: it cannot be read, is no TOML, or is larger than 1 MiB.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", mend="Check the path.") from error
    if len(raw) > MAX_TOML_BYTES:
        raise ConfigError(f"{path} is larger than 1 MiB.", mend="That is no settings file; check the path.")
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {error}.", mend="Correct that line.") from error


def make_config(given: Mapping[str, Any], *, task: str, source: str) -> Config:
    """Check settings and fill in the rest.

    Args:
        given: settings by name.
        task: of the data set.
        source: where they come from, for the message.

    Raises:
        ConfigError: a name is unknown, or a value does not fit.
    """
    for key in given:
        if key not in Config.__struct_fields__:
            near = difflib.get_close_matches(key, Config.__struct_fields__, n=1)
            mend = f"Did you mean {near[0]!r}?" if near else "`tinysight train --help` lists all."
            raise ConfigError(f"{source}: unknown setting {key!r}.", mend=mend)
    if given.get("task", task) != task:
        raise ConfigError(
            f"{source}: the task is {given['task']!r}, the data set is for {task!r}.", mend="Leave out --task."
        )
    fitting = _FITTING.get((task, str(given.get("model") or "small")), {})
    try:
        config = msgspec.convert({**fitting, **given, "task": task}, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}.", mend="`tinysight train --help` says what is possible.") from error
    parse_size(config.input, config.task, config.model)
    if config.distill and not config.ensemble:
        raise ConfigError("--distill needs teachers.", mend="Give --ensemble 3 or so.")
    if config.model == "lite0" and config.color == "GRAY":
        raise ConfigError("lite0 sees colours.", mend="Leave out --color, or choose another --model.")
    _check_use(config, source)
    return config


def _check_use(config: Config, source: str) -> None:
    """Refuse what would do nothing."""
    plain = Config()
    only: dict[str, tuple[str, ...]] = {
        "detect": ("mosaic",),
        "classify": ("mixup", "cutmix", "smoothing", "class_weights"),
    }
    for task, names in only.items():
        for name in names:
            if config.task != task and getattr(config, name) != getattr(plain, name):
                raise ConfigError(f"{source}: {name} is only to {task}.", mend="Leave it out.")
    if config.freeze and config.model != "lite0":
        raise ConfigError(f"{source}: only lite0 has something to freeze.", mend="Give --model lite0.")
    if config.model == "lite0" and (config.scale, config.teacher_scale) != (plain.scale, plain.teacher_scale):
        raise ConfigError(f"{source}: lite0 comes in one size.", mend="Leave out scale and teacher_scale.")
    if config.teacher_scale != plain.teacher_scale and not config.ensemble:
        raise ConfigError(f"{source}: teacher_scale needs teachers.", mend="Give --ensemble 3 or so, or leave it out.")
    if config.mixup + config.cutmix > 1:
        raise ConfigError(f"{source}: mixup and cutmix are more than 1 together.", mend="Lower one of them.")


def to_toml(config: Config) -> bytes:
    """All settings, one a line, to be read back with ``--config``."""
    lines = []
    for key, value in msgspec.to_builtins(config).items():
        text = msgspec.json.encode(value).decode()
        lines.append(f"{key} = {text}")
    return ("\n".join(lines) + "\n").encode()
