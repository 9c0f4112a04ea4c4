"""A minute of a real agent's events, to be played again by devices that do not exist.

In: ``recording.json.gz`` of this package, written by ``benchmarks/record_belt.py``.  Out: a `Recording`. Its objects
begin and end within it, so that it can be played again and again.
"""

import gzip
from importlib.resources import files
from typing import Final

import msgspec
from msgspec import Struct

from tinysight_contract.messages import Event, Info

__all__ = ["RECORDING", "Recording", "Step", "read_recording"]

RECORDING: Final = "recording.json.gz"


class Step(Struct, frozen=True, kw_only=True):
    """An event, and when it was told, in seconds since the beginning."""

    at_s: float
    event: Event


class Recording(Struct, frozen=True, kw_only=True):
    """What an agent told.

    Attributes:
        duration_s: of the whole; the next round begins then.
        info: what the device was.
        steps: in the order in which they were told.
        zones: names of the camera's.
        lines: names of the camera's.
    """

    duration_s: float
    info: Info
    steps: list[Step]
    zones: list[str]
    lines: list[str]


def read_recording() -> Recording:
    """The recording of this package."""
    return msgspec.json.decode(gzip.decompress((files(__package__) / RECORDING).read_bytes()), type=Recording)
