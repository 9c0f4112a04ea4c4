"""For which devices wheels are chosen: machine, Python and C library. Pure.

In: ``aarch64-py311``, names of wheels.  Out: the tags by which an installer chooses, and what C library wheels need.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from tinysight_contract.errors import ConfigError

__all__ = ["TARGETS", "Target", "glibc_needed"]

OLDEST_GLIBC: Final = 17
"""Of the generation of tags that spell it out; wheels for older ones are named ``manylinux2014``."""
GLIBC: Final = {11: 35, 12: 39, 13: 41}
"""The C library (2.x) of the oldest supported system on which a Python 3.x is to be expected: Ubuntu 22.04 (Jetson)
and Debian 12; Ubuntu 24.04; Debian 13."""
TARGETS: Final = (
    *(f"{machine}-py3{minor}" for machine in ("aarch64", "x86_64") for minor in GLIBC),
    "armv7l-py311",
)
OLD_NAMES: Final = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of device.

    Attributes:
        machine: as ``uname -m`` says, of the programs and not of the kernel.
        minor: of Python 3.
    """

    machine: str
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``aarch64-py311``.

        Raises:
            ConfigError: there is none of that name.
        """
        if text in TARGETS:
            machine, _, python = text.partition("-py3")
            return cls(machine, int(python))
        if text.startswith("armv7l-py3"):
            raise ConfigError(
                f"There is no TensorFlow Lite for {text}.",
                mend="Use Raspberry Pi OS 12 (Python 3.11) on that board, or a 64-bit system.",
            )
        near = difflib.get_close_matches(text, TARGETS, n=1)
        raise ConfigError(
            f"There is no target {text!r}.",
            mend=f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(TARGETS)}.",
        )

    def __str__(self) -> str:
        return f"{self.machine}-py3{self.minor}"

    @property
    def python(self) -> str:
        """Such as ``3.11``."""
        return f"3.{self.minor}"

    def pip_options(self) -> list[str]:
        """Have pip choose for the target and not for itself."""
        glibc = range(GLIBC[self.minor], OLDEST_GLIBC - 1, -1)
        platforms = [f"manylinux_2_{each}_{self.machine}" for each in glibc]
        platforms += [f"manylinux2014_{self.machine}", f"linux_{self.machine}"]
        options = [word for each in platforms for word in ("--platform", each)]
        return ["--python-version", self.python, "--implementation", "cp", "--abi", f"cp3{self.minor}", *options]


def glibc_needed(files: Iterable[str]) -> str:
    """The oldest C library that all these wheels take, such as ``2.28``; ``2.0`` when none of them is compiled.

    A wheel that is compiled for one system (``linux_armv7l``, as piwheels makes them) says nothing of it.
    """
    return f"2.{max((_least(each) for each in files), default=0)}"


def _least(file: str) -> int:
    """Of the tags in one wheel's name the least demanding."""
    platforms = file.removesuffix(".whl").split("-")[-1].split(".")
    named = [OLD_NAMES[old] for each in platforms if (old := each.partition("_")[0]) in OLD_NAMES]
    spelt = [int(match[1]) for each in platforms if (match := re.match(r"manylinux_2_(\d{1,3})_", each))]
    return min((*named, *spelt), default=0)
