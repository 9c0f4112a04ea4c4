"""How well and how fast objects are followed, against ByteTrack of the package ``trackers`` (Roboflow).

    python benchmarks/tracker.py        about 3 minutes on 2 cores; the first time it fetches the peer (400 MB)

`boxes.py` makes the sequences and tells the IDF1; both trackers get the same detections, all that score 0.3 or more,
and both tell what they saw in a frame, not what they only expect.

**Fairness.** The peer is tuned, ours is not. The peer's settings start at its documented defaults; then one after the
other takes the value with the best IDF1, in the mean over 5, 20 and 100 objects, on the *tuning* seeds: `GRID`, in that
order. The scored seeds are others. Ours runs with the product's defaults (three hits, two seconds), and its threshold
is the model's, found as `tinysight convert` finds it: the best F1 of single pictures of the tuning seeds, which asks
nothing about tracking. Our constants were chosen on seeds 100 to 139 and the tuning seeds. The fewer objects a sequence
has the more it depends on single ones, and the more of them are played. For the times both run in one process, by turns
of 20 frames.

Prints one JSON line last: ``idf1`` and ``peer_idf1`` are means over the sizes, the same in every run;
``us_per_frame`` and ``peer_us_per_frame`` are medians over seeds, by number of objects; ``speedup`` is the median of
their ratios, the worst of the three sizes. ``peer_untuned_idf1`` is the peer's with its documented defaults,
``peer_settings`` what the search chose, ``peer_tuning_idf1`` what that gave on the tuning seeds.
"""

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from boxes import FRAMES, play
from steps import where

from tinysight_converters.environments import environment
from tinysight_converters.metrics import best_threshold
from tinysight_converters.run import Example
from tinysight_edge.decode import Detections

TUNING = {5: range(200, 212), 20: range(200, 203), 100: range(200, 201)}
SCORED = {5: range(1000, 1040), 20: range(1000, 1010), 100: range(1000, 1005)}
DEFAULTS = {
    "high_conf_det_threshold": 0.6,
    "track_activation_threshold": 0.7,
    "minimum_consecutive_frames": 2,
    "minimum_iou_threshold": 0.1,
    "lost_track_buffer": 30,
}
GRID = {
    "high_conf_det_threshold": (0.3, 0.4, 0.5, 0.6),
    "track_activation_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
    "minimum_consecutive_frames": (1, 2, 3),
    "minimum_iou_threshold": (0.1, 0.15, 0.2, 0.3),
    "lost_track_buffer": (30, 60, 90),
}
PICTURE_EVERY = 20  # frames, of those that the threshold is chosen on
# fmt: off -- as `pip list --format=freeze` tells them; msgspec is what our own tracker needs there
PEER = (
    "av==18.1.0",
    "certifi==2026.10.19.post1",
    "charset-normalizer==3.5.3",
    "contourpy==1.3.3",
    "cycler==0.12.1",
    "defusedxml==0.7.1",
    "fonttools==4.68.0",
    "idna==3.20",
    "kiwisolver==1.5.1",
    "markdown-it-py==4.3.0",
    "matplotlib==3.11.2",
    "mdurl==0.1.2",
    "msgspec==0.22.0",
    "numpy==2.4.6",
    "opencv-python==5.0.0.93",
    "packaging==26.4",
    "pillow==13.0.0",
    "pyDeprecate==0.13.0",
    "Pygments==2.21.0",
    "pyparsing==3.3.3",
    "python-dateutil==4.0.0",
    "PyYAML==6.0.4",
    "requests==2.34.2",
    "rich==15.0.0",
    "scipy==1.17.1",
    "supervision==0.31.2",
    "tqdm==4.70.1",
    "trackers==2.6.0",
    "tzdata==2026.6",
    "urllib3==2.8.0",
)
# fmt: on


def threshold() -> float:
    """As a bundle's: what parts right from wrong detections best, in pictures of the tuning seeds."""
    found, true = [], []
    for objects, seeds in TUNING.items():
        for seed in seeds:
            sequence = play(objects, seed)
            for frame in range(0, FRAMES, PICTURE_EVERY):
                rows = sequence.found[sequence.found[:, 0] == frame, 1:]
                boxes, scores = rows[:, :4].astype(np.float32), rows[:, 4].astype(np.float32)
                found.append(Detections(boxes, scores, rows[:, 5].astype(np.int32)))
                real = sequence.truth[sequence.truth[:, 0] == frame]
                true.append(
                    Example(
                        name="",
                        sha256="",
                        boxes=[tuple(box) for box in real[:, 2:].tolist()],
                        class_ids=[int(number) % 2 for number in real[:, 1]],
                        crowd=[False] * len(real),
                    )
                )
    return round(best_threshold(found, true), 4)


def main() -> None:
    """Let the peer's Python tune, follow and time; compare."""
    python, child = environment("bytetrack", PEER), Path(__file__).with_name("tracker_child.py")
    asked = {
        "tuning": {n: list(seeds) for n, seeds in TUNING.items()},
        "scored": {n: list(seeds) for n, seeds in SCORED.items()},
        "defaults": DEFAULTS,
        "grid": GRID,
        "threshold": threshold(),
    }
    done = subprocess.run([python, child, json.dumps(asked)], check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    us, peer_us = told["us"], told["peer_us"]
    speedups = {n: round(statistics.median(b / a for a, b in zip(us[n], peer_us[n], strict=True)), 2) for n in us}
    figures = {
        "idf1": round(statistics.mean(told["idf1"].values()), 4),
        "peer_idf1": round(statistics.mean(told["peer_idf1"].values()), 4),
        "us_per_frame": {n: round(statistics.median(each), 1) for n, each in us.items()},
        "peer_us_per_frame": {n: round(statistics.median(each), 1) for n, each in peer_us.items()},
        "speedup": min(speedups.values()),
        "peer_untuned_idf1": round(statistics.mean(told["peer_untuned_idf1"].values()), 4),
        "peer_tuning_idf1": round(told["peer_tuning_idf1"], 4),
        "peer_settings": told["peer_settings"],
        "threshold": asked["threshold"],
        **{
            f"{name}_by_objects": {n: round(each, 4) for n, each in told[name].items()}
            for name in ("idf1", "peer_idf1", "peer_untuned_idf1")
        },
        "speedup_by_objects": speedups,
        "seeds_by_objects": {n: len(each) for n, each in SCORED.items()},
        "where": where(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
