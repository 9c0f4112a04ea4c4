"""What a conversion may cost, and whether it does. No I/O.

In: ``drop=0.5pt,kib=600,ms=2``.  Out: a `Budget`, and what of it a variant breaks.
"""

from typing import Final

from msgspec import Struct

from tinysight_contract.errors import ConfigError

__all__ = ["Budget", "Figures", "parse_budget"]

_MEND: Final = "Write it as drop=0.5pt,kib=600,ms=2; each part may be left out."


class Figures(Struct, frozen=True, kw_only=True):
    """What one variant costs.

    Attributes:
        metric: AP50-95 or accuracy on held-out pictures, 0..1.
        drop_pt: by how many points that is below the float model; negative when it is above.
        kib: of the file.
        ms: median of one inference, one thread, this machine.
    """

    metric: float
    drop_pt: float
    kib: float
    ms: float


class Budget(Struct, frozen=True, kw_only=True):
    """The most that each may be; None: anything."""

    drop_pt: float | None = None
    kib: float | None = None
    ms: float | None = None

    def drops(self, figures: Figures) -> bool:
        """Whether the metric falls by more than is allowed."""
        return self.drop_pt is not None and figures.drop_pt > self.drop_pt + 1e-9

    def breaks(self, figures: Figures) -> list[str]:
        """What does not hold, in words; nothing when all of it does."""
        said = []
        if self.drops(figures):
            said.append(f"drop {figures.drop_pt:.2f}pt > {self.drop_pt:g}pt")
        if self.kib is not None and figures.kib > self.kib:
            said.append(f"{figures.kib:.0f} KiB > {self.kib:g} KiB")
        if self.ms is not None and figures.ms > self.ms:
            said.append(f"{figures.ms:.2f} ms > {self.ms:g} ms")
        return said


def parse_budget(text: str) -> Budget:
    """Read ``drop=0.5pt,kib=600,ms=2``.

    Raises:
        ConfigError: a part is unknown, stands twice, or is no number that is at least 0.
    """
    names, units = {"drop": "drop_pt", "kib": "kib", "ms": "ms"}, {"drop": "pt", "kib": "kib", "ms": "ms"}
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (each.strip().lower() for each in part.partition("="))
        if name not in names or names[name] in found:
            raise ConfigError(f"--budget: {part.strip()!r} is unknown or stands twice.", mend=_MEND)
        try:
            number = float(value.removesuffix(units[name]))
        except ValueError:
            raise ConfigError(f"--budget: {value!r} is no number of {units[name]}.", mend=_MEND) from None
        if not 0 <= number < 1e9:
            raise ConfigError(f"--budget: {name} cannot be {value}.", mend=_MEND)
        found[names[name]] = number
    return Budget(**found)
