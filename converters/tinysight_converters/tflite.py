"""The only user of TensorFlow's TFLite converter, in a child process because it leaks.

In: a Keras model or a SavedModel, fitted pictures to calibrate with.  Out: flatbuffers with a static batch of one, a
signature with the model's own output names, built-in operators only; and how far each layer of the int8 file is from
the float model.
"""

import csv
import io
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tinysight_contract.manifest import Scheme
from tinysight_converters.child import run_child

__all__ = ["Converted", "LayerError", "Recipe", "convert_model"]

LAYER_PICTURES: Final = 32
SIGNATURE: Final = "serving_default"
MAIN_OPS: Final = {"convolution", "depthwise", "MatMul"}  # the layer of a fused operator


class Recipe(Struct, frozen=True, kw_only=True):
    """One conversion.

    Attributes:
        scheme: what the numbers become.
        ranges: of ``int8``: of the smallest and largest value seen, or those of the least squared error.
        flex: of ``float32``: let TensorFlow's own kernels in, only to see which they are.
        keep_float: for ``int8-mixed``: names of the tensors (`LayerError.tensor`) whose layers stay in float32.
    """

    scheme: Scheme
    ranges: Literal["minmax", "mse"] = "minmax"
    flex: bool = False
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
        model: the ``.keras`` file, for ``int8-qat`` one that was trained for it; or the folder of a SavedModel.
        calibration: pictures as the model is fed them: (n, ...), each of the shape of its input.
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
        run_child("tinysight_converters.tflite", job, what="The TFLite converter")
        files = [(folder / f"{number}.tflite").read_bytes() for number in range(len(recipes))]
        found = (folder / "layers.json").read_bytes() if layers else b"[]"
        return Converted(files=files, layers=msgspec.json.decode(found, type=list[LayerError]))


def _work(job: Job) -> None:
    """The child's side."""
    import keras  # noqa: PLC0415 -- the parent must not load TensorFlow

    # Keras finds the layers of fake_quant when it loads a model.
    from tinysight_converters import clone, fake_quant, ranges  # noqa: F401, PLC0415 -- see above

    pictures = np.load(job.calibration, allow_pickle=False)
    with tempfile.TemporaryDirectory(prefix="tinysight-saved-") as folder:
        if Path(job.model).is_dir():
            plain = _Converting(_SavedModel(job.model), pictures, Path(folder) / "plain")
        else:
            try:
                model = keras.models.load_model(job.model, compile=False, safe_mode=True)
            except (OSError, ValueError, TypeError) as error:
                raise SystemExit(f"the .keras file cannot be loaded: {' '.join(str(error).split())[:300]}") from error
            plain = _Converting(_KerasModel(model), pictures, Path(folder) / "plain")
        for number, recipe in enumerate(job.recipes):
            made = plain
            if recipe.ranges == "mse":
                cloned = clone.quantized_clone(model)
                ranges.calibrate(cloned, pictures, method="mse")
                made = _Converting(_KerasModel(cloned), pictures, Path(folder) / str(number))
                recipe = Recipe(scheme="int8-qat")  # noqa: PLW2901 -- it has its ranges now
            (Path(job.folder) / f"{number}.tflite").write_bytes(made.convert(recipe))
        if job.layers:
            (Path(job.folder) / "layers.json").write_bytes(msgspec.json.encode(plain.layer_errors()))


class _KerasModel:
    """A Keras model as something to be called with one picture."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 -- Keras has no types
        if len(model.inputs) != 1:
            raise SystemExit(f"it takes {len(model.inputs)} inputs, and a camera gives one picture")
        only = model.inputs[0]
        if None in only.shape[1:]:
            raise SystemExit(f"the size of its input is open, {tuple(only.shape[1:])}")
        self._model, self._shape, self.names = model, only.shape[1:], {model.name, *_layer_names(model)}
        self.outputs = sorted(model.output) if isinstance(model.output, dict) else []

    def save(self, folder: Path) -> None:
        import keras  # noqa: PLC0415 -- the parent must not load TensorFlow
        import tensorflow as tf  # noqa: PLC0415 -- see above

        archive = keras.export.ExportArchive()
        archive.track(self._model)
        picture = tf.TensorSpec((1, *self._shape), tf.float32, name="image")
        archive.add_endpoint("serve", lambda image: self._model(image, training=False), input_signature=[picture])
        archive.write_out(str(folder), verbose=False)


class _SavedModel:
    """The signature of a SavedModel that is there for serving, likewise."""

    def __init__(self, folder: str) -> None:
        import tensorflow as tf  # noqa: PLC0415 -- the parent must not load TensorFlow

        self._held = tf.saved_model.load(folder)
        if SIGNATURE not in self._held.signatures:
            raise SystemExit(f"the SavedModel has no signature {SIGNATURE!r}")
        self._signature = self._held.signatures[SIGNATURE]
        inputs = self._signature.structured_input_signature[1]
        if len(inputs) != 1:
            raise SystemExit(f"it takes {len(inputs)} inputs, and a camera gives one picture")
        ((self._input, spec),) = inputs.items()
        if spec.shape.rank is None or None in spec.shape[1:]:
            raise SystemExit(f"the size of its input is open, {spec.shape}")
        self._shape, self._dtype = spec.shape[1:], spec.dtype
        self.names, self.outputs = set[str](), sorted(self._signature.structured_outputs)

    def save(self, folder: Path) -> None:
        import tensorflow as tf  # noqa: PLC0415 -- see above

        module = tf.Module()
        module.held = self._held
        picture = tf.TensorSpec((1, *self._shape), tf.float32, name="image")
        module.serve = tf.function(
            lambda image: self._signature(**{self._input: tf.cast(image, self._dtype)}), input_signature=[picture]
        )
        tf.saved_model.save(module, str(folder), signatures={"serve": module.serve})


class _Converting:
    """One model, saved once for TensorFlow's converter."""

    def __init__(self, source: "_KerasModel | _SavedModel", pictures: NDArray[Any], folder: Path) -> None:
        import tensorflow as tf  # noqa: PLC0415 -- see above

        self._tf, self._source, self._folder = tf, source, str(folder)
        self._pictures = pictures.astype(np.float32)
        source.save(folder)

    def convert(self, recipe: Recipe) -> bytes:
        from tensorflow.lite.python.convert import ConverterError  # noqa: PLC0415 -- see above

        converter = self._converter(recipe.scheme)
        if recipe.flex:
            converter.target_spec.supported_ops.append(self._tf.lite.OpsSet.SELECT_TF_OPS)
        try:
            return self._converted(converter, recipe)
        except (ConverterError, RuntimeError, ValueError) as error:
            raise SystemExit(_words(str(error))) from error

    def _converted(self, converter: Any, recipe: Recipe) -> bytes:  # noqa: ANN401 -- TensorFlow has no types
        if recipe.scheme != "int8-mixed":
            return bytes(converter.convert())
        options = self._tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=recipe.keep_float)
        debugger = self._tf.lite.experimental.QuantizationDebugger(converter=converter, debug_options=options)
        return bytes(debugger.get_nondebug_quantized_model())

    def _converter(self, scheme: str) -> Any:  # noqa: ANN401 -- TensorFlow has no types
        tf = self._tf
        converter = tf.lite.TFLiteConverter.from_saved_model(self._folder, signature_keys=["serve"])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if scheme != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if scheme == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if scheme in {"int8", "int8-mixed"}:
            converter.representative_dataset = lambda: ([picture[None]] for picture in self._pictures)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if scheme in {"int8", "int8-qat"}:
            converter.inference_input_type = tf.uint8
            # MediaPipe takes no int8 scores.
            converter.inference_output_type = tf.uint8 if self._source.outputs == ["scores"] else tf.int8
        return converter

    def layer_errors(self) -> list[LayerError]:
        """By TensorFlow's QuantizationDebugger, which gives every layer the float model's input."""

        def noise(real: NDArray[Any], stored: NDArray[Any], scale: float, zero_point: int) -> float:
            wrong = np.mean(np.square(real - (stored.astype(np.float32) - zero_point) * scale))
            return float(wrong / max(float(np.var(real)), 1e-12))

        debug = self._tf.lite.experimental
        debugger = debug.QuantizationDebugger(
            converter=self._converter("int8"),
            debug_dataset=lambda: ([picture[None]] for picture in self._pictures[:LAYER_PICTURES]),
            debug_options=debug.QuantizationDebugOptions(layer_direct_compare_metrics={"noise": noise}),
        )
        debugger.run()
        table = io.StringIO()
        debugger.layer_statistics_dump(table)
        return [
            LayerError(
                op=row["op_name"],
                layer=_layer_of(row["tensor_name"], self._source.names, self._source.outputs),
                tensor=row["tensor_name"],
                rms_steps=round(float(row["mean_squared_error"]) ** 0.5 / float(row["scale"]), 4),
                noise=float(f"{float(row['noise']):.4g}"),
                scale=float(row["scale"]),
            )
            for row in csv.DictReader(io.StringIO(table.getvalue()))
        ]


def _words(error: str) -> str:
    """The part of a converter's error that says what is wrong, in one line."""
    found = re.search(r"(?:TF Select|Flex|Custom) ops: ([^\n]+)", error)
    if found:
        return f"{found[1].strip()} needs TensorFlow's own kernels, which no device has"
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return lines[0][:300] if lines else "it says nothing"


def _layer_names(model: Any) -> Iterator[str]:  # noqa: ANN401 -- see above
    for layer in model.layers:
        yield layer.name
        yield from _layer_names(layer) if hasattr(layer, "layers") else ()


def _layer_of(tensor: str, known: set[str], outputs: list[str]) -> str:
    """``net_1/relu_1/Relu6;net_1/conv2d_3_1/convolution`` → ``conv2d_3``; Keras numbers a scope that it enters again.

    ``StatefulPartitionedCall:1`` is the second output by name.
    """
    if tensor.startswith("StatefulPartitionedCall"):
        number = int(tensor.rpartition(":")[2])
        return outputs[number] if number < len(outputs) else tensor
    for part in sorted(tensor.split(";"), key=lambda part: part.split("/")[-1] not in MAIN_OPS):
        root, *scopes = part.split("/")[:-1] or [""]
        again = root not in known
        for scope in reversed(scopes):
            name = scope.rpartition("_")[0] if again else scope
            if name in known:
                return name
    return tensor


if __name__ == "__main__":
    _work(msgspec.json.decode(sys.argv[1], type=Job))
