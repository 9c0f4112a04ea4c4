"""TFLite Metadata: what MediaPipe Tasks and other readers of .tflite files need to know, inside the file itself.

In: a converted file and its manifest.  Out: the same model with the buffer ``TFLITE_METADATA`` and, behind it, a zip
with the labels. And the way back, for a model that somebody else made.
The standard has no word for how a picture is fitted (letterbox, fill), nor for the maps of a detector: the manifest
stays the truth, and a device of ours reads nothing but the manifest.
"""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any, Final

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from tinysight_contract.bundle import LABELS
from tinysight_contract.errors import ConversionError
from tinysight_contract.manifest import Input, Manifest
from tinysight_converters.flatbuffer import Table, View, write_root

__all__ = ["Metadata", "read_metadata", "with_metadata"]

NAME: Final = "TFLITE_METADATA"
MODEL_ID: Final = b"TFL3"
METADATA_ID: Final = b"M001"
PARSER: Final = "1.0.0"  # no field used here is younger
ALIGNMENT: Final = 16  # of every buffer, ``force_align`` in schema.fbs; the object API forgets it
COLORS: Final = {"RGB": 1, "GRAY": 2}  # ColorSpaceType; there is no word for BGR
FEATURE, IMAGE = np.uint8(1), np.uint8(2)  # ContentProperties
NORMALIZATION, THRESHOLDING = np.uint8(1), np.uint8(3)  # ProcessUnitOptions
AXIS_LABELS, VALUE_LABELS = np.int8(2), np.int8(3)  # AssociatedFileType
SUMMARY: Final = {"detect": "Finds objects in a picture", "classify": "Says what a picture shows"}
MEANING: Final = {
    "scores": "One score per class; together they are 1.",
    "heatmap": "Per cell and class, how likely the centre of such an object lies in the cell.",
    "box": "Per cell dx, dy, log w, log h of the object whose centre it holds, in cells.",
}

MAX_METADATA_BYTES: Final = 1 << 20
MAX_LABELS_BYTES: Final = 1 << 20
MAX_TEXT_BYTES: Final = 10_000
MAX_CHANNELS: Final = 16
MAX_ENTRIES: Final = 64
MAX_BUFFERS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says of itself; nothing of it has been proved.

    Attributes:
        name: of the model.
        version: of the model.
        description: of the model.
        color: RGB or GRAY; None if it is not said.
        mean: per channel or one for all, on 0..255; empty if it is not said.
        std: likewise; a pixel goes in as (pixel - mean) / std.
        labels: by class id; empty if there are none.
        threshold: of the score; None if it is not said.
    """

    name: str
    version: str
    description: str
    color: str | None
    mean: list[float]
    std: list[float]
    labels: list[str]
    threshold: float | None


def with_metadata(content: bytes, manifest: Manifest, *, threshold: float) -> bytes:
    """The same model, with its metadata and labels; equal arguments give equal bytes.

    Args:
        content: a .tflite file with one signature.
        manifest: name, version, task, labels and input are read; a draft will do.
        threshold: of the score, as tuned on this very file.
    """
    model = tflite.ModelT.InitFromPackedBuf(content)
    described = write_root(_describe(model, manifest, threshold), METADATA_ID)
    entries = list(model.metadata or [])
    buffers = [_AlignedBuffer(each.data) for each in model.buffers]
    if (old := next((each for each in entries if each.name == NAME.encode()), None)) is not None:
        buffers[old.buffer] = _AlignedBuffer(described)
    else:
        entries.append(tflite.MetadataT(name=NAME, buffer=len(buffers)))
        buffers.append(_AlignedBuffer(described))
    model.buffers, model.metadata = buffers, entries
    builder = flatbuffers.Builder(len(content) + len(described))
    builder.Finish(model.Pack(builder), MODEL_ID)
    file = io.BytesIO()
    file.write(builder.Output())
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        member = zipfile.ZipInfo(LABELS)  # of 1980, so that two conversions are the same
        member.create_system = 3  # Unix, wherever it is made
        archive.writestr(member, "".join(f"{label}\n" for label in manifest.labels))
    return file.getvalue()


class _AlignedBuffer:
    """A buffer of the model, in place of the object API's, which would lay it at any multiple of four."""

    def __init__(self, data: Any) -> None:  # noqa: ANN401 -- bytes, an array, or None
        self._data = None if data is None else bytes(data)

    def Pack(self, builder: Any) -> int:  # noqa: ANN401, N802 -- called by that name by the object API
        data = None
        if self._data is not None:
            builder.Prep(ALIGNMENT, len(self._data))
            data = builder.CreateByteVector(self._data)
        tflite.BufferStart(builder)
        if data is not None:
            tflite.BufferAddData(builder, data)
        return int(tflite.BufferEnd(builder))


def _describe(model: Any, manifest: Manifest, threshold: float) -> Table:  # noqa: ANN401 -- the object API has no types
    """The metadata of the file; its tensors in the order of the subgraph, by the names of the signature."""
    names = {each.tensorIndex: each.name.decode() for each in model.signatureDefs[0].outputs}
    outputs = [_output(names[index], threshold) for index in model.subgraphs[0].outputs]
    graph = Table(
        "SubGraphMetadata", {"input_tensor_metadata": [_input(manifest.input)], "output_tensor_metadata": outputs}
    )
    return Table(
        "ModelMetadata",
        {
            "name": manifest.name,
            "description": f"{SUMMARY[manifest.task]}. {len(manifest.labels)} classes. Made by TinySight.",
            "version": manifest.version,
            "subgraph_metadata": [graph],
            "min_parser_version": PARSER,
        },
    )


def _input(spec: Input) -> Table:
    mean, std = np.array(spec.mean or [0.0]), np.array(spec.std or [1.0])
    options = Table("NormalizationOptions", {"mean": tuple(mean), "std": tuple(std)})
    stats = Table("Stats", {"max": tuple((255.0 - mean) / std), "min": tuple((0.0 - mean) / std)})
    image = Table("ImageProperties", {"color_space": np.int8(COLORS.get(spec.color, 0))})
    return Table(
        "TensorMetadata",
        {
            "name": "image",
            "description": f"A {spec.color} picture, fitted by {spec.resize}; what is left over is {spec.fill}.",
            "content": Table("Content", {"content_properties_type": IMAGE, "content_properties": image}),
            "process_units": [_unit(NORMALIZATION, options)],
            "stats": stats,
        },
    )


def _output(name: str, threshold: float) -> Table:
    feature = Table("FeatureProperties", {})
    fields: dict[str, Any] = {
        "name": name,
        "description": MEANING[name],
        "content": Table("Content", {"content_properties_type": FEATURE, "content_properties": feature}),
    }
    if name != "box":
        options = Table("ScoreThresholdingOptions", {"global_score_threshold": np.float32(threshold)})
        labels = {"name": LABELS, "description": "The classes along the last axis.", "type": AXIS_LABELS}
        fields |= {
            "process_units": [_unit(THRESHOLDING, options)],
            "stats": Table("Stats", {"max": (1.0,), "min": (0.0,)}),
            "associated_files": [Table("AssociatedFile", labels)],
        }
    return Table("TensorMetadata", fields)


def _unit(kind: np.uint8, options: Table) -> Table:
    return Table("ProcessUnit", {"options_type": kind, "options": options})


def read_metadata(content: bytes) -> Metadata | None:
    """What a .tflite file says of itself, or None if it says nothing.

    Args:
        content: of anybody's making; nothing in it is trusted, and no more than a few MB are made of it.

    Raises:
        ConversionError: it is no .tflite file, or its metadata is damaged or beyond all measure.
    """
    if content[4:8] != MODEL_ID:
        raise ConversionError("The file is no TFLite model.", mend="Name a .tflite file.")
    try:
        if (described := _find(content)) is None:
            return None
        return _read(View.root("ModelMetadata", described), content)
    except (
        struct.error,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        OSError,
    ) as error:
        raise ConversionError(
            f"The file's metadata cannot be read: {error}.",
            mend="Take the metadata out of the file, or write it again.",
        ) from error


def _find(content: bytes) -> bytes | None:
    """The metadata's own flatbuffer."""
    model = View.root("Model", content)
    for entry in model.tables("metadata", "Metadata", MAX_ENTRIES):
        if entry.data("name", MAX_TEXT_BYTES) == NAME.encode():
            buffers = model.tables("buffers", "Buffer", MAX_BUFFERS)
            index = int(entry.number("buffer", "uint32"))
            if index >= len(buffers):
                raise ValueError(f"its buffer {index} is none of {len(buffers)}")
            described = buffers[index].data("data", MAX_METADATA_BYTES)
            if described[4:8] != METADATA_ID:
                raise ValueError("it is of an unknown kind")
            return described
    return None


def _read(model: View, content: bytes) -> Metadata:
    graphs = model.tables("subgraph_metadata", "SubGraphMetadata", MAX_ENTRIES)
    inputs = graphs[0].tables("input_tensor_metadata", "TensorMetadata", MAX_ENTRIES) if graphs else []
    outputs = graphs[0].tables("output_tensor_metadata", "TensorMetadata", MAX_ENTRIES) if graphs else []
    normalization = _options(inputs, NORMALIZATION, "NormalizationOptions")
    thresholding = _options(outputs, THRESHOLDING, "ScoreThresholdingOptions")
    return Metadata(
        name=model.text("name", MAX_TEXT_BYTES),
        version=model.text("version", MAX_TEXT_BYTES),
        description=model.text("description", MAX_TEXT_BYTES),
        color=_color(inputs),
        mean=normalization.floats("mean", MAX_CHANNELS) if normalization else [],
        std=normalization.floats("std", MAX_CHANNELS) if normalization else [],
        labels=_labels(outputs, content),
        threshold=float(thresholding.number("global_score_threshold", "float32")) if thresholding else None,
    )


def _options(tensors: list[View], wanted: np.uint8, kind: str) -> View | None:
    """The first options of a kind that a tensor has."""
    for tensor in tensors:
        for unit in tensor.tables("process_units", "ProcessUnit", MAX_ENTRIES):
            if unit.number("options_type", "uint8") == wanted:
                return unit.table("options", kind)
    return None


def _color(inputs: list[View]) -> str | None:
    for tensor in inputs:
        content = tensor.table("content", "Content")
        if content and content.number("content_properties_type", "uint8") == IMAGE:
            image = content.table("content_properties", "ImageProperties")
            known = {number: color for color, number in COLORS.items()}
            return known.get(int(image.number("color_space", "int8"))) if image else None
    return None


def _labels(outputs: list[View], content: bytes) -> list[str]:
    """The lines of the first label file of an output."""
    for tensor in outputs:
        for file in tensor.tables("associated_files", "AssociatedFile", MAX_ENTRIES):
            if file.number("type", "int8") in {AXIS_LABELS, VALUE_LABELS}:
                name = file.text("name", MAX_TEXT_BYTES)
                with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(name) as member:
                    text = member.read(MAX_LABELS_BYTES + 1)
                if len(text) > MAX_LABELS_BYTES:
                    raise ValueError(f"its labels are more than {MAX_LABELS_BYTES} bytes")
                return text.decode().rstrip("\n").splitlines()
    return []
