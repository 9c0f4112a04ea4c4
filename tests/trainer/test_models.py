"""The models keep the promises that int8 and the decoder rely on."""

from typing import Any

import pytest

from tinysight_trainer.config import Config, make_config
from tinysight_trainer.models import STRIDE, build_model


def config(task: str, **given: Any) -> Config:
    return make_config(given, task=task, source="test")


@pytest.mark.parametrize("scale", [0.25, 1.0, 1.5])
def test_the_detector_answers_on_its_grid_by_name(scale: float) -> None:
    model = build_model(config("detect", input="128x96", scale=scale), 4)
    shapes = {name: tuple(output.shape) for name, output in model.output.items()}
    assert shapes == {"heatmap": (None, 96 // STRIDE, 128 // STRIDE, 4), "box": (None, 96 // STRIDE, 128 // STRIDE, 4)}


def test_the_classifier_gives_scores_that_sum_to_one() -> None:
    import numpy as np

    model = build_model(config("classify", input="48x32", scale=0.25), 7)
    scores = model(np.zeros((2, 32, 48, 3), np.float32), training=False)["scores"]
    assert np.allclose(np.asarray(scores).sum(1), 1.0, atol=1e-5)


@pytest.mark.parametrize("kind", ["small", "medium"])
@pytest.mark.parametrize("task", ["detect", "classify"])
def test_nothing_inside_is_known_to_break_int8(task: str, kind: str) -> None:
    model = build_model(config(task, input="128x96", model=kind), 4)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not kinds & {"Concatenate", "DepthwiseConv2D", "LayerNormalization", "Activation", "Conv2DTranspose"}
    assert all(layer.max_value == 6.0 for layer in model.layers if type(layer).__name__ == "ReLU")
    assert all(layer.interpolation == "bilinear" for layer in model.layers if type(layer).__name__ == "UpSampling2D")


@pytest.mark.parametrize(
    ("size", "color", "last"),
    [("28x28", "GRAY", 7), ("32x32", "RGB", 8), ("64x64", "RGB", 8), ("96x96", "RGB", 6), ("160x160", "RGB", 10)],
)
def test_a_classifier_halves_as_long_as_the_map_is_worth_averaging(size: str, color: str, last: int) -> None:
    model = build_model(config("classify", input=size, color=color), 10)
    pooled = next(layer for layer in model.layers if type(layer).__name__ == "GlobalAveragePooling2D")
    assert pooled.input.shape[1:3] == (last, last)
    assert model.input.shape[-1] == (1 if color == "GRAY" else 3)


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_lite0_stands_on_what_imagenet_taught_it(task: str) -> None:
    import numpy as np

    model = build_model(config(task, model="lite0", input="96x64", freeze=True), 3)
    shapes = {name: tuple(output.shape[1:]) for name, output in model.output.items()}
    assert shapes == ({"heatmap": (8, 12, 3), "box": (8, 12, 4)} if task == "detect" else {"scores": (3,)})
    backbone = next(layer for layer in model.layers if layer.name != "image" and hasattr(layer, "layers"))
    assert not backbone.trainable_variables
    kernel = np.asarray(backbone.get_layer("stem_conv").kernel)
    assert kernel.std() > 0.1
    thawed = build_model(config(task, model="lite0", input="96x64"), 3)
    assert len(thawed.trainable_variables) > len(model.trainable_variables)
