"""What a foreign file is, read from its `Trial`: how to call it, what it takes, what its numbers are.

In: a `Trial`.  Out: inputs and outputs by name, the picture's shape, the scheme; or why no device could run it.
"""

from typing import Any, Final, Literal

from tinysight_contract import manifest as mf
from tinysight_contract.errors import ConversionError
from tinysight_converters.foreign.roles import POST_PROCESS
from tinysight_converters.graph import read_graph
from tinysight_converters.lint import Finding, lint_graph, refusal
from tinysight_converters.trial import TensorFacts, Trial

__all__ = ["linted", "naming", "opened", "picture_shape", "scheme_of", "suffering", "tensor_fields"]

NOT_RUN: Final = {"flex", "custom-op", "several-inputs", "unknown-shape"}
OF_INT8: Final = {"concat-meanings", "swish", "hard-swish"}
DTYPES: Final = ("uint8", "int8", "float32")


def linted(content: bytes) -> list[Finding]:
    """What may suffer on a device.

    Raises:
        ConversionError: the file is damaged, or something in it keeps it from running at all.
    """
    findings = lint_graph(read_graph(content))
    for each in findings:
        if each.rule in NOT_RUN:
            raise refusal(each)
    return findings


def suffering(findings: list[Finding], scheme: mf.Scheme) -> list[str]:
    """A line for each finding; what concerns int8 alone is left out of the others."""
    return [each.line for each in findings if each.rule not in OF_INT8 or scheme.startswith("int8")]


def opened(trial: Trial) -> Trial:
    """Itself.

    Raises:
        ConversionError: the runtime failed.
    """
    error = trial.error
    if error is None:
        return trial
    raise ConversionError(f"The model does not run: {error.rstrip('.')}.", mend="Export it again, or copy it again.")


def naming(trial: Trial) -> tuple[Literal["signature", "tensor"], list[TensorFacts], list[TensorFacts]]:
    """How inputs and outputs are named: by the file's only signature, else by their tensors.

    Raises:
        ConversionError: it has not exactly one input, an output that no device understands, or two of a name.
    """
    named_by: Literal["signature", "tensor"] = "tensor"
    inputs, outputs = trial.inputs, trial.outputs
    if len(trial.signatures) == 1:
        named_by, (signature,) = "signature", trial.signatures.values()
        inputs, outputs = signature.inputs, signature.outputs
    if len(inputs) != 1:
        raise ConversionError(
            f"The model takes {len(inputs)} inputs, {', '.join(repr(each.name) for each in inputs)}.",
            mend="Use a model that takes one picture and nothing else.",
        )
    if len({each.name for each in outputs}) != len(outputs):
        raise ConversionError("Two of the model's outputs share a name.", mend="Export it again with named outputs.")
    for each in (*inputs, *outputs):
        if -1 in each.dynamic[1:] or not each.shape or min(each.shape) < 1:
            raise ConversionError(
                f"{each.name!r} has the open shape {each.dynamic}.",
                mend="Export the model again with a fixed size and a batch of one.",
            )
        if each.shape[0] != 1 and len(each.shape) > 1:
            raise ConversionError(
                f"{each.name!r} has the shape {each.shape}.", mend="Export the model again with a batch of one."
            )
    return named_by, inputs, outputs


def picture_shape(facts: TensorFacts) -> tuple[str, int, int, int]:
    """Layout, height, width and channels of a picture input.

    Raises:
        ConversionError: it takes no picture.
    """
    if len(facts.shape) == 4:
        _, a, b, c = facts.shape
        if c in {1, 3}:
            return "NHWC", a, b, c
        if a in {1, 3}:
            return "NCHW", b, c, a
    raise ConversionError(
        f"The input {facts.name!r} {facts.shape} is no picture of 1 or 3 channels.", mend="Use a model of pictures."
    )


def tensor_fields(facts: TensorFacts) -> dict[str, Any]:
    """What the manifest says of a tensor. Integers that are not quantized stand for themselves.

    Raises:
        ConversionError: no device handles its numbers.
    """
    if facts.dtype not in DTYPES:
        raise ConversionError(
            f"{facts.name!r} holds {facts.dtype}.", mend=f"Export the model again with {', '.join(DTYPES)} outside."
        )
    scale = facts.scale or (0.0 if facts.dtype == "float32" else 1.0)
    return {
        "name": facts.name,
        "shape": facts.shape,
        "dtype": facts.dtype,
        "scale": scale,
        "zero_point": facts.zero_point,
    }


def scheme_of(trial: Trial) -> mf.Scheme:
    """What the numbers inside the file are; floats at its edges do not count, for they are made for the reader."""
    made = {index for op in trial.ops for index in op.outputs}
    edges = {each.index for each in (*trial.inputs, *trial.outputs)}
    edges |= {index for op in trial.ops if op.name == POST_PROCESS for index in (*op.inputs, *op.outputs)}
    weights = [each for each in trial.tensors if each.index not in made | edges]
    unpacked = {
        index
        for op in trial.ops
        if op.name == "DEQUANTIZE" and set(op.inputs) <= {each.index for each in weights}
        for index in op.outputs
    }
    inner = [each for each in trial.tensors if each.index in made - edges - unpacked]
    if any(each.dtype in {"int8", "uint8", "int16"} and each.scales for each in inner):
        return "int8-mixed" if any(each.dtype == "float32" for each in inner) else "int8"
    if any(each.dtype == "float16" for each in weights):
        return "float16"
    if any(each.dtype == "int8" and each.scales for each in weights):
        return "dynamic"
    return "float32"
