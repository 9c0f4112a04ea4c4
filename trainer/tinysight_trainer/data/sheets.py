"""Contact sheets and charts of a data set.

In: decoded pictures, boxes, figures.  Out: tiles, JPEG sheets of them, PNG charts. No text from a data set is drawn:
OpenCV writes ASCII only and matplotlib reads mathematics between dollar signs, so names belong into the page.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import cv2
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tinysight_contract.errors import ShapeError
from tinysight_converters.drawing import chart, png
from tinysight_converters.run import BoxPx

__all__ = [
    "SPLIT_COLOURS",
    "class_colour",
    "count_chart",
    "crop_tile",
    "frame_tile",
    "jpeg",
    "missing_tile",
    "place_chart",
    "sheet",
    "size_chart",
    "whole_tile",
]

Image = NDArray[np.uint8]

SPLIT_COLOURS: Final = {
    "train": "#2f81f7",
    "calibration": "#d4a72c",
    "test": "#d6409f",
    "unsplit": "#8b949e",
    "unlabelled": "#8b949e",
}
INK: Final = "#57606a"
WARNING: Final = "#d1242f"
GROUND: Final = 40  # grey around and between pictures
GAP_PX: Final = 4
EDGE_PX: Final = 4
MARGIN: Final = 0.3  # of the larger side of a box, on each side of it
LEAST_CROP_PX: Final = 12
QUALITY: Final = 85
HUE_STEP: Final = 0.618034  # the golden ratio: neighbours differ most
MAX_BINS: Final = 48


def class_colour(class_id: int) -> str:
    """A colour for each class, as #rrggbb; it comes back only after many."""
    hue = round((class_id * HUE_STEP % 1.0) * 179)
    value = 255 if class_id // 8 % 2 == 0 else 190
    blue, green, red = cv2.cvtColor(np.array([[[hue, 220, value]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
    return f"#{red:02x}{green:02x}{blue:02x}"


def _bgr(colour: str) -> tuple[int, int, int]:
    return int(colour[5:7], 16), int(colour[3:5], 16), int(colour[1:3], 16)


def jpeg(image: Image) -> bytes:
    """A picture's file."""
    return bytes(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[1])


def _placed(image: Image, size: int) -> tuple[Image, float, int, int]:
    """In the middle of a square tile; with the scale and where its left upper corner came to lie."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    out = np.full((size, size, 3), GROUND, np.uint8)
    x, y = (size - inner[0]) // 2, (size - inner[1]) // 2
    out[y : y + inner[1], x : x + inner[0]] = cv2.resize(image, inner, interpolation=way)
    return out, scale, x, y


def crop_tile(image: Image, box: BoxPx | None, size: int) -> Image:
    """What a box holds, with some of what is around it; without a box the whole picture.

    Args:
        image: (H, W, 3) uint8 BGR.
        box: x1 y1 x2 y2 in its pixels; it may reach beyond the picture.
        size: of the square tile.
    """
    if box is None:
        return _placed(image, size)[0]
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    side = max(max(x2 - x1, y2 - y1) * (1 + 2 * MARGIN), LEAST_CROP_PX)
    from_x, right = _span((x1 + x2) / 2, side, width)
    from_y, bottom = _span((y1 + y2) / 2, side, height)
    out, scale, pad_x, pad_y = _placed(image[from_y:bottom, from_x:right], size)
    _outline(out, [(at - start) * scale + pad for at, start, pad in _corners(box, from_x, from_y, pad_x, pad_y)])
    return out


def _span(middle: float, side: float, size: int) -> tuple[int, int]:
    """Pixels around a middle, moved into the picture: as many as there are."""
    side = min(round(side), size)
    start = min(max(round(middle - side / 2), 0), size - side)
    return start, start + side


def _corners(box: BoxPx, from_x: int, from_y: int, pad_x: int, pad_y: int) -> list[tuple[float, int, int]]:
    return [(at, (from_x, from_y)[n % 2], (pad_x, pad_y)[n % 2]) for n, at in enumerate(box)]


def _outline(image: Image, box: Sequence[float], colour: str = "#ffffff", thick: int = 1) -> None:
    """Draw a rectangle that is seen on any ground; the image is changed."""
    x1, y1, x2, y2 = (round(min(max(at, -1e6), 1e6)) for at in box)
    cv2.rectangle(image, (x1, y1), (x2, y2), (0, 0, 0), thick + 2, cv2.LINE_AA)
    cv2.rectangle(image, (x1, y1), (x2, y2), _bgr(colour), thick, cv2.LINE_AA)


def whole_tile(image: Image, boxes: Sequence[tuple[BoxPx, str]], width: int) -> Image:
    """A whole picture, ``width`` wide, with its boxes in a colour each."""
    scale = width / image.shape[1]
    height = max(1, min(round(image.shape[0] * scale), 4 * width))
    out = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    for box, colour in boxes:
        _outline(out, [at * scale for at in box], colour)
    return out


def missing_tile(size: int) -> Image:
    """In place of a picture that cannot be read: crossed out."""
    out = np.full((size, size, 3), 2 * GROUND, np.uint8)
    cv2.line(out, (0, 0), (size, size), _bgr(WARNING), 2, cv2.LINE_AA)
    cv2.line(out, (0, size), (size, 0), _bgr(WARNING), 2, cv2.LINE_AA)
    return out


def frame_tile(tile: Image, colour: str) -> Image:
    """The tile with a coloured edge below it, which tells its split."""
    return np.asarray(cv2.copyMakeBorder(tile, 0, EDGE_PX, 0, 0, cv2.BORDER_CONSTANT, value=_bgr(colour)), np.uint8)


def sheet(tiles: Sequence[Image], columns: int) -> Image:
    """Tiles of one shape in rows, (H, W, 3) uint8 BGR; as wide as ``columns`` tiles, however few there are.

    Raises:
        ShapeError: there are none, or their shapes differ.
    """
    shapes = {tile.shape for tile in tiles}
    if len(shapes) != 1 or columns < 1:
        raise ShapeError(
            f"A sheet of {columns} columns got tiles of {len(shapes)} shapes.", mend="Give tiles of one shape."
        )
    height, width, _ = tiles[0].shape
    rows = -(-len(tiles) // columns)
    out = np.full((rows * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX, 3), GROUND, np.uint8)
    for number, tile in enumerate(tiles):
        y, x = number // columns * (height + GAP_PX), number % columns * (width + GAP_PX)
        out[y : y + height, x : x + width] = tile
    return out


def count_chart(counts: Mapping[int, int], below: str) -> bytes:
    """How many pictures have so many of something; ``below`` is ours, not from a data set."""
    figure, axis = chart(5.2, 3.4)
    most = max(counts, default=0)
    width = max(1, -(-(most + 1) // MAX_BINS))
    held = np.zeros(most // width + 1)
    for value, count in counts.items():
        held[value // width] += count
    axis.bar(np.arange(len(held)) * width + (width - 1) / 2, held, 0.85 * width, color=SPLIT_COLOURS["train"])
    axis.grid(axis="y", alpha=0.25)
    axis.set(xlabel=below, ylabel="pictures")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.yaxis.get_major_locator().set_params(integer=True)
    return png(figure)


def size_chart(sides_px: NDArray[np.float32], input_wh: tuple[int, int], stride: int) -> bytes:
    """How many boxes are so wide and high, in model pixels, both axes by powers of two; a line at one cell."""
    figure, axis = chart(5.2, 4.2)
    axis.grid(visible=False)
    low = min(2.0, float(np.floor(sides_px.min()))) if len(sides_px) else 2.0
    span = max(low, 0.5), float(max(input_wh)) * 1.1
    edges = np.geomspace(*span, 49)
    inside = np.clip(sides_px, edges[0], edges[-1])
    counts, _, _ = np.histogram2d(inside[:, 0], inside[:, 1], bins=(edges, edges))
    axis.axvspan(span[0], stride, color=WARNING, alpha=0.08, linewidth=0)
    axis.axhspan(span[0], stride, color=WARNING, alpha=0.08, linewidth=0)
    axis.axvline(stride, color=WARNING, linewidth=1)
    axis.axhline(stride, color=WARNING, linewidth=1)
    most = max(float(counts.max()), 2.0)
    drawn = axis.pcolormesh(edges, edges, np.ma.masked_equal(counts.T, 0), cmap="viridis_r", norm=LogNorm(1, most))
    figure.colorbar(drawn, ax=axis, label="boxes", shrink=0.7)
    ticks = [2**n for n in range(11) if span[0] <= 2**n <= span[1]]
    axis.set(xscale="log", yscale="log", xlim=span, ylim=span, aspect="equal")
    axis.set(xlabel="width in model pixels", ylabel="height in model pixels")
    for each in (axis.xaxis, axis.yaxis):
        each.set_ticks(ticks, [str(tick) for tick in ticks])
        each.set_ticks([], minor=True)
    axis.text(stride * 1.06, span[1] * 0.97, f"one cell: {stride}", color=WARNING, fontsize=8, va="top")
    return png(figure)


def place_chart(centres: NDArray[np.float32], aspect: float) -> bytes:
    """Where in the frame objects are; ``aspect`` is the frame's width by its height."""
    aspect = min(max(aspect, 0.4), 3.0)
    figure = Figure(figsize=(5.2, min(max(4.4 / aspect, 2.0), 5.0)), layout="constrained")
    axis = figure.subplots()
    bins = (round(24 * min(aspect, 1.0)), round(24 / max(aspect, 1.0)))
    inside = np.clip(centres, 0.0, 1.0)
    counts, _, _ = np.histogram2d(inside[:, 1], inside[:, 0], bins=bins[::-1], range=((0, 1), (0, 1)))
    drawn = axis.imshow(counts, extent=(0, aspect, 1, 0), cmap="Blues", vmin=0, interpolation="nearest")
    figure.colorbar(drawn, ax=axis, label="objects", shrink=0.7)
    axis.set_xticks([0, aspect / 2, aspect], ["left", "middle", "right"])
    axis.set_yticks([0, 0.5, 1], ["top", "middle", "bottom"])
    axis.tick_params(length=0, labelcolor=INK)
    return png(figure)
