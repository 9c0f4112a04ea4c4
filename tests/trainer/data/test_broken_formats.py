"""What is broken or hostile is an error that names the place, and nothing else happens."""

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tinysight_contract.errors import DataError, TinySightError
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.formats import READERS, WRITERS, arrays, find_format, raw, read_source
from tinysight_trainer.data.item import Shown
from tinysight_trainer.data.label import take_labels

Make = Callable[..., Dataset]
Picture = Callable[..., bytes]

BOXES = [[Shown(label="cat", box=(1.0, 2.0, 30.5, 20.25))], [], [], []]
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
    sized = {"original_width": 9, "original_height": 9, **result}
    return json.dumps([{"data": {"sha256": "x"}, "annotations": [{"result": [sized]}]}]).encode()


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
        pytest.param("yolo", {"data.yaml": "names: !!bool x"}, "no YAML", id="yolo yaml of no kind"),
        pytest.param("yolo", {"data.yaml": "names: !!timestamp abc"}, "no YAML", id="yolo yaml of no time"),
        pytest.param("yolo", listed("0 0.1 0.1 nan 0.2 0.3 0.3"), "line 1", id="yolo outline of no number"),
        pytest.param("coco", coco(annotations=[{**NOTE, "segmentation": [["nan", 1]]}]), "no list", id="coco outline"),
        pytest.param("voc", one_voc("<size><width>nan</width><height>1</height></size>"), "no box", id="voc size"),
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
    head = {3: b"\0\0\x08\x03" + struct.pack(">3I", 3, 4, 4), 1: b"\0\0\x08\x01" + struct.pack(">I", 3)}
    (tmp_path / "train-images-idx3-ubyte").write_bytes(head[3] + pictures.tobytes())
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(head[1] + labels.tobytes())
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


@pytest.mark.parametrize("header", ["{1:2,'a':3}", "{[]:1}", "{'descr':(),'fortran_order':False,'shape':(1,)}"])
def test_a_header_that_is_no_header_is_refused(header: str, tmp_path: Path) -> None:
    text = header + " " * (117 - len(header)) + "\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as made:
        for name in ("x.npy", "y.npy"):
            made.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())
    with pytest.raises(DataError, match="no array"):
        list(arrays.read_npz(tmp_path / "a.npz"))
