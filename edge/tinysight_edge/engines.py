"""What runs a .tflite file on this machine: the only file that imports LiteRT or tflite-runtime.

In: a file's bytes, its entry in the manifest, the bytes of a picture.  Out: raw arrays, in the order of the manifest.
An engine lends its input and its answers and copies neither where the runtime allows it. LiteRT is taken where it is
installed, tflite-runtime where it is not (32-bit ARM). What is the fastest here is decided in `choice`.
"""

import atexit
import ctypes
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import BundleError, RuntimeLoadError
from tinysight_contract.manifest import Tensor, Variant
from tinysight_edge.quiet import without_lines

__all__ = [
    "Accelerator",
    "CompiledEngine",
    "Engine",
    "InterpreterEngine",
    "Runtime",
    "accelerators",
    "edge_tpu",
    "find_runtime",
    "has_edge_tpu_code",
    "rehearse",
]

EDGE_TPU_LIBRARY: Final = "libedgetpu.so.1"
EDGE_TPU_CODE: Final = b"edgetpu-custom-op"  # the name of the one operator that the Edge TPU's compiler leaves
REHEARSAL_S: Final = 30.0
Accelerator = Literal["cpu", "gpu", "npu"]


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
            raise _cannot_load(runtime, variant, error) from error
        index = _index_of(_only_one(inputs, variant), inputs, variant.file)
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


class CompiledEngine:
    """LiteRT's newer API, which also reaches GPUs and NPUs. It knows nothing of quantization: check with the other.

    Args:
        content: the .tflite file's bytes.
        variant: its entry in the manifest.
        threads: for the operators.
        runtime: for the message of an error.
        accelerator: what shall run it; the processor takes what an accelerator leaves.

    Raises:
        RuntimeLoadError: it is not installed, cannot load the file, or the accelerator takes nothing of it.
    """

    def __init__(
        self, content: bytes, variant: Variant, *, threads: int, runtime: Runtime, accelerator: Accelerator = "cpu"
    ) -> None:
        self.name = "compiled-model" if accelerator == "cpu" else f"compiled-model on {accelerator}"
        self.note = ""
        try:
            from ai_edge_litert import compiled_model as lite  # noqa: PLC0415 -- optional, and not in older versions
        except ImportError as error:
            raise _cannot_load(runtime, variant, "it has no CompiledModel") from error
        kinds = lite.HardwareAccelerator
        wanted = kinds.CPU | {"cpu": kinds.CPU, "gpu": kinds.GPU, "npu": kinds.NPU}[accelerator]
        try:
            with without_lines(b""):  # all of them: it narrates, and what fails is in the error
                model = lite.CompiledModel.from_buffer(
                    content,
                    options=lite.Options(
                        hardware_accelerators=wanted, cpu_options=lite.CpuOptions(num_threads=threads)
                    ),
                )
                weakref.finalize(self, _close, model)
                if accelerator != "cpu" and not model.is_fully_accelerated():
                    raise _cannot_load(runtime, variant, f"the {accelerator} does not run all of it")
                (key,) = model.get_signature_list()
                inputs, outputs = model.get_input_tensor_details(key), model.get_output_tensor_details(key)
                names = list(outputs)
                self._given = model.create_input_buffers(0)
                self._told = model.create_output_buffers(0)
                self._model = model
        except (ValueError, RuntimeError, TypeError) as error:
            raise _cannot_load(runtime, variant, error) from error
        tensor = _only_one(inputs, variant)
        _same_form(tensor, inputs, variant.file)
        self._input: NDArray[Any] = np.zeros(tensor.shape, tensor.dtype)
        self._places = []
        for output in variant.outputs:
            _same_form(output, outputs, variant.file)
            self._places.append((names.index(output.name), output.shape, np.dtype(output.dtype)))
        with without_lines(b""):
            self.invoke()  # the first run makes an environment for the whole process, and says so
        _say_no_more()

    def lend_input(self) -> NDArray[Any]:
        """An array of ours, which is copied at the run: the API lends none of its own."""
        return self._input

    def invoke(self) -> None:
        """Run what the input holds."""
        self._given[0].write(self._input)
        self._model.run_by_index(0, self._given, self._told)

    def lend_outputs(self) -> list[NDArray[Any]]:
        """Copies: the API lends nothing."""
        return [
            self._told[place].read(int(np.prod(shape)), dtype).reshape(shape) for place, shape, dtype in self._places
        ]


def _close(model: Any) -> None:  # noqa: ANN401 -- LiteRT has no types
    """It narrates its end, too."""
    with without_lines(b"INFO: "):
        model.close()
        model.environment.close()


@cache
def _say_no_more() -> None:
    """That environment says at the end of the process that it ends: the last function of ours closes stderr before."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


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


def accelerators(dev: Path = Path("/dev")) -> dict[Accelerator, str]:
    """GPU and NPU, each with why it need not be tried here, or nothing."""
    ways: dict[Accelerator, tuple[str, ...]] = {
        "gpu": ("dri/renderD*", "mali*", "kgsl-3d*", "nvidiactl"),
        "npu": ("accel/accel*",),
    }
    return {
        kind: "" if any(any(dev.glob(way)) for way in each) else f"there is no {' or '.join(each)} in {dev}"
        for kind, each in ways.items()
    }


def rehearse(content: bytes, accelerator: Accelerator) -> str | None:
    """Why a GPU or an NPU must not be used: in a child process, since a driver may crash or hang. None if it may."""
    code = f"from tinysight_edge.engines import _rehearse; _rehearse({accelerator!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], input=content, capture_output=True, timeout=REHEARSAL_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"the {accelerator} hung for {REHEARSAL_S:.0f} s when it was tried"
    if done.returncode < 0:
        return f"the {accelerator} ended the process that tried it by signal {-done.returncode}"
    return None if done.returncode == 0 else f"the {accelerator} failed when it was tried: {done.stdout.decode()}"


def _rehearse(accelerator: Accelerator) -> None:
    """In the child: load what comes on stdin and run it once."""
    from ai_edge_litert import compiled_model as lite  # noqa: PLC0415 -- each runtime is optional

    kinds = lite.HardwareAccelerator
    wanted = kinds.CPU | {"gpu": kinds.GPU, "npu": kinds.NPU}[accelerator]
    try:
        model = lite.CompiledModel.from_buffer(sys.stdin.buffer.read(), hardware_accel=wanted)
        model.run_by_index(0, model.create_input_buffers(0), model.create_output_buffers(0))
    except (RuntimeError, ValueError) as error:
        sys.stdout.write(" ".join(str(error).split()))
        sys.exit(1)


def _cannot_load(runtime: Runtime, variant: Variant, why: object) -> RuntimeLoadError:
    if isinstance(why, RuntimeLoadError):
        return why
    return RuntimeLoadError(
        f"{runtime.name} {runtime.version} cannot load {variant.file}: {' '.join(str(why).split())}.",
        mend="Choose another variant of the bundle, or update the runtime.",
    )


def _only_one(inputs: Mapping[str, Any], variant: Variant) -> Tensor:
    if len(inputs) != 1:
        raise BundleError(
            f"{variant.file} takes {len(inputs)} inputs, {sorted(inputs)}.",
            mend="Use a model that takes one picture and nothing else.",
        )
    return variant.input


def _known(want: Tensor, details: Mapping[str, Any], file: str) -> str:
    if want.name not in details:
        raise BundleError(f"{file} has no tensor {want.name!r} but {sorted(details)}.", mend="Convert the model again.")
    return want.name


def _same_form(want: Tensor, details: Mapping[str, Mapping[str, Any]], file: str) -> None:
    got = details[_known(want, details, file)]
    if [int(side) for side in got["shape"]] != want.shape or str(got["dtype"]) != want.dtype:
        raise BundleError(
            f"{file}: {want.name} is {got['dtype']}{got['shape']}, the manifest says {want.dtype}{want.shape}.",
            mend="Convert the model again.",
        )


def _index_of(want: Tensor, details: Mapping[str, Mapping[str, Any]], file: str) -> int:
    """The runtime's index of a tensor, after checking that it is what the manifest says."""
    got = details[_known(want, details, file)]
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
