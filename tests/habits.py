"""Small Keras models, each with one habit that suffers from int8, or with none; ``python habits.py FOLDER`` converts.

``MODELS`` are built without converting. ``FILES`` are written as ``NAME.tflite``, by TensorFlow's own converter;
``flex`` is the folder of a SavedModel.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import numpy as np
from keras import layers

Build = Callable[[Any], Any]


def conv(x: Any, channels: int = 8, *, stride: int = 2, activation: str | None = "relu6") -> Any:
    return layers.Conv2D(channels, 3, strides=stride, padding="same", activation=activation)(x)


def scores(x: Any) -> Any:
    return layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x))


def head(x: Any, channels: int, activation: str | None = None) -> Any:
    """(b, n, channels) of a map."""
    return layers.Reshape((-1, channels))(layers.Conv2D(channels, 1, activation=activation)(x))


def activated(name: str) -> Build:
    return lambda image: scores(conv(image, activation=name))


def after(make: Callable[[], Any], *, activation: str | None = "relu6") -> Build:
    """A layer of its own between a convolution and the scores."""
    return lambda image: scores(conv(make()(conv(image, activation=activation))))


def sigmoid_times(image: Any) -> Any:
    x = conv(image, activation=None)
    return scores(layers.Multiply()([x, layers.Activation("sigmoid")(x)]))


def sigmoid_operators(image: Any) -> Any:
    x = conv(image, activation=None)
    return scores(keras.ops.sigmoid(x) * x)


def relu6_times(image: Any) -> Any:
    """Hard-swish as MobileNetV3 writes it."""
    x = conv(image, activation=None)
    return scores(x * layers.ReLU(6.0)(x + 3.0) * (1 / 6))


def squeeze_and_excite(image: Any) -> Any:
    """A sigmoid that is multiplied with something else."""
    x = conv(image)
    gate = layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return scores(layers.Multiply()([x, gate]))


def yolo(image: Any) -> Any:
    x = conv(image, stride=8)
    return layers.Concatenate()([head(x, 4), head(x, 3, "sigmoid")])


def yolo_of_scales(image: Any) -> Any:
    maps = [conv(image, stride=stride) for stride in (8, 16)]
    each = [layers.Concatenate()([head(x, 4), head(x, 3, "sigmoid")]) for x in maps]
    return keras.ops.transpose(layers.Concatenate(axis=1)(each), (0, 2, 1))


def yolo_of_one_sigmoid(image: Any) -> Any:
    x = conv(image, stride=8)
    return layers.Activation("sigmoid")(layers.Concatenate()([head(x, 4), head(x, 3)]))


def logits_beside_boxes(image: Any) -> Any:
    """As RetinaNet joins them: each over the scales first."""
    maps = [conv(image, stride=stride) for stride in (8, 16)]
    boxes, classes = ([head(x, channels) for x in maps] for channels in (4, 3))
    return layers.Concatenate()([layers.Concatenate(axis=1)(boxes), layers.Concatenate(axis=1)(classes)])


def yolo_in_a_nested_model(image: Any) -> Any:
    within = keras.Input((4, 4, 8))
    return keras.Model(within, layers.Concatenate()([head(within, 4), head(within, 3, "sigmoid")]))(
        conv(image, stride=8)
    )


def heads_of_scales(image: Any) -> Any:
    """The same meaning from two scales, one of them through another kind of convolution."""
    fine, coarse = conv(image, stride=8), conv(image, stride=16)
    depthwise = layers.DepthwiseConv2D(3, padding="same")(layers.Conv2D(4, 1)(coarse))
    boxes = [head(fine, 4), layers.Reshape((-1, 4))(depthwise)]
    return {
        "box": layers.Concatenate(axis=1)(boxes),
        "scores": layers.Concatenate(axis=1)([head(x, 3, "sigmoid") for x in (fine, coarse)]),
    }


def shared_head(image: Any) -> Any:
    """One layer at work on two scales."""
    shared = layers.Conv2D(4, 1)
    maps = [layers.Reshape((-1, 4))(shared(conv(image, stride=stride))) for stride in (8, 16)]
    return layers.Concatenate(axis=1)(maps)


def corners(image: Any) -> Any:
    """Numbers of one convolution in another order."""
    box = head(conv(image, stride=8), 4)
    return keras.ops.concatenate([box[..., 1:] * 2.0, box[..., :1]], -1)


def inner_concat(image: Any) -> Any:
    x, y = conv(image), conv(image, activation=None)
    return scores(conv(layers.Concatenate()([x, y, layers.Activation("sigmoid")(y)])))


def inception(image: Any) -> Any:
    """A backbone that ends in branches of one width."""
    return layers.Concatenate()([conv(image, 8), conv(image, 8)])


def backbone(image: Any) -> Any:
    within = keras.Input((32, 32, 3))
    return scores(keras.Model(within, {"stride2": conv(within), "stride4": conv(conv(within))})(image)["stride4"])


MODELS: dict[str, tuple[Build, set[str]]] = {
    "plain": (activated("relu6"), set()),
    "leaky": (activated("leaky_relu"), set()),
    "normalized": (after(layers.BatchNormalization, activation=None), set()),
    "bilinear": (after(lambda: layers.UpSampling2D(interpolation="bilinear")), set()),
    "transposed": (after(lambda: layers.Conv2DTranspose(8, 3, strides=2)), set()),
    "squeeze-and-excite": (squeeze_and_excite, set()),
    "heads-of-scales": (heads_of_scales, set()),
    "shared-head": (shared_head, set()),
    "corners": (corners, set()),
    "inner-concat": (inner_concat, set()),
    "inception": (inception, set()),
    "nested": (backbone, set()),
    "silu": (activated("silu"), {"swish"}),
    "sigmoid-times": (sigmoid_times, {"swish"}),
    "sigmoid-operators": (sigmoid_operators, {"swish"}),
    "hard-silu": (activated("hard_silu"), {"hard-swish"}),
    "gelu": (activated("gelu"), {"split-delegate"}),
    "attention": (
        lambda image: layers.MultiHeadAttention(2, 4)(*[head(conv(image, stride=8), 8)] * 2),
        {"split-delegate"},
    ),
    "elu": (activated("elu"), {"float-inside"}),
    "layer-norm": (after(layers.LayerNormalization), {"float-inside"}),
    "group-norm": (after(lambda: layers.GroupNormalization(2)), {"float-inside"}),
    "nearest": (after(layers.UpSampling2D), {"nearest-upsampling"}),
    "resize-nearest": (
        lambda image: scores(keras.ops.image.resize(conv(image), (32, 32), interpolation="nearest")),
        {"nearest-upsampling"},
    ),
    "dense": (lambda image: layers.Dense(40)(layers.Flatten()(conv(image, 16))), {"large-dense"}),
    "yolo": (yolo, {"concat-meanings"}),
    "yolo-of-scales": (yolo_of_scales, {"concat-meanings"}),
    "yolo-of-one-sigmoid": (yolo_of_one_sigmoid, {"concat-meanings"}),
    "yolo-nested": (yolo_in_a_nested_model, {"concat-meanings"}),
    "logits-beside-boxes": (logits_beside_boxes, {"concat-meanings"}),
}
"""Name → what it makes of a picture, and the rules that its layers break."""

FILES: dict[str, tuple[str, str, set[str]]] = {
    "plain": ("plain", "int8", set()),
    "bilinear": ("bilinear", "int8", set()),
    "squeeze-and-excite": ("squeeze-and-excite", "int8", set()),
    "heads-of-scales": ("heads-of-scales", "int8", set()),
    "silu": ("silu", "int8", {"swish"}),
    "relu6-times": ("relu6-times", "int8", {"hard-swish", "split-delegate"}),
    "gelu": ("gelu", "int8", {"split-delegate"}),
    "gelu-float": ("gelu", "float32", set()),
    "layer-norm": ("layer-norm", "int8", {"float-inside", "split-delegate"}),
    "nearest": ("nearest", "int8", {"nearest-upsampling", "split-delegate"}),
    "dense-float16": ("dense", "float16", {"large-dense"}),
    "yolo-of-scales": ("yolo-of-scales", "int8", {"concat-meanings"}),
    "logits-beside-boxes": ("logits-beside-boxes", "float32", {"concat-meanings"}),
    "per-tensor": ("plain", "per-tensor", {"per-tensor-weights"}),
    "dynamic-range": ("layer-norm", "dynamic", set()),
}
"""Name → model, how it is converted, and the rules that the file breaks."""


def build(make: Build) -> Any:
    image = keras.Input((32, 32, 3), batch_size=1, name="image")
    return keras.Model(image, make(image))


def converted(model: Any, how: str) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if how != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if how == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if how in {"int8", "per-tensor"}:
        pictures = np.random.default_rng(0).random((4, 1, 32, 32, 3), np.float32)
        converter.representative_dataset = lambda: ([picture] for picture in pictures)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter._experimental_disable_per_channel = how == "per-tensor"
    return bytes(converter.convert())


def save_flex(folder: Path) -> None:
    """A SavedModel with a step that only TensorFlow has."""
    import tensorflow as tf

    module = tf.Module()
    signature = [tf.TensorSpec((1, 8, 8, 3), tf.float32, name="image")]
    module.serve = tf.function(lambda image: {"p": tf.linalg.inv(image[..., 0])}, input_signature=signature)
    tf.saved_model.save(module, str(folder), signatures=module.serve)


def main(folder: Path) -> None:
    makers = {name: make for name, (make, _) in MODELS.items()} | {"relu6-times": relu6_times}
    for name, (model, how, _) in FILES.items():
        (folder / f"{name}.tflite").write_bytes(converted(build(makers[model]), how))
    save_flex(folder / "flex")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
