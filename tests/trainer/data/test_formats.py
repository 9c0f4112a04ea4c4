"""What goes out in a format comes back as it was; what is broken is an error that names the place."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinysight_contract.errors import DataError, TinySightError
from tinysight_trainer.data.dataset import Dataset, Shown, open_dataset
from tinysight_trainer.data.formats import READERS, WRITERS, arrays, cvat, find_format, label_studio, raw, read_source
from tinysight_trainer.data.formats.raw import Proposal, Raw, split_names
from tinysight_trainer.data.importer import import_pictures
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


COCO = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
NOTE = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
BOMB = '<!DOCTYPE a [<!ENTITY x "xxxx"><!ENTITY y "&x;&x;">]><annotation><object><name>&y;</name></object></annotation>'


def coco(**changes: object) -> dict[str, str]:
    return {"annotations.json": json.dumps({**COCO, **changes})}


def listed(labels: str) -> dict[str, str]:
    return {"classes.txt": "a\n", "images/a.png": "", "labels/a.txt": labels}


def told(row: str) -> dict[str, str]:
    return {"train/metadata.jsonl": row, "train/a.png": ""}


def task(**result: object) -> bytes:
    return json.dumps([{"data": {"sha256": "x"}, "annotations": [{"result": [result]}]}]).encode()


def one_voc(inner: str) -> dict[str, str]:
    return {"Annotations/a.xml": f"<annotation>{inner}</annotation>", "JPEGImages/a.png": ""}


@pytest.mark.parametrize(
    ("form", "files", "said"),
    [
        pytest.param("coco", {"annotations.json": "{"}, "no COCO file", id="coco that is no JSON"),
        pytest.param("coco", {"annotations.json": "[" * 100_000}, "no COCO file", id="coco nested without end"),
        pytest.param("coco", coco(annotations=[{**NOTE, "image_id": 7}]), "points to", id="coco to no image"),
        pytest.param("coco", coco(annotations=[{**NOTE, "category_id": 7}]), "points to", id="coco to no category"),
        pytest.param("coco", coco(annotations=[{**NOTE, "bbox": [1, 2, 3]}]), "four numbers", id="coco box of three"),
        pytest.param(
            "coco", coco(annotations=[{**NOTE, "bbox": [1, 2, 3, 1e30]}]), "no box", id="coco box without end"
        ),
        pytest.param("coco", coco(categories=COCO["categories"] * 2), "twice", id="coco category twice"),
        pytest.param("coco", coco(images=COCO["images"] * 2), "twice", id="coco image twice"),
        pytest.param(
            "coco", coco(images=[{"id": 1, "file_name": "../../etc/passwd"}]), "leaves", id="coco out of the folder"
        ),
        pytest.param(
            "coco", coco(images=[{"id": 1, "file_name": "../../set/set/a.png"}]), "leaves", id="coco out and in again"
        ),
        pytest.param("coco", coco(images=[{"id": 1, "file_name": "/etc/passwd"}]), "leaves", id="coco absolute"),
        pytest.param(
            "coco",
            {"annotations/train.json": json.dumps(COCO), "annotations/holiday.json": json.dumps(COCO)},
            "says nothing",
            id="coco unknown split",
        ),
        pytest.param(
            "voc", {"Annotations/a.xml": BOMB, "JPEGImages/a.png": ""}, "no XML that is read", id="voc entity bomb"
        ),
        pytest.param("voc", one_voc("<object></object>"), "has no name", id="voc object without a name"),
        pytest.param(
            "voc",
            one_voc("<object><name>c</name><bndbox><xmin>x</xmin></bndbox></object>"),
            "no number",
            id="voc words for numbers",
        ),
        pytest.param(
            "voc",
            one_voc(
                "<object><name>c</name><bndbox><xmin>nan</xmin><ymin>1</ymin>"
                "<xmax>2</xmax><ymax>2</ymax></bndbox></object>"
            ),
            "no box",
            id="voc not a number",
        ),
        pytest.param("voc", {"Annotations/a.xml": "<annotation>", "JPEGImages/a.png": ""}, "no XML", id="voc cut off"),
        pytest.param(
            "yolo", {"data.yaml": "names: !!python/object/apply:os.system [id]"}, "no YAML", id="yolo yaml that runs"
        ),
        pytest.param("yolo", {"data.yaml": "names: [a]\ntrain: ../..\n"}, "leaves", id="yolo out of the folder"),
        pytest.param("yolo", {"data.yaml": "names: [a]\ntrain: images\n"}, "is not there", id="yolo missing folder"),
        pytest.param(
            "yolo", {"data.yaml": "train: images\n", "images/a.png": ""}, "does not name", id="yolo without names"
        ),
        pytest.param("yolo", listed("0 .5 .5 .1 .1\n1 .5 .5 .1 .1\n"), "line 2", id="yolo unknown class"),
        pytest.param("yolo", listed("0 .5 x .1 .1\n"), "line 1", id="yolo words for numbers"),
        pytest.param("yolo", listed("0 .5 nan .1 .1\n"), "line 1", id="yolo not a number"),
        pytest.param("yolo", listed("0 .5 .5\n"), "line 1", id="yolo too few numbers"),
        pytest.param("csv", {"a.csv": "picture,kind\na.png,cat\n"}, "Name them file", id="csv other columns"),
        pytest.param("csv", {"a.csv": "file,label,x,y,w,h\na.png,cat,1,2,3,x\n"}, "line 2", id="csv words for numbers"),
        pytest.param("csv", {"a.csv": "file,label\n../a.png,cat\n"}, "leaves", id="csv out of the folder"),
        pytest.param(
            "csv",
            {"a.csv": "file,label,split\na.png,cat,train\na.png,dog,test\n"},
            "another split",
            id="csv two splits",
        ),
        pytest.param(
            "folder",
            told('{"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": []}}'),
            "1 boxes and 0 names",
            id="folder uneven",
        ),
        pytest.param("folder", told("{"), "not read", id="folder broken metadata"),
        pytest.param("folder", told('{"file_name": "../../a.png"}'), "leaves", id="folder out of the folder"),
    ],
)
def test_what_is_broken_is_an_error_that_names_the_place(
    form: str, files: dict[str, str], said: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_text(content)
    with pytest.raises(DataError, match=said) as caught:
        list(READERS[form][1](tmp_path / "set"))
    assert caught.value.mend.endswith(".")


def header_of(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (63 - (len(text) + 10) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("arrays_", "said"),
    [
        pytest.param(
            {"x": np.zeros((2, 4, 4), np.uint8), "y": np.array(["a", None], object)}, "unpickled", id="objects"
        ),
        pytest.param({"x": np.zeros((2, 4, 4), np.float32), "y": np.zeros(2, int)}, "Save uint8", id="floats"),
        pytest.param({"x": np.zeros((2, 4, 4), np.uint8), "y": np.zeros(3, int)}, "one integer", id="too many labels"),
        pytest.param({"x": np.zeros((2, 5000, 4), np.uint8), "y": np.zeros(2, int)}, "too large", id="too large"),
        pytest.param({"a": np.zeros(2)}, "holds", id="other arrays"),
    ],
)
def test_arrays_that_are_not_pictures_are_refused(arrays_: dict[str, np.ndarray], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays_)  # type: ignore[arg-type]  # numpy types **kwds as bool
    with pytest.raises(DataError, match=said):
        list(arrays.read_npz(tmp_path / "a.npz"))


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.npz", "w") as made:
        made.writestr("x.npy", header_of("(4000000, 4000, 4000)") + b"abc")
        made.writestr("y.npy", header_of("(4000000,)") + b"abc")
    with pytest.raises(DataError, match="does not fit"):
        list(arrays.read_npz(tmp_path / "a.npz"))
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:60])
    with pytest.raises(DataError, match="damaged"):
        list(arrays.read_npz(tmp_path / "b.npz"))


def test_idx_files_that_lie_are_refused(tmp_path: Path) -> None:
    pictures, labels = np.zeros((3, 4, 4), np.uint8), np.zeros(3, np.uint8)
    write_idx(tmp_path, "train", pictures, labels)
    whole = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    for content, said in (
        (whole[:-5], "ends after 2"),
        (b"\0\0\x0d\x03" + whole[4:], "no idx"),
        (whole[:6], "damaged"),
    ):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(DataError, match=said):
            list(arrays.read_idx(tmp_path))
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="missing"):
        list(arrays.read_idx(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"{", "no export", id="no JSON"),
        pytest.param(b'[{"data": {}, "annotations": [{"result": []}]}]', "which image", id="no digest"),
        pytest.param(task(type="brush", value={}), "not known", id="brush"),
        pytest.param(task(value={"rectanglelabels": ["a"], "x": 1}), "without its sides", id="half a box"),
        pytest.param(
            task(value={"rectanglelabels": ["a"], "x": 1, "y": 1, "width": 1, "height": 1, "rotation": 9}),
            "turned",
            id="turned box",
        ),
        pytest.param(b"<html/>", "of 'html'", id="other XML"),
        pytest.param(
            b"<annotations><image name='a'><polyline label='x'/></image></annotations>", "not known", id="polyline"
        ),
        pytest.param(
            b"<annotations><image name='a'><box label='x' xtl='1'/></image></annotations>",
            "without its sides",
            id="half a CVAT box",
        ),
        pytest.param(BOMB.encode(), "no XML", id="entity bomb"),
    ],
)
def test_exports_of_labelling_tools_that_are_broken_are_refused(
    content: bytes, said: str, make_data: Make, tmp_path: Path
) -> None:
    data = make_data(BOXES)
    (tmp_path / "export").write_bytes(content)
    with pytest.raises(DataError, match=said):
        take_labels(data, tmp_path / "export")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "secret.png").write_bytes(picture(1))
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="leaves"):
        list(READERS["folder"][1](tmp_path / "set"))


def test_two_formats_in_one_folder_are_refused(make_data: Make, tmp_path: Path) -> None:
    data = make_data(BOXES)
    (tmp_path / "yolo").mkdir()
    WRITERS["yolo"](data, tmp_path / "yolo")
    (tmp_path / "yolo" / "annotations.json").write_text(json.dumps(COCO))
    with pytest.raises(DataError, match="coco and yolo"):
        find_format(tmp_path / "yolo")


def test_what_is_no_data_set_at_all_is_said(make_data: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, said in (
        (tmp_path / "none", "There is no"),
        (tmp_path / "empty", "nothing that is known"),
        (make_data(BOXES).root, "already"),
    ):
        with pytest.raises(DataError, match=said):
            find_format(path)
    for form, names in (("dream", None), ("coco", ["a"])):
        with pytest.raises(TinySightError):
            read_source(str(tmp_path), form, names=names)


def test_a_huge_annotation_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "annotations.json").write_text(json.dumps(COCO))
    monkeypatch.setattr(raw.read_text, "__kwdefaults__", {"most": 10})
    with pytest.raises(DataError, match="larger than"):
        list(READERS["coco"][1](tmp_path))


def test_names_are_kept_apart_when_folders_are_flattened(tmp_path: Path, picture: Picture) -> None:
    raws = [
        Raw(name=name, content=picture(number), shown=(Shown(label="a"),))
        for number, name in enumerate(("x/a.png", "x_a.png", "b.png", "c.png"))
    ]
    data = import_pictures(iter(raws), tmp_path / "data", source={})
    assert back(data, "folder", tmp_path).digest == data.digest
