"""The filter of all boxes at once is the textbook's, one box at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinysight_edge.tracking import kalman

Array = NDArray[np.float64]
times = st.floats(0.0, 3.0, allow_nan=False)
boxes = st.tuples(st.floats(0, 900), st.floats(0, 500), st.floats(5, 300), st.floats(5, 300)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


class OneBox:
    """A Kalman filter as it stands in a book: eight states, full matrices, edges that move with the centre."""

    def __init__(self, box: Array) -> None:
        self.x = np.concatenate((box, np.zeros(4)))
        self.p = np.diag([kalman.SEEN_NOISE] * 4 + [kalman.START_SPEED] * 4)

    def predict(self, dt: float) -> None:
        # The covariance is that of four edges that each have a velocity of their own ...
        f = np.eye(8) + dt * np.eye(8, k=4)
        q = kalman.WANDER * np.block(
            [[np.eye(4) * dt**3 / 3, np.eye(4) * dt**2 / 2], [np.eye(4) * dt**2 / 2, np.eye(4) * dt]]
        )
        self.p = f @ self.p @ f.T + q
        # ... and the box is moved without growing.
        centre = (self.x[4:6] + self.x[6:8]) / 2
        self.x[:4] += dt * np.tile(centre, 2)

    def correct(self, box: Array) -> None:
        h = np.eye(4, 8)
        k = self.p @ h.T @ np.linalg.inv(h @ self.p @ h.T + kalman.SEEN_NOISE * np.eye(4))
        self.x += k @ (box - h @ self.x)
        self.p = (np.eye(8) - k @ h) @ self.p


def seen(*rows: tuple[float, float, float, float]) -> Array:
    """As `correct` takes it."""
    return np.concatenate((np.array(rows, np.float64).T, np.zeros((2, len(rows)))))


@given(st.lists(st.tuples(boxes, boxes), min_size=1, max_size=4), st.lists(times, min_size=1, max_size=8))
def test_every_column_is_a_filter_of_its_own_as_the_textbook_has_it(
    pairs: list[tuple[tuple[float, ...], tuple[float, ...]]], passed: list[float]
) -> None:
    first = np.array([a for a, _ in pairs], np.float64)
    state, slow = kalman.starting(first.T), [OneBox(box) for box in first]
    for step, dt in enumerate(passed):
        measured = np.array([pair[step % 2] for pair in pairs], np.float64)
        kalman.predict(state, dt)
        for one, box in zip(slow, measured, strict=True):
            one.predict(dt)
            if step % 3 != 2:
                one.correct(box)
        if step % 3 != 2:  # every third time nothing is seen
            kalman.correct(state, seen(*map(tuple, measured)))
    for column, one in zip(state.T, slow, strict=True):
        np.testing.assert_allclose(column[:4], one.x[:4], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(column[6:10], one.x[4:], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(column[[4, 5, 10, 11]], one.p[[0, 0, 4, 4], [0, 4, 0, 4]], rtol=1e-6, atol=1e-9)


@given(boxes, st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_two_steps_are_as_good_as_one_of_the_same_time(
    box: tuple[float, float, float, float], a: float, b: float
) -> None:
    once = kalman.starting(seen(box)[:4])
    kalman.predict(once, 0.1)
    x1, y1, x2, y2 = box
    kalman.correct(once, seen((x1 + 7.0, y1 + 7.0, x2 + 7.0, y2 + 7.0)))
    twice = once.copy()
    kalman.predict(once, a + b)
    kalman.predict(twice, a)
    kalman.predict(twice, b)
    np.testing.assert_allclose(once, twice, rtol=1e-9, atol=1e-9)


@given(st.lists(st.tuples(boxes, times), min_size=1, max_size=30))
def test_a_box_keeps_its_width_and_height_above_zero(
    walk: list[tuple[tuple[float, float, float, float], float]],
) -> None:
    state = kalman.starting(seen(walk[0][0])[:4])
    for box, dt in walk:
        kalman.predict(state, dt)
        kalman.correct(state, seen(box))
    assert np.isfinite(state).all()
    assert (state[2:4] > state[:2]).all()


@pytest.mark.parametrize(("speed", "jitter"), [(0.0, 0.0), (80.0, 0.0), (80.0, 0.9), (-300.0, 0.9)])
def test_the_velocity_is_found_although_frames_come_at_irregular_times(speed: float, jitter: float) -> None:
    dice = np.random.default_rng(5)
    at = np.cumsum(np.full(60, 1 / 15) * (1 + jitter * dice.uniform(-1, 1, 60)))
    state = kalman.starting(seen((0, 0, 60, 120))[:4])
    before = 0.0
    for now in at:
        x = speed * now
        kalman.predict(state, now - before)
        kalman.correct(state, seen((x, 0, x + 60, 120)))
        before = now
    np.testing.assert_allclose(state[[6, 8], 0], speed, rtol=0.02, atol=0.5)


def test_a_second_look_at_the_same_moment_does_not_make_it_fast() -> None:
    state = kalman.starting(seen((0, 0, 50, 50))[:4])
    for x in (3.0, -3.0, 3.0, -3.0):  # the detector's noise, and no time passes
        kalman.predict(state, 1e-6)
        kalman.correct(state, seen((x, 0, x + 50, 50)))
    assert np.abs(state[6:10]).max() < 1.0
