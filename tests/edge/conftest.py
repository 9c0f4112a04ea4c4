"""Cameras that are servers: see ``tests/cameras``."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def cameras() -> ModuleType:
    """``tests/cameras/cameras.py``: servers, and scenes that they show."""
    path = Path(__file__).parents[1] / "cameras" / "cameras.py"
    spec = importlib.util.spec_from_file_location("cameras", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rtsp(cameras: Any) -> Iterator[Any]:
    """An RTSP camera, not yet started."""
    server = cameras.RtspServer()
    yield server
    server.kill()


@pytest.fixture
def mjpeg(cameras: Any) -> Iterator[Any]:
    """An MJPEG camera, not yet started."""
    server = cameras.MjpegServer()
    yield server
    server.kill()
