"""What tests of updates share: a repository that signs on demand, a web server that misbehaves, a device's trust."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tinysight_edge.update.disk import Disk
from tinysight_edge.update.trust import Trust, new_trust


@pytest.fixture(scope="session")
def simulator(module: Callable[[str], ModuleType]) -> ModuleType:
    """``simulator.py``: a repository in memory."""
    return module("edge/update/simulator")


@pytest.fixture(scope="session")
def faulty(module: Callable[[str], ModuleType]) -> ModuleType:
    """``faulty.py``: a web server that misbehaves."""
    return module("edge/update/faulty")


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
