"""What all tests share: golden files, a real broker, the real command, and no silent skips."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="write the golden files again instead of comparing")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skipped test is a failure: CI installs what the tests need."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if os.environ.get("TINYSIGHT_NO_SKIPS") and exitstatus == 0 and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line("Skipped tests fail this run (TINYSIGHT_NO_SKIPS is set).", red=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, bytes], None]:
    """Compare bytes with a golden file, or write it with ``--regen``."""

    def compare(name: str, produced: bytes) -> None:
        path = GOLDEN / name
        if request.config.getoption("--regen"):
            path.write_bytes(produced)
        expected = path.read_bytes() if path.exists() else b""
        assert produced == expected, f"{name} changed: if meant, run pytest --regen {request.node.nodeid.split('::')[0]}"

    return compare


@dataclass(frozen=True)
class Mosquitto:
    """Debian's broker on a port of its own."""

    port: int
    config: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


def start_mosquitto(folder: Path, *, port: int | None = None, extra: str = "allow_anonymous true") -> Mosquitto:
    """Start a broker and wait until it listens."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto mosquitto-clients")
    port = port or free_port()
    config = folder / f"mosquitto-{port}.conf"
    config.write_text(f"listener {port} 127.0.0.1\npersistence false\n{extra}\n")
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
        except OSError:
            time.sleep(0.02)
        else:
            return Mosquitto(port, config, process)
    process.kill()
    raise AssertionError("mosquitto does not listen")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A real broker for one test."""
    broker = start_mosquitto(tmp_path)
    yield broker
    stop(broker.process)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tinysight(tmp_path: Path) -> Run:
    """Run the ``tinysight`` command as a user would, in a folder of its own."""

    def run(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tinysight_deploy", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def belt_bundle() -> Path:
    """A small detector for the belt, int8 only; made by ``tests/golden/regen.py``."""
    return GOLDEN / "belt.bundle"
