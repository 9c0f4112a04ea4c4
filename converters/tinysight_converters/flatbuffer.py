"""FlatBuffers tables by the names of their fields: written so that equal tables are equal bytes, read without trust.

In: `LAYOUT`, the fields of each kind of table in the order of its schema.  Out: bytes, or `View`s into bytes.
Knows only the tables that TFLite Metadata needs. Scalars are NumPy's, which say their width; all defaults are 0.
"""

import struct
from dataclasses import dataclass
from typing import Any, Final

import flatbuffers
import numpy as np
from flatbuffers import number_types

__all__ = ["LAYOUT", "Table", "View", "write_root"]

LAYOUT: Final[dict[str, tuple[str, ...]]] = {
    # metadata_schema.fbs 1.5.0; a union takes two slots, its type and its value.
    "AssociatedFile": ("name", "description", "type", "locale", "version"),
    "ImageProperties": ("color_space", "default_size"),
    "FeatureProperties": (),
    "Content": ("content_properties_type", "content_properties", "range"),
    "NormalizationOptions": ("mean", "std"),
    "ScoreThresholdingOptions": ("global_score_threshold",),
    "ProcessUnit": ("options_type", "options"),
    "Stats": ("max", "min"),
    "TensorMetadata": (
        "name",
        "description",
        "dimension_names",
        "content",
        "process_units",
        "stats",
        "associated_files",
    ),
    "SubGraphMetadata": (
        "name",
        "description",
        "input_tensor_metadata",
        "output_tensor_metadata",
        "associated_files",
        "input_process_units",
        "output_process_units",
        "input_tensor_groups",
        "output_tensor_groups",
        "custom_metadata",
    ),
    "ModelMetadata": (
        "name",
        "description",
        "version",
        "subgraph_metadata",
        "author",
        "license",
        "associated_files",
        "min_parser_version",
    ),
    # The first fields of the model itself, schema.fbs 3.
    "Model": ("version", "operator_codes", "subgraphs", "description", "buffers", "metadata_buffer", "metadata"),
    "Metadata": ("name", "buffer"),
    "Buffer": ("data",),
}
FLAGS: Final[dict[type, Any]] = {
    np.int8: number_types.Int8Flags,
    np.uint8: number_types.Uint8Flags,
    np.float32: number_types.Float32Flags,
}
FORMS: Final = {"int8": "<b", "uint8": "<B", "uint32": "<I", "float32": "<f"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table to write.

    Attributes:
        kind: of ``LAYOUT``.
        fields: by name: text, a NumPy scalar, a `Table`, a list of `Table`s, or a tuple of floats.
    """

    kind: str
    fields: dict[str, Any]


def write_root(table: Table, identifier: bytes) -> bytes:
    """The table as a whole flatbuffer with this file identifier."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, table), identifier)
    return bytes(builder.Output())


def _write(builder: Any, table: Table) -> int:  # noqa: ANN401 -- flatbuffers has no types
    """Children first, as the format wants it; the offset of the table."""
    offsets = {
        name: _write_child(builder, value) for name, value in table.fields.items() if not isinstance(value, np.generic)
    }
    layout = LAYOUT[table.kind]
    builder.StartObject(len(layout))
    for slot, name in enumerate(layout):
        if name in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[name], 0)
        elif name in table.fields:
            value = table.fields[name]
            builder.PrependSlot(FLAGS[type(value)], slot, value.item(), 0)
    return int(builder.EndObject())


def _write_child(builder: Any, value: Any) -> int:  # noqa: ANN401 -- see above
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, Table):
        return _write(builder, value)
    if isinstance(value, tuple):
        return int(builder.CreateNumpyVector(np.array(value, np.float32)))
    offsets = [_write(builder, each) for each in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


class View:
    """A table somewhere in bytes that nobody has checked.

    Whatever the bytes say, reading ends: no vector is longer than its caller allows, and a place outside of the bytes
    is a ``struct.error``, anything else that cannot be a ``ValueError``.

    Args:
        kind: of ``LAYOUT``.
        raw: the whole flatbuffer.
        at: where the table is said to lie.
    """

    def __init__(self, kind: str, raw: bytes, at: int) -> None:
        self._layout, self._raw, self._at = LAYOUT[kind], raw, at

    @classmethod
    def root(cls, kind: str, raw: bytes) -> "View":
        """The table that a flatbuffer begins with."""
        return cls(kind, raw, _unpack("uint32", raw, 0))

    def number(self, name: str, form: str) -> float:
        """A scalar; 0 if the field is absent."""
        at = self._field(name)
        return 0 if at is None else _unpack(form, self._raw, at)

    def text(self, name: str, most: int) -> str:
        """Text of ``most`` bytes at most; empty if the field is absent."""
        return self.data(name, most).decode()

    def data(self, name: str, most: int) -> bytes:
        """A vector of ``most`` bytes at most; empty if the field is absent."""
        start, count = self._vector(name, most, 1)
        return self._raw[start : start + count]

    def floats(self, name: str, most: int) -> list[float]:
        """A vector of ``most`` floats at most; empty if the field is absent."""
        start, count = self._vector(name, most, 4)
        return [float(each) for each in np.frombuffer(self._raw, "<f4", count, start)] if count else []

    def table(self, name: str, kind: str) -> "View | None":
        """The table that a field points to."""
        at = self._field(name)
        return None if at is None else View(kind, self._raw, at + _unpack("uint32", self._raw, at))

    def tables(self, name: str, kind: str, most: int) -> "list[View]":
        """A vector of ``most`` tables at most; empty if the field is absent."""
        start, count = self._vector(name, most, 4)
        places = range(start, start + 4 * count, 4)
        return [View(kind, self._raw, at + _unpack("uint32", self._raw, at)) for at in places]

    def _field(self, name: str) -> int | None:
        """Where the field lies, by way of the table's table of offsets."""
        (back,) = struct.unpack_from("<i", self._raw, self._at)
        vtable = self._at - back
        if vtable < 0:
            raise ValueError("a table of offsets lies before the file")
        (size,) = struct.unpack_from("<H", self._raw, vtable)
        entry = 4 + 2 * self._layout.index(name)
        if entry + 2 > size:
            return None
        (offset,) = struct.unpack_from("<H", self._raw, vtable + entry)
        return self._at + offset if offset else None

    def _vector(self, name: str, most: int, width: int) -> tuple[int, int]:
        """Where its first element lies, and how many there are."""
        at = self._field(name)
        if at is None:
            return 0, 0
        at += _unpack("uint32", self._raw, at)
        count = _unpack("uint32", self._raw, at)
        if count > most or at + 4 + count * width > len(self._raw):
            raise ValueError(f"{name} holds {count}, at most {most} are read")
        return at + 4, count


def _unpack(form: str, raw: bytes, at: int) -> int:
    return struct.unpack_from(FORMS[form], raw, at)[0]  # type: ignore[no-any-return]  # struct has no types
