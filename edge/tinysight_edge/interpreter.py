"""Run one variant of a bundle: the only file that imports LiteRT or tflite-runtime.

In: the input tensor.  Out: one raw array per output, by the name that the manifest has for it. LiteRT is taken where it
is installed, tflite-runtime where it is not (32-bit ARM). What a model asks of a tensor is checked against the manifest
at load.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BundleError, RuntimeLoadError
from tinysight_contract.manifest import Manifest, Output, Ssd, Tensor, Variant
from tinysight_edge.quiet import without_lines

__all__ = ["Model", "Runtime", "comparable", "departure", "find_runtime", "golden_inputs", "self_test"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """An interpreter that is installed here."""

    name: str
    version: str
    interpreter: Any


def find_runtime() -> Runtime:
    """LiteRT if it is installed, else tflite-runtime.

    Raises:
        RuntimeLoadError: neither is.
    """
    try:
        import ai_edge_litert  # noqa: PLC0415 -- each runtime is optional
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 -- see above
    except ImportError:
        pass
    else:
        from importlib.metadata import version  # noqa: PLC0415 -- slow to import and rarely needed

        del ai_edge_litert
        return Runtime("litert", version("ai-edge-litert"), Interpreter)
    try:
        from tflite_runtime.interpreter import Interpreter as OldInterpreter  # noqa: PLC0415 -- see above
    except ImportError as error:
        raise RuntimeLoadError(
            "Neither ai-edge-litert nor tflite-runtime can be imported.",
            mend="Install one with `pip install 'tinysight[edge]'`.",
        ) from error
    from tflite_runtime import __version__ as old_version  # noqa: PLC0415 -- see above

    return Runtime("tflite-runtime", str(old_version), OldInterpreter)


class Model:
    """One variant, loaded.

    Args:
        content: the .tflite file's bytes.
        variant: its entry in the manifest.
        threads: of the interpreter.
        runtime: instead of the one found here.

    Raises:
        RuntimeLoadError: the runtime cannot load the file.
        BundleError: the file's tensors are not those of the manifest.
    """

    def __init__(self, content: bytes, variant: Variant, *, threads: int = 1, runtime: Runtime | None = None) -> None:
        self.variant = variant
        self.runtime = runtime or find_runtime()
        try:
            with without_lines(b"INFO: Created TensorFlow Lite"):
                self._interpreter = self.runtime.interpreter(model_content=content, num_threads=threads)
                self._interpreter.allocate_tensors()
            inputs, outputs = self._details()
        except (ValueError, RuntimeError, TypeError) as error:
            why = " ".join(str(error).split())
            raise RuntimeLoadError(
                f"{self.runtime.name} {self.runtime.version} cannot load {variant.file}: {why}.",
                mend="Choose another variant of the bundle, or update the runtime.",
            ) from error
        if len(inputs) != 1:
            raise BundleError(
                f"{variant.file} takes {len(inputs)} inputs, {sorted(inputs)}.",
                mend="Use a model that takes one picture and nothing else.",
            )
        self._input_index = _index_of(variant.input, inputs, variant.file)
        self._output_index = {output.name: _index_of(output, outputs, variant.file) for output in variant.outputs}

    @classmethod
    def load(cls, bundle: Bundle, *, scheme: str | None = None, threads: int = 1) -> "Model":
        """The variant with this scheme; without one, the first that loads and passes its self-test here.

        Raises:
            RuntimeLoadError: none does; said is what became of the first.
            BundleError: the bundle has no such variant, or the file does not fit its manifest.
        """
        manifest = bundle.manifest
        runtime = find_runtime()
        refused: RuntimeLoadError | None = None
        for variant in manifest.variants if scheme is None else [manifest.variant(scheme)]:
            try:
                model = cls(bundle.read(variant.file), variant, threads=threads, runtime=runtime)
            except RuntimeLoadError as error:
                refused = refused or error
                continue
            if (reason := self_test(bundle, model)) is None:
                return model
            refused = refused or RuntimeLoadError(
                f"{manifest.name} fails its self-test on {runtime.name} {runtime.version}: {reason}.",
                mend="Flash the bundle again; if it fails again, convert it for this runtime.",
            )
        assert refused is not None  # noqa: S101 -- a manifest has at least one variant
        raise refused

    def run(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name, raw, as the model stores them; copies that stay valid."""
        self._interpreter.set_tensor(self._input_index, tensor)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._output_index.items()}

    def _details(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The file's inputs and outputs as the runtime describes them, by the names that the manifest uses."""
        if self.variant.named_by == "signature":
            signature = self._interpreter.get_signature_runner()
            return signature.get_input_details(), signature.get_output_details()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        for each in (inputs, outputs):
            if len({details["name"] for details in each}) != len(each):
                raise ValueError("two of its tensors share a name")
        return {each["name"]: each for each in inputs}, {each["name"]: each for each in outputs}


def _index_of(want: Tensor, details: Mapping[str, Mapping[str, Any]], file: str) -> int:
    """The runtime's index of a tensor, after checking that it is what the manifest says."""
    if want.name not in details:
        raise BundleError(f"{file} has no tensor {want.name!r} but {sorted(details)}.", mend="Convert the model again.")
    got = details[want.name]
    scale, zero_point = got["quantization"]
    shape, dtype = [int(side) for side in got["shape"]], np.dtype(got["dtype"]).name
    if dtype in {"uint8", "int8"} and scale == 0:  # integers that are not quantized stand for themselves
        scale = 1.0
    same = shape == want.shape and dtype == want.dtype and zero_point == want.zero_point
    if not same or not np.isclose(scale, want.scale, rtol=1e-5, atol=1e-12):
        raise BundleError(
            f"{file}: {want.name} is {dtype}{shape} ({scale}, {zero_point}), the manifest says "
            f"{want.dtype}{want.shape} ({want.scale}, {want.zero_point}).",
            mend="Convert the model again.",
        )
    return int(got["index"])


# How far outputs may be from those of the workstation: (mean, maximum), in steps of int8, or in shares of the largest
# float. Kernels of different runtimes round differently: between LiteRT 2.3 and tflite-runtime 2.14 the belt detector
# differs by 0.6 steps in the mean and 8 at most. Another model, or a broken kernel, differs by tens in the mean.
# Floats that a quantized file answers with have been steps before, so they may be off by as many of 255.
MAX_STEPS = (2.0, 32.0)
MAX_FLOAT_DRIFT = (1e-3, 1e-2)
FLOAT_SCHEMES = ("float32", "float16")


def golden_inputs(bundle: Bundle) -> NDArray[np.uint8]:
    """The bundle's golden pictures, (count, height, width, channels).

    Raises:
        BundleError: their number does not fit their bytes.
    """
    manifest: Manifest = bundle.manifest
    channels = 1 if manifest.input.color == "GRAY" else 3
    return _array(
        bundle, manifest.golden.file, np.dtype(np.uint8), [manifest.input.height, manifest.input.width, channels]
    )


def self_test(bundle: Bundle, model: Model) -> str | None:
    """Why the model here does not do what it did where it was made, or None.

    Raises:
        BundleError: the golden vectors do not fit the manifest.
    """
    from tinysight_edge.preprocess import Preprocessor  # noqa: PLC0415 -- only the self-test needs it here

    prepare = Preprocessor(bundle.manifest.input, model.variant.input)
    outputs = comparable(bundle.manifest, model.variant)
    expected = {
        output.name: _array(bundle, model.variant.golden[output.name], np.dtype(output.dtype), output.shape[1:])
        for output in outputs
    }
    for number, picture in enumerate(golden_inputs(bundle)):
        got = model.run(prepare.from_picture(picture))
        want = {name: each[number] for name, each in expected.items()}
        if (
            reason := departure(bundle.manifest, model.variant, {name: got[name][0] for name in want}, want)
        ) is not None:
            return f"golden picture {number}: {reason}"
    return None


def departure(
    manifest: Manifest, variant: Variant, got: Mapping[str, NDArray[Any]], want: Mapping[str, NDArray[Any]]
) -> str | None:
    """Why a variant's answers to one picture are too far from what they were where the bundle was made, or None."""
    for output in comparable(manifest, variant):
        drift = np.abs(got[output.name].astype(np.float64) - want[output.name].astype(np.float64))
        scale, (mean, most) = 1.0, MAX_STEPS
        if output.dtype == "float32":
            scale = max(1.0, float(np.abs(want[output.name]).max()))
            if variant.scheme in FLOAT_SCHEMES:
                mean, most = MAX_FLOAT_DRIFT
            else:
                scale /= 255.0
        if not (drift.mean() <= mean * scale and drift.max() <= most * scale):
            return f"{output.name} is off by {drift.mean():.3g} in the mean and {drift.max():.3g} at most"
    return None


def comparable(manifest: Manifest, variant: Variant) -> list[Output]:
    """Outputs whose numbers stay where they are; a sorted list of boxes changes its order when two scores are close."""
    if isinstance(manifest.decode, Ssd):
        return [output for output in variant.outputs if output.role == "scores"]
    return variant.outputs


def _array(bundle: Bundle, file: str, dtype: np.dtype[Any], shape: list[int]) -> NDArray[Any]:
    raw = bundle.read(file)
    count = bundle.manifest.golden.count
    if len(raw) != count * int(np.prod(shape)) * dtype.itemsize:
        raise BundleError(
            f"{file} does not hold {count} arrays of {shape} {dtype.name}.", mend="Convert the model again."
        )
    return np.frombuffer(raw, dtype).reshape(count, *shape)
