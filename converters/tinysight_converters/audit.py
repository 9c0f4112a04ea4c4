"""Look into a converted file: what its tensors are, and whether "int8" is the truth.

In: a `Trial` of the file.  Out: how the manifest names its tensors; every tensor that breaks the promise.
"""

from collections import Counter
from typing import Any, Final, Literal, cast

from tinysight_contract.errors import ConversionError
from tinysight_contract.manifest import Output, Tensor
from tinysight_converters.trial import Op, TensorFacts, Trial

__all__ = ["check_int8", "float_tensors", "operators", "outside_delegate", "tensors"]

ROLES: Final = {"heatmap", "box", "scores", "embedding"}


def tensors(trial: Trial) -> tuple[Tensor, list[Output]]:
    """The input and the outputs of the file's only signature, as the manifest names them.

    Raises:
        ConversionError: it has several inputs or signatures, or an output whose name is no role.
    """
    signatures = list(trial.signatures.values())
    inputs = [each.name for signature in signatures for each in signature.inputs]
    outputs = [each.name for signature in signatures for each in signature.outputs]
    if len(signatures) != 1 or len(inputs) != 1 or not set(outputs) <= ROLES:
        raise ConversionError(
            f"The model has inputs {sorted(inputs)} and outputs {sorted(outputs)}.",
            mend=f"Give it one input, and outputs named {', '.join(sorted(ROLES))}.",
        )
    made = [
        Output(**_fields(each), role=cast("Literal['heatmap', 'box', 'scores', 'embedding']", each.name))
        for each in signatures[0].outputs
    ]
    return Tensor(**_fields(signatures[0].inputs[0])), made


def _fields(facts: TensorFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "shape": facts.shape,
        "dtype": facts.dtype,
        "scale": facts.scale,
        "zero_point": facts.zero_point,
    }


def float_tensors(trial: Trial) -> list[str]:
    """Names of the tensors that hold floating point."""
    return [each.name for each in trial.tensors if each.dtype.startswith("float")]


def check_int8(trial: Trial) -> None:
    """Nothing in it is floating point.

    Raises:
        ConversionError: something is.
    """
    if floating := float_tensors(trial):
        raise ConversionError(
            f"The int8 model holds {len(floating)} float tensors, the first is {floating[0]!r}.",
            mend="`tinysight lint` names the layers that do not quantize; replace them, or take --scheme dynamic.",
        )


def operators(trial: Trial) -> dict[str, int]:
    """How often each operator stands in the file."""
    return dict(sorted(Counter(op.name for op in trial.ops).items()))


def outside_delegate(trial: Trial) -> list[Op]:
    """Operators that XNNPACK does not run."""
    made_by = {index: op for op in trial.plan if op.name != "DELEGATE" for index in op.outputs}
    inside: set[int] = set()
    for delegate in (op for op in trial.plan if op.name == "DELEGATE"):
        waiting, given = list(delegate.outputs), set(delegate.inputs)
        while waiting:
            index = waiting.pop()
            op = made_by.get(index)
            if op is None or id(op) in inside or index in given:
                continue
            inside.add(id(op))
            waiting += op.inputs
    return [op for op in trial.plan if op.name != "DELEGATE" and id(op) not in inside]
