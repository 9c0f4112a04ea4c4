"""What is in one frame, as messages say it: the topic ``frame``, for who wants every detection and not only events.

In: a `Frame` and what it brought.  Out: a message, no more than so many a second and camera. Publishes nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.messages import Detection, FrameSize
from tinysight_contract.messages import Frame as Message
from tinysight_edge.cameras.hub import Frame
from tinysight_edge.cameras.pace import RateLimit
from tinysight_edge.view import Seer, Told

__all__ = ["Frames", "detection_of"]


def detection_of(
    labels: Sequence[str],
    class_id: np.int32,
    score: np.float32,
    box_px: NDArray[np.float32],
    size: FrameSize,
    *,
    track_id: str | None = None,
) -> Detection:
    """One object of a frame; its box is cut off at the frame's edge.

    Args:
        labels: by class id.
        class_id: of the object.
        score: 0..1.
        box_px: x1 y1 x2 y2 in pixels of the frame.
        size: of the frame.
        track_id: the event that follows it.
    """
    full = np.array((size.width, size.height) * 2, np.float32)
    x1, y1, x2, y2 = np.clip(box_px / full, 0.0, 1.0).astype(float).round(5).tolist()
    return Detection(
        label=labels[int(class_id)],
        class_id=int(class_id),
        score=round(float(score), 4),
        box=(x1, y1, x2, y2),
        track_id=track_id,
    )


class Frames:
    """Tells frames.

    Args:
        per_s: no more than so many of each camera.
        seer: what sees.
    """

    def __init__(self, per_s: float, seer: Seer) -> None:
        self._per_s, self._seer = per_s, seer
        self._labels = tuple(seer.bundle.manifest.labels)
        self._classifies = seer.bundle.manifest.task == "classify"
        self._limits: dict[str, RateLimit] = {}

    def of(self, frame: Frame, told: Told, ids: Mapping[int, str]) -> Message | None:
        """The message; None when the camera's next one is not due, or the model was not asked.

        Args:
            frame: was inferred.
            told: what it brought.
            ids: the event of each object that has one open, by the track's number.
        """
        limit = self._limits.setdefault(frame.camera, RateLimit(self._per_s))
        found = told.found
        if found is None or not limit.passes(frame.at_s):
            return None
        height, width = frame.image_bgr.shape[:2]
        size, alive = FrameSize(width=width, height=height), told.alive
        fresh = alive.seen_s >= frame.at_s
        names = [ids.get(int(number)) for number in alive.numbers[fresh]]
        known = dict(zip(_marks(alive.boxes_px[fresh], alive.scores[fresh]), names, strict=True))
        most = min(len(found), 1) if self._classifies else int(np.count_nonzero(found.scores >= self._seer.threshold))
        boxes, scores = found.boxes_px[:most], found.scores[:most]
        rows = zip(found.class_ids[:most], scores, boxes, _marks(boxes, scores), strict=True)
        return Message(
            boot_id=self._seer.boot_id,
            frame=size,
            seen_at=frame.captured_at,
            model=self._seer.ref,
            detections=[
                detection_of(self._labels, class_id, score, box, size, track_id=known.get(mark))
                for class_id, score, box, mark in rows
            ],
        )


def _marks(boxes_px: NDArray[np.float32], scores: NDArray[np.float32]) -> list[bytes]:
    """What a detection and the track that took it in this frame have in common, to the bit."""
    return [row.tobytes() for row in np.column_stack((boxes_px, scores)).astype(np.float32)]
