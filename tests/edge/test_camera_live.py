"""Cameras on real sources: servers that come late, stall and die, the belt, and files that are none."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinysight_contract.errors import CameraError
from tinysight_contract.messages import CameraState
from tinysight_edge.cameras import camera as camera_module
from tinysight_edge.cameras.camera import Camera
from tinysight_edge.cameras.hub import Frame, Gap
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.units import Seconds

ONLINE, LOST, STALLED, DISABLED = (
    CameraState.ONLINE, CameraState.RECONNECTING, CameraState.STALLED, CameraState.DISABLED,
)  # fmt: skip


def test_stopping_one_camera_leaves_the_hub_to_the_others(rig: Any, eventually: Any) -> None:
    made = rig(source="synthetic:belt?fps=50").start()
    other = Camera("b", CameraConfig(source="synthetic:belt?fps=50"), made.hub, lambda *_: None)
    other.open()
    other.start()
    eventually(lambda: {i.camera for i in made.items} == {"a", "b"})
    other.stop()
    assert "camera-b" not in {thread.name for thread in threading.enumerate()}
    eventually(lambda: Gap("b") in made.items)
    count = len(made.items)
    eventually(lambda: len(made.items) > count + 5)
    assert not made.hub.stopped


def test_what_is_no_device_and_cannot_be_opened_is_an_error_at_once(rig: Any, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video")
    for source in ("nowhere.mp4", str(tmp_path / "v.mp4"), "synthetic:moon"):
        with pytest.raises(CameraError):
            rig(source=source).camera.open()


def test_a_clock_that_jumps_changes_no_frames_order(rig: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    clock = iter([now, now, now + timedelta(hours=1), datetime(1970, 1, 1, tzinfo=UTC), now])
    monkeypatch.setattr(camera_module, "utc_now", lambda: next(clock, now))
    made = rig(source="synthetic:belt?fps=50&frames=6").start()
    eventually(lambda: DISABLED in made.states)
    made.end()
    frames = [item for item in made.items if isinstance(item, Frame)]
    times = [item.at_s for item in frames]
    assert times == sorted(times)
    assert times[-1] < 60
    assert {frame.captured_at.year for frame in frames} <= {1970, 2026}


def test_a_live_picture_that_says_nothing_is_told(rig: Any, mjpeg: Any, cameras: Any, eventually: Any) -> None:
    mjpeg.start()
    made = rig(source=mjpeg.url, frozen_after=Seconds(2), read_timeout=Seconds(5)).start()
    eventually(lambda: made.states[-1] is ONLINE)
    for kind, state in (("frozen", CameraState.FROZEN), ("lively", ONLINE), ("dark", CameraState.DARK)):
        mjpeg.picture = lambda number, kind=kind: cameras.scene(kind, number)
        eventually(lambda state=state: made.states[-1] is state)
    assert made.states == [LOST, ONLINE, CameraState.FROZEN, ONLINE, CameraState.DARK]


def test_mjpeg_is_found_when_it_comes_late_and_after_a_stall_a_kill_and_a_new_size(
    rig: Any, mjpeg: Any, eventually: Any
) -> None:
    mjpeg.picture = lambda number: np.full((48, 64, 3), number % 200, np.uint8)
    made = rig(source=mjpeg.url).start()
    eventually(lambda: "nothing listens" in made.told[-1][1])
    mjpeg.start()
    eventually(lambda: made.states[-1] is ONLINE)
    assert (made.camera.describe().width, made.camera.describe().height) == (64, 48)
    mjpeg.picture = lambda number: np.full((96, 80, 3), number % 200, np.uint8)
    eventually(lambda: any(isinstance(i, Frame) and i.image_bgr.shape == (96, 80, 3) for i in made.items))
    assert LOST not in made.states[2:], "another size is no loss"
    mjpeg.stall()
    eventually(lambda: made.states[-1] is STALLED)
    mjpeg.go_on()
    eventually(lambda: made.states[-1] is ONLINE)
    mjpeg.kill()
    eventually(lambda: made.states[-1] is LOST)
    mjpeg.start()
    eventually(lambda: made.states[-1] is ONLINE)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_is_found_when_it_comes_late_and_after_a_stall_and_a_kill(
    rig: Any, rtsp: Any, eventually: Any, transport: str
) -> None:
    made = rig(source=rtsp.url, transport=transport, read_timeout=Seconds(1), open_timeout=Seconds(5)).start()
    eventually(lambda: "nothing listens" in made.told[-1][1])
    rtsp.start()
    eventually(lambda: made.states[-1] is ONLINE)
    info = made.camera.describe()
    assert (info.source, info.width, info.height, info.fps) == (rtsp.url, 320, 240, 15.0)
    rtsp.stall()
    eventually(lambda: made.states[-1] is STALLED)
    rtsp.go_on()
    eventually(lambda: made.states[-1] is ONLINE)
    rtsp.kill()
    eventually(lambda: made.states[-1] in {LOST, STALLED})
    rtsp.start()
    eventually(lambda: made.states[-1] is ONLINE)
    made.end()
    assert made.hub.frames["a"] == sum(isinstance(i, Frame) for i in made.items) + sum(made.hub.dropped["a"].values())


def test_a_dead_camera_takes_nothing_from_a_living_one(rig: Any, eventually: Any) -> None:
    made = rig(source="rtsp://127.0.0.1:1/none").start()
    belt = Camera("b", CameraConfig(source="synthetic:belt?fps=100&frames=150"), made.hub, lambda *_: None)
    belt.open()
    belt.start()
    eventually(lambda: Gap("b") in made.items)
    assert sum(isinstance(i, Frame) for i in made.items) + made.hub.dropped["b"]["stale"] == 150


def test_the_password_is_in_nothing_that_is_told(rig: Any, rtsp: Any, eventually: Any, caplog: Any) -> None:
    rtsp.user, rtsp.password = "viewer", "hush-hush"
    rtsp.start()
    made = rig(source=rtsp.url, username="viewer", secret=lambda: "hush-hush-wrong").start()
    eventually(lambda: "refuses the user name" in made.told[-1][1])
    said = f"{made.told} {made.camera} {made.camera.describe()} {caplog.text}"
    assert "hush" not in said
