"""How a source is treated, opened and named, and in one line why it cannot be opened; picamera2."""

import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.errors import CameraError
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.sources import Policy, name_of, policy_of
from tinysight_edge.sources.address import Address
from tinysight_edge.units import Seconds


def test_how_a_source_is_treated_is_known_before_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    device = Policy(live=True, lasting=True)
    for spec, policy in {
        "synthetic:belt": Policy(live=True), str(tmp_path): Policy(still=True), str(tmp_path / "v.mp4"): Policy(),
        "0": device, "/dev/video2": device, "/dev/v4l/by-id/usb-046d_C920-video-index0": device,
        "rtsp://10.0.0.9/s": device, "http://cam/video": device, "https://cam/video": device,
        "picamera2": device, "picamera2:1?fps=10": device,
    }.items():  # fmt: skip
        assert policy_of(CameraConfig(source=spec)) == policy
    assert policy_of(CameraConfig(source=str(tmp_path / "v.mp4"), realtime=True)) == Policy(live=True)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "none.mp4",
        "x" * 300,
        "a\0b",
        "rtsps://camera/stream",
        "rtsp://",
        "rtsp://camera:99999/",
        "http://camera/a b",
        "synthetic:moon",
        "synthetic:belt?speed=1",
        "synthetic:belt?fps=fast",
        "synthetic:belt?fps=0",
        "synthetic:belt?width=1000000",
        "synthetic:belt?split=all",
        "99",
        "/dev/video99",
        "/dev/v4l/by-id/nothing",
        "picamera2?fps=fast",
    ],
)
def test_what_cannot_be_opened_is_said_with_a_mend(opened: Any, spec: str) -> None:
    with pytest.raises(CameraError) as refused:
        opened(spec)
    assert refused.value.mend.endswith(".")


def test_the_belt_keeps_its_pace(opened: Any, drain: Any) -> None:
    source = opened("synthetic:belt?fps=50&frames=10&seed=3&width=160&height=120")
    begun = time.monotonic()
    assert drain(source) == [(120, 160, 3)] * 10
    assert time.monotonic() - begun >= 9 / 50


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_camera_that_takes_the_connection_and_says_nothing_is_given_up(opened: Any, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(CameraError, match="does not answer"):
        opened(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/stream", open_timeout=Seconds(0.5))


# Addresses.


words = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x17F, exclude_characters="\x7f"), min_size=1, max_size=20
)


@given(words, words)
def test_credentials_survive_the_url_and_are_never_shown(user: str, password: str) -> None:
    address = Address.parse("rtsp://cam:8554/live/1?x=2", username=f"u-{user}", secret=f"p-{password}")
    again = Address.parse(address.full)
    assert (again.username, again.secret, again.target) == (f"u-{user}", f"p-{password}", "/live/1?x=2")
    assert address.shown == "rtsp://cam:8554/live/1"
    assert f"p-{password}" not in repr(address)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://me:hidden@10.0.0.9/live", "rtsp://10.0.0.9/live"),
        ("rtsp://10.0.0.9:554/user=me&password=hidden&channel=1", "rtsp://10.0.0.9/..."),
        ("http://cam:81/video?pwd=hidden", "http://cam:81/video"),
        ("http://[fe80::1]:81/v", "http://[fe80::1]:81/v"),
        ("http://cam/bild-ä/v", "http://cam/..."),
        ("rtps://me:hidden@cam/v", "rtps://..."),
        ("rtsp://me:hidden@cam:99999/v", "rtsp://..."),
        ("picamera2:1?fps=10", "picamera2:1"),
        ("synthetic:belt?seed=5", "synthetic:belt"),
        ("0", "camera 0"),
        ("/dev/video1", "/dev/video1"),
        ("/videos/a.mp4", "a.mp4"),
    ],
)
def test_what_is_shown_of_a_source_holds_no_credentials(source: str, shown: str) -> None:
    assert name_of(CameraConfig(source=source)) == shown


# picamera2, by a fake of its interface: there is no such camera here.


class FakePicamera:
    """What `PicameraSource` uses of ``picamera2.Picamera2``."""

    def __init__(self, number: int = 0) -> None:
        if number > 0:
            raise IndexError("list index out of range")
        self.calls: list[str] = []
        self.size = (0, 0)

    def create_video_configuration(self, main: dict[str, Any], controls: dict[str, Any]) -> dict[str, Any]:
        assert main["format"] == "RGB888"
        assert controls == {"FrameRate": 10.0}
        return main

    def configure(self, configuration: dict[str, Any]) -> None:
        self.size = configuration["size"]

    def start(self) -> None:
        self.calls.append("start")

    def capture_array(self, name: str) -> Any:
        assert name == "main"
        if len(self.calls) > 3:
            raise RuntimeError("Camera frontend has timed out")
        self.calls.append("capture")
        return np.zeros((self.size[1], self.size[0], 3), np.uint8)

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")


def test_picamera2_is_imported_when_wanted_and_its_faults_are_ours(
    opened: Any, drain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CameraError, match="not installed"):
        opened("picamera2")
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=FakePicamera))
    with pytest.raises(CameraError, match="cannot be opened: list index"):
        opened("picamera2:1?fps=10")
    source = opened("picamera2?width=640&height=480&fps=10")
    assert (source.name, source.width, source.height, source.fps) == ("picamera2", 640, 480, 10.0)
    got = source.read()
    assert got is not None
    assert got[0].shape == (480, 640, 3)
    with pytest.raises(CameraError, match="timed out"):
        drain(source)
    source.close()
