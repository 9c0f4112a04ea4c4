"""The figures that simulated devices tell of a bundle: of its self-test, its trial, and of what it sees afterwards.

In: a `Behaviour`, a place in 0..1 that makes devices differ.  Out: `Gate`s as a real device tells them, `ModelMetrics`.
Pure.
"""

from datetime import datetime
from typing import Final

from tinysight_contract.messages import ModelMetrics, Percentiles
from tinysight_contract.metrics import BINS
from tinysight_contract.updates import Gate, Release
from tinysight_edge.simulate.behave import Behaviour

__all__ = ["SEEN_S", "lies", "metrics", "of_test", "of_trial"]

BEFORE_MS: Final = 21.0
"""What a run takes with the bundle before, 95th percentile."""
MOST_MIB: Final = 256.0
SLOWDOWN: Final = 2.0
DRIFTED: Final = 0.9
SEEN_S: Final = 1.0
"""Of frames that are counted."""


def _times_ms(behaviour: Behaviour, place: float) -> tuple[float, float]:
    """The 95th percentile of a run before, and with the new bundle."""
    before = BEFORE_MS * (0.9 + 0.2 * place)
    return round(before, 2), round(before * (SLOWDOWN if behaviour is Behaviour.SLOW else 0.97 + 0.06 * place), 2)


def of_test(behaviour: Behaviour, place: float) -> dict[str, Gate]:
    """Of a self-test that was passed."""
    before, now = _times_ms(behaviour, place)
    memory = round(90.0 + 10 * place, 1)
    return {
        "golden": Gate(value=0.0, limit=0.0, ok=True),
        "p95_ms": Gate(value=now, limit=round(2.5 * before, 2), ok=True, before=before),
        "memory_mib": Gate(value=memory, limit=MOST_MIB, ok=True, before=round(memory - 2.0, 1)),
    }


def of_trial(behaviour: Behaviour, place: float, *, cameras: int) -> dict[str, Gate]:
    """Of a trial that was stood."""
    before, now = _times_ms(behaviour, place)
    return {
        "frames": Gate(value=float(cameras), limit=float(cameras), ok=True),
        "trial_p95_ms": Gate(value=round(now + 1.0, 2), limit=round(2.5 * before, 2), ok=True, before=before),
        "agreement": Gate(value=round(0.95 + 0.05 * place, 4), limit=0.5, ok=True),
    }


def lies() -> dict[str, Gate]:
    """Figures that cannot be, as a device would tell them that wants to break who reads."""
    return {
        "golden": Gate(value=-1.0, limit=0.0, ok=True),
        "p95_ms": Gate(value=1e300, limit=0.0, ok=True, before=0.0),
        "memory_mib": Gate(value=-1e300, limit=0.0, ok=True, before=1e-300),
        "trial_p95_ms": Gate(value=1e300, limit=-1.0, ok=True, before=0.0),
        "agreement": Gate(value=1e300, limit=0.0, ok=True),
    }


def metrics(
    release: Release, behaviour: Behaviour, place: float, *, boot_id: str, since: datetime, now: datetime
) -> ModelMetrics:
    """What a bundle has found since it began to see. One that drifts does so from its first frame on."""
    frames = round(max((now - since).total_seconds(), 0.0) / SEEN_S)
    drifted = behaviour is Behaviour.DRIFT
    scores = [0] * BINS
    for frame in range(min(frames, BINS * 20)):  # a fixed pattern: sure of most, or of nothing
        scores[10 + frame % 3 if drifted else BINS - 1 - frame % 4] += 1
    before, after = _times_ms(behaviour, place)
    return ModelMetrics(
        at=now,
        boot_id=boot_id,
        bundle=release.digest,
        name=release.name,
        version=release.version,
        since=since,
        frames=frames,
        scores=scores,
        labels={"object": sum(scores)} if frames else {},
        inference_ms=Percentiles(p50=round(before * 0.8, 2), p95=after),
        drift=DRIFTED if drifted else round(0.02 + 0.03 * place, 4),
        mix=DRIFTED if drifted else round(0.02 + 0.02 * place, 4),
    )
