"""Tiles cover the frame, boxes come back where they were, and each object is told once."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinysight_edge.config.types import TilesConfig
from tinysight_edge.decoders.boxes import Detections, iou_matrix
from tinysight_edge.tiles import Tile, join, lay_out

configs = st.builds(
    TilesConfig, columns=st.integers(1, 8), rows=st.integers(1, 8), overlap=st.floats(0.0, 0.5), whole=st.booleans()
)


def found(*boxes: tuple[float, float, float, float], scores: list[float] | None = None, label: int = 0) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.array(scores if scores is not None else [0.9] * n, np.float32),
        np.full(n, label, np.int32),
    )


@given(st.integers(1, 400), st.integers(1, 400), configs)
def test_every_pixel_is_in_a_tile_and_every_tile_in_the_frame(width: int, height: int, config: TilesConfig) -> None:
    tiles = lay_out(width, height, config)
    parts = tiles[:-1] if config.whole and len(tiles) > 1 else tiles
    covered = np.zeros((height, width), bool)
    image = np.zeros((height, width, 3), np.uint8)
    for tile in parts:
        assert 0 <= tile.x1 < tile.x2 <= width
        assert 0 <= tile.y1 < tile.y2 <= height
        assert tile.inner == (tile.x1 > 0, tile.y1 > 0, tile.x2 < width, tile.y2 < height)
        tile.view(covered)[:] = True
        assert np.shares_memory(tile.view(image), image)
    assert covered.all()
    assert len({(tile.x2 - tile.x1, tile.y2 - tile.y1) for tile in parts}) == 1, "of one size"


@given(st.integers(100, 4000), st.integers(2, 8), st.floats(0.0, 0.5))
def test_neighbours_overlap_by_at_least_what_is_asked(width: int, columns: int, overlap: float) -> None:
    tiles = lay_out(width, 100, TilesConfig(columns=columns, rows=1, overlap=overlap, whole=False))
    for left, right in pairwise(tiles):
        assert left.x2 - right.x1 >= overlap * (left.x2 - left.x1) - 1.5


@given(configs, st.lists(st.tuples(*[st.integers(0, 1000)] * 4), max_size=5), st.integers(0, 63))
def test_a_box_in_a_tile_is_where_it_was_in_the_frame(
    config: TilesConfig, corners: list[tuple[int, int, int, int]], which: int
) -> None:
    tiles = lay_out(1280, 720, config)
    tile = tiles[which % len(tiles)]
    inside = found(*corners)
    back = tile.in_frame(inside).boxes_px - np.array((tile.x1, tile.y1) * 2, np.float32)
    assert np.array_equal(back, inside.boxes_px)


@given(configs, st.integers(0, 89), st.integers(0, 159))
def test_a_cell_that_moves_moves_the_tiles_that_hold_it(config: TilesConfig, row: int, column: int) -> None:
    moving = np.zeros((90, 160), bool)
    moving[row, column] = True
    x, y = column * 8, row * 8
    for tile in lay_out(1280, 720, config):
        holds = tile.x1 < x + 8 and x < tile.x2 and tile.y1 < y + 8 and y < tile.y2
        assert tile.moves(moving, 1280, 720) == holds


def seen_in(tile: Tile, boxes: NDArray[np.float32]) -> Detections:
    """What a perfect detector finds in a tile: each object as far as it is in it, if a tenth of it is."""
    told = []
    for x1, y1, x2, y2 in boxes:
        cut = max(x1, tile.x1), max(y1, tile.y1), min(x2, tile.x2), min(y2, tile.y2)
        if cut[2] > cut[0] and cut[3] > cut[1]:
            share = (cut[2] - cut[0]) * (cut[3] - cut[1]) / ((x2 - x1) * (y2 - y1))
            if share > 0.1:
                told.append((cut, 0.5 + 0.4 * share))
    told.sort(key=lambda each: -each[1])
    return found(*(box for box, _ in told), scores=[score for _, score in told])


@given(
    st.integers(0, 1179), st.integers(0, 619), st.integers(30, 100), st.integers(30, 100), st.booleans(),
    st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.1, 0.2, 0.35]),
)  # fmt: skip
def test_an_object_anywhere_is_told_once_and_as_it_is(
    x: int, y: int, w: int, h: int, whole: bool, columns: int, rows: int, overlap: float
) -> None:
    truth = np.array([[x, y, x + w, y + h]], np.float32)
    tiles = lay_out(1280, 720, TilesConfig(columns=columns, rows=rows, overlap=overlap, whole=whole))
    told = join([(tile, seen_in(tile, truth)) for tile in tiles], iou=0.5)
    assert len(told) == 1
    assert np.allclose(told.boxes_px, truth)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_many_objects_that_do_not_touch_are_told_once_each(seed: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.permutation(12 * 7)[:20]
    corner = np.stack((cells % 12 * 105, cells // 12 * 100), 1) + rng.integers(0, 20, (20, 2))
    truth = np.concatenate((corner, corner + rng.integers(25, 75, (20, 2))), 1).astype(np.float32)
    tiles = lay_out(1280, 720, TilesConfig(columns=3, rows=2, overlap=0.25, whole=whole))
    told = join([(tile, seen_in(tile, truth)) for tile in tiles], iou=0.5)
    assert len(told) == 20
    assert (iou_matrix(told.boxes_px, truth).max(0) > 0.99).all()
    assert (np.diff(told.scores) <= 0).all()


LEFT = Tile(0, 0, 120, 100, (False, False, True, False))
RIGHT = Tile(100, 0, 220, 100, (True, False, False, False))
WHOLE = Tile(0, 0, 220, 100, (False,) * 4)


@pytest.mark.parametrize(
    ("parts", "boxes"),
    [
        pytest.param(
            [(LEFT, found((90, 10, 118, 40))), (RIGHT, found((102, 11, 125, 39), scores=[0.99]))],
            [(90, 10, 125, 40)], id="two halves, of which neither is whole",
        ),
        pytest.param(
            [(LEFT, found((80, 10, 120, 40), scores=[0.99])), (WHOLE, found((80, 10, 150, 40), scores=[0.4]))],
            [(80, 10, 150, 40)], id="a weak whole one wins against a strong part",
        ),
        pytest.param(
            [(LEFT, found((80, 10, 112, 40), scores=[0.8])), (RIGHT, found((100, 10, 112, 40), scores=[0.9]))],
            [(80, 10, 112, 40)], id="whole in one, a sliver in the other",
        ),
        pytest.param(
            [(LEFT, found((90, 10, 120, 40))), (RIGHT, found((100, 50, 125, 80)))],
            [(90, 10, 120, 40), (100, 50, 125, 80)], id="two objects, both cut, one above the other",
        ),
        pytest.param(
            [(LEFT, found((10, 10, 60, 60), scores=[0.9])), (WHOLE, found((20, 20, 40, 40), scores=[0.8]))],
            [(10, 10, 60, 60), (20, 20, 40, 40)], id="a small whole one in front of a large one",
        ),
    ],
)  # fmt: skip
def test_what_is_cut_at_an_edge(
    parts: list[tuple[Tile, Detections]], boxes: list[tuple[float, float, float, float]]
) -> None:
    assert join(parts, iou=0.5).boxes_px.tolist() == [list(map(float, box)) for box in boxes]


def test_classes_are_kept_apart_and_nothing_gives_nothing() -> None:
    twice = [(LEFT, found((90, 10, 118, 40))), (RIGHT, found((102, 10, 125, 40), label=1))]
    assert sorted(join(twice, iou=0.5).class_ids.tolist()) == [0, 1]
    assert len(join([], iou=0.5)) == len(join([(LEFT, found())], iou=0.5)) == 0


def test_an_object_across_three_tiles_is_one() -> None:
    tiles = lay_out(300, 100, TilesConfig(columns=3, rows=1, overlap=0.2, whole=False))
    truth = np.array([[20, 30, 280, 70]], np.float32)
    told = join([(tile, seen_in(tile, truth)) for tile in tiles], iou=0.5)
    assert told.boxes_px.tolist() == truth.tolist()
