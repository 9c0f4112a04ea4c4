"""``python -m tinysight_contract.schemas``: write all that is generated again after a change of the types."""

from pathlib import Path

from tinysight_contract.messages import PAYLOADS
from tinysight_contract.schemas.asyncapi import asyncapi
from tinysight_contract.schemas.page import page
from tinysight_contract.schemas.types import json_schemas
from tinysight_contract.schemas.typescript import typescript

__all__ = ["generate"]


def generate(here: Path = Path(__file__).parent) -> dict[Path, bytes]:
    """Path to content of every generated file; those outside of the package only in the repository."""
    made = {here / name: content for name, content in json_schemas().items()}
    root = here.parents[2]
    if not (root / "pyproject.toml").is_file():
        return made
    names = [kind.__name__.lower() for kind in PAYLOADS.values()]
    reference = root / "docs" / "mqtt.md"
    return made | {
        root / "dashboard" / "src" / "contract.ts": typescript().encode(),
        root / "docs" / "asyncapi.json": asyncapi(
            {name: (root / "tests" / "golden" / f"{name}.json").read_bytes() for name in names}
        ),
        reference: page(reference.read_text("utf-8")).encode(),
    }


if __name__ == "__main__":
    for path, content in generate().items():
        path.write_bytes(content)
