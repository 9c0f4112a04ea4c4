"""What a device keeps as hard examples is what the trainer takes in: pictures, proposals, where they come from."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tinysight_contract.messages import ModelRef
from tinysight_edge.belt import LABELS, Belt
from tinysight_edge.cameras.hub import Frame
from tinysight_edge.config.types import ExamplesConfig
from tinysight_edge.decode import Detections
from tinysight_edge.pictures.examples import Example
from tinysight_edge.pictures.jpeg import read_comment
from tinysight_edge.pictures.pictures import About, Pictures
from tinysight_edge.tracking.tracks import Tracks
from tinysight_trainer.data.dataset import open_dataset
from tinysight_trainer.data.formats import READERS, find_format
from tinysight_trainer.data.item import SPLITS

BEGAN = datetime(2026, 11, 25, 10, tzinfo=UTC)


def keep(state: Path, task: str, cameras: Sequence[str]) -> dict[str, Detections]:
    """Frames of the belt with what is on it as detections, one of which is always doubtful."""
    about = About(
        site="plant-1",
        device="belt-7",
        model=ModelRef(name="belt", version="1", digest="d" * 64),
        task=task,
        labels=LABELS,
        threshold=0.5,
    )
    pictures = Pictures(state, about, snapshots=None, examples=ExamplesConfig(per_hour=3600))
    pictures.start()
    told = {}
    for number in range(6):
        camera, at_s = cameras[number % len(cameras)], number * 1.5
        image, truths = Belt(5 + number % len(cameras)).frame(100 + 40 * number)
        boxes = np.array([truth.box_px for truth in truths], np.float32)
        scores = np.linspace(0.9, 0.51, len(truths)).astype(np.float32)
        found = Detections(boxes, scores, np.array([truth.label for truth in truths], np.int32))
        pictures.offer(Frame(camera, image, at_s, BEGAN + timedelta(seconds=at_s), at_s), found, Tracks.none(), {})
        told[f"{camera} {at_s}"] = found
    pictures.close()
    assert pictures.counts == {"examples": 6}, pictures.trouble
    return told


def test_the_folder_is_imported_with_its_pictures_and_proposals(tmp_path: Path, tinysight: Any) -> None:
    told = keep(tmp_path, "detect", ["gate", "yard"])
    done = tinysight("data", "import", tmp_path / "examples", "--out", "data", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    data = open_dataset(tmp_path / "data")
    assert len(data.items) == 6
    assert data.task == "detect"
    assert not data.left_out
    assert {item.session for item in data.items} == {"plant-1-belt-7-gate-20261125", "plant-1-belt-7-yard-20261125"}
    for item in data.items:
        assert not item.labelled, "nobody trains on a proposal unseen"
        raw = data.path(item).read_bytes()
        said = read_comment(raw, Example)
        assert said is not None, "pictures are copied byte for byte, so they still say where they come from"
        assert item.name.startswith(f"belt-7/{said.camera}/")
        assert (said.site, said.device, said.model.digest) == ("plant-1", "belt-7", "d" * 64)
        found = told[f"{said.camera} {(said.captured_at - BEGAN).total_seconds()}"]
        assert [shown.label for shown in item.shown] == [LABELS[each] for each in found.class_ids]
        boxes = np.array([shown.box for shown in item.shown], np.float64)
        assert np.abs(boxes - found.boxes_px).max() <= 0.02
    assert not any(data.of(split) for split in (*SPLITS, None))


def test_a_classifiers_examples_are_of_a_class_as_a_whole(tmp_path: Path) -> None:
    keep(tmp_path, "classify", ["gate"])
    folder = tmp_path / "examples"
    assert find_format(folder) == "coco"
    raws = list(READERS["coco"][1](folder))
    assert len(raws) == 6
    assert all(len(raw.shown) == 1 and raw.shown[0].box is None and not raw.labelled for raw in raws)
