"""What will go wrong in int8 or on a device, said before it does.

In: a `Graph`, or the layers of a Keras model (`lint_keras`).  Out: `Finding`s, each with its reason, what it is
expected to cost, and its mend. The figures were measured on small networks of this kind, or are those of the named
project.
"""

from collections.abc import Iterator
from typing import Final, Literal

from msgspec import Struct

from tinysight_contract.errors import ConversionError
from tinysight_converters.graph import Graph, Node

__all__ = ["RULES", "Finding", "Rule", "found", "lint_graph", "refusal"]

KNOWN_CUSTOM: Final = {"TFLite_Detection_PostProcess"}
SHAPING: Final = {"RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "QUANTIZE", "DEQUANTIZE", "STRIDED_SLICE", "SLICE"}
CONVOLUTIONS: Final = {"CONV_2D", "DEPTHWISE_CONV_2D"}
LARGE_DENSE: Final = 100_000


class Rule(Struct, frozen=True, kw_only=True):
    """Why something is found, what it costs and what to do. An ``error`` will not run, or not as anybody expects."""

    level: Literal["error", "warning"]
    reason: str
    cost: str
    mend: str


RULES: Final[dict[str, Rule]] = {
    "flex": Rule(
        level="error",
        reason="needs TensorFlow's own kernels (Select TF ops), which no device runtime here has",
        cost="does not load",
        mend="Replace the layer, or move that step to the host.",
    ),
    "custom-op": Rule(
        level="error",
        reason="is an operator of somebody's own, which no runtime here knows",
        cost="does not load",
        mend="Export without it; detection heads are decoded on the host.",
    ),
    "several-inputs": Rule(
        level="error",
        reason="a camera feeds one picture",
        cost="does not fit",
        mend="Give the model one input.",
    ),
    "unknown-shape": Rule(
        level="error",
        reason="the size of the input is open, so that nothing can be allocated or delegated ahead",
        cost="does not fit",
        mend="Fix height, width and channels when exporting.",
    ),
    "concat-meanings": Rule(
        level="error",
        reason="an output joins numbers of different meaning, which int8 gives one scale",
        cost="measured: AP50-95 .752 to .620; normalising to 0..1 still .629",
        mend="Give each meaning an output of its own, and join on the host.",
    ),
    "dynamic-batch": Rule(
        level="warning",
        reason="the batch is open; delegates want it fixed",
        cost="slower, or refused by a delegate",
        mend="Export with a batch of 1.",
    ),
    "swish": Rule(
        level="warning",
        reason="swish reaches far above and a little below zero, so that 256 steps are wide where it matters",
        cost="measured: 1.2 points of AP50-95; EfficientNet-B0 76.97 to 71.71 by NVIDIA",
        mend="Use ReLU6, or train for int8 with --qat.",
    ),
    "hard-swish": Rule(
        level="warning",
        reason="XNNPACK runs it in float only, and int16x8 cannot be converted at all",
        cost="measured: 0.9 points of AP50-95, and int8 no faster than float",
        mend="Use ReLU6.",
    ),
    "nearest-upsampling": Rule(
        level="warning",
        reason="nearest-neighbour upsampling becomes operators that XNNPACK does not run and splits the graph",
        cost="two or more delegate partitions, with copies between them",
        mend='Use UpSampling2D(interpolation="bilinear").',
    ),
    "large-dense": Rule(
        level="warning",
        reason="a dense layer over a large map holds most of the weights",
        cost="size, and one scale for all its weights",
        mend="Average the map first (GlobalAveragePooling2D).",
    ),
    "per-tensor-weights": Rule(
        level="warning",
        reason="all channels of a convolution share one scale",
        cost="measured: 0.6 points of AP50-95; MobileNetV3 69.0 to 14.3 (Edgecortix)",
        mend="Quantize per channel, the converter's default.",
    ),
    "float-inside": Rule(
        level="warning",
        reason="int8 cannot express it, so that it is calculated in float between conversions",
        cost="slower, and not full int8",
        mend="Replace the layer (BatchNormalization for LayerNormalization, ReLU6 for GELU), or take --scheme dynamic.",
    ),
}


class Finding(Struct, frozen=True, kw_only=True):
    """A rule that something breaks.

    Attributes:
        rule: its name in ``RULES``.
        where: layers or operators.
        level, reason, cost, mend: of the rule.
    """

    rule: str
    where: list[str]
    level: Literal["error", "warning"]
    reason: str
    cost: str
    mend: str

    @property
    def place(self) -> str:
        """The first four places, and how many more there are."""
        return ", ".join(self.where[:4]) + (f" and {len(self.where) - 4} more" if len(self.where) > 4 else "")

    @property
    def line(self) -> str:
        """Rule, place and reason."""
        return f"{self.rule}: {self.place}: {self.reason}."


def refusal(finding: Finding) -> ConversionError:
    """The error that a finding is where nothing goes on with it."""
    return ConversionError(finding.line, mend=finding.mend)


def found(rule: str, where: list[str]) -> Finding:
    """A finding of this rule."""
    each = RULES[rule]
    return Finding(rule=rule, where=where, level=each.level, reason=each.reason, cost=each.cost, mend=each.mend)


def lint_graph(graph: Graph) -> list[Finding]:
    """What a .tflite file breaks, errors first."""
    places: dict[str, list[str]] = {}
    for rule, where in _broken(graph):
        places.setdefault(rule, []).append(where)
    return [found(rule, places[rule]) for rule in RULES if rule in places]


def _broken(graph: Graph) -> Iterator[tuple[str, str]]:
    yield from _inputs(graph)
    weights = sum(tensor.count for tensor in graph.tensors if tensor.constant)
    for node in graph.nodes:
        yield from _operator(graph, node)
        yield from _constants(graph, node, weights)
    yield from _floats(graph)


def _inputs(graph: Graph) -> Iterator[tuple[str, str]]:
    if len(graph.inputs) != 1:
        yield "several-inputs", f"{len(graph.inputs)} inputs"
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if -1 in tensor.shape[1:] or len(tensor.shape) < 2:
            yield "unknown-shape", f"{tensor.name} {tensor.shape}"
        elif tensor.shape[0] == -1:
            yield "dynamic-batch", f"{tensor.name} {tensor.shape}"


def _operator(graph: Graph, node: Node) -> Iterator[tuple[str, str]]:
    if node.custom:
        if node.op not in KNOWN_CUSTOM:
            yield ("flex" if node.op.startswith("Flex") else "custom-op"), node.op
        return
    broken = {
        "HARD_SWISH": ("hard-swish", True),
        "MUL": ("swish", node.op == "MUL" and _is_swish(graph, node)),
        "RESIZE_NEAREST_NEIGHBOR": ("nearest-upsampling", True),
        "TILE": ("nearest-upsampling", True),
        "CONCATENATION": ("concat-meanings", node.op == "CONCATENATION" and _joins_meanings(graph, node)),
    }
    rule, breaks = broken.get(node.op, ("", False))
    if breaks:
        yield rule, _place(graph, node)


def _constants(graph: Graph, node: Node, weights: int) -> Iterator[tuple[str, str]]:
    for index in node.inputs:
        constant = graph.tensors[index]
        if not constant.constant or not constant.shape:
            continue
        if node.op == "FULLY_CONNECTED" and constant.count >= LARGE_DENSE and constant.count > weights / 2:
            yield "large-dense", f"{_place(graph, node)}, {constant.count} weights"
        channels = constant.shape[-1 if node.op == "DEPTHWISE_CONV_2D" else 0]
        if node.op in CONVOLUTIONS and constant.dtype == "int8" and constant.scales == 1 < channels:
            yield "per-tensor-weights", _place(graph, node)


def _floats(graph: Graph) -> Iterator[tuple[str, str]]:
    """Operators in floating point within a graph that is int8 elsewhere."""
    made = {index for node in graph.nodes for index in node.outputs}
    if not any(graph.tensors[index].dtype == "int8" for index in made):
        return
    for node in graph.nodes:
        floating = any(graph.tensors[index].dtype.startswith("float") for index in node.outputs)
        if floating and not node.custom and node.op not in {"QUANTIZE", "DEQUANTIZE"}:
            yield "float-inside", _place(graph, node)


def _place(graph: Graph, node: Node) -> str:
    names = [graph.tensors[index].name.split(";")[-1] for index in node.outputs]
    return f"{node.op} {names[0] if names else ''}".strip()


def _is_swish(graph: Graph, node: Node) -> bool:
    """Whether it multiplies something with its own sigmoid."""
    for gate in node.inputs:
        maker = graph.maker(gate)
        if maker is not None and maker.op == "LOGISTIC" and maker.inputs and maker.inputs[0] in node.inputs:
            return True
    return False


def _joins_meanings(graph: Graph, node: Node) -> bool:
    """Whether it ends in an output, and what it joins was made by different operators."""
    if not any(_ends(graph, index, set()) for index in node.outputs):
        return False
    return len({_origin(graph, index) for index in node.inputs}) > 1


def _ends(graph: Graph, tensor: int, seen: set[int]) -> bool:
    if tensor in graph.outputs:
        return True
    seen.add(tensor)
    readers = [each for each in graph.nodes if tensor in each.inputs and each.op in SHAPING]
    return any(_ends(graph, out, seen) for reader in readers for out in reader.outputs if out not in seen)


def _origin(graph: Graph, tensor: int) -> str:
    """What calculated it, before it was given another shape."""
    for _ in range(len(graph.nodes) + 1):
        maker = graph.maker(tensor)
        if maker is None:
            return "input"
        if maker.op not in SHAPING or not maker.inputs:
            return maker.op
        tensor = maker.inputs[0]
    return "input"
