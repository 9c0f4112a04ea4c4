"""The governor in a simulated world: cameras that deliver, a loop that takes the newest in turn, a chip that heats."""

import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_edge.config.types import GovernorConfig
from tinysight_edge.governor import LEAST_FPS, OWN_SHARE, Governor
from tinysight_edge.units import Seconds

MAX_AGE_S = 0.5


@dataclass
class World:
    """Live cameras, one loop with newest-wins slots as `Hub` has them, and a processor with one time constant.

    ``step`` says what an inference takes, in seconds, at a moment; it may change while time goes on.
    """

    fps: dict[str, float]
    busy_s: float
    ambient_c: float = 25.0
    heat_c: float = 0.0  # what full load adds in the end
    governed: bool = True
    governor: Governor = field(default_factory=lambda: Governor(GovernorConfig(max_frame_age=Seconds(MAX_AGE_S))))
    now_s: float = 1000.0
    temperature_c: float = 25.0
    slowed: frozenset[str] | None = None
    inferred: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.turn = list(self.fps)
        self.taken = {camera: math.floor(self.now_s * fps) for camera, fps in self.fps.items()}
        self.next_adjust_s = self.now_s + 1.0

    def run(self, seconds: float) -> None:
        """Go on; the loop is a thread that jumps from event to event."""
        until_s, busy = self.now_s + seconds, 0.0
        while self.now_s < until_s:
            if self.now_s >= self.next_adjust_s:
                self._cool(1.0, busy)
                busy = 0.0
                self.governor.adjust(self.temperature_c, self.slowed, self.now_s)
                self.next_adjust_s += 1.0
            busy += self._take()

    def _take(self) -> float:
        """The next camera's newest frame, or a jump to the moment when something comes."""
        for camera in list(self.turn):
            newest = math.floor(self.now_s * self.fps[camera] + 1e-9)
            if newest > self.taken[camera]:
                self.taken[camera] = newest
                self.turn.remove(camera)
                self.turn.append(camera)
                begun_s, captured_s = self.now_s, newest / self.fps[camera]
                if self.governed and not self.governor.allow(camera, captured_s):
                    return 0.0
                self.now_s += self.busy_s
                age_s = self.now_s - captured_s
                self.inferred[camera].append((begun_s, age_s))
                self.governor.note(camera, age_s * 1e3, self.busy_s * 1e3)
                return self.busy_s
        following = min((self.taken[camera] + 1) / fps for camera, fps in self.fps.items())
        self.now_s = max(min(following, self.next_adjust_s), self.now_s + 1e-6)
        return 0.0

    def _cool(self, seconds: float, busy_s: float) -> None:
        goal_c = self.ambient_c + self.heat_c * min(busy_s / seconds, 1.0)
        self.temperature_c += (goal_c - self.temperature_c) * (1 - math.exp(-seconds / 30.0))

    def ages_s(self, last_s: float) -> list[float]:
        since_s = self.now_s - last_s
        return [age for each in self.inferred.values() for at_s, age in each if at_s >= since_s]

    def rates(self, last_s: float) -> list[float]:
        since_s = self.now_s - last_s
        return [sum(at_s >= since_s for at_s, _ in self.inferred[camera]) / last_s for camera in self.fps]


def p95(values: list[float]) -> float:
    return float(np.percentile(values, 95))


def test_a_model_that_keeps_up_is_never_limited() -> None:
    world = World({"a": 30.0, "b": 15.0}, busy_s=0.01)
    world.run(120)
    assert world.governor.limits() == {}
    assert world.rates(60) == pytest.approx([30, 15], rel=0.01)


def test_without_it_slow_cameras_that_deliver_at_the_same_moment_grow_old_and_with_it_they_do_not() -> None:
    four = {f"cam{i}": 2.0 for i in range(4)}
    alone = World(four, busy_s=0.2, governed=False)
    alone.run(120)
    assert p95(alone.ages_s(60)) > MAX_AGE_S
    world = World(four, busy_s=0.2)
    world.run(120)
    assert p95(world.ages_s(60)) <= MAX_AGE_S
    assert world.governor.reason in {"frame age", ""}


def test_all_cameras_lose_alike_and_one_that_wants_little_loses_nothing() -> None:
    world = World({"a": 2.0, "b": 2.0, "c": 2.0, "slow": 0.4}, busy_s=0.3)
    world.run(600)
    *busy, slow = world.rates(300)
    assert slow == pytest.approx(0.4, rel=0.1)
    assert max(busy) < 1.25 * min(busy)
    assert max(busy) < 2.0
    assert set(world.governor.limits()) == {"a", "b", "c"}
    assert p95(world.ages_s(300)) <= MAX_AGE_S * 1.25


def test_no_camera_falls_below_the_least_rate() -> None:
    world = World({f"cam{i}": 5.0 for i in range(4)}, busy_s=0.4, heat_c=500.0)
    world.run(400)
    assert min(world.rates(100)) >= 0.9 * LEAST_FPS
    assert world.governor.limits() == dict.fromkeys(world.fps, LEAST_FPS)


def test_a_model_that_is_slower_than_the_allowed_age_is_not_slowed_further() -> None:
    world = World({"a": 30.0}, busy_s=0.8)
    world.run(120)
    assert world.governor.limits() == {}, "no limit makes one inference shorter"
    assert p95(world.ages_s(60)) <= OWN_SHARE * 0.8


def test_another_program_that_takes_the_cpu_costs_rate_and_not_age_and_the_rate_comes_back() -> None:
    world = World({f"cam{i}": 3.0 for i in range(4)}, busy_s=0.03)
    world.run(60)
    assert world.rates(30) == pytest.approx([3.0] * 4, rel=0.05)
    world.busy_s = 0.22
    world.run(120)
    assert p95(world.ages_s(60)) <= MAX_AGE_S * 1.1
    assert max(world.rates(60)) < 3.0
    world.busy_s = 0.03
    world.run(180)
    assert world.rates(30) == pytest.approx([3.0] * 4, rel=0.05)
    assert world.governor.limits() == {}
    assert world.governor.reason == ""


def test_heat_is_held_near_what_is_allowed_and_all_comes_back_when_it_is_cool() -> None:
    alone = World({"a": 30.0, "b": 30.0}, busy_s=0.016, heat_c=80.0, governed=False)
    alone.run(600)
    assert alone.temperature_c > 95
    world = World({"a": 30.0, "b": 30.0}, busy_s=0.016, heat_c=80.0)
    world.run(600)
    assert world.temperature_c < 84
    assert world.governor.reason == "heat"
    assert min(world.rates(60)) > 8, "no more is given up than is needed"
    world.heat_c = 20.0
    world.run(600)
    assert world.governor.limits() == {}


def test_a_slowed_processor_is_relieved_although_it_does_not_tell_its_temperature() -> None:
    for cause in ("heat", "undervoltage"):
        world = World({"a": 30.0}, busy_s=0.02)
        world.slowed = frozenset({cause})
        world.run(60)
        assert world.governor.limits()["a"] < 20
        assert world.governor.reason == cause
        world.slowed = frozenset()
        world.run(900)
        assert world.governor.limits() == {}


def test_a_new_allowance_is_heeded_at_once() -> None:
    world = World({"a": 30.0, "b": 30.0}, busy_s=0.01, heat_c=30.0)
    world.run(60)
    assert world.governor.limits() == {}
    world.governor.config = GovernorConfig(max_temperature_c=30.0)
    world.run(60)
    assert set(world.governor.limits()) == {"a", "b"}


def test_a_short_outlier_among_many_costs_nothing() -> None:
    governor = Governor(GovernorConfig())
    for second in range(60):
        for frame in range(30):
            now_s = second + frame / 30
            assert governor.allow("a", now_s)
            governor.note("a", 900.0 if second % 10 == 0 and frame == 0 else 40.0, 20.0)
        governor.adjust(None, None, second + 1.0)


@given(
    fps=st.lists(st.floats(0.5, 60), min_size=1, max_size=6),
    busy_s=st.floats(0.002, 1.5),
)
def test_whatever_cameras_and_model_age_stays_bounded_and_everybody_is_seen(fps: list[float], busy_s: float) -> None:
    world = World({f"cam{i}": each for i, each in enumerate(fps)}, busy_s)
    world.run(240)
    wanted, got = list(world.fps.values()), world.rates(120)
    room = 1 / (busy_s * len(fps))
    for want, have in zip(wanted, got, strict=True):
        assert have >= 0.4 * min(want, LEAST_FPS, room), "everybody is seen, as far as the model can"
    in_turn_s = busy_s * (1 + sum(min(LEAST_FPS, each) for each in fps) * busy_s * len(fps))
    assert p95(world.ages_s(120)) <= max(MAX_AGE_S * 1.4, 2 * in_turn_s)
