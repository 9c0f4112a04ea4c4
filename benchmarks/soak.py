"""Hours of four belts, as fast as the agent can, and an account of every frame, event and parcel.

    python benchmarks/soak.py        about ten minutes for two hours of belt; the videos and the model are made once

Each camera is a video file with a belt of its own, 5 frames a second (as much as following parcels needs, and what
others take for their default), the belt at the pace of the demo: 12 pixels between two frames. A parcel crosses the
line in the middle of the picture exactly once, so the truth is known. Checked are:

- frames: each camera's health messages sum up to the file's frames, all inferred, none dropped without a cause;
- events: numbered without a gap at the reader up to the last one that the agent says it made, each ``start`` with its
  ``end``;
- parcels: what crossed the line by the agent's count, against the truth. No parcel goes back, so whatever went out is
  an error of its own: one that hides another in the net count is counted twice;
- memory: what the process held after a tenth of the frames, and shortly before the end, with all files still open. It
  is judged of a run of two hours or more: in the first 6,000 frames the process grows (libraries, caches, the
  allocator), whatever comes after.

Then the same belts live and too fast for the model, for half a minute: frames are dropped, each with a cause, and those
on their way at the stop are ``stopped``: no more than there are places to wait in. Prints one JSON line last; status 1
when a sum is not right.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
from drive import run_agent, run_child
from numpy.typing import NDArray
from rig import broker, kept, parcel_detector, say, write_h264
from steps import where

from tinysight_contract.messages import Counts, Event, EventType, Health, decode
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.topics import ROOT, CountsTopic, EventTopic, HealthTopic, parse
from tinysight_edge.belt import Belt
from tinysight_edge.config.types import CameraConfig, LineConfig

CAMERAS: Final = 4
SEED: Final = 100
PX_PER_S: Final = 60.0  # as synthetic:belt moves
LINE: Final = {"middle": LineConfig(start=(0.5, 1.0), end=(0.5, 0.0))}  # to the right is in
LIVE_S: Final = 30.0
LIVE_FPS: Final = 400.0
ON_THEIR_WAY: Final = CAMERAS + 4  # one of each camera, and one in the model, kept, in the queue and being told
WARM_HOURS: Final = 2.0  # from here on a tenth of the frames is enough to be warm


def belt_files(hours: float, fps: float) -> tuple[dict[str, Path], dict[str, int]]:
    """By camera: a video, and how many parcels cross the middle of its picture."""
    frames = int(hours * 3600 * fps)
    names = {f"belt{number}": SEED + number for number in range(CAMERAS)}

    def make(out: Path) -> None:
        out.mkdir()
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            jobs = {name: pool.submit(_film, out / f"{name}.mp4", seed, frames, fps) for name, seed in names.items()}
            crossed = {name: job.result() for name, job in jobs.items()}
        (out / "truth.json").write_text(json.dumps(crossed), encoding="ascii")

    folder = kept("belts", [frames, fps, list(names.values())], make)
    truth: dict[str, int] = json.loads((folder / "truth.json").read_text(encoding="ascii"))
    return {name: folder / f"{name}.mp4" for name in names}, truth


def _film(out: Path, seed: int, frames: int, fps: float) -> int:
    """Write one belt; how many parcels' middles pass the middle of the picture."""
    belt, before, crossed = Belt(seed, speed_px=PX_PER_S / fps), dict[int, float](), 0

    def images() -> Iterator[NDArray[np.uint8]]:
        nonlocal before, crossed
        for index in range(frames):
            image, shown = belt.frame(index)
            now = {each.parcel: (each.box_px[0] + each.box_px[2]) / 2 for each in shown}
            crossed += sum(before.get(parcel, x) < belt.width / 2 <= x for parcel, x in now.items())
            before = now
            yield image

    write_h264(out, images(), fps=fps, flags=("-preset", "veryfast", "-crf", "28", "-g", "50"))
    return crossed


class Ear:
    """Hears all that the agent says, and keeps what can be summed up."""

    def __init__(self, url: str) -> None:
        self.flow: dict[str, Counter[str]] = {}
        self.lines: dict[str, dict[str, dict[str, int]]] = {}
        self.types: Counter[EventType] = Counter()
        self.open: set[str] = set()
        self.seqs: set[int] = set()
        self.last_seq = 0
        self._connection = Connection(Address.parse(url), client_id="", on_message=self._hear)
        self._connection.open(timeout_s=5.0)
        self._connection.subscribe(f"{ROOT}/#")

    def close(self) -> None:
        """Hear what is on its way, and end."""
        time.sleep(1.0)
        self._connection.close()

    def _hear(self, name: str, payload: bytes, retained: bool) -> None:
        topic = None if retained else parse(name)  # what is retained was said of an earlier run
        if isinstance(topic, EventTopic):
            event = decode(payload, Event)
            self.types[event.type] += 1
            self.seqs.add(event.seq)
            (self.open.discard if event.type is EventType.END else self.open.add)(event.id)
        elif isinstance(topic, CountsTopic):
            self.lines[topic.camera] = decode(payload, Counts).lines
        elif isinstance(topic, HealthTopic):
            health = decode(payload, Health)
            self.last_seq = health.outbox.last_seq
            for camera, told in health.cameras.items():
                dropped = {f"dropped {cause}": count for cause, count in told.dropped.items() if count}
                mine = self.flow.setdefault(camera, Counter())
                mine.update({"frames": told.frames, "inferred": told.inferred, **dropped})


def unexplained(flow: Counter[str]) -> int:
    """Frames that were neither inferred nor dropped for a cause."""
    return flow["frames"] - flow["inferred"] - sum(n for name, n in flow.items() if name.startswith("dropped"))


def whole(bundle: Path, url: str, hours: float, fps: float) -> dict[str, Any]:
    """Files, every frame of them."""
    files, truth = belt_files(hours, fps)
    frames = int(hours * 3600 * fps)
    cameras = {name: CameraConfig(source=str(path), lines=LINE) for name, path in files.items()}
    ear, begun_s = Ear(url), time.perf_counter()
    every = max(frames * CAMERAS // 100, 100)
    *held, _ = (each.rss_mb for each in run_child(bundle, cameras, url, every=every, health_s=5.0))  # then files close
    took_s = time.perf_counter() - begun_s
    ear.close()
    counted = {name: ear.lines.get(name, {}).get("middle", {}) for name in files}
    off = {name: abs(counted[name].get("in", 0) - truth[name]) + counted[name].get("out", 0) for name in files}
    return {
        "frames": sum(flow["frames"] for flow in ear.flow.values()),
        "missing_frames": frames * CAMERAS - sum(flow["frames"] for flow in ear.flow.values()),
        "unexplained": sum(abs(unexplained(flow)) for flow in ear.flow.values()),
        "dropped": sum(flow["frames"] - flow["inferred"] for flow in ear.flow.values()),
        "truth": truth,
        "crossed": counted,
        "crossing_error": round(max(off[name] / truth[name] for name in files), 5),
        "events": {kind.value: count for kind, count in sorted(ear.types.items())},
        "events_missing": ear.last_seq - len(ear.seqs),
        "never_ended": len(ear.open),
        "rss_mb": round(held[-1], 1),
        "rss_growth_mb": round(held[-1] - held[len(held) // 10], 2),
        "rss_mb_each_tenth": [round(each, 1) for each in held[:: len(held) // 10]],
        "fps": round(frames * CAMERAS / took_s, 1),
        "minutes": round(took_s / 60, 1),
    }


def live(bundle: Path, url: str) -> dict[str, Any]:
    """Belts that are drawn faster than the model sees: what was dropped, by cause."""
    cameras = {
        f"live{number}": CameraConfig(source=f"synthetic:belt?fps={LIVE_FPS:.0f}&seed={number}")
        for number in range(CAMERAS)
    }
    ear = Ear(url)
    run_agent(bundle, cameras, url, seconds=LIVE_S, health_s=5.0)
    ear.close()
    sums: Counter[str] = sum(ear.flow.values(), Counter())
    return {"dropped stopped": 0, **sums, "unexplained": sum(abs(unexplained(flow)) for flow in ear.flow.values())}


def main() -> None:
    """Run, sum up, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0, help="of belt, for each of four cameras")
    parser.add_argument("--fps", type=float, default=5.0)
    given = parser.parse_args()
    bundle = parcel_detector()
    with broker() as url:
        figures = whole(bundle, url, given.hours, given.fps)
        say(json.dumps(figures))
        dropped = live(bundle, url)
    wrong = [
        name for name in ("missing_frames", "unexplained", "dropped", "events_missing", "never_ended") if figures[name]
    ]
    wrong += ["crossing_error"] if figures["crossing_error"] > 0.01 else []
    wrong += ["rss_growth_mb"] if given.hours >= WARM_HOURS and figures["rss_growth_mb"] > 2.0 else []
    wrong += ["live"] if dropped["unexplained"] or dropped["dropped stopped"] > ON_THEIR_WAY else []
    print(json.dumps({**figures, "live": dropped, "wrong": wrong, "where": where()}))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
