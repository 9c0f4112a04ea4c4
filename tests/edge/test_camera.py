"""Capture threads and the hub: live frames are fresh, files are whole, cameras take turns."""

import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from tinysight_contract.errors import CameraError
from tinysight_contract.messages import CameraState, utc_now
from tinysight_edge import camera as camera_module
from tinysight_edge.camera import Camera, Frame, Gap, Hub


def frame(camera: str, number: int) -> Frame:
    return Frame(camera, np.full((2, 2, 3), number, np.uint8), float(number), utc_now(), time.monotonic())


def test_a_gap_comes_after_the_frames_before_it_and_is_never_dropped() -> None:
    hub = Hub()
    hub.join("a")
    hub.put(frame("a", 0), live=True)
    hub.lose("a")
    hub.put(frame("a", 1), live=True)
    hub.put(frame("a", 2), live=True)
    hub.leave("a")
    seen = [each if isinstance(each, Gap) else each and each.at_s for each in hub]
    assert seen == [Gap("a"), 2.0], "what waited before the gap is stale, the gap is not"
    assert hub.dropped["a"] == 2


def numbers(hub: Hub) -> list[tuple[str, int]]:
    return [(each.camera, int(each.image_bgr[0, 0, 0])) for each in hub if isinstance(each, Frame)]


def test_on_a_live_source_the_newest_frame_wins_and_the_others_are_counted() -> None:
    hub = Hub()
    hub.join("a")
    for i in range(5):
        hub.put(frame("a", i), live=True)
    hub.leave("a")
    assert numbers(hub) == [("a", 4)]
    assert (hub.frames["a"], hub.dropped["a"]) == (5, 4)


def test_a_file_waits_for_the_reader_and_loses_nothing() -> None:
    hub = Hub()
    hub.join("a")

    def read_file() -> None:
        for i in range(50):
            hub.put(frame("a", i), live=False)
        hub.leave("a")

    thread = threading.Thread(target=read_file)
    thread.start()
    assert numbers(hub) == [("a", i) for i in range(50)]
    thread.join()
    assert hub.dropped["a"] == 0


def test_cameras_take_turns() -> None:
    hub = Hub()
    for camera in "ab":
        hub.join(camera)
        for i in range(2):
            hub.put(frame(camera, i), live=False)
        hub.leave(camera)
    assert numbers(hub) == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_stopping_ends_the_loop_and_frees_a_thread_that_waits() -> None:
    hub = Hub()
    hub.join("a")

    def read_file() -> None:
        for i in range(10):
            hub.put(frame("a", i), live=False)

    thread = threading.Thread(target=read_file)
    thread.start()
    hub.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert numbers(hub) == []


class Script:
    """A live source that delivers what it is told: a picture number, or an error."""

    name, width, height, fps, live, still, duration_s = "script", 2, 2, 0.0, True, False, 0.0

    def __init__(self, steps: list[int | None]) -> None:
        self.steps = steps

    def read(self) -> tuple[NDArray[np.uint8], float] | None:
        if not self.steps:
            return None
        if (step := self.steps.pop(0)) is None:
            raise CameraError("The cable is loose.", mend="Push it in.")
        return np.full((2, 2, 3), step, np.uint8), float(step)

    def close(self) -> None: ...


def test_a_live_camera_that_breaks_is_opened_again_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts: list[Script | None] = [Script([0, None]), None, Script([9, 1])]

    def open_script(_spec: str) -> Script:
        if (script := scripts.pop(0)) is None:
            raise CameraError("It is still away.", mend="Wait.")
        return script

    monkeypatch.setattr(camera_module, "open_source", open_script)
    monkeypatch.setattr(camera_module, "RETRY_S", (0.01, 0.02))
    told: list[CameraState] = []
    hub = Hub()
    camera = Camera("a", "x", hub, lambda _camera, state, _reason: told.append(state))
    camera.open()
    camera.start()
    items = [each for each in hub if each is not None]
    camera.stop()
    assert [type(each) for each in items if isinstance(each, Gap)] == [Gap, Gap], "one for the break, one at the end"
    times = [each.at_s for each in items if isinstance(each, Frame)]
    assert times == sorted(times), "time goes on when the source begins anew"
    assert int(next(each for each in reversed(items) if isinstance(each, Frame)).image_bgr[0, 0, 0]) == 1
    assert told == [CameraState.ONLINE, CameraState.RECONNECTING, CameraState.ONLINE, CameraState.DISABLED]


def test_a_file_that_breaks_is_given_up_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script([0, None, 1])
    script.live = False
    monkeypatch.setattr(camera_module, "open_source", lambda _spec: script)
    told: list[tuple[CameraState, str]] = []
    hub = Hub()
    camera = Camera("a", "x", hub, lambda _camera, state, reason: told.append((state, reason)))
    camera.open()
    camera.start()
    assert numbers(hub) == [("a", 0)]
    camera.stop()
    assert told[-1] == (CameraState.DISABLED, "The cable is loose.")


def test_whatever_a_driver_throws_is_a_failure_and_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Script):
        def read(self) -> tuple[NDArray[np.uint8], float] | None:
            raise ZeroDivisionError

    monkeypatch.setattr(camera_module, "open_source", lambda _spec: Broken([]))
    hub = Hub()
    camera = Camera("a", "x", hub, lambda *_told: None)
    camera.open()
    camera.start()
    assert numbers(hub) == []
    camera.stop()
    assert camera.failure is not None
    assert "ZeroDivisionError" in str(camera.failure)
