"""What nobody may see is black, whichever way the picture is turned."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinysight_contract.errors import ConfigError, ShapeError
from tinysight_edge.cameras import orient as orient_module
from tinysight_edge.cameras.orient import Orient, touched
from tinysight_edge.config.types import CameraConfig

Corner = tuple[float, float]


def config(**given: Any) -> CameraConfig:
    return CameraConfig(source="0", **given)


def numbered(width: int, height: int) -> NDArray[np.uint8]:
    """A picture in which each pixel says where it is; none is black."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x + 1, y + 1, np.full_like(x, 255)], axis=2).astype(np.uint8)


def inside(x: float, y: float, polygon: list[Corner]) -> bool:
    """The slow, obvious oracle: how often the polygon winds around a point."""
    turns = 0
    for (x1, y1), (x2, y2) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        side = (x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)
        if y1 <= y < y2 and side > 0:
            turns += 1
        if y2 <= y < y1 and side < 0:
            turns -= 1
    return turns != 0


def near(x: float, y: float, polygon: list[Corner], reach: float) -> bool:
    """Whether a point is in the polygon or no farther than ``reach`` from an edge."""
    if inside(x, y, polygon):
        return True
    for start, end in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        a, b, point = np.array(start), np.array(end), np.array((x, y))
        along = b - a
        share = float(np.clip((point - a) @ along / (along @ along), 0, 1)) if along @ along > 0 else 0.0
        if float(np.linalg.norm(a + share * along - point)) <= reach:
            return True
    return False


shares = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
polygons = st.lists(st.tuples(shares, shares), min_size=3, max_size=6)


@settings(max_examples=60, deadline=None)
@given(polygon=polygons, width=st.integers(1, 24), height=st.integers(1, 18), dice=st.integers(0, 2**32 - 1))
def test_every_pixel_that_a_polygon_touches_is_black_and_none_that_it_is_far_from(
    polygon: list[Corner], width: int, height: int, dice: int
) -> None:
    mask = touched((tuple(polygon),), width=width, height=height)
    corners = [(x * width, y * height) for x, y in polygon]
    rng = np.random.default_rng(dice)
    for y in range(height):
        for x in range(width):
            if not mask[y, x]:
                points = rng.uniform((x, y), (x + 1, y + 1), (12, 2))
                assert not any(inside(px, py, corners) for px, py in points), (x, y)
            else:
                assert near(x + 0.5, y + 0.5, corners, 0.5**0.5 + 1e-3), (x, y)
    for x1, y1 in corners:  # and none that an edge passes, however thin the polygon is there
        assert mask[min(int(y1), height - 1), min(int(x1), width - 1)]
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        for share in rng.uniform(0, 1, 40):
            x, y = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
            assert mask[min(int(y), height - 1), min(int(x), width - 1)]


WAYS = [
    {},
    {"rotate": 90},
    {"rotate": 180, "flip": "vertical"},
    {"rotate": 270, "flip": "horizontal"},
    {"flip": "horizontal", "crop": (0.2, 0.1, 0.9, 0.8)},
    {"rotate": 90, "flip": "vertical", "crop": (0.25, 0.3, 1.0, 0.95)},
]


def turned(image: NDArray[np.uint8], way: dict[str, Any]) -> NDArray[np.uint8]:
    """The same by numpy alone: rotate clockwise, flip, crop."""
    image = np.rot90(image, -way.get("rotate", 0) // 90)
    image = {"horizontal": image[:, ::-1], "vertical": image[::-1]}.get(way.get("flip", ""), image)
    if "crop" in way:
        h, w = image.shape[:2]
        x1, y1, x2, y2 = (round(v, 6) for v in np.array(way["crop"]) * (w, h, w, h))
        image = image[int(np.ceil(y1)) : int(y2), int(np.ceil(x1)) : int(x2)]
    return image


@pytest.mark.parametrize("way", WAYS)
def test_masks_are_where_they_are_seen_after_turning_and_all_else_is_as_it_was(way: dict[str, Any]) -> None:
    privacy = (((0.1, 0.1), (0.6, 0.2), (0.3, 0.7)), ((0.8, 0.8), (1.0, 0.8), (1.0, 1.0), (0.8, 1.0)))
    orient = Orient(config(privacy=privacy, **way))
    for width, height in ((60, 40), (31, 57), (60, 40)):  # a stream may change its size
        raw = numbered(width, height)
        want = turned(raw.copy(), way)
        got = orient(raw.copy())
        assert got.shape == want.shape
        assert orient.size(width, height) == (got.shape[1], got.shape[0])
        mask = touched(privacy, width=got.shape[1], height=got.shape[0])
        assert orient.hidden is not None
        assert np.array_equal(orient.hidden, mask)
        assert 0.05 < mask.mean() < 0.6
        assert not got[mask].any(), "every hidden pixel is black"
        assert np.array_equal(got[~mask], want[~mask]), "no other is touched"


def test_nothing_is_copied_when_there_is_nothing_to_do() -> None:
    image = numbered(20, 10)
    assert Orient(config())(image) is image
    cropped = Orient(config(crop=(0.0, 0.0, 0.5, 0.5)))(image)
    assert np.shares_memory(cropped, image)
    assert Orient(config()).hidden is None


def test_a_picture_that_may_not_be_written_is_copied_and_masked() -> None:
    image = numbered(20, 10)
    image.flags.writeable = False
    black = Orient(config(privacy=(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),)))(image)
    assert not black.any()
    assert image.all()


def test_turned_pictures_that_somebody_holds_are_left_alone() -> None:
    orient = Orient(config(rotate=90))
    held = [orient(np.full((4, 6, 3), i, np.uint8)) for i in range(12)]
    assert [int(image[0, 0, 0]) for image in held] == list(range(12))


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_no_picture_is_refused(image: Any) -> None:
    with pytest.raises(ShapeError):
        Orient(config())(image)


def test_when_masking_fails_there_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(orient_module, "touched", fail)
    orient = Orient(config(privacy=(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)),)))
    for _ in range(2):
        with pytest.raises(MemoryError):
            orient(numbered(8, 8))


def test_an_empty_crop_is_refused_and_a_tiny_one_is_a_pixel() -> None:
    with pytest.raises(ConfigError, match="is empty"):
        Orient(config(crop=(0.5, 0.1, 0.5, 0.9)))
    tiny = Orient(config(crop=(0.501, 0.501, 0.502, 0.502)))
    assert tiny(numbered(10, 10)).shape == (1, 1, 3)
    assert cv2.countNonZero(tiny(numbered(10, 10))[:, :, 2]) == 1
