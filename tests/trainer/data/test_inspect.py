"""The figures of a data set are those one counts by hand, and its page trusts nothing it shows."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from msgspec.structs import replace

from tinysight_trainer.data.cells import box_figures
from tinysight_trainer.data.dataset import IMAGES, Dataset
from tinysight_trainer.data.inspect import findings, inspect_data, pick
from tinysight_trainer.data.inspect_page import inspection_page
from tinysight_trainer.data.item import Item, LeftOut, Shown, Split, SplitFigures

Run = Callable[..., subprocess.CompletedProcess[str]]

INPUT = (128, 96)
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "$x^2$ [/red]", "猫 é")


def made(
    root: Path, contents: Sequence[tuple[Split | None, Sequence[Shown]]], *, labelled: bool = True, count: int = 0
) -> Dataset:
    """Pictures of 256x192, which the model sees at half their size."""
    (root / IMAGES).mkdir(parents=True, exist_ok=True)
    items = []
    for number, (split, shown) in enumerate(contents, start=count):
        path = root / IMAGES / f"{number}.png"
        cv2.imwrite(str(path), np.full((192, 256, 3), 40 + number, np.uint8))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        item = Item(name=path.name, sha256=digest, width=256, height=192, split=split, shown=tuple(shown))
        items.append(replace(item, labelled=labelled))
    return Dataset(root, (), None).with_items(items)


def box(label: str, x: float, y: float, w: float = 40, h: float = 40) -> Shown:
    return Shown(label=label, box=(x, y, x + w, y + h))


@pytest.fixture
def small(tmp_path: Path) -> Dataset:
    """Four labelled pictures and one that is not; seven boxes, one of them a crowd."""
    data = made(
        tmp_path,
        [
            ("train", [box("a", 0, 0), box("a", 1, 1), box("a", 100, 100), box("b", 100, 100)]),
            ("train", [box("a", 10, 10, w=14), Shown(label="b", box=(0, 0, 4, 4), crowd=True)]),
            ("test", [box("a", 10, 10)]),
            ("test", []),
        ],
    )
    extra = replace(data.items[3], name="9.png", labelled=False, split=None, width=192, height=256)
    sessions = ("s", "s", "t", None)
    items = [replace(item, session=session) for item, session in zip(data.items, sessions, strict=True)]
    return data.with_items([*items, extra])


def test_counts_are_those_of_a_hand_count(small: Dataset) -> None:
    found = inspect_data(small, INPUT)
    assert (found.total, found.unlabelled, found.empty, found.shown) == (5, 1, 1, 7)
    assert found.pictures == {"train": 2, "test": 2, "unlabelled": 1}
    assert (found.sessions, found.largest_session) == (2, ("s", 2))
    assert found.objects == {"a": {"train": 4, "test": 1}, "b": {"train": 2}}
    assert found.lacking == {"test": ("b",)}
    assert found.imbalance == 2.5
    assert found.per_picture == {0: 1, 1: 1, 2: 1, 4: 1}
    assert found.sizes == ((256, 192, 4), (192, 256, 1))
    assert (found.widths, found.heights) == ((192, 256), (192, 256))
    assert found.aspects == (("4:3", 4), ("3:4", 1))


def test_boxes_are_measured_in_model_pixels(small: Dataset) -> None:
    (found,) = box_figures(small, [INPUT])
    assert found.sides_px.tolist() == [[20, 20]] * 4 + [[7, 20], [20, 20]], "without the crowd"
    assert found.too_small == pytest.approx(1 / 6)
    assert found.pairs == 3, "three of class a in the first picture"
    assert found.same_cell_pairs == pytest.approx(1 / 3)
    assert found.hidden == pytest.approx(1 / 6)
    assert found.centres[0].tolist() == pytest.approx([20 / 256, 20 / 192])


def test_the_letterbox_is_that_of_the_device(tmp_path: Path) -> None:
    data = made(tmp_path, [("train", [box("a", 0, 0)])])
    data = data.with_items([replace(data.items[0], width=512, height=192)])
    (found,) = box_figures(data, [INPUT])  # a quarter of the size, with bars above and below
    assert found.sides_px.tolist() == [[10, 10]]


def test_what_is_lost_comes_with_advice(small: Dataset) -> None:
    said = " ".join(findings(inspect_data(small, INPUT)))
    assert "16.7% of the boxes are smaller than one cell" in said
    assert "--input 192x144" in said
    assert "33.3% of the pairs" in said
    assert "The test pictures lack b." in said
    assert "1 of 5 pictures are not labelled" in said


def test_nothing_is_said_of_a_sound_set(tmp_path: Path) -> None:
    data = made(tmp_path, [("train", [box("a", 9, 9)]), ("train", []), ("calibration", [box("a", 5, 5)])])
    assert findings(inspect_data(data, INPUT)) == ()


@pytest.mark.parametrize(
    ("leak", "said"), [pytest.param(0.3, "30.0% of the test", id="leaks"), pytest.param(0.0, "", id="tight")]
)
def test_a_leak_is_named(small: Dataset, leak: float, said: str) -> None:
    figures = SplitFigures(leak=leak, random_leak=0.5, how="session")
    found = inspect_data(Dataset(small.root, small.items, small.task, figures=figures), INPUT)
    assert any(said in each for each in findings(found))
    assert any("flatters" in each for each in findings(found)) == bool(said)


def test_samples_are_the_same_each_time_and_no_more_than_asked(small: Dataset) -> None:
    groups = pick(small, per_group=2, whole=1, labels=["a"])
    assert groups == pick(small, per_group=2, whole=1, labels=["a"])
    assert {group: len(held) for group, held in groups.items()} == {
        "class a": 2,
        "nothing": 1,
        "unlabelled": 1,
        "whole": 1,
    }


def test_crowds_are_no_samples(small: Dataset) -> None:
    (sample,) = pick(small, per_group=9, whole=0, labels=["b"])["class b"]
    assert sample[1] == box("b", 100, 100)


class Seen(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def page_of(data: Dataset) -> str:
    return inspection_page(data, inspect_data(data, INPUT)).decode()


def images_of(page: str) -> list[np.ndarray]:
    raws = [base64.b64decode(each) for each in re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)]
    return [np.asarray(cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)) for raw in raws]


def assert_harmless(page: str) -> None:
    seen = Seen(page)
    assert not {"script", "iframe", "link", "object"} & {tag for tag, _ in seen.tags}
    assert not [name for _, attrs in seen.tags for name in attrs if name.startswith("on")]
    assert all(str(attrs["src"]).startswith("data:image/") for _, attrs in seen.tags if "src" in attrs)
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)
    assert "url(" not in page


def test_hostile_names_are_text(tmp_path: Path) -> None:
    boxes = [box(label, 20 * number, 20) for number, label in enumerate(HOSTILE)]
    data = made(tmp_path, [("train", boxes), ("test", boxes[:1])])
    items = [replace(item, session=HOSTILE[0]) for item in data.items]
    left_out = tuple(LeftOut(file=HOSTILE[1], why=HOSTILE[0]) for _ in range(60))
    page = page_of(Dataset(tmp_path, tuple(items), data.task, left_out, source={HOSTILE[0]: HOSTILE[1]}))
    assert_harmless(page)
    assert "$x^2$ [/red]" in page
    assert "猫 é" in page
    assert page.count("&quot;&gt;&lt;img src=x onerror=alert(2)&gt;<td>") == 50, "the first of what was left out"


def test_the_page_holds_charts_a_sheet_per_class_and_whole_pictures(small: Dataset) -> None:
    images = images_of(page_of(small))
    charts, whole, groups = 3, 3, 2 + 2  # the groups: a, b, pictures of nothing, unlabelled ones
    assert len(images) == charts + whole + groups
    assert all(image is not None and image.size for image in images)


def test_a_picture_that_cannot_be_used_is_named(small: Dataset) -> None:
    small.path(small.items[0]).unlink()
    small.path(small.items[1]).write_bytes(b"not what it was")
    page = page_of(small)
    assert "0.png (missing)" in page
    assert "1.png (changed since it was taken in)" in page


def test_only_the_pictures_shown_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made(tmp_path, [("train", [box("a", 9, 9)])])
    first = data.items[0]
    data = data.with_items([replace(first, name=f"{number}/{first.name}") for number in range(500)])
    read: list[Path] = []

    def note(path: Path) -> bytes:
        read.append(path)
        return b""

    monkeypatch.setattr(Path, "read_bytes", note)
    page_of(data)
    assert len(read) == 24 + 12


def test_a_set_of_whole_pictures_has_a_sheet_per_class(tmp_path: Path) -> None:
    data = made(tmp_path, [("train", [Shown(label="x")]), ("test", [Shown(label="y")])])
    found = inspect_data(data, INPUT)
    assert (found.task, found.boxes, found.others) == ("classify", None, ())
    assert found.objects == {"x": {"train": 1}, "y": {"test": 1}}
    assert len(images_of(page_of(data))) == 2


def test_an_unlabelled_set_is_shown_as_it_is(tmp_path: Path) -> None:
    data = made(tmp_path, [(None, [])] * 3, labelled=False)
    page = page_of(data)
    assert len(images_of(page)) == 1
    assert "3 of 3 pictures are not labelled yet" in page


def test_an_empty_set_makes_a_page(tmp_path: Path) -> None:
    assert_harmless(page_of(Dataset(tmp_path, (), None)))


def test_many_classes_are_cut_to_the_most_and_least_frequent(tmp_path: Path) -> None:
    shown = [[Shown(label=f"c{number}")] * (1 + number) for number in range(70)]
    page = page_of(made(tmp_path, [("train", each) for each in shown]))
    assert len(images_of(page)) == 20
    assert "10 more are in the figures of --json" in page


def test_the_command_writes_the_page_and_ends_with_the_figures(small: Dataset, tmp_path: Path, tinysight: Run) -> None:
    small.save()
    page = tmp_path / "page.html"
    done = tinysight("data", "inspect", small.root, "--json", "--report", page)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"data", "digest", "findings", "lacking", "leak", "objects", "pictures", "report"} <= set(result)
    assert result["inputs"]["128x96"]["too_small"] == pytest.approx(1 / 6)
    assert page.read_bytes().startswith(b"<!doctype html>")


def test_the_command_speaks_to_people(small: Dataset, tinysight: Run) -> None:
    items = [replace(item, shown=(box("a[/red]", 9, 9),)) for item in small.items[:4]]
    small.with_items(items).save()
    told = tinysight("data", "inspect", small.root, "--input", "64x48", "--quiet")
    assert told.returncode == 0, told.stderr
    assert "at 64x48" in told.stdout
    refused = tinysight("data", "inspect", small.root, "--input", "7")
    assert refused.returncode == 2
    assert "128x96" in refused.stderr


def test_tensorflow_is_not_needed_to_look() -> None:
    block = "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'keras')))"
    command = [sys.executable, "-c", f"{block}; import tinysight_trainer.data.inspect_page"]
    subprocess.run(command, check=True)
