"""The same rules on a Keras model, by its layers, before anything is converted or trained.

In: a Keras model, or its file, which is loaded in a child process.  Out: `Finding`s. Its layers, those of nested models
too, are read as the operators that TensorFlow's converter makes of them; what becomes of a layer in int8 was measured
with TensorFlow 2.21.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from tinysight_contract.errors import ConversionError
from tinysight_converters.child import run_child
from tinysight_converters.graph import Graph, Node, Stored
from tinysight_converters.lint import Finding, broken, findings_of

__all__ = ["lint_keras", "lint_keras_file"]

OPERATORS: Final = {
    "Concatenate": "CONCATENATION",
    "Conv2D": "CONV_2D",
    "Conv2DTranspose": "TRANSPOSE_CONV",
    "Dense": "FULLY_CONNECTED",
    "DepthwiseConv2D": "DEPTHWISE_CONV_2D",
    "ExpandDims": "EXPAND_DIMS",
    "Flatten": "RESHAPE",
    "GetItem": "STRIDED_SLICE",
    "HardSilu": "HARD_SWISH",
    "Multiply": "MUL",
    "Permute": "TRANSPOSE",
    "Reshape": "RESHAPE",
    "SeparableConv2D": "CONV_2D",
    "Sigmoid": "LOGISTIC",
    "Silu": "SWISH",
    "Softmax": "SOFTMAX",
    "Squeeze": "SQUEEZE",
    "Transpose": "TRANSPOSE",
}
ACTIVATIONS: Final = {"hard_silu": "HARD_SWISH", "sigmoid": "LOGISTIC", "silu": "SWISH", "softmax": "SOFTMAX"}
RESIZING: Final = {"Resize", "Resizing", "UpSampling2D"}
IN_FLOAT: Final = {
    "elu", "groupnormalization", "layernormalization", "logsigmoid", "rmsnormalization", "squareplus",
    "unitnormalization",
}  # fmt: skip
OUTSIDE_XNNPACK: Final = {
    "celu", "exp", "exponential", "gelu", "mish", "multiheadattention", "selu", "softplus", "softsign",
}  # fmt: skip


def lint_keras(model: Any) -> list[Finding]:  # noqa: ANN401 -- Keras has no types
    """What a Keras model breaks, errors first.

    Raises:
        ConversionError: it is no graph of layers: its own class says in Python what it does, or its input is not known.
    """
    functional = _functional(model)
    if functional is None:
        raise ConversionError(
            f"The model {model.name} is no graph of layers.",
            mend="Build it with keras.Model(inputs, outputs), or begin keras.Sequential with keras.Input.",
        )
    reading = _Reading()
    graph = reading.graph(functional)
    found = broken(graph, lambda graph, node: graph.tensors[node.outputs[0]].name)
    # Keras leaves the batch open; the converter fixes it.
    return findings_of([*((rule, where) for rule, where in found if rule != "dynamic-batch"), *reading.more])


class Job(Struct, frozen=True, kw_only=True):
    """What the child is to do: findings of ``model`` into the file ``found``."""

    model: str
    found: str


def lint_keras_file(model: Path) -> list[Finding]:
    """What a .keras file breaks, errors first.

    Raises:
        ConversionError: it cannot be loaded, or is no graph of layers.
    """
    with tempfile.TemporaryDirectory(prefix="tinysight-lint-") as folder:
        job = Job(model=str(model), found=str(Path(folder) / "found.json"))
        mend = "Give a .keras file that is whole and a graph of Keras's own layers, or a SavedModel."
        run_child("tinysight_converters.lint_keras", job, what=f"Reading {model}", mend=mend)
        return msgspec.json.decode(Path(job.found).read_bytes(), type=list[Finding])


def _work(job: Job) -> None:
    """The child's side."""
    import keras  # noqa: PLC0415 -- the parent must not load TensorFlow

    from tinysight_converters import fake_quant  # noqa: F401, PLC0415 -- Keras finds its layers when it loads a model

    try:
        found = lint_keras(keras.models.load_model(job.model, compile=False, safe_mode=True))
    except (OSError, ValueError, TypeError, KeyError, ConversionError) as error:
        raise SystemExit(" ".join(str(error).split()).rstrip(".")[:300]) from error
    Path(job.found).write_bytes(msgspec.json.encode(found))


def _functional(model: Any) -> Any:  # noqa: ANN401 -- see above
    """The graph that a functional or sequential model has; None for any other layer."""
    held = getattr(model, "_functional", model)
    return held if hasattr(held, "_nodes_by_depth") else None


class _Reading:
    """A Keras model in TFLite's words, as it is read; each tensor bears the name of the layer that makes it.

    Attributes:
        more: rules that layers break by their kind, and their names.
    """

    def __init__(self) -> None:
        self.more: list[tuple[str, str]] = []
        self._tensors: list[Stored] = []
        self._nodes: list[Node] = []
        self._weights: dict[int, int] = {}

    def graph(self, model: Any) -> Graph:  # noqa: ANN401 -- see above
        inputs = [self._tensor(each.name, each.shape) for each in model.inputs]
        outputs = self._model(model, inputs)
        return Graph(tensors=self._tensors, nodes=self._nodes, inputs=inputs, outputs=outputs)

    def _model(self, model: Any, inputs: list[int]) -> list[int]:  # noqa: ANN401 -- see above
        at = {id(tensor): index for tensor, index in zip(model.inputs, inputs, strict=True)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    given = [at[id(tensor)] for tensor in node.input_tensors]
                    at |= zip(map(id, node.output_tensors), self._call(node, given), strict=True)
        return [at[id(tensor)] for tensor in model.outputs]

    def _call(self, node: Any, given: list[int]) -> list[int]:  # noqa: ANN401 -- see above
        layer = node.operation
        if (nested := _functional(layer)) is not None:
            return self._model(nested, given)
        kind = type(layer).__name__
        activation = getattr(getattr(layer, "activation", None), "__name__", "")
        names = {kind.lower(), activation.replace("_", "")}
        self.more += [("float-inside", layer.name)] if names & IN_FLOAT else []
        self.more += [("split-delegate", layer.name)] if names & OUTSIDE_XNNPACK else []
        op = OPERATORS.get(kind, kind)
        if kind in RESIZING and layer.interpolation == "nearest":
            op = "RESIZE_NEAREST_NEIGHBOR"
        made = given
        if kind != "Activation":
            made = self._add(
                op, layer, [*given, *self._weights_of(layer)], [each.shape for each in node.output_tensors]
            )
        if activation in ACTIVATIONS:
            made = self._add(ACTIVATIONS[activation], layer, made, [node.output_tensors[0].shape])
        return made

    def _add(self, op: str, layer: Any, given: list[int], shapes: list[Any]) -> list[int]:  # noqa: ANN401 -- see above
        if op == "SWISH":
            return self._add("MUL", layer, [*given, *self._add("LOGISTIC", layer, given, shapes)], shapes)
        made = [self._tensor(layer.name, shape) for shape in shapes]
        self._nodes.append(Node(op=op, inputs=given, outputs=made, custom=False))
        return made

    def _weights_of(self, layer: Any) -> list[int]:  # noqa: ANN401 -- see above
        for each in getattr(layer, "weights", ()):
            if id(each) not in self._weights:
                self._weights[id(each)] = self._tensor(each.name, each.shape, constant=True)
        return [self._weights[id(each)] for each in getattr(layer, "weights", ())]

    def _tensor(self, name: str, shape: Any, *, constant: bool = False) -> int:  # noqa: ANN401 -- see above
        sides = [-1 if side is None else int(side) for side in shape]
        self._tensors.append(
            Stored(name=name, shape=sides, dtype="float32", scales=0, scale=0.0, zero_point=0, constant=constant)
        )
        return len(self._tensors) - 1


if __name__ == "__main__":
    _work(msgspec.json.decode(sys.argv[1], type=Job))
