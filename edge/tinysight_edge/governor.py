"""Infer less when frames grow old or the processor grows hot, and more again when it is over.

In: frames as the loop meets them, their ages, the temperature once a second.  Out: whether to infer a frame, and what
was given up. Pure: no clock, no file, no thread. Only live cameras are asked for; a file is read whole.

One limit holds for all cameras alike, so that one that wants less than it loses nothing (max-min fairness). It falls by
multiplying and rises by adding (AIMD: Chiu and Jain, 1989), once for age and once for heat; the lower one holds. The
cameras' turns are spread evenly over the interval, so that those which deliver at the same moment do not queue.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from tinysight_edge.config.types import GovernorConfig

__all__ = ["LEAST_FPS", "Governor"]

LEAST_FPS: Final = 0.5
ENOUGH: Final = 20  # samples, so that one outlier is not the 95th percentile
AGE_EVERY_S: Final = 5.0  # with fewer samples
HEAT_EVERY_S: Final = 10.0  # a heat sink answers in tens of seconds
COOL_BELOW_C: Final = 5.0  # below the highest allowed temperature, before more is tried
CALM: Final = 0.9  # of the allowed age, before more is tried
OWN_SHARE: Final = 1.2  # no limit makes a frame younger than one inference and a frame's wait
MAX_HOLD_S: Final = 120.0


@dataclass(slots=True)
class _Seen:
    """One camera: frames met and inferred, its turn, and what it wants (smoothed)."""

    offset: float = 0.0
    slot: int = -1
    met: int = 0
    inferred: int = 0
    met_before: int = 0
    inferred_before: int = 0
    wants_fps: float = 0.0


@dataclass(slots=True)
class _Level:
    """One limit that falls fast and rises slowly: after a rise that did not last it waits twice as long, else half."""

    factor: float
    hold_s: float
    fps: float | None = None
    waits_s: float = 0.0
    changed_s: float = -math.inf
    rose: bool = False

    def lower(self, base_fps: float, now_s: float) -> None:
        self.fps = max(LEAST_FPS, self.factor * (base_fps if self.fps is None else self.fps))
        self.waits_s = min(2 * self.waits_s, MAX_HOLD_S) if self.rose else max(self.waits_s, self.hold_s)
        self.changed_s, self.rose = now_s, False

    def lift(self, wanted_fps: float, now_s: float) -> None:
        if self.fps is None or now_s - self.changed_s < self.waits_s:
            return
        if self.rose:
            self.waits_s = max(self.waits_s / 2, self.hold_s)
        self.fps += max(0.25, 0.1 * self.fps)
        self.changed_s, self.rose = now_s, True
        if self.fps > 1.1 * wanted_fps:
            self.fps = None


class Governor:
    """Bounds the age of frames and the heat of the processor.

    ``allow`` runs in the inference thread; ``note`` and ``adjust`` elsewhere: where events are made, and in the thread
    that looks after the device.

    Args:
        config: what is allowed; may be replaced while running.
    """

    def __init__(self, config: GovernorConfig) -> None:
        self.config = config
        self.reason = ""
        self._seen: dict[str, _Seen] = {}
        self._age = _Level(factor=0.7, hold_s=5.0)
        self._heat = _Level(factor=0.8, hold_s=HEAT_EVERY_S)
        self._gate: tuple[float, float, float] | None = None  # fps, phase, since when
        self._phase = (0.0, 0.0)  # the gate's phase when it was last taken away, and when
        self._samples: deque[tuple[float, float]] = deque(maxlen=1024)
        self._decided_s = self._adjusted_s = -math.inf

    @property
    def cameras(self) -> list[str]:
        """Those that were asked for: the live ones."""
        return list(self._seen)

    def allow(self, camera: str, captured_s: float) -> bool:
        """Whether this frame may be inferred, by the time of its capture: to have waited gives no frame a turn."""
        seen = self._seen.get(camera) or self._meet(camera)
        seen.met += 1
        gate = self._gate
        if gate is None:
            return True
        fps, phase, since_s = gate
        slot = math.floor(phase + (captured_s - since_s) * fps + seen.offset)
        if slot == seen.slot:
            return False
        seen.slot = slot
        return True

    def note(self, camera: str, age_ms: float, busy_ms: float) -> None:
        """An inferred frame: how old it was when its events were ready, and how long the loop was busy with it."""
        (self._seen.get(camera) or self._meet(camera)).inferred += 1
        self._samples.append((age_ms, busy_ms))

    def adjust(self, temperature_c: float | None, slowed: frozenset[str] | None, now_s: float) -> None:
        """Decide anew; to be called about once a second.

        Args:
            temperature_c: of the processor, if known.
            slowed: why it is slowed now (``heat``, ``undervoltage``), if known.
            now_s: monotonic.
        """
        wanted_fps, inferred_fps = self._rates(now_s)
        self._judge_age(wanted_fps, inferred_fps, now_s)
        hot = temperature_c is not None and temperature_c >= self.config.max_temperature_c
        pressed = "heat" if hot or "heat" in (slowed or ()) else "undervoltage" if slowed else ""
        cool = temperature_c is None or temperature_c <= self.config.max_temperature_c - COOL_BELOW_C
        if pressed and inferred_fps > 0.0 and now_s - self._heat.changed_s >= HEAT_EVERY_S:
            self._heat.lower(inferred_fps, now_s)
        elif not pressed and cool:
            self._heat.lift(wanted_fps, now_s)
        ages, heats = self._age.fps or math.inf, self._heat.fps or math.inf
        self._set_gate(min(ages, heats), now_s)
        if self._gate is None:
            self.reason = ""
        elif ages < heats:
            self.reason = "frame age"
        else:
            self.reason = pressed or self.reason or "heat"

    def limits(self) -> dict[str, float]:
        """What each camera is allowed that wants more, in frames per second."""
        gate = self._gate
        if gate is None:
            return {}
        return {camera: round(gate[0], 2) for camera, seen in list(self._seen.items()) if seen.wants_fps > gate[0]}

    def forget(self, camera: str) -> None:
        """There is no such camera any more."""
        self._seen = {known: seen for known, seen in self._seen.items() if known != camera}

    def _meet(self, camera: str) -> _Seen:
        self._seen = {**self._seen, camera: _Seen()}
        for i, seen in enumerate(self._seen.values()):
            seen.offset = i / len(self._seen)
        return self._seen[camera]

    def _rates(self, now_s: float) -> tuple[float, float]:
        """Of the busiest camera: frames per second that it wants, and that were inferred since the last time."""
        passed_s, self._adjusted_s = now_s - self._adjusted_s, now_s
        inferred_fps = 0.0
        for seen in self._seen.values():
            met, inferred = seen.met - seen.met_before, seen.inferred - seen.inferred_before
            seen.met_before, seen.inferred_before = seen.met, seen.inferred
            if 0.0 < passed_s < math.inf:
                seen.wants_fps += 0.3 * (met / passed_s - seen.wants_fps) if seen.wants_fps else met / passed_s
                inferred_fps = max(inferred_fps, inferred / passed_s)
        return max((seen.wants_fps for seen in self._seen.values()), default=0.0), inferred_fps

    def _judge_age(self, wanted_fps: float, inferred_fps: float, now_s: float) -> None:
        if not self._samples or (len(self._samples) < ENOUGH and now_s - self._decided_s < AGE_EVERY_S):
            return
        samples, self._samples, self._decided_s = self._samples, deque(maxlen=1024), now_s
        age_ms, busy_ms = np.percentile(np.array(samples), 95, axis=0).tolist()
        allowed_ms = max(self.config.max_frame_age * 1e3, OWN_SHARE * busy_ms)
        if age_ms > allowed_ms:
            self._age.lower(max(inferred_fps, LEAST_FPS), now_s)
        elif age_ms < CALM * allowed_ms or age_ms < OWN_SHARE * busy_ms:
            self._age.lift(wanted_fps, now_s)

    def _set_gate(self, fps: float, now_s: float) -> None:
        """Change the rate without a jump of the phase, so that nobody's turn comes twice."""
        gate = self._gate
        if gate is not None:
            if gate[0] == fps:
                return
            self._phase = (gate[1] + (now_s - gate[2]) * gate[0], now_s)
        self._gate = None if fps == math.inf else (fps, self._phase[0], now_s)
