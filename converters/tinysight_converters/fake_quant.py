"""Layers that compute in float what int8 will compute, so that a training can make the best of it.

In: float tensors.  Out: float tensors that lie on the 256 levels of a range, or weights on 255 levels. TensorFlow's
TFLite converter takes the ranges from here instead of measuring them.
Source: B. Jacob et al., arXiv 1712.05877, section 3; weights per output channel.
"""

from collections.abc import Callable
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

__all__ = ["FakeQuant", "QuantConv2D", "QuantDense", "QuantDepthwiseConv2D"]

PACKAGE: Final = "tinysight"
LEAST_SHARE: Final = 2.0**-14  # of a channel's bias, its weights' range: else the bias overflows int32
LEAST: Final = 1e-8


@keras.saving.register_keras_serializable(package=PACKAGE)
class FakeQuant(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Rounds a tensor to the 256 levels of its range, of which one is zero.

    Args:
        low: least value, zero or below.
        high: greatest value.
        fixed: int8 always has this range here; else calibration sets it.
        **settings: of every Keras layer.
    """

    def __init__(self, low: float, high: float, *, fixed: bool = False, **settings: Any) -> None:  # noqa: ANN401 -- Keras has no types
        super().__init__(**settings)
        self.first = low, high
        self.fixed = fixed
        self.see: Callable[[str, NDArray[np.float32]], None] | None = None

    def build(self, shape: Any) -> None:  # noqa: ANN401, ARG002 -- Keras calls it so
        """A range that is found is two weights; a fixed one must not be, or an average of weights would blur it."""
        self.low: Any = self.first[0]
        self.high: Any = self.first[1]
        if not self.fixed:
            self.low, self.high = (
                self.add_weight(name=name, shape=(), initializer=keras.initializers.Constant(value), trainable=False)
                for name, value in zip(("low", "high"), self.first, strict=True)
            )

    def call(self, x: Any) -> Any:  # noqa: ANN401 -- tensors have no types
        """Round; whoever wants to ``see`` the tensor gets it as it is."""
        if self.see is not None:
            self.see(self.name, np.asarray(x))
            return x
        return tf.quantization.fake_quant_with_min_max_vars(x, self.low, self.high)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "low": self.first[0], "high": self.first[1], "fixed": self.fixed}


def _channel_range(kernel: Any, bias: Any) -> Any:  # noqa: ANN401 -- tensors have no types
    """The greatest weight for each value of the last axis."""
    most = tf.reduce_max(tf.abs(kernel), list(range(len(kernel.shape) - 1)))
    return tf.maximum(most, tf.maximum(tf.abs(bias) * LEAST_SHARE, LEAST))


def _by_channel(kernel: Any, most: Any) -> Any:  # noqa: ANN401 -- tensors have no types
    """Weights on 255 levels, those of a value of the last axis on levels of their own."""
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(kernel, -most, most, narrow_range=True)


@keras.saving.register_keras_serializable(package=PACKAGE)
class QuantConv2D(layers.Conv2D):  # type: ignore[misc]  # Keras has no types
    """A convolution with the weights of int8, a range for each output channel."""

    def weight_range(self) -> Any:  # noqa: ANN401 -- tensors have no types
        """The greatest weight of each output channel; it becomes 127."""
        return _channel_range(self.kernel, self.bias)

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:  # noqa: ANN401 -- tensors have no types
        """As the float one, with rounded weights."""
        return super().convolution_op(inputs, _by_channel(kernel, self.weight_range()))


@keras.saving.register_keras_serializable(package=PACKAGE)
class QuantDepthwiseConv2D(layers.DepthwiseConv2D):  # type: ignore[misc]  # Keras has no types
    """A depthwise convolution with the weights of int8, a range for each output channel."""

    def _flat(self) -> Any:  # noqa: ANN401 -- tensors have no types
        """The kernel with its output channels in one axis, the last."""
        return tf.reshape(self.kernel, (*self.kernel_size, 1, -1))

    def weight_range(self) -> Any:  # noqa: ANN401 -- tensors have no types
        """The greatest weight of each output channel; it becomes 127."""
        return _channel_range(self._flat(), self.bias)

    def call(self, inputs: Any) -> Any:  # noqa: ANN401 -- tensors have no types
        """As the float one, with rounded weights."""
        kernel = tf.reshape(_by_channel(self._flat(), self.weight_range()), self.kernel.shape)
        outputs = keras.ops.depthwise_conv(
            inputs, kernel, strides=self.strides, padding=self.padding, dilation_rate=self.dilation_rate
        )
        return outputs + self.bias


@keras.saving.register_keras_serializable(package=PACKAGE)
class QuantDense(layers.Dense):  # type: ignore[misc]  # Keras has no types
    """A dense layer with the weights of int8, one range for all: the converter aborts on a range for each output."""

    def weight_range(self) -> Any:  # noqa: ANN401 -- tensors have no types
        """The greatest weight; it becomes 127."""
        least = tf.maximum(tf.reduce_max(tf.abs(self.bias)) * LEAST_SHARE, LEAST)
        return tf.maximum(tf.reduce_max(tf.abs(self.kernel)), least)

    def call(self, inputs: Any) -> Any:  # noqa: ANN401 -- tensors have no types
        """As the float one, with rounded weights."""
        most = self.weight_range()
        rounded = tf.quantization.fake_quant_with_min_max_vars(self.kernel, -most, most, narrow_range=True)
        return tf.matmul(inputs, rounded) + self.bias
