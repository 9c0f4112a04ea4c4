"""The same rules on a Keras model, by the names of its layers, before anything is converted or trained.

In: a Keras model.  Out: `Finding`s.
"""

from collections.abc import Iterator
from typing import Any, Final

from tinysight_converters.lint import LARGE_DENSE, RULES, Finding, found

__all__ = ["lint_keras"]

SWISH: Final = {"silu", "swish"}
HARD_SWISH: Final = {"hard_silu", "hard_swish"}
IN_FLOAT: Final = {"gelu", "elu", "selu", "softplus", "softsign", "mish", "erf"}
FLOAT_LAYERS: Final = {
    "LayerNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "UnitNormalization",
    "SpectralNormalization",
    "MultiHeadAttention",
    "GroupQueryAttention",
    "ELU",
    "GELU",
}
SHAPING: Final = {"Reshape", "Flatten", "Permute", "Activation"}


def lint_keras(model: Any) -> list[Finding]:  # noqa: ANN401 -- Keras has no types
    """What a Keras model breaks, errors first."""
    places: dict[str, list[str]] = {}
    for rule, where in _broken(model):
        if where not in places.setdefault(rule, []):
            places[rule].append(where)
    return [found(rule, places[rule]) for rule in RULES if rule in places]


def _layers(model: Any) -> Iterator[Any]:  # noqa: ANN401 -- see above
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer


def _broken(model: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 -- see above
    if len(model.inputs) != 1:
        yield "several-inputs", f"{len(model.inputs)} inputs"
    for each in model.inputs:
        if None in each.shape[1:]:
            yield "unknown-shape", f"{each.name} {list(each.shape)}"
    ends = {id(tensor) for tensor in _flat(model.output)}
    total = model.count_params()
    for layer in _layers(model):
        kind = type(layer).__name__
        activation = getattr(getattr(layer, "activation", None), "__name__", "")
        if activation in SWISH or _is_swish(layer, kind):
            yield "swish", layer.name
        if activation in HARD_SWISH:
            yield "hard-swish", layer.name
        if activation in IN_FLOAT or kind in FLOAT_LAYERS:
            yield "float-inside", layer.name
        if kind == "UpSampling2D" and layer.interpolation == "nearest":
            yield "nearest-upsampling", layer.name
        if kind == "Dense" and layer.kernel.shape[0] * layer.kernel.shape[1] >= LARGE_DENSE:
            weights = int(layer.kernel.shape[0] * layer.kernel.shape[1])
            if weights > total / 2:
                yield "large-dense", f"{layer.name}, {weights} weights"
        if kind == "Concatenate" and _ends(layer.output, ends) and len({_origin(each) for each in layer.input}) > 1:
            yield "concat-meanings", layer.name


def _flat(output: Any) -> list[Any]:  # noqa: ANN401 -- see above
    if isinstance(output, dict):
        return list(output.values())
    return list(output) if isinstance(output, list | tuple) else [output]


def _maker(tensor: Any) -> Any:  # noqa: ANN401 -- see above
    history = getattr(tensor, "_keras_history", None)
    return history.operation if history is not None else None


def _is_swish(layer: Any, kind: str) -> bool:  # noqa: ANN401 -- see above
    """Whether it multiplies something with its own sigmoid."""
    if kind != "Multiply":
        return False
    for gate in layer.input:
        maker = _maker(gate)
        if getattr(getattr(maker, "activation", None), "__name__", "") == "sigmoid":
            return any(maker.input is other for other in layer.input)
    return False


def _ends(tensor: Any, ends: set[int]) -> bool:  # noqa: ANN401 -- see above
    """Whether it is an output, perhaps in another shape."""
    if id(tensor) in ends:
        return True
    readers = [node.operation for node in _readers(tensor)]
    return any(_ends(each.output, ends) for each in readers if type(each).__name__ in SHAPING)


def _readers(tensor: Any) -> list[Any]:  # noqa: ANN401 -- see above
    maker = _maker(tensor)
    return list(getattr(maker, "_outbound_nodes", [])) if maker is not None else []


def _origin(tensor: Any) -> str:  # noqa: ANN401 -- see above
    """What calculated it, before it was given another shape."""
    maker = _maker(tensor)
    while maker is not None and type(maker).__name__ in {"Reshape", "Flatten", "Permute"}:
        tensor = maker.input
        maker = _maker(tensor)
    activation = getattr(getattr(maker, "activation", None), "__name__", "linear")
    return f"{type(maker).__name__} {activation}"
