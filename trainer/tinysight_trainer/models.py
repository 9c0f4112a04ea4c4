"""The detectors and the classifiers: small residual networks that survive int8, and EfficientNet-Lite0 for more.

In: a `Config`, the number of classes.  Out: a Keras model that takes raw pictures (batch, height, width,
channels), 0..255.
Rules that keep int8 as good as float: normalisation inside the graph, plain 3x3 convolutions, ReLU6, bilinear
upsampling, addition instead of concatenation, one named output per meaning, decoding on the host.
"""

from typing import Any, Final

import keras
from keras import layers

from tinysight_trainer.config import Config
from tinysight_trainer.targets import STRIDE

__all__ = ["STRIDE", "build_model"]

HEAT_BIAS: Final = -2.2  # the heat map begins at sigmoid(-2.2) = 0.1 (T.-Y. Lin et al., arXiv 1708.02002, section 4.1)
WIDTHS: Final = {"small": (16, 32, 64, 96), "medium": (24, 48, 96, 144)}
BLOCKS: Final = {"small": 1, "medium": 2}
LEAST_SIDE: Final = 5  # a classifier's last map is no smaller
FINE_SIDE: Final = 48  # up to this, a classifier looks at every pixel


def build_model(config: Config, labels: int) -> Any:  # noqa: ANN401 -- Keras has no types
    """A new model.

    Args:
        config: task, model, input, colours, scale.
        labels: number of classes.

    Returns:
        A Keras model. ``detect``: ``{"heatmap": (b, height/8, width/8, labels), "box": (b, height/8, width/8, 4)}``;
        ``classify``: ``{"scores": (b, labels)}``.

    Raises:
        DataError: the ImageNet weights of lite0 are missing or damaged.
    """
    if config.model == "lite0":
        return _lite0(config, labels)
    image = keras.Input((config.height, config.width, 1 if config.color == "GRAY" else 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    widths = [max(8, int(channels * config.scale) // 8 * 8) for channels in WIDTHS[config.model]]
    blocks = BLOCKS[config.model]
    if config.task == "classify":
        return _classifier(image, _trunk(x, widths, blocks, min(config.height, config.width)), labels)
    x = _conv(x, widths[0], stride=2)
    fine = _stage(_stage(x, widths[1], blocks), widths[2], blocks)  # stride 8
    deep = _stage(fine, widths[3], blocks)  # stride 16
    return _detector(image, fine, [deep], channels=widths[2], box_channels=widths[1], labels=labels)


def _trunk(x: Any, widths: list[int], blocks: int, side: int) -> Any:  # noqa: ANN401 -- see above
    """Of a classifier: as many halvings as leave a map that is worth averaging."""
    stride = 2 if side > FINE_SIDE else 1
    x, side = _conv(x, widths[0], stride=stride), -(-side // stride)
    for channels in widths[1:]:
        side = -(-side // 2)
        if side >= LEAST_SIDE:
            x = _stage(x, channels, blocks)
    return x


def _classifier(image: Any, features: Any, labels: int) -> Any:  # noqa: ANN401 -- see above
    pooled = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(features))
    scores = layers.Dense(labels, activation="softmax", dtype="float32", name="scores")(pooled)
    return keras.Model(image, {"scores": scores}, name="classifier")


def _detector(image: Any, fine: Any, deeper: list[Any], *, channels: int, box_channels: int, labels: int) -> Any:  # noqa: ANN401 -- see above
    """Heads on the map of stride 8, into which the deeper maps are brought back."""
    carried = deeper[-1]
    for finer in reversed(deeper[:-1]):
        carried = layers.Add()([finer, _up(carried, finer.shape[-1])])
    x = layers.Add()([fine, _up(carried, channels)])
    x = _residual(layers.ReLU(6.0)(x), channels)
    heat = layers.Conv2D(
        labels,
        1,
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(HEAT_BIAS),
        dtype="float32",
        name="heatmap",
    )(_conv(x, channels))
    box = layers.Conv2D(4, 1, dtype="float32", name="box")(_conv(x, box_channels))
    return keras.Model(image, {"heatmap": heat, "box": box}, name="detector")


def _up(x: Any, channels: int) -> Any:  # noqa: ANN401 -- see above
    return layers.UpSampling2D(2, interpolation="bilinear")(_conv(x, channels, kernel=1))


def _stage(x: Any, channels: int, blocks: int) -> Any:  # noqa: ANN401 -- see above
    x = _conv(x, channels, stride=2)
    for _ in range(blocks):
        x = _residual(x, channels)
    return x


def _conv(x: Any, channels: int, *, stride: int = 1, kernel: int = 3, relu: bool = True) -> Any:  # noqa: ANN401 -- see above
    x = layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.95)(x)
    return layers.ReLU(6.0)(x) if relu else x


def _residual(x: Any, channels: int) -> Any:  # noqa: ANN401 -- see above
    inner = _conv(_conv(x, channels), channels, relu=False)
    return layers.ReLU(6.0)(layers.Add()([x, inner]))


def _lite0(config: Config, labels: int) -> Any:  # noqa: ANN401 -- see above
    from tinysight_trainer.lite0 import lite0_backbone, load_imagenet_weights  # noqa: PLC0415 -- 17 MB of weights

    image = keras.Input((config.height, config.width, 3), name="image")
    backbone = lite0_backbone(config.height, config.width)
    load_imagenet_weights(backbone)
    backbone.trainable = not config.freeze
    maps = backbone(image, training=False)  # batch normalisation keeps ImageNet's statistics: small batches are no harm
    if config.task == "classify":
        return _classifier(image, maps["stride32"], labels)
    fine = _conv(maps["stride8"], 64, kernel=1)
    return _detector(image, fine, [maps["stride16"], maps["stride32"]], channels=64, box_channels=32, labels=labels)
