"""Times and sizes as people write them, with their unit: ``"20s"``, ``"500ms"``, ``"512MiB"``.

In: text of a configuration.  Out: `Seconds`, a float, or `Size`, an int of bytes. A number without a unit is refused.
"""

import re
from typing import Final

__all__ = ["Seconds", "Size"]

_TIMES: Final = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_WRITTEN: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?) ?([A-Za-z]{1,3})", re.ASCII)


class Seconds(float):
    """A time, in seconds."""

    @classmethod
    def parse(cls, text: object) -> "Seconds":
        """Read ``"1.5s"`` and its like.

        Raises:
            ValueError: it is not a number with a unit of time.
        """
        return cls(_measured(text, _TIMES, "a time such as '20s'"))

    def written(self) -> str:
        """As `parse` reads it, in the largest unit that does it without a fraction."""
        return _written(self, _TIMES)


class Size(int):
    """A size, in bytes."""

    @classmethod
    def parse(cls, text: object) -> "Size":
        """Read ``"512MiB"`` and its like.

        Raises:
            ValueError: it is not a number with a unit of size.
        """
        return cls(_measured(text, _SIZES, "a size such as '512MiB'"))

    def written(self) -> str:
        """As `parse` reads it, in the largest unit that does it without a fraction."""
        return _written(self, _SIZES)


def _measured(text: object, units: dict[str, float] | dict[str, int], wanted: str) -> float:
    known = ", ".join(units)
    written = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
    if written is None or written[2] not in units:
        raise ValueError(f"{text!r} is not {wanted}; units are {known}")
    return float(written[1]) * units[written[2]]


def _written(value: float, units: dict[str, float] | dict[str, int]) -> str:
    for unit in sorted(units, key=lambda each: -units[each]):
        count = round(value / units[unit], 9)
        if count.is_integer() and (count or unit in {"s", "B"}):
            return f"{count:.0f}{unit}"
    return f"{value:.9f}".rstrip("0") + "s"
