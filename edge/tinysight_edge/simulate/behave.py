"""How simulated devices behave when they are asked for another bundle, and which of them how. Pure.

In: ``crash=2%,offline=5%``.  Out: for each device's name always the same `Behaviour`, whoever asks, in whatever order.
"""

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from tinysight_contract.errors import ConfigError

__all__ = ["Behaviour", "behaviour_of", "parse_shares", "place_of"]

_SHARE: Final = re.compile(r"([a-z]+)=(\d{1,3}(?:\.\d{1,3})?)%")


class Behaviour(StrEnum):
    """What a device does with a wish that it has taken."""

    SOUND = "sound"
    """It checks, installs and confirms."""
    CRASH = "crash"
    """Each trial takes it down, until its attempts are used up: ``rolled-back``, ``crashed``."""
    SLOW = "slow"
    """It confirms, and a run takes twice as long as before."""
    DRIFT = "drift"
    """It confirms, and then sees something else than its model was signed for."""
    SILENT = "silent"
    """It says that it has taken the wish, and never anything again; its session stays."""
    VANISH = "vanish"
    """As `SILENT`, and its session is lost. It comes back only when it is told to."""
    LIAR = "liar"
    """It checks nothing, claims at once that it runs whatever is asked for, and tells figures that cannot be."""
    OFFLINE = "offline"
    """It is not there at the beginning; once it has come it is sound."""


def parse_shares(text: str) -> dict[Behaviour, float]:
    """Read ``crash=2%,offline=5%``; all others are sound. Empty is none.

    Raises:
        ConfigError: it cannot be read, or is more than all.
    """
    shares: dict[Behaviour, float] = {}
    for word in filter(None, text.split(",")):
        found = _SHARE.fullmatch(word.strip())
        if found is None or found[1] not in set(Behaviour) or Behaviour(found[1]) in shares:
            names = ", ".join(Behaviour)
            raise ConfigError(f"{word.strip()!r} is no behaviour.", mend=f"Write NAME=2%, each once, NAME of: {names}.")
        shares[Behaviour(found[1])] = float(found[2]) / 100
    if sum(shares.values()) > 1 + 1e-9:
        raise ConfigError(f"{text!r} is more than all devices.", mend="Let the shares be at most 100% together.")
    return shares


def place_of(name: str) -> float:
    """A device's place among all names, 0 to below 1."""
    digest = hashlib.sha256(f"tinysight simulate {name}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def behaviour_of(name: str, shares: Mapping[Behaviour, float]) -> Behaviour:
    """How a device behaves."""
    place, end = place_of(name), 0.0
    for behaviour, share in shares.items():
        end += share
        if place < end:
            return behaviour
    return Behaviour.SOUND
