"""What will go wrong in int8 or on a device, said before it does.

In: a `Graph`, of a file or of a Keras model's layers (`lint_keras`); what happened when the file was run.  Out:
`Finding`s, each with its reason, what it is expected to cost, and its mend. The figures were measured on small networks
of this kind, or are those of the named project.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

from msgspec import Struct

from tinysight_contract.errors import ConversionError
from tinysight_converters.audit import outside_delegate
from tinysight_converters.graph import Graph, Node, printable
from tinysight_converters.meanings import joins_meanings
from tinysight_converters.trial import Trial

__all__ = ["LARGE_DENSE", "RULES", "Finding", "Rule", "broken", "findings_of", "lint_graph", "refusal"]

KNOWN_CUSTOM: Final = {"TFLite_Detection_PostProcess"}
CONVOLUTIONS: Final = {"CONV_2D", "DEPTHWISE_CONV_2D"}
EXPANDING: Final = {"RESHAPE", "EXPAND_DIMS"}
NO_CALCULATION: Final = {"QUANTIZE", "DEQUANTIZE"}
SPLITS_LITTLE: Final = {"QUANTIZE", "DEQUANTIZE", "SOFTMAX"}
LARGE_DENSE: Final = 100_000


class Rule(Struct, frozen=True, kw_only=True):
    """Why something is found, what it costs and what to do. An ``error`` will not run, or not as anybody expects."""

    level: Literal["error", "warning"]
    reason: str
    cost: str
    mend: str


RULES: Final[dict[str, Rule]] = {
    "does-not-load": Rule(
        level="error",
        reason="the device's runtime refuses the file, in these words",
        cost="does not load",
        mend="Make the file again; what else is found in it may say why.",
    ),
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
        mend="Replace the layer (BatchNormalization for LayerNormalization, ReLU6 for ELU), or take --scheme dynamic.",
    ),
    "split-delegate": Rule(
        level="warning",
        reason="XNNPACK has no kernel for it in this type, so that the rest runs in pieces",
        cost="slower: plain kernels, and copies between the pieces",
        mend="Replace the operator, such as GELU by ReLU6.",
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


def findings_of(places: Iterable[tuple[str, str]]) -> list[Finding]:
    """Rules and where each is broken, as findings; errors first."""
    by_rule: dict[str, list[str]] = {}
    for rule, where in places:
        if where not in by_rule.setdefault(rule, []):
            by_rule[rule].append(where)
    return [
        Finding(rule=name, where=by_rule[name], level=rule.level, reason=rule.reason, cost=rule.cost, mend=rule.mend)
        for name, rule in RULES.items()
        if name in by_rule
    ]


def lint_graph(graph: Graph, trial: Trial | None = None) -> list[Finding]:
    """What a .tflite file breaks, errors first; with a trial of it also what only running it shows."""
    return findings_of([*broken(graph, _place), *(_tried(graph, trial) if trial else ())])


def broken(graph: Graph, place: Callable[[Graph, Node], str]) -> Iterator[tuple[str, str]]:
    """Each rule that is broken, and where; ``place`` names an operator."""
    yield from _inputs(graph)
    makers = {index: node for node in graph.nodes for index in node.outputs}
    readers: dict[int, list[Node]] = {}
    for node in graph.nodes:
        for index in node.inputs:
            readers.setdefault(index, []).append(node)
    weights = sum(tensor.count for tensor in graph.tensors if tensor.constant)
    for node in graph.nodes:
        if node.custom:
            if node.op not in KNOWN_CUSTOM:
                yield ("flex" if node.op.startswith("Flex") else "custom-op"), node.op
        else:
            where = place(graph, node)
            yield from ((rule, where) for rule in _operator(graph, node, makers, readers))
            yield from ((rule, where + more) for rule, more in _constants(graph, node, makers, weights))
    yield from (("float-inside", place(graph, node)) for node in _floats(graph))


def _inputs(graph: Graph) -> Iterator[tuple[str, str]]:
    if len(graph.inputs) != 1:
        yield "several-inputs", f"{len(graph.inputs)} inputs"
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if -1 in tensor.shape[1:] or len(tensor.shape) < 2:
            yield "unknown-shape", f"{tensor.name} {tensor.shape}"
        elif tensor.shape[0] == -1:
            yield "dynamic-batch", f"{tensor.name} {tensor.shape}"


def _operator(graph: Graph, node: Node, makers: dict[int, Node], readers: dict[int, list[Node]]) -> Iterator[str]:
    if node.op == "HARD_SWISH":
        yield "hard-swish"
    if node.op == "MUL" and _is_swish(node, makers):
        yield "swish"
    if node.op == "RESIZE_NEAREST_NEIGHBOR" or (node.op == "TILE" and _repeats_pixels(node, makers, readers)):
        yield "nearest-upsampling"
    if node.op == "CONCATENATION" and joins_meanings(graph, node, makers, readers):
        yield "concat-meanings"


def _is_swish(node: Node, makers: dict[int, Node]) -> bool:
    """Whether it multiplies something with its own sigmoid."""
    gates = [makers[index] for index in node.inputs if index in makers]
    return any(gate.op == "LOGISTIC" and {*gate.inputs} & {*node.inputs} for gate in gates)


def _repeats_pixels(node: Node, makers: dict[int, Node], readers: dict[int, list[Node]]) -> bool:
    """Whether it is a piece of what Keras writes for nearest-neighbour upsampling: a new axis, repeated, taken in."""
    before = {makers[index].op for index in node.inputs if index in makers}
    after = {reader.op for index in node.outputs for reader in readers.get(index, ())}
    return bool(before & EXPANDING) and "RESHAPE" in after


def _constants(graph: Graph, node: Node, makers: dict[int, Node], weights: int) -> Iterator[tuple[str, str]]:
    for index in node.inputs:
        maker = makers.get(index)
        if maker is not None and maker.op == "DEQUANTIZE" and maker.inputs:  # how float16 weights are read
            index = maker.inputs[0]  # noqa: PLW2901 -- what it was read from
        constant = graph.tensors[index]
        if not constant.constant or not constant.shape:
            continue
        if node.op == "FULLY_CONNECTED" and constant.count >= LARGE_DENSE and constant.count > weights / 2:
            yield "large-dense", f", {constant.count} weights"
        channels = constant.shape[-1 if node.op == "DEPTHWISE_CONV_2D" else 0]
        if node.op in CONVOLUTIONS and constant.dtype in {"int8", "uint8"} and constant.scales == 1 < channels:
            yield "per-tensor-weights", ""


def _floats(graph: Graph) -> list[Node]:
    """Operators in floating point within a graph that is int8 elsewhere."""
    made = {index for node in graph.nodes for index in node.outputs}
    if not any(graph.tensors[index].dtype == "int8" for index in made):
        return []
    return [
        node
        for node in graph.nodes
        if not node.custom
        and node.op not in NO_CALCULATION
        and any(graph.tensors[index].dtype.startswith("float") for index in node.outputs)
    ]


def _tried(graph: Graph, trial: Trial) -> Iterator[tuple[str, str]]:
    if trial.error is not None:
        yield "does-not-load", printable(trial.error)
    if trial.partitions > 1:
        for op in outside_delegate(trial):
            if op.name not in SPLITS_LITTLE:
                node = Node(op=op.name, inputs=op.inputs, outputs=op.outputs, custom=False)
                yield "split-delegate", _place(graph, node)


def _place(graph: Graph, node: Node) -> str:
    names = [graph.tensors[index].name.split(";")[-1] for index in node.outputs]
    return f"{node.op} {names[0] if names else ''}".strip()
