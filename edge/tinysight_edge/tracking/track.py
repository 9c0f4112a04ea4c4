"""Follow objects from frame to frame: ByteTrack's association by two bands of scores, over a Kalman filter.

In: one camera's detections per frame.  Out: `Tracks` that are alive, and those that have just ended.
A pure function of what it is given: time comes in as seconds, there is no clock and no I/O.

All tracks are columns of one table, so that a frame costs some sixty NumPy calls however many objects there are.
Source: Y. Zhang et al., ByteTrack: Multi-Object Tracking by Associating Every Detection Box, ECCV 2022. Ours are time
in seconds instead of frames, the votes on the label, and the median of the scores that decides what is believed.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_edge.decode import Detections, iou_matrix
from tinysight_edge.tracking import kalman
from tinysight_edge.tracking.assign import assign, overlapping
from tinysight_edge.tracking.tracks import Tracks

__all__ = ["LOST_S", "LOW_BAND", "Tracker"]

LOW_BAND: Final = 0.5
"""Detections down to this share of the model's threshold can keep a track alive, though they begin none."""

LOST_S: Final = 2.0
"""An object that is unseen for longer has ended. Half of that loses it behind posts, a few times it ends late."""

MIN_IOU: Final = 0.2  # of the expected and the seen box, for them to be the same object
SAME_OBJECT_IOU: Final = 0.5  # a left-over detection that covers a matched track this much is a second reading of it
REST_AFTER_S: Final = 3.0
REST_EVERY_S: Final = 0.25  # so often is looked for who has moved
REST_WITHIN: Final = 0.15  # of the box's larger side
GAP: Final = 5.0  # after so many times ``max_lost_s`` without a frame nobody can say that an object is the same

# The table's rows. The filter's state comes first, then what `Tracks` tells, in one block.
STATE: Final = slice(0, kalman.ROWS)
BOX: Final = slice(13, 17)  # as it was last seen
SEEN: Final = slice(13, 19)  # with two rows of zeros, as the filter takes it
SCORES: Final = slice(19, 29)  # the last ten, newest last
OLDER, NEWER, SCORE, MEDIAN, BEST = slice(19, 28), slice(20, 29), 28, 29, 30
LABEL, NUMBER, STARTED_S, SEEN_S, RESTS_S = 31, 32, 33, 34, 35
# ENDS_S: it has ended when it is unseen after that, held time taken off; always for one that is not believed.
# HITS are counted while some track is not believed. LEAD: the evidence for its label.
FIRST_BOX, BELIEVED, HITS, ENDS_S, LEAD, REST_LIMIT, REST_BOX, ALL = (
    slice(36, 40),
    40,
    41,
    42,
    43,
    44,
    slice(45, 49),
    49,
)
TOLD: Final = slice(13, 40)

# Above and below any score in turn, in the order in which they go: however few scores there are yet, the fifth of the
# ten in order of size is their lower median.
NO_SCORES: Final = np.array([2.0, -1.0] * 4 + [2.0])[:, None]


class Tracker:
    """All objects of one camera.

    Args:
        high_score: the model's threshold. Detections that reach it begin tracks and are matched first; lower ones
            only keep tracks alive. A track is believed once the median of its last ten scores reaches it.
        min_hits: detections before an object is believed. Until then it must be seen in every frame.
        max_lost_s: how long it may be unseen before it has ended; 0 ends it with the next frame.

    Attributes:
        high_score: may be changed at any time; who is believed stays so.
    """

    def __init__(self, *, high_score: float, min_hits: int = 3, max_lost_s: float = LOST_S) -> None:
        self.high_score: float | np.float32 = np.float32(high_score)
        self.min_hits, self.max_lost_s = min_hits, max_lost_s
        self._table = np.zeros((ALL, 0))
        self._others: dict[int, dict[int, float]] = {}  # number → evidence for the labels that are not its own
        self._made = 0
        self._at_s = self._held_s = 0.0
        self._rest_s = 0.0  # when to look next for whom has moved
        self._doubts = False  # some track is not believed
        self._alive = Tracks.none()

    def update(self, found: Detections, at_s: float) -> tuple[Tracks, Tracks]:
        """Take in one frame.

        Args:
            found: what it contains, in frame pixels.
            at_s: its source time, never before that of the last frame.

        Returns:
            Believed tracks that are alive, seen or not; believed tracks that ended now.
        """
        passed_s, self._at_s = at_s - self._at_s, at_s
        still = not self.max_lost_s or passed_s > GAP * self.max_lost_s
        ended = self.end_all() if still else Tracks.none()
        if self._table.shape[1]:
            kalman.predict(self._table[STATE], passed_s)
            rows, cols, fresh = self._match(found)
            if cols:
                self._see(found, rows, cols)
            if len(rows) < self._table.shape[1]:
                ended = self._lose()
        else:
            fresh = (found.scores >= self.high_score).nonzero()[0].tolist()
        if fresh:
            self._begin(found, fresh)
        if at_s >= self._rest_s:
            self._rest_s = at_s + REST_EVERY_S
            self._rest()
        if self._doubts:
            self._believe()
        self._alive = self._tell(self._table[BELIEVED].nonzero()[0] if self._doubts else None)
        return self._alive, ended

    def hold(self, at_s: float) -> Tracks:
        """Pass over a frame in which nothing moved: all stays as it was, and nobody is nearer to being lost."""
        self._held_s += at_s - self._at_s
        self._at_s = at_s
        return self._alive

    def end_all(self) -> Tracks:
        """Forget everything; the believed tracks that so ended."""
        ended = self._tell(self._table[BELIEVED].nonzero()[0])
        self._table, self._doubts, self._alive = np.zeros((ALL, 0)), False, Tracks.none()
        self._others.clear()
        return ended

    def _match(self, found: Detections) -> tuple[list[int], list[int], list[int]]:
        """Tracks in rising order, the detection of each, and the detections that are new objects."""
        rows, cols, overlaps = overlapping(self._table[:4], found.boxes_px, MIN_IOU)
        doubles: set[int] = set()
        if len(set(rows)) < len(rows) or len(set(cols)) < len(cols):
            doubles.update(col for col, overlap in zip(cols, overlaps, strict=True) if overlap >= SAME_OBJECT_IOU)
            strong = (found.scores >= self.high_score).tolist()
            pairs = [k for k, col in enumerate(cols) if strong[col]]
            taken = _chosen(pairs, rows, cols, overlaps)
            if len(pairs) < len(cols):  # the low band, for the tracks that are left
                gone = {rows[k] for k in taken}
                pairs = [k for k, col in enumerate(cols) if not strong[col] and rows[k] not in gone]
                taken += _chosen(pairs, rows, cols, overlaps)
            taken.sort()
            rows, cols = [rows[k] for k in taken], [cols[k] for k in taken]
        if len(cols) == len(found):
            return rows, cols, []
        doubles.update(cols)
        strong = (found.scores >= self.high_score).tolist()
        return rows, cols, [d for d, well in enumerate(strong) if well and d not in doubles]

    def _see(self, found: Detections, rows: list[int], cols: list[int]) -> None:
        """Take in the matched detections."""
        theirs, its = np.array(rows), np.array(cols)
        every = len(rows) == self._table.shape[1]
        seen = self._table if every else self._table.take(theirs, 1)
        seen[BOX] = found.boxes_px.take(its, 0).T
        kalman.correct(seen[STATE], seen[SEEN])
        seen[OLDER] = seen[NEWER]
        seen[SCORE] = found.scores.take(its)
        scores, best, lead = seen[SCORES].copy(), seen[BEST], seen[LEAD]
        scores.partition(4, 0)
        seen[MEDIAN] = scores[4]
        np.maximum(best, seen[SCORE], out=best)
        seen[SEEN_S], seen[ENDS_S] = self._at_s, self._at_s - self._held_s + self.max_lost_s
        if self._doubts:
            seen[HITS] += 1.0
        labels = found.class_ids.take(its)
        other = seen[LABEL] != labels
        if np.count_nonzero(other):
            lead += np.where(other, 0.0, seen[SCORE])
            for k in other.nonzero()[0].tolist():
                self._vote(seen[:, k], int(labels[k]))
        else:
            lead += seen[SCORE]
        if not every:
            self._table[:, theirs] = seen

    def _vote(self, track: NDArray[np.float64], label: int) -> None:
        """Evidence for another label than the track's: the most evidence wins, of two equals the lower index."""
        votes = self._others.setdefault(int(track[NUMBER]), {})
        votes[label] = votes.get(label, 0.0) + float(track[SCORE])
        if (votes[label], -label) > (track[LEAD], -track[LABEL]):
            votes[int(track[LABEL])] = float(track[LEAD])
            track[LABEL], track[LEAD] = label, votes.pop(label)

    def _rest(self) -> None:
        """Whoever has left the place where it rested begins a new rest."""
        table = self._table
        away = np.abs(table[BOX] - table[REST_BOX]) > table[REST_LIMIT]
        if np.count_nonzero(away):
            which = np.logical_or.reduce(away, 0).nonzero()[0]
            box = table[BOX].take(which, 1)
            table[REST_BOX, which], table[REST_LIMIT, which], table[RESTS_S, which] = box, _rest_limit(box), self._at_s

    def _lose(self) -> Tracks:
        """Forget those that are unseen for too long, or unseen before they were believed; the believed ones of them."""
        table = self._table
        gone = table[ENDS_S] < self._at_s - self._held_s
        if not np.count_nonzero(gone):
            return Tracks.none()
        if self._others:
            for number in table[NUMBER].compress(gone).tolist():
                self._others.pop(int(number), None)
        ended = self._tell((gone & (table[BELIEVED] > 0.0)).nonzero()[0])
        self._table = table.compress(~gone, 1)
        return ended

    def _begin(self, found: Detections, fresh: list[int]) -> None:
        """Start tracks, but one where two readings are of the same object: that of the higher score."""
        if len(fresh) > 1:
            fresh = sorted(fresh, key=found.scores.__getitem__, reverse=True)
            same = iou_matrix(found.boxes_px[fresh], found.boxes_px[fresh]) >= SAME_OBJECT_IOU
            first: list[int] = []
            for k in range(len(fresh)):
                if not same[k, first].any():
                    first.append(k)
            fresh = [fresh[k] for k in first]
        boxes, scores = found.boxes_px[fresh].T.astype(np.float64), found.scores[fresh]
        new = np.zeros((ALL, len(fresh)))
        new[STATE], new[BOX], new[REST_BOX], new[FIRST_BOX] = kalman.starting(boxes), boxes, boxes, boxes
        new[OLDER] = NO_SCORES
        new[SCORE] = new[MEDIAN] = new[BEST] = new[LEAD] = scores
        new[LABEL] = found.class_ids[fresh]
        new[NUMBER] = np.arange(self._made + 1, self._made + 1 + len(fresh))
        new[STARTED_S] = new[SEEN_S] = new[RESTS_S] = self._at_s
        new[HITS], new[REST_LIMIT] = 1.0, _rest_limit(boxes)
        self._made += len(fresh)
        self._doubts = True
        self._table = np.concatenate((self._table, new), 1)

    def _believe(self) -> None:
        """Whoever was seen often enough and well enough is believed from now on."""
        table = self._table
        sure = (table[HITS] >= self.min_hits) & (table[MEDIAN] >= self.high_score)
        np.maximum(table[BELIEVED], sure, out=table[BELIEVED])
        table[ENDS_S, table[BELIEVED] == 0.0] = -np.inf
        self._doubts = int(np.count_nonzero(table[BELIEVED])) < table.shape[1]

    def _tell(self, which: NDArray[np.intp] | None) -> Tracks:
        """Those tracks, or all, as arrays of their own."""
        told = self._table[TOLD] if which is None else self._table[TOLD].take(which, 1)
        floats, whole, times = told.astype(np.float32), told[18:20].astype(np.int64), told[20:23].copy()
        return Tracks(
            numbers=whole[1],
            boxes_px=floats[:4].T,
            scores=floats[15],
            median_scores=floats[16],
            best_scores=floats[17],
            class_ids=whole[0].astype(np.int32),
            started_s=times[0],
            seen_s=times[1],
            stationary=times[1] - times[2] >= REST_AFTER_S,
            first_boxes_px=floats[23:].T,
        )


def _chosen(pairs: list[int], rows: list[int], cols: list[int], overlaps: list[float]) -> list[int]:
    """Those of the pairs that `assign` takes."""
    taken = assign([rows[k] for k in pairs], [cols[k] for k in pairs], [overlaps[k] for k in pairs])
    return [pairs[k] for k in taken]


def _rest_limit(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far an edge of boxes (4, n) may go while they are said to rest: (n,), pixels."""
    limit: NDArray[np.float64] = REST_WITHIN * np.maximum((boxes[2:] - boxes[:2]).max(0), 1.0)
    return limit
