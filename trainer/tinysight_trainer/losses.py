"""What a step tries to make small.

In: the model's outputs and the truth, as tensors.  Out: the loss and its parts, as scalars.
"""

from typing import Any, Final

import tensorflow as tf

__all__ = ["classifier_loss", "detector_loss"]

IDLE_SHARE: Final = 0.1  # cells without an object answer near zero, so that int8 spends its 256 steps on real boxes
SMOOTHING: Final = 0.05
EPSILON: Final = 1e-5


def detector_loss(outputs: dict[str, Any], truth: tuple[Any, Any, Any, Any]) -> dict[str, Any]:
    """Penalty-reduced focal loss of the heat map, L1 of the boxes (X. Zhou et al., arXiv 1904.07850, section 3).

    Args:
        outputs: ``heatmap`` (b, h, w, labels) after its sigmoid, ``box`` (b, h, w, 4).
        truth: heat, heat weight, box and box weight, as in ``targets.Targets``.
    """
    heat, heat_weight, box, box_weight = truth
    p = tf.clip_by_value(outputs["heatmap"], EPSILON, 1 - EPSILON)
    centre = tf.cast(heat >= 1.0, tf.float32)
    found = -centre * tf.square(1 - p) * tf.math.log(p)
    quiet = -(1 - centre) * tf.pow(1 - heat, 4.0) * tf.square(p) * tf.math.log(1 - p)
    objects = tf.maximum(tf.reduce_sum(centre), 1.0)
    heat_loss = tf.reduce_sum((found + quiet) * heat_weight) / objects
    box_loss = tf.reduce_sum(tf.abs(outputs["box"] - box) * box_weight) / objects
    idle = tf.reduce_mean(tf.abs(outputs["box"]) * tf.cast(box_weight == 0, tf.float32))
    return {"loss": heat_loss + box_loss + IDLE_SHARE * idle, "heat": heat_loss, "box": box_loss}


def classifier_loss(outputs: dict[str, Any], class_ids: Any) -> dict[str, Any]:  # noqa: ANN401 -- tensors have no types
    """Cross-entropy with smoothed labels (C. Szegedy et al., arXiv 1512.00567, section 7), and the error rate.

    Args:
        outputs: ``scores`` (b, labels) after their softmax.
        class_ids: (b,) integers.
    """
    scores = outputs["scores"]
    labels = scores.shape[-1]
    wanted = tf.one_hot(class_ids, labels) * (1 - SMOOTHING) + SMOOTHING / labels
    loss = -tf.reduce_mean(tf.reduce_sum(wanted * tf.math.log(tf.maximum(scores, EPSILON)), -1))
    wrong = tf.cast(tf.argmax(scores, -1) != tf.cast(class_ids, tf.int64), tf.float32)
    return {"loss": loss, "error": tf.reduce_mean(wrong)}
