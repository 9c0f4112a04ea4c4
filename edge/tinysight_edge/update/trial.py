"""Whether a new model does under the real cameras what the one before did. Pure: no clock, no thread, no model.

In: what each frame took (`Pulse`), what came and was seen of each camera, what both models found in the same frames
(`Agreement`).  Out: an `Outcome` with the figures that decided.

Only what a model can be blamed for counts. A camera that is away sends no pictures, so nobody waits for them; one that
is dark sends dark ones, which are seen as any other. The broker and the disk play no part. And time in which no picture
is seen at all, as when every camera is away, is no part of the trial: it proves nothing.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tinysight_contract.updates import Code, Gate
from tinysight_edge.decode import Detections, iou_matrix

__all__ = ["Agreement", "Before", "Outcome", "Pulse", "Rules", "Trial"]

FLOOR_MS: Final = 20.0
"""A run that takes no longer is fast enough, whatever the one before takes; as in the self-test."""
ROWS: Final = 1024
LEAST_RUNS: Final = 20
"""Fewer say nothing of a 95th percentile."""
WARM_RUNS: Final = 5
RUNS_WITHIN_S: Final = 300.0
"""So much longer a trial goes on at most when the model is run too rarely for a figure, as where little moves."""
SILENT_S: Final = 15.0
"""A camera may be told to give a picture each ten seconds."""
SAME_IOU: Final = 0.5
LEAST_SHOWN: Final = 10
"""Objects, or pictures of a classifier, by which two models are compared at least."""


class Pulse:
    """What frames took, of one model. `note` belongs to one thread, all else may be asked by any.

    Args:
        now_s: when the model began to see.

    Attributes:
        seen: by camera, frames that were seen; those in which nothing moved count, too.
        last_s: by camera, when that was the last time.
    """

    def __init__(self, now_s: float) -> None:
        self.seen: Counter[str] = Counter()
        self.last_s: dict[str, float] = {}
        self.begun_s = now_s
        self._runs_ms: deque[float] = deque(maxlen=ROWS)

    def note(self, camera: str, run_ms: float | None, now_s: float) -> None:
        """One frame was told; what a run of the model took, None when it was not asked."""
        self.seen[camera] += 1
        self.last_s[camera] = now_s
        if run_ms is not None:
            self._runs_ms.append(run_ms)

    @property
    def p95_ms(self) -> float | None:
        """Of the last thousand runs but the very first ones; None as long as there are too few."""
        runs = list(self._runs_ms)[WARM_RUNS:]
        return float(np.percentile(runs, 95)) if len(runs) >= LEAST_RUNS else None

    def cameras(self, now_s: float) -> frozenset[str]:
        """Those that were seen just now."""
        return frozenset(id_ for id_, last_s in list(self.last_s.items()) if now_s - last_s < SILENT_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a model has to stand.

    Attributes:
        over_s: for so long.
        max_slowdown: how many times the 95th percentile of the one before a run may take.
        min_agreement: which share of what both see has to be the same, 0..1.
    """

    over_s: float = 60.0
    max_slowdown: float = 2.0
    min_agreement: float = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """How the model did that saw before.

    Attributes:
        cameras: that were seen just before.
        p95_ms: of its runs; None when there were too few.
    """

    cameras: frozenset[str] = frozenset()
    p95_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial.

    Attributes:
        gates: the figures that decided.
        code: why it was not stood; None when it was.
        reason: the same for people, with what to do; of one that was stood, what could not be judged.
    """

    gates: dict[str, Gate] = field(default_factory=dict)
    code: Code | None = None
    reason: str = ""


class Trial:
    """One model's.

    Args:
        rules: what it has to stand.
        before: how the one before did.
        now_s: when it began to see.
    """

    def __init__(self, rules: Rules, before: Before, now_s: float) -> None:
        self._rules, self._before = rules, before
        self._last_s = now_s
        self._stood_s = 0.0
        self._seen: dict[str, int] = {}
        self._came: dict[str, int] = {}
        self._owed_s: dict[str, float] = {}  # since when a camera's pictures come and are not seen

    def judge(
        self, pulse: Pulse, came: Mapping[str, int], now_s: float, *, failure: str | None = None
    ) -> Outcome | None:
        """How it does; None as long as that is open. To be asked about once a second.

        Args:
            pulse: of this model.
            came: by camera, pictures that were handed over to be seen since the agent's start, whoever was to see them.
            now_s: the present time.
            failure: why it failed on a picture.
        """
        gates = self._gates(pulse)
        if failure is not None:
            return Outcome(
                gates, Code.BROKE, f"{failure.rstrip('.')}. The one before sees again. Convert the model again."
            )
        last_s = max(list(pulse.last_s.values()), default=self._last_s)
        if last_s - self._last_s < SILENT_S:
            self._stood_s += last_s - self._last_s
        self._last_s = last_s
        if silent := self._silent(pulse, came, now_s):
            cameras = ", ".join(silent)
            gates["frames"] = self._frames(pulse, without=silent)
            return Outcome(gates, Code.NO_FRAMES, f"Pictures came from {cameras} and were not seen. Look into the log.")
        if self._stood_s < self._rules.over_s:
            return None
        speed = gates.get("trial_p95_ms")
        if speed is None:
            if self._before.p95_ms is not None and self._stood_s < self._rules.over_s + RUNS_WITHIN_S:
                return None
            which = "the one before" if self._before.p95_ms is None else "it"
            return Outcome(gates, reason=f"Its speed here was not judged: {which} was run too few times.")
        if not speed.ok:
            reason = (
                f"A run takes {speed.value:.1f} ms (p95) here, {speed.limit:.1f} are allowed. Take a smaller model."
            )
            return Outcome(gates, Code.SLOW, reason)
        return Outcome(gates)

    def _silent(self, pulse: Pulse, came: Mapping[str, int], now_s: float) -> list[str]:
        """Cameras that were seen before, and whose pictures come and are not seen any more."""
        for id_ in self._before.cameras:
            seen, arrived = pulse.seen[id_], came.get(id_, 0)
            if seen != self._seen.get(id_, 0) or id_ not in self._came:
                self._seen[id_], self._came[id_] = seen, arrived
                self._owed_s.pop(id_, None)
            elif arrived > self._came[id_]:
                self._owed_s.setdefault(id_, now_s)
        return sorted(id_ for id_, since_s in self._owed_s.items() if now_s - since_s >= SILENT_S)

    def _gates(self, pulse: Pulse) -> dict[str, Gate]:
        gates = {"frames": self._frames(pulse)}
        if (p95_ms := pulse.p95_ms) is not None and (before_ms := self._before.p95_ms) is not None:
            limit = max(self._rules.max_slowdown * before_ms, FLOOR_MS)
            value, most, before = (round(each, 2) for each in (p95_ms, limit, before_ms))
            gates["trial_p95_ms"] = Gate(value=value, limit=most, ok=p95_ms <= limit, before=before)
        return gates

    def _frames(self, pulse: Pulse, *, without: Sequence[str] = ()) -> Gate:
        """How many of the cameras that were seen before are; one that sends nothing meanwhile is not missed."""
        flow = sum(1 for id_ in self._before.cameras if pulse.seen[id_] and id_ not in without)
        limit = len(without) + flow
        return Gate(value=float(flow), limit=float(limit), ok=flow >= limit)


class Agreement:
    """What two models found in the same frames. Compared are names, since each counts its labels in its own order."""

    def __init__(self) -> None:
        self.frames = 0
        self._same = self._shown = 0

    def detections(self, one: Detections, other: Detections, *, labels: tuple[Sequence[str], Sequence[str]]) -> None:
        """What two detectors found, each down to its own threshold. A pair of boxes counts for both of them."""
        self.frames += 1
        self._shown += len(one) + len(other)
        if not len(one) or not len(other):
            return
        named = [[labels[k][int(c)] for c in each.class_ids] for k, each in enumerate((one, other))]
        overlaps = iou_matrix(one.boxes_px, other.boxes_px)
        overlaps[np.array(named[0])[:, None] != np.array(named[1])[None, :]] = 0.0
        while overlaps.max() >= SAME_IOU:
            row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
            overlaps[row, :], overlaps[:, column] = 0.0, 0.0
            self._same += 2

    def classes(self, one: str | None, other: str | None) -> None:
        """What two classifiers take the same picture for."""
        self.frames += 1
        self._shown += 1
        self._same += one == other

    @property
    def share(self) -> float | None:
        """Of all that either found, what both did; None as long as that is too little."""
        return self._same / self._shown if self._shown >= LEAST_SHOWN else None

    def judge(self, rules: Rules) -> Outcome:
        """Whether they see the same; too little to compare is nothing to hold against it, and said."""
        if (share := self.share) is None:
            shown = f"{self._shown} of {LEAST_SHOWN} objects or pictures were there to compare"
            return Outcome(
                reason=f"Whether it sees the same was not judged: {shown}. Try it when there is more to see."
            )
        gate = Gate(value=round(share, 4), limit=rules.min_agreement, ok=share >= rules.min_agreement)
        if gate.ok:
            return Outcome({"agreement": gate})
        reason = (
            f"It sees {share:.0%} of what the one before sees, {rules.min_agreement:.0%} are asked for. "
            "Look at its proof, or lower min_agreement."
        )
        return Outcome({"agreement": gate}, Code.DISAGREES, reason)
