"""A process that is killed, crashes, hangs or fails: its supervisor starts it again, and no reader waits for ever."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from tinysight_contract.messages import CameraState, Event, EventType, Health, State, Status
from tinysight_edge.watchdog import HANGS


def test_a_process_that_is_killed_or_crashes_closes_what_was_open_when_it_is_back(
    ear: Any, make_device: Any, tell: Any
) -> None:
    device = make_device(gate='source = "synthetic:belt"')
    since_s = 0.0
    for number, (fault, cause) in enumerate(
        (("SIGKILL while objects are in view", signal.SIGKILL), ("crash in C (SIGSEGV)", signal.SIGSEGV)), start=1
    ):
        old = ear.event(since_s=since_s)[1].boot_id
        time.sleep(3.0)
        since_s = time.monotonic()
        os.kill(device.pid, cause)
        ended_s, status = device.wait_end(number)
        assert status == -cause
        found_s, _ = ear.wait(Status, lambda each: each.state is State.OFFLINE, since_s=since_s)
        well_s, again = ear.event(
            lambda event, old=old: event.type is EventType.START and event.boot_id != old, since_s=since_s
        )
        ear.check_all_came()  # also what was killed on its way; it comes after the live ones
        told = {event.seq: event for _, event in ear.of(Event) if event.boot_id == old}
        last = {told[seq].id: told[seq].type for seq in sorted(told)}
        left = {id_ for id_, kind in last.items() if kind is not EventType.END}
        assert left, "objects were in view"
        ends = [event for _, event in ear.of(Event, since_s=since_s) if event.reason == "restarted"]
        assert {event.id for event in ends} == left
        assert {event.boot_id for event in ends} == {again.boot_id}
        assert well_s - ended_s > device.restart_s
        said = f"`status` offline by its will; then {len(ends)} `end` (restarted), a new `boot_id`"
        tell(fault, found_s=found_s - since_s, well_s=well_s - since_s, published=said)
    assert "Fatal Python error: Segmentation fault" in device.log, "the stacks are told"


def test_a_model_that_hangs_or_fails_ends_the_process_which_begins_anew(
    world: Any, ear: Any, make_device: Any, tell: Any, troubles: Path
) -> None:
    mjpeg = world.server
    mjpeg.start()
    world.shows = "dark"
    for fault, name, status, words in (
        ("a model fails on a picture", "fails", 2, "fails on a picture"),
        ("a model hangs", "hangs", HANGS, "has not come back"),
    ):
        begun_s = time.monotonic()
        world.shows = "dark"
        device = make_device(bundle=troubles / f"{name}.bundle", gate=f'source = "{mjpeg.url}"')
        ear.state(CameraState.ONLINE, since_s=begun_s)
        bright_s = time.monotonic()
        world.shows = "dazzled"
        ended_s, how = device.wait_end(1)
        world.shows = "dark"
        assert how == status, device.log
        assert words in device.log
        found_s, gone = ear.wait(Status, lambda each: each.state is State.OFFLINE, since_s=bright_s)
        well_s, _ = ear.wait(Health, lambda health: health.cameras["gate"].inferred > 0, since_s=ended_s)
        said = f"`status` offline ({gone.reason}); exit status {status}, its cause in the log; then a new `boot_id`"
        tell(fault, found_s=found_s - bright_s, well_s=well_s - bright_s, published=said)
        device.end()
