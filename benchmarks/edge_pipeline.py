"""The whole agent against the shortest honest loop: how much of a bare interpreter's speed is left, and at what cost.

    python benchmarks/edge_pipeline.py        about 5 minutes; 6 more the first time, to train both detectors

A 720p H.264 file with 20 crates in view, read whole by both. The bare loop is a reader thread with
``cv2.VideoCapture``, then ``cv2.resize`` and invoke; the agent also decodes, tracks, makes events, keeps them in its
outbox and sends them to a real broker. Both are timed from the first frame taken to the last frame done, with one
thread of the interpreter and the same decoder threads, in turns, in one process. Each pass of the agent is compared
with the bare passes before and after it, and the median of that is told, so that a slow drift does no harm.

``overhead_ms`` is the processor time of *all* threads of the agent, a frame, less that of the bare loop: everything on
the host besides decoding the video, resizing and invoking. ``frame_age_p95_ms`` is of all frames of the same file,
played at its own pace as if live, from when the picture is decoded until its events are ready: the worse model's, which
keeps up; ``overloaded`` is four live cameras, 400 frames a second in all, which no model here keeps up with. Prints one
JSON line last.
"""

import argparse
import json
import os
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import cv2
import numpy as np
from drive import Pass, Run, invoke_ms, run_agent, run_bare
from rig import MODELS, broker, detector, say, yard_video
from steps import where

from tinysight_contract.bundle import Bundle
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.decode import make_decoder
from tinysight_edge.interpreter import Model
from tinysight_edge.preprocess import Preprocessor

FRAMES = 900


def objects_in_view(bundle: Path, video: Path) -> float:
    """How many objects the model finds in a picture, in the mean over the video."""
    loaded = Bundle.open(bundle)
    model = Model.load(loaded)
    prepare = Preprocessor(loaded.manifest.input, model.variant.input)
    find = make_decoder(loaded.manifest, model.variant)
    capture, found = cv2.VideoCapture(str(video)), list[int]()
    for number in range(FRAMES):
        image = np.asarray(capture.read()[1], np.uint8)
        if number % 30 == 0:
            found.append(len(find(model.run(prepare(image)[0]))))
    return mean(found)


def compare(bundle: Path, video: Path, url: str, *, turns: int) -> dict[str, Any]:
    """Both loops in turns; figures of one model."""
    invokes: list[float] = []
    runs: list[Run] = []
    run_bare(bundle, video)  # so that the first turn finds warm caches
    bare = [run_bare(bundle, video)]
    for _ in range(turns):
        invokes.append(invoke_ms(bundle))
        runs.append(run_agent(bundle, {"yard": CameraConfig(source=str(video))}, url))
        bare.append(run_bare(bundle, video))
        this = runs[-1].passed, bare[-1]
        if any(each.frames != FRAMES for each in this):
            raise SystemExit(f"of {FRAMES} frames {this[0].frames} and {this[1].frames} were seen")
        say(f"  agent {this[0].fps:.1f} fps, bare {this[1].fps:.1f} fps, load {os.getloadavg()[0]:.1f}")
    whole = [each.passed for each in runs]

    def middle(passes: list[Pass], name: str) -> float:
        return float(median(getattr(each, name) for each in passes))

    def against(name: str) -> list[tuple[float, float]]:
        """Each of the agent's passes, and the mean of the bare ones before and after it."""
        beside = [(getattr(a, name) + getattr(b, name)) / 2 for a, b in pairwise(bare)]
        return list(zip((getattr(each, name) for each in whole), beside, strict=True))

    result = runs[-1].result
    return {
        "ratio": round(median(mine / theirs for mine, theirs in against("fps")), 3),
        "fps": round(middle(whole, "fps"), 1),
        "bare_fps": round(middle(bare, "fps"), 1),
        "invoke_fps": round(1e3 / median(invokes), 1),
        "overhead_ms": round(median(mine - theirs for mine, theirs in against("process_ms")), 3),
        "loop_overhead_ms": round(median(mine - theirs for mine, theirs in against("loop_ms")), 3),
        "objects": round(objects_in_view(bundle, video), 1),
        "events": sum(int(result[f"events_{kind}"]) for kind in ("start", "update", "end")),
    }


def frame_age(bundle: Path, url: str, cameras: dict[str, CameraConfig], *, seconds: float) -> dict[str, float]:
    """Of live cameras: the age of a frame when its events are ready, and what was dropped, by the agent's own word."""
    run = run_agent(bundle, cameras, url, seconds=seconds)
    told = run.health.cameras.values()
    return {
        "p95_ms": run.age_p95_ms,
        "frames": sum(each.frames for each in told),
        "inferred": sum(each.inferred for each in told),
        "dropped": sum(sum(each.dropped.values()) for each in told),
    }


def main() -> None:
    """Make, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15, help="of bare loop and agent, for each model")
    parser.add_argument("--live-s", type=float, default=20.0, help="of each live run")
    given = parser.parse_args()
    video = yard_video(FRAMES)
    bundles = {name: detector(name) for name in MODELS}
    models: dict[str, dict[str, Any]] = {}
    with broker() as url:
        for name, bundle in bundles.items():
            say(f"{name}:")
            models[name] = compare(bundle, video, url, turns=given.turns)
        live = {"yard": CameraConfig(source=str(video), realtime=True)}
        keeps_up = {name: frame_age(each, url, live, seconds=given.live_s) for name, each in bundles.items()}
        crowd = {f"belt{n}": CameraConfig(source=f"synthetic:belt?fps=100&seed={n}") for n in range(4)}
        falls_behind = frame_age(bundles["large"], url, crowd, seconds=given.live_s)
    worst = min(models, key=lambda name: float(models[name]["ratio"]))
    figures = {name: models[worst][name] for name in ("ratio", "fps", "bare_fps", "invoke_fps")}
    figures["overhead_ms"] = max(each["overhead_ms"] for each in models.values())
    figures["frame_age_p95_ms"] = round(max(each["p95_ms"] for each in keeps_up.values()), 1)
    figures["overloaded_age_p95_ms"] = round(falls_behind["p95_ms"], 1)
    details = {"models": models, "live": keeps_up, "overloaded": falls_behind}
    print(json.dumps({**figures, **details, "load": round(os.getloadavg()[0], 1), "where": where()}))


if __name__ == "__main__":
    main()
