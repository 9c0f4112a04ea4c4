"""What zones, lines, rules and lives share: arrays with a row per track, in rising order of the tracks' numbers.

In: numbers and boxes of `Tracks`, label filters of the configuration.  Out: where rows went, feet, columns by class.
Keeps nothing.
"""

from collections.abc import Collection, Sequence
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["carry", "classes_of", "feet_of", "rows_of"]

BELOW_ONE: Final = 1.0 - 1e-9  # a foot on the frame's lower or right edge is in a zone that reaches to that edge
T = TypeVar("T", bound=np.generic)


def rows_of(numbers: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.intp]:
    """The row of each number in ``among``, both rising; -1 where it is not there."""
    if not len(among):
        return np.full(len(numbers), -1, np.intp)
    at = np.minimum(np.searchsorted(among, numbers), len(among) - 1)
    return np.where(among[at] == numbers, at, -1)


def carry(values: NDArray[T], rows: NDArray[np.intp], fresh: float = 0) -> NDArray[T]:
    """``values`` (m, ...) as they stand in new rows (n,), each from an old row; ``fresh`` where that is -1."""
    carried = np.full((len(rows), *values.shape[1:]), fresh, values.dtype)
    kept = rows >= 0
    carried[kept] = values[rows[kept]]
    return carried


def feet_of(boxes_px: NDArray[np.float32], width: int, height: int) -> NDArray[np.float64]:
    """The middle of each box's lower edge: float64 (n, 3) of x, y in 0..1 of the frame, and 1.

    The one makes a signed distance to any straight edge a product of matrices. A foot beyond the frame is put on its
    edge.
    """
    feet = np.ones((len(boxes_px), 3))
    feet[:, 0] = (boxes_px[:, 0] + boxes_px[:, 2]) * (0.5 / width)
    feet[:, 1] = boxes_px[:, 3] / height
    np.minimum(feet[:, :2], BELOW_ONE, out=feet[:, :2])
    np.maximum(feet[:, :2], 0.0, out=feet[:, :2])
    return feet


def classes_of(names: Collection[str] | None, labels: Sequence[str]) -> NDArray[np.bool_]:
    """Which classes a filter lets pass: bool (classes,); all when there is none.

    A label that the model does not know lets nothing pass, since the model will never say it. `config` refuses a change
    that names one, and the runtime tells of those that a new model has left behind.

    Args:
        names: of labels, or None.
        labels: of the model, by class id.
    """
    return np.array([names is None or label in names for label in labels], np.bool_)
