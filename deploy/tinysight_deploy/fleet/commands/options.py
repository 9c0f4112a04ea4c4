"""How people write the rules of a rollout: ``30m``, ``2%``, ``2pt``, ``25%,100%``.

In: text of a command line.  Out: numbers, or a `ConfigError` that names the option. Pure.
"""

import re
from typing import Final

from tinysight_contract.errors import ConfigError
from tinysight_deploy.fleet.types import Stage
from tinysight_edge.units import Seconds

__all__ = ["duration", "holds", "points", "share", "told_duration"]

NONE: Final = "none"
"""Written for a rule that shall not hold."""

_MINUTES: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?m", re.ASCII)
_PERCENT: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?%", re.ASCII)
_POINTS: Final = re.compile(r"(\d{1,3}(?:\.\d{1,6})?) ?pt", re.ASCII)


def duration(text: str, option: str) -> float:
    """Seconds of ``90s``, ``30m`` (also ``30min``), ``1h``, ``2d``.

    Args:
        text: as it was written.
        option: for the error.

    Raises:
        ConfigError: it is no time with its unit.
    """
    minutes = _MINUTES.fullmatch(text.strip())
    try:
        return float(Seconds.parse(f"{minutes[1]}min" if minutes else text.strip()))
    except ValueError as error:
        raise ConfigError(
            f"{option} {text!r} is no time.", mend="Write it with its unit: 90s, 30m, 1h or 2d."
        ) from error


def told_duration(seconds: float) -> str:
    """``1 h 5 min``: a time for people, in its two largest units."""
    left = max(0, round(seconds))
    parts = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def share(text: str, option: str, *, most: float = 1.0) -> float | None:
    """A share, 0..`most`, of ``2%``; null of ``none``.

    Args:
        text: as it was written.
        option: for the error.
        most: 1 is 100 %.

    Raises:
        ConfigError: it is no share, or above `most`.
    """
    if text.strip() == NONE:
        return None
    found = _PERCENT.fullmatch(text.strip())
    if found is None or float(found[1]) > most * 100:
        raise ConfigError(f"{option} {text!r} is no share.", mend=f"Write 0% to {most * 100:.0f}%, or none.")
    return float(found[1]) / 100


def points(text: str, option: str) -> float | None:
    """A difference of two shares, 0..1, of ``2pt``, which are percentage points; null of ``none``.

    Args:
        text: as it was written.
        option: for the error.

    Raises:
        ConfigError: it is none, or above 100.
    """
    if text.strip() == NONE:
        return None
    found = _POINTS.fullmatch(text.strip())
    if found is None or float(found[1]) > 100:
        raise ConfigError(f"{option} {text!r} are no points.", mend="Write percentage points, such as 2pt, or none.")
    return float(found[1]) / 100


def holds(text: str, stages: tuple[Stage, ...]) -> tuple[int, ...]:
    """The numbers of the stages, from 0, that are named as ``25%,100%``, in the order of the stages.

    Raises:
        ConfigError: a word names none of them.
    """
    names = [str(stage) for stage in stages]
    found = set()
    for word in filter(None, (each.strip() for each in text.split(","))):
        if word not in names:
            raise ConfigError(f"--hold: there is no stage {word}.", mend=f"Name some of: {', '.join(names)}.")
        found.add(names.index(word))
    return tuple(sorted(found))
