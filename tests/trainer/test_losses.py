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

    scores = {"scores": tf.constant([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05]])}
    plain = np.ones(3, np.float32)
    right, wrong = (
        classifier_loss(scores, np.eye(3, dtype=np.float32)[ids], smoothing=0.05, class_weights=plain)
        for ids in ([0, 0], [1, 2])
    )
    assert float(right["loss"]) < float(wrong["loss"])
    assert (float(right["error"]), float(wrong["error"])) == (0.0, 1.0)
    heavy = np.array([1, 3, 1], np.float32)
    one = np.eye(3, dtype=np.float32)[[1, 1]]
    light_loss, heavy_loss = (
        float(classifier_loss(scores, one, smoothing=0.0, class_weights=weights)["loss"]) for weights in (plain, heavy)
    )
    assert heavy_loss == pytest.approx(3 * light_loss, rel=1e-5)


def test_who_answers_as_the_teachers_do_has_nothing_to_learn() -> None:
    import tensorflow as tf

    from tinysight_trainer.losses import classifier_teaching, detector_teaching

    scores = {"scores": tf.constant([[0.7, 0.2, 0.1]])}
    assert float(classifier_teaching(scores, scores)) == pytest.approx(0, abs=1e-6)
    assert float(classifier_teaching({"scores": tf.constant([[0.1, 0.2, 0.7]])}, scores)) > 0.1
    t = drawn()
    seen = {"heatmap": tf.constant(t.heat * 0.9), "box": tf.constant(t.box)}
    assert float(detector_teaching(seen, seen)) == pytest.approx(0, abs=5e-3)  # what the clipping of logarithms leaves
    moved = {"heatmap": seen["heatmap"], "box": seen["box"] + 1.0}
    assert float(detector_teaching(moved, seen)) > 1.0
