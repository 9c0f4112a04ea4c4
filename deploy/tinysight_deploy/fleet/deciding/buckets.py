"""The place of each device in a rollout, and where its stages end. Pure.

In: a rollout's salt and a device.  Out: its place, 0..1, which never changes, so that a larger share only adds devices.
Another rollout has another salt: it is not always the same device that goes first.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import nextafter
from typing import Final

from tinysight_deploy.fleet.types import Key, Stage

__all__ = ["bucket", "cutoffs", "stage_of"]

_REMEMBERED: Final = 1 << 17
_BITS: Final = 53  # of a float


@lru_cache(maxsize=_REMEMBERED)
def bucket(salt: str, key: Key) -> float:
    """Where a device stands, from 0 to just below 1."""
    digest = hashlib.sha256(f"{salt}\n{key[0]}/{key[1]}".encode()).digest()
    return float(int.from_bytes(digest[:8], "big") >> (64 - _BITS)) / (1 << _BITS)


def cutoffs(stages: Sequence[Stage], salt: str, keys: Iterable[Key]) -> tuple[float, ...]:
    """By stage, the place below which a device belongs to it or to one before.

    A number of devices ends just above the last of them. A share ends there, but not before it has one more device than
    the stage before. The last stage has all.

    Args:
        stages: of the policy.
        salt: of the rollout.
        keys: devices that are there now, which the stages are to have. Without any, a number is taken for the share
            that follows it.
    """
    places = sorted({bucket(salt, key) for key in keys})
    ends: list[float] = []
    before = 0.0
    for number, stage in enumerate(stages):
        if number == len(stages) - 1:
            end = 1.0
        elif stage.count is not None and places:
            end = _above(places[min(stage.count, len(places)) - 1])
        else:
            share = stage.share
            if share is None:
                share = next((each.share for each in stages[number:] if each.share is not None), 1.0)
            more = bisect_left(places, before)
            end = max(share, _above(places[more]) if more < len(places) else 0.0)
        before = max(before, end)
        ends.append(before)
    return tuple(ends)


def stage_of(cutoffs: Sequence[float], place: float) -> int:
    """The first stage that has the device at this place."""
    return min(bisect_right(cutoffs, place), len(cutoffs) - 1)


def _above(place: float) -> float:
    return nextafter(place, 1.0)
