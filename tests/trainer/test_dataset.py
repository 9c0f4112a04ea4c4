"""A data set is checked before it is trusted: each fault is one line that says what and what to do."""

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tinysight_contract.errors import DataError
from tinysight_trainer.dataset import read_dataset

Spoil = Callable[[Path, dict[str, Any]], object]


def png_head(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


HUGE = png_head(1 << 20, 1 << 20)


def image(path: Path, shade: int = 0, size: tuple[int, int] = (40, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), shade, np.uint8))


@pytest.fixture
def coco(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Ten images of 60x40 with a box each, of two classes."""
    content: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 60, "height": 40} for i in range(10)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 5 + i % 2, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0}
            for i in range(10)
        ],
        "categories": [{"id": 6, "name": "dog"}, {"id": 5, "name": "cat"}],
    }
    for i in range(10):
        image(tmp_path / "images" / f"{i}.png", i)
    return tmp_path, content


def write(root: Path, content: dict[str, Any]) -> None:
    (root / "annotations.json").write_text(json.dumps(content))


def test_a_coco_set_is_read_and_split_by_name(coco: tuple[Path, dict[str, Any]]) -> None:
    root, content = coco
    write(root, content)
    data = read_dataset(root, "detect")
    assert data.labels == ("cat", "dog")
    names = {split: {each.name for each in held} for split, held in data.splits.items()}
    assert not names["train"] & names["test"]
    assert len(names["train"] | names["test"]) == 10
    example = next(each for held in data.splits.values() for each in held if each.name == "images/3.png")
    assert (example.boxes, example.class_ids, example.crowd) == ([(1.0, 2.0, 31.0, 22.0)], [1], [False])


def test_the_digest_is_that_of_the_content(coco: tuple[Path, dict[str, Any]]) -> None:
    root, content = coco
    write(root, content)
    first = read_dataset(root, "detect").digest
    content["images"].reverse()
    write(root, content)
    assert read_dataset(root, "detect").digest == first, "the order says nothing"
    image(root / "images" / "0.png", 99)
    assert read_dataset(root, "detect").digest != first


def test_splits_may_be_given_and_then_hold(coco: tuple[Path, dict[str, Any]]) -> None:
    root, content = coco
    (root / "annotations").mkdir()
    for split, ids in (("train", range(6)), ("calibration", range(6, 8)), ("test", range(8, 10))):
        part = {
            **content,
            "images": [each for each in content["images"] if each["id"] in ids],
            "annotations": [each for each in content["annotations"] if each["id"] in ids],
        }
        (root / "annotations" / f"{split}.json").write_text(json.dumps(part))
    data = read_dataset(root, "detect")
    assert {split: len(held) for split, held in data.splits.items()} == {"train": 6, "calibration": 2, "test": 2}


def test_a_box_that_was_rounded_outwards_is_cut_to_its_image(coco: tuple[Path, dict[str, Any]]) -> None:
    root, content = coco
    content["annotations"][0]["bbox"] = [-0.5, 0, 61, 40.9]
    write(root, content)
    data = read_dataset(root, "detect")
    boxes = [each.boxes for held in data.splits.values() for each in held if each.name == "images/0.png"]
    assert boxes == [[(0.0, 0.0, 60.0, 40.0)]]


def box(*bbox: float) -> Spoil:
    return lambda _root, content: content["annotations"][4].update(bbox=list(bbox))


def change(key: str, index: int, **fields: Any) -> Spoil:
    return lambda _root, content: content[key][index].update(fields)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(box(40, 0, 30, 10), "outside its image 4.png", id="box to the right of its image"),
        pytest.param(box(-5, 0, 30, 10), "outside its image", id="box to the left"),
        pytest.param(box(1, 1, 0, 10), "empty", id="box without width"),
        pytest.param(box(1, 1, -3, 10), "empty", id="box of negative width"),
        pytest.param(box(1, 1, 1e400, 10), "no COCO file|empty", id="infinite box"),
        pytest.param(box(1, 1, 10), "no COCO file", id="box of three numbers"),
        pytest.param(change("annotations", 2, image_id=77), "annotation 2 points to", id="annotation of no image"),
        pytest.param(
            change("annotations", 2, category_id=77), "annotation 2 points to", id="annotation of no category"
        ),
        pytest.param(change("images", 1, file_name="none.png"), "none.png is missing", id="missing image"),
        pytest.param(change("images", 1, file_name="../../evil.png"), "leaves the data set", id="path that climbs out"),
        pytest.param(change("images", 1, file_name="/etc/hostname"), "leaves the data set", id="absolute path"),
        pytest.param(change("images", 1, id=2), "image id twice", id="image id twice"),
        pytest.param(change("categories", 0, name="cat"), "category twice", id="category name twice"),
        pytest.param(change("images", 1, width=0), "no COCO file", id="image without width"),
        pytest.param(lambda _r, c: c.update(images=[], annotations=[]), "no images", id="empty set"),
        pytest.param(change("images", 1, width=61), "has 60x40 pixels", id="annotations of another size"),
        pytest.param(change("images", 1, width=40, height=60), "EXIF", id="annotations of the unturned image"),
        pytest.param(change("images", 1, file_name="a\x00b.png"), "no usable file name", id="name with a zero byte"),
        pytest.param(change("categories", 0, name="d\nog"), "no usable label", id="label of two lines"),
        pytest.param(
            lambda root, _c: (root / "images" / "3.png").write_bytes(b"\x89PNG"), r"3\.png is broken", id="broken image"
        ),
        pytest.param(
            lambda root, _c: (root / "images" / "3.png").write_bytes(HUGE), r"3\.png is broken", id="a trillion pixels"
        ),
        pytest.param(
            lambda _r, c: [each.update(iscrowd=1) for each in c["annotations"] if each["category_id"] == 6],
            "'dog' has no example",
            id="class of crowds only",
        ),
        pytest.param(lambda _r, c: c.pop("categories"), "no COCO file", id="no categories"),
    ],
)
def test_a_fault_in_a_coco_set_is_named(spoil: Spoil, said: str, coco: tuple[Path, dict[str, Any]]) -> None:
    root, content = coco
    spoil(root, content)
    write(root, content)
    with pytest.raises(DataError, match=said):
        read_dataset(root, "detect")


def test_a_link_that_leaves_the_set_is_refused(coco: tuple[Path, dict[str, Any]], tmp_path_factory: Any) -> None:
    root, content = coco
    outside = tmp_path_factory.mktemp("outside") / "0.png"
    image(outside)
    (root / "images" / "0.png").unlink()
    (root / "images" / "0.png").symlink_to(outside)
    write(root, content)
    with pytest.raises(DataError, match="leaves the data set"):
        read_dataset(root, "detect")


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[]"])
def test_annotations_that_are_no_json_are_named(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_bytes(raw)
    with pytest.raises(DataError, match="no COCO file"):
        read_dataset(tmp_path, "detect")


def test_a_category_without_annotations_is_left_out_with_a_note(coco: tuple[Path, dict[str, Any]]) -> None:
    root, content = coco
    content["categories"].append({"id": 0, "name": "animals"})
    write(root, content)
    data = read_dataset(root, "detect")
    assert data.labels == ("cat", "dog")
    assert "animals" in data.notes[0]


def test_the_same_image_is_never_on_both_sides(coco: tuple[Path, dict[str, Any]]) -> None:
    root, content = coco
    for i in range(10):
        shutil.copy(root / "images" / f"{i}.png", root / "images" / f"copy-{i}.png")
        content["images"].append({"id": 100 + i, "file_name": f"copy-{i}.png", "width": 60, "height": 40})
    write(root, content)
    splits = read_dataset(root, "detect").splits
    digests = {split: {each.sha256 for each in held} for split, held in splits.items()}
    assert not digests["train"] & digests["test"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        pytest.param(("train", "val"), "val.json is no split", id="a split of another name"),
        pytest.param(("train",), "has no test.json", id="no test"),
        pytest.param(("train", "test"), "is the same image as", id="one image in two splits"),
    ],
)
def test_a_fault_in_given_splits_is_named(names: tuple[str, ...], said: str, coco: tuple[Path, dict[str, Any]]) -> None:
    root, content = coco
    (root / "annotations").mkdir()
    for name in names:
        (root / "annotations" / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=said):
        read_dataset(root, "detect")


def test_a_test_split_without_objects_is_refused(coco: tuple[Path, dict[str, Any]]) -> None:
    root, content = coco
    (root / "annotations").mkdir()
    image(root / "images" / "empty.png", 200)
    empty = {"id": 99, "file_name": "empty.png", "width": 60, "height": 40}
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    (root / "annotations" / "test.json").write_text(json.dumps({**content, "images": [empty], "annotations": []}))
    with pytest.raises(DataError, match="nothing to be found"):
        read_dataset(root, "detect")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for number, label in enumerate(("bus", "train")):
        for i in range(12):
            image(tmp_path / label / f"{i}.png", number * 20 + i)
    assert read_dataset(tmp_path, "classify").labels == ("bus", "train")


def test_an_image_that_changed_after_it_was_read_is_named(coco: tuple[Path, dict[str, Any]]) -> None:
    root, content = coco
    write(root, content)
    example = read_dataset(root, "detect").splits["train"][0]
    image(root / example.name, 77)
    with pytest.raises(DataError, match="has changed"):
        example.picture(root)


def test_a_folder_of_images_per_class_is_read(tmp_path: Path) -> None:
    for number, label in enumerate(("dog", "cat")):
        for i in range(12):
            image(tmp_path / label / f"{i}.png", number * 20 + i)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    data = read_dataset(tmp_path, "classify")
    assert data.labels == ("cat", "dog")
    assert sum(map(len, data.splits.values())) == 24
    assert {each.class_ids[0] for each in data.splits["train"] if each.name.startswith("dog/")} == {1}


def test_given_splits_of_classes_hold_and_an_unknown_class_is_refused(tmp_path: Path) -> None:
    for shade, (split, label) in enumerate((("train", "a"), ("train", "b"), ("test", "a"), ("test", "b"))):
        image(tmp_path / split / label / "0.png", shade)
    assert len(read_dataset(tmp_path, "classify").splits["test"]) == 2
    image(tmp_path / "test" / "c" / "0.png")
    with pytest.raises(DataError, match="training lacks"):
        read_dataset(tmp_path, "classify")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        pytest.param({}, "no images", id="empty"),
        pytest.param({"cat": 30}, "knows 1 classes", id="one class"),
        pytest.param({"cat": 30, "dog": 0}, "'dog' has no example", id="class without images"),
    ],
)
def test_a_fault_in_folders_is_named(classes: dict[str, int], said: str, tmp_path: Path) -> None:
    for label, count in classes.items():
        (tmp_path / label).mkdir()
        for i in range(count):
            image(tmp_path / label / f"{i}.png", i)
    with pytest.raises(DataError, match=said):
        read_dataset(tmp_path, "classify")


def test_a_task_that_does_not_fit_the_set_is_said(coco: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, content = coco
    with pytest.raises(DataError, match="has no annotations"):
        read_dataset(root, "detect")
    write(root, content)
    with pytest.raises(DataError, match="--task detect"):
        read_dataset(root, "classify")
    with pytest.raises(DataError, match="There is no data set"):
        read_dataset(tmp_path / "none", "detect")
