"""What goes out in a format comes back as it was; what is broken is an error that names the place."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinysight_contract.errors import DataError
from tinysight_trainer.data.dataset import Dataset, open_dataset
from tinysight_trainer.data.formats import READERS, WRITERS, arrays, cvat, find_format, label_studio, read_source
from tinysight_trainer.data.formats.raw import Proposal, Raw, split_names
from tinysight_trainer.data.importer import import_pictures
from tinysight_trainer.data.item import Shown
from tinysight_trainer.data.label import take_labels

Make = Callable[..., Dataset]
Picture = Callable[..., bytes]

HARD = "Übung <b>\"'&; #1"
BOXES = [
    [Shown(label="cat", box=(1.0, 2.0, 30.5, 20.25)), Shown(label=HARD, box=(0.0, 0.0, 64.0, 48.0))],
    [Shown(label="cat", box=(10.13, 5.77, 20.01, 40.99)), Shown(label="cat", box=(40.0, 4.0, 60.0, 30.0), crowd=True)],
    [],
    [Shown(label="10", box=(3.0, 3.0, 9.0, 9.0)), Shown(label="9", box=(3.0, 30.0, 9.0, 39.5))],
]
WHOLE = [[Shown(label="cat")], [Shown(label="dog")], [Shown(label="Übung #1")], [Shown(label="cat")]]
FORMATS = ("coco", "voc", "yolo", "csv", "folder")


def back(data: Dataset, form: str, tmp_path: Path) -> Dataset:
    """Out in a format and in again, by the same doors that a user takes."""
    out = tmp_path / f"{data.root.name}-{form}"
    out.mkdir()
    WRITERS[form](data, out)
    _, raws = read_source(str(out), form)
    return import_pictures(raws, tmp_path / f"{data.root.name}-{form}-again", source={})


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("splits", [(), ("train", "train", "test", "calibration"), ("train", "train", "test", "test")])
@pytest.mark.parametrize("shown", [pytest.param(BOXES, id="boxes"), pytest.param(WHOLE, id="classes")])
def test_the_same_scenes_are_the_same_data_set_in_every_format(
    form: str, splits: tuple[str, ...], shown: list[list[Shown]], make_data: Make, tmp_path: Path
) -> None:
    data = make_data(shown, splits=splits)
    again = back(data, form, tmp_path)
    assert again.digest == data.digest
    assert again.counts() == data.counts()
    assert open_dataset(again.root).digest == data.digest


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_is_recognized_by_what_lies_in_it(form: str, make_data: Make, tmp_path: Path) -> None:
    data = make_data(BOXES)
    out = tmp_path / form
    out.mkdir()
    WRITERS[form](data, out)
    assert find_format(out) == form


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_outlines_survive(form: str, make_data: Make, tmp_path: Path) -> None:
    outline = ((1.0, 2.0, 30.5, 2.0, 30.5, 20.25),)
    data = make_data([[Shown(label="cat", box=(1.0, 2.0, 30.5, 20.25), polygons=outline)], [], [], []])
    again = {item.sha256: item.shown for item in back(data, form, tmp_path).items}
    assert again == {item.sha256: item.shown for item in data.items}


@pytest.mark.parametrize("form", ["coco", "csv", "folder"])
def test_sessions_survive(form: str, make_data: Make, tmp_path: Path) -> None:
    data = make_data(BOXES, splits=("train", "train", "test", "test"), sessions=("a", "a", "b", None))
    again = back(data, form, tmp_path)
    assert sorted((i.sha256, i.session) for i in again.items if i.session) == sorted(
        (i.sha256, i.session) for i in data.items if i.session
    )


@pytest.mark.parametrize("form", ["coco", "voc", "folder"])
def test_an_unlabelled_picture_stays_unlabelled(form: str, make_data: Make, tmp_path: Path) -> None:
    data = make_data(BOXES, labelled=(True, True, False, True))
    assert back(data, form, tmp_path).counts() == data.counts()


def test_what_a_format_cannot_say_is_said(make_data: Make, tmp_path: Path) -> None:
    data = make_data(BOXES, labelled=(True, True, False, True))
    said = {}
    for form, write in WRITERS.items():
        (tmp_path / form).mkdir()
        said[form] = write(data, tmp_path / form)
    assert "1 crowds" in said["yolo"][0]
    assert "unlabelled" in said["yolo"][1]
    assert "1 crowds" in said["label-studio"][0]
    assert said["coco"] == []


@pytest.mark.parametrize("shown", [pytest.param(BOXES, id="boxes"), pytest.param(WHOLE, id="classes")])
def test_label_studio_and_cvat_give_back_what_they_got(shown: list[list[Shown]], make_data: Make) -> None:
    data = make_data(shown)
    plain = {item.sha256: tuple(Shown(label=s.label, box=s.box) for s in item.shown) for item in data.items}
    assert label_studio.read_labels(label_studio.tasks(data, {})) == plain
    names = {item.name: plain[item.sha256] for item in data.items}
    assert cvat.read_labels(cvat.annotations(data, {})) == names


def test_proposals_are_offered_and_are_no_labels(make_data: Make, tmp_path: Path) -> None:
    data = make_data([[], [], []], labelled=(False, False, False))
    seen = Proposal(shown=Shown(label=HARD, box=(1.0, 2.0, 3.0, 4.0)), score=0.75)
    raw_tasks = label_studio.tasks(data, {data.items[0].name: [seen]})
    assert json.loads(raw_tasks)[0]["predictions"][0]["result"][0]["score"] == 0.75
    assert label_studio.read_labels(raw_tasks) == {}
    told = json.loads(raw_tasks)
    told[0]["annotations"] = [{"result": told[0]["predictions"][0]["result"]}]
    (tmp_path / "export.json").write_text(json.dumps(told))
    labelled, count = take_labels(data, tmp_path / "export.json")
    assert count == 1
    assert [item.labelled for item in labelled.items] == [True, False, False]
    assert labelled.items[0].shown == (seen.shown,)


def test_labels_of_other_pictures_are_refused(make_data: Make, tmp_path: Path) -> None:
    data, other = make_data(BOXES), make_data(WHOLE[:1] * 9, name="other")
    (tmp_path / "export.json").write_bytes(label_studio.tasks(other, {}))
    with pytest.raises(DataError, match="speaks of"):
        take_labels(data, tmp_path / "export.json")


def test_arrays_become_pictures(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (5, 9, 8, 3)).astype(np.uint8), np.array([[0], [1], [2], [1], [0]])
    np.savez(tmp_path / "a.npz", x_train=x[:3], y_train=y[:3], x_test=x[3:], y_test=y[3:])
    raws = list(arrays.read_npz(tmp_path / "a.npz", names=["ant", "bee", "cow"]))
    assert [(each.split, each.shown[0].label) for each in raws] == [
        ("train", "ant"), ("train", "bee"), ("train", "cow"), ("test", "bee"), ("test", "ant"),
    ]  # fmt: skip
    data = import_pictures(iter(raws), tmp_path / "data", source={})
    assert (data.items[0].width, data.items[0].height) == (8, 9)


def write_idx(folder: Path, kind: str, pictures: np.ndarray, labels: np.ndarray, *, zipped: bool = False) -> None:
    for name, array in ((f"{kind}-images-idx3-ubyte", pictures), (f"{kind}-labels-idx1-ubyte", labels)):
        content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_become_pictures(zipped: bool, tmp_path: Path) -> None:
    pictures = np.arange(4 * 20 * 20, dtype=np.int64).reshape(4, 20, 20).astype(np.uint8)
    write_idx(tmp_path, "train", pictures, np.array([3, 1, 4, 1], np.uint8), zipped=zipped)
    write_idx(tmp_path, "t10k", pictures[:2], np.array([5, 9], np.uint8), zipped=zipped)
    assert find_format(tmp_path) == "idx"
    raws = list(arrays.read_idx(tmp_path))
    assert sorted(f"{each.split} {each.shown[0].label}" for each in raws) == [
        "test 5", "test 9", "train 1", "train 1", "train 3", "train 4",
    ]  # fmt: skip


def test_a_public_set_comes_from_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras import datasets

    x, y = np.zeros((2, 28, 28), np.uint8), np.array([9, 0], np.uint8)
    monkeypatch.setattr(datasets.fashion_mnist, "load_data", lambda: ((x, y), (x, y)))
    chosen, raws = read_source("fashion-mnist", "auto")
    assert chosen == "keras.datasets"
    assert [each.shown[0].label for each in raws] == ["Ankle boot", "T-shirt/top"] * 2


def test_a_public_set_that_cannot_be_fetched_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras import datasets

    def fail() -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.mnist, "load_data", fail)
    with pytest.raises(DataError, match="by hand"):
        list(arrays.public("mnist"))


@pytest.mark.parametrize(
    ("given", "want"),
    [
        pytest.param(["train", "val"], {"train": "train", "val": "test"}, id="validation is the test"),
        pytest.param(
            ["train", "valid", "test"], {"train": "train", "valid": "calibration", "test": "test"}, id="and calibration"
        ),
        pytest.param(["Training", "Test"], {"Training": "train", "Test": "test"}, id="other words"),
        pytest.param(["train", "unsplit"], {"train": "train"}, id="some have none"),
        pytest.param(["train", "holiday"], None, id="no word for a split"),
        pytest.param(["val", "test"], None, id="nothing to train on"),
    ],
)
def test_what_others_call_their_splits(given: list[str], want: dict[str, str] | None) -> None:
    if want is None:
        with pytest.raises(DataError):
            split_names(given, Path("there"))
    else:
        assert split_names(given, Path("there")) == want


def test_names_are_kept_apart_when_folders_are_flattened(tmp_path: Path, picture: Picture) -> None:
    raws = [
        Raw(name=name, content=picture(number), shown=(Shown(label="a"),))
        for number, name in enumerate(("x/a.png", "x_a.png", "b.png", "c.png"))
    ]
    data = import_pictures(iter(raws), tmp_path / "data", source={})
    assert back(data, "folder", tmp_path).digest == data.digest


def test_images_that_differ_only_in_their_suffix_keep_their_own_labels(tmp_path: Path, picture: Picture) -> None:
    raws = [
        Raw(name=name, content=picture(number), shown=(Shown(label=name[-3:], box=(1.0, 1.0, 9.0, 9.0)),))
        for number, name in enumerate(("a.jpg", "a.png", "A.bmp", "b.png"))
    ]
    data = import_pictures(iter(raws), tmp_path / "data", source={})
    for form in FORMATS:
        assert back(data, form, tmp_path).digest == data.digest


def test_a_stray_folder_beside_the_splits_is_passed_over_or_named(make_data: Make, tmp_path: Path) -> None:
    data = make_data(WHOLE, splits=("train", "train", "test", "test"))
    (tmp_path / "set").mkdir()
    WRITERS["folder"](data, tmp_path / "set")
    (tmp_path / "set" / "__MACOSX").mkdir()
    assert {each.split for each in READERS["folder"][1](tmp_path / "set")} == {"train", "test"}
    (tmp_path / "set" / "docs").mkdir()
    (tmp_path / "set" / "docs" / "logo.png").touch()
    with pytest.raises(DataError, match="'docs' beside them"):
        list(READERS["folder"][1](tmp_path / "set"))


def test_voc_beside_images_finds_its_labels(make_data: Make, tmp_path: Path) -> None:
    data = make_data(BOXES)
    (tmp_path / "set").mkdir()
    WRITERS["voc"](data, tmp_path / "set")
    (tmp_path / "set" / "JPEGImages").rename(tmp_path / "set" / "images")
    again = import_pictures(read_source(str(tmp_path / "set"), "auto")[1], tmp_path / "again", source={})
    assert again.digest == data.digest


def test_what_a_tool_cannot_say_stays_with_what_did_not_change(make_data: Make, tmp_path: Path) -> None:
    outline = ((1.0, 2.0, 30.5, 2.0, 30.5, 20.25),)
    kept = Shown(label="cat", box=(1.0, 2.0, 30.5, 20.25), polygons=outline)
    crowd = Shown(label="cat", box=(3.33, 2.0, 40.0, 20.0), crowd=True)
    data = make_data([[kept, crowd], [kept], [], []])
    (tmp_path / "export").write_bytes(label_studio.tasks(data, {}))
    assert take_labels(data, tmp_path / "export")[0].digest == data.digest
    (tmp_path / "export").write_bytes(cvat.annotations(data, {}))
    again, count = take_labels(data, tmp_path / "export")
    assert (again.digest, count) == (data.digest, 2)
    assert take_labels(data, tmp_path / "export", empty=True)[1] == 4
