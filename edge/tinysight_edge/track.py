"""Follow objects from frame to frame: an IoU tracker with constant velocity.

In: one camera's detections per frame.  Out: tracks that are alive, and those that have just ended.
A pure function of what it is given: time comes in as seconds, there is no clock and no I/O.
Source of the idea: E. Bochinski et al., High-Speed Tracking-by-Detection Without Using Image Information, AVSS 2017;
the velocity and the votes on the label are ours.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinysight_edge.decode import Detections, iou_matrix

__all__ = ["Track", "Tracker"]

SAME_OBJECT_IOU = 0.5  # a left-over detection that covers a matched track this much is a second reading of it
REST_AFTER_S = 3.0
REST_WITHIN = 0.15  # of the box's larger side


@dataclass(eq=False)
class Track:
    """One object as it is followed.

    Attributes:
        number: unique within its tracker.
        box_px: float32 (4,), the last seen box in frame pixels.
        score: of the last detection, 0..1.
        best_score: the highest so far.
        hits: how many detections it is made of.
        started_s: source time of the first detection.
        seen_s: source time of the last one.
        stationary: it has not moved for three seconds.
    """

    number: int
    box_px: NDArray[np.float32]
    score: float
    best_score: float
    started_s: float
    seen_s: float
    votes: dict[int, float]
    hits: int = 1
    stationary: bool = False
    velocity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))
    _rest_box: NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))
    _rest_since_s: float = 0.0

    @property
    def class_id(self) -> int:
        """What most of the evidence says it is; the lower index of two equals."""
        return max(sorted(self.votes), key=self.votes.__getitem__)

    def see(self, box: NDArray[np.float32], score: float, class_id: int, at_s: float) -> None:
        """Take in a matched detection."""
        passed = max(at_s - self.seen_s, 1e-3)
        blend = 0.5 if self.hits > 1 else 1.0
        self.velocity = (1 - blend) * self.velocity + blend * (box - self.box_px) / np.float32(passed)
        self.box_px, self.score, self.seen_s = box, score, at_s
        self.best_score = max(self.best_score, score)
        self.votes[class_id] = self.votes.get(class_id, 0.0) + score
        self.hits += 1
        side = max(float(box[2] - box[0]), float(box[3] - box[1]), 1.0)
        if float(np.abs(box - self._rest_box).max()) > REST_WITHIN * side:
            self._rest_box, self._rest_since_s = box, at_s
        self.stationary = at_s - self._rest_since_s >= REST_AFTER_S


class Tracker:
    """All objects of one camera.

    Args:
        min_hits: detections before an object is believed.
        max_lost_s: how long it may be unseen before it has ended; 0 ends it with the next frame.
        min_iou: overlap of the expected and the seen box for them to be the same object.
        same_class: a detection of another class is another object (for classifiers, whose box is the whole picture).
    """

    def __init__(
        self, *, min_hits: int = 3, max_lost_s: float = 1.0, min_iou: float = 0.25, same_class: bool = False
    ) -> None:
        self.min_hits, self.max_lost_s, self.min_iou, self.same_class = min_hits, max_lost_s, min_iou, same_class
        self._tracks: list[Track] = []
        self._made = 0

    def update(self, found: Detections, at_s: float) -> tuple[list[Track], list[Track]]:
        """Take in one frame; believed tracks that are alive, and believed tracks that ended now."""
        if self.max_lost_s == 0:
            ended, self._tracks = self._tracks, []
        else:
            ended = [track for track in self._tracks if at_s - track.seen_s > self.max_lost_s]
            # A track that is not believed yet must be seen in every frame.
            self._tracks = [track for track in self._tracks if track not in ended]
        unseen = self._match(found, at_s)
        self._tracks = [track for track in self._tracks if track.hits >= self.min_hits or track.seen_s == at_s]
        for index in unseen:
            self._begin(found, index, at_s)
        return self._believed(self._tracks), self._believed(ended)

    def end_all(self) -> list[Track]:
        """Forget everything; the believed tracks that so ended."""
        ended, self._tracks = self._tracks, []
        return self._believed(ended)

    def _believed(self, tracks: list[Track]) -> list[Track]:
        return [track for track in tracks if track.hits >= self.min_hits]

    def _match(self, found: Detections, at_s: float) -> list[int]:
        """Give detections to tracks, best overlap first; the indices of detections that are new objects."""
        if not self._tracks or not len(found):
            return list(range(len(found)))
        expected = np.stack([track.box_px + track.velocity * np.float32(at_s - track.seen_s) for track in self._tracks])
        overlap = iou_matrix(expected, found.boxes_px)
        if self.same_class:
            classes = np.array([track.class_id for track in self._tracks])
            overlap = np.where(classes[:, None] == found.class_ids[None], overlap, 0.0)
        free_tracks, free_found = set(range(len(self._tracks))), set(range(len(found)))
        order = np.argsort(-overlap, axis=None, kind="stable")
        for t, d in zip(*np.unravel_index(order, overlap.shape), strict=True):
            if overlap[t, d] < self.min_iou:
                break
            if t in free_tracks and d in free_found:
                free_tracks.discard(int(t))
                free_found.discard(int(d))
                self._tracks[t].see(found.boxes_px[d], float(found.scores[d]), int(found.class_ids[d]), at_s)
        if self.same_class:
            return sorted(free_found)
        return [d for d in sorted(free_found) if float(overlap[:, d].max()) < SAME_OBJECT_IOU]

    def _begin(self, found: Detections, index: int, at_s: float) -> None:
        self._made += 1
        box, score = found.boxes_px[index], float(found.scores[index])
        track = Track(self._made, box, score, score, at_s, at_s, {int(found.class_ids[index]): score})
        track._rest_box, track._rest_since_s = box, at_s
        self._tracks.append(track)
