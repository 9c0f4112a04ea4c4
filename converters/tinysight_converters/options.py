"""What the custom operators of a .tflite file are set to: a map in FlexBuffers, whose readers trust it.

In: bytes of anybody's making.  Out: a number, or None where there is none that can be read.
"""

import struct
from typing import Any, Final

from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from tinysight_converters.graph import read_graph

__all__ = ["custom_number"]

MAX_OPTIONS_BYTES: Final = 1 << 16
DAMAGED: Final = (struct.error, LookupError, ValueError, TypeError, AttributeError, AssertionError, OverflowError)


def custom_number(content: bytes, operator: str, name: str) -> int | None:
    """A whole number among the options of the first custom operator of this name; None when it cannot be read.

    Raises:
        ConversionError: the file is damaged, or no .tflite file.
    """
    places = [at for at, node in enumerate(read_graph(content).nodes) if node.custom and node.op == operator]
    if not places:
        return None
    held: Any = schema.Model.GetRootAsModel(content, 0).Subgraphs(0).Operators(places[0])
    try:
        if not 0 < held.CustomOptionsLength() <= MAX_OPTIONS_BYTES:
            return None
        found = flexbuffers.GetRoot(held.CustomOptionsAsNumpy().tobytes()).AsMap[name]
        return int(found.AsInt) if found.IsInt else None
    except DAMAGED:
        return None
