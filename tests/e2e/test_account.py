"""Each frame that came is told of once: as inferred, or as dropped for a cause; also those on their way at the stop."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tinysight_contract import topics as t
from tinysight_contract.messages import Health, State, Status, decode

Start = Callable[..., "Device"]
BELT = "synthetic:belt?fps=300&seed="


class Device:
    """``tinysight run --config`` with a health message each second, and what it says of its frames."""

    def __init__(self, folder: Path, url: str, bundle: Path, reader: Any, cameras: dict[str, str]) -> None:
        self._reader, self._path = reader, folder / "agent.toml"
        self._head = (
            f'site = "s"\ndevice = "d"\nstate = "state"\n[broker]\nurl = "{url}"\n'
            f'[model]\nbundle = "{bundle}"\n[health]\nevery = "1s"\n'
            '[governor]\nmax_frame_age = "60s"\n'  # else it may rest just when it is stopped
        )
        self.configure(cameras)
        command = [sys.executable, "-m", "tinysight_deploy", "run", "--config", str(self._path)]
        env = {**os.environ, "XDG_STATE_HOME": str(folder / "home")}
        self.process = subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)

    def configure(self, cameras: dict[str, str]) -> None:
        """Replace the file as an editor does."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(self._head + "".join(f"[cameras.{name}]\n{text}\n" for name, text in cameras.items()))
        fresh.rename(self._path)

    def reports(self) -> list[Health]:
        return [decode(payload, Health) for payload in self._reader.of(t.HealthTopic)]

    def sums(self) -> dict[str, Counter[str]]:
        """By camera: ``frames``, ``inferred``, and what was dropped by cause, over all reports."""
        sums: dict[str, Counter[str]] = {}
        for health in self.reports():
            for camera, told in health.cameras.items():
                assert min(told.frames, told.inferred, *told.dropped.values()) >= 0
                mine = sums.setdefault(camera, Counter())
                mine.update({"frames": told.frames, "inferred": told.inferred, **told.dropped})
        return sums

    def stop(self, eventually: Any) -> None:
        """Ask it to end, and hear its goodbye."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, said
        eventually(lambda: decode(self._reader.of(t.StatusTopic)[-1], Status).state is State.OFFLINE)


def not_accounted(sums: Counter[str]) -> int:
    return sums["frames"] - sum(count for name, count in sums.items() if name != "frames")


@pytest.fixture
def start(mosquitto: Any, make_reader: Any, tmp_path: Path) -> Iterator[Start]:
    """Start an agent with cameras, as TOML below ``[cameras.NAME]``."""
    made: list[Device] = []

    def begin(bundle: Path, **cameras: str) -> Device:
        made.append(Device(tmp_path, mosquitto.url, bundle, make_reader(mosquitto.url), cameras))
        return made[-1]

    yield begin
    for each in made:
        each.process.kill()
        each.process.wait()


def test_cameras_faster_than_the_model_that_are_stopped_midway_leave_no_frame_untold(
    start: Start, belt_bundle: Path, eventually: Any
) -> None:
    tiles = "tiles = { columns = 4, rows = 4 }"  # a model that is slow, so that each stage has frames at the stop
    device = start(belt_bundle, **{f"cam{n}": f'source = "{BELT}{n}"\n{tiles}' for n in range(4)})
    eventually(lambda: len(device.reports()) >= 2)
    device.stop(eventually)
    sums = device.sums()
    assert set(sums) == {"cam0", "cam1", "cam2", "cam3"}
    assert {camera: not_accounted(each) for camera, each in sums.items()} == dict.fromkeys(sums, 0)
    assert all(each["inferred"] and each["stale"] for each in sums.values())
    stopped = [each["stopped"] for each in sums.values()]
    assert 1 <= sum(stopped) <= 4 + 4, "one waits for each camera, and one at each stage from the model to its events"


def test_a_model_that_hangs_takes_its_frame_and_what_waits_behind_it_into_the_account(
    start: Start, troubles: Path, tmp_path: Path, eventually: Any
) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(8):
        shade = 255 if number == 2 else 0
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), np.full((60, 80, 3), shade, np.uint8))
    device = start(troubles / "hangs.bundle", gate='source = "pictures"')
    eventually(lambda: device.sums().get("gate", Counter())["inferred"] == 2)
    device.stop(eventually)
    gate = device.sums()["gate"]
    assert not_accounted(gate) == 0
    assert (gate["inferred"], gate["stopped"]) == (2, 3), "one in the model, two behind it"


def test_cameras_that_go_and_come_back_while_the_agent_runs_lose_no_frame_either(
    start: Start, belt_bundle: Path, eventually: Any
) -> None:
    both = {name: f'source = "{BELT}{name}"' for name in ("1", "2")}
    device = start(belt_bundle, **both)
    eventually(lambda: device.sums().get("2", Counter())["inferred"])
    for cameras in ({"1": both["1"]}, both, {**both, "2": both["2"] + "\nrotate = 180"}):
        seen = len(device.reports())
        device.configure(cameras)
        eventually(lambda wanted=set(cameras), seen=seen: set(device.reports()[-1].cameras) == wanted
                   and len(device.reports()) > seen + 3)  # fmt: skip
    device.stop(eventually)
    assert {camera: not_accounted(each) for camera, each in device.sums().items()} == {"1": 0, "2": 0}
