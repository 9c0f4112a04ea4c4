"""A conversion proves itself, is honest about what is inside, and leaves a whole bundle or none."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConfigError, ConversionError, DataError
from tinysight_converters.audit import float_tensors, operators
from tinysight_converters.bench import draft_manifest
from tinysight_converters.budget import parse_budget
from tinysight_converters.candidates import Maker, Wish
from tinysight_converters.convert import convert_run
from tinysight_converters.run import Examples, load_examples, load_run
from tinysight_converters.trial import try_model
from tinysight_edge.interpreter import Model, golden_inputs, self_test

TASKS = ("detector", "classifier")


def convert(run: Path, out: Path, **wanted: Any) -> Any:
    wish = Wish(**{"name": "m", "version": "1.2.3", "release": 4, **wanted})
    return convert_run(run, out, wish, say=lambda _line: None)


@pytest.fixture
def copied_run(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world / "detector", tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("task", TASKS)
def test_the_bundle_holds_both_variants_the_proof_and_where_it_comes_from(task: str, world: Path) -> None:
    bundle, run = Bundle.open(world / f"{task}.bundle"), load_run(world / task)
    manifest = bundle.manifest
    assert [each.scheme for each in manifest.variants] == ["int8", "float32"]
    assert manifest.labels == run.labels
    assert manifest.provenance.dataset_digest == run.dataset_digest
    assert manifest.provenance.calibration_digest is not None
    assert manifest.golden.count == 8
    int8 = manifest.variant("int8")
    assert (int8.input.dtype, int8.input.scale, int8.input.zero_point) == ("uint8", 1.0, 0), "raw pictures go in"
    dtype = "uint8" if task == "classifier" else "int8"  # MediaPipe takes no int8 scores
    assert all(output.dtype == dtype for output in int8.outputs)
    assert all(check.ok for variant in manifest.variants for check in variant.runtimes)


@pytest.mark.parametrize("task", TASKS)
def test_no_tensor_of_the_int8_variant_holds_floating_point(task: str, world: Path) -> None:
    bundle = Bundle.open(world / f"{task}.bundle")
    int8, float32 = (try_model(bundle.read(f"{scheme}.tflite")).loaded() for scheme in ("int8", "float32"))
    assert float_tensors(int8) == []
    assert len(float_tensors(float32)) > 10, "the scan can see them"
    assert operators(int8)["CONV_2D"] > 5
    assert int8.partitions == float32.partitions == 1, "XNNPACK runs it in one piece"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("scheme", ["int8", "float32"])
def test_every_variant_passes_its_own_self_test_and_another_model_does_not(task: str, scheme: str, world: Path) -> None:
    bundle = Bundle.open(world / f"{task}.bundle")
    model = Model.load(bundle, scheme=scheme)
    assert self_test(bundle, model) is None
    golden = model.run
    model.run = lambda tensor: {name: 127 - out for name, out in golden(tensor).items()}  # type: ignore[method-assign]  # stands for a broken runtime
    assert "is off by" in (self_test(bundle, model) or "")


def test_int8_and_float_answer_much_the_same(world: Path) -> None:
    bundle = Bundle.open(world / "classifier.bundle")
    report = json.loads(bundle.read("report.json"))
    agreed = {each["scheme"]: each["agreement_with_float"] for each in report["variants"]}
    assert agreed["float32"] == 1.0
    assert agreed["int8"] > 0.9
    assert len(golden_inputs(bundle)) == 8


def test_the_report_for_programs_is_complete(world: Path) -> None:
    inside = json.loads(Bundle.open(world / "detector.bundle").read("report.json"))
    beside = json.loads((world / "detector.report.json").read_text())
    assert inside["held_out_images"] == 20
    assert inside["calibration"]["images"] == 10
    for each in inside["variants"]:
        assert 0 <= each["metrics"]["ap50_95"] <= each["metrics"]["ap50"] <= 1
        assert each["size_bytes"] > 10_000
        assert each["delegate_partitions"] == 1
        assert "latency_ms" not in each, "the bundle holds nothing that differs from one conversion to the next"
    for each in beside["variants"]:
        assert 0 < each["latency_ms"]["p50"] <= each["latency_ms"]["p95"]
        assert each["memory_kib"] > 100
    layers = {each["layer"]: each for each in inside["layers"]}
    assert {"conv2d", "heatmap", "box"} <= set(layers)
    assert all(0 < each["rms_steps"] < 2 for each in layers.values())


def test_every_variant_was_run_on_both_runtimes(world: Path) -> None:
    for task in TASKS:
        for variant in Bundle.open(world / f"{task}.bundle").manifest.variants:
            assert [check.name for check in variant.runtimes] == ["litert", "tflite-runtime"]
            assert all(check.ok for check in variant.runtimes), variant.runtimes


def test_two_conversions_of_a_run_have_one_digest(world: Path, tmp_path: Path) -> None:
    one = Bundle.open(world / "detector.bundle").manifest  # made by the command, in another process
    asked = {"name": one.name, "version": one.version, "release": one.release}
    other = convert(world / "detector", tmp_path / "b.bundle", **asked, schemes=("int8", "float32"))
    digests = [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (world / "detector.bundle", tmp_path / "b.bundle")
    ]
    assert digests == [other.digest] * 2


def test_what_calibrated_it_is_in_the_bundle(world: Path) -> None:
    bundle, examples = Bundle.open(world / "classifier.bundle"), load_examples(world / "classifier")
    held = json.loads(bundle.read("calibration.json"))
    assert held["digest"] == bundle.manifest.provenance.calibration_digest
    assert (held["low"], held["high"]) == (0, 255)
    known = {f"{each.sha256} {each.name}" for each in examples.calibration}
    assert held["pictures"]
    assert set(held["pictures"]) <= known


def test_all_schemes_of_one_run(world: Path, tmp_path: Path) -> None:
    made = convert(world / "classifier", tmp_path / "x.bundle", schemes=("float16", "int8", "dynamic"))
    bundle = Bundle.open(tmp_path / "x.bundle")
    assert [each.scheme for each in bundle.manifest.variants] == ["int8", "dynamic", "float16"], "the best first"
    sizes = {each.scheme: len(each.content) for each in made.variants}
    whole = len(made.reference.content)
    assert sizes["float16"] < 0.7 * whole
    assert max(sizes["int8"], sizes["dynamic"]) < 0.5 * whole
    assert not any("float32" in name for name in bundle.manifest.files)


def test_layers_can_be_kept_in_float(world: Path, tmp_path: Path) -> None:
    made = convert(world / "detector", tmp_path / "x.bundle", keep_float=("conv2d_1", "heatmap"))
    (mixed,) = made.variants
    assert mixed.scheme == "int8-mixed"
    kept = [name for name in float_tensors(mixed.trial) if "conv2d_1" in name]
    assert kept
    assert mixed.trial.partitions == 1, "it still runs in XNNPACK in one piece"
    assert Model.load(Bundle.open(tmp_path / "x.bundle")).variant.input.dtype == "float32"
    with pytest.raises(ConfigError, match="no layer 'conv9'"):
        convert(world / "detector", tmp_path / "y.bundle", keep_float=("conv9",))


def test_a_budget_that_cannot_be_kept_shows_the_ladder_and_leaves_nothing(
    world: Path, tinysight: Any, tmp_path: Path
) -> None:
    budget = ("--budget", "drop=0pt,kib=1")
    done = tinysight("convert", world / "detector", "--out", "x.bundle", *budget, "--quiet")
    assert done.returncode == 1, done.stderr
    assert "better calibration" in done.stdout
    assert "trained for int8" in done.stdout
    assert "KiB > 1 KiB" in " ".join(done.stdout.split())
    assert not list(tmp_path.glob("x.*"))


def test_a_budget_that_holds_takes_the_first_step(world: Path, tmp_path: Path) -> None:
    made = convert(world / "classifier", tmp_path / "x.bundle", budget=parse_budget("drop=50pt,kib=500"))
    assert [step.name for step in made.ladder] == ["int8", *(step.name for step in made.ladder[1:])]
    assert made.ladder[0].holds
    assert [each.scheme for each in made.variants] == ["int8"]


def test_the_last_step_trains_a_copy_of_the_run_for_int8(copied_run: Path) -> None:
    run, examples = load_run(copied_run), load_examples(copied_run)
    before = {path.name for path in copied_run.iterdir()}
    wish = Wish(name="m", version="1.2.3", release=4)
    maker = Maker(copied_run, run, examples, draft_manifest(run, name="m", version="1.2.3", release=4), wish, say=print)
    *_, last = maker.rungs(maker.make("int8"))
    candidate = last.make()
    assert (last.slow, candidate.scheme) == (True, "int8-qat")
    assert float_tensors(candidate.trial) == []
    assert {path.name for path in copied_run.iterdir()} == before, "the run stays what it is"


def test_a_step_that_a_model_does_not_allow_leaves_the_others(world: Path, tmp_path: Path) -> None:
    import keras
    from keras import layers

    run_folder = tmp_path / "run"
    shutil.copytree(world / "classifier", run_folder)
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2)(layers.Rescaling(1 / 127.5, offset=-1.0)(image))
    x = layers.Conv2D(8, 3)(layers.LeakyReLU()(x))
    scores = layers.Dense(10, activation="softmax", name="scores")(layers.GlobalAveragePooling2D()(x))
    keras.Model(image, {"scores": scores}).save(run_folder / "model.keras")
    run, examples = load_run(run_folder), load_examples(run_folder)
    wish = Wish(name="m", version="1.2.3", release=4)
    draft = draft_manifest(run, name="m", version="1.2.3", release=4)
    maker = Maker(run_folder, run, examples, draft, wish, say=print)
    _, better, one_in_float, *_ = maker.rungs(maker.make("int8"))
    with pytest.raises(ConversionError, match="LeakyReLU"):
        better.make()
    assert one_in_float.make().scheme == "int8-mixed"


def test_a_run_not_trained_for_int8_says_how(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="tinysight train DATA --out RUN --qat"):
        convert(world / "classifier", tmp_path / "x.bundle", schemes=("int8-qat",))


def test_calibration_pictures_that_are_also_tested_are_refused(copied_run: Path, tmp_path: Path) -> None:
    examples = load_examples(copied_run)
    both = Examples(calibration=[*examples.calibration, examples.test[3]], test=examples.test)
    (copied_run / "examples.json").write_bytes(msgspec.json.encode(both))
    with pytest.raises(ConversionError, match="calibration and for the test"):
        convert(copied_run, tmp_path / "x.bundle")


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(shutil.rmtree, "There is no run", id="missing"),
        pytest.param(lambda run: (run / "run.json").unlink(), "has not ended", id="unfinished"),
        pytest.param(lambda run: (run / "model.keras").unlink(), "has not ended", id="without model"),
        pytest.param(lambda run: (run / "run.json").write_bytes(b"{"), "is damaged", id="half a run.json"),
        pytest.param(lambda run: (run / "examples.json").unlink(), "cannot be read", id="without examples"),
        pytest.param(lambda run: (run / "model.keras").write_bytes(b"PK"), "converter failed", id="half a model"),
    ],
)
def test_a_run_that_cannot_be_converted_leaves_the_old_bundle(
    spoil: Spoil, said: str, copied_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.bundle"
    out.write_bytes(b"the old one")
    spoil(copied_run)
    with pytest.raises(ConversionError, match=said):
        convert(copied_run, out)
    assert out.read_bytes() == b"the old one"
    assert {path.name for path in tmp_path.iterdir()} <= {"x.bundle", "run"}


def test_a_data_set_that_has_gone_is_named(world: Path, copied_run: Path, tmp_path: Path) -> None:
    run = json.loads((copied_run / "run.json").read_text())
    run["dataset"] = str(tmp_path / "gone")
    (copied_run / "run.json").write_text(json.dumps(run))
    with pytest.raises(DataError, match="Put the data set back"):
        convert(copied_run, tmp_path / "x.bundle")
    assert (world / "belt").is_dir()


def test_nowhere_to_write_is_said_before_anything_is_done(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="is no folder"):
        convert(world / "detector", tmp_path / "none" / "x.bundle")


def test_the_command_names_the_bundle_and_its_figures(world: Path, tinysight: Any, tmp_path: Path) -> None:
    done = tinysight("convert", world / "classifier", "--out", "My_Model.bundle", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    figures = json.loads(done.stdout)
    raw = (tmp_path / "My_Model.bundle").read_bytes()
    assert figures["digest"] == hashlib.sha256(raw).hexdigest()
    assert figures["bundle_kib"] == len(raw) / 1024
    assert {"float_accuracy", "int8_accuracy", "agreement", "int8_ms", "float_ms"} <= set(figures)
    assert Bundle.open(tmp_path / "My_Model.bundle").manifest.name == "my-model"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("none", "--out", "x.bundle"), "There is no run", id="no run"),
        pytest.param(("none", "--out", "x.bundle", "--name", "A B"), "not a valid id", id="name that is no id"),
        pytest.param(("none", "--out", "x.bundle", "--version", "one"), "is no version", id="version that is none"),
        pytest.param(("none", "--out", "x.bundle", "--scheme", "int4"), "there is no 'int4'", id="unknown scheme"),
        pytest.param(("none", "--out", "x.bundle", "--budget", "mb=3"), "is unknown", id="budget of nothing known"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str, tinysight: Any) -> None:
    done = tinysight("convert", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_model_that_ran_in_training_is_the_one_in_the_bundle(world: Path) -> None:
    """The float variant against Keras itself, on the golden pictures: the oracle for the whole conversion."""
    import keras

    from tinysight_edge.preprocess import Preprocessor

    bundle = Bundle.open(world / "detector.bundle")
    model = Model.load(bundle, scheme="float32")
    prepare = Preprocessor(bundle.manifest.input, model.variant.input)
    reference = keras.models.load_model(world / "detector" / "model.keras", compile=False)
    for picture in golden_inputs(bundle):
        got = model.run(prepare.from_picture(picture))
        want = reference(picture[None].astype(np.float32), training=False)
        for name, value in got.items():
            assert np.allclose(value, np.asarray(want[name]), atol=2e-3), name
