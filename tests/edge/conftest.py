"""What several tests of the device share."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tinysight_edge.tracking.tracks import Tracks

Foot = tuple[float, float]


@pytest.fixture(scope="session")
def tracks() -> Callable[..., Tracks]:
    """Make `Tracks` of feet in pixels; boxes are 20 wide and 20 high. What is not given is plain."""

    def make(
        feet: dict[int, Foot],
        at_s: float,
        *,
        classes: Sequence[int] | None = None,
        started_s: float | Sequence[float] = 0.0,
        seen_s: Sequence[float] | None = None,
        first: dict[int, Foot] | None = None,
        score: float = 0.9,
        best: float = 0.9,
        median: float = 0.9,
        stationary: bool = False,
    ) -> Tracks:
        n, begun = len(feet), {**feet, **(first or {})}

        def boxes(at: Sequence[Foot]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            return np.array([(x - 10, y - 20, x + 10, y) for x, y in at], np.float32).reshape(n, 4)

        return Tracks(
            numbers=np.array(sorted(feet), np.int64),
            boxes_px=boxes([feet[number] for number in sorted(feet)]),
            scores=np.full(n, score, np.float32),
            median_scores=np.full(n, median, np.float32),
            best_scores=np.full(n, best, np.float32),
            class_ids=np.array(classes if classes is not None else [0] * n, np.int32),
            started_s=np.broadcast_to(np.asarray(started_s, np.float64), (n,)),
            seen_s=np.array(seen_s if seen_s is not None else [at_s] * n, np.float64),
            stationary=np.full(n, stationary),
            first_boxes_px=boxes([begun[number] for number in sorted(feet)]),
        )

    return make
