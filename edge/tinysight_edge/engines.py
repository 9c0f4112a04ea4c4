"""What runs a .tflite file on this machine. Only this file and `compiled` import LiteRT or tflite-runtime.

In: a file's bytes, its entry in the manifest, the bytes of a picture.  Out: raw arrays, in the order of the manifest.
An engine lends its input and its answers and copies neither where the runtime allows it. LiteRT is taken where it is
installed, tflite-runtime where it is not (32-bit ARM). What is the fastest here is decided in `choice`.
"""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import BundleError, RuntimeLoadError
from tinysight_contract.manifest import Tensor, Variant
from tinysight_edge.quiet import without_lines

__all__ = [
    "Engine",
    "InterpreterEngine",
    "Runtime",
    "cannot_load",
    "cannot_run",
    "edge_tpu",
    "find_runtime",
    "has_edge_tpu_code",
    "known",
    "only_one",
]

EDGE_TPU_LIBRARY: Final = "libedgetpu.so.1"
EDGE_TPU_CODE: Final = b"edgetpu-custom-op"  # the name of the one operator that the Edge TPU's compiler leaves


class Engine(Protocol):
    """One loaded file that can be invoked. Not for several threads at once.

    Attributes:
        name: of the engine, as the configuration and ``info`` say it.
        note: what a person should know of how it runs here, or nothing.
    """

    name: str
    note: str

    def lend_input(self) -> NDArray[Any]:
        """The input tensor, to be filled; let go of it before `invoke`."""

    def invoke(self) -> None:
        """Run what the input holds.

        Raises:
            RuntimeError: an operator fails.
        """

    def lend_outputs(self) -> list[NDArray[Any]]:
        """What the last run answered, as stored; let go of it before the next `invoke`."""


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


class InterpreterEngine:
    """The classic interpreter, which puts XNNPACK to work by itself, or an Edge TPU when its delegate is given.

    Args:
        content: the .tflite file's bytes.
        variant: its entry in the manifest.
        threads: for the operators.
        runtime: whose interpreter.
        delegates: besides XNNPACK.

    Raises:
        RuntimeLoadError: the runtime cannot load the file.
        BundleError: the file's tensors are not those of the manifest.
    """

    def __init__(
        self, content: bytes, variant: Variant, *, threads: int, runtime: Runtime, delegates: Sequence[Any] = ()
    ) -> None:
        self.name = "edgetpu" if delegates else "interpreter"
        try:
            with without_lines(b"INFO: Created TensorFlow Lite"):
                more = {"experimental_delegates": list(delegates)} if delegates else {}
                self._interpreter = runtime.interpreter(model_content=content, num_threads=threads, **more)
                self._interpreter.allocate_tensors()
            inputs, outputs = self._details(variant)
        except (ValueError, RuntimeError, TypeError) as error:
            raise cannot_load(runtime, variant, error) from error
        index = _index_of(only_one(inputs, variant), inputs, variant.file)
        # Functions that make a view: a view that is kept would forbid the next run.
        self._input = self._interpreter.tensor(index)
        self._outputs = [
            self._interpreter.tensor(_index_of(output, outputs, variant.file)) for output in variant.outputs
        ]
        self.note = "" if delegates or self._is_delegated() else "XNNPACK runs no operator of it"

    def lend_input(self) -> NDArray[Any]:
        """A view into the interpreter."""
        return np.asarray(self._input())

    def invoke(self) -> None:
        """Run what the input holds."""
        self._interpreter.invoke()

    def lend_outputs(self) -> list[NDArray[Any]]:
        """Views into the interpreter."""
        return [view() for view in self._outputs]

    def _details(self, variant: Variant) -> tuple[dict[str, Any], dict[str, Any]]:
        """The file's inputs and outputs as the runtime describes them, by the names that the manifest uses."""
        if variant.named_by == "signature":
            signature = self._interpreter.get_signature_runner()
            return signature.get_input_details(), signature.get_output_details()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        for each in (inputs, outputs):
            if len({details["name"] for details in each}) != len(each):
                raise ValueError("two of its tensors share a name")
        return {each["name"]: each for each in inputs}, {each["name"]: each for each in outputs}

    def _is_delegated(self) -> bool:
        """Whether any operator has been handed over. Only a private method tells; without it we believe so."""
        told = getattr(self._interpreter, "_get_ops_details", None)
        return told is None or any(each["op_name"] == "DELEGATE" for each in told())


def has_edge_tpu_code(content: bytes) -> bool:
    """Whether the file was compiled for the Edge TPU, so that nothing else can run it."""
    return EDGE_TPU_CODE in content


def edge_tpu() -> Any:  # noqa: ANN401 -- LiteRT has no types
    """The delegate of the first Edge TPU. Tests know it only by its absence: they have none.

    Raises:
        RuntimeLoadError: its library is not installed, or no Edge TPU answers.
    """
    try:
        from ai_edge_litert.interpreter import load_delegate  # noqa: PLC0415 -- each runtime is optional
    except ImportError:
        from tflite_runtime.interpreter import load_delegate  # noqa: PLC0415 -- see above
    try:
        ctypes.CDLL(EDGE_TPU_LIBRARY)  # first by ourselves: LiteRT's delegate stumbles when it cannot be made
        return load_delegate(EDGE_TPU_LIBRARY)
    except OSError as error:
        raise RuntimeLoadError(
            f"{EDGE_TPU_LIBRARY} is not installed.", mend="Install libedgetpu1-std, or choose another engine."
        ) from error
    except (ValueError, RuntimeError) as error:
        raise RuntimeLoadError(
            f"No Edge TPU answers ({' '.join(str(error).split())}).", mend="Plug it in, or choose another engine."
        ) from error


def cannot_load(runtime: Runtime, variant: Variant, why: object) -> RuntimeLoadError:
    """What to raise when a runtime says ``why`` it does not load a variant's file."""
    if isinstance(why, RuntimeLoadError):
        return why
    return RuntimeLoadError(
        f"{runtime.name} {runtime.version} cannot load {variant.file}: {' '.join(str(why).split())}.",
        mend="Choose another variant of the bundle, or update the runtime.",
    )


def cannot_run(runtime: Runtime, variant: Variant, why: object) -> RuntimeLoadError:
    """What to raise when a runtime loads a variant's file and fails at its first run."""
    return RuntimeLoadError(
        f"{runtime.name} {runtime.version} cannot run {variant.file}: {' '.join(str(why).split())}.",
        mend="Choose another variant of the bundle, or update the runtime.",
    )


def only_one(inputs: Mapping[str, Any], variant: Variant) -> Tensor:
    """The variant's input, after checking that the file has no other.

    Raises:
        BundleError: it has.
    """
    if len(inputs) != 1:
        raise BundleError(
            f"{variant.file} takes {len(inputs)} inputs, {sorted(inputs)}.",
            mend="Use a model that takes one picture and nothing else.",
        )
    return variant.input


def known(want: Tensor, details: Mapping[str, Any], file: str) -> str:
    """The tensor's name, after checking that the file has it.

    Raises:
        BundleError: it has not.
    """
    if want.name not in details:
        raise BundleError(f"{file} has no tensor {want.name!r} but {sorted(details)}.", mend="Convert the model again.")
    return want.name


def _index_of(want: Tensor, details: Mapping[str, Mapping[str, Any]], file: str) -> int:
    """The runtime's index of a tensor, after checking that it is what the manifest says."""
    got = details[known(want, details, file)]
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
