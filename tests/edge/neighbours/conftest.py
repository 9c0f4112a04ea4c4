"""What tests of neighbours share: a configuration and what the device says of itself."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tinysight_contract.messages import Counts, Event, Info, decode
from tinysight_edge.config.compare import read_leaf
from tinysight_edge.config.types import AgentConfig

GOLDEN = Path(__file__).parents[2] / "golden"
ODD = 'it\'s "}}" {% \\ é😀'
LABELS = ["7", "traffic light", ODD]
TEXT = """\
site = "plant-1"
device = "belt-7"
[broker]
url = "mqtt://127.0.0.1"
[model]
bundle = "belt.bundle"
[cameras.cam0]
source = "0"
[cameras.cam0.zones.dock]
polygon = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
labels = ["7"]
[cameras.cam0.lines.door]
start = [0.0, 0.0]
end = [1.0, 1.0]
"""

Make = Callable[..., AgentConfig]


@pytest.fixture
def configured(tmp_path: Path) -> Make:
    """Make a configuration of a camera with a zone and a line; more TOML comes after it."""

    def make(more: str = "[home_assistant]\n[frigate]\n", *, text: str = TEXT) -> AgentConfig:
        given: dict[str, Any] = {"state": str(tmp_path), **tomllib.loads(text + more)}
        return msgspec.convert(given, AgentConfig, dec_hook=read_leaf)

    return make


@pytest.fixture(scope="session")
def info() -> Info:
    """The golden one, of a model with labels that are not easy."""
    golden = decode((GOLDEN / "info.json").read_bytes(), Info)
    return msgspec.structs.replace(golden, bundle=msgspec.structs.replace(golden.bundle, labels=LABELS))


@pytest.fixture(scope="session")
def counts() -> Counts:
    """The golden ones, of the same labels."""
    golden = decode((GOLDEN / "counts.json").read_bytes(), Counts)
    objects, zones, lines = {"7": 2, "traffic light": 3, ODD: 1}, {"dock": {"7": 1}}, {"door": {"in": 4, "out": 1}}
    return msgspec.structs.replace(golden, objects=objects, zones=zones, lines=lines)


@pytest.fixture(scope="session")
def event() -> Event:
    """The golden one."""
    return decode((GOLDEN / "event.json").read_bytes(), Event)
