"""Notice that a camera delivers pictures and yet sees nothing: frozen, dark or covered.

In: pictures and their times.  Out: a `CameraState`. Pure: no clock, no thread. Looks four times a second at every
fourth pixel or so of the green channel, and at 16 by 9 means of those; what privacy has blacked does not count.

Found after (as long as pictures come at least four times a second; else one frame time later):

- dark, 2.5 s: hardly any light and no contrast. A lamp in the night is contrast.
- covered, 5.5 s: hardly any structure left of what the camera used to show, be it bright or dark: a lens that is
  sprayed or hung over. Known only once it has seen something, for `LEARN` looks.
- frozen, ``frozen_after`` and 0.5 s: not one bit differs. A sensor has noise, so even a scene in which nothing moves
  changes in every picture; a picture that repeats to the bit comes from an encoder that hangs. A stream of low bitrate
  may repeat a still scene to the bit for some seconds, hence the choice of ``frozen_after``. Picture without content,
  dark or covered, is told as that and not as frozen.
- online again, 1.5 s.
"""

from typing import Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_contract.messages import CameraState

__all__ = ["Sight"]

LOOK_S: Final = 0.25
LEARN: Final = 20
FORGET_S: Final = 600.0  # how fast "what it used to show" follows day and night
HOLD_S: Final = {CameraState.DARK: 2.0, CameraState.COVERED: 5.0, CameraState.FROZEN: 0.0, CameraState.ONLINE: 1.0}
# To become and to stay: the mean and the range of the 16 x 9 means, in grey levels; the structure as a share.
DARK_MEAN: Final = (20.0, 28.0)
DARK_RANGE: Final = (24.0, 32.0)
COVERED_SHARE: Final = (0.2, 0.4)
LEAST_STRUCTURE: Final = 1.5  # grey levels; a view that is plain by itself says nothing by being plain
CELLS: Final = (16, 9)


class Sight:
    """Watches one camera.

    Args:
        frozen_after_s: the same picture for so long means frozen.

    Attributes:
        state: online, dark, covered or frozen.
    """

    def __init__(self, frozen_after_s: float) -> None:
        self.state = CameraState.ONLINE
        self._frozen_after_s = frozen_after_s
        self._usual, self._looks = 0.0, 0
        self._hidden: NDArray[np.bool_] | None = None
        self._clear = np.ones(CELLS[::-1], np.bool_)
        self._wanted = CameraState.ONLINE
        self._next_s = self._changed_s = self._since_s = -np.inf
        self._sample: NDArray[np.uint8] | None = None

    def heir(self) -> Self:
        """Another one for when the camera is opened again: it counts as online, what it used to show is known."""
        heir = type(self)(self._frozen_after_s)
        heir._usual, heir._looks = self._usual, self._looks
        return heir

    def look(self, image: NDArray[np.uint8], now_s: float, *, hidden: NDArray[np.bool_] | None = None) -> CameraState:
        """Look at the next picture.

        Args:
            image: uint8 (H, W, 3).
            now_s: monotonic.
            hidden: bool (H, W), what is black for privacy; the same object as long as it is the same.
        """
        if now_s < self._next_s:
            return self.state
        self._next_s = now_s + LOOK_S
        step = max(1, min(image.shape[0] // 180, image.shape[1] // 320))
        sample = image[::step, ::step, 1].copy()
        if hidden is not self._hidden:
            self._hidden = hidden
            self._clear = (
                np.ones(CELLS[::-1], np.bool_) if hidden is None else _means(hidden[::step, ::step].view(np.uint8)) == 0
            )
        if self._sample is None or not np.array_equal(sample, self._sample):
            self._changed_s = now_s
        self._sample = sample
        wanted = self._judge(_means(sample), still_s=now_s - self._changed_s)
        if wanted != self._wanted:
            self._wanted, self._since_s = wanted, now_s
        if now_s - self._since_s >= HOLD_S[wanted]:
            self.state = wanted
        return self.state

    def _judge(self, means: NDArray[np.float32], *, still_s: float) -> CameraState:
        """What this one look speaks for."""
        if not self._clear.any():
            return CameraState.ONLINE
        seen = means[self._clear]
        is_dark, is_covered = self.state is CameraState.DARK, self.state is CameraState.COVERED
        if seen.mean() < DARK_MEAN[is_dark] and np.ptp(seen) < DARK_RANGE[is_dark]:
            return CameraState.DARK
        structure = _structure(means, self._clear)
        known = self._looks >= LEARN and self._usual >= LEAST_STRUCTURE
        if known and structure < COVERED_SHARE[is_covered] * self._usual:
            return CameraState.COVERED
        if still_s >= self._frozen_after_s:
            return CameraState.FROZEN
        self._looks += 1
        self._usual += (structure - self._usual) * max(LOOK_S / FORGET_S, 1 / self._looks)
        return CameraState.ONLINE


def _means(sample: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(sample, CELLS, interpolation=cv2.INTER_AREA), np.float32)


def _structure(means: NDArray[np.float32], clear: NDArray[np.bool_]) -> float:
    """The mean bend between neighbours, in grey levels: 0 for a plain and for an even slope of light."""
    bends = []
    for values, known in ((means, clear), (means.T, clear.T)):
        bend = np.abs(values[:-2] - 2 * values[1:-1] + values[2:])
        bends.append(bend[known[:-2] & known[1:-1] & known[2:]])
    every = np.concatenate(bends)
    return float(every.mean()) if len(every) else 0.0
