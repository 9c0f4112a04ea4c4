"""What tests of updates share: a repository that signs on demand, a web server that misbehaves, a device's trust."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tinysight_edge.update.disk import Disk
from tinysight_edge.update.trust import Trust, new_trust


def _module(name: str) -> ModuleType:
    """A module beside this file, the same one for all who ask."""
    full = f"tests_edge_update_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


@pytest.fixture(scope="session")
def simulator() -> ModuleType:
    """``simulator.py``: a repository in memory."""
    return _module("simulator")


@pytest.fixture(scope="session")
def faulty() -> ModuleType:
    """``faulty.py``: a web server that misbehaves."""
    return _module("faulty")


@pytest.fixture
def serve(faulty: ModuleType) -> Iterator[Callable[..., Any]]:
    """Start web servers that misbehave; they end with the test."""
    servers: list[Any] = []

    def start(*args: Any, **kwargs: Any) -> Any:
        servers.append(faulty.Server(*args, **kwargs))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def device(tmp_path: Path, simulator: ModuleType) -> Callable[..., Trust]:
    """The trust of one device, provisioned with the first root of the first repository that it is shown."""

    def make(source: Any, *, now: datetime | None = None, root: bytes | None = None, disk: Disk | None = None) -> Trust:
        folder = tmp_path / "trust"
        if not (folder / "root.json").exists():
            new_trust(folder, root or source.files["metadata/1.root.json"], Disk())
        return Trust(folder, source, now=now or simulator.NOW, disk=disk or Disk())

    return make
