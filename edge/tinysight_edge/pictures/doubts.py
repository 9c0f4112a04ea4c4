"""Which pictures a model finds hard, and which of them are worth keeping for the next training.

In: one camera's detections and tracks after each frame.  Out: the reasons to keep this frame or the one before, and a
choice that spreads a small budget over reasons and cameras. Pure decisions: time comes in, pictures never do.

Uncertain scores, and answers that contradict each other from one frame to the next, are what active learning looks for:
B. Settles, Active Learning Literature Survey, 2009 (uncertainty); H. H. Aghdam et al., Active Learning for Deep
Detection Neural Networks, ICCV 2019 (neighbouring frames). The rules are ours.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.messages import FrameSize
from tinysight_edge.decode import Detections
from tinysight_edge.tracking.tracks import Tracks

__all__ = ["Doubts", "Reason", "Sampler"]

Reason = Literal["margin", "flicker", "count", "label"]

MARGIN: Final = 0.07  # of a score to the threshold
EDGE_SHARE: Final = 0.03  # of the frame; what is nearer to its edge may be coming or going
NEIGHBOUR_S: Final = 1.0  # frames further apart say nothing of each other
HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class _Before:
    """The frame before: its sure detections' boxes, and its tracks' numbers and classes."""

    at_s: float
    boxes_px: NDArray[np.float32]
    numbers: list[int]
    class_ids: list[int]


class Doubts:
    """What is odd about one camera's frames, each compared with the one before.

    Args:
        threshold: the score from which on a detection counts, 0..1.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._before: _Before | None = None
        self._missed: frozenset[int] = frozenset()

    def of(self, found: Detections, alive: Tracks, at_s: float, size: FrameSize) -> tuple[list[Reason], bool]:
        """Why this frame is hard, and whether the frame before was: an object missed there is seen again.

        Reasons: ``margin``, a score is near the threshold; ``label``, an object is now called otherwise; ``count``,
        something has appeared or vanished though nothing was near the edge; ``flicker`` is that of the frame before.
        """
        scores, threshold = found.scores.tolist(), self._threshold
        sure = sum(score >= threshold for score in scores)
        now = _Before(at_s, found.boxes_px[:sure], alive.numbers.tolist(), alive.class_ids.tolist())
        reasons: list[Reason] = []
        if any(abs(score - threshold) < MARGIN for score in scores):
            reasons.append("margin")
        before, missed = self._before, self._missed
        seen = alive.seen_s >= at_s
        flickered = bool(missed) and not missed.isdisjoint(alive.numbers[seen].tolist())
        self._before, self._missed = now, frozenset()
        if before is None or at_s - before.at_s > NEIGHBOUR_S:
            return reasons, False
        if len(now.boxes_px) != len(before.boxes_px) and _clear(now.boxes_px, size) and _clear(before.boxes_px, size):
            reasons.append("count")
        if _renamed(before, now):
            reasons.append("label")
        if not seen.all():
            last_seen = alive.numbers[~seen & (alive.seen_s >= before.at_s)]
            self._missed = frozenset(last_seen.tolist())
        return reasons, flickered

    @property
    def missing(self) -> bool:
        """An object that the last frame but this one showed was not found in this one: it may be hard."""
        return bool(self._missed)

    def forget(self) -> None:
        """The next frame has none before it."""
        self._before, self._missed = None, frozenset()


def _clear(boxes_px: NDArray[np.float32], size: FrameSize) -> bool:
    if not len(boxes_px):
        return True
    low, high = boxes_px.min(axis=0), boxes_px.max(axis=0)
    x, y = EDGE_SHARE * size.width, EDGE_SHARE * size.height
    return bool(low[0] > x and low[1] > y and high[2] < size.width - x and high[3] < size.height - y)


def _renamed(before: _Before, now: _Before) -> bool:
    if before.numbers == now.numbers:
        return before.class_ids != now.class_ids
    known = dict(zip(before.numbers, before.class_ids, strict=True))
    pairs = zip(now.numbers, now.class_ids, strict=True)
    return any(known.get(number, class_id) != class_id for number, class_id in pairs)


class Sampler:
    """A budget of so many an hour, shared equally by the cameras and reasons that have something to show.

    Args:
        per_hour: no more than so many, evenly spaced.
    """

    def __init__(self, per_hour: int) -> None:
        self._every_s = HOUR_S / per_hour
        self._next_s = -math.inf
        self._wanted: dict[tuple[str, Reason], float] = {}
        self._taken: dict[tuple[str, Reason], float] = {}

    def open(self, now_s: float) -> bool:
        """Whether anything may be taken now."""
        return now_s >= self._next_s

    def due(self, camera: str, reason: Reason, now_s: float) -> bool:
        """Whether it is this pair's turn, as it is when it has waited for all others, or was never served."""
        waited_s = now_s - self._taken.get((camera, reason), -math.inf)
        return self.open(now_s) and waited_s >= min(self._every_s * len(self._wanted), HOUR_S) - 1e-6

    def choose(self, camera: str, reasons: list[Reason], now_s: float) -> Reason | None:
        """Of reasons to take a picture, the one that is due and was served longest ago."""
        for reason in reasons:
            self._wanted[camera, reason] = now_s
        self._wanted = {pair: at_s for pair, at_s in self._wanted.items() if now_s - at_s < HOUR_S}
        due = [reason for reason in reasons if self.due(camera, reason, now_s)]
        return min(due, key=lambda reason: self._taken.get((camera, reason), -math.inf), default=None)

    def took(self, camera: str, reason: Reason, now_s: float) -> None:
        """It was taken."""
        self._taken[camera, reason] = now_s
        self._next_s = now_s + self._every_s
