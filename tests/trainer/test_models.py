"""The models keep the promises that int8 and the decoder rely on."""

import pytest

from tinysight_trainer.models import STRIDE, build_model


@pytest.mark.parametrize("scale", [0.25, 1.0, 1.5])
def test_the_detector_answers_on_its_grid_by_name(scale: float) -> None:
    model = build_model("detect", labels=4, height=96, width=128, scale=scale)
    shapes = {name: tuple(output.shape) for name, output in model.output.items()}
    assert shapes == {"heatmap": (None, 96 // STRIDE, 128 // STRIDE, 4), "box": (None, 96 // STRIDE, 128 // STRIDE, 4)}


def test_the_classifier_gives_scores_that_sum_to_one() -> None:
    import numpy as np

    model = build_model("classify", labels=7, height=32, width=48, scale=0.25)
    scores = model(np.zeros((2, 32, 48, 3), np.float32), training=False)["scores"]
    assert np.allclose(np.asarray(scores).sum(1), 1.0, atol=1e-5)


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_nothing_inside_is_known_to_break_int8(task: str) -> None:
    model = build_model(task, labels=4, height=96, width=128)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not kinds & {"Concatenate", "DepthwiseConv2D", "LayerNormalization", "Activation", "Conv2DTranspose"}
    assert all(layer.max_value == 6.0 for layer in model.layers if type(layer).__name__ == "ReLU")
    assert all(layer.interpolation == "bilinear" for layer in model.layers if type(layer).__name__ == "UpSampling2D")
