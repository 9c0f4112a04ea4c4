"""A hundred changes of the model under a camera that does not wait: what is lost, and how long nobody looks.

    python benchmarks/swap.py        two minutes; 6 more the first time, to train the detector

One agent, in this process, with a real broker and a live source of 30 frames a second, changes between two bundles of
the same detector (320x320) with different versions, a hundred times. Each change is a whole one: the bundle is read and
verified from disk, its model loaded, proved with its golden pictures and measured, while the old one sees; then the
inference thread changes over, and the old one is let go of.

``frames_lost``: pictures that the camera delivered from the first change on, less those that a model saw, and less
those that were passed over by policy (``rate``, ``governed``, ``still``), and at the end (``stopped``) the few that can
be on their way, by the agent's own account. A picture that grew stale while a model was being changed is lost, and so
is one that was ``reloaded``.
``still_frames_lost`` of ``still_frames`` were lost before the first change, for want of a processor.

``gap_over_invoke``: a picture waits from the moment it is at the hub until a model begins to look at it. What is left
of that when the time is taken out in which the model looked at another picture is time in which nobody looked although
somebody should have. The longest such wait of all pictures, over the median time of one look. ``still_gap_over_invoke``
is the same of as many seconds before the first change, so it is what threads and this machine cost anyway.

``events_lost`` and ``events_twice`` are gaps and repetitions of ``seq`` as a reader hears it; ``starts_twice`` and
``ends_missing`` are objects that were begun twice or not ended. ``growth_mib_min`` is of resident memory, a minute,
from the tenth change to the last, and ``still_growth_mib_min`` before the first: what is noted here grows, too. Prints
one JSON line last.

On a machine that does other work, ``chrt -f 1`` before the command keeps that out of the figures.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from rig import broker, detector, say
from steps import where

from tinysight_contract.bundle import Bundle, pack_bundle
from tinysight_contract.messages import Event, EventType, decode
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.topics import EventTopic
from tinysight_edge.cameras.hub import Frame, Gap, Hub, Seat
from tinysight_edge.config.types import AgentConfig, BrokerConfig, CameraConfig, ModelConfig
from tinysight_edge.inference import Inference, Looked
from tinysight_edge.runtime import Agent

SITE, DEVICE = "bench", "swap"
SOURCE: Final = "synthetic:belt?fps=30"
POLICY: Final = {"rate", "governed", "still"}
ON_THEIR_WAY: Final = 3  # at the hub, in the model, and not yet told
SETTLED: Final = 10


@dataclass
class Clocks:
    """When each picture came to the hub, and when a model looked at it: seconds of ``time.perf_counter()``."""

    came_s: dict[int, float] = field(default_factory=dict)
    looks: list[tuple[float, float, float]] = field(default_factory=list)  # came, began, ended

    def gaps_s(self) -> list[float]:
        """Of each look: how long its picture waited while nobody looked."""
        ends = [ended for _, _, ended in self.looks]
        gaps = []
        for came_s, began_s, _ in self.looks:
            first = bisect_left(ends, came_s)  # looks that ended later than it came, and began before it was its turn
            busy_s = 0.0
            for _, other_s, ended_s in self.looks[first:]:
                if other_s >= began_s:
                    break
                busy_s += ended_s - max(other_s, came_s)
            gaps.append(began_s - came_s - busy_s)
        return gaps

    def invoke_s(self) -> float:
        """The median time of a look."""
        return median(ended - began for _, began, ended in self.looks)


CLOCKS: Clocks = Clocks()


class TimedSeat(Seat):
    """The agent's own seat, which also notes when a picture comes."""

    def put(self, frame: Frame | Gap, *, live: bool) -> None:
        """What the seat does."""
        if isinstance(frame, Frame):
            CLOCKS.came_s[id(frame.image_bgr)] = time.perf_counter()
            super().put(frame, live=live)


class TimedHub(Hub):
    """The agent's own hub, with such seats."""

    def join(self, camera: str) -> Seat:
        """What the hub does."""
        seat = super().join(camera)
        seat.__class__ = TimedSeat
        return seat


def watch_looks() -> None:
    """Note each look of every model from now on."""
    look = Inference.look

    def timed(self: Inference, image_bgr: NDArray[np.uint8], *rest: float, **options: Any) -> Looked:  # noqa: ANN401 -- its own
        began_s = time.perf_counter()
        came_s = CLOCKS.came_s.pop(id(image_bgr), began_s)
        looked = look(self, image_bgr, *rest, **options)
        CLOCKS.looks.append((came_s, began_s, time.perf_counter()))
        return looked

    Inference.look = timed  # type: ignore[method-assign]  # in this process alone


def two_versions(folder: Path) -> list[Path]:
    """The detector, and a later version of it."""
    first = Bundle.open(detector("large"))
    files = {name: first.read(name) for name in first.manifest.files}
    paths = [folder / "one.bundle", folder / "two.bundle"]
    for number, path in enumerate(paths, start=1):
        manifest = msgspec.structs.replace(first.manifest, version=f"{number}.0.0", release=number)
        path.write_bytes(pack_bundle(manifest, files))
    return paths


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def heard_of(url: str, heard: list[Event]) -> Connection:
    """Listen to all events."""
    reader = Connection(
        Address.parse(url), client_id="", on_message=lambda _topic, raw, _retained: heard.append(decode(raw, Event))
    )
    reader.open(timeout_s=10)
    reader.subscribe(EventTopic.filter())
    return reader


def told(heard: list[Event], last: str) -> dict[str, int]:
    """What a reader misses, or hears twice."""
    numbers = Counter(event.seq for event in heard)
    begun = Counter(event.id for event in heard if event.type is EventType.START)
    ended = Counter(event.id for event in heard if event.type is EventType.END)
    return {
        "events": len(heard),
        "events_lost": max(numbers, default=0) - len(numbers),
        "events_twice": sum(numbers.values()) - len(numbers),
        "starts_twice": sum(begun.values()) - len(begun),
        "ends_missing": len(begun.keys() - ended.keys()),
        "models": len({event.model.version for event in heard}),
        "last_right": int(bool(heard) and heard[-1].model.version == last),
    }


def main() -> None:
    """Change, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--still-s", type=float, default=30.0, help="before the first change")
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    heard: list[Event] = []
    watch_looks()
    with broker() as url, tempfile.TemporaryDirectory() as folder:
        paths = two_versions(Path(folder))
        config = AgentConfig(
            site=SITE,
            device=DEVICE,
            state=Path(folder),
            broker=BrokerConfig(url=url, start_offline=False),
            model=ModelConfig(bundle=paths[0]),
            cameras={"belt": CameraConfig(source=SOURCE)},
        )
        agent = Agent(Bundle.open(paths[0]), config)
        agent.hub.__class__ = TimedHub
        reader = heard_of(url, heard)
        ready = threading.Event()
        thread = threading.Thread(target=agent.run, kwargs={"ready": ready.set}, name="agent")
        thread.start()
        ready.wait(60)
        figures = change(agent, config, paths, swaps=given.swaps, still_s=given.still_s)
        last = agent.swapper.seer.ref.version
        agent.stop()
        thread.join(10)
        time.sleep(0.5)
        reader.close()
    frames, lost, dropped = account(agent)
    result = {
        "swaps": figures.pop("swaps"),
        "frames_lost": lost - figures["still_frames_lost"],
        "gap_over_invoke": figures.pop("gap_over_invoke"),
        **figures,
        "frames": frames,
        "dropped": dict(dropped),
        **told(heard, last),
    }
    print(json.dumps({**result, "load": round(os.getloadavg()[0], 1), "where": where()}))


def account(agent: Agent) -> tuple[int, int, Counter[str]]:
    """Pictures that came, those of them that were lost, and all that were not seen, by cause."""
    totals = agent.meter.totals()
    dropped: Counter[str] = Counter()
    for (_, cause), count in totals.dropped.items():
        dropped[cause] += count
    lost = sum(count for cause, count in dropped.items() if cause not in POLICY | {"stopped"})
    lost += max(dropped["stopped"] - ON_THEIR_WAY, 0)
    return sum(totals.frames.values()), lost, dropped


def change(agent: Agent, config: AgentConfig, paths: list[Path], *, swaps: int, still_s: float) -> dict[str, Any]:
    """Wait a while, change the model so often, and say how long nobody looked."""
    global CLOCKS  # noqa: PLW0603 -- what is patched into the agent's classes can be given nothing
    CLOCKS = Clocks()
    time.sleep(still_s / 3)
    begun_s, begun_mib = time.monotonic(), resident_mib()
    time.sleep(still_s * 2 / 3)
    still_growth = per_minute(begun_s, begun_mib)
    still, CLOCKS = CLOCKS, Clocks()
    still_frames, still_lost, _ = account(agent)
    took_s, made = list[float](), 0
    for number in range(swaps):
        at_s = time.perf_counter()
        swapper = agent.swapper
        swapper.swap(swapper.load(Bundle.open(paths[(number + 1) % 2]), config.model), keep=True)
        swapper.settle()
        made += swapper.seer.ref.version == f"{(number + 1) % 2 + 1}.0.0"
        took_s.append(time.perf_counter() - at_s)
        if number == min(SETTLED, swaps - 1):
            begun_s, begun_mib = time.monotonic(), resident_mib()
        if number % 10 == 9:
            say(f"  {number + 1} changes, {resident_mib():.0f} MiB")
    clocks = CLOCKS
    gap_s, still_gap_s, invoke_s = max(clocks.gaps_s()), max(still.gaps_s()), still.invoke_s()
    return {
        "swaps": made,
        "gap_over_invoke": round(gap_s / invoke_s, 2),
        "still_frames": still_frames,
        "still_frames_lost": still_lost,
        "still_gap_over_invoke": round(still_gap_s / invoke_s, 2),
        "gap_ms": round(gap_s * 1e3, 2),
        "still_gap_ms": round(still_gap_s * 1e3, 2),
        "invoke_ms": round(invoke_s * 1e3, 2),
        "swap_s": round(median(took_s), 3),
        "growth_mib_min": per_minute(begun_s, begun_mib),
        "still_growth_mib_min": still_growth,
    }


def per_minute(begun_s: float, begun_mib: float) -> float:
    """How much memory was taken since then, in MiB a minute."""
    return round((resident_mib() - begun_mib) / max(time.monotonic() - begun_s, 1e-3) * 60, 1)


if __name__ == "__main__":
    main()
