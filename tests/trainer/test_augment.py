"""What varies a picture moves its boxes with it, and mixes answers as it mixes pictures."""

from typing import Any

import numpy as np
import pytest

from tinysight_trainer.augment import Boxes, blend, cut_boxes, mosaic, vary
from tinysight_trainer.config import Config, make_config

NOTHING = (np.empty((0, 4), np.float32), np.empty(0, np.int32), np.empty(0, bool))


def config(task: str = "detect", **given: Any) -> Config:
    return make_config(given, task=task, source="test")


def square() -> tuple[np.ndarray, Boxes]:
    image = np.zeros((1, 96, 128, 3), np.uint8)
    image[:, 30:60, 40:80] = 255
    return image, (np.array([[40, 30, 80, 60]], np.float32), np.zeros(1, np.int32), np.zeros(1, bool))


def around(image: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(image.max(2) > 140)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_varying_a_picture_moves_its_boxes_with_it(flip: float) -> None:
    for seed in range(20):
        images, shown = square()
        ((boxes, _, _),) = vary(images, [shown], config(flip=flip), np.random.default_rng(seed), turn=True)
        want = around(images[0])
        assert np.allclose((boxes[0, :2] + boxes[0, 2:]) / 2, (want[:2] + want[2:]) / 2, atol=2.0)
        assert np.allclose(boxes[0], want, atol=5.0)


def test_without_turns_boxes_are_exact_to_a_pixel() -> None:
    for seed in range(20):
        images, shown = square()
        ((boxes, _, _),) = vary(images, [shown], config(flip=0.5), np.random.default_rng(seed), turn=False)
        assert np.allclose(boxes[0], around(images[0]), atol=1.01)


def test_nothing_varies_when_nothing_is_to_vary() -> None:
    still: dict[str, Any] = dict.fromkeys(("zoom", "stretch", "shift", "turn", "slant", "light", "tint", "noise"), 0.0)
    images, shown = square()
    before = images.copy()
    ((boxes, _, _),) = vary(images, [shown], config(**still), np.random.default_rng(0), turn=True)
    assert np.array_equal(images, before)
    assert np.allclose(boxes, shown[0])


def test_grey_pictures_stay_grey_and_of_their_shape() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.uint8)
    vary(images, [NOTHING] * 3, config("classify", blur=1.0, color="GRAY"), np.random.default_rng(0), turn=True)
    assert images.shape == (3, 28, 28, 1)


def test_what_is_mostly_cut_away_is_not_to_be_named() -> None:
    boxes = np.array([(-20, 10, 10, 40), (-2, 10, 28, 40)], np.float32)
    inside, crowd = cut_boxes(boxes, np.zeros(2, bool), 128, 96)
    assert inside.tolist() == [[0, 10, 10, 40], [0, 10, 28, 40]]
    assert crowd.tolist() == [True, False]


def test_a_mosaic_holds_four_pictures_and_their_boxes() -> None:
    rng = np.random.default_rng(0)
    images, shown = [], []
    for class_id in range(4):
        image, (boxes, _, crowd) = square()
        images.append(image[0])
        shown.append((boxes, np.array([class_id], np.int32), crowd))
    made, (boxes, class_ids, crowd) = mosaic(images, shown, rng)
    assert class_ids.tolist() == [0, 1, 2, 3]
    assert not crowd.any()
    for x1, y1, x2, y2 in boxes:
        inner = made[round(y1) + 1 : round(y2) - 1, round(x1) + 1 : round(x2) - 1]
        assert inner.min() > 200
    total = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes)
    assert (made.max(2) > 127).sum() == pytest.approx(total, rel=0.1)


@pytest.mark.parametrize("how", ["mixup", "cutmix"])
def test_a_blend_mixes_answers_as_it_mixes_pictures(how: str) -> None:
    images = np.zeros((8, 20, 20, 3), np.uint8)
    images[4:] = 200
    wanted = np.zeros((8, 2), np.float32)
    wanted[:4, 0] = wanted[4:, 1] = 1.0
    blend(images, wanted, config("classify", **{how: 1.0}), np.random.default_rng(3))
    assert np.allclose(wanted.sum(1), 1.0)
    assert np.allclose(images.mean((1, 2, 3)) / 200, wanted[:, 1], atol=0.01)
    assert ((wanted > 0.05) & (wanted < 0.95)).any()
