"""Follow what a classifier says of the whole picture: a state that holds, and changes only for good.

In: the strongest class per frame, as the classify decoder gives it, best with ``min_score=0`` so that fading scores are
seen.  Out: `Tracks` of at most one row, like `track.Tracker`, whose boxes are the whole frame.

A new state needs three frames and half a second in a row at or above the threshold (Schmitt trigger: to stay, three
quarters of it are enough). It ends when another state has begun so, or when the score was lower for as long. While
another class is strongest without being sure, the state stays.
"""

from collections import deque
from typing import Final

import numpy as np

from tinysight_edge.decode import Detections
from tinysight_edge.tracking.tracks import Tracks

__all__ = ["States"]

FRAMES: Final = 3
HELD_S: Final = 0.5
STAYS_ABOVE: Final = 0.75  # of the threshold


class _State:
    """One class that is said of the picture, since when, and how surely."""

    def __init__(self, class_id: int | None, at_s: float) -> None:
        self.class_id = class_id  # None: no class is sure
        self.number = 0
        self.started_s = self.seen_s = at_s
        self.frames = 0
        self.best = 0.0
        self.scores: deque[float] = deque(maxlen=10)
        self.box = self.first_box = np.zeros((0, 4), np.float32)

    def see(self, found: Detections, at_s: float) -> None:
        self.frames += 1
        self.seen_s = at_s
        if self.class_id is not None:
            self.box = found.boxes_px[:1]
            self.first_box = self.first_box if len(self.first_box) else self.box
            self.scores.append(float(found.scores[0]))
            self.best = max(self.best, self.scores[-1])


class States:
    """What one camera's picture is.

    Args:
        threshold: a class is sure at or above it, 0..1.
        still: every picture stands for itself: its state ends with the next picture, and nothing needs to be held.

    Attributes:
        threshold: may be changed at any time.
    """

    def __init__(self, *, threshold: float, still: bool = False) -> None:
        self.threshold, self._still = threshold, still
        self._state: _State | None = None  # with a class, or none
        self._next: _State | None = None
        self._made = 0

    def update(self, found: Detections, at_s: float) -> tuple[Tracks, Tracks]:
        """Take in one frame; the state that holds, and the one that ended with this frame."""
        before = self._state
        if self._still:
            self._state = None  # so what it was does not decide what this picture is
        said = self._said(found)
        if self._state is not None and said == self._state.class_id:
            self._next = None
            if len(found) and int(found.class_ids[0]) == said:
                self._state.see(found, at_s)
        elif said is None and self._state is None:
            self._next = None
        else:
            if self._next is None or said != self._next.class_id:
                self._next = _State(said, at_s)
            self._next.see(found, at_s)
            if self._still or (self._next.frames >= FRAMES and at_s - self._next.started_s >= HELD_S):
                self._begin(self._next)
        return self.hold(at_s), Tracks.none() if self._state is before else _tracks(before)

    def hold(self, at_s: float) -> Tracks:
        """The state, on a frame that was not looked at because nothing moved."""
        del at_s  # nothing here grows old
        return _tracks(self._state)

    def end_all(self) -> Tracks:
        """Forget everything; the state that so ended."""
        ended, self._state, self._next = _tracks(self._state), None, None
        return ended

    def _begin(self, state: _State) -> None:
        self._state, self._next = None, None
        if state.class_id is not None:
            self._made += 1
            state.number = self._made
            self._state = state

    def _said(self, found: Detections) -> int | None:
        """What this frame says the state is: a class that is sure, the present one if nothing is, or none."""
        score = float(found.scores[0]) if len(found) else 0.0
        if len(found) and score >= self.threshold:
            return int(found.class_ids[0])
        if self._state is not None and len(found) and score >= STAYS_ABOVE * self.threshold:
            return self._state.class_id
        return None


def _tracks(state: _State | None) -> Tracks:
    if state is None:
        return Tracks.none()
    return Tracks(
        numbers=np.array([state.number], np.int64),
        boxes_px=state.box,
        scores=np.array([state.scores[-1]], np.float32),
        median_scores=np.array([np.median(list(state.scores))], np.float32),
        best_scores=np.array([state.best], np.float32),
        class_ids=np.array([state.class_id], np.int32),
        started_s=np.array([state.started_s]),
        seen_s=np.array([state.seen_s]),
        stationary=np.zeros(1, np.bool_),
        first_boxes_px=state.first_box,
    )
