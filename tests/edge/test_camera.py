"""Cameras: lost ones are found again, hung ones are left behind, and what a camera does is told."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tinysight_contract.errors import CameraError
from tinysight_contract.messages import CameraInfo, CameraState
from tinysight_edge.cameras import camera as camera_module
from tinysight_edge.cameras import sight as sight_module
from tinysight_edge.cameras.camera import Camera, stop_all
from tinysight_edge.cameras.hub import Frame
from tinysight_edge.cameras.orient import Orient
from tinysight_edge.cameras.sight import Sight
from tinysight_edge.config.file import secret_of
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.sources import Policy, Source
from tinysight_edge.units import Seconds

Step = int | None | Exception | Callable[[], object]
DEVICE = Policy(live=True, lasting=True)
ONLINE, LOST, STALLED, DISABLED = (
    CameraState.ONLINE, CameraState.RECONNECTING, CameraState.STALLED, CameraState.DISABLED,
)  # fmt: skip


class Script(Source):
    """A source that does what it is told: a picture of that number, a damaged one, an error, or anything else first."""

    name, width, height = "script", 8, 8

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.closed = False

    def grab(self) -> float | None:
        while self.steps and callable(self.steps[0]):
            self.steps.pop(0)()  # type: ignore[operator, misc] # checked one line above
        if not self.steps:
            return None
        if isinstance(self.steps[0], Exception):
            raise self.steps.pop(0)  # type: ignore[misc] # checked one line above
        return 0.0

    def retrieve(self) -> NDArray[np.uint8] | None:
        number = self.steps.pop(0)
        return None if number is None else np.full((8, 8, 3), number, np.uint8)

    def close(self) -> None:
        self.closed = True


def loose() -> CameraError:
    return CameraError("The cable is loose.", mend="Push it in.")


def test_a_camera_that_breaks_ends_or_throws_is_opened_again_until_it_works(rig: Any, eventually: Any) -> None:
    forever = threading.Event()
    scripts = [Script(1, loose()), loose(), Script(2), Script(3, ZeroDivisionError()), Script(4, forever.wait)]
    made = rig(*scripts).start()
    eventually(lambda: made.numbers[-1:] == [4])
    forever.set()
    made.end()
    assert made.numbers == [1, "gap", 2, "gap", 3, "gap", 4, "gap"], "one gap for each loss, none for failed attempts"
    times = [item.at_s for item in made.items if isinstance(item, Frame)]
    assert times == sorted(times), "time goes on when the source begins anew"
    assert made.told[:5] == [
        (LOST, "the source is being opened"),
        (ONLINE, "the source delivers"),
        (LOST, "The cable is loose."),
        (ONLINE, "the source delivers"),
        (LOST, "the stream has ended"),
    ]
    assert "ZeroDivisionError" in made.told[6][1]
    assert all(script.closed for script in scripts if isinstance(script, Script))
    assert made.camera.failure is None


def test_a_camera_that_is_absent_does_not_keep_others_from_starting(rig: Any, eventually: Any) -> None:
    absent = rig(loose()).start()
    assert absent.camera.describe() == CameraInfo(source="camera 0", width=0, height=0, fps=0.0)
    eventually(lambda: len(absent.told) == 3)
    time.sleep(0.3)
    assert absent.told == [
        (LOST, "the source is being opened"), (LOST, "The cable is loose."), (LOST, "It is away."),
    ], "the same state for the same reason is told once"  # fmt: skip


def test_a_read_that_hangs_is_left_behind_and_what_it_brings_later_is_ignored(rig: Any, eventually: Any) -> None:
    release = threading.Event()
    hangs, works = Script(1, release.wait, 2, 3), Script(8, release.wait, 9)
    made = rig(hangs, works).start()
    eventually(lambda: 8 in made.numbers)
    assert made.told[2] == (STALLED, "the driver does not return from reading")
    release.set()
    eventually(lambda: hangs.closed and 9 in made.numbers)
    assert 2 not in made.numbers
    assert made.numbers[:4] == [1, "gap", 8, 9]


def test_what_comes_late_changes_nothing_not_even_a_count(rig: Any, eventually: Any) -> None:
    release = threading.Event()
    grabs, retrieves = Script(1, release.wait, None, 2), Script(3)

    def retrieve() -> NDArray[np.uint8] | None:
        if len(made.items) > 2:
            release.wait()
            return None
        return Script.retrieve(retrieves)

    retrieves.steps += [4, 5]
    retrieves.retrieve = retrieve  # type: ignore[method-assign] # one that hangs where it decodes
    made = rig(grabs, retrieves, Script(8, release.wait, threading.Event().wait)).start()
    eventually(lambda: 8 in made.numbers)
    release.set()
    eventually(lambda: grabs.closed and retrieves.closed)
    assert "damaged" not in made.hub.dropped["a"]


def test_an_attempt_that_hangs_while_it_looks_shares_nothing_with_the_next_which_knows_what_it_saw(
    rig: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, lookers, looks = threading.Event(), dict[Sight, set[int]](), list[int]()
    look = Sight.look

    def look_or_hang(sight: Sight, *given: Any, **more: Any) -> CameraState:
        lookers.setdefault(sight, set()).add(threading.get_ident())
        looks.append(sight._looks)
        if len(looks) == 3:
            release.wait()
        return look(sight, *given, **more)

    monkeypatch.setattr(sight_module, "LOOK_S", 0.0)
    monkeypatch.setattr(Sight, "look", look_or_hang)
    hangs = Script(101, 102, 103, 104)
    made = rig(hangs, Script(8, release.wait, 9, threading.Event().wait)).start()
    eventually(lambda: 8 in made.numbers)
    release.set()
    eventually(lambda: hangs.closed and 9 in made.numbers)
    assert [len(threads) for threads in lookers.values()] == [1, 1]
    assert looks[3] == 2, "what the camera used to show is kept"


def test_a_password_is_asked_for_at_each_opening_and_one_that_cannot_be_had_is_told(
    rig: Any, rtsp: Any, tmp_path: Path, eventually: Any
) -> None:
    rtsp.user, rtsp.password = "viewer", "new-one"
    rtsp.start()
    file = tmp_path / "secret"
    made = rig(source=rtsp.url, username="viewer", open_timeout=Seconds(5), secret=lambda: secret_of(file, None, {}))
    made.start()
    eventually(lambda: "secret cannot be read" in made.told[-1][1])
    file.write_text("old-one")
    eventually(lambda: "refuses the user name" in made.told[-1][1])
    file.write_text("new-one")
    eventually(lambda: made.states[-1] is ONLINE)


def test_no_thread_to_be_had_is_logged_and_tried_again(
    rig: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    start, failed = camera_module._Attempt.start, list[int]()

    def start_later(attempt: Any) -> None:
        if not failed:
            failed.append(1)
            raise RuntimeError("can't start new thread")
        start(attempt)

    monkeypatch.setattr(camera_module._Attempt, "start", start_later)
    made = rig(Script(1, threading.Event().wait)).start()
    eventually(lambda: 1 in made.numbers)
    assert "a: an attempt broke." in caplog.text


def test_no_more_than_four_calls_are_left_hanging_and_one_that_returns_makes_room(rig: Any, eventually: Any) -> None:
    released = [threading.Event() for _ in range(4)]
    scripts = [Script(number, event.wait) for number, event in enumerate(released)]
    made = rig(*scripts, Script(50, threading.Event().wait), read_timeout=Seconds(0.1)).start()
    eventually(lambda: "4 calls of the driver hang" in made.told[-1][1])
    assert made.told[-1][0] is STALLED
    released[2].set()
    eventually(lambda: 50 in made.numbers)


def test_a_hung_opening_is_left_behind(rig: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig(open_timeout=Seconds(0.1))
    hang, asked = threading.Event(), list[int]()

    def open_or_hang(_config: CameraConfig, **_: Any) -> Source:
        asked.append(1)
        if len(asked) == 1:
            hang.wait(30)
        return Script(7, threading.Event().wait)

    monkeypatch.setattr(camera_module, "open_source", open_or_hang)
    made.start()
    eventually(lambda: 7 in made.numbers)
    assert made.told[1] == (LOST, "opening does not come to an end")
    hang.set()


def test_a_read_that_fails_after_its_time_out_has_stalled(rig: Any, eventually: Any) -> None:
    made = rig(Script(1, lambda: time.sleep(0.48), loose()), Script(2, threading.Event().wait)).start()
    eventually(lambda: 2 in made.numbers)
    assert made.told[2] == (STALLED, "no picture came within the read time-out")


def test_damaged_pictures_are_counted_and_too_many_are_a_loss(rig: Any, eventually: Any) -> None:
    pause: Step = lambda: time.sleep(0.15)  # noqa: E731 -- a step of a script
    taken: Step = lambda: eventually(lambda: made.numbers == [1])  # noqa: E731 -- another
    made: Any = rig(Script(1, None, taken, 2, *[pause, None] * 8), Script(3, threading.Event().wait))
    made.start()
    eventually(lambda: 3 in made.numbers)
    assert made.numbers == [1, 2, "gap", 3]
    assert made.hub.dropped["a"]["damaged"] >= 4
    assert made.hub.frames["a"] == 3 + made.hub.dropped["a"]["damaged"]
    assert (LOST, "All pictures are damaged.") in made.told


def test_cameras_that_all_hang_end_together_within_two_seconds(
    rig: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    made = rig(*[Script(i, never.wait) for i in range(8)], read_timeout=Seconds(60))
    slow = CameraConfig(source="0", read_timeout=Seconds(60))
    more = [Camera(f"c{i}", slow, made.hub, lambda *_: None) for i in range(4)]
    made.start()
    for each in more:
        each.open()
        each.start()
    eventually(lambda: len(made.hub.frames) == 5)
    waits: list[float] = []
    stop = Camera.stop

    def noted(camera: Camera, *, wait_s: float) -> None:
        waits.append(wait_s)
        stop(camera, wait_s=wait_s)

    monkeypatch.setattr(Camera, "stop", noted)
    stop_all([made.camera, *more])
    assert waits[:5] == [0.0] * 5, "all are told before one is waited for"
    assert 0 < waits[5] <= 2.0
    assert waits[6:] == [0.0] * 4, "the first that hangs has used up the time of all"
    monkeypatch.undo()
    never.set()


def test_whatever_masking_does_wrong_no_frame_comes_out(
    rig: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rig(Script(1, 2, 3), Script(4, 5), Script(6))

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Orient, "__call__", fail)
    made.start()
    eventually(lambda: made.told[-1] == (LOST, "It is away."))
    assert made.items == []
    assert "MemoryError" in made.told[1][1]


def test_frames_come_masked_turned_and_limited(rig: Any, tmp_path: Path, eventually: Any) -> None:
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((40, 80, 3), 100 + i, np.uint8))
    left = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    made = rig(source=str(tmp_path), rotate=90, privacy=(left,), max_fps=0.5).start()
    eventually(lambda: DISABLED in made.states)
    made.end()
    images = [item.image_bgr for item in made.items if isinstance(item, Frame)]
    assert [int(image[0, -1, 0]) for image in images] == [100, 102, 104]
    assert all(image.shape == (80, 40, 3) and not image[:, :20].any() for image in images)
    assert made.hub.dropped["a"] == {"rate": 3}
    assert made.camera.describe() == CameraInfo(source=tmp_path.name, width=40, height=80, fps=1.0)
    assert made.camera.policy.still


def test_a_file_that_breaks_is_given_up_with_its_reason(rig: Any, eventually: Any) -> None:
    made = rig(Script(0, loose(), 1), policy=Policy()).start()
    eventually(lambda: made.told[-1] == (DISABLED, "The cable is loose."))
    made.end()
    assert made.numbers == [0, "gap"]
    assert str(made.camera.failure).startswith("The cable is loose.")


def test_a_file_that_throws_is_a_failure_and_not_an_end(rig: Any, eventually: Any, caplog: Any) -> None:
    made = rig(Script(ValueError("GET /?pw=hush")), policy=Policy()).start()
    eventually(lambda: made.camera.failure is not None)
    assert "ValueError" in str(made.camera.failure)
    assert f"ValueError in {__file__}:" in caplog.text
    assert "hush" not in f"{made.camera.failure} {made.told} {caplog.text}", "what was thrown may hold an address"
