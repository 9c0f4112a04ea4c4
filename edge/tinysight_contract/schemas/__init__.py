"""JSON Schemas (2020-12) of every payload and of the manifest, generated from the types and committed.

``python -m tinysight_contract.schemas`` writes them again; a test fails when they have drifted.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from tinysight_contract.manifest import Manifest
from tinysight_contract.messages import PAYLOADS

__all__ = ["generate", "load"]


def generate() -> dict[str, bytes]:
    """File name to content of every schema, as the types are now."""
    made = {}
    kinds: tuple[type[msgspec.Struct], ...] = (*PAYLOADS.values(), Manifest)
    for kind in kinds:
        schema: dict[str, Any] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **msgspec.json.schema(kind),
        }
        name = f"{kind.__name__.lower()}.json"
        made[name] = msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=1) + b"\n"
    return made


def load(name: str) -> dict[str, Any]:
    """The committed schema of a payload type, by its lower-case name (``event``, ``status``, ``manifest``)."""
    return msgspec.json.decode((files(__name__) / f"{name}.json").read_bytes(), type=dict[str, Any])


def write(folder: Path) -> None:
    """Write all schemas into ``folder``."""
    for name, content in generate().items():
        (folder / name).write_bytes(content)
