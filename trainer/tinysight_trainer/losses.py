"""What a step tries to make small.

In: the model's outputs and the truth, as tensors; perhaps what the teachers answer.  Out: the loss and its parts, as
scalars.
"""

from typing import Any, Final

import tensorflow as tf

__all__ = ["classifier_loss", "classifier_teaching", "detector_loss", "detector_teaching"]

IDLE_SHARE: Final = 0.1  # cells without an object answer near zero, so that int8 spends its 256 steps on real boxes
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


def detector_teaching(outputs: dict[str, Any], teachers: dict[str, Any]) -> Any:  # noqa: ANN401 -- tensors have no types
    """How far the answers are from the teachers': cross-entropy of heat, L1 of boxes where they see one."""
    heat = teachers["heatmap"]
    p = tf.clip_by_value(outputs["heatmap"], EPSILON, 1 - EPSILON)
    seen = tf.reduce_max(heat, -1, keepdims=True)
    objects = tf.maximum(tf.reduce_sum(tf.square(seen)), 1.0)
    entropy = -heat * tf.math.log(p) - (1 - heat) * tf.math.log(1 - p)
    least = -heat * tf.math.log(tf.clip_by_value(heat, EPSILON, 1)) - (1 - heat) * tf.math.log(
        tf.clip_by_value(1 - heat, EPSILON, 1)
    )
    boxes = tf.abs(outputs["box"] - teachers["box"]) * tf.square(seen)
    return (tf.reduce_sum(entropy - least) + tf.reduce_sum(boxes)) / objects


def classifier_loss(outputs: dict[str, Any], wanted: Any, *, smoothing: float, class_weights: Any) -> dict[str, Any]:  # noqa: ANN401 -- tensors have no types
    """Cross-entropy with smoothed labels (C. Szegedy et al., arXiv 1512.00567, section 7), and the error rate.

    Args:
        outputs: ``scores`` (b, labels) after their softmax.
        wanted: (b, labels), sums to one.
        smoothing: share of each label that is spread over all.
        class_weights: (labels,), how much each class counts; one on average.
    """
    scores = outputs["scores"]
    smooth = wanted * (1 - smoothing) + smoothing / scores.shape[-1]
    entropy = -tf.reduce_sum(smooth * tf.math.log(tf.maximum(scores, EPSILON)), -1)
    loss = tf.reduce_mean(entropy * tf.reduce_sum(wanted * class_weights, -1))
    wrong = tf.cast(tf.argmax(scores, -1) != tf.argmax(wanted, -1), tf.float32)
    return {"loss": loss, "error": tf.reduce_mean(wrong)}


def classifier_teaching(outputs: dict[str, Any], teachers: dict[str, Any]) -> Any:  # noqa: ANN401 -- tensors have no types
    """Divergence from the teachers' answers (G. Hinton et al., arXiv 1503.02531), at temperature one."""
    mine, theirs = (tf.clip_by_value(each["scores"], EPSILON, 1.0) for each in (outputs, teachers))
    return tf.reduce_mean(tf.reduce_sum(theirs * (tf.math.log(theirs) - tf.math.log(mine)), -1))
