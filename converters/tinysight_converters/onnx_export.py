"""A trained model for other runtimes: one ONNX file that has been compared with Keras.

run → child process (tf2onnx) → names, facts → `onnx.checker` → ONNX Runtime against Keras on test pictures → file.
In: a run.  Out: float32, input ``image`` as Keras takes it (NHWC, 0..255), outputs by their names, operators of
``ai.onnx`` alone. Will not do: quantize; what a device of ours runs is the bundle.
"""

import hashlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
import onnx
import onnxruntime
from msgspec import Struct
from numpy.typing import NDArray

from tinysight_contract import __version__
from tinysight_contract import manifest as mf
from tinysight_contract.errors import ConversionError
from tinysight_contract.files import replace_file
from tinysight_converters.bench import draft_manifest
from tinysight_converters.child import run_child
from tinysight_converters.onnx_graph import put_in_order
from tinysight_converters.run import MODEL, Examples, Run, check_target, load_examples, load_run
from tinysight_edge.preprocess import Preprocessor

__all__ = ["Batch", "Exported", "compare", "export_onnx"]

OPSET: Final = 17
PICTURES: Final = 32
MOST: Final = 1e-4  # relative to max(1, |value|)

Batch = Literal["1", "dynamic"]


class Job(Struct, frozen=True, kw_only=True):
    """What the child is to do; ``pictures`` is a .npy as the model takes them, ``answers`` an .npz to write."""

    model: str
    pictures: str
    target: str
    answers: str
    batch: int | None


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made.

    Attributes:
        sha256: of the file.
        size_bytes: of the file.
        opset: of ai.onnx.
        pictures: that it was compared with Keras on.
        difference: the largest, relative to max(1, |value|).
    """

    sha256: str
    size_bytes: int
    opset: int
    pictures: int
    difference: float


def export_onnx(run_folder: Path, out: Path, *, batch: Batch, say: Callable[[str], None]) -> Exported:
    """Export a finished run.

    Args:
        run_folder: as the trainer left it.
        out: the file to write; an existing one is replaced in one step.
        batch: pictures at a time: one, or any number.
        say: told what is being done.

    Raises:
        ConversionError: the run is unfinished or damaged, tf2onnx fails, or the file does not answer as Keras does.
        DataError: a picture of the data set is missing, broken or changed.
    """
    check_target(out)
    run, examples = load_run(run_folder), load_examples(run_folder)
    pictures = _pictures(run, examples)
    say(f"Exporting to ONNX, batch {batch}")
    with tempfile.TemporaryDirectory(prefix="tinysight-onnx-") as name:
        folder = Path(name)
        np.save(folder / "pictures.npy", pictures, allow_pickle=False)
        job = Job(
            model=str(run_folder / MODEL),
            pictures=str(folder / "pictures.npy"),
            target=str(folder / "model.onnx"),
            answers=str(folder / "answers.npz"),
            batch=1 if batch == "1" else None,
        )
        run_child("tinysight_converters.onnx_export", job, what="tf2onnx")
        raw = _dress(onnx.load(folder / "model.onnx"), run, batch)
        with np.load(folder / "answers.npz", allow_pickle=False) as answers:
            expected = dict(answers)
    say(f"Comparing it with Keras on {len(pictures)} held-out pictures")
    difference = compare(raw, pictures, expected)
    replace_file(out, raw)
    return Exported(hashlib.sha256(raw).hexdigest(), len(raw), OPSET, len(pictures), difference)


def compare(raw: bytes, pictures: NDArray[np.float32], expected: dict[str, NDArray[np.float32]]) -> float:
    """How far the file's answers are from those expected, at most, relative to max(1, |value|).

    Args:
        raw: the ONNX file.
        pictures: as the model takes them; given one by one to a model of batch 1, else all at once.
        expected: answers by output.

    Raises:
        ConversionError: it breaks a rule of ONNX, does not run, has other outputs, or answers otherwise.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as ort  # noqa: PLC0415 -- its errors have no other home

    try:
        onnx.checker.check_model(raw, full_check=True)
        session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_outputs()]
        step = 1 if session.get_inputs()[0].shape[0] == 1 else len(pictures)
        answers = [
            session.run(names, {"image": pictures[start : start + step]}) for start in range(0, len(pictures), step)
        ]
    except (
        onnx.checker.ValidationError,
        ort.Fail,
        ort.InvalidArgument,
        ort.InvalidGraph,
        ort.NotImplemented,
        ort.RuntimeException,
    ) as error:
        why = " ".join(str(error).split())
        raise ConversionError(f"The ONNX file does not run: {why}.", mend="Report this as a bug.") from error
    if set(names) != set(expected):
        raise ConversionError(
            f"The ONNX file has outputs {sorted(names)}, Keras {sorted(expected)}.", mend="Report this as a bug."
        )
    got = {name: np.concatenate(parts) for name, parts in zip(names, zip(*answers, strict=True), strict=True)}
    off = {name: np.abs(got[name] - want) / np.maximum(1.0, np.abs(want)) for name, want in expected.items()}
    difference = max(float(each.max()) for each in off.values())
    if not difference <= MOST:  # so that NaN fails, too
        raise ConversionError(
            f"The ONNX file differs from Keras by {difference:.2g}, more than {MOST:.0e}.", mend="Report this as a bug."
        )
    return difference


def _pictures(run: Run, examples: Examples) -> NDArray[np.float32]:
    """Test pictures as the model takes them, (n, height, width, channels)."""
    if not examples.test:
        raise ConversionError("The run has no test pictures to compare on.", mend="Train with a test split.")
    channels = 1 if run.input.color == "GRAY" else 3
    tensor = mf.Tensor(name="image", shape=[1, run.input.height, run.input.width, channels], dtype="float32")
    prepare = Preprocessor(run.input, tensor)
    root = Path(run.dataset)
    return np.concatenate([prepare(example.picture(root))[0].copy() for example in examples.test[:PICTURES]])


def _dress(model: Any, run: Run, batch: Batch) -> bytes:  # noqa: ANN401 -- protobuf has no types
    """Its names and facts, and nothing of how it was made; equal models are equal bytes."""
    if foreign := {node.op_type for node in model.graph.node if node.domain}:
        raise ConversionError(f"{sorted(foreign)} are no operators of ai.onnx.", mend="Replace the layers.")
    kept = [each for each in model.opset_import if not each.domain]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.producer_name, model.producer_version = "tinysight", __version__
    model.graph.name = run.task
    model.graph.doc_string = ""
    put_in_order(model.graph)
    (image,) = model.graph.input
    image.doc_string = f"{run.input.color} pictures, (batch, height, width, channels), 0..255."
    if batch == "dynamic":
        for value in (image, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    draft = draft_manifest(run, name="model", version="0.0.0", release=0)
    facts = {
        "task": run.task,
        "labels": _json(run.labels),
        "input": _json(run.input),
        "decode": _json(draft.decode),
        "dataset_digest": run.dataset_digest,
    }
    onnx.helper.set_model_props(model, dict(sorted(facts.items())))
    return bytes(model.SerializeToString(deterministic=True))


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _work(job: Job) -> None:
    """The child's side."""
    import keras  # noqa: PLC0415 -- the parent must not load TensorFlow
    import tensorflow as tf  # noqa: PLC0415 -- see above
    import tf2onnx  # noqa: PLC0415 -- see above

    model = keras.models.load_model(job.model, compile=False, safe_mode=True)
    pictures = np.load(job.pictures, allow_pickle=False)
    answer = tf.function(lambda image: model(image, training=False))
    image = tf.TensorSpec((job.batch, *model.inputs[0].shape[1:]), tf.float32, name="image")
    exported, _ = tf2onnx.convert.from_function(answer, input_signature=[image], opset=OPSET)
    Path(job.target).write_bytes(exported.SerializeToString())
    answers: dict[str, Any] = {name: np.asarray(value) for name, value in answer(pictures).items()}
    np.savez(job.answers, **answers)


if __name__ == "__main__":
    _work(msgspec.json.decode(sys.argv[1], type=Job))
