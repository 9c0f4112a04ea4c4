"""``tinysight demo --dashboard`` once the demo has been made: its device comes, and goes with it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tinysight_contract import __version__


@pytest.fixture
def made(tinysight: Any, tmp_path: Path, belt_repo: Path, belt_bundle: Path) -> Path:
    """What a demo has made, as far as it is needed to go on."""
    out = tmp_path / "tinysight-demo"
    out.mkdir()
    mine = ("--repo", str(belt_repo), "--keys", str(belt_repo.parent / "keys"))
    done = tinysight("flash", str(belt_bundle), "--to", f"dir:{out / 'device'}", *mine)
    assert done.returncode == 0, done.stderr
    (out / ".tinysight-demo").write_text(f"tinysight {__version__}, 600 images, seed 7\n")
    return out


@contextmanager
def begun(made: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tinysight_deploy", "demo", "--dashboard", "--images", "600", "--json"]
    with (made.parent / "log").open("w") as log:
        demo = subprocess.Popen(command, cwd=made.parent, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield demo
    finally:
        demo.kill()
        demo.communicate()


def address(demo: "subprocess.Popen[str]", made: Path) -> str:
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith('{"'):
            return str(json.loads(line)["dashboard"])
    raise AssertionError((made.parent / "log").read_text())


def agents(demo: "subprocess.Popen[str]") -> list[int]:
    """The children that run the device: one, or none yet."""
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
    return [int(each) for each in children if b"agent.toml" in Path(f"/proc/{each}/cmdline").read_bytes()]


def test_a_device_that_ends_by_itself_ends_it_and_its_last_words_are_told(made: Path) -> None:
    with begun(made) as demo:
        assert address(demo, made).startswith("http://127.0.0.1:")
        (agent,) = agents(demo)
        os.kill(agent, signal.SIGKILL)
        assert demo.wait(60) == 2
    assert "The device has ended. Its last words: INFO" in (made.parent / "log").read_text()


def test_no_address_is_told_of_a_device_that_does_not_begin(made: Path) -> None:
    (made / "agent-state").mkdir()
    with (made / "agent-state" / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with begun(made) as demo:
            said, _ = demo.communicate(timeout=60)
            assert (demo.returncode, said) == (2, "")
    assert "The device has ended. Its last words: error: " in (made.parent / "log").read_text()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_the_device_goes_with_it_however_it_ends(made: Path, number: int, eventually: Callable[..., None]) -> None:
    with begun(made) as demo:
        address(demo, made)
        (agent,) = agents(demo)
        demo.send_signal(number)
        assert demo.wait(60) in ({-9} if number == signal.SIGKILL else {0, 130})  # 130: it did not serve yet
    eventually(lambda: is_gone(agent))


def test_the_device_goes_with_a_demo_that_has_told_no_address_yet(made: Path, eventually: Callable[..., None]) -> None:
    with begun(made) as demo:
        eventually((made / "agent.log").exists)
        eventually(lambda: len(agents(demo)) == 1)
        (agent,) = agents(demo)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) != 0
    eventually(lambda: is_gone(agent))
