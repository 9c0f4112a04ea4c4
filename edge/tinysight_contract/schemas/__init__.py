"""The contract for readers in other languages, generated from the types and committed.

JSON Schemas (2020-12) of every payload and of the manifest lie here; the TypeScript, the AsyncAPI document and the
tables of the reference lie in the repository. ``python -m tinysight_contract.schemas`` writes them all again; tests
fail when they have drifted.
"""

from importlib.resources import files
from typing import Any

import msgspec

__all__ = ["load"]


def load(name: str) -> dict[str, Any]:
    """The committed schema of a payload type, by its lower-case name (``event``, ``status``, ``manifest``)."""
    return msgspec.json.decode((files(__name__) / f"{name}.json").read_bytes(), type=dict[str, Any])
