"""Tunes ByteTrack of ``trackers``, then follows the same sequences with it and with ours.

`tracker.py` runs this with the peer's Python, which has our NumPy and nothing of ours but the source beside it.
In: seeds, the peer's defaults and grid, our threshold, as JSON.  Out, as a line of JSON: the settings that were chosen,
IDF1 by number of objects, microseconds per frame of each sequence.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import supervision as sv  # type: ignore[import-not-found]  # it is in the peer's environment
from trackers import ByteTrackTracker  # type: ignore[import-not-found]  # as above

sys.path.insert(0, str(Path(__file__).parents[1] / "edge"))

from boxes import FPS, FRAMES, Array, idf1, play

from tinysight_edge.decode import Detections
from tinysight_edge.tracking.track import Tracker

TURN = 20  # frames; so short that both meet the same disturbances

Settings = dict[str, float]
Key = tuple[int, int]  # number of objects, seed
Step = Callable[[int], Any]  # what a tracker says of a frame


def by_frame(key: Key) -> list[tuple[Array, Array, Array]]:
    """Boxes, scores and labels of each frame."""
    rows = play(*key).found
    frames = np.split(rows, np.searchsorted(rows[:, 0], range(1, FRAMES)))
    return [(np.array(f[:, 1:5], np.float32), f[:, 5].astype(np.float32), f[:, 6].astype(np.int32)) for f in frames]


def make_ours(key: Key, threshold: float) -> Step:
    """With the product's defaults."""
    found, tracker = [Detections(*each) for each in by_frame(key)], Tracker(high_score=threshold)
    return lambda frame: tracker.update(found[frame], frame / FPS)[0]


def make_peer(key: Key, settings: Settings) -> Step:
    """With its defaults but for the settings."""
    found = [sv.Detections(xyxy=b, confidence=s, class_id=c) for b, s, c in by_frame(key)]
    tracker = ByteTrackTracker(frame_rate=FPS, **settings)
    return lambda frame: tracker.update(found[frame])


def score_ours(key: Key, told: list[Any]) -> float:
    """Of the tracks that were seen in their frame."""
    seen = [alive.seen_s == frame / FPS for frame, alive in enumerate(told)]
    return score(key, ((alive.numbers[now], alive.boxes_px[now]) for alive, now in zip(told, seen, strict=True)))


def score_peer(key: Key, told: list[Any]) -> float:
    """Of the detections that were given a number."""
    known = [tracked.tracker_id >= 0 for tracked in told]
    return score(key, ((each.tracker_id[now], each.xyxy[now]) for each, now in zip(told, known, strict=True)))


def score(key: Key, shown: Iterable[tuple[Array, Array]]) -> float:
    """The IDF1 of numbers and boxes, frame by frame."""
    rows = [np.column_stack((np.full(len(ids), frame), ids, boxes)) for frame, (ids, boxes) in enumerate(shown)]
    return idf1(play(*key).truth, np.concatenate(rows))


def try_peer(key: Key, settings: Settings) -> float:
    """Its IDF1 on one sequence."""
    step = make_peer(key, settings)
    return score_peer(key, [step(frame) for frame in range(FRAMES)])


def by_objects(keys: list[Key], scores: Iterable[float]) -> dict[int, float]:
    """The mean of each number of objects."""
    held: dict[int, list[float]] = {}
    for (objects, _), each in zip(keys, scores, strict=True):
        held.setdefault(objects, []).append(each)
    return {objects: mean(each) for objects, each in held.items()}


def tune(
    keys: list[Key], defaults: Settings, grid: dict[str, list[float]], pool: ProcessPoolExecutor
) -> tuple[Settings, float]:
    """One setting after the other takes its best value; the settings and their IDF1."""

    def tried(settings: Settings) -> float:
        return mean(by_objects(keys, pool.map(try_peer, keys, repeat(settings))).values())

    best, best_idf1 = defaults, tried(defaults)
    for name, values in grid.items():
        for settings in [{**best, name: value} for value in values if value != best[name]]:
            reached = tried(settings)
            print(f"{reached:.4f} {settings}", file=sys.stderr, flush=True)
            if reached > best_idf1:
                best, best_idf1 = settings, reached
    return best, best_idf1


def both(key: Key, threshold: float, settings: Settings) -> tuple[float, float, float, float]:
    """By turns: the IDF1 of ours and of the peer, the microseconds per frame of each."""
    steps = make_ours(key, threshold), make_peer(key, settings)
    told: tuple[list[Any], list[Any]] = [], []
    spent_s = [0.0, 0.0]
    for first in range(0, FRAMES, TURN):
        turn = range(first, min(first + TURN, FRAMES))
        for who, step in enumerate(steps):
            begun_s = time.perf_counter()
            said = [step(frame) for frame in turn]
            spent_s[who] += time.perf_counter() - begun_s
            told[who].extend(said)
    ours_us, peer_us = (1e6 * each / FRAMES for each in spent_s)
    return score_ours(key, told[0]), score_peer(key, told[1]), ours_us, peer_us


def main(asked: str) -> None:
    """Tune, follow, time."""
    given = json.loads(asked)
    tuning, scored = ([(int(n), s) for n, each in given[name].items() for s in each] for name in ("tuning", "scored"))
    tuning.sort(reverse=True)  # the longest work first, so that no process ends long before the other
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        settings, tuning_idf1 = tune(tuning, given["defaults"], given["grid"], pool)
        untuned = by_objects(scored, pool.map(try_peer, scored, repeat(given["defaults"])))
    both(scored[0], given["threshold"], settings)  # warm up
    results = [both(key, given["threshold"], settings) for key in scored]
    ours, peer, us, peer_us = zip(*results, strict=True)
    times: dict[str, dict[int, list[float]]] = {"us": {}, "peer_us": {}}
    for (objects, _), mine, its in zip(scored, us, peer_us, strict=True):
        times["us"].setdefault(objects, []).append(mine)
        times["peer_us"].setdefault(objects, []).append(its)
    told = {
        "idf1": by_objects(scored, ours),
        "peer_idf1": by_objects(scored, peer),
        "peer_untuned_idf1": untuned,
        "peer_tuning_idf1": tuning_idf1,
        "peer_settings": settings,
        **times,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
