"""What a search for settings may try: one entry a setting, a range or a list.

In: the ``[search]`` table of a TOML file and the settings that are fixed.  Out: a `Space` whose every end is a valid
`Config`, and values drawn from it. Knows nothing of trainings; whoever draws is only asked for numbers and choices.

::

    [search]
    learning_rate = { low = 5e-4, high = 8e-3, log = true }
    batch = { low = 8, high = 64, step = 8 }
    input = ["96x64", "128x96"]
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Protocol, get_args, get_type_hints

import msgspec
from msgspec import Struct

from tinysight_contract.errors import ConfigError
from tinysight_trainer.config import Config, make_config

__all__ = ["Choice", "Draws", "Range", "Space", "default_space", "draw", "parse_time", "part", "plain", "read_space"]

Value = bool | int | float | str

MAX_CHOICES: Final = 64
# Each trial trains one model; teachers would make it several, and belong to the training with what was found.
NOT_HERE: Final = ("ensemble", "distill", "teacher_scale")
# Whether one of these is possible depends on the others.
LINKED: Final = ("model", "input", "color", "freeze", "scale")
UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
NUMBER: Final = "Write { low = 1e-4, high = 1e-2, log = true }, or a list of values."


class Range(Struct, frozen=True, kw_only=True):
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        low: the smallest.
        high: the largest.
        log: small numbers are tried as often as large ones.
        step: between two numbers; None: any.
        whole: numbers without fraction.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def holds(self, value: Value) -> bool:
        """Whether it is one of them."""
        if isinstance(value, str) or not self.low <= value <= self.high:
            return False
        return self.step is None or (_exact(value) - _exact(self.low)) % _exact(self.step) == 0


class Choice(Struct, frozen=True, kw_only=True):
    """One of a few values."""

    values: tuple[Value, ...]

    def holds(self, value: Value) -> bool:
        """Whether it is one of them."""
        return value in self.values


Space = dict[str, Range | Choice]


class Draws(Protocol):
    """Who draws values; Optuna's ``Trial`` is one."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """A number from ``low`` to ``high``."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """A whole number from ``low`` to ``high``."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        """One of them."""


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    low: float
    high: float
    log: bool = False
    step: float | None = None


def part(file: Mapping[str, Any], flags: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """What is fixed and what is searched: a flag beats ``[search]``, which beats the rest of the file.

    Returns:
        Fixed settings, and the ``[search]`` table as it stands, None if there is none.
    """
    fixed = {name: value for name, value in file.items() if name != "search"}
    table = file.get("search")
    if isinstance(table, dict):
        table = {name: value for name, value in table.items() if name not in flags}
        fixed = {name: value for name, value in fixed.items() if name not in table}
    return {**fixed, **flags}, table


def read_space(table: Any, fixed: Mapping[str, Any], *, task: str, source: str) -> Space:  # noqa: ANN401 -- from TOML
    """Check the fixed settings and a ``[search]`` table.

    Args:
        table: what may be tried, by setting.
        fixed: settings of every trial.
        task: of the data set.
        source: where they come from, for the message.

    Raises:
        ConfigError: a name is unknown, an end of a range or a choice is no valid setting, or two of them never fit.
    """
    make_config(fixed, task=task, source=source)
    where = f"{source} [search]"
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is no table.", mend="Write [search], and a setting a line below it.")
    for name in NOT_HERE:
        if name in table or (name != "teacher_scale" and fixed.get(name)):
            raise ConfigError(
                f"{source}: a search trains no teachers, {name!r} has no use.",
                mend="Leave it out, and give it to `tinysight train` with what was found.",
            )
    if unknown := [name for name in table if name not in Config.__struct_fields__]:
        make_config({unknown[0]: None}, task=task, source=where)
    if not table:
        raise ConfigError(f"{where}: there is nothing to search for.", mend="Leave at least one setting free.")
    raw = {name: _ends(name, entry, where) for name, entry in table.items()}
    linked = [name for name in LINKED if name in raw]
    base: dict[str, Any] = {}
    for values in itertools.product(*(raw[name] for name in linked)):
        base = dict(zip(linked, values, strict=True))
        make_config({**fixed, **base}, task=task, source=where)
    space: Space = {}
    for name, entry in table.items():
        given = {**fixed, **base}
        ends = [getattr(make_config({**given, name: end}, task=task, source=where), name) for end in raw[name]]
        space[name] = _range(name, entry, where) if isinstance(entry, dict) else Choice(values=tuple(ends))
    return space


def _ends(name: str, entry: Any, where: str) -> list[Any]:  # noqa: ANN401 -- from TOML
    """The values of a list, the ends of a range; nothing is said about whether they fit."""
    if isinstance(entry, dict):
        if _kind(name) not in {int, float}:
            raise ConfigError(f"{where}: {name} is no number.", mend="Give a list of values.")
        held = _table(name, entry, where)
        whole = held.low.is_integer() and held.high.is_integer()
        return [int(held.low), int(held.high)] if whole else [held.low, held.high]
    if not isinstance(entry, list):
        raise ConfigError(f"{where}: {name} is one value.", mend=NUMBER)
    if not 1 <= len(entry) <= MAX_CHOICES or any(value in entry[:at] for at, value in enumerate(entry)):
        raise ConfigError(f"{where}: {name} is no usable list.", mend=f"Give 1 to {MAX_CHOICES} different values.")
    return entry


def _table(name: str, entry: dict[str, Any], where: str) -> _Table:
    try:
        held = msgspec.convert(entry, _Table)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {name}: {error}.", mend=NUMBER) from error
    if not (math.isfinite(held.low) and math.isfinite(held.high)):
        raise ConfigError(f"{where}: {name} has no end.", mend="Give two finite numbers.")
    if held.low >= held.high:
        raise ConfigError(f"{where}: {name}: low is not below high.", mend="Exchange them, or leave the range out.")
    return held


def _range(name: str, entry: dict[str, Any], where: str) -> Range:
    held = _table(name, entry, where)
    kind = _kind(name)
    if held.log and (held.low <= 0 or held.step is not None):
        raise ConfigError(f"{where}: {name}: log needs low above 0, and no step.", mend="Leave out log.")
    step = 1.0 if kind is int and not held.log and held.step is None else held.step
    if step is not None:
        fits = math.isfinite(step) and step > 0 and (_exact(held.high) - _exact(held.low)) % _exact(step) == 0
        if not fits or (kind is int and not step.is_integer()):
            raise ConfigError(
                f"{where}: {name}: steps of {step:g} do not lead from {held.low:g} to {held.high:g}.",
                mend="Change high or step.",
            )
    return Range(low=held.low, high=held.high, log=held.log, step=step, whole=kind is int)


def _kind(name: str) -> Any:  # noqa: ANN401 -- a type, or what stands for several
    return get_args(get_type_hints(Config, include_extras=True)[name])[0]


def _exact(value: float) -> Decimal:
    return Decimal(str(value))


def default_space(fixed: Mapping[str, Any], *, task: str, source: str) -> Space:
    """What is worth trying when nobody says, without what is fixed.

    Raises:
        ConfigError: the fixed settings do not fit, or fix all of it.
    """
    usual = make_config(fixed, task=task, source=source)
    rate = usual.learning_rate or 2e-3
    table: dict[str, Any] = {
        "learning_rate": {"low": rate / 4, "high": min(rate * 4, 1.0), "log": True},
        "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True},
        "scale": [0.5, 0.75, 1.0, 1.5],
        "zoom": {"low": 0.0, "high": 0.4},
        "light": {"low": 0.0, "high": 0.5},
    }
    table |= (
        {"mosaic": {"low": 0.0, "high": 0.5}}
        if task == "detect"
        else {"turn": {"low": 0.0, "high": 20.0}, "mixup": {"low": 0.0, "high": 0.5}}
    )
    if usual.model == "lite0":
        del table["scale"]  # it comes in one size
    return read_space(
        {name: entry for name, entry in table.items() if name not in fixed}, fixed, task=task, source=source
    )


def draw(space: Space, draws: Draws) -> dict[str, Value]:
    """A value for each setting of the space, always in the same order."""
    drawn: dict[str, Value] = {}
    for name, entry in sorted(space.items()):
        if isinstance(entry, Choice):
            drawn[name] = draws.suggest_categorical(name, entry.values)
        elif entry.whole:
            drawn[name] = draws.suggest_int(
                name, int(entry.low), int(entry.high), step=int(entry.step or 1), log=entry.log
            )
        else:
            drawn[name] = draws.suggest_float(name, entry.low, entry.high, step=entry.step, log=entry.log)
    return drawn


def plain(space: Space, usual: Config) -> dict[str, Value]:
    """The usual values of what is searched, as far as the space holds them: what to try first."""
    return {name: getattr(usual, name) for name, entry in sorted(space.items()) if entry.holds(getattr(usual, name))}


def parse_time(text: str) -> float:
    """Seconds of a text such as ``30m``.

    Raises:
        ConfigError: it is no time, or has no unit.
    """
    number, unit = text[:-1], text[-1:]
    try:
        seconds = float(number) * UNITS_S[unit]
    except (ValueError, KeyError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError(f"--time {text!r} is no time.", mend="Write a number and s, m or h, such as 90s, 30m or 2h.")
    return seconds
