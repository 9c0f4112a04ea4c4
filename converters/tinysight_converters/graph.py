"""What stands in a .tflite file, read without any runtime.

In: bytes of anybody's making.  Out: a `Graph` of its first subgraph. Pure Python and capped: a damaged file is an error
and nothing else. It says what is written there; whether it runs is for `trial` to find out.
"""

import struct
from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from msgspec import Struct

from tinysight_contract.errors import ConversionError

__all__ = ["Graph", "Node", "Stored", "printable", "read_graph"]

MAX_TENSORS: Final = 100_000
MAX_NAMED: Final = 1_000_000
MAX_SIDES: Final = 8
MAX_NAME_BYTES: Final = 10_000
OPERATORS: Final = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
TYPES: Final = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
CUSTOM: Final = "CUSTOM"
NAME, CUSTOM_CODE = 10, 6  # where a Tensor and an OperatorCode keep them, in schema.fbs


class Stored(Struct, frozen=True, kw_only=True):
    """A tensor as it is written.

    Attributes:
        name: of it.
        shape: with -1 where it is open.
        dtype: float32, int8, ...
        scales: how many there are: 0, 1, or one per channel.
        scale: the first of them, or 0.
        zero_point: the first of them, or 0.
        constant: whether its values are in the file.
    """

    name: str
    shape: list[int]
    dtype: str
    scales: int
    scale: float
    zero_point: int
    constant: bool

    @property
    def count(self) -> int:
        """Of its values; an open side counts as one."""
        return int(np.prod([max(side, 1) for side in self.shape], dtype=np.int64))


class Node(Struct, frozen=True, kw_only=True):
    """An operator with the indices of its tensors; ``custom`` ones are none of TFLite's own."""

    op: str
    inputs: list[int]
    outputs: list[int]
    custom: bool


class Graph(Struct, frozen=True, kw_only=True):
    """The first subgraph of a file.

    Attributes:
        tensors: all of them.
        nodes: in the order they run.
        inputs: indices of tensors.
        outputs: indices of tensors.
    """

    tensors: list[Stored]
    nodes: list[Node]
    inputs: list[int]
    outputs: list[int]


def read_graph(content: bytes) -> Graph:
    """Read a file.

    Raises:
        ConversionError: it is no .tflite file, or damaged.
    """
    if content[4:8] != b"TFL3":
        raise ConversionError("The model is no TFLite file.", mend="Give a .tflite file that is whole.")
    try:
        return _read(content)
    except (struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ConversionError(
            f"The TFLite file is damaged: {error}.", mend="Copy it again from where it was made."
        ) from error


def printable(text: str) -> str:
    """A text from a file that does nothing to a terminal."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def _read(content: bytes) -> Graph:
    model: Any = schema.Model.GetRootAsModel(content, 0)
    part = model.Subgraphs(0)
    if part.TensorsLength() > MAX_TENSORS or part.OperatorsLength() > MAX_TENSORS:
        raise ValueError(f"it claims {part.TensorsLength()} tensors and {part.OperatorsLength()} operators")
    tensors = [_tensor(model, part.Tensors(index)) for index in range(part.TensorsLength())]
    codes = [_code(model.OperatorCodes(index)) for index in range(min(model.OperatorCodesLength(), MAX_TENSORS))]
    nodes, left = [], MAX_NAMED
    for index in range(part.OperatorsLength()):
        node = part.Operators(index)
        name, custom = codes[node.OpcodeIndex()]
        inputs, outputs = (_list(ends, most=left) for ends in (node.InputsAsNumpy(), node.OutputsAsNumpy()))
        left -= len(inputs) + len(outputs)
        nodes.append(Node(op=name, inputs=[each for each in inputs if each >= 0], outputs=outputs, custom=custom))
    graph = Graph(
        tensors=tensors,
        nodes=nodes,
        inputs=_list(part.InputsAsNumpy(), most=MAX_TENSORS),
        outputs=_list(part.OutputsAsNumpy(), most=MAX_TENSORS),
    )
    named = {*graph.inputs, *graph.outputs, *(at for node in nodes for at in (*node.inputs, *node.outputs))}
    if named and not 0 <= min(named) <= max(named) < len(tensors):
        raise ValueError("an operator names a tensor that is not there")
    return graph


def _tensor(model: Any, held: Any) -> Stored:  # noqa: ANN401 -- the generated reader has no types
    shape, open_shape = (_list(sides, most=MAX_SIDES) for sides in (held.ShapeAsNumpy(), held.ShapeSignatureAsNumpy()))
    quantized = held.Quantization()
    scales = quantized.ScaleLength() if quantized is not None else 0
    return Stored(
        name=_text(held, NAME)[:1000],
        shape=open_shape if len(open_shape) == len(shape) else shape,
        dtype=TYPES.get(held.Type(), "unknown"),
        scales=scales,
        scale=float(quantized.Scale(0)) if scales else 0.0,
        zero_point=int(quantized.ZeroPoint(0)) if scales and quantized.ZeroPointLength() else 0,
        constant=model.Buffers(held.Buffer()).DataLength() > 0,
    )


def _code(held: Any) -> tuple[str, bool]:  # noqa: ANN401 -- see above
    code = max(held.BuiltinCode(), held.DeprecatedBuiltinCode())
    name = OPERATORS.get(code, f"operator {code}")
    if name == CUSTOM:
        return _text(held, CUSTOM_CODE)[:100] or "unnamed", True
    return name, False


def _list(numbers: Any, *, most: int) -> list[int]:  # noqa: ANN401 -- see above
    if not isinstance(numbers, np.ndarray):
        return []
    if len(numbers) > most:
        raise ValueError(f"it lists {len(numbers)} numbers where {most} may stand")
    return [int(each) for each in numbers]


def _text(held: Any, slot: int) -> str:  # noqa: ANN401 -- see above
    table = held._tab
    start = table.Offset(slot)
    if start and table.VectorLen(start) > MAX_NAME_BYTES:
        raise ValueError(f"a name has {table.VectorLen(start)} bytes")
    return printable(str(table.String(start + table.Pos), "utf-8", "replace")) if start else ""
