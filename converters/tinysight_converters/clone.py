"""Build a float Keras model again from layers that compute what int8 will compute.

In: a trained functional model that takes raw pictures, 0..255.  Out: the same one with batch normalisation folded into
the convolutions, nested models laid flat, and a `FakeQuant` wherever TFLite rounds. Its ranges are not known yet:
`calibrate` (``ranges.py``) sets them. Knows a closed list of layers; any other is refused by name.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import keras
import numpy as np
from keras import layers
from msgspec import Struct
from numpy.typing import NDArray

from tinysight_contract.errors import ConversionError
from tinysight_converters.fake_quant import FakeQuant, QuantConv2D, QuantDense, QuantDepthwiseConv2D

__all__ = ["quantized_clone"]

PICTURE: Final = (0.0, 255.0)  # uint8 with scale 1 and zero point 0
SHARES: Final = (0.0, 255 / 256)  # what TFLite gives to every sigmoid and softmax
UNKNOWN: Final = (0.0, 6.0)  # until it is calibrated
WEIGHTED: Final[dict[Any, Any]] = {
    layers.Conv2D: QuantConv2D,
    layers.DepthwiseConv2D: QuantDepthwiseConv2D,
    layers.Dense: QuantDense,
}
ACTIVATIONS: Final = ("linear", "relu", "relu6", "sigmoid", "softmax", "silu", "hard_silu")
ON_THE_GRID: Final = (layers.MaxPooling2D, layers.ZeroPadding2D, layers.Flatten, layers.Reshape, layers.Dropout)
BETWEEN: Final = (layers.AveragePooling2D, layers.UpSampling2D)  # TFLite rounds to the levels of what goes in
NEW_RANGE: Final = (layers.Add, layers.GlobalAveragePooling2D)
KNOWN: Final = (
    *WEIGHTED, layers.BatchNormalization, layers.Rescaling, layers.ReLU, layers.Activation, layers.Softmax,
    *ON_THE_GRID, *BETWEEN, *NEW_RANGE,
)  # fmt: skip


class _Step(Struct, frozen=True, kw_only=True, eq=False):
    """One layer's work in the float model; tensors are Keras's symbolic ones."""

    layer: Any
    inputs: list[Any]
    output: Any


class _Value(Struct, kw_only=True, eq=False):
    """A tensor of the new model, and the layer that rounded it; None: it is not rounded yet."""

    tensor: Any
    grid: Any = None


def quantized_clone(model: Any) -> Any:  # noqa: ANN401 -- Keras has no types
    """The same model with the rounding of int8, and the same answers but for it.

    Args:
        model: a functional model with one input, raw pictures; it stays as it is.

    Returns:
        A Keras model with the same outputs, to be calibrated.

    Raises:
        ConversionError: a layer is none of those known here, or stands where it cannot be quantized.
    """
    steps, flat = _flatten(model)
    return _Cloning(steps, flat).build(model.name)


def _flatten(model: Any) -> tuple[list[_Step], Any]:  # noqa: ANN401 -- see above
    """Every layer in the order of its work, those of nested models too, and a model whose tensors they name."""
    steps: list[_Step] = []

    def call(layer: Any, *given: Any, **settings: Any) -> Any:  # noqa: ANN401 -- see above
        if isinstance(layer, keras.Model) and hasattr(layer, "get_layer") and not isinstance(layer, keras.Sequential):
            return keras.models.clone_model(
                layer, input_tensors=given[0], clone_function=lambda each: each, call_function=call
            ).output
        _check(layer)
        copy = type(layer).from_config({**layer.get_config(), "name": f"step{len(steps)}"})
        output = copy(*given, **settings)
        inputs = list(given[0]) if isinstance(given[0], list | tuple) else [given[0]]
        steps.append(_Step(layer=layer, inputs=inputs, output=output))
        return output

    flat = keras.models.clone_model(model, clone_function=lambda each: each, call_function=call)
    twice = [layer.name for layer, n in Counter(step.layer for step in steps).items() if n > 1 and layer.weights]
    if twice:
        raise ConversionError(f"Layer {twice[0]} is used twice.", mend="Give each place a layer of its own.")
    return steps, flat


def _check(layer: Any) -> None:  # noqa: ANN401 -- see above
    """Refuse what int8 cannot do, or what is not known here."""
    kind, name = type(layer).__name__, getattr(layer, "name", "an operation")
    if type(layer) not in KNOWN:
        raise ConversionError(
            f"Layer {name} is a {kind}, which fake quantization does not know.",
            mend=f"Use one of: {', '.join(sorted(each.__name__ for each in KNOWN))}.",
        )
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise ConversionError(f"Layer {name} has its channels first.", mend="Build the model with channels_last.")
    if isinstance(layer, layers.ReLU) and (layer.negative_slope or layer.threshold or layer.max_value not in {None, 6}):
        raise ConversionError(f"Layer {name} is a ReLU of another kind.", mend="Use ReLU() or ReLU(6).")
    if isinstance(layer, layers.UpSampling2D) and layer.interpolation != "bilinear":
        raise ConversionError(f"Layer {name} does not upsample bilinearly.", mend='Give it interpolation="bilinear".')
    if _activation(layer) not in ACTIVATIONS:
        raise ConversionError(
            f"Layer {name} has the activation {_activation(layer)}.", mend=f"Use one of: {', '.join(ACTIVATIONS)}."
        )


def _activation(layer: Any) -> str:  # noqa: ANN401 -- see above
    """Its name in Keras."""
    if isinstance(layer, layers.ReLU):
        return "relu6" if layer.max_value else "relu"
    if isinstance(layer, layers.Softmax):
        return "softmax"
    return str(keras.activations.serialize(getattr(layer, "activation", None) or keras.activations.linear))


class _Cloning:
    """The new model as far as it is built.

    Args:
        steps: what the float model does, in order.
        flat: the model of their tensors.
    """

    def __init__(self, steps: list[_Step], flat: Any) -> None:  # noqa: ANN401 -- see above
        self.steps, self.flat = steps, flat
        self.values: dict[int, _Value] = {}
        self.uses = Counter(id(tensor) for step in steps for tensor in step.inputs)
        self.uses.update(id(tensor) for tensor in flat.outputs)
        self.folded = {
            id(step.inputs[0]): step.layer for step in steps if isinstance(step.layer, layers.BatchNormalization)
        }
        self.makers: dict[Any, Callable[[_Step], _Value]] = {
            **dict.fromkeys(WEIGHTED, self._weighted),
            **dict.fromkeys((layers.ReLU, layers.Activation, layers.Softmax), self._activated),
            **dict.fromkeys(ON_THE_GRID, self._moved),
            **dict.fromkeys(BETWEEN, self._rounded_again),
            **dict.fromkeys(NEW_RANGE, self._plain),
            layers.BatchNormalization: self._normalised,
            layers.Rescaling: self._rescaled,
        }

    def build(self, name: str) -> Any:  # noqa: ANN401 -- see above
        """Do every step, and round what comes out."""
        (image,) = self.flat.inputs
        entry = keras.Input(image.shape[1:], name=image.name)
        self.values[id(image)] = self._round(_Value(tensor=entry), PICTURE, fixed=True)
        for step in self.steps:
            self.values[id(step.output)] = self.makers[type(step.layer)](step)
        outputs = {id(tensor): self._rounded(tensor).tensor for tensor in self.flat.outputs}
        return keras.Model(entry, keras.tree.map_structure(lambda each: outputs[id(each)], self.flat.output), name=name)

    def _round(self, value: _Value, span: tuple[float, float] = UNKNOWN, *, fixed: bool = False) -> _Value:
        grid = FakeQuant(*span, fixed=fixed)
        return _Value(tensor=grid(value.tensor), grid=grid)

    def _rounded(self, tensor: Any) -> _Value:  # noqa: ANN401 -- see above
        """The new model's value, rounded once for all who take it."""
        value = self.values[id(tensor)]
        if value.grid is None:
            value = self.values[id(tensor)] = self._round(value)
        return value

    def _weighted(self, step: _Step) -> _Value:
        layer = step.layer
        config = {**layer.get_config(), "activation": "linear", "use_bias": True}
        kernel, bias = _folded(layer, self.folded.get(id(step.output)))
        made = WEIGHTED[type(layer)].from_config(config)
        value = _Value(tensor=made(self._rounded(step.inputs[0]).tensor))
        made.set_weights([kernel, bias])
        return self._activate(value, _activation(layer))

    def _normalised(self, step: _Step) -> _Value:
        """Nothing is left to do where the convolution before it took it in."""
        (tensor,), layer = step.inputs, step.layer
        before = next((each.layer for each in self.steps if each.output is tensor), None)
        foldable = type(before) in {layers.Conv2D, layers.DepthwiseConv2D} and _activation(before) == "linear"
        if not foldable or self.uses[id(tensor)] > 1:
            raise ConversionError(
                f"Batch normalisation {layer.name} does not follow a convolution of its own.",
                mend="Put it between a convolution and its activation.",
            )
        return self.values[id(tensor)]

    def _activated(self, step: _Step) -> _Value:
        (tensor,) = step.inputs
        alone = self.uses[id(tensor)] == 1
        return self._activate(self.values[id(tensor)] if alone else self._rounded(tensor), _activation(step.layer))

    def _activate(self, value: _Value, name: str) -> _Value:
        """TFLite makes one operator of ReLU and what it follows; all else takes a rounded tensor."""
        if name == "linear":
            return value
        if name in {"relu", "relu6"}:
            return _Value(tensor=layers.ReLU(6.0 if name == "relu6" else None)(value.tensor))
        if value.grid is None:
            value = self._round(value)
        if name == "hard_silu":
            return _Value(tensor=layers.Activation(name)(value.tensor))
        shares = layers.Activation("sigmoid" if name == "silu" else name)(value.tensor)
        share = self._round(_Value(tensor=shares), SHARES, fixed=True)
        return _Value(tensor=layers.Multiply()([value.tensor, share.tensor])) if name == "silu" else share

    def _copy(self, step: _Step) -> Any:  # noqa: ANN401 -- see above
        """The layer's work on rounded tensors."""
        given = [self._rounded(tensor).tensor for tensor in step.inputs]
        return type(step.layer).from_config(step.layer.get_config())(given if len(given) > 1 else given[0])

    def _moved(self, step: _Step) -> _Value:
        return _Value(tensor=self._copy(step), grid=self._rounded(step.inputs[0]).grid)

    def _rounded_again(self, step: _Step) -> _Value:
        grid = self._rounded(step.inputs[0]).grid
        return _Value(tensor=grid(self._copy(step)), grid=grid)

    def _plain(self, step: _Step) -> _Value:
        return _Value(tensor=self._copy(step))

    def _rescaled(self, step: _Step) -> _Value:
        """A depthwise convolution of one pixel, which int8 does in one rounding."""
        before = self._rounded(step.inputs[0])
        channels = before.tensor.shape[-1]
        scale, offset = (np.broadcast_to(each, channels) for each in (step.layer.scale, step.layer.offset))
        made = QuantDepthwiseConv2D(1, name=step.layer.name, trainable=False)
        value = _Value(tensor=made(before.tensor))
        made.set_weights([scale.reshape(1, 1, channels, 1), offset])
        if not before.grid.fixed:
            return value
        ends = [offset + scale * end for end in before.grid.first]
        return self._round(value, _exact(float(np.min(ends)), float(np.max(ends))), fixed=True)


def _exact(low: float, high: float) -> tuple[float, float]:
    """The narrowest range around these in which zero is a level and no level lies halfway between two."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == 0.0 or high == 0.0:
        return low, high
    zero = int(255 * -low / (high - low))
    step = max(-low / zero, high / (255 - zero))
    return -zero * step, (255 - zero) * step


def _folded(layer: Any, normalisation: Any) -> tuple[NDArray[Any], NDArray[Any]]:  # noqa: ANN401 -- see above
    """Kernel and bias of a layer, with the batch normalisation after it."""
    kernel = np.asarray(layer.kernel, np.float64)
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    channels = kernel.shape[-1] * (kernel.shape[-2] if depthwise else 1)
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else np.zeros(channels)
    if normalisation is None:
        return kernel, bias
    mean, variance = (
        np.asarray(each, np.float64) for each in (normalisation.moving_mean, normalisation.moving_variance)
    )
    factor = 1 / np.sqrt(variance + normalisation.epsilon)
    if normalisation.scale:
        factor = factor * np.asarray(normalisation.gamma)
    shift = np.asarray(normalisation.beta) if normalisation.center else 0.0
    return kernel * factor.reshape(kernel.shape[-2:] if depthwise else -1), (bias - mean) * factor + shift
