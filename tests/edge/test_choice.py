"""The fastest variant and engine that work here are taken, and what became of the others is said."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BundleError, RuntimeLoadError
from tinysight_edge import choice, compiled
from tinysight_edge.choice import choose, is_better
from tinysight_edge.compiled import CompiledEngine, Refused, accelerators, rehearse
from tinysight_edge.engines import EDGE_TPU_CODE, InterpreterEngine, Runtime, edge_tpu, find_runtime
from tinysight_edge.interpreter import LEAST_LIMIT_S, Model


@pytest.fixture(scope="module")
def bundle(belt_bundle: Path) -> Bundle:
    return Bundle.open(belt_bundle)


def test_everything_that_can_be_here_is_tried_and_what_became_of_it_is_told(bundle: Bundle) -> None:
    model = choose(bundle)
    told = " / ".join(model.choice)
    for name in ("interpreter", "compiled-model", "gpu", "npu"):
        assert f"int8 by {name}: " in told
    assert "int8 by interpreter: 0." in told
    assert model.choice[-1] == f"kept: int8 by {model.engine.name}"
    assert not any(line.endswith(".") or "\n" in line for line in model.choice)
    assert model.median_ms > 0
    assert model.limit_s == LEAST_LIMIT_S


def test_a_slow_model_is_given_more_time_before_it_counts_as_hung(bundle: Bundle) -> None:
    model = Model.load(bundle)
    model.median_ms = 1000.0
    assert model.limit_s == 50.0


@pytest.mark.parametrize("engine", ["interpreter", "compiled-model"])
def test_an_engine_that_is_asked_for_is_taken_and_answers_as_the_interpreter_does(bundle: Bundle, engine: Any) -> None:
    model, plain = choose(bundle, engine=engine, threads=2), Model.load(bundle)
    assert model.engine.name == engine
    assert model.runtime.name == "litert"
    for seed in range(5):
        picture = np.random.default_rng(seed).integers(0, 256, model.variant.input.shape).astype(np.uint8)
        got, want = model.run(picture), plain.run(picture)
        assert all(np.array_equal(got[name], want[name]) for name in want)


def test_the_newer_api_compares_the_scales_with_the_manifest_too(bundle: Bundle) -> None:
    variant = bundle.manifest.variants[0]
    wrong = replace(variant, outputs=[replace(variant.outputs[0], zero_point=3), variant.outputs[1]])
    bent = Bundle(
        replace(bundle.manifest, variants=[wrong]), {name: bundle.read(name) for name in bundle.manifest.files},
        digest=bundle.digest, size_bytes=0,
    )  # fmt: skip
    with pytest.raises(BundleError, match="the manifest says"):
        choose(bent, engine="compiled-model")


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=8))
def test_the_one_kept_is_at_most_a_tenth_slower_than_the_fastest_and_never_later_without_need(
    took: list[float],
) -> None:
    best = 0
    for number in range(1, len(took)):
        if is_better(took[number], took[best]):
            best = number
    assert min(took) >= 0.9 * took[best]
    assert all(earlier > took[best] for earlier in took[:best])


def test_the_faster_of_two_variants_is_taken_whatever_their_order(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = bundle.manifest.variants[0]
    twin = replace(variant, scheme="float32")
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    both = Bundle(replace(bundle.manifest, variants=[variant, twin]), files, digest="", size_bytes=0)
    times = iter([5.0, 3.0])
    monkeypatch.setattr(choice, "_median_ms", lambda *_: next(times))
    model = choose(both, engine="interpreter")
    assert model.variant.scheme == "float32"
    assert model.choice == ("int8 by interpreter: 5.00 ms", "float32 by interpreter: 3.00 ms",
                            "kept: float32 by interpreter")  # fmt: skip
    monkeypatch.undo()
    assert choose(both, scheme="int8").variant.scheme == "int8"


def test_a_choice_ends_before_the_next_call_of_a_runtime_when_it_is_told_to(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Enough(Exception):  # noqa: N818 -- no error
        pass

    runs, heard, run = list[int](), list[int](), Model.run_lent

    def counted(model: Model) -> Any:
        runs.append(len(heard))
        return run(model)

    monkeypatch.setattr(Model, "run_lent", counted)

    def heed() -> None:
        heard.append(1)
        if len(heard) > last:
            raise Enough

    for last in range(6):
        runs.clear()
        heard.clear()
        with pytest.raises(Enough):
            choose(bundle, engine="interpreter", heed=heed)
        assert len(runs) == len(set(runs)) == max(last - 1, 0), (
            "it is asked before each run, and the first time to load"
        )


def test_what_passes_no_self_test_is_not_taken(bundle: Bundle) -> None:
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    files["golden-int8-heatmap.bin"] = bytes(len(files["golden-int8-heatmap.bin"]))
    with pytest.raises(RuntimeLoadError, match="fails its self-test"):
        choose(Bundle(bundle.manifest, files, digest="", size_bytes=0))


def test_an_edge_tpu_is_asked_for_by_name_or_by_its_variant_and_missed_in_one_line(bundle: Bundle) -> None:
    with pytest.raises(RuntimeLoadError, match="is not compiled for the Edge TPU"):
        choose(bundle, engine="edgetpu")
    variant = bundle.manifest.variants[0]
    compiled = replace(variant, file="tpu.tflite", scheme="int8-mixed")
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    files["tpu.tflite"] = files["int8.tflite"] + EDGE_TPU_CODE
    both = Bundle(replace(bundle.manifest, variants=[compiled, variant]), files, digest="", size_bytes=0)
    model = choose(both)
    assert model.variant is variant
    assert model.choice[0] == "int8-mixed by edgetpu: libedgetpu.so.1 is not installed"
    with pytest.raises(RuntimeLoadError, match="libedgetpu1-std"):
        edge_tpu()
    with pytest.raises(RuntimeLoadError, match="runs on nothing else"):
        choose(both, scheme="int8-mixed", engine="interpreter")


def test_accelerators_are_tried_where_there_is_a_device_for_them(tmp_path: Path) -> None:
    assert set(accelerators(tmp_path)) == {"gpu", "npu"}
    assert all(str(tmp_path) in reason for reason in accelerators(tmp_path).values())
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri" / "renderD128").touch()
    assert accelerators(tmp_path)["gpu"] == ""
    assert accelerators(tmp_path)["npu"] != ""


def test_an_accelerator_is_rehearsed_in_a_child_that_may_fail_or_crash(bundle: Bundle, graphs: Path) -> None:
    gpu = rehearse(bundle.read("int8.tflite"), "gpu")
    assert gpu is None or "the gpu failed when it was tried: ERROR" in gpu.why, "as here, without a GPU"
    crashed, broken = rehearse((graphs / "crashes.tflite").read_bytes(), "npu"), rehearse(b"no model", "npu")
    assert crashed is not None
    assert broken is not None
    assert "ended the process that tried it by signal" in crashed.why
    assert "failed when it was tried" in broken.why
    assert (crashed.always, broken.always) == (True, False)


def test_a_child_that_hangs_and_cannot_be_killed_is_left_behind(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    left: list[subprocess.Popen[bytes]] = []

    def stop(child: subprocess.Popen[bytes]) -> None:
        left.append(child)
        child.send_signal(signal.SIGSTOP)

    monkeypatch.setattr(compiled, "REHEARSAL_S", 0.01)
    monkeypatch.setattr(compiled, "KILLED_S", 0.01)
    with monkeypatch.context() as patch:  # SIGKILL does not reach a process whose driver hangs in the kernel
        patch.setattr(subprocess.Popen, "kill", stop)
        refused = rehearse(bundle.read("int8.tflite"), "npu")
    assert refused is not None
    assert "the npu hung" in refused.why
    assert refused.always
    assert left[0].returncode is None
    left[0].kill()
    eventually(lambda: left[0].returncode is not None)


@pytest.mark.parametrize(("always", "tried"), [(True, 1), (False, 2)])
def test_a_driver_that_hangs_is_tried_once_and_not_for_each_variant(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, *, always: bool, tried: int
) -> None:
    asked: list[str] = []

    def refuse(_content: bytes, accelerator: str, **_: Any) -> Refused:
        asked.append(accelerator)
        return Refused("the gpu hung", always=always)

    monkeypatch.setattr(choice, "rehearse", refuse)
    monkeypatch.setattr(choice, "accelerators", lambda: {"gpu": "", "npu": "there is none"})
    variant = bundle.manifest.variants[0]
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    twin = replace(variant, scheme="float32")
    model = choose(Bundle(replace(bundle.manifest, variants=[variant, twin]), files, digest="", size_bytes=0))
    assert asked == ["gpu"] * tried
    assert [line for line in model.choice if "gpu" in line] == [
        f"{s} by gpu: the gpu hung" for s in ("int8", "float32")
    ]


@pytest.mark.parametrize("good_runs", [0, 1, 8])
def test_an_engine_that_fails_while_it_runs_is_passed_over_with_its_reason(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, good_runs: int
) -> None:
    invoke, ran = CompiledEngine.invoke, list[int]()

    def fails(engine: CompiledEngine) -> None:
        ran.append(1)
        if len(ran) > good_runs:
            raise RuntimeError("the device is lost")
        invoke(engine)

    monkeypatch.setattr(CompiledEngine, "invoke", fails)
    model = choose(bundle)
    assert model.engine.name == "interpreter"
    assert any("by compiled-model: " in line and "the device is lost" in line for line in model.choice)
    with pytest.raises(RuntimeLoadError, match="the device is lost"):
        choose(bundle, engine="compiled-model")


def test_an_npu_that_runs_nothing_of_the_file_is_refused(bundle: Bundle) -> None:
    variant = bundle.manifest.variants[0]
    make = {"threads": 1, "runtime": find_runtime()}
    with pytest.raises(RuntimeLoadError, match="the npu does not run all of it"):
        CompiledEngine(bundle.read(variant.file), variant, accelerator="npu", **make)  # type: ignore[arg-type]  # from the dict


def test_where_xnnpack_runs_nothing_it_is_said(bundle: Bundle) -> None:
    from ai_edge_litert.interpreter import OpResolverType

    found, variant = find_runtime(), bundle.manifest.variants[0]
    slow = partial(found.interpreter, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    for interpreter, note in ((found.interpreter, ""), (slow, "XNNPACK runs no operator of it")):
        runtime = Runtime(found.name, found.version, interpreter)
        assert InterpreterEngine(bundle.read(variant.file), variant, threads=1, runtime=runtime).note == note


def test_a_process_that_tried_everything_says_nothing_on_stderr(belt_bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tinysight_contract.bundle import Bundle\n"
        "from tinysight_edge.choice import choose\n"
        "for engine in ('auto', 'compiled-model'): choose(Bundle.open(Path(sys.argv[1])), engine=engine)"
    )
    done = subprocess.run([sys.executable, "-c", code, belt_bundle], capture_output=True, text=True, check=True)
    assert done.stderr == ""
