"""How a detector of some input size sees the boxes of a data set: which are too small, which fall together.

In: a `Dataset` and a width and height.  Out: `BoxFigures`. The frame is placed as the device places it. No I/O.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.manifest import Input
from tinysight_edge.preprocess import Fit
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.targets import STRIDE

__all__ = ["WORTH_SAYING", "BoxFigures", "box_figures", "larger_inputs"]

WORTH_SAYING: Final = 0.01  # shares above this come with advice
LARGER: Final = (1.5, 2.0, 3.0, 4.0)  # times the width and height
MAX_SIDE: Final = 1024
STEP: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class BoxFigures:
    """Boxes as one input size shows them; crowds are left out.

    Attributes:
        input_wh: the model's input in pixels.
        sides_px: float32 (n, 2), width and height in model pixels.
        centres: float32 (n, 2), in shares of the frame, x to the right and y down.
        too_small: share of the boxes that are narrower or lower than one cell.
        pairs: of objects of one class in one picture.
        same_cell_pairs: share of those pairs whose centres lie in the same cell.
        hidden: share of the objects that no cell is left for.
    """

    input_wh: tuple[int, int]
    sides_px: NDArray[np.float32]
    centres: NDArray[np.float32]
    too_small: float
    pairs: int
    same_cell_pairs: float
    hidden: float

    @property
    def fits(self) -> bool:
        """Whether next to no object is lost."""
        return self.too_small <= WORTH_SAYING and self.apart

    @property
    def apart(self) -> bool:
        """Whether next to no object is hidden by another."""
        return max(self.same_cell_pairs, self.hidden) <= WORTH_SAYING


def larger_inputs(input_wh: tuple[int, int]) -> list[tuple[int, int]]:
    """Inputs to compare with, of the same shape."""
    made = [(round(input_wh[0] * by / STEP) * STEP, round(input_wh[1] * by / STEP) * STEP) for by in LARGER]
    return [size for size in made if max(size) <= MAX_SIDE]


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    """All boxes but crowds, in the order of their picture's size.

    Attributes:
        frame_px: float32 (n, 4), x1 y1 x2 y2 in pixels of their picture.
        kin: int64 (n,), equal for objects of one class in one picture.
        sizes: the distinct sizes of pictures.
        ends: where in the rows each size ends.
    """

    frame_px: NDArray[np.float32]
    kin: NDArray[np.int64]
    sizes: list[tuple[int, int]]
    ends: NDArray[np.int64]


def box_figures(data: Dataset, inputs: Sequence[tuple[int, int]]) -> tuple[BoxFigures, ...]:
    """Boxes in the pixels of a model, for each width and height it may have."""
    held = _gathered(data)
    centres = np.concatenate(
        [
            np.empty((0, 2), np.float32),
            *((part[:, :2] + part[:, 2:]) / (2 * np.array(size, np.float32)) for size, part in _by_size(held)),
        ]
    )
    return tuple(_seen(held, centres, input_wh) for input_wh in inputs)


def _gathered(data: Dataset) -> _Boxes:
    ids = {label: index for index, label in enumerate(data.labels)}
    sides, kin = array("f"), array("q")
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, item in enumerate(data.items):
        by_size[item.width, item.height].append(number)
    ends = []
    for numbers in by_size.values():
        for number in numbers:
            for shown in data.items[number].shown:
                if shown.box is not None and not shown.crowd:
                    sides.extend(shown.box)
                    kin.append(number * len(ids) + ids[shown.label])
        ends.append(len(kin))
    frame = np.array(sides, np.float32).reshape(-1, 4)
    return _Boxes(frame, np.array(kin, np.int64), list(by_size), np.array(ends, np.int64))


def _by_size(held: _Boxes) -> Iterator[tuple[tuple[int, int], NDArray[np.float32]]]:
    start = 0
    for size, end in zip(held.sizes, held.ends.tolist(), strict=True):
        yield size, held.frame_px[start:end]
        start = end


def _seen(held: _Boxes, centres: NDArray[np.float32], input_wh: tuple[int, int]) -> BoxFigures:
    spec = Input(width=input_wh[0], height=input_wh[1])
    placed = [Fit.of(*size, spec).to_model(part) for size, part in _by_size(held)]
    model = np.concatenate([np.empty((0, 4), np.float32), *placed])
    sides = model[:, 2:] - model[:, :2]
    cells = np.floor((model[:, :2] + model[:, 2:]) / (2 * STRIDE)).clip(0, MAX_SIDE - 1).astype(np.int64)
    together = _group_sizes(held.kin)
    crowded = _group_sizes((held.kin * MAX_SIDE + cells[:, 0]) * MAX_SIDE + cells[:, 1])
    pairs, same = (int((count * (count - 1) // 2).sum()) for count in (together, crowded))
    return BoxFigures(
        input_wh=input_wh,
        sides_px=sides,
        centres=centres,
        too_small=float((sides.min(1) < STRIDE).mean()) if len(sides) else 0.0,
        pairs=pairs,
        same_cell_pairs=same / pairs if pairs else 0.0,
        hidden=1 - len(crowded) / len(sides) if len(sides) else 0.0,
    )


def _group_sizes(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many keys are equal, for each distinct key."""
    return np.asarray(np.unique(keys, return_counts=True)[1], np.int64)
