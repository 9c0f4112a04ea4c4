"""Run one variant of a bundle, and test that it does here what it did where it was made.

In: the input tensor.  Out: one raw array per output, by the name that the manifest has for it. How a file is run is the
matter of `engines`, which of them is the fastest that of `choice`; a `Model` that is made here uses the interpreter, so
that converters and benchmarks get the same answers each time.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BundleError, InferenceError, RuntimeLoadError, ShapeError
from tinysight_contract.manifest import Manifest, Output, Ssd, Variant
from tinysight_edge.engines import Engine, InterpreterEngine, Runtime, find_runtime

__all__ = ["Model", "Runtime", "comparable", "departure", "find_runtime", "golden_inputs", "prove", "self_test"]

LEAST_LIMIT_S: Final = 10.0
LIMIT_IN_MEDIANS: Final = 50.0


class Model:
    """One variant, loaded. Not for several threads at once.

    Args:
        content: the .tflite file's bytes.
        variant: its entry in the manifest.
        threads: of the interpreter.
        runtime: instead of the one found here.
        engine: instead of the runtime's interpreter; has the file loaded already.

    Raises:
        RuntimeLoadError: the runtime cannot load the file.
        BundleError: the file's tensors are not those of the manifest.

    Attributes:
        median_ms: of one run, where it has been measured; else 0.
        choice: what was tried, what each took or why it was refused, and what was kept; told in ``info``.
    """

    def __init__(
        self,
        content: bytes,
        variant: Variant,
        *,
        threads: int = 1,
        runtime: Runtime | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.variant = variant
        self.runtime = runtime or find_runtime()
        self.engine = engine or InterpreterEngine(content, variant, threads=threads, runtime=self.runtime)
        self.median_ms = 0.0
        self.choice: tuple[str, ...] = ()
        self._names = [output.name for output in variant.outputs]

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
                prove(bundle, model)
            except RuntimeLoadError as error:
                refused = refused or error
            else:
                return model
        assert refused is not None  # noqa: S101 -- a manifest has at least one variant
        raise refused

    @property
    def limit_s(self) -> float:
        """A run that takes longer hangs: fifty medians, so that a throttled processor is not taken for a dead one."""
        return max(LEAST_LIMIT_S, LIMIT_IN_MEDIANS * self.median_ms / 1e3)

    def run(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name, raw, as the model stores them; copies that stay valid.

        Raises:
            ShapeError: the tensor is not of the manifest's shape and dtype.
            InferenceError: the model fails on this picture.
        """
        if list(tensor.shape) != self.variant.input.shape or tensor.dtype != self.variant.input.dtype:
            raise ShapeError(
                f"The model takes {self.variant.input.dtype}{self.variant.input.shape}, not "
                f"{tensor.dtype}{list(tensor.shape)}.",
                mend="Prepare the picture with the bundle's Preprocessor.",
            )
        np.copyto(self.engine.lend_input(), tensor)
        return {name: lent.copy() for name, lent in self.run_lent().items()}

    def lend_input(self) -> NDArray[Any]:
        """The model's own input, to be filled in place; keep no reference to it when `run_lent` is called."""
        return self.engine.lend_input()

    def run_lent(self) -> dict[str, NDArray[Any]]:
        """Run what the input holds: outputs by name, raw, lent. Keep no reference to them at the next run.

        Raises:
            InferenceError: the model fails on this picture.
        """
        try:
            self.engine.invoke()
        except (RuntimeError, ValueError) as error:
            raise InferenceError(
                f"{self.variant.file} fails on a picture: {' '.join(str(error).split())}.",
                mend="Flash another bundle, or convert the model again.",
            ) from error
        return dict(zip(self._names, self.engine.lend_outputs(), strict=True))


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


def self_test(bundle: Bundle, model: Model, *, heed: Callable[[], None] = lambda: None) -> str | None:
    """Why the model here does not do what it did where it was made, or None.

    Args:
        bundle: with its golden pictures.
        model: of that bundle.
        heed: called before each picture; what it raises ends the test.

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
        heed()
        got = model.run(prepare.from_picture(picture))
        want = {name: each[number] for name, each in expected.items()}
        if (
            reason := departure(bundle.manifest, model.variant, {name: got[name][0] for name in want}, want)
        ) is not None:
            return f"golden picture {number}: {reason}"
    return None


def prove(bundle: Bundle, model: Model, *, heed: Callable[[], None] = lambda: None) -> None:
    """Let it pass its self-test; the arguments are those of `self_test`.

    Raises:
        RuntimeLoadError: it does not.
        BundleError: the golden vectors do not fit the manifest.
    """
    if (reason := self_test(bundle, model, heed=heed)) is not None:
        runtime = model.runtime
        raise RuntimeLoadError(
            f"{bundle.manifest.name} fails its self-test on {runtime.name} {runtime.version}: {reason}.",
            mend="Flash the bundle again; if it fails again, convert it for this runtime.",
        )


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
