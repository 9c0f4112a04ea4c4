"""The synthetic belt: every frame at any time, true boxes, splits that share nothing."""

import itertools

import numpy as np

from tinysight_edge.belt import Belt, digit_indices


def test_the_belt_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    one, again, other = (Belt(seed).frame(70) for seed in (5, 5, 6))
    assert np.array_equal(one[0], again[0])
    assert one[1] == again[1]
    assert not np.array_equal(one[0], other[0])


def test_any_frame_of_the_belt_can_be_drawn_at_any_time() -> None:
    forwards = Belt(5)
    played = [forwards.frame(i) for i in range(60)]
    assert np.array_equal(Belt(5).frame(59)[0], played[59][0])


def test_parcels_move_to_the_right_keep_their_label_and_leave() -> None:
    belt = Belt(5)
    paths: dict[int, list[tuple[float, int]]] = {}
    for i in range(400):
        for truth in belt.frame(i)[1]:
            if truth.box_px[0] > 0:
                paths.setdefault(truth.parcel, []).append((truth.box_px[0], truth.label))
    assert len(paths) > 15
    for steps in paths.values():
        assert len({label for _, label in steps}) == 1
        assert all(b >= a for (a, _), (b, _) in itertools.pairwise(steps))


def test_true_boxes_lie_within_the_frame_and_around_something() -> None:
    for seed in range(10):
        image, shown = Belt(seed).frame(100)
        assert image.shape == (240, 320, 3)
        assert image.dtype == np.uint8
        for truth in shown:
            x1, y1, x2, y2 = truth.box_px
            assert 0 <= x1 < x2 <= 320
            assert 0 <= y1 < y2 <= 240
            assert 0 <= truth.label <= 9


def test_the_splits_share_no_digit() -> None:
    train, calibration, test = (set(digit_indices(split)) for split in ("train", "calibration", "test"))
    assert not train & calibration
    assert not train & test
    assert not calibration & test
    assert len(train | calibration | test) == 1797


def test_the_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    from tinysight_edge.belt import _digits

    images, labels = _digits()
    real = load_digits()
    assert np.array_equal(images, real.images)
    assert np.array_equal(labels, real.target)
