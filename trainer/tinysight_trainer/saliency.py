"""Where a model looked: a map of what its answer rests on.

In: a model and a fitted picture.  Out: a map (height, width) float32, 0..1. With a Keras model by gradients: Grad-CAM
for a classifier (R. Selvaraju et al., arXiv 1610.02391), and for one detection its element-wise form, HiResCAM (R.
Draelos and L. Carin, arXiv 2011.08891), because averaging a gradient over the picture would blur where a box rests.
With a bundle, which has no gradients, by covering one piece after another (M. Zeiler and R. Fergus, arXiv 1311.2901).
"""

from collections.abc import Callable
from typing import Any, Final

import cv2
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

__all__ = ["GradientSaliency", "covering_map", "overlay"]

PIECES: Final = 12  # along the longer side
FINE_STRIDE: Final = 4  # a detector's map is taken where a cell is no wider

SPREAD: Final = 1.0  # cells; single bright ones are hard to see
Floats = NDArray[np.float32]


class GradientSaliency:
    """Maps of one Keras model.

    Args:
        model: with the outputs ``scores``, or ``heatmap`` and ``box``.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 -- Keras has no types
        self._classify = "scores" in model.output
        self._features = _pooled(model) if self._classify else _fine(model)
        outputs = model.output["scores" if self._classify else "heatmap"]
        self._model = keras.Model(model.input, [self._features, outputs])

    def of(self, picture: NDArray[np.uint8], class_id: int, cell: tuple[int, int] | None = None) -> Floats:
        """Of one answer.

        Args:
            picture: as the model sees it, (height, width, channels).
            class_id: of the answer.
            cell: row and column in a detector's heat map.
        """
        image = tf.cast(picture[None], tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(image)
            features, answer = self._model(image, training=False)
            value = answer[0, class_id] if cell is None else answer[0, cell[0], cell[1], class_id]
            target = tf.math.log(tf.maximum(value, 1e-7))
        gradient = tape.gradient(target, features)
        weights = tf.reduce_mean(gradient, (1, 2), keepdims=True) if self._classify else gradient
        cam = tf.nn.relu(tf.reduce_sum(weights * features, -1))[0]
        sharp = np.asarray(tf.cast(cam, tf.float32))
        spread = sharp if self._classify else cv2.GaussianBlur(sharp, (0, 0), SPREAD)
        return _unit(np.asarray(spread), image.shape[1], image.shape[2])


def _pooled(model: Any) -> Any:  # noqa: ANN401 -- see above
    """What a classifier averages."""
    return next(layer.input for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D))


def _fine(model: Any) -> Any:  # noqa: ANN401 -- see above
    """The last map of a detector that is still fine; on a backbone, what its head sees."""
    height = model.input.shape[1]
    maps = [
        layer.output
        for layer in model.layers
        if isinstance(layer, keras.layers.ReLU) and layer.output.shape[1] * FINE_STRIDE >= height
    ]
    return maps[-1] if maps else model.get_layer("heatmap").input


def covering_map(
    score: Callable[[NDArray[np.uint8]], float], picture: NDArray[np.uint8], *, pieces: int = PIECES
) -> Floats:
    """How much an answer's score falls when a piece of the picture is covered with its mean.

    Args:
        score: of a fitted picture, 0..1.
        picture: (height, width, channels).
        pieces: along the longer side; each cover is two pieces wide.
    """
    height, width = picture.shape[:2]
    side = max(height, width) / pieces
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    mean = picture.reshape(-1, picture.shape[2]).mean(0).astype(np.uint8)
    whole = score(picture)
    fall = np.zeros((rows, columns), np.float32)
    for row in range(rows):
        for column in range(columns):
            covered = picture.copy()
            top, left = int((row - 0.5) * side), int((column - 0.5) * side)
            covered[max(top, 0) : int(top + 2 * side), max(left, 0) : int(left + 2 * side)] = mean
            fall[row, column] = max(whole - score(covered), 0.0)
    return _unit(fall, height, width)


def _unit(cam: NDArray[Any], height: int, width: int) -> Floats:
    """At the picture's size, its largest value one."""
    large = cv2.resize(cam.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    large = np.maximum(large, 0)
    return np.asarray(large / max(float(large.max()), 1e-9), np.float32)


def overlay(picture_bgr: NDArray[np.uint8], saliency: Floats) -> NDArray[np.uint8]:
    """The picture, grey where nothing rests on it and coloured where much does; (H, W, 3) BGR like the picture."""
    height, width = picture_bgr.shape[:2]
    strength = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    heat = cv2.applyColorMap((strength * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    grey = cv2.cvtColor(cv2.cvtColor(picture_bgr, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return np.asarray(np.clip(grey * (1 - 0.65 * strength) + heat * (0.65 * strength), 0, 255), np.uint8)
