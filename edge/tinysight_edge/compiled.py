"""LiteRT's newer API, `CompiledModel`, as an engine, and the way to GPUs and NPUs.

In: a file's bytes, its entry in the manifest.  Out: a `CompiledEngine`, or why an accelerator is not used. A driver may
crash or hang, so that an accelerator is rehearsed in a child process before the agent touches it. No GPU and no NPU has
been at hand: what is tested is that they are found missing, refused, and survived.
"""

import atexit
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import BundleError
from tinysight_contract.manifest import Tensor, Variant
from tinysight_edge.engines import Runtime, cannot_load, cannot_run, known, only_one
from tinysight_edge.quiet import without_lines

__all__ = ["Accelerator", "CompiledEngine", "Refused", "accelerators", "rehearse"]

REHEARSAL_S: Final = 30.0
HEED_S: Final = 0.2
KILLED_S: Final = 2.0
NO_LIBRARY: Final = 3  # the child's exit status
Accelerator = Literal["cpu", "gpu", "npu"]


class CompiledEngine:
    """LiteRT's newer API, which also reaches GPUs and NPUs. It knows nothing of quantization: check with the other.

    Args:
        content: the .tflite file's bytes.
        variant: its entry in the manifest.
        threads: for the operators.
        runtime: for the message of an error.
        accelerator: what shall run it; the processor takes what an accelerator leaves.

    Raises:
        RuntimeLoadError: it is not installed, cannot load or run the file, or the accelerator takes nothing of it.
    """

    def __init__(
        self, content: bytes, variant: Variant, *, threads: int, runtime: Runtime, accelerator: Accelerator = "cpu"
    ) -> None:
        self.name = "compiled-model" if accelerator == "cpu" else f"compiled-model on {accelerator}"
        self.note = ""
        try:
            from ai_edge_litert import compiled_model as lite  # noqa: PLC0415 -- optional, and not in older versions
        except ImportError as error:
            raise cannot_load(runtime, variant, "it has no CompiledModel") from error
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
                    raise cannot_load(runtime, variant, f"the {accelerator} does not run all of it")
                (key,) = model.get_signature_list()
                inputs, outputs = model.get_input_tensor_details(key), model.get_output_tensor_details(key)
                names = list(outputs)
                self._given = model.create_input_buffers(0)
                self._told = model.create_output_buffers(0)
                self._model = model
        except (ValueError, RuntimeError, TypeError) as error:
            raise cannot_load(runtime, variant, error) from error
        tensor = only_one(inputs, variant)
        _same_form(tensor, inputs, variant.file)
        self._input: NDArray[Any] = np.zeros(tensor.shape, tensor.dtype)
        self._places = []
        for output in variant.outputs:
            _same_form(output, outputs, variant.file)
            self._places.append((names.index(output.name), output.shape, np.dtype(output.dtype)))
        try:
            with without_lines(b""):
                self.invoke()  # the first run makes an environment for the whole process, and says so
        except (ValueError, RuntimeError) as error:
            raise cannot_run(runtime, variant, error) from error
        finally:
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


class Refused(NamedTuple):
    """Why an accelerator must not be used, and whether for this file alone or for whatever there is."""

    why: str
    always: bool


def rehearse(content: bytes, accelerator: Accelerator, *, heed: Callable[[], None] = lambda: None) -> Refused | None:
    """Why a GPU or an NPU must not be used: in a child process, since a driver may crash or hang. None if it may.

    Args:
        content: of the model's file.
        accelerator: which.
        heed: called a few times a second; what it raises ends the child, too.
    """
    code = f"from tinysight_edge.compiled import _rehearse; _rehearse({accelerator!r})"
    with os.fdopen(os.memfd_create("model"), "w+b") as held:  # into a pipe, all of it had to go in one waiting call
        held.write(content)
        held.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=held, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    try:
        said = _said(child, heed)
    except BaseException as error:
        _end(child)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return Refused(f"the {accelerator} hung for {REHEARSAL_S:.0f} s when it was tried", always=True)
    if child.returncode < 0:
        why = f"the {accelerator} ended the process that tried it by signal {-child.returncode}"
        return Refused(why, always=True)
    if child.returncode == 0:
        return None
    why = f"the {accelerator} failed when it was tried: {said.decode(errors='replace')}"
    return Refused(why, always=child.returncode == NO_LIBRARY)


def _said(child: subprocess.Popen[bytes], heed: Callable[[], None]) -> bytes:
    """All that a child says until it ends."""
    until_s = time.monotonic() + REHEARSAL_S
    while True:
        try:
            return child.communicate(timeout=max(0.0, min(HEED_S, until_s - time.monotonic())))[0]
        except subprocess.TimeoutExpired:
            heed()
            if time.monotonic() >= until_s:
                raise


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill it; one whose driver hangs in the kernel cannot be killed, and is left behind."""
    child.kill()
    if child.stdout is not None:
        child.stdout.close()
    try:
        child.wait(KILLED_S)
    except subprocess.TimeoutExpired:
        threading.Thread(target=child.wait, name="hung-child", daemon=True).start()  # it may end at some time


def _rehearse(accelerator: Accelerator) -> None:
    """In the child: load what comes on stdin and run it once."""
    try:
        from ai_edge_litert import compiled_model as lite  # noqa: PLC0415 -- each runtime is optional
    except (ImportError, OSError) as error:  # also a library of the system that it needs
        sys.stdout.write(" ".join(str(error).split()))
        sys.exit(NO_LIBRARY)
    kinds = lite.HardwareAccelerator
    wanted = kinds.CPU | {"gpu": kinds.GPU, "npu": kinds.NPU}[accelerator]
    try:
        model = lite.CompiledModel.from_buffer(sys.stdin.buffer.read(), hardware_accel=wanted)
        model.run_by_index(0, model.create_input_buffers(0), model.create_output_buffers(0))
    except (RuntimeError, ValueError) as error:
        sys.stdout.write(" ".join(str(error).split()))
        sys.exit(1)


def _same_form(want: Tensor, details: Mapping[str, Mapping[str, Any]], file: str) -> None:
    got = details[known(want, details, file)]
    if [int(side) for side in got["shape"]] != want.shape or str(got["dtype"]) != want.dtype:
        raise BundleError(
            f"{file}: {want.name} is {got['dtype']}{got['shape']}, the manifest says {want.dtype}{want.shape}.",
            mend="Convert the model again.",
        )
