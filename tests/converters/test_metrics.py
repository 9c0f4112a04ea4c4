"""Figures mean what they say, checked on cases small enough to know by hand."""

import numpy as np
import pytest

from tinysight_converters.metrics import above, agreement, average_precision, best_threshold, hits, is_right
from tinysight_converters.run import Example
from tinysight_edge.decode import Detections

Row = tuple[tuple[float, float, float, float], float, int]


def found(*rows: Row) -> Detections:
    boxes = np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([s for _, s, _ in rows], np.float32), np.array([c for *_, c in rows], np.int32))


def true(*rows: tuple[tuple[float, float, float, float], int, bool]) -> Example:
    return Example(
        name="x",
        sha256="0" * 64,
        boxes=[box for box, _, _ in rows],
        class_ids=[c for _, c, _ in rows],
        crowd=[crowd for *_, crowd in rows],
    )


A, B, FAR = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (50.0, 50.0, 60.0, 60.0)


@pytest.mark.parametrize(
    ("seen", "ap50"),
    [
        pytest.param(found((A, 0.9, 0), (B, 0.8, 1)), 1.0, id="all found"),
        pytest.param(found((A, 0.9, 0)), 0.5, id="one class missed"),
        pytest.param(found((A, 0.9, 1), (B, 0.8, 0)), 0.0, id="classes swapped"),
        pytest.param(found(), 0.0, id="nothing found"),
        pytest.param(found((A, 0.9, 0), (B, 0.8, 1), (FAR, 0.1, 0)), 1.0, id="a weak false alarm after all hits"),
        pytest.param(found((FAR, 0.95, 0), (A, 0.9, 0), (B, 0.8, 1)), 0.75, id="a strong false alarm"),
    ],
)
def test_average_precision(seen: Detections, ap50: float) -> None:
    assert average_precision([seen], [true((A, 0, False), (B, 1, False))], 2)[0] == pytest.approx(ap50, abs=0.01)


def test_a_crowd_is_neither_right_nor_wrong() -> None:
    truth = [true((A, 0, False), (B, 0, True))]
    for seen in (found((A, 0.9, 0)), found((B, 0.95, 0), (A, 0.9, 0))):
        assert average_precision([seen], truth, 1)[0] == pytest.approx(1.0)
        _, right, wanted = hits([seen], truth)
        assert (right.tolist(), wanted) == ([True], 1)


def test_a_second_detection_of_one_object_is_a_false_alarm() -> None:
    scores, right, _ = hits([found((A, 0.9, 0), (A, 0.8, 0))], [true((A, 0, False))])
    assert right.tolist() == [True, False]
    assert scores == pytest.approx([0.9, 0.8])


def test_the_threshold_keeps_the_hits_and_drops_the_false_alarms() -> None:
    seen = [found((A, 0.9, 0)), found((A, 0.7, 0)), found((FAR, 0.4, 0))]
    assert best_threshold(seen, [true((A, 0, False))] * 3) == pytest.approx(0.55), "half-way to the false alarm"
    assert best_threshold([found()], [true()]) == 0.3


def test_a_threshold_never_parts_equal_scores() -> None:
    hit, alarm = found((A, 0.5, 0)), found((FAR, 0.5, 0))
    seen = [found((A, 0.9, 0))] * 3 + [hit] + [alarm] * 6
    assert best_threshold(seen, [true((A, 0, False))] * len(seen)) == pytest.approx(0.7)


def test_only_what_lies_in_a_crowd_of_its_class_is_ignored() -> None:
    truth = [true((B, 0, True))]
    touching, other = found(((28.0, 8.0, 60.0, 40.0), 0.9, 0)), found((B, 0.9, 1))
    for seen, right in ((touching, [False]), (other, [False]), (found((B, 0.9, 0)), [])):
        assert hits([seen], truth)[1].tolist() == right


def test_agreement_is_one_for_the_same_and_falls_with_each_difference() -> None:
    one = [found((A, 0.9, 0), (B, 0.9, 1))]
    assert agreement(one, one) == 1.0
    assert agreement(one, [found((A, 0.9, 0))]) == pytest.approx(2 / 3)
    assert agreement(one, [found((A, 0.9, 0), (B, 0.9, 0))]) == 0.5
    assert agreement([above(one[0], 0.95)], [found()]) == 1.0, "two that say nothing agree"


def test_a_classifier_is_right_when_its_strongest_class_is_true() -> None:
    example = Example(name="x", sha256="0" * 64, boxes=[], class_ids=[1], crowd=[False])
    assert is_right(found((A, 0.4, 1)), example)
    assert not is_right(found((A, 0.9, 0)), example)
    assert not is_right(found(), example)
