"""The strongest class, said of the whole picture."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.manifest import Classify
from tinysight_edge.decoders.boxes import Detections
from tinysight_edge.decoders.stored import Task, activated, real

__all__ = ["ClassifyDecoder"]


class ClassifyDecoder:
    """One class, or nothing when it does not reach the threshold; scores that are no numbers play no part."""

    def __init__(self, task: Task[Classify]) -> None:
        self._scores, self._how, self._threshold = task.outputs["scores"], task.how, task.score
        self._whole = np.array([[0, 0, task.width, task.height]], np.float32)

    def __call__(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        """Raw outputs by name → detections in model pixels."""
        scores = real(outputs[self._scores.name][0], self._scores)
        known = np.isfinite(scores)
        scores = activated(np.where(known, scores, np.float32(-1e30)), self._how.activation)
        first = int(self._how.background)
        scores, known = scores[first:], known[first:]
        best = np.argmax(np.where(known, scores, -np.inf), keepdims=True).astype(np.int32)
        best = best[known[best] & (scores[best] >= self._threshold)]
        return Detections(self._whole[: len(best)].copy(), np.clip(scores[best], 0.0, 1.0), best)
