"""Our tracker and ByteTrack of ``trackers`` on the same detections, by turns.

`tracker.py` runs this with the peer's Python, which has our NumPy and nothing of ours but the source beside it.
In: an archive of detections, the archive to write, the settings.  Out: what each told, microseconds per frame.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv  # type: ignore[import-not-found]  # it is in the peer's environment
from numpy.typing import NDArray
from trackers import ByteTrackTracker  # type: ignore[import-not-found]  # as above

sys.path.insert(0, str(Path(__file__).parents[1] / "edge"))

from tinysight_edge.decode import Detections
from tinysight_edge.tracking.track import Tracker

TURN = 20  # frames; so short that both meet the same disturbances
MIN_HITS = 2
MAX_LOST_S = 1.0

Array = NDArray[Any]
Told = list[tuple[Array, Array]]  # numbers and boxes of each frame


def timed(step: Callable[[int], Any], frames: range) -> tuple[list[Any], float]:
    """What each frame gave, and the seconds of all."""
    begun = time.perf_counter()
    given = [step(frame) for frame in frames]
    return given, time.perf_counter() - begun


def follow(rows: Array, given: dict[str, Any]) -> tuple[Told, Told, float, float]:
    """What ours and the peer tell of one sequence, and the microseconds per frame of each."""
    frames = [rows[rows[:, 0] == frame] for frame in range(given["frames"])]
    boxes = [np.ascontiguousarray(frame[:, 1:5], np.float32) for frame in frames]
    scores = [frame[:, 5].astype(np.float32) for frame in frames]
    labels = [frame[:, 6].astype(np.int32) for frame in frames]
    mine = [Detections(*each) for each in zip(boxes, scores, labels, strict=True)]
    its = [sv.Detections(xyxy=b, confidence=s, class_id=c) for b, s, c in zip(boxes, scores, labels, strict=True)]
    fps, high = given["fps"], given["high_score"]
    ours = Tracker(high_score=high, min_hits=MIN_HITS, max_lost_s=MAX_LOST_S)
    peer = ByteTrackTracker(frame_rate=fps, track_activation_threshold=high, high_conf_det_threshold=high)
    told_ours: list[Any] = []
    told_peer: list[Any] = []
    ours_s = peer_s = 0.0
    for begin in range(0, len(frames), TURN):
        turn = range(begin, min(begin + TURN, len(frames)))
        new, passed_s = timed(lambda frame: ours.update(mine[frame], frame / fps)[0], turn)
        told_ours, ours_s = told_ours + new, ours_s + passed_s
        new, passed_s = timed(lambda frame: peer.update(its[frame]), turn)
        told_peer, peer_s = told_peer + new, peer_s + passed_s
    for k, alive in enumerate(told_ours):
        seen = alive.seen_s == k / fps
        told_ours[k] = alive.numbers[seen], alive.boxes_px[seen]
    for k, tracked in enumerate(told_peer):
        known = tracked.tracker_id >= 0
        told_peer[k] = tracked.tracker_id[known], tracked.xyxy[known]
    return told_ours, told_peer, ours_s * 1e6 / len(frames), peer_s * 1e6 / len(frames)


def table(told: Told) -> Array:
    """Rows of frame, identity, x1 y1 x2 y2."""
    return np.concatenate([np.column_stack((np.full(len(ids), k), ids, boxes)) for k, (ids, boxes) in enumerate(told)])


def main(asked: str, answered: str, settings: str) -> None:
    """All sequences, all rounds."""
    given, found = json.loads(settings), dict(np.load(asked))
    follow(next(iter(found.values())), given)  # warm up
    answer: dict[str, Any] = {}
    times: dict[str, list[float]] = {}
    for _ in range(given["rounds"]):
        for key, rows in found.items():
            ours, peer, ours_us, peer_us = follow(rows, given)
            answer[f"ours-{key}"], answer[f"peer-{key}"] = table(ours), table(peer)
            times.setdefault(f"ours-us-{key}", []).append(ours_us)
            times.setdefault(f"peer-us-{key}", []).append(peer_us)
    answer.update({key: np.array(us) for key, us in times.items()})
    np.savez(answered, **answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
