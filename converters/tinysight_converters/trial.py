"""Try a .tflite file in a child process with limits: what is in it, what it answers, how long it takes.

In: a flatbuffer's bytes, from whoever.  Out: a `Trial`, or how the runtime failed, in its own words. A file that
crashes the interpreter, never ends or eats all memory ends a child and nothing else. The child is ``trial_child.py``.
"""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tinysight_contract.errors import ConversionError
from tinysight_contract.files import read_capped

__all__ = ["Op", "Signature", "TensorFacts", "Trial", "read_model", "try_model"]

CHILD: Final = Path(__file__).with_name("trial_child.py")
MAX_MODEL_BYTES: Final = 256 << 20
MEMORY_MIB: Final = 8192
ANSWERS_MIB: Final = 128
CPU_S: Final = 300
TIMEOUT_S: Final = 300.0
IDENTIFIER: Final = b"TFL3"
_AT_MOST: Final = f"Give one of {MAX_MODEL_BYTES} bytes at most."


class TensorFacts(Struct, frozen=True, kw_only=True):
    """One tensor of a file.

    Attributes:
        name: within its signature, or the tensor's own.
        shape: as it is allocated.
        dynamic: as the file says it; -1 where it is open.
        dtype: of NumPy.
        scale: of one for all values; 0 when not quantized, or per channel.
        zero_point: of one for all values.
        scales: how many there are: 0, 1, or one per channel.
        index: within the file.
    """

    name: str
    shape: list[int]
    dynamic: list[int]
    dtype: str
    scale: float
    zero_point: int
    scales: int
    index: int


class Op(Struct, frozen=True, kw_only=True):
    """One operator, with the indices of its tensors."""

    name: str
    inputs: list[int]
    outputs: list[int]


class Signature(Struct, frozen=True, kw_only=True):
    """A named way to call the model."""

    inputs: list[TensorFacts]
    outputs: list[TensorFacts]


class Trial(Struct, frozen=True, kw_only=True):
    """What happened.

    Attributes:
        runtime: litert or tflite-runtime.
        version: of it.
        error: the failure in the runtime's own words, or None; the rest is then empty.
        signatures: by key.
        inputs: of the file, in its order.
        outputs: of the file, in its order.
        tensors: all of them.
        ops: in the order they run.
        plan: the same with a ``DELEGATE`` for each piece that XNNPACK runs, after what it stands for.
        memory_kib: by how much the process grew, with the file's own bytes in it.
        answers: raw outputs (n, ...) by tensor index.
    """

    runtime: str
    version: str
    error: str | None = None
    signatures: dict[str, Signature] = {}
    inputs: list[TensorFacts] = []
    outputs: list[TensorFacts] = []
    tensors: list[TensorFacts] = []
    ops: list[Op] = []
    plan: list[Op] = []
    memory_kib: int = 0
    answers: dict[str, Any] = {}

    @property
    def partitions(self) -> int:
        """How many pieces XNNPACK runs; 0: it runs nothing of it."""
        return sum(op.name == "DELEGATE" for op in self.plan)

    def loaded(self) -> "Trial":
        """Itself.

        Raises:
            ConversionError: the runtime failed.
        """
        if self.error is not None:
            raise ConversionError(
                f"{self.runtime} {self.version} cannot run the model: {self.error}.",
                mend="Make the file again, or see `tinysight lint` for what it holds.",
            )
        return self


def read_model(path: Path) -> bytes:
    """A .tflite file's bytes.

    Raises:
        ConversionError: it cannot be read, or is larger than 256 MiB.
    """
    try:
        content = read_capped(path, MAX_MODEL_BYTES)
    except OSError as error:
        raise ConversionError(f"{path} cannot be read: {error.strerror}.", mend="Check the path.") from error
    if len(content) > MAX_MODEL_BYTES:
        raise ConversionError(f"{path} is too large for a model.", mend=_AT_MOST)
    return content


def try_model(
    content: bytes,
    *,
    inputs: NDArray[Any] | None = None,
    runtime: str = "litert",
    python: Path | None = None,
) -> Trial:
    """Load a file in a child, and run it on inputs.

    Args:
        content: the flatbuffer.
        inputs: (n, ...) in the input's dtype; None only loads it.
        runtime: ``litert`` or ``tflite-runtime``.
        python: an interpreter that has the runtime; None takes this one.

    Raises:
        ConversionError: it is no TFLite file at all, or larger than 256 MiB.
    """
    if len(content) > MAX_MODEL_BYTES:
        raise ConversionError(f"The model has {len(content)} bytes.", mend=_AT_MOST)
    if content[4:8] != IDENTIFIER:
        raise ConversionError("The model is no TFLite file.", mend="Give a .tflite file that is whole.")
    with tempfile.TemporaryDirectory(prefix="tinysight-trial-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(content)
        if inputs is not None:
            np.save(folder / "inputs.npy", inputs, allow_pickle=False)
        job = {"runtime": runtime, "memory_mib": MEMORY_MIB, "cpu_s": CPU_S}
        job |= {"answers_mib": ANSWERS_MIB}
        (folder / "job.json").write_bytes(msgspec.json.encode(job))
        command = [str(python or sys.executable), "-I", str(CHILD), str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return _failed(folder, runtime, "does not end")
        if done.returncode != 0 or not (folder / "result.json").is_file():
            return _failed(folder, runtime, _last_words(done))
        try:
            trial = msgspec.json.decode((folder / "result.json").read_bytes(), type=Trial)
        except msgspec.MsgspecError:
            return _failed(folder, runtime, "answers what cannot be read")
        if (folder / "outputs.npz").is_file() and trial.error is None:
            with np.load(folder / "outputs.npz", allow_pickle=False) as held:
                trial = msgspec.structs.replace(trial, answers={index: held[index] for index in held.files})
        return trial


def _failed(folder: Path, runtime: str, why: str) -> Trial:
    stage = folder / "stage"
    doing = stage.read_text() if stage.is_file() else "starting"
    return Trial(runtime=runtime, version="", error=f"it {why} while {doing}")


def _last_words(done: "subprocess.CompletedProcess[bytes]") -> str:
    if done.returncode < 0:
        return f"dies of {signal.Signals(-done.returncode).name}"
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return f"fails ({lines[-1] if lines else f'status {done.returncode}'})"
