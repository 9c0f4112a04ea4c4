"""What the model that sees has found, and how far that is from what it found in its test pictures.

In: detections of inferred frames, of each camera one a second of its own time.  Out: `ModelMetrics` for the topic
``model``, and a sentence when the model drifts. One `ModelMeter` is of one model, from when it begins to see until
another does. Knows nothing of MQTT.
"""

import struct
import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.manifest import Manifest
from tinysight_contract.messages import ModelMetrics, ModelRef, Percentiles, utc_now
from tinysight_contract.metrics import BINS, drift
from tinysight_edge.decode import Detections

__all__ = ["WINDOW", "DriftWatch", "ModelMeter", "sure_of"]

WINDOW: Final = 1000
"""Drift is of the newest so many objects, so that it tells of now; times are of as many runs."""
LEAST_RUNS: Final = 20
MOST_LABELS: Final = 500
"""So many are told, those found most: a message must stay below what readers take (256 KiB)."""
CALM: Final = 0.85
"""Drift is over below this share of what is allowed, so that a figure at the limit does not come and go."""
_MS: Final = struct.Struct("f")


def sure_of(found: Detections, task: str, threshold: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """What counts of one picture: the part of 0..1 that each score is in (0 to 19), and each label's index.

    Of a detector all that is at or above the threshold, of a classifier its strongest answer, however weak. The
    reference in a manifest is counted by this function, too.
    """
    if task == "classify":
        scores, ids = found.scores[:1], found.class_ids[:1]
    else:
        kept = found.scores >= threshold
        scores, ids = found.scores[kept], found.class_ids[kept]
    return np.clip(scores * BINS, 0, BINS - 1).astype(np.intp), ids.astype(np.intp)


class ModelMeter:
    """Counts what one model finds. `note` belongs to the telling thread, `take` to any other.

    A frame that is not counted costs a microsecond and no lock; one that is takes a lock that others hold for some
    microseconds at each report.

    Args:
        manifest: of the bundle that sees.
        ref: names it.
        threshold: of the variant that sees.
        boot_id: of this process.
    """

    def __init__(self, manifest: Manifest, ref: ModelRef, threshold: float, boot_id: str) -> None:
        self._task, self._labels, self._reference = manifest.task, manifest.labels, manifest.reference
        self._ref, self._threshold, self._boot_id, self._since = ref, threshold, boot_id, utc_now()
        self._second: dict[str, int] = {}
        self._runs, self._ms = 0, bytearray(WINDOW * _MS.size)
        self._frames = self._found = 0
        self._by_score = np.zeros(BINS, np.int64)
        self._by_label = np.zeros(len(self._labels), np.int64)
        self._newest = np.zeros((2, WINDOW), np.intp)  # parts of 0..1, and labels
        self._lock = threading.Lock()

    def note(self, camera: str, at_s: float, found: Detections, run_ms: float) -> None:
        """One inferred frame.

        Args:
            camera: whose it is.
            at_s: its time in the source; the first frame within each full second counts.
            found: what the model saw in it, strongest first, down to the threshold or below.
            run_ms: of one run of the model, in the mean.
        """
        _MS.pack_into(self._ms, self._runs % WINDOW * _MS.size, run_ms)
        self._runs += 1
        if (second := int(at_s)) != self._second.get(camera):
            self._second[camera] = second
            self._count(found)

    def _count(self, found: Detections) -> None:
        bins, ids = (each[:WINDOW] for each in sure_of(found, self._task, self._threshold))
        with self._lock:
            self._frames += 1
            self._by_score += np.bincount(bins, minlength=BINS)
            self._by_label += np.bincount(ids, minlength=len(self._labels))
            self._newest[:, (self._found + np.arange(len(bins))) % WINDOW] = bins, ids
            self._found += len(bins)

    def take(self) -> ModelMetrics:
        """All since it began to see."""
        with self._lock:
            frames, found, newest = self._frames, self._found, self._newest.copy()
            scores, counts = self._by_score.tolist(), self._by_label.copy()
        bins, ids = newest[:, : min(found, WINDOW)]
        recent = np.bincount(bins, minlength=BINS).tolist()
        far = drift(recent, self._named(np.bincount(ids, minlength=len(self._labels))), self._reference)
        return ModelMetrics(
            at=utc_now(),
            boot_id=self._boot_id,
            bundle=self._ref.digest,
            name=self._ref.name,
            version=self._ref.version,
            since=self._since,
            frames=frames,
            scores=scores,
            labels=self._named(counts, most=MOST_LABELS),
            inference_ms=self._took(),
            drift=None if far is None else round(far[0], 4),
            mix=None if far is None else round(far[1], 4),
        )

    def _named(self, counts: NDArray[np.int64], *, most: int | None = None) -> dict[str, int]:
        """By label, in the order of the manifest; what was never found is left out."""
        seen = np.flatnonzero(counts)
        if most is not None and len(seen) > most:
            seen = np.sort(seen[np.argsort(-counts[seen], kind="stable")[:most]])
        return {self._labels[index]: int(counts[index]) for index in seen}

    def _took(self) -> Percentiles | None:
        runs = min(self._runs, WINDOW)  # read before the buffer, which is copied in one step of the interpreter
        if runs < LEAST_RUNS:
            return None
        middle, tail = np.percentile(np.frombuffer(bytes(self._ms), np.float32)[:runs], (50, 95))
        return Percentiles(p50=round(float(middle), 3), p95=round(float(tail), 3))


class DriftWatch:
    """Decides whether a model drifts; remembers whether it did.

    Attributes:
        most: how far the scores may be from the reference; may be changed. 1 is any.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self._drifts = ""

    def judge(self, told: ModelMetrics) -> str | None:
        """What is to be said of it; None when all is well, or nothing is known.

        Another bundle begins anew, and what drifts does so until it is well below what is allowed.
        """
        allowed = self.most * CALM if self._drifts == told.bundle else self.most
        if told.drift is None or told.drift <= allowed:
            self._drifts = ""
            return None
        self._drifts = told.bundle
        newest = min(sum(told.scores), WINDOW)
        mix = "" if told.mix is None else f"; the mix of its labels by {told.mix:.2f}"
        return (
            f"The newest {newest} scores of {told.name} {told.version} differ by {told.drift:.2f} from those in its "
            f"test pictures, {self.most:.2f} are allowed{mix}."
        )
