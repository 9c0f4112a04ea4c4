"""The child's side of `trial`: a .tflite file is opened here and nowhere else before it is known to behave.

Run as a script of its own, with nothing but NumPy and a runtime: ``python -I trial_child.py JOB``; JOB is a folder
with ``model.tflite``, perhaps ``inputs.npy``, and ``job.json``. Writes ``result.json`` and ``outputs.npz`` there.
What it does step by step stands in ``stage``, so that the parent can say where a crash came.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

MIB = 1 << 20


def runtime_of(wanted: str) -> tuple[str, str, Any, Any]:
    """Name, version, Interpreter, and a resolver without delegates (None where the runtime cannot)."""
    from importlib.metadata import version

    if wanted == "litert":
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        return "litert", version("ai-edge-litert"), Interpreter, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    from tflite_runtime.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return "tflite-runtime", version("tflite-runtime"), Interpreter, plain


def resident_kib(*, anew: bool = False) -> int:
    """The most memory that this process held, from now on when ``anew``; 0 where Linux does not say."""
    try:
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def facts(details: dict[str, Any], name: str) -> dict[str, Any]:
    """What is known of a tensor, as JSON takes it.

    Raises:
        RuntimeError: its scale is no number, for which JSON has no word.
    """
    scales = details["quantization_parameters"]["scales"]
    if not np.isfinite(details["quantization"][0]):
        raise RuntimeError(f"the scale of {name!r} is no number")
    return {
        "name": name,
        "shape": [int(side) for side in details["shape"]],
        "dynamic": [int(side) for side in details.get("shape_signature", details["shape"])],
        "dtype": np.dtype(details["dtype"]).name,
        "scale": float(details["quantization"][0]),
        "zero_point": int(details["quantization"][1]),
        "scales": len(scales),
        "index": int(details["index"]),
    }


def operators(interpreter: Any) -> list[dict[str, Any]]:
    """What runs, in its order; after a delegate took its part also what it stands for."""
    return [
        {
            "name": op["op_name"],
            "inputs": [int(index) for index in op["inputs"] if index >= 0],
            "outputs": [int(index) for index in op["outputs"]],
        }
        for op in interpreter._get_ops_details()
    ]


def look(interpreter: Any) -> dict[str, Any]:
    """Signatures, inputs, outputs, tensors and operators of a loaded file."""
    signatures = {}
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        signatures[key] = {
            "inputs": [facts(each, name) for name, each in sorted(runner.get_input_details().items())],
            "outputs": [facts(each, name) for name, each in sorted(runner.get_output_details().items())],
        }
    return {
        "signatures": signatures,
        "inputs": [facts(each, each["name"]) for each in interpreter.get_input_details()],
        "outputs": [facts(each, each["name"]) for each in interpreter.get_output_details()],
        "tensors": [facts(each, each["name"]) for each in interpreter.get_tensor_details()],
        "ops": operators(interpreter),
    }


def main(folder: Path) -> None:
    """Do the job; a crash leaves ``stage`` behind."""
    job = json.loads((folder / "job.json").read_text())
    for limit, most in ((resource.RLIMIT_CPU, job["cpu_s"]), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    if job["memory_mib"]:
        resource.setrlimit(resource.RLIMIT_AS, (job["memory_mib"] * MIB,) * 2)
    stage = folder / "stage"
    stage.write_text("starting the runtime")
    name, version, interpreter_type, plain = runtime_of(job["runtime"])
    result: dict[str, Any] = {"runtime": name, "version": version, "error": None}
    content = (folder / "model.tflite").read_bytes()
    try:
        stage.write_text("loading it")
        before_kib = resident_kib(anew=True)
        made = interpreter_type(model_content=content, num_threads=1)
        made.allocate_tensors()
        if (folder / "inputs.npy").is_file():
            stage.write_text("running it")
            run(made, np.load(folder / "inputs.npy", allow_pickle=False), folder, job["answers_mib"])
        result["memory_kib"] = resident_kib() - before_kib
        result["plan"] = operators(made)
        del made
        stage.write_text("looking into it")
        # Without a delegate every tensor of the file is listed, and not those of a fused partition.
        whole = interpreter_type(model_content=content, experimental_op_resolver_type=plain)
        whole.allocate_tensors()
        result |= look(whole)
    except (ValueError, RuntimeError, TypeError, KeyError, MemoryError) as error:
        result["error"] = " ".join(f"{type(error).__name__}: {error}".split()).removeprefix("RuntimeError: ")
    (folder / "result.json").write_text(json.dumps(result))


def run(interpreter: Any, inputs: Any, folder: Path, most_mib: int) -> None:
    """Answers to (n, ...) inputs, by tensor index in ``outputs.npz``.

    Raises:
        RuntimeError: the answers are more than may be given back.
    """
    left = most_mib * MIB
    (index,) = [each["index"] for each in interpreter.get_input_details()]
    wanted = [int(each["index"]) for each in interpreter.get_output_details()]
    answers: dict[str, list[Any]] = {str(each): [] for each in wanted}
    for one in inputs:
        interpreter.set_tensor(index, one[None])
        interpreter.invoke()
        for each in wanted:
            answers[str(each)].append(interpreter.get_tensor(each)[0])
            left -= answers[str(each)][-1].nbytes
            if left < 0:
                raise RuntimeError(f"its answers take more than {most_mib} MiB")
    arrays: dict[str, Any] = {name: np.stack(each) for name, each in answers.items()}
    np.savez(folder / "outputs.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
