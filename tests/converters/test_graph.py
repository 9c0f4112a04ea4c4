"""What stands in a file is read as the runtime reads it, and no bytes do more than be refused."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConversionError
from tinysight_converters.foreign.roles import POST_PROCESS
from tinysight_converters.graph import Graph, read_graph
from tinysight_converters.lint import lint_graph
from tinysight_converters.options import custom_number
from tinysight_converters.trial import try_model

CASES = 400
EXTREMES = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80")


@pytest.fixture(scope="module")
def content(belt_bundle: Path) -> bytes:
    return Bundle.open(belt_bundle).read("int8.tflite")


def edited(content: bytes, change: Callable[[Any], object]) -> bytes:
    """A file after a change of its object tree."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    change(model)
    builder = Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def read(content: bytes) -> Graph | None:
    """The graph, which can also be judged; None where it is refused."""
    try:
        graph = read_graph(content)
    except ConversionError:
        return None
    lint_graph(graph)
    return graph


def test_a_graph_is_what_the_runtime_says_it_is(content: bytes) -> None:
    graph, trial = read_graph(content), try_model(content).loaded()
    assert [(node.op, node.outputs) for node in graph.nodes] == [(op.name, op.outputs) for op in trial.ops]
    assert [node.inputs for node in graph.nodes] == [op.inputs for op in trial.ops]
    (image,) = trial.inputs
    assert graph.inputs == [image.index]
    assert graph.outputs == [each.index for each in trial.outputs]
    for facts in trial.tensors[: len(graph.tensors)]:  # the runtime adds some of its own
        stored = graph.tensors[facts.index]
        assert (stored.shape, stored.dtype, stored.scales) == (facts.shape, facts.dtype, facts.scales)
        if stored.scales == 1:
            assert stored.scale == pytest.approx(facts.scale)
            assert stored.zero_point == facts.zero_point
    weights = [tensor for tensor in graph.tensors if tensor.constant and len(tensor.shape) == 4]
    assert all(tensor.scales > 1 for tensor in weights)


def test_an_open_batch_is_minus_one_and_counts_as_one(graphs: Path) -> None:
    graph = read_graph((graphs / "open-batch.tflite").read_bytes())
    image = graph.tensors[graph.inputs[0]]
    assert image.shape == [-1, 32, 48, 3]
    assert image.count == 32 * 48 * 3


def test_an_operator_of_somebody_is_named(graphs: Path) -> None:
    graph = read_graph((graphs / "unknown-operator.tflite").read_bytes())
    assert [node.op for node in graph.nodes if node.custom] == ["NobodysOperator"]


def test_the_options_of_somebodys_operator_are_read_without_trust(graphs: Path) -> None:
    content = (graphs / "ssd.tflite").read_bytes()
    assert custom_number(content, POST_PROCESS, "num_classes") == 3
    assert custom_number(content, POST_PROCESS, "num_cats") is None
    assert custom_number(content, POST_PROCESS, "y_scale") is None, "it is no whole number"
    assert custom_number(content, "NobodysOperator", "num_classes") is None
    assert custom_number((graphs / "crashes.tflite").read_bytes(), POST_PROCESS, "num_classes") is None
    held = schema.Model.GetRootAsModel(content, 0).Subgraphs(0).Operators(len(read_graph(content).nodes) - 1)
    options = held.CustomOptionsAsNumpy().tobytes()
    begin = content.index(options)
    dice, unread = random.Random(4), 0
    for _ in range(CASES):
        spoilt = bytearray(content)
        at = dice.randrange(begin, begin + len(options) - 1)
        spoilt[at : at + 2] = dice.choice((dice.randbytes(2), b"\xff\xff", b"\0\0"))
        unread += custom_number(bytes(spoilt), POST_PROCESS, "num_classes") is None
    assert 0 < unread < CASES


def test_every_shorter_file_is_refused_or_read(content: bytes) -> None:
    dice = random.Random(1)
    whole = read_graph(content)
    for length in [*range(64), *(dice.randrange(64, len(content)) for _ in range(CASES))]:
        assert read(content[:length]) in (None, whole)


def test_damaged_files_are_refused_or_read(content: bytes) -> None:
    dice, refused = random.Random(2), 0
    tables = len(content) - 20_000  # offsets and tables stand at the end, where damage hurts most
    for _ in range(CASES):
        spoilt = bytearray(content)
        for _ in range(dice.choice((1, 3, 20))):
            at = dice.randrange(tables, len(content) - 4)
            spoilt[at : at + 4] = dice.choice((dice.randbytes(4), *EXTREMES))
        refused += read(bytes(spoilt)) is None
    assert CASES / 10 < refused < CASES, "some damage is seen, some is only in the weights"


def test_noise_is_refused() -> None:
    dice = random.Random(3)
    for _ in range(CASES):
        assert read(dice.randbytes(4) + b"TFL3" + dice.randbytes(dice.randrange(300))) is None


@pytest.mark.parametrize("raw", [b"", b"TFL3", b"PK\3\4 a zip", b"\x1c\0\0\0TFL2" + bytes(99)])
def test_what_is_no_tflite_file_is_told_so(raw: bytes) -> None:
    with pytest.raises(ConversionError, match="is no TFLite file"):
        read_graph(raw)


def many_sides(model: Any) -> None:
    model.subgraphs[0].tensors[0].shape = [1] * 1_000_000


def long_name(model: Any) -> None:
    model.subgraphs[0].tensors[0].name = "n" * 1_000_000


def many_ends(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs = [0] * 2_000_000


def missing_tensor(model: Any) -> None:
    model.subgraphs[0].operators[3].outputs = [5000]


def missing_code(model: Any) -> None:
    model.subgraphs[0].operators[3].opcodeIndex = 99


def no_subgraph(model: Any) -> None:
    model.subgraphs = []


@pytest.mark.parametrize("change", [many_sides, long_name, many_ends, missing_tensor, missing_code, no_subgraph])
def test_what_a_file_claims_has_limits(change: Callable[[Any], None], content: bytes) -> None:
    with pytest.raises(ConversionError, match=r"The TFLite file is damaged: .*Copy it again"):
        read_graph(edited(content, change))


def test_a_name_does_nothing_to_a_terminal(content: bytes) -> None:
    def rename(model: Any) -> None:
        model.subgraphs[0].tensors[0].name = "a\x1b[2Jb\n\u202ec"

    assert read_graph(edited(content, rename)).tensors[0].name == "a\ufffd[2Jb\ufffd\ufffdc"
