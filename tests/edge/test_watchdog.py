"""The watchdog in real processes that hang, and systemd's protocol on real sockets."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinysight_edge.notify import notify, watchdog_s
from tinysight_edge.watchdog import HANGS

START = """
    import ctypes, threading, time
    from tinysight_edge.watchdog import Watchdog
    libc, libc_with_gil = ctypes.CDLL(None), ctypes.PyDLL(None)  # PyDLL keeps the GIL while it calls
    def turn(watchdog, seconds):
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            watchdog.progress()
            time.sleep(0.05)
"""


def child(body: str, **environment: str) -> subprocess.Popen[str]:
    code = textwrap.dedent(START) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def end_of(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, said = process.communicate(timeout=60)
    return process.returncode, out, said


HANGING = [
    pytest.param("with dog.busy(1.0):\n        time.sleep(600)", "A call of at most 1.0 s", id="an invoke in Python"),
    pytest.param("with dog.busy(1.0):\n        libc.sleep(600)", "A call of at most 1.0 s", id="an invoke in C"),
    pytest.param("libc.sleep(600)", "The inference loop has not turned", id="the loop"),
    pytest.param(
        "threading.Lock().acquire() and (x := threading.Lock()).acquire() and x.acquire()",
        "has not turned",
        id="a deadlock",
    ),
]


@pytest.mark.parametrize(("hang", "said"), HANGING)
def test_what_hangs_is_named_with_all_stacks_and_ends_the_process(hang: str, said: str) -> None:
    body = f"""
def infer():
    {hang}

with Watchdog(stall_s=2.0) as dog:
    turn(dog, 0.2)
    infer()
print("not reached")
"""
    status, out, err = end_of(child(body))
    assert (status, out) == (HANGS, "")
    first, rest = err.split("\n", 1)
    assert first.startswith(f"error: {said}" if said[0].isupper() else "error: ")
    assert said in first
    assert "in infer" in rest
    assert "most recent call first" in rest


def test_what_keeps_the_interpreter_to_itself_is_ended_by_the_timer_in_c() -> None:
    body = """
def infer():
    libc_with_gil.sleep(600)

with Watchdog(gil_s=1.5) as dog:
    turn(dog, 1.2)
    infer()
"""
    status, _, err = end_of(child(body))
    assert status == 1
    assert "in infer" in err


def test_a_loop_that_turns_is_left_alone_whatever_a_call_takes_within_its_limit() -> None:
    body = """
with Watchdog(stall_s=1.0, gil_s=5.0) as dog:
    turn(dog, 1.5)
    with dog.busy(30.0):
        time.sleep(2.5)
    turn(dog, 1.5)
    with dog.busy(1.0):
        pass
    turn(dog, 1.5)
time.sleep(1.5)  # it has let go
print("well")
"""
    assert end_of(child(body)) == (0, "well\n", "")


BUSY_AND_IDLE = """
    until_s = time.monotonic() + 6
    while time.monotonic() < until_s:
        with dog.busy(1.5):
            time.sleep(0.05)
"""


@pytest.mark.parametrize("body", ["    turn(dog, 6)", BUSY_AND_IDLE], ids=["turning", "in calls"])
def test_a_process_that_was_stopped_as_a_whole_goes_on(body: str) -> None:
    process = child(f"""
with Watchdog(stall_s=1.5) as dog:
    print("on guard", flush=True)
{body}
print("well")
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "on guard\n"
    time.sleep(0.7)
    process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    process.send_signal(signal.SIGCONT)
    assert end_of(process) == (0, "well\n", "")


class Systemd:
    """The supervisor's end of ``NOTIFY_SOCKET``: a real datagram socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end.bind("\0" + address[1:] if address[0] == "@" else address)

    def heard(self, seconds: float) -> list[str]:
        """All that is said in so long."""
        until_s, lines = time.monotonic() + seconds, list[str]()
        while (left_s := until_s - time.monotonic()) > 0:
            self._end.settimeout(left_s)
            try:
                lines += self._end.recv(4096).decode().split("\n")
            except TimeoutError:
                break
        return lines

    def close(self) -> None:
        self._end.close()


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    end = Systemd(
        str(tmp_path / "n") if request.param == "file" else f"@tinysight-test-{os.getpid()}-{time.monotonic_ns()}"
    )
    yield end
    end.close()


def test_systemd_hears_what_it_is_told_one_line_each(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    assert notify("READY=1", "STATUS=4 cameras\nREADY=0")
    assert systemd.heard(0.5) == ["READY=1", "STATUS=4 cameras READY=0"]


def test_without_systemd_or_with_one_that_is_gone_nothing_is_said_and_nothing_breaks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    for address in (str(tmp_path / "gone"), "vsock:2:1234", ""):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert not notify("READY=1")


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [("30000000", None, 30.0), ("30000000", "1", None), (None, None, None), ("x", None, None), ("0", None, None)],
)
def test_how_long_systemd_waits(
    microseconds: str | None, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    assert watchdog_s() == seconds


def test_systemd_is_fed_while_the_loop_turns_and_not_when_it_hangs(systemd: Systemd) -> None:
    body = """
with Watchdog(stall_s=2.0) as dog:
    turn(dog, 3.0)
    libc.sleep(600)
"""
    process = child(body, NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="1500000")
    status, _, _ = end_of(process)
    lines = systemd.heard(0.2)
    assert status == HANGS
    assert 2 <= lines.count("WATCHDOG=1") <= 12
    assert lines[-1].startswith("STATUS=The inference loop has not turned")


def test_without_a_watchdog_of_systemd_none_is_fed(systemd: Systemd) -> None:
    process = child("with Watchdog() as dog:\n    turn(dog, 1.5)\n", NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="")
    assert end_of(process)[0] == 0
    assert systemd.heard(0.2) == []
