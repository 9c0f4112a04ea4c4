"""Look into a converted file: what its tensors are, and whether "int8" is the truth.

In: a flatbuffer's bytes.  Out: how the manifest names its tensors; every tensor that breaks the promise.
"""

from typing import Any, Final, Literal, cast

import numpy as np

from tinysight_contract.errors import ConversionError
from tinysight_contract.manifest import Output, Tensor
from tinysight_edge.interpreter import Runtime

__all__ = ["float_tensors", "operators", "tensors"]

ROLES: Final = {"heatmap", "box", "scores", "embedding"}


def _open(content: bytes, runtime: Runtime) -> Any:  # noqa: ANN401 -- the runtimes have no types
    from ai_edge_litert.interpreter import OpResolverType  # noqa: PLC0415 -- the workstation has LiteRT

    try:
        # Without a delegate, so that every tensor of the file is listed and not those of a fused partition.
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        made = runtime.interpreter(model_content=content, experimental_op_resolver_type=resolver)
        made.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ConversionError(f"The converted model does not load: {error}.", mend="Report this as a bug.") from error
    return made


def tensors(content: bytes, runtime: Runtime) -> tuple[Tensor, list[Output]]:
    """The input and the outputs of the file's only signature, as the manifest names them.

    Raises:
        ConversionError: it has several inputs or signatures, or an output whose name is no role.
    """
    signature = _open(content, runtime).get_signature_runner()
    inputs, outputs = signature.get_input_details(), signature.get_output_details()
    if len(inputs) != 1 or not set(outputs) <= ROLES:
        raise ConversionError(
            f"The model has inputs {sorted(inputs)} and outputs {sorted(outputs)}.",
            mend=f"Give it one input, and outputs named {', '.join(sorted(ROLES))}.",
        )
    ((name, details),) = inputs.items()
    made = [
        Output(**_fields(name, details), role=cast("Literal['heatmap', 'box', 'scores', 'embedding']", name))
        for name, details in sorted(outputs.items())
    ]
    return Tensor(**_fields(name, details)), made


def _fields(name: str, details: dict[str, Any]) -> dict[str, Any]:
    scale, zero_point = details["quantization"]
    return {
        "name": name,
        "shape": [int(side) for side in details["shape"]],
        "dtype": np.dtype(details["dtype"]).name,
        "scale": float(scale),
        "zero_point": int(zero_point),
    }


def float_tensors(content: bytes, runtime: Runtime) -> list[str]:
    """Names of all tensors that hold floating-point numbers; a full int8 model has none."""
    details = _open(content, runtime).get_tensor_details()
    return [each["name"] for each in details if np.issubdtype(np.dtype(each["dtype"]), np.floating)]


def operators(content: bytes, runtime: Runtime) -> dict[str, int]:
    """How often each operator stands in the file."""
    counts: dict[str, int] = {}
    for op in _open(content, runtime)._get_ops_details():
        counts[op["op_name"]] = counts.get(op["op_name"], 0) + 1
    return dict(sorted(counts.items()))
