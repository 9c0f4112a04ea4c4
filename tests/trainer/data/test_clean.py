"""What is wrong is found and shown, and nothing is changed before a person says so."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from msgspec.structs import replace

from tinysight_contract.errors import DataError
from tinysight_edge.belt import _digits
from tinysight_trainer.data import clean
from tinysight_trainer.data.checks import KINDS, Finding, Remedy, check_boxes
from tinysight_trainer.data.clean import (
    CLEAN,
    REMOVED,
    Findings,
    apply_findings,
    find_faults,
    load_findings,
    save_findings,
)
from tinysight_trainer.data.clean_page import clean_page
from tinysight_trainer.data.dataset import IMAGES, Dataset, open_dataset
from tinysight_trainer.data.formats.raw import Raw
from tinysight_trainer.data.importer import import_pictures
from tinysight_trainer.data.item import Item, Shown

Make = Callable[..., Dataset]
Picture = Callable[..., bytes]
CAT, DOG = Shown(label="cat"), Shown(label="dog")


def box(*corners: float, label: str = "cat", crowd: bool = False) -> Shown:
    x1, y1, x2, y2 = corners
    return Shown(label=label, box=(x1, y1, x2, y2), crowd=crowd)


def plain(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def found_in(data: Dataset) -> dict[str, list[tuple[str, ...]]]:
    out: dict[str, list[tuple[str, ...]]] = {}
    for each in find_faults(data, models=False).findings:
        out.setdefault(each.kind, []).append(tuple(each.pictures))
    return out


def test_pictures_that_show_nothing_or_are_there_twice_are_found(tmp_path: Path, picture: Picture) -> None:
    good = [Raw(name=f"{n}.png", content=picture(n), shown=((CAT, DOG)[n % 2],)) for n in range(6)]
    known = np.asarray(cv2.imdecode(np.frombuffer(picture(1), np.uint8), 1))
    bright = np.clip(known * 0.8 + 30, 0, 255).astype(np.uint8)
    bad = [
        Raw(name="blank.png", content=plain(np.full((40, 40, 3), 9, np.uint8)), shown=(CAT,)),
        Raw(name="tiny.png", content=picture(50, width=6, height=6), shown=(CAT,)),
        Raw(name="same.png", content=picture(0), shown=(DOG,)),
        Raw(name="zbright.png", content=plain(bright), shown=(DOG,)),
    ]
    data = import_pictures(iter([*good, *bad]), tmp_path / "data", source={})
    (data.root / IMAGES / "2.png").write_bytes(b"not any more")
    (data.root / IMAGES / "3.png").write_bytes(picture(99))
    (data.root / IMAGES / "4.png").unlink()
    assert found_in(data) == {
        "broken": [("2.png",), ("3.png",), ("4.png",)],
        "tiny": [("tiny.png",)],
        "blank": [("blank.png",)],
        "exact-duplicate": [("same.png", "0.png")],
        "near-duplicate": [("zbright.png", "1.png")],
        "contradiction": [("same.png", "0.png")],
    }


@pytest.mark.parametrize(
    ("shown", "kinds"),
    [
        pytest.param([box(1, 1, 20, 20), box(30, 1, 50, 20)], [], id="good"),
        pytest.param([box(5, 5, 5, 20)], ["box-empty"], id="empty"),
        pytest.param([box(70, 1, 90, 20)], ["box-outside"], id="outside"),
        pytest.param([box(-9, 1, 20, 20)], ["box-sticks-out"], id="sticks out"),
        pytest.param([box(-0.5, 1, 20, 20)], [], id="rounding"),
        pytest.param([box(1, 1, 20, 20), box(1, 1, 20, 20.5)], ["box-doubled"], id="doubled"),
        pytest.param([box(1, 1, 20, 20), box(1, 1, 20, 20.5, label="dog")], ["box-contradiction"], id="two classes"),
        pytest.param([box(1, 1, 20, 20), box(1, 1, 20, 20.5, crowd=True)], [], id="a crowd around it"),
        pytest.param([CAT], [], id="no box at all"),
    ],
)
def test_what_is_wrong_with_boxes(shown: list[Shown], kinds: list[str]) -> None:
    item = Item(name="a.png", sha256="0" * 64, width=64, height=48, shown=tuple(shown))
    assert [each.kind for each in check_boxes(item)] == kinds


def accepted(data: Dataset, *remedies: tuple[str, Remedy]) -> Dataset:
    findings = Findings(
        digest=data.digest,
        findings=[
            Finding(id=str(n), kind="broken", pictures=[name], why="", strength=1, remedy=remedy)
            for n, (name, remedy) in enumerate(remedies)
        ],
    )
    return apply_findings(data, findings, findings.findings)


def test_only_what_was_accepted_is_done(make_data: Make) -> None:
    data = make_data([[box(1, 1, 9, 9), box(20, 1, 30, 9)], [box(-9, 1, 20, 20)], [box(1, 1, 9, 9)], []])
    cleaned = accepted(
        data,
        ("000.png", Remedy(act="remove-box", index=0)),
        ("000.png", Remedy(act="set-label", index=1, label="dog")),
        ("001.png", Remedy(act="set-box", index=0, box=(0.0, 1.0, 20.0, 20.0))),
        ("003.png", Remedy(act="add-box", label="cow", box=(2.0, 2.0, 8.0, 8.0))),
        ("002.png", Remedy(act="remove-picture")),
    )
    shown = {item.name: item.shown for item in cleaned.items}
    assert shown == {
        "000.png": (box(20, 1, 30, 9, label="dog"),),
        "001.png": (box(0, 1, 20, 20),),
        "003.png": (box(2, 2, 8, 8, label="cow"),),
    }
    assert open_dataset(data.root).items == cleaned.items
    assert not (data.root / IMAGES / "002.png").exists()


def test_pictures_taken_out_are_kept_with_what_they_showed(make_data: Make, picture: Picture) -> None:
    data = make_data([[CAT], [DOG], [CAT], [DOG]])
    accepted(data, ("001.png", Remedy(act="remove-picture")))
    (folder,) = (data.root / REMOVED).iterdir()
    assert (folder / IMAGES / "001.png").read_bytes() == picture(1)
    assert json.loads((folder / "items.json").read_text())[0]["shown"] == [{"label": "dog"}]


def test_a_full_disk_while_applying_changes_nothing(make_data: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data([[CAT], [DOG], [CAT], [DOG]])
    before = (data.root / "annotations.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(clean, "replace_file", full)
    with pytest.raises(OSError, match="No space"):
        accepted(data, ("001.png", Remedy(act="remove-picture")))
    assert (data.root / "annotations.json").read_bytes() == before
    assert (data.root / IMAGES / "001.png").exists()


@pytest.mark.parametrize(
    ("name", "remedy", "said"),
    [
        pytest.param("../../etc/passwd", Remedy(act="remove-picture"), "no picture", id="another file"),
        pytest.param("000.png", Remedy(act="remove-box", index=7), "shows no thing 7", id="another box"),
        pytest.param("000.png", Remedy(act="set-label", index=-1, label="x"), "shows no thing -1", id="no box"),
    ],
)
def test_findings_that_do_not_fit_are_refused(name: str, remedy: Remedy, said: str, make_data: Make) -> None:
    data = make_data([[CAT], [DOG], [CAT], [DOG]])
    with pytest.raises(DataError, match=said):
        accepted(data, (name, remedy))


def test_findings_of_another_state_are_refused(make_data: Make, tmp_path: Path) -> None:
    data = make_data([[CAT], [DOG], [CAT], [DOG]])
    findings = find_faults(data, models=False)
    changed = data.with_items([replace(item, shown=(CAT,)) for item in data.items])
    with pytest.raises(DataError, match="has changed since"):
        apply_findings(changed, findings, [])
    empty = (
        b'{"digest":"","findings":[{"id":"","kind":"","pictures":[],"why":"","strength":1,"remedy":{"act":"add-box"}}]}'
    )
    for content, said in (
        (b"{", "damaged"),
        (empty, "damaged"),
        (b'{"schema":9,"digest":"","findings":[]}', "schema 9"),
    ):
        (tmp_path / CLEAN).write_bytes(content)
        with pytest.raises(DataError, match=said):
            load_findings(tmp_path / CLEAN)
    with pytest.raises(DataError, match="Run `tinysight data clean` first"):
        load_findings(tmp_path / "none.json")


def test_the_list_comes_back_as_it_was_written(make_data: Make, tmp_path: Path) -> None:
    data = make_data([[box(5, 5, 5, 20)], [box(-9, 1, 20, 20)], [], []])
    findings = find_faults(data, models=False)
    save_findings(tmp_path / CLEAN, findings)
    assert load_findings(tmp_path / CLEAN) == findings
    assert findings.counts() == {"box-empty": 1, "box-sticks-out": 1}
    assert [each.id for each in find_faults(data, models=False).findings] == [each.id for each in findings.findings]


def test_the_page_shows_every_finding_and_no_label_can_script_it(make_data: Make) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    data = make_data([[box(-9, 1, 20, 20, label=evil)], [box(5, 5, 5, 20, label=evil)], [], []])
    page = clean_page(data, find_faults(data, models=False)).decode()
    assert evil not in page
    assert page.count("class=f ") == 2
    assert "http" not in page
    held = re.search(r"<script type=application/json id=held>(.*?)</script>", page, re.DOTALL)
    assert held is not None
    assert evil in json.loads(held[1])["findings"][0]["why"]
    assert all(page.count(f"<h2>{kind}") <= 1 for kind in KINDS)


def test_the_buttons_of_the_page_decide(make_data: Make, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    data = make_data([[box(-9, 1, 20, 20)], [box(5, 5, 5, 20)], [box(5, 5, 5, 30)], []])
    press = (
        "<script>document.querySelector('[data-kind=box-empty][data-d=accept]').click();"
        "document.querySelector('.f[data-decision=open] [data-d=reject]').click()</script></body>"
    )
    page = clean_page(data, find_faults(data, models=False)).decode().replace("</body>", press)
    (tmp_path / "page.html").write_text(page)
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"]
    shown = subprocess.run(
        [*command, f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True, timeout=120, check=True
    )
    assert "2 accepted, 1 rejected, 0 open" in shown.stdout
    assert "CONSOLE" not in shown.stderr


def digits_data(root: Path, *, count: int, wrong: set[int] = frozenset(), turned: set[int] = frozenset()) -> Dataset:  # type: ignore[assignment]  # an empty set
    images, labels = _digits()
    raws = []
    for number in range(count):
        image = 255 - np.clip(cv2.resize(images[number] * 16.0, (32, 32), interpolation=cv2.INTER_CUBIC), 0, 255)
        label = (int(labels[number]) + (3 if number in wrong else 0)) % 10
        image = np.rot90(image, 1) if number in turned else image
        content = plain(np.ascontiguousarray(image.astype(np.uint8)))
        raws.append(Raw(name=f"{number:04d}.png", content=content, shown=(Shown(label=str(label)),)))
    return import_pictures(iter(raws), root, source={})


def test_wrong_labels_and_turned_pictures_are_found_among_real_digits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wrong = set(rng.choice(1200, 36, replace=False).tolist())
    turned = {n for n in range(1, 1200, 60) if n not in wrong}
    data = digits_data(tmp_path / "data", count=1200, wrong=wrong, turned=turned)
    found = find_faults(data)
    mislabels = {int(each.pictures[0][:4]) for each in found.findings if each.kind == "mislabel"}
    assert len(mislabels & wrong) / len(wrong) >= 0.85
    assert len(mislabels & (wrong | turned)) / len(mislabels) >= 0.8
    lying = {int(each.pictures[0][:4]) for each in found.findings if each.kind == "turned"}
    assert len(lying & turned) >= 5
    assert len(lying & turned) / len(lying) >= 0.6
    right = {item.name: item.shown[0].label for item in digits_data(tmp_path / "right", count=1200).items}
    better = [
        each.remedy.label == right[each.pictures[0]]
        for each in found.findings
        if each.kind == "mislabel" and int(each.pictures[0][:4]) in wrong
    ]
    assert sum(better) / len(better) > 0.9


def test_boxes_that_are_missing_misplaced_or_misnamed_are_found(
    tmp_path: Path, tinysight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two models to train for what is not asked here.
    monkeypatch.setattr("tinysight_trainer.data.mislabels.check_turned", lambda *_: [])
    assert tinysight("data", "synth", "belt", "--out", "data", "--images", "400", "--quiet").returncode == 0
    data = open_dataset(tmp_path / "data")
    spoiled, truth = [], {"box-overlooked": set[str](), "box-misplaced": set[str](), "box-mislabel": set[str]()}
    for number, item in enumerate(data.items):
        clear = [at for at, shown in enumerate(item.shown) if not shown.crowd]
        shown = list(item.shown)
        if number % 12 == 0 and clear:
            del shown[clear[0]]
            truth["box-overlooked"].add(item.name)
        elif number % 12 == 4 and clear:
            x1, y1, x2, y2 = shown[clear[0]].box or (0, 0, 0, 0)
            half = (x2 - x1) * 0.4
            shown[clear[0]] = replace(shown[clear[0]], box=(x1 + half, y1, x2 + half, y2))
            truth["box-misplaced"].add(item.name)
        elif number % 12 == 8 and clear:
            shown[clear[0]] = replace(shown[clear[0]], label=str((int(shown[clear[0]].label) + 5) % 10))
            truth["box-mislabel"].add(item.name)
        spoiled.append(replace(item, shown=tuple(shown)))
    data = data.with_items(spoiled)
    found = find_faults(data)
    for kind, names in truth.items():
        named = {each.pictures[0] for each in found.findings if each.kind == kind}
        recall, precision = len(named & names) / len(names), len(named & names) / max(len(named), 1)
        print(kind, len(names), len(named), recall, precision)  # noqa: T201 -- shown when it fails
        assert recall >= 0.5
        assert precision >= 0.5


def test_clean_and_apply_from_the_command_line(make_data: Make, tinysight: Any) -> None:
    data = make_data([[box(5, 5, 5, 20)], [box(-9, 1, 20, 20)], [box(1, 1, 9, 9)], [box(1, 1, 9, 9)]])
    done = tinysight("data", "clean", data.root, "--no-models", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["findings"], result["box-empty"], result["box-sticks-out"]) == (2, 1, 1)
    assert (data.root / "clean.html").read_bytes().startswith(b"<!doctype html>")
    assert open_dataset(data.root).digest == data.digest
    done = tinysight("data", "apply", data.root, "--json")
    assert json.loads(done.stdout)["accepted"] == 0
    assert open_dataset(data.root).digest == data.digest
    done = tinysight("data", "apply", data.root, "--accept", "box-empty,box-sticks-out", "--json")
    assert done.returncode == 0, done.stderr
    assert find_faults(open_dataset(data.root), models=False).findings == []
    done = tinysight("data", "apply", data.root, "--accept", "everything")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = tinysight("data", "apply", data.root)
    assert "has changed since" in done.stderr
