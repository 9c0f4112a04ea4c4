"""An ONNX file answers as Keras and as the bundle's float variant do, says what it is, and is whole or not there."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConversionError, DataError
from tinysight_converters.onnx_export import OPSET, Batch, Exported, compare, export_onnx
from tinysight_converters.run import load_run
from tinysight_edge.interpreter import Model, golden_inputs
from tinysight_edge.preprocess import Preprocessor

CASES: list[tuple[str, Batch]] = [(task, batch) for task in ("detector", "classifier") for batch in ("1", "dynamic")]


def export(run: Path, out: Path, batch: Batch = "1") -> Exported:
    return export_onnx(run, out, batch=batch, say=lambda _line: None)


@pytest.fixture(scope="module")
def files(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, Batch], Path]:
    """Both tasks with both batches."""
    folder = tmp_path_factory.mktemp("onnx")
    for task, batch in CASES:
        made = export(world / task, folder / f"{task}-{batch}.onnx", batch)
        assert made.difference <= 1e-4
        assert made.pictures > 10
    return {(task, batch): folder / f"{task}-{batch}.onnx" for task, batch in CASES}


def answers(path: Path, pictures: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, {"image": pictures}), strict=True))


@pytest.mark.parametrize(("task", "batch"), CASES)
def test_it_answers_as_the_float_variant_of_the_bundle(
    task: str, batch: Batch, world: Path, files: dict[tuple[str, Batch], Path]
) -> None:
    bundle = Bundle.open(world / f"{task}.bundle")
    model = Model.load(bundle, scheme="float32")
    prepare = Preprocessor(bundle.manifest.input, model.variant.input)
    pictures = golden_inputs(bundle)
    groups = [pictures] if batch == "dynamic" else [each[None] for each in pictures]
    got = [answers(files[task, batch], group.astype(np.float32)) for group in groups]
    together = {name: np.concatenate([each[name] for each in got]) for name in got[0]}
    assert set(together) == ({"heatmap", "box"} if task == "detector" else {"scores"})
    for number, picture in enumerate(pictures):
        for name, want in model.run(prepare.from_picture(picture)).items():
            assert np.allclose(together[name][number], want[0], atol=1e-4), name


@pytest.mark.parametrize(("task", "batch"), CASES)
def test_it_says_what_it_is(task: str, batch: Batch, world: Path, files: dict[tuple[str, Batch], Path]) -> None:
    run, model = load_run(world / task), onnx.load(files[task, batch])
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    facts = {each.key: each.value for each in model.metadata_props}
    assert (facts["task"], facts["dataset_digest"]) == (run.task, run.dataset_digest)
    assert json.loads(facts["labels"]) == run.labels
    assert {"height": run.input.height, "width": run.input.width, "color": "RGB"}.items() <= json.loads(
        facts["input"]
    ).items()
    decode = {"kind": "centernet", "stride": 8, "max_objects": 100}
    classify = {"kind": "classify", "activation": "none", "background": False}
    assert json.loads(facts["decode"]) == (decode if task == "detector" else classify)
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        assert (first.dim_param, first.dim_value) == (("batch", 0) if batch == "dynamic" else ("", 1))


def test_a_static_file_takes_one_picture_only(files: dict[tuple[str, Batch], Path]) -> None:
    three = np.zeros((3, 32, 32, 3), np.float32)
    assert answers(files["classifier", "dynamic"], three)["scores"].shape == (3, 10)
    with pytest.raises(Exception, match="invalid dimensions"):
        answers(files["classifier", "1"], three)


def test_lite0_exports_too(world: Path, tmp_path: Path) -> None:
    from tinysight_trainer.config import Config
    from tinysight_trainer.models import build_model

    shutil.copytree(world / "classifier", tmp_path / "run")
    build_model(Config(task="classify", model="lite0", input="32x32"), 10).save(tmp_path / "run" / "model.keras")
    export(tmp_path / "run", tmp_path / "lite0.onnx", "dynamic")
    assert answers(tmp_path / "lite0.onnx", np.zeros((2, 32, 32, 3), np.float32))["scores"].shape == (2, 10)


def test_the_command_makes_the_same_bytes_and_names_them(
    world: Path, files: dict[tuple[str, Batch], Path], tinysight: Any, tmp_path: Path
) -> None:
    done = tinysight("export", world / "detector", "--onnx", "x.onnx", "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    raw = (tmp_path / "x.onnx").read_bytes()
    figures = json.loads(done.stdout)
    assert figures["sha256"] == hashlib.sha256(raw).hexdigest()
    assert (figures["batch"], figures["opset"], figures["pictures"]) == ("1", OPSET, 20)
    assert raw == files["detector", "1"].read_bytes()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda want: {"scores": want["scores"] + 2e-4}, "differs from Keras by 0.0002", id="a little off"),
        pytest.param(lambda want: {"scores": want["scores"] * np.nan}, "differs from Keras by nan", id="no number"),
        pytest.param(lambda want: {"logits": want["scores"]}, "has outputs", id="another output"),
    ],
)
def test_a_file_that_answers_otherwise_is_refused(spoil: Any, said: str, files: dict[tuple[str, Batch], Path]) -> None:
    path = files["classifier", "dynamic"]
    pictures = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3)).astype(np.float32)
    want = answers(path, pictures)
    assert compare(path.read_bytes(), pictures, want) < 1e-6
    with pytest.raises(ConversionError, match=said):
        compare(path.read_bytes(), pictures, spoil(want))


def test_a_file_that_is_no_onnx_is_refused(files: dict[tuple[str, Batch], Path]) -> None:
    model = onnx.load(files["classifier", "1"])
    model.graph.node[0].op_type = "Mull"
    with pytest.raises(ConversionError, match="does not run"):
        compare(model.SerializeToString(), np.zeros((1, 32, 32, 3), np.float32), {})


@pytest.mark.parametrize(
    ("spoil", "out", "error", "said"),
    [
        pytest.param(shutil.rmtree, "x.onnx", ConversionError, "There is no run", id="no run"),
        pytest.param(
            lambda run: (run / "run.json").unlink(), "x.onnx", ConversionError, "has not ended", id="unfinished"
        ),
        pytest.param(
            lambda run: (run / "model.keras").write_bytes(b"PK"), "x.onnx", ConversionError, "failed", id="half a model"
        ),
        pytest.param(lambda _: None, "none/x.onnx", ConversionError, "is no folder", id="no folder"),
        pytest.param(lambda _: None, "run", ConversionError, "cannot be written", id="a folder"),
        pytest.param(
            lambda run: (run / "run.json").write_text((run / "run.json").read_text().replace("/belt", "/gone")),
            "x.onnx",
            DataError,
            "Put the data set back",
            id="no pictures",
        ),
    ],
)
def test_what_cannot_be_exported_leaves_no_file(
    spoil: Any, out: str, error: type[Exception], said: str, world: Path, tmp_path: Path
) -> None:
    shutil.copytree(world / "detector", tmp_path / "run")
    spoil(tmp_path / "run")
    with pytest.raises(error, match=said):
        export(tmp_path / "run", tmp_path / out)
    assert {path.name for path in tmp_path.iterdir()} <= {"run"}
