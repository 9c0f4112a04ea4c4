"""Tiles show what the box holds; charts take any figures."""

import cv2
import numpy as np
import pytest

from tinysight_contract.errors import ShapeError
from tinysight_converters.run import BoxPx
from tinysight_trainer.data.sheets import (
    GAP_PX,
    class_colour,
    count_chart,
    crop_tile,
    frame_tile,
    jpeg,
    place_chart,
    sheet,
    size_chart,
    whole_tile,
)

WHITE = (255, 255, 255)


def scene() -> np.ndarray:
    """Black, with a white square from (60, 40) to (80, 60)."""
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:60, 60:80] = 255
    return image


def test_a_crop_has_its_box_in_the_middle_and_a_margin_around() -> None:
    tile = crop_tile(scene(), (60, 40, 80, 60), 64)
    assert tile.shape == (64, 64, 3)
    assert tuple(tile[32, 32]) == WHITE
    assert all(tile[at].max() < 50 for at in ((2, 2), (2, 61), (61, 2), (61, 61)))


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((0, 0, 10, 10), id="in a corner"),
        pytest.param((-50, -50, 400, 400), id="larger than the picture"),
        pytest.param((500, 500, 510, 510), id="beyond it"),
        pytest.param((5, 5, 5, 5), id="without an extent"),
        pytest.param((-1e30, 0, 1e30, 1), id="absurd"),
        pytest.param(None, id="the whole picture"),
    ],
)
def test_any_box_makes_a_tile(box: BoxPx | None) -> None:
    assert crop_tile(scene(), box, 48).shape == (48, 48, 3)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (500, 1, 3)])
def test_any_picture_makes_a_tile(shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, np.uint8)
    assert crop_tile(image, None, 32).shape == (32, 32, 3)
    assert whole_tile(image, [((0, 0, 1, 1), "#ff0000")], 64).shape[1] == 64


def test_a_whole_picture_has_its_boxes_in_their_colours() -> None:
    tile = whole_tile(np.zeros((100, 200, 3), np.uint8), [((50, 20, 150, 80), "#ff0000")], 400)
    assert tile.shape == (200, 400, 3)
    blue, green, red = tile[100, 100].tolist()
    assert red > 200
    assert max(blue, green) < 50


def test_tiles_lie_in_rows() -> None:
    tiles = [np.full((10, 20, 3), 50 * number, np.uint8) for number in range(1, 5)]
    made = sheet(tiles, 3)
    assert made.shape == (2 * 10 + GAP_PX, 3 * 20 + 2 * GAP_PX, 3)
    assert [int(made[5, 10, 0]), int(made[5, 20 + GAP_PX, 0]), int(made[-1, 0, 0])] == [50, 100, 200]
    assert sheet(tiles[:1], 3).shape[1] == made.shape[1], "as wide with few"


@pytest.mark.parametrize("sizes", [pytest.param([], id="none"), pytest.param([4, 5], id="unlike ones")])
def test_a_sheet_of_unlike_tiles_is_refused(sizes: list[int]) -> None:
    with pytest.raises(ShapeError, match="Give tiles of one shape"):
        sheet([np.zeros((size, size, 3), np.uint8) for size in sizes], 2)


def test_the_edge_has_the_colour_of_the_split() -> None:
    framed = frame_tile(np.zeros((10, 10, 3), np.uint8), "#102030")
    assert framed[-1, 5].tolist() == [0x30, 0x20, 0x10]
    assert jpeg(framed).startswith(b"\xff\xd8")


def test_neighbouring_classes_have_colours_of_their_own() -> None:
    colours = [class_colour(number) for number in range(16)]
    assert len(set(colours)) == 16
    assert all(len(colour) == 7 for colour in colours)


@pytest.mark.parametrize("count", [0, 1, 500])
def test_charts_take_any_number_of_objects(count: int) -> None:
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.0, 300.0, (count, 2)).astype(np.float32)
    places = rng.uniform(-0.2, 1.2, (count, 2)).astype(np.float32)
    charts = [size_chart(sides, (128, 96), 8), place_chart(places, 9.0), count_chart({count: 3}, "objects")]
    for chart in charts:
        assert chart.startswith(b"\x89PNG")
        assert cv2.imdecode(np.frombuffer(chart, np.uint8), cv2.IMREAD_COLOR) is not None
