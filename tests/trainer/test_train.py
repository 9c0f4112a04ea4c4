"""A training leaves a whole run folder, and being killed changes nothing about where it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinysight_contract.errors import TrainError
from tinysight_converters.run import load_examples, load_run
from tinysight_trainer.dataset import read_dataset
from tinysight_trainer.targets import Grid

SMALL = ("--epochs", "3", "--scale", "0.5", "--batch", "16", "--seed", "9", "--quiet")


def weights(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "checkpoint.npz", allow_pickle=False) as held:
        return {name: held[name] for name in held.files if name != "about"}


def test_the_run_folder_is_whole_and_says_where_it_comes_from(world: Path) -> None:
    folder = world / "detector"
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint.npz", "curves.png", "examples.json", "history.csv", "model.keras", "run.json",
    }  # fmt: skip
    run = load_run(folder)
    data = read_dataset(world / "belt", "detect")
    assert (run.task, run.labels, run.stride, run.seed) == ("detect", list("0123456789"), 8, 5)
    assert run.dataset_digest == data.digest
    assert run.config["epochs"] == 2
    assert {"tensorflow", "keras", "python", "tinysight"} <= set(run.tools)
    assert (folder / "history.csv").read_text().count("\n") == 3
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_test_pictures_are_none_that_were_learned_from(world: Path) -> None:
    for run, data in (("detector", "belt"), ("classifier", "digits")):
        examples = load_examples(world / run)
        splits = read_dataset(world / data, load_run(world / run).task).splits
        learned = {each.sha256 for each in splits["train"]}
        assert examples.test
        assert not learned & {each.sha256 for each in examples.test}


def test_a_training_killed_and_resumed_ends_with_the_same_weights(world: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tinysight_deploy", "train", str(world / "belt"), "--task", "detect", *SMALL]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    killed = subprocess.Popen(
        [*command, "--out", str(tmp_path / "killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    history = tmp_path / "killed" / "history.csv"
    until_s = time.monotonic() + 120
    while not (history.exists() and history.read_text().count("\n") >= 2) and time.monotonic() < until_s:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "run.json").exists(), "it was killed too late to show anything"
    subprocess.run([*command, "--out", str(tmp_path / "killed"), "--resume"], check=True, capture_output=True)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert np.array_equal(whole[name], resumed[name]), name


def config(**changes: Any) -> Any:
    from tinysight_trainer.train import Config

    return Config(**{"task": "detect", "width": 32, "height": 32, "epochs": 1, "batch": 8, "scale": 0.5, **changes})


def test_a_run_is_never_overwritten_and_resumes_only_as_it_began(world: Path) -> None:
    from tinysight_trainer.train import Progress, train

    data = read_dataset(world / "belt", "detect")
    with pytest.raises(TrainError, match="exists already"):
        train(data, config(), world / "detector", resume=False, progress=Progress())
    with pytest.raises(TrainError, match="other settings"):
        train(data, config(), world / "detector", resume=True, progress=Progress())


def test_there_must_be_something_to_resume_and_it_must_be_whole(world: Path, tmp_path: Path) -> None:
    from tinysight_trainer.train import Progress, train

    data = read_dataset(world / "belt", "detect")
    with pytest.raises(TrainError, match="nothing to resume"):
        train(data, config(), tmp_path / "none", resume=True, progress=Progress())
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(TrainError, match="damaged"):
        train(data, config(), tmp_path, resume=True, progress=Progress())


def test_a_loss_that_is_no_longer_finite_names_the_step(world: Path, tmp_path: Path) -> None:
    from tinysight_trainer.train import Progress, train

    data = read_dataset(world / "belt", "detect")
    with pytest.raises(TrainError, match="in epoch 1, step"):
        train(data, config(learning_rate=float("nan")), tmp_path / "r", resume=False, progress=Progress())


def test_batches_depend_on_seed_epoch_and_number_alone(world: Path) -> None:
    from tinysight_contract.manifest import Input
    from tinysight_trainer.pictures import batches, load_pictures

    data = read_dataset(world / "belt", "detect")
    held = load_pictures(list(data.splits["train"]), data.root, Input(height=96, width=128))
    grid = Grid(12, 16, 10, 8)

    def epoch(seed: int, number: int) -> list[np.ndarray]:
        return [b.images for b in batches(held, grid, size=16, seed=seed, epoch=number, augment=True)]

    one, again, later, other = epoch(1, 0), epoch(1, 0), epoch(1, 1), epoch(2, 0)
    assert len(one) == 4
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], later[0])
    assert not np.array_equal(one[0], other[0])


def test_a_reader_that_leaves_at_any_moment_does_not_wait_for_ever(world: Path) -> None:
    from tinysight_contract.manifest import Input
    from tinysight_trainer.pictures import AHEAD, batches, load_pictures

    data = read_dataset(world / "belt", "detect")
    held = load_pictures(list(data.splits["train"])[: AHEAD + 1], data.root, Input(height=32, width=32))
    for taken in range(AHEAD + 2):
        made = batches(held, Grid(4, 4, 10, 8), size=1, seed=0, epoch=0, augment=False)
        for _ in range(taken):
            next(made, None)
        time.sleep(0.05)  # the queue is full, and its end mark waits
        made.close()


def test_varying_a_picture_moves_its_boxes_with_it() -> None:
    from tinysight_trainer.pictures import _vary

    for seed in range(20):
        image = np.zeros((96, 128, 3), np.uint8)
        image[30:60, 40:80] = 255
        boxes = _vary(image, np.array([[40, 30, 80, 60]], np.float32), np.random.default_rng(seed))
        ys, xs = np.nonzero(image.max(2) > 140)
        want = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        middle = (boxes[0, :2] + boxes[0, 2:]) / 2
        assert np.allclose(middle, (want[:2] + want[2:]) / 2, atol=2.0)
        assert np.allclose(boxes[0], want, atol=5.0)


def test_the_command_says_what_it_made(world: Path, tinysight: Any) -> None:
    done = tinysight(
        "train", world / "digits", "--task", "classify", "--out", "r", "--input", "32x32", "--epochs", "1", "--scale",
        "0.25", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["labels"] == 10
    assert "held out" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("none", "--task", "detect"), "There is no data set", id="no data set"),
        pytest.param((".", "--task", "detect"), "has no annotations", id="empty folder"),
        pytest.param((".", "--task", "dream"), "There is no task", id="unknown task"),
        pytest.param((".", "--task", "detect", "--input", "100x100"), "multiples of 16", id="size that does not fit"),
        pytest.param((".", "--task", "detect", "--input", "big"), "no size", id="size that is none"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: tuple[str, ...], said: str, tinysight: Any, tmp_path: Path
) -> None:
    done = tinysight("train", *arguments, "--out", "r")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "r").exists()
