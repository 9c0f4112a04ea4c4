"""The detector and the classifier: small residual networks that survive int8.

In: task, labels, input size, width.  Out: a Keras model that takes raw pictures (batch, height, width, 3), 0..255.
Rules that keep int8 as good as float: normalisation inside the graph, plain 3x3 convolutions, ReLU6, bilinear
upsampling, addition instead of concatenation, one named output per meaning, decoding on the host.
"""

from typing import Any, Final

import keras
from keras import layers

__all__ = ["STRIDE", "build_model"]

STRIDE: Final = 8
HEAT_BIAS: Final = -2.2  # the heat map begins at sigmoid(-2.2) = 0.1 (T.-Y. Lin et al., arXiv 1708.02002, section 4.1)


def build_model(task: str, *, labels: int, height: int, width: int, scale: float = 1.0) -> Any:  # noqa: ANN401 -- Keras has no types
    """A new model.

    Args:
        task: ``detect`` or ``classify``.
        labels: number of classes.
        height: of the input in pixels, a multiple of 16.
        width: of the input in pixels, a multiple of 16.
        scale: multiplies the number of channels.

    Returns:
        A Keras model. ``detect``: ``{"heatmap": (b, height/8, width/8, labels), "box": (b, height/8, width/8, 4)}``;
        ``classify``: ``{"scores": (b, labels)}``.
    """
    c1, c2, c3, c4 = (max(8, int(channels * scale) // 8 * 8) for channels in (16, 32, 64, 96))
    image = keras.Input((height, width, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = _conv(x, c1, stride=2)
    x = _conv(x, c2, stride=2)
    x = _residual(x, c2)
    x = _conv(x, c3, stride=2)
    x = _residual(x, c3)  # stride 8
    deep = _conv(x, c4, stride=2)
    deep = _residual(deep, c4)  # stride 16
    if task == "classify":
        pooled = layers.GlobalAveragePooling2D()(deep)
        scores = layers.Dense(labels, activation="softmax", name="scores")(layers.Dropout(0.2)(pooled))
        return keras.Model(image, {"scores": scores}, name="classifier")
    up = layers.UpSampling2D(2, interpolation="bilinear")(_conv(deep, c3, kernel=1))
    x = layers.Add()([x, up])
    x = _residual(layers.ReLU(6.0)(x), c3)
    heat = layers.Conv2D(
        labels, 1, activation="sigmoid", bias_initializer=keras.initializers.Constant(HEAT_BIAS), name="heatmap"
    )(_conv(x, c3))
    box = layers.Conv2D(4, 1, name="box")(_conv(x, c2))
    return keras.Model(image, {"heatmap": heat, "box": box}, name="detector")


def _conv(x: Any, channels: int, *, stride: int = 1, kernel: int = 3, relu: bool = True) -> Any:  # noqa: ANN401 -- see above
    x = layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.95)(x)
    return layers.ReLU(6.0)(x) if relu else x


def _residual(x: Any, channels: int) -> Any:  # noqa: ANN401 -- see above
    inner = _conv(_conv(x, channels), channels, relu=False)
    return layers.ReLU(6.0)(layers.Add()([x, inner]))
