"""Find where a camera's picture moves, cheaply, so that nothing is inferred where nothing happens.

In: frames of one camera and their source times.  Out: whether to infer, and which cells of a coarse grid moved lately.
A running average of a small grey picture is the background, scaled to the light of now before it is compared. What no
light of one lamp explains is motion until the background has followed, some seconds later; what changes nearly
everywhere at once is a new background, and costs one short burst of inference. Knows no clock, detections or model.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_edge.config.types import MotionConfig

__all__ = ["Look", "MotionGate"]

LONG_SIDE: Final = 160  # cells along the longer side of the frame, about
ADAPT_S: Final = 6.0  # the background follows the picture within this time
SETTLE_S: Final = 1.5  # after the last motion, so that tracks come to rest
LEAST_STEP: Final = 10.0  # grey values; below it nothing is motion
MOST_STEP: Final = 40.0  # above it everything is: no camera is that noisy, but a picture may move nearly everywhere
NOISE: Final = 1 / 3, 9.3  # a third of normal noise is below 0.43 of its deviation; four deviations are no noise
NEW_SCENE: Final = 0.6  # more than this share changes at once: another light, or another view
SAMPLED: Final = 7  # every so manieth cell is enough for a median; a prime, so that all columns are among them
_AROUND: Final = np.ones((3, 3), np.uint8)

Why = Literal["first", "motion", "settling", "heartbeat", "still"]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one frame says.

    Attributes:
        why: ``still`` means: do not infer.
        moving: bool (rows, columns), cells that moved lately; all of them at the first frame, at a heartbeat and in a
            new scene.
    """

    why: Why
    moving: NDArray[np.bool_]

    @property
    def infer(self) -> bool:
        """Whether the frame is worth an inference."""
        return self.why != "still"


class MotionGate:
    """Looks at each frame of one camera, in their order.

    Args:
        config: how often to infer all the same, and how much must change.
    """

    def __init__(self, config: MotionConfig) -> None:
        self._heartbeat_s, self._min_area = float(config.heartbeat), config.min_area
        self._shape: tuple[int, ...] = ()
        self._size = (0, 0)
        self._background: NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._moved_s: NDArray[np.float64] = np.empty((0, 0))
        self._seen_s = self._inferred_s = 0.0

    def __call__(self, image_bgr: NDArray[np.uint8], at_s: float) -> Look:
        """What this frame, uint8 (H, W, 3), says at its source time."""
        if image_bgr.shape != self._shape:
            return self._begin(image_bgr, at_s)
        small = self._shrink(image_bgr)
        level = np.minimum(self._background * _gain(small, self._background), np.float32(255))
        change = np.abs(small - level)
        changed = change > _least_step(change)
        share = _share(changed)
        if _share(change > LEAST_STEP) > NEW_SCENE:
            self._background = small
            self._moved_s[:] = at_s
        else:
            cv2.accumulateWeighted(small, level, 1.0 - math.exp((self._seen_s - at_s) / ADAPT_S))
            self._background = level
            if share >= self._min_area:
                self._moved_s[cv2.dilate(changed.view(np.uint8), _AROUND).view(bool)] = at_s
        self._seen_s = at_s
        return self._judge(at_s, moves=share >= self._min_area)

    def _judge(self, at_s: float, *, moves: bool) -> Look:
        lately = self._moved_s > at_s - SETTLE_S
        why: Why = "motion" if moves else "settling" if lately.any() else "still"
        if why == "still":
            if at_s - self._inferred_s < self._heartbeat_s:
                return Look(why, lately)
            why, lately = "heartbeat", np.ones_like(lately)
        self._inferred_s = at_s
        return Look(why, lately)

    def _begin(self, image_bgr: NDArray[np.uint8], at_s: float) -> Look:
        """The first frame, or the first of another size."""
        self._shape = image_bgr.shape
        height, width = image_bgr.shape[:2]
        step = max(1.0, max(height, width) / LONG_SIDE)
        self._size = max(1, round(width / step)), max(1, round(height / step))
        self._background = self._shrink(image_bgr)
        self._moved_s = np.full(self._background.shape, -math.inf)
        self._inferred_s = self._seen_s = at_s
        return Look("first", np.ones(self._background.shape, bool))

    def _shrink(self, image_bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A grey value for each cell: of one pixel, smoothed with its neighbours since pixels are noisy."""
        cells = cv2.resize(image_bgr, self._size, interpolation=cv2.INTER_NEAREST)
        grey = cv2.cvtColor(cells, cv2.COLOR_BGR2GRAY).astype(np.float32)
        return np.asarray(cv2.blur(grey, (3, 3)), np.float32)


def _share(cells: NDArray[np.bool_]) -> float:
    return cv2.countNonZero(cells.view(np.uint8)) / cells.size


def _gain(now: NDArray[np.float32], before: NDArray[np.float32]) -> np.float32:
    """How much brighter it is now, by the middle of all ratios: what has moved is no part of it, up to half of all."""
    one = np.float32(1)
    return _quantile((now.ravel()[::SAMPLED] + one) / (before.ravel()[::SAMPLED] + one), 0.5)


def _least_step(change: NDArray[np.float32]) -> float:
    """From which change on it is motion: above the noise of the picture's stillest third."""
    share, steps = NOISE
    return min(max(LEAST_STEP, steps * float(_quantile(change.ravel()[::SAMPLED], share))), MOST_STEP)


def _quantile(values: NDArray[np.float32], share: float) -> np.float32:
    at = int(len(values) * share)
    return np.float32(np.partition(values, at)[at])
