"""The reference and the schema are those of the types, and the schema judges as the reader does."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import jsonschema
import msgspec
import pytest

from tinysight_contract.schemas.types import meanings
from tinysight_edge.config.docs import reference, schema
from tinysight_edge.config.types import AgentConfig

ROOT = Path(__file__).parents[2]


def test_the_committed_reference_is_that_of_the_types(golden: Callable[[str, bytes], None]) -> None:
    golden("../../docs/agent.md", reference().encode())


def test_the_committed_schema_is_that_of_the_types(golden: Callable[[str, bytes], None]) -> None:
    golden("../../docs/agent.schema.json", msgspec.json.format(msgspec.json.encode(schema()), indent=1) + b"\n")


def test_the_schema_is_one_and_takes_the_example() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(tomllib.loads((ROOT / "examples" / "agent.toml").read_text()), schema())


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ('trial = "30s"', "trial = 30"), ('trial = "30s"', 'trail = "30s"'), ("rotate = 90", "rotate = 91"),
        ('keep = "512MiB"', 'keep = "512"'), ("[0.25, 0.3]", "[0.25]"), ("[cameras.gate]", "[cameras.Gate]"),
        ("threads = 1", "threads = 65"), ('site = "plant-1"', ""), ("max_fps = 10.0", "max_fps = 0"),
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(part: str, instead: str) -> None:
    text = (ROOT / "examples" / "agent.toml").read_text()
    assert text.count(part) == 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text.replace(part, instead)), schema())


def test_every_key_of_every_table_is_told() -> None:
    line, told = meanings(AgentConfig.__doc__)
    assert line == "One agent."
    assert set(told) == set(AgentConfig.__struct_fields__)
    text = reference()
    for name in ("heartbeat", "polygon", "inertia", "min_dwell", "prometheus_port", "per_hour"):
        assert f"| `{name}` | " in text


def test_the_example_shows_every_table_of_the_reference() -> None:
    def tables(part: object, key: str) -> set[str]:
        if not isinstance(part, dict):
            return set()
        ids = key in {"cameras", "rules"} or key.endswith((".zones", ".lines"))
        below = {k: f"{key}.{'ID' if ids else k}".removeprefix(".") for k in part}
        return {key} | {each for k, inner in part.items() for each in tables(inner, below[k])}

    shown = tables(tomllib.loads((ROOT / "examples" / "agent.toml").read_text()), "")
    told = {line[5:-2] for line in reference().splitlines() if line.startswith("## `[")}
    assert told - shown == set()
