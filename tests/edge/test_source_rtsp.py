"""RTSP, from GStreamer's server in a process of its own."""

import itertools
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tinysight_contract.errors import CameraError
from tinysight_edge.sources import rtsp as rtsp_module

WRONG = "wrong-word"


def udp_sockets() -> int:
    """How many this process has open."""
    mine = {str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}
    every = Path("/proc/self/net/udp").read_text(encoding="ascii").splitlines()[1:]
    return sum(f"socket:[{line.split()[9]}]" in mine for line in every)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_delivers_breaks_when_killed_and_times_out_when_stalled(
    opened: Any, drain: Any, rtsp: Any, transport: Any
) -> None:
    rtsp.start()
    for hurt in (rtsp.stall, rtsp.kill):
        source = opened(rtsp.url, transport=transport)
        assert (source.name, source.width, source.height, source.fps) == (rtsp.url, 320, 240, 15.0)
        means = [got[0].mean() for got in itertools.islice(iter(source.read, None), 10) if got is not None]
        assert len(means) == 10
        assert (udp_sockets() > 0) == (transport == "udp")
        assert min(means) > 0
        hurt()
        with pytest.raises(CameraError, match="delivers no picture"):
            drain(source)
        source.close()
        rtsp.go_on() if hurt == rtsp.stall else None


def test_rtsp_says_why_it_cannot_be_opened(opened: Any, rtsp: Any, mjpeg: Any) -> None:
    with pytest.raises(CameraError, match="nothing listens"):
        opened(rtsp.url)
    with pytest.raises(CameraError, match="nobody knows"):
        opened("rtsp://camera.invalid/stream")
    rtsp.user, rtsp.password = "viewer", "p@ss:w/rd?"
    rtsp.start()
    mjpeg.start()
    with pytest.raises(CameraError, match="wants a user name"):
        opened(rtsp.url)
    with pytest.raises(CameraError, match="refuses the user name") as refused:
        opened(rtsp.url, username="viewer", secret=WRONG)
    assert WRONG not in str(refused.value)
    with pytest.raises(CameraError, match="does not speak RTSP"):
        opened(mjpeg.url.replace("http:", "rtsp:"))
    source = opened(rtsp.url, username="viewer", secret=rtsp.password)
    assert source.read() is not None
    source.close()
    rtsp.kill()
    rtsp.user = None
    rtsp.start()
    with pytest.raises(CameraError, match="has no such stream"):
        opened(rtsp.url + "x")


def test_an_opening_that_never_returns_blocks_the_other_transport_for_its_time_out_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rtsp_module, "LATE_S", 0.1)
    monkeypatch.setenv(rtsp_module.OPTIONS, "")
    opening, entered, release = rtsp_module._Opening(), threading.Event(), threading.Event()

    def hang() -> None:
        with opening.by("tcp", timeout_s=0.5):
            entered.set()
            release.wait()

    thread = threading.Thread(target=hang, daemon=True)
    thread.start()
    entered.wait()
    with opening.by("tcp", timeout_s=0.1):
        pass
    with pytest.raises(CameraError, match="other transport than udp"), opening.by("udp", timeout_s=0.1):
        pass
    with opening.by("udp", timeout_s=5.0):
        assert os.environ[rtsp_module.OPTIONS] == "rtsp_transport;udp"
        release.set()
        thread.join()
    with opening.by("tcp", timeout_s=0.1):
        assert os.environ[rtsp_module.OPTIONS] == "rtsp_transport;tcp"
