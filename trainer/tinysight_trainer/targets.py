"""What the model is to answer: the inverse of the device's decoder.

In: boxes in model pixels.  Out: the heat map, the boxes of its cells, and how much each cell counts.
`encode` followed by the edge's decoder gives the boxes back; a test holds that.
Sources: X. Zhou et al., Objects as Points, arXiv 1904.07850 (heat map, offset); Z. Liu et al., Training-Time-Friendly
Network, arXiv 1909.00700 (several cells around a centre learn its box).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRIDE", "Grid", "Targets", "encode", "stack"]

STRIDE: Final = 8  # model pixels per cell of every detector here

Floats = NDArray[np.float32]
MIN_SIGMA: Final = 0.45  # cells; below this only the centre cell itself would shine
SIGMA_PER_SIDE: Final = 0.11
BOX_FROM: Final = 0.3  # cells that shine at least this much learn the box


@dataclass(frozen=True, slots=True)
class Grid:
    """The detector's map.

    Attributes:
        height: in cells.
        width: in cells.
        labels: number of classes.
        stride: pixels per cell.
    """

    height: int
    width: int
    labels: int
    stride: int


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """For one picture, or stacked for several with a leading axis.

    Attributes:
        heat: float32 (h, w, labels), 1 at centres, falling off around them.
        heat_weight: float32 (h, w, 1), 0 where a crowd makes any answer right.
        box: float32 (h, w, 4): dx, dy, log w, log h in cells.
        box_weight: float32 (h, w, 1); sums to about one per object, however large.
    """

    heat: Floats
    heat_weight: Floats
    box: Floats
    box_weight: Floats


def encode(boxes_px: Floats, class_ids: NDArray[np.int32], crowd: NDArray[np.bool_], grid: Grid) -> Targets:
    """Draw the boxes of one picture.

    Args:
        boxes_px: (n, 4) x1 y1 x2 y2 in model pixels; those whose centre lies outside are left out.
        class_ids: (n,).
        crowd: (n,), regions that are neither right nor wrong.
        grid: the map.
    """
    heat = np.zeros((grid.height, grid.width, grid.labels), np.float32)
    heat_weight = np.ones((grid.height, grid.width, 1), np.float32)
    box = np.zeros((grid.height, grid.width, 4), np.float32)
    box_weight = np.zeros((grid.height, grid.width, 1), np.float32)
    claimed = np.zeros((grid.height, grid.width), np.float32)
    rows, columns = np.mgrid[0 : grid.height, 0 : grid.width].astype(np.float32)
    cells = boxes_px / np.float32(grid.stride)
    for x1, y1, x2, y2 in cells[crowd]:
        heat_weight[max(int(y1), 0) : int(np.ceil(y2)), max(int(x1), 0) : int(np.ceil(x2))] = 0.0
    for (x1, y1, x2, y2), class_id in zip(cells[~crowd], class_ids[~crowd], strict=True):
        cx, cy, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        column, row = int(cx), int(cy)
        if not (0 <= column < grid.width and 0 <= row < grid.height) or w <= 0 or h <= 0:
            continue
        spread = [2 * max(SIGMA_PER_SIDE * side, MIN_SIGMA) ** 2 for side in (w, h)]
        shine = np.exp(-((columns - column) ** 2) / spread[0] - (rows - row) ** 2 / spread[1])
        np.maximum(heat[..., class_id], shine, out=heat[..., class_id])
        mine = (shine >= BOX_FROM) & (shine > claimed)
        claimed[mine] = shine[mine]
        box[mine] = np.stack(
            (cx - columns, cy - rows, np.full_like(rows, np.log(w)), np.full_like(rows, np.log(h))), -1
        )[mine]
        box_weight[mine, 0] = shine[mine] / shine[mine].sum()
        heat_weight[row, column] = 1.0
    return Targets(heat, heat_weight, box, box_weight)


def stack(targets: list[Targets]) -> Targets:
    """Several pictures' targets with a leading axis."""
    return Targets(
        *(np.stack([getattr(each, name) for each in targets]) for name in ("heat", "heat_weight", "box", "box_weight"))
    )
