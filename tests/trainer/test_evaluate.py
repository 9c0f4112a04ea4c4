"""An evaluation counts right, shows what it counts, and points at what an answer rests on."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinysight_contract.errors import DataError
from tinysight_converters.metrics import calibration, coco_figures, confusion
from tinysight_converters.run import Example, load_run
from tinysight_edge.decode import Detections
from tinysight_trainer.data.dataset import open_dataset

BROWSER = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    scores, ids = (np.array([row[at] for row in rows]) for at in (4, 5))
    return Detections(boxes, scores.astype(np.float32), ids.astype(np.int32))


def true(*boxes: tuple[float, float, float, float, int], crowd: tuple[bool, ...] = ()) -> Example:
    return Example(
        name="a.jpg",
        sha256="0" * 64,
        boxes=[box[:4] for box in boxes],
        class_ids=[box[4] for box in boxes],
        crowd=list(crowd or [False] * len(boxes)),
    )


def test_what_is_taken_for_what_is_counted_with_nothing_as_a_class() -> None:
    truth = [true((0, 0, 10, 10, 0), (20, 0, 30, 10, 1), (40, 0, 50, 10, 1)), true()]
    seen = [
        found((0, 0, 10, 10, 0.9, 0), (20, 0, 30, 10, 0.8, 0), (70, 0, 80, 10, 0.7, 1)),
        found((1, 1, 5, 5, 0.6, 0)),
    ]
    assert confusion(seen, truth, 2, threshold=0.5).tolist() == [[1, 0, 0], [1, 0, 1], [1, 1, 0]]
    assert confusion(seen, truth, 2, threshold=0.95).tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]


def test_crowds_are_taken_for_nothing() -> None:
    from tinysight_trainer.evaluate import _badness

    truth = true((0, 0, 100, 100, 0), (200, 0, 210, 10, 1), crowd=(True, True))
    within = found((0, 0, 10, 10, 0.9, 0), (5, 5, 90, 95, 0.9, 0), (0, 0, 99, 99, 0.8, 0))
    assert confusion([within], [truth], 2, threshold=0.5).sum() == 0
    assert _badness(within, truth, 0.5) == 0
    other = found((0, 0, 10, 10, 0.9, 1))  # as hits() and COCO count it: a crowd excuses its own class alone
    assert confusion([other], [truth], 2, threshold=0.5).tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert _badness(other, truth, 0.5) == pytest.approx(0.9)


def test_calibration_is_the_gap_between_score_and_share() -> None:
    error, bins = calibration(
        np.array([0.9] * 10 + [0.3] * 10), np.array([True] * 9 + [False] + [True] * 3 + [False] * 7)
    )
    assert error == pytest.approx(0.0)
    assert [(round(score, 2), share, count) for score, share, count in bins] == [(0.3, 0.3, 10), (0.9, 0.9, 10)]
    assert calibration(np.array([1.0, 1.0]), np.array([True, False]))[0] == 0.5
    assert calibration(np.array([]), np.array([], bool)) == (0.0, [])


def test_average_precision_by_size_says_when_there_is_nothing_of_a_size() -> None:
    truth = [true((0, 0, 10, 10, 0), (20, 20, 80, 80, 1))]
    figures, by_class = coco_figures([found((0, 0, 10, 10, 0.9, 0), (20, 20, 80, 80, 0.9, 1))], truth, 3)
    assert [figures["ap_small"], figures["ap_medium"]] == pytest.approx([1.0, 1.0])
    assert figures["ap_large"] is None
    assert by_class == [pytest.approx(1.0), pytest.approx(1.0), None]
    figures, by_class = coco_figures([found()], truth, 3)
    assert (figures["ap50"], figures["ap_small"], figures["ap_large"]) == (0.0, 0.0, None)
    assert by_class == [0.0, 0.0, None]


@pytest.mark.parametrize("name", ["detector", "classifier", "detector.bundle", "classifier.bundle"])
def test_the_page_of_a_run_or_a_bundle_opens_in_a_browser(
    name: str, world: Path, tinysight_warm: Any, tmp_path: Path
) -> None:
    data = world / ("belt" if name.startswith("detector") else "digits")
    done = tinysight_warm("evaluate", world / name, "--data", data, "--report", "page.html", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    told = json.loads((tmp_path / "page.figures.json").read_text())
    assert told["figures"]["pictures"] == figures["pictures"] == len(open_dataset(data).of("test"))
    assert sum(row["number"] for row in told["by_class"]) > 0
    page = (tmp_path / "page.html").read_text()
    assert "http" not in page
    assert page.count("<figure>") >= 6
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    shown = subprocess.run(
        [chromium, *BROWSER, f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom",
         f"file://{tmp_path / 'page.html'}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in shown.stderr
    assert "What it looked at" in shown.stdout


@pytest.mark.parametrize(("name", "data"), [("detector", "belt"), ("classifier", "digits")])
def test_a_run_answers_as_its_conversion_does(name: str, data: str, world: Path) -> None:
    from tinysight_trainer.evaluate import examples_for, open_subject

    run, bundle = open_subject(world / name), open_subject(world / f"{name}.bundle", scheme="float32")
    examples, root, _ = examples_for(run, open_dataset(world / data), "test")
    for example in examples[:5]:
        picture = example.picture(root)
        mine, theirs = run.find(picture), bundle.find(picture)
        assert len(mine) == len(theirs) > 0
        assert np.array_equal(mine.class_ids[:1], theirs.class_ids[:1])
        assert mine.scores == pytest.approx(theirs.scores, abs=1e-4)
        assert mine.boxes_px[:1] == pytest.approx(theirs.boxes_px[:1], abs=0.05)


def test_a_page_within_a_run_leaves_the_run_as_it_is(world: Path, tmp_path: Path, tinysight_warm: Any) -> None:
    shutil.copytree(world / "classifier", tmp_path / "r")
    assert tinysight_warm("evaluate", "r", "--report", "r/run.html", "--quiet").returncode == 0
    assert load_run(tmp_path / "r") == load_run(world / "classifier")


def test_figures_of_a_classifier_are_counted_by_hand(world: Path) -> None:
    from tinysight_trainer.evaluate import evaluate, examples_for, open_subject

    subject = open_subject(world / "classifier")
    examples, root, notes = examples_for(subject, open_dataset(world / "digits"), "test")
    done = evaluate(subject, examples, root)
    right = [each.class_ids[0] == example.class_ids[0] for each, example in zip(done.found, examples, strict=True)]
    assert done.figures["accuracy"] == pytest.approx(np.mean(right))
    assert done.counts.sum() == len(examples)
    assert np.trace(done.counts) == sum(right)
    assert [bool(bad > 0) for bad in done.badness] == [not each for each in right]
    assert not all(right)
    surest = max((e for e, good in zip(done.found, right, strict=True) if not good), key=lambda e: float(e.scores[0]))
    assert done.found[int(done.badness.argmax())].scores[0] == surest.scores[0]
    assert notes == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("detector.bundle",), "Give --data", id="a bundle without pictures"),
        pytest.param(("detector", "--data", "digits"), "is to classify, the model is to detect", id="another task"),
        pytest.param(("detector", "--data", "belt", "--split", "dream"), "There is no split", id="no such split"),
        pytest.param(("none",), "none", id="no model"),
        pytest.param(("detector", "--split", "train"), "Give --data", id="a split without its data set"),
        pytest.param(("detector", "--scheme", "int8"), "Leave out --scheme", id="a scheme of a run"),
        pytest.param(("detector", "--report", "page.json"), "end in .html", id="no page"),
        pytest.param(("detector", "--report", "none/page.html"), "There is no folder", id="a page in no folder"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(
    arguments: tuple[str, ...], said: str, world: Path, tinysight: Any
) -> None:
    names = {"detector", "detector.bundle", "belt", "digits"}
    done = tinysight("evaluate", *(world / word if word in names else word for word in arguments), "--quiet")
    assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1)


def test_classes_that_the_model_does_not_know_are_named(world: Path, tmp_path: Path, tinysight: Any) -> None:
    from tinysight_trainer.evaluate import examples_for, open_subject

    assert tinysight("data", "import", world / "folder", "--out", "d", "--rename", "7=seven", "--quiet").returncode == 0
    with pytest.raises(DataError, match="does not know 'seven'"):
        examples_for(open_subject(world / "classifier"), open_dataset(tmp_path / "d"), "all")


def test_a_picture_of_no_class_is_named(world: Path) -> None:
    from msgspec.structs import replace

    from tinysight_trainer.evaluate import examples_for, open_subject

    data = open_dataset(world / "digits")
    bare = data.with_items([replace(data.items[0], shown=()), *data.items[1:]])
    with pytest.raises(DataError, match="of 0 classes"):
        examples_for(open_subject(world / "classifier"), bare, "all")


def test_another_data_set_is_said_to_be_another(world: Path, tinysight_warm: Any) -> None:
    assert tinysight_warm("data", "synth", "belt", "--out", "d", "--images", "4", "--quiet").returncode == 0
    done = tinysight_warm("evaluate", world / "detector", "--data", "d", "--quiet")
    assert "not the data set" in done.stderr
    done = tinysight_warm("evaluate", world / "detector", "--data", world / "belt", "--split", "train", "--quiet")
    assert "only its test split" in done.stderr


def test_a_label_cannot_script_the_page(world: Path, tmp_path: Path) -> None:
    from msgspec.structs import replace

    from tinysight_converters.run import save_run
    from tinysight_trainer.evaluate import evaluate, examples_for, open_subject
    from tinysight_trainer.evaluate_page import evaluation_page

    shutil.copytree(world / "classifier", tmp_path / "r")
    run = load_run(tmp_path / "r")
    evil = "<script>alert(1)</script>"
    save_run(tmp_path / "r", replace(run, labels=[evil, "$x^2$", *run.labels[2:]]))
    subject = open_subject(tmp_path / "r")
    examples, root, _ = examples_for(subject, None, "test")
    page = evaluation_page(subject, evaluate(subject, examples, root), root).decode()
    assert evil not in page
    assert re.search(r"&lt;script&gt;alert", page)


def test_a_covering_map_points_at_what_counts() -> None:
    from tinysight_trainer.saliency import covering_map

    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    spot = picture[8:16, 40:48].astype(float).copy()

    def score(given: np.ndarray) -> float:
        return float(1 - np.abs(given[8:16, 40:48] - spot).mean() / 255)

    saliency = covering_map(score, picture)
    row, column = np.unravel_index(int(saliency.argmax()), saliency.shape)
    assert saliency.shape == (48, 64)
    assert abs(row - 12) <= 5
    assert abs(column - 44) <= 5


def test_gradients_point_at_what_a_classifier_was_built_to_see() -> None:
    import keras
    from keras import layers

    from tinysight_trainer.saliency import GradientSaliency, overlay

    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(1, 4, strides=4, use_bias=False, kernel_initializer="ones")(image)
    scores = layers.Dense(2, activation="softmax", name="scores")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, {"scores": scores})
    model.get_layer("scores").set_weights([np.array([[0.0, 1e-4]]), np.zeros(2)])
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[4:12, 20:28] = 255
    saliency = GradientSaliency(model).of(picture, 1)
    assert saliency[4:12, 20:28].mean() > 5 * saliency.mean()
    assert overlay(picture, saliency).shape == picture.shape


def test_the_cell_that_answered_is_found_though_its_box_was_cut_off() -> None:
    from tinysight_trainer.evaluate_page import _strongest

    heat = np.zeros((6, 8), np.float32)
    heat[5, 7] = 0.9
    heat[2, 2] = 1.0
    assert _strongest(heat, 0.75, 0.85) == (5, 7)
    assert _strongest(heat, 1.2, 1.2) == (5, 7)
    assert _strongest(heat, 0.3, 0.3) == (2, 2)


def test_gradients_of_a_detection_lie_around_it(world: Path) -> None:
    import keras

    from tinysight_trainer.saliency import GradientSaliency

    model = keras.models.load_model(world / "detector" / "model.keras", compile=False)
    picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    saliency = GradientSaliency(model).of(picture, 3, (2, 12))
    assert saliency.shape == (96, 128)
    near = saliency[: 2 * 8 + 48, 12 * 8 - 48 :]
    assert near.sum() > 0.9 * saliency.sum() > 0
