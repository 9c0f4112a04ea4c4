"""The loss is small where the answer is right, and does not look where nothing counts."""

import numpy as np
import pytest

from tinysight_trainer.targets import Grid, Targets, encode, stack

GRID = Grid(12, 16, 3, 8)


def drawn() -> Targets:
    boxes = np.array([(10, 10, 40, 50), (70, 20, 110, 60), (0, 70, 30, 96)], np.float32)
    return stack([encode(boxes, np.array([0, 1, 2], np.int32), np.array([False, False, True]), GRID)])


def loss(heat: np.ndarray, box: np.ndarray) -> dict[str, float]:
    import tensorflow as tf

    from tinysight_trainer.losses import detector_loss

    t = drawn()
    outputs = {"heatmap": tf.constant(heat, tf.float32), "box": tf.constant(box, tf.float32)}
    truth = tuple(tf.constant(part) for part in (t.heat, t.heat_weight, t.box, t.box_weight))
    return {name: float(value) for name, value in detector_loss(outputs, truth).items()}


def test_the_right_answer_costs_next_to_nothing() -> None:
    t = drawn()
    right = loss(np.where(t.heat >= 1, 1.0, 0.0), t.box)
    assert right["box"] == 0
    assert right["heat"] < 0.01
    assert loss(np.full_like(t.heat, 0.1), t.box + 1)["loss"] > 1.5


def test_boxes_far_from_any_object_are_not_wrong_but_kept_small() -> None:
    t = drawn()
    quiet, loud = (loss(t.heat, np.where(t.box_weight > 0, t.box, far)) for far in (0.0, 9.0))
    assert quiet["box"] == loud["box"] == 0
    assert loud["loss"] > quiet["loss"]


def test_anything_may_be_said_of_a_crowd() -> None:
    t = drawn()
    said = np.where((t.heat_weight == 0) | (t.heat >= 1), 1.0, 0.0)
    assert loss(said, t.box)["heat"] == pytest.approx(loss(np.where(t.heat >= 1, 1.0, 0.0), t.box)["heat"], abs=1e-3)


def test_a_classifiers_loss_falls_with_the_right_class_and_its_error_is_a_rate() -> None:
    import tensorflow as tf

    from tinysight_trainer.losses import classifier_loss

    scores = tf.constant([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05]])
    right, wrong = (classifier_loss({"scores": scores}, tf.constant(ids)) for ids in ([0, 0], [1, 2]))
    assert float(right["loss"]) < float(wrong["loss"])
    assert (float(right["error"]), float(wrong["error"])) == (0.0, 1.0)
