"""What is followed in one camera's picture, as arrays: what the tracker hands to those who give it a meaning."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tracks"]


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """Objects that are believed, one row each, in rising order of their numbers. Nobody writes into the arrays.

    Attributes:
        numbers: int64 (n,), unique within their tracker and never used again.
        boxes_px: float32 (n, 4): x1 y1 x2 y2 of the last time it was seen, in frame pixels.
        scores: float32 (n,), 0..1, of the last detection.
        median_scores: float32 (n,), of the last detections (ten at most).
        best_scores: float32 (n,), the highest so far.
        class_ids: int32 (n,), what most of the evidence says.
        started_s: float64 (n,), source time of the first detection.
        seen_s: float64 (n,), source time of the last one.
        stationary: bool (n,), it has not moved for three seconds.
        first_boxes_px: float32 (n, 4): of the first detection, which came before it was believed.
    """

    numbers: NDArray[np.int64]
    boxes_px: NDArray[np.float32]
    scores: NDArray[np.float32]
    median_scores: NDArray[np.float32]
    best_scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    started_s: NDArray[np.float64]
    seen_s: NDArray[np.float64]
    stationary: NDArray[np.bool_]
    first_boxes_px: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, which: NDArray[Any]) -> "Tracks":
        """Some of them, by index or mask."""
        return Tracks(*(getattr(self, field.name)[which] for field in fields(self)))

    @classmethod
    def none(cls) -> "Tracks":
        """Not one."""
        return _NONE


_NONE = Tracks(
    np.empty(0, np.int64),
    np.empty((0, 4), np.float32),
    np.empty(0, np.float32),
    np.empty(0, np.float32),
    np.empty(0, np.float32),
    np.empty(0, np.int32),
    np.empty(0, np.float64),
    np.empty(0, np.float64),
    np.empty(0, np.bool_),
    np.empty((0, 4), np.float32),
)
