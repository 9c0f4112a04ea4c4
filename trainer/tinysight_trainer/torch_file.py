"""Read the tensors of a legacy PyTorch file without PyTorch, and without trusting the file.

In: the path of a state dict as ``torch.save`` wrote it before version 1.6: five pickles (magic number, protocol,
system, names to tensors, storage keys), then the raw storages.  Out: ``{name: array}``, fresh float32 or int64 arrays.
Will not do: import or call what the file names, read the newer zip format, other element types, or whole models.

A pickle is a program. Before it runs, every opcode is checked: only those that a state dict needs, only text as keys (a
key of nested tuples would be hashed for ages), no large memo. While it runs, the few names it may say stand for inert
classes of ours. Sizes are checked against what the file holds before anything is allocated.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any, Final, NamedTuple, Never

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import DataError

__all__ = ["MAX_BYTES", "read_state_dict"]

MAX_BYTES: Final = 64 << 20  # of the file, and of all tensors together
MAX_PICKLE_BYTES: Final = 1 << 20
MAX_TENSORS: Final = 4096
MAX_RANK: Final = 8
MAX_MEMO: Final = 1 << 16  # the unpickler allocates up to the largest index named
MAGIC: Final = 0x1950A86A20F9469CFC6C
PROTOCOL: Final = 1001
OPCODES: Final = frozenset(
    "PROTO NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE "  # noqa: SIM905 -- a list takes 30 lines
    "MARK EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS "
    "BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BUILD BINPERSID".split()
)
MEND: Final = "Reinstall the package it came with; only state dicts saved by PyTorch before 1.6 can be read."

_Value = np.float32 | np.int64


class _Kind(str):
    """Stands for a storage class of torch: the NumPy code of its elements."""

    __slots__ = ()


class _Mapping(dict[str, object]):
    """Stands for ``collections.OrderedDict``. Its state, torch's ``_metadata``, is dropped."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Forget ``state``."""


class _Storage(NamedTuple):
    """What a persistent id promised."""

    key: str
    kind: _Kind
    length: int


class _Tensor(NamedTuple):
    """Stands for ``torch._utils._rebuild_tensor_v2``: its arguments, not yet believed."""

    storage: object
    offset: object
    size: object
    stride: object
    requires_grad: object
    hooks: object

    def __setstate__(self, state: object) -> Never:
        raise pickle.UnpicklingError("a tensor has no state")


STAND_INS: Final[dict[tuple[str, str], object]] = {
    ("collections", "OrderedDict"): _Mapping,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch", "FloatStorage"): _Kind("<f4"),
    ("torch", "LongStorage"): _Kind("<i8"),
}


class _Unpickler(pickle.Unpickler):
    """Finds stand-ins only, and remembers the storages that were promised."""

    def __init__(self, pickled: bytes, file_bytes: int) -> None:
        super().__init__(io.BytesIO(pickled))
        self.file_bytes = file_bytes
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it names {f'{module}.{name}'[:80]!r}")
        return STAND_INS[module, name]

    def persistent_load(self, pid: object) -> _Storage:
        match pid:
            case ("storage", _Kind() as kind, str() as key, str(), int() as count, None) if type(count) is int:
                storage = _Storage(key, kind, count)
            case _:
                raise pickle.UnpicklingError("a persistent id is not that of a storage")
        if not 0 <= count * np.dtype(kind).itemsize <= self.file_bytes:
            raise pickle.UnpicklingError(f"storage {key[:40]!r} would be larger than the file")
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError(f"storage {key[:40]!r} is promised twice, differently")
        return storage


def read_state_dict(path: Path) -> dict[str, NDArray[_Value]]:
    """The tensors of a legacy PyTorch file.

    Args:
        path: a state dict, at most ``MAX_BYTES`` (64 MiB).

    Returns:
        The tensors by name, in the file's order: contiguous float32 or int64 arrays that share nothing.

    Raises:
        DataError: the file cannot be read, or is anything but a sound state dict of float32 and int64 tensors.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as exc:
        raise DataError(f"{path}: cannot be read ({exc.strerror}).", mend=MEND) from exc
    if len(raw) > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB.", mend=MEND)
    try:
        return _parse(raw)
    except Exception as exc:  # what a hostile pickle raises has no list
        raise DataError(f"{path}: not a sound PyTorch state dict ({exc}).", mend=MEND) from exc


def _parse(raw: bytes) -> dict[str, NDArray[_Value]]:
    stream = io.BytesIO(raw)
    magic, protocol, system = (_unpickle(stream, len(raw))[0] for _ in range(3))
    if (
        magic != MAGIC
        or protocol != PROTOCOL
        or not isinstance(system, dict)
        or system.get("little_endian") is not True
    ):
        raise ValueError("another format, protocol or byte order")
    tensors, storages = _unpickle(stream, len(raw))
    keys, _ = _unpickle(stream, len(raw))
    if not isinstance(tensors, _Mapping) or len(tensors) > MAX_TENSORS:
        raise ValueError(f"no mapping of at most {MAX_TENSORS} tensors")
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or sorted(keys) != sorted(storages):
        raise ValueError("the storages listed are not those the tensors need")
    elements = {key: _elements(stream, storages[key]) for key in keys}
    if stream.read(1):
        raise ValueError("something follows the last storage")
    left, state = MAX_BYTES, {}
    for name, tensor in tensors.items():
        state[name] = _array(name, tensor, elements, left)
        left -= state[name].nbytes
    return state


def _unpickle(stream: io.BytesIO, file_bytes: int) -> tuple[object, dict[str, _Storage]]:
    """The next object in ``stream``, and the storages it promises."""
    begin = stream.tell()
    pickled = stream.read(MAX_PICKLE_BYTES)
    end = _checked(pickled)
    stream.seek(begin + end)
    unpickler = _Unpickler(pickled[:end], file_bytes)
    return unpickler.load(), unpickler.storages


def _checked(pickled: bytes) -> int:
    """Run the pickle on names of opcodes instead of objects; raise if it is not harmless, else return its length."""
    stack: list[str] = []
    memo: dict[int, str] = {}
    arg: Any
    for opcode, arg, position in pickletools.genops(pickled):
        if opcode.name == "STOP":
            return int(position or 0) + 1
        if opcode.name not in OPCODES:
            raise ValueError(f"opcode {opcode.name} has no place in it")
        if opcode.name.endswith("BINPUT"):
            if arg > MAX_MEMO:
                raise ValueError(f"it remembers more than {MAX_MEMO} things")
            memo[arg] = stack[-1]
            continue
        taken: list[str] = []  # from the top down
        operands = [operand.name for operand in opcode.stack_before]
        if "mark" in operands:
            while (top := stack.pop()) != "MARK":
                taken.append(top)
            operands = operands[: operands.index("mark")]
        taken += [stack.pop() for _ in operands]
        if opcode.name.startswith("SETITEM") and set(taken[-2::-2]) - {"BINUNICODE"}:
            raise ValueError("a key is not text")
        stack += [memo[arg] if opcode.name.endswith("BINGET") else opcode.name for _ in opcode.stack_after]
    raise ValueError("a pickle has no end")


def _elements(stream: io.BytesIO, storage: _Storage) -> NDArray[_Value]:
    dtype = np.dtype(storage.kind)
    count = int.from_bytes(stream.read(8), "little", signed=True)
    data = stream.read(storage.length * dtype.itemsize)
    if count != storage.length or len(data) != count * dtype.itemsize:
        raise ValueError(f"storage {storage.key[:40]!r} is cut short or not as long as promised")
    elements: NDArray[_Value] = np.frombuffer(data, dtype)
    return elements


def _array(name: str, tensor: object, elements: dict[str, NDArray[_Value]], max_bytes: int) -> NDArray[_Value]:
    """A copy of what ``tensor`` sees of its storage, if it sees nothing else."""
    match tensor:
        case _Tensor(_Storage() as storage, int() as offset, tuple() as size, tuple() as stride):
            flat = elements[storage.key]
        case _:
            raise ValueError(f"{name[:80]!r} is not a tensor")
    if not len(size) == len(stride) <= MAX_RANK or any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise ValueError(f"{name[:80]!r} has no sound shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > flat.size or (0 not in size and last >= flat.size):
        raise ValueError(f"{name[:80]!r} reaches beyond its storage")
    if math.prod(size) * flat.itemsize > max_bytes:
        raise ValueError(f"its tensors are larger than {MAX_BYTES >> 20} MiB")
    if 0 in size:
        return np.zeros(size, flat.dtype.newbyteorder("="))
    steps = tuple(step * flat.itemsize for step in stride)
    view = np.ndarray(size, flat.dtype, flat.data, offset * flat.itemsize, steps)
    return view.astype(flat.dtype.newbyteorder("="), order="C")
