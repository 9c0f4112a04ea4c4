"""What a file says of itself need not be said; Keras models are converted; and every runtime is tried."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tinysight_contract import manifest as mf
from tinysight_contract.bundle import Bundle
from tinysight_converters.metadata import with_metadata
from tinysight_edge.decoders.stored import real
from tinysight_edge.interpreter import Model, self_test
from tinysight_edge.preprocess import Preprocessor

H, W = 32, 48
CLASSIFY = ("--decode", "classify", "--resize", "stretch", "--score", "0.1", "--activation")
Bring = Callable[..., tuple[int, str, str]]


def pictures(folder: Path, count: int = 12) -> Path:
    """A folder of images that are like those that `truth.npz` is about."""
    folder.mkdir()
    for number in range(count):
        drawn = np.random.default_rng(100 + number).integers(120, 256, (H, W, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), drawn)
    return folder


CONVERTED: dict[str, tuple[str, tuple[str, ...], mf.Scheme, float]] = {
    "a .keras in int8": (
        "classifier.keras",
        (*CLASSIFY, "none", "--pixels", "-1..1", "--scheme", "int8", "--calibration", "pictures"), "int8", 0.05,
    ),
    "a SavedModel in float16": (
        "exported", (*CLASSIFY, "none", "--mean", "127.5,127.5,127.5", "--std", "127.5,127.5,127.5",
                     "--scheme", "float16"), "float16", 5e-3,
    ),
    "a .keras with a list of outputs": (
        "detector.keras", ("--decode", "centernet", "--resize", "stretch", "--pixels", "0..1",
                           "--output", "heatmap=output_0"), "float32", 1e-4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONVERTED)
def test_a_converted_model_answers_what_keras_answers(case: str, graphs: Path, at_hand: Path, bring: Bring) -> None:
    file, flags, scheme, off = CONVERTED[case]
    pictures(at_hand / "pictures")
    status, _, err = bring(graphs / file, *flags)
    assert (status, err) == (0, "")
    bundle = Bundle.open(at_hand / "x.bundle")
    manifest, (variant,) = bundle.manifest, bundle.manifest.variants
    assert variant.scheme == scheme
    model = Model.load(bundle)
    assert self_test(bundle, model) is None
    fit = Preprocessor(manifest.input, variant.input)
    with np.load(graphs / "truth.npz") as truth:
        for seed in range(4):
            rgb = np.random.default_rng(seed).integers(120, 256, (H, W, 3)).astype(np.uint8)
            answer = model.run(fit(rgb[..., ::-1].copy())[0])
            for output in variant.outputs:
                got, want = real(answer[output.name], output)[0], truth[output.role][seed]
                assert np.abs(got - want).max() <= off * max(1.0, np.abs(want).max())
    assert [(each.name, each.ok) for each in variant.runtimes] == [("litert", True), ("tflite-runtime", True)]
    assert "tensorflow" in manifest.provenance.tools
    assert ("calibration.json" in manifest.files) is (scheme == "int8")
    if scheme == "int8":
        assert variant.input.dtype == "uint8"
        held = json.loads(bundle.read("calibration.json"))
        assert held["digest"] == manifest.provenance.calibration_digest
        assert len(held["pictures"]) == 12


def test_a_file_that_the_old_runtime_cannot_load_becomes_a_bundle_that_says_so(
    graphs: Path, at_hand: Path, bring: Bring
) -> None:
    status, out, _ = bring(graphs / "dense-dynamic.tflite", *CLASSIFY, "none", "--pixels", "-1..1")
    (variant,) = Bundle.open(at_hand / "x.bundle").manifest.variants
    assert (status, variant.scheme) == (0, "dynamic")
    new, old = variant.runtimes
    assert (new.ok, old.ok) == (True, False)
    assert "builtin opcode 'FULLY_CONNECTED' version '12'" in old.detail
    assert f"tflite-runtime 2.14.0 fails: {old.detail}" in json.loads(out)["runtimes"]


@pytest.mark.parametrize(
    ("file", "flags", "said"),
    [
        pytest.param("two-inputs.keras", (), "it takes 2 inputs", id="several inputs"),
        pytest.param("flex.keras", (), "Erfinv needs TensorFlow's own kernels", id="flex"),
        pytest.param("broken.keras", (), "is no .keras file", id="no .keras file"),
        pytest.param("missing.keras", (), "Check the path", id="no file"),
        pytest.param(".", (), "Give a folder with saved_model.pb", id="no SavedModel"),
        pytest.param("logits.tflite", ("--scheme", "int8"), "is taken as it is", id="scheme of a .tflite"),
        pytest.param("logits.tflite", ("--calibration", "."), "is taken as it is", id="calibration of a .tflite"),
        pytest.param("classifier.keras", ("--scheme", "int8"), "Give --calibration, a folder", id="int8 of nothing"),
        pytest.param("exported", ("--calibration", "."), "nothing of float32", id="calibration of float32"),
        pytest.param("classifier.keras", ("--scheme", "int4"), "Choose one of float32, float16", id="no such scheme"),
    ],
)
def test_what_cannot_be_converted_is_one_line_with_status_two_and_no_bundle(
    file: str, flags: tuple[str, ...], said: str, graphs: Path, at_hand: Path, bring: Bring
) -> None:
    (graphs / "broken.keras").write_bytes(b"PK\x03\x04 no zip")
    before = sorted(at_hand.iterdir())
    status, out, err = bring(graphs / file, *CLASSIFY, "none", "--pixels", "0..1", *flags)
    assert (status, out) == (2, "")
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert sorted(at_hand.iterdir()) == before


Say = Callable[..., Path]


@pytest.fixture
def speaking(graphs: Path, at_hand: Path, sample: Callable[..., Any]) -> Say:
    """Write a file whose metadata says labels and scaling."""

    def make(labels: tuple[str, ...] = ("day", "dusk", "night"), mean: float = 127.5, std: float = 127.5) -> Path:
        spec = mf.Input(height=H, width=W, mean=[mean] * 3, std=[std] * 3)
        manifest, _ = sample(task="classify", labels=list(labels), input=spec)
        file = at_hand / "speaks.tflite"
        file.write_bytes(with_metadata((graphs / "said.tflite").read_bytes(), manifest, threshold=0.5))
        return file

    return make


SOFTMAX = (*CLASSIFY, "softmax")


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        pytest.param(127.5, 127.5, "-1..1, as the file's metadata says", id="as usual"),
        pytest.param(0.0, 1.0, "0..255, as the file's metadata says", id="not at all"),
        pytest.param(127.0, 128.0, "mean 127, 127, 127 and deviation 128, 128, 128, as the file's metadata says",
                     id="by numbers"),
    ],
)  # fmt: skip
def test_what_the_metadata_says_need_not_be_said(
    mean: float, std: float, told: str, speaking: Say, at_hand: Path, bring: Bring
) -> None:
    status, out, err = bring(speaking(mean=mean, std=std), *SOFTMAX, labels=None)
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert (result["pixels"], result["labelled_by"]) == (told, "the file's metadata")
    manifest = Bundle.open(at_hand / "x.bundle").manifest
    assert manifest.labels == ["day", "dusk", "night"]
    assert (manifest.input.mean, manifest.input.std) == ((None, None) if std == 1.0 else ([mean] * 3, [std] * 3))


def test_flags_win_over_the_metadata(speaking: Say, at_hand: Path, bring: Bring) -> None:
    status, out, _ = bring(speaking(), *SOFTMAX, "--pixels", "0..1")
    result = json.loads(out)
    assert (status, result["pixels"], result["labelled_by"]) == (0, "0..1, as --pixels says", "labels.txt")
    manifest = Bundle.open(at_hand / "x.bundle").manifest
    assert (manifest.labels, manifest.input.std) == (["red", "green", "blue"], [255.0] * 3)


@pytest.mark.parametrize(
    ("labels", "std", "said"),
    [
        pytest.param(("day", "night"), 1.0, "3 scores for 2 labels", id="a label short"),
        pytest.param(("day",), 1.0, "does not fit classify with 1 labels", id="labels of another model"),
        pytest.param(("day", "???", "???"), 1.0, "The file's metadata: '???' stands in lines 2 and 3", id="doubled"),
        pytest.param(("day", "dusk", "night"), -1.0, "Give --pixels 0..1, -1..1, 0..255", id="no deviation at all"),
    ],
)
def test_metadata_that_cannot_be_true_is_not_believed(
    labels: tuple[str, ...], std: float, said: str, speaking: Say, at_hand: Path, bring: Bring
) -> None:
    status, out, err = bring(speaking(labels, std=std), *SOFTMAX, labels=None)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (at_hand / "x.bundle").exists()


def test_damaged_metadata_is_a_warning(speaking: Say, bring: Bring) -> None:
    file = speaking()
    file.write_bytes(file.read_bytes().replace(b"M001", b"M999"))
    status, _, err = bring(file, *SOFTMAX, "--pixels", "0..1", quiet=False)
    assert status == 0
    assert "warning: The file's metadata cannot be read: it is of an unknown kind.\n" in err
    status, _, err = bring(file, *SOFTMAX, labels=None)
    assert (status, err.count("\n")) == (2, 1)
    assert "The labels are not in the file. Give --labels" in err


@pytest.mark.parametrize(
    ("file", "flags", "rules"),
    [
        pytest.param("open-batch", (*SOFTMAX, "--pixels", "0..1"), ["dynamic-batch"], id="an open batch"),
        pytest.param("swish", (*SOFTMAX, "--pixels", "0..1"), [], id="in float, what int8 would suffer from"),
        pytest.param(
            "yolov8-sigmoid-int8", ("--decode", "yolo", "--units", "normalized", "--resize", "stretch"),
            ["concat-meanings"], id="boxes and scores with one scale",
        ),
    ],
)  # fmt: skip
def test_what_suffers_on_a_device_is_a_warning(
    file: str, flags: tuple[str, ...], rules: list[str], graphs: Path, bring: Bring
) -> None:
    status, _, err = bring(graphs / f"{file}.tflite", *flags, quiet=False)
    warned = [line.split(": ")[1] for line in err.splitlines() if line.startswith("warning: ")]
    assert (status, warned) == (0, rules)
