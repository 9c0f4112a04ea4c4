"""Metadata changes nothing in a model, is where the standard wants it, and is read without trust."""

import io
import zipfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as tflite
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConversionError
from tinysight_contract.manifest import Input
from tinysight_converters.metadata import Metadata, read_metadata, with_metadata
from tinysight_edge.interpreter import Model
from tinysight_edge.preprocess import Preprocessor

VARIANTS = [(task, scheme) for task in ("detector", "classifier") for scheme in ("int8", "float32")]


def bare(content: bytes) -> bytes:
    """The same model without metadata, as the object API packs it."""
    model = tflite.ModelT.InitFromPackedBuf(content)
    model.metadata = [each for each in model.metadata if each.name != b"TFLITE_METADATA"]
    model.buffers.pop()
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def places(content: bytes) -> list[int]:
    """Where the data of each buffer lies in the file."""
    model = tflite.Model.GetRootAs(content)
    buffers = [model.Buffers(number) for number in range(model.BuffersLength())]
    return [each._tab.Vector(each._tab.Offset(4)) for each in buffers if each.DataLength()]


@pytest.mark.parametrize(("task", "scheme"), VARIANTS)
def test_the_model_answers_bit_for_bit_as_without_it(task: str, scheme: str, world: Path) -> None:
    bundle = Bundle.open(world / f"{task}.bundle")
    content, variant = bundle.read(f"{scheme}.tflite"), bundle.manifest.variant(scheme)
    before, after = Model(bare(content), variant), Model(content, variant)
    prepare = Preprocessor(bundle.manifest.input, variant.input)
    size = (20, bundle.manifest.input.height, bundle.manifest.input.width, 3)
    for picture in np.random.default_rng(3).integers(0, 256, size).astype(np.uint8):
        tensor = prepare.from_picture(picture)
        one, other = before.run(tensor), after.run(tensor)
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.mark.parametrize(("task", "scheme"), VARIANTS)
def test_every_buffer_lies_at_a_multiple_of_16(task: str, scheme: str, world: Path) -> None:
    content = Bundle.open(world / f"{task}.bundle").read(f"{scheme}.tflite")
    assert len(places(content)) > 20
    assert [at for at in places(content) if at % 16] == []
    assert [at for at in places(bare(content)) if at % 16] != [], "the object API alone does not see to it"


@pytest.mark.parametrize("task", ["detector", "classifier"])
def test_the_file_says_what_the_manifest_says(task: str, world: Path) -> None:
    bundle = Bundle.open(world / f"{task}.bundle")
    manifest, content = bundle.manifest, bundle.read("int8.tflite")
    assert read_metadata(content) == Metadata(
        name=task,
        version=manifest.version,
        description=read_metadata(content).description,  # type: ignore[union-attr]  # it is not None, or the test fails
        color="RGB",
        mean=[0.0],
        std=[1.0],
        labels=manifest.labels,
        threshold=float(np.float32(manifest.thresholds.score)),
    )
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt") == bundle.read("labels.txt")


def test_other_facts_come_back_too(world: Path) -> None:
    bundle = Bundle.open(world / "classifier.bundle")
    spec = Input(height=32, width=32, color="GRAY", mean=[127.5], std=None)
    manifest = replace(bundle.manifest, labels=["Äpfel", "梨", "a, b"], version="2.0.0-rc.1", input=spec)
    said = read_metadata(with_metadata(bundle.read("int8.tflite"), manifest, threshold=0.25))
    assert said is not None
    assert (said.labels, said.version, said.threshold) == (["Äpfel", "梨", "a, b"], "2.0.0-rc.1", 0.25)
    assert (said.color, said.mean, said.std) == ("GRAY", [127.5], [1.0])


def test_it_is_the_same_each_time_and_written_over_itself(world: Path) -> None:
    bundle = Bundle.open(world / "detector.bundle")
    content, score = bundle.read("int8.tflite"), bundle.manifest.thresholds.score
    assert with_metadata(bare(content), bundle.manifest, threshold=score) == content
    assert with_metadata(content, bundle.manifest, threshold=score) == content


def test_a_model_without_it_says_nothing(world: Path) -> None:
    assert read_metadata(bare(Bundle.open(world / "detector.bundle").read("int8.tflite"))) is None


@pytest.fixture(scope="module")
def content(world: Path) -> bytes:
    return Bundle.open(world / "classifier.bundle").read("int8.tflite")


def with_labels(content: bytes, **members: bytes) -> bytes:
    """Another zip behind the model."""
    file = io.BytesIO(content[: content.index(b"PK\x03\x04")])
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.txt", data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda _: b"", "no TFLite model", id="nothing"),
        pytest.param(lambda _: b"PK\x03\x04" * 10, "no TFLite model", id="another file"),
        pytest.param(lambda content: content[:3000], "cannot be read", id="cut off"),
        pytest.param(lambda content: content[:-100], "not a zip", id="labels cut off"),
        pytest.param(lambda content: with_labels(content, other=b"a"), "no item named", id="no labels"),
        pytest.param(lambda content: with_labels(content, labels=b"\xff\xfe"), "codec", id="labels that are no text"),
        pytest.param(lambda content: with_labels(content, labels=bytes(1 << 24)), "more than 1048576", id="zip bomb"),
        pytest.param(lambda content: content.replace(b"M001", b"M999"), "unknown kind", id="a later metadata"),
        pytest.param(lambda _: b"\xff" * 4 + b"TFL3" + bytes(64), "cannot be read", id="a place far outside"),
    ],
)
def test_what_cannot_be_read_is_said(spoil: Any, said: str, content: bytes) -> None:
    with pytest.raises(ConversionError, match=said):
        read_metadata(spoil(content))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_does_anything_but_an_error(content: bytes, data: st.DataObject) -> None:
    """Bytes anywhere in the model's frame and in the metadata become others."""
    spoiled = bytearray(content)
    start = content.index(b"M001") - 4
    where = st.one_of(st.integers(8, 400), st.integers(start, start + 1500))
    for at in data.draw(st.lists(where, min_size=1, max_size=8)):
        spoiled[at] = data.draw(st.integers(0, 255))
    try:
        said = read_metadata(bytes(spoiled))
    except ConversionError:
        return
    assert said is None or len(said.labels) <= 1 << 20
