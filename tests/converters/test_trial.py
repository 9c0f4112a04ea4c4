"""A foreign file ends a child process and nothing else."""

import copy
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConversionError
from tinysight_converters.audit import outside_delegate
from tinysight_converters.runtimes import check_runtimes, old_runtime
from tinysight_converters.trial import Op, Trial, try_model
from tinysight_converters.trial_child import resident_kib
from tinysight_edge.interpreter import Model, golden_inputs


@pytest.fixture
def content(belt_bundle: Path) -> bytes:
    return Bundle.open(belt_bundle).read("int8.tflite")


def test_a_file_is_told_with_its_tensors_and_answers(belt_bundle: Path, content: bytes) -> None:
    bundle = Bundle.open(belt_bundle)
    pictures = golden_inputs(bundle)
    trial = try_model(content, inputs=pictures).loaded()
    ((signature,),) = [list(trial.signatures.values())]
    assert [each.name for each in signature.inputs] == ["image"]
    assert {each.name for each in signature.outputs} == {"box", "heatmap"}
    assert trial.memory_kib > 100
    model = Model(content, bundle.manifest.variants[0])
    for output in signature.outputs:
        want = [model.run(picture[None])[output.name][0] for picture in pictures]
        assert np.array_equal(trial.answers[str(output.index)], np.stack(want))


def test_a_scale_that_is_no_number_is_a_failure_in_words(content: bytes) -> None:
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    idle = copy.deepcopy(model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]])
    idle.name, idle.quantization.scale = "idle", [float("nan")]
    model.subgraphs[0].tensors.append(idle)  # of no operator, so that the runtime does not mind
    builder = Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    assert "the scale of 'idle' is no number" in (try_model(bytes(builder.Output())).error or "")


def test_what_the_child_cannot_have_meant_is_a_failure_in_words(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import sys\nopen(sys.argv[1] + '/result.json', 'w').write('{\"runtime\": NaN}')\n")
    monkeypatch.setattr("tinysight_converters.trial.CHILD", child)
    assert try_model(content).error == "it answers what cannot be read while starting"


def test_a_machine_that_does_not_say_what_memory_it_took_is_told_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _path: "Name:\tpython\n")
    assert resident_kib() == 0


@pytest.mark.parametrize("kept", [100, 1000, 0.5])
def test_half_a_file_is_refused_in_the_runtimes_words(kept: float, content: bytes) -> None:
    length = int(kept if kept > 1 else len(content) * kept)
    assert "not a valid Flatbuffer" in (try_model(content[:length]).error or "")


def test_damaged_files_never_end_this_process(content: bytes) -> None:
    """Some load, some are refused, some crash the interpreter; all are told."""
    dice = np.random.default_rng(0)
    outcomes = set()
    for _ in range(12):
        spoilt = bytearray(content)
        tables = len(content) - 20_000  # offsets and tables stand at the end, where damage hurts most
        for at in dice.integers(tables, len(content), 3):
            spoilt[at] = int(dice.integers(0, 256))
        outcomes.add((try_model(bytes(spoilt), inputs=np.zeros((1, 96, 128, 3), np.uint8)).error or "runs")[:20])
    assert len(outcomes) > 1, outcomes


def test_what_crashes_the_interpreter_is_named_with_its_signal(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    crash = "import os, signal, sys\nopen(sys.argv[1] + '/stage', 'w').write('loading it')\n"
    crash += "os.kill(os.getpid(), signal.SIGSEGV)"
    child.write_text(crash)
    monkeypatch.setattr("tinysight_converters.trial.CHILD", child)
    trial = try_model(content)
    assert trial.error == "it dies of SIGSEGV while loading it"
    with pytest.raises(ConversionError, match="dies of SIGSEGV"):
        trial.loaded()


def test_what_never_ends_is_ended(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child.py"
    child.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr("tinysight_converters.trial.CHILD", child)
    monkeypatch.setattr("tinysight_converters.trial.TIMEOUT_S", 0.5)
    assert try_model(content).error == "it does not end while starting"


def test_what_is_no_tflite_file_is_not_even_tried() -> None:
    with pytest.raises(ConversionError, match="no TFLite file"):
        try_model(b"PK\x03\x04 a zip")


def test_a_runtime_that_answers_otherwise_is_found(belt_bundle: Path, content: bytes) -> None:
    bundle = Bundle.open(belt_bundle)
    variant, pictures = bundle.manifest.variants[0], golden_inputs(bundle)
    model = Model(content, variant)
    answers = [model.run(picture[None]) for picture in pictures]
    golden = {name: np.stack([answer[name][0] for answer in answers]) for name in answers[0]}
    good, _ = check_runtimes(content, bundle.manifest, variant, pictures, golden)
    assert [(check.name, check.ok) for check in good] == [("litert", True), ("tflite-runtime", True)]
    bad, _ = check_runtimes(content, bundle.manifest, variant, pictures, {**golden, "box": 127 - golden["box"]})
    assert [check.ok for check in bad] == [False, False]
    assert all("box is off by" in check.detail for check in bad)


def test_the_old_runtime_has_an_environment_of_its_own() -> None:
    python, why = old_runtime()
    assert python is not None, why
    assert old_runtime() == (python, "")


def test_operators_outside_the_delegate_are_found() -> None:
    ops = [("A", [0], [1]), ("B", [1], [2]), ("C", [2], [3]), ("DELEGATE", [1], [2])]
    plan = [Op(name=name, inputs=inputs, outputs=outputs) for name, inputs, outputs in ops]
    trial = Trial(runtime="litert", version="", plan=plan)
    assert [op.name for op in outside_delegate(trial)] == ["A", "C"]
    assert trial.partitions == 1
