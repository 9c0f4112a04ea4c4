"""The belt's data set and video are whole, true, and the same for the same seed."""

import json
from pathlib import Path

import cv2
import pytest

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import sha256_of
from tinysight_trainer.data.dataset import open_dataset
from tinysight_trainer.data.ready import check_ready
from tinysight_trainer.synth import belt_dataset, belt_video


def draw(out: Path, seed: int = 3) -> Path:
    belt_dataset(out, images=12, seed=seed, progress=lambda _done, _of: None)
    return out


def test_the_set_is_whole_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one, again, other = (open_dataset(draw(tmp_path / name, seed)) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert one.counts() == {"train": 12, "calibration": 10, "test": 20}
    assert one.labels == tuple("0123456789")
    assert one.digest == again.digest != other.digest
    assert any(shown.crowd for item in one.of("train") for shown in item.shown)
    assert one.figures is not None
    assert one.figures.leak == 0.0
    assert check_ready(one) == ()
    for item in one.items:
        assert sha256_of(one.path(item)) == item.sha256


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="exists already"):
        draw(tmp_path / "used")
    assert [path.name for path in tmp_path.rglob("*")] == ["used", "mine.txt"]


def test_an_interrupted_drawing_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(_done: int, _of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        belt_dataset(tmp_path / "d", images=12, seed=0, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_video_comes_with_the_truth_of_every_frame(tmp_path: Path) -> None:
    belt_video(tmp_path / "belt.mp4", frames=40, seed=5)
    capture = cv2.VideoCapture(str(tmp_path / "belt.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 40
    truth = json.loads((tmp_path / "belt.truth.json").read_text())
    assert len(truth["frames"]) == 40
    assert (truth["width"], truth["height"], truth["fps"]) == (320, 240, 15.0)
    assert {path.name for path in tmp_path.iterdir()} == {"belt.mp4", "belt.truth.json"}


def test_a_video_into_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        belt_video(tmp_path / "none" / "belt.mp4", frames=3, seed=0)
