"""Where a box will be: a Kalman filter with constant velocity, for all tracks of a camera at once.

In: the boxes that were seen and the seconds that passed.  Out: the boxes to expect, in place, one column per track.
Knows nothing of scores, labels and numbers.

The four edges are filtered alike: each is seen with a noise that is a share of the object's size, and its velocity
wanders (white noise on the acceleration, so that two short steps are the same as one long one). Measured in sizes of
the object the covariance is then the same for all four edges and all sizes: four numbers a track instead of 64. An
object is expected to move, not to grow: all edges go on with the velocity of the centre, and the size follows what is
seen.
Source: R. E. Kalman, A New Approach to Linear Filtering and Prediction Problems, 1960; the noise as a share of the size
is that of N. Wojke et al., Deep SORT, 2017.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ROWS", "correct", "predict", "starting"]

ROWS: Final = 13
"""Rows of a state: four edges x1 y1 x2 y2 in pixels, covariances (pp, pv), four velocities in pixels per second,
covariances (vp, vv), and a row of ones that carries the process noise through the matrix product."""

SEEN_NOISE: Final = 0.05**2  # variance of a seen edge, in sizes²
START_SPEED: Final = 2.0**2  # variance of a velocity that nobody knows yet, in (sizes per second)²
WANDER: Final = 0.3  # spectral density of the acceleration, in sizes² per second³


def starting(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """States (13, n) of objects that were seen once, in boxes (4, n)."""
    state = np.zeros((ROWS, boxes.shape[1]))
    state[:4], state[4], state[11], state[12] = boxes, SEEN_NOISE, START_SPEED, 1.0
    return state


def predict(state: NDArray[np.float64], passed_s: float) -> None:
    """Let ``passed_s`` seconds (none or more) pass for the states (13, n)."""
    powers = (1.0, passed_s, passed_s**2, passed_s**3)
    state[:12] = _STEP.dot(powers).reshape(12, ROWS).dot(state)


def correct(state: NDArray[np.float64], seen: NDArray[np.float64]) -> None:
    """Take in what was seen, in place.

    Args:
        state: (13, n).
        seen: (6, n): boxes x1 y1 x2 y2 and two rows of zeros.
    """
    error = state[:6] - seen  # below the edges' errors stand (pp, pv): what the covariance loses is a gain times these
    gain = state[4:6] / (state[4] + SEEN_NOISE)  # (2, n): of a position, of a velocity
    both = state[:12].reshape(2, 6, state.shape[1])
    both -= gain[:, None] * error


def _step() -> NDArray[np.float64]:
    """The (12, 13) matrix of a step as polynomials of its seconds: (156, 4), coefficients of rising powers."""
    step = np.zeros((12, ROWS, 4))
    for row in range(12):
        step[row, row, 0] = 1.0
    for edge in range(4):
        for other in (edge, edge ^ 2):  # x1 and x2, y1 and y2: half of each is the centre's velocity
            step[edge, 6 + other, 1] = 0.5
    pp, pv, vp, vv, one = 4, 5, 10, 11, 12
    step[pp, (pv, vp), 1] = 1.0
    step[pp, vv, 2] = 1.0
    step[(pv, vp), vv, 1] = 1.0
    step[pp, one, 3] = WANDER / 3
    step[(pv, vp), one, 2] = WANDER / 2
    step[vv, one, 1] = WANDER
    return step.reshape(-1, 4)


_STEP: Final = _step()
