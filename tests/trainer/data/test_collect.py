"""Pictures of a camera become a dated session, none twice and none lost; a bundle proposes, people decide."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tinysight_contract.errors import CameraError, DataError
from tinysight_contract.files import sha256_of
from tinysight_edge.sources import Source
from tinysight_trainer.data.collect import PENDING, Motion, collect
from tinysight_trainer.data.dataset import IMAGES, open_dataset


class Scripted(Source):
    """A source that shows numbered scenes, ten a second."""

    name, width, height, fps = "door cam", 64, 48, 10.0

    def __init__(self, scenes: list[int], *, breaks: bool = False) -> None:
        self._scenes, self._next, self._breaks = scenes, 0, breaks

    def grab(self) -> float | None:
        if self._next >= len(self._scenes):
            if self._breaks:
                raise CameraError("The cable is out.", mend="Put it in.")
            return None
        self._next += 1
        return (self._next - 1) / 10

    def retrieve(self) -> NDArray[np.uint8]:
        rng = np.random.default_rng(self._scenes[self._next - 1])
        blobs = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        return np.asarray(cv2.resize(blobs, (64, 48), interpolation=cv2.INTER_CUBIC), np.uint8)

    def close(self) -> None:
        """Nothing is held."""


def test_pictures_come_at_their_pace_and_copies_do_not(tmp_path: Path) -> None:
    scenes = [number // 10 for number in range(100)]  # each for a second
    data, done = collect(Scripted(scenes), tmp_path / "d", every_s=0.3, motion=False, most=100)
    assert (done.seen, done.kept) == (100, 10)
    assert done.alike == 34 - 10
    again = open_dataset(tmp_path / "d")
    assert again.items == data.items
    assert {item.session for item in again.items} == {done.session}
    assert done.session.endswith("-door-cam")
    assert not any(item.labelled for item in again.items)
    assert not (tmp_path / "d" / PENDING).exists()


def test_nothing_that_stands_still_is_kept_when_motion_is_wanted(tmp_path: Path) -> None:
    _, done = collect(Scripted([1] * 30 + [2] + [1] * 30), tmp_path / "d", every_s=0.0, motion=True, most=100)
    assert 2 <= done.kept <= 3
    watch, still = Motion(), np.full((48, 64, 3), 100, np.uint8)
    assert [watch.moved(still) for _ in range(5)] == [True, False, False, False, False]
    moved = still.copy()
    moved[10:20, 10:20] = 250
    assert watch.moved(moved)


def test_a_second_session_is_added_to_the_first(tmp_path: Path) -> None:
    first, _ = collect(Scripted([1, 2, 3]), tmp_path / "d", every_s=0.0, motion=False, most=9)
    second, _ = collect(Scripted([4, 5]), tmp_path / "d", every_s=0.0, motion=False, most=9)
    third, _ = collect(Scripted([6]), tmp_path / "d", every_s=0.0, motion=False, most=9)
    assert len(third.items) == 6
    assert len({item.session for item in third.items}) == 3  # though they were begun within a second
    assert set(first.items) < set(second.items) < set(third.items)
    assert all(sha256_of(third.path(item)) == item.sha256 for item in third.items)


def test_a_camera_that_breaks_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="cable"):
        collect(Scripted([1, 2, 3], breaks=True), tmp_path / "d", every_s=0.0, motion=False, most=9)
    assert len(open_dataset(tmp_path / "d").items) == 3


def test_a_first_collection_killed_while_it_was_taken_in_is_taken_in_by_the_next(tmp_path: Path) -> None:
    collect(Scripted([1, 2, 3]), tmp_path / "d", every_s=0.0, motion=False, most=9)
    pending = tmp_path / "d" / PENDING / "earlier"
    pending.mkdir(parents=True)
    for path in (tmp_path / "d" / IMAGES).glob("*/*.jpg"):
        (pending / path.name).write_bytes(path.read_bytes())
    (tmp_path / "d" / "dataset.json").unlink()
    (tmp_path / "d" / "annotations.json").unlink()
    data, _ = collect(Scripted([7]), tmp_path / "d", every_s=0.0, motion=False, most=9)
    assert len(data.items) == 4


def test_two_collections_do_not_fill_one_folder(tmp_path: Path) -> None:
    class Second(Scripted):
        def read(self) -> tuple[np.ndarray, float] | None:
            with pytest.raises(DataError, match="Another collection"):
                collect(Scripted([1]), tmp_path / "d", every_s=0.0, motion=False, most=1)
            return None

    collect(Second([]), tmp_path / "d", every_s=0.0, motion=False, most=1)


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(DataError, match="no TinySight data set"):
        collect(Scripted([1]), tmp_path, every_s=0.0, motion=False, most=1)


def test_a_killed_collection_is_taken_in_by_the_next(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "tinysight_deploy", "data", "collect", "--source", "synthetic:belt?fps=30", "--out", "d",
        "--every", "100ms", "--quiet", "--json",
    ]  # fmt: skip
    killed = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pending = tmp_path / "d" / PENDING
    until_s = time.monotonic() + 60
    while len(list(pending.glob("*/*.jpg"))) < 5 and time.monotonic() < until_s:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    kept = {path.name for path in pending.glob("*/*.jpg")}
    assert len(kept) >= 5
    ended = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    while len(list(pending.glob("*/*.jpg"))) < len(kept) + 2 and time.monotonic() < until_s:
        time.sleep(0.01)
    ended.send_signal(signal.SIGINT)
    out, _ = ended.communicate(timeout=30)
    assert ended.returncode == 0
    assert json.loads(out)["kept"] >= 2
    data = open_dataset(tmp_path / "d")
    assert kept <= {Path(item.name).name for item in data.items}
    assert all((data.root / IMAGES / item.name).is_file() for item in data.items)
    assert not pending.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--every", "2"), "with its unit", id="a time without its unit"),
        pytest.param(("--on", "tuesday"), "always or motion", id="on something else"),
        pytest.param(("--source", "dream"), "Unknown source", id="no such source"),
    ],
)
def test_bad_wishes_are_one_line(arguments: tuple[str, ...], said: str, tinysight: Any, tmp_path: Path) -> None:
    done = tinysight("data", "collect", "--source", "synthetic:belt", "--out", "d", *arguments, "--quiet")
    assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("tool", ["label-studio", "cvat"])
def test_a_bundle_proposes_and_what_people_say_comes_back(
    tool: str, world: Path, tmp_path: Path, tinysight: Any
) -> None:
    source = "synthetic:belt?fps=1000&frames=400"
    assert tinysight("data", "collect", "--source", source, "--out", "d", "--every", "100ms").returncode == 0
    done = tinysight(
        "data", "prelabel", "d", "--bundle", world / "detector.bundle", "--out", "p", "--tool", tool, "--min-score",
        "0.05", "--json", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["pictures"] == len(open_dataset(tmp_path / "d").items)
    assert open_dataset(tmp_path / "d").task is None
    if tool == "label-studio":
        tasks = json.loads((tmp_path / "p" / "tasks.json").read_text())
        assert "<Label value=" in (tmp_path / "p" / "labels.xml").read_text()
        for task in tasks:
            task["annotations"] = [{"result": task.get("predictions", [{"result": []}])[0]["result"]}]
        (tmp_path / "export").write_text(json.dumps(tasks))
    else:
        proposed = (tmp_path / "p" / "annotations.xml").read_text()
        (tmp_path / "export").write_text(proposed)
        refused = tinysight("data", "label", "d", "export")
        assert "nobody has looked at it" in refused.stderr
        (tmp_path / "export").write_text(proposed.replace("proposed-by-tinysight", "task"))  # as CVAT would write it
    done = tinysight("data", "label", "d", "export", "--empty", "--json")
    assert done.returncode == 0, done.stderr
    labelled = open_dataset(tmp_path / "d")
    assert json.loads(done.stdout)["taken"] == len(labelled.items)
    assert sum(len(item.shown) for item in labelled.items) == result["proposals"]
    assert all(item.labelled for item in labelled.items)
