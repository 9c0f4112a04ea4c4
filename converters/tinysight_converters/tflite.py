"""The only user of TensorFlow's TFLite converter, in a child process because it leaks.

``python -P -m tinysight_converters.tflite`` reads a job from its first argument (JSON); with ``-P`` no module in the
user's folder is taken for one of ours. In: a Keras model with named outputs, fitted pictures to calibrate with.  Out:
flatbuffers with a static batch of one, a signature with the model's own output names, built-in operators only; and how
far each layer of the int8 file is from the float model.
"""

import csv
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tinysight_contract.errors import ConversionError
from tinysight_contract.manifest import Scheme

__all__ = ["Converted", "LayerError", "Recipe", "convert_model"]

TIMEOUT_S: Final = 1800.0
LAYER_PICTURES: Final = 32
MAIN_OPS: Final = {"convolution", "depthwise", "MatMul"}  # the layer of a fused operator


class Recipe(Struct, frozen=True, kw_only=True):
    """One conversion.

    Attributes:
        scheme: what the numbers become.
        ranges: of ``int8``: of the smallest and largest value seen, or those of the least squared error.
        keep_float: for ``int8-mixed``: names of the tensors (`LayerError.tensor`) whose layers stay in float32.
    """

    scheme: Scheme
    ranges: Literal["minmax", "mse"] = "minmax"
    keep_float: list[str] = []


class LayerError(Struct, frozen=True, kw_only=True):
    """How far one layer of the int8 file is from the float model, given the same input.

    Attributes:
        op: TFLite's operator.
        layer: of the Keras model, or the model's output that it makes.
        tensor: the name of its output in the file.
        rms_steps: root mean square of the difference, in steps of its scale; 0.29 is nothing but rounding.
        noise: mean square of the difference over the variance of the float values; 0.001 is a thousandth.
        scale: of its output.
    """

    op: str
    layer: str
    tensor: str
    rms_steps: float
    noise: float
    scale: float


class Converted(Struct, frozen=True, kw_only=True):
    """What the converter made: a flatbuffer for each recipe, and the layers if they were asked for."""

    files: list[bytes]
    layers: list[LayerError]


class Job(Struct, frozen=True, kw_only=True):
    """What the child is to do: recipes to files in ``folder``; ``calibration`` is a .npy of (n, h, w, c)."""

    model: str
    calibration: str
    recipes: list[Recipe]
    layers: bool
    folder: str


def convert_model(model: Path, calibration: NDArray[Any], recipes: list[Recipe], *, layers: bool = False) -> Converted:
    """Convert a model in a child process.

    Args:
        model: the ``.keras`` file; for ``int8-qat`` one that was trained for it.
        calibration: fitted pictures (n, height, width, channels), as the device will feed them.
        recipes: what to make.
        layers: also measure what int8 does to each layer, in the order they run.

    Raises:
        ConversionError: the converter failed, with its own words; or it took longer than half an hour.
    """
    with tempfile.TemporaryDirectory(prefix="tinysight-convert-") as name:
        folder = Path(name)
        pictures = folder / "calibration.npy"
        np.save(pictures, calibration, allow_pickle=False)
        job = Job(model=str(model), calibration=str(pictures), recipes=recipes, layers=layers, folder=name)
        command = [sys.executable, "-P", "-m", "tinysight_converters.tflite", msgspec.json.encode(job).decode()]
        env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, env=env, check=False)
        except subprocess.TimeoutExpired as error:
            raise ConversionError("The converter does not end.", mend="Try a smaller model.") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            why = lines[-1].strip() if lines else f"status {done.returncode}"
            raise ConversionError(f"The TFLite converter failed: {why}.", mend="`tinysight lint` looks at its layers.")
        files = [(folder / f"{number}.tflite").read_bytes() for number in range(len(recipes))]
        found = (folder / "layers.json").read_bytes() if layers else b"[]"
        return Converted(files=files, layers=msgspec.json.decode(found, type=list[LayerError]))


def _work(job: Job) -> None:
    """The child's side."""
    import keras  # noqa: PLC0415 -- the parent must not load TensorFlow
    import tensorflow as tf  # noqa: PLC0415 -- see above

    pictures = np.load(job.calibration, allow_pickle=False).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="tinysight-saved-") as saved:
        model = keras.models.load_model(job.model, compile=False, safe_mode=True)
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint(
            "serve",
            lambda image: model(image, training=False),
            input_signature=[tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32, name="image")],
        )
        archive.write_out(saved, verbose=False)
        for number, recipe in enumerate(job.recipes):
            (Path(job.folder) / f"{number}.tflite").write_bytes(
                _convert(tf, saved, recipe, pictures, set(model.output))
            )
        if job.layers:
            converter = _converter(tf, saved, "int8", pictures, set(model.output))
            found = _layer_errors(tf, converter, pictures[:LAYER_PICTURES], model)
            (Path(job.folder) / "layers.json").write_bytes(msgspec.json.encode(found))


def _converter(tf: Any, saved: str, scheme: str, pictures: NDArray[np.float32], outputs: set[str]) -> Any:  # noqa: ANN401 -- TensorFlow has no types
    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if scheme != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme in {"int8", "int8-mixed"}:
        converter.representative_dataset = lambda: ([picture[None]] for picture in pictures)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if scheme == "int8":
        converter.inference_input_type = tf.uint8
        # MediaPipe takes no int8 scores.
        converter.inference_output_type = tf.uint8 if outputs == {"scores"} else tf.int8
    return converter


def _convert(tf: Any, saved: str, recipe: Recipe, pictures: NDArray[np.float32], outputs: set[str]) -> bytes:  # noqa: ANN401 -- see above
    converter = _converter(tf, saved, recipe.scheme, pictures, outputs)
    if recipe.scheme == "int8-mixed":
        options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=recipe.keep_float)
        debugger = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_options=options)
        return bytes(debugger.get_nondebug_quantized_model())
    return bytes(converter.convert())


def _layer_names(model: Any) -> Iterator[str]:  # noqa: ANN401 -- see above
    for layer in model.layers:
        yield layer.name
        yield from _layer_names(layer) if hasattr(layer, "layers") else ()


def _layer_of(tensor: str, known: set[str], outputs: list[str]) -> str:
    """``net_1/relu_1/Relu6;net_1/conv2d_3_1/convolution`` → ``conv2d_3``; Keras numbers a scope that it enters again.

    ``StatefulPartitionedCall:1`` is the second output by name.
    """
    if tensor.startswith("StatefulPartitionedCall"):
        return outputs[int(tensor.rpartition(":")[2])]
    for part in sorted(tensor.split(";"), key=lambda part: part.split("/")[-1] not in MAIN_OPS):
        root, *scopes = part.split("/")[:-1] or [""]
        again = root not in known
        for scope in reversed(scopes):
            name = scope.rpartition("_")[0] if again else scope
            if name in known:
                return name
    return tensor


def _layer_errors(tf: Any, converter: Any, pictures: NDArray[np.float32], model: Any) -> list[LayerError]:  # noqa: ANN401 -- see above
    """By TensorFlow's QuantizationDebugger, which gives every layer the float model's input."""

    def noise(real: NDArray[Any], stored: NDArray[Any], scale: float, zero_point: int) -> float:
        wrong = np.mean(np.square(real - (stored.astype(np.float32) - zero_point) * scale))
        return float(wrong / max(float(np.var(real)), 1e-12))

    options = tf.lite.experimental.QuantizationDebugOptions(layer_direct_compare_metrics={"noise": noise})
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=lambda: ([picture[None]] for picture in pictures), debug_options=options
    )
    debugger.run()
    known = {model.name, *_layer_names(model)}
    outputs = sorted(model.output) if isinstance(model.output, dict) else list(model.output_names)
    table = io.StringIO()
    debugger.layer_statistics_dump(table)
    return [
        LayerError(
            op=row["op_name"],
            layer=_layer_of(row["tensor_name"], known, outputs),
            tensor=row["tensor_name"],
            rms_steps=round(float(row["mean_squared_error"]) ** 0.5 / float(row["scale"]), 4),
            noise=float(f"{float(row['noise']):.4g}"),
            scale=float(row["scale"]),
        )
        for row in csv.DictReader(io.StringIO(table.getvalue()))
    ]


if __name__ == "__main__":
    _work(msgspec.json.decode(sys.argv[1], type=Job))
