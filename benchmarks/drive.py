"""Drive the agent and the shortest honest loop over the same pictures, and read three clocks around both.

`run_agent` is the only place of the benchmarks that calls the agent. As a program, this file runs it in a process of
its own, for `run_child`: one JSON line for each mark of frames.
"""

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import cv2
import msgspec
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from tinysight_contract.bundle import Bundle
from tinysight_contract.messages import Health, LatencyMs, decode
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.topics import HealthTopic
from tinysight_edge.cameras.hub import Frame, Hub
from tinysight_edge.config.types import AgentConfig, BrokerConfig, CameraConfig, HealthConfig, ModelConfig
from tinysight_edge.health.meter import Meter
from tinysight_edge.runtime import Agent
from tinysight_edge.units import Seconds

__all__ = ["Held", "Pass", "Run", "invoke_ms", "run_agent", "run_bare", "run_child"]

SITE, DEVICE = "bench", "edge"
DECODERS: Final = 1  # threads, as the agent takes for a camera
BACKLOG: Final = 2  # as the agent has between a file's capture thread and the loop
KEPT: Final = 8192  # ages of frames; all of them would be 40 bytes a frame of growth that is not the agent's


@dataclass(frozen=True, slots=True)
class Clock:
    """What had been spent at one moment: time on the wall, of all threads on a processor, and of this one."""

    wall_s: float
    process_s: float
    thread_s: float

    @classmethod
    def now(cls) -> "Clock":
        """Read all three."""
        return cls(time.perf_counter(), time.process_time(), time.thread_time())


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over a source, from the first frame taken to the last frame done.

    Attributes:
        frames: how many went through the model.
        fps: of them a second.
        process_ms: processor time of all threads, a frame.
        loop_ms: of the thread with the model, a frame; the agent reads its answers in another one.
    """

    frames: int
    fps: float
    process_ms: float
    loop_ms: float

    @classmethod
    def of(cls, frames: int, begun: Clock, ended: Clock) -> "Pass":
        """What passed between two moments."""
        return cls(
            frames,
            frames / (ended.wall_s - begun.wall_s),
            (ended.process_s - begun.process_s) / frames * 1e3,
            (ended.thread_s - begun.thread_s) / frames * 1e3,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the agent.

    Attributes:
        passed: what it took.
        result: what the agent says at its end.
        health: its last health message.
        age_p95_ms: of the last 8,192 frames, when their events were ready.
    """

    passed: Pass
    result: dict[str, Any]
    health: Health
    age_p95_ms: float


class TimedHub(Hub):
    """The agent's own hub, which also reads the clocks as the inference thread takes frames."""

    taken = 0
    begun: Clock
    ended: Clock

    def __iter__(self) -> Iterator[Any]:
        """What the hub gives."""
        for item in super().__iter__():
            if isinstance(item, Frame):
                if not self.taken:
                    self.begun = Clock.now()
                self.taken += 1
                yield item
                self.ended = Clock.now()
            else:
                yield item
            del item  # its memory may be used again while the hub waits


class TimedMeter(Meter):
    """The agent's own meter, which also reads the clocks when a frame's events have been told."""

    told: Clock
    ages_ms: deque[float]

    def note(self, camera: str, latency: LatencyMs, *, meaning_ms: float = 0.0, pictures_ms: float = 0.0) -> None:
        """What the meter does."""
        super().note(camera, latency, meaning_ms=meaning_ms, pictures_ms=pictures_ms)
        self.told = Clock.now()
        self.ages_ms.append(latency.total + meaning_ms)


def run_agent(
    bundle: Path,
    cameras: dict[str, CameraConfig],
    url: str,
    *,
    seconds: float = 0.0,
    health_s: float = 3600.0,
    watch: Callable[[Any], None] | None = None,
) -> Run:
    """The whole agent with a broker, in this thread.

    Args:
        bundle: what sees.
        cameras: by id.
        url: of the broker.
        seconds: end then; 0 is at the end of the sources.
        health_s: between two health messages; the first comes after 5 s or less, the last at the end.
        watch: is given the hub when frames begin to flow; its ``taken`` counts them.
    """
    address = Address.parse(url)
    with tempfile.TemporaryDirectory() as state:
        config = AgentConfig(
            site=SITE,
            device=DEVICE,
            state=Path(state),
            broker=BrokerConfig(url=url, start_offline=False),
            model=ModelConfig(bundle=bundle, engine="interpreter"),  # as the bare loop has it
            cameras=cameras,
            health=HealthConfig(every=Seconds(health_s)),
        )
        agent = Agent(Bundle.open(bundle), config)
        agent.hub.__class__, agent.meter.__class__ = TimedHub, TimedMeter
        meter = cast("TimedMeter", agent.meter)
        meter.ages_ms = deque(maxlen=KEPT)

        def ready() -> None:
            if seconds:
                timer = threading.Timer(seconds, agent.stop)
                timer.daemon = True
                timer.start()
            if watch is not None:
                watch(agent.hub)

        result = agent.run(ready=ready)
    hub = cast("TimedHub", agent.hub)
    ended = Clock(meter.told.wall_s, meter.told.process_s, hub.ended.thread_s)
    passed = Pass.of(hub.taken, hub.begun, ended)
    return Run(passed, result, last_health(address), float(np.percentile(meter.ages_ms, 95)))


def last_health(address: Address) -> Health:
    """The retained health message: what has been since the report before it."""
    heard: queue.Queue[bytes] = queue.Queue()
    connection = Connection(address, client_id="", on_message=lambda _topic, payload, _kept: heard.put(payload))
    connection.open(timeout_s=5.0)
    connection.subscribe(str(HealthTopic(SITE, DEVICE)))
    try:
        return decode(heard.get(timeout=10.0), Health)
    finally:
        connection.close()


class Bare:
    """LiteRT's interpreter on one thread, and where the picture belongs in its input."""

    def __init__(self, bundle: Path) -> None:
        whole = Bundle.open(bundle)
        self.spec = whole.manifest.input
        self.model: Any = Interpreter(model_content=whole.read(whole.manifest.variants[0].file), num_threads=1)
        self.model.allocate_tensors()
        self.index = self.model.get_input_details()[0]["index"]
        self.model.tensor(self.index)()[:] = self.spec.fill

    def see(self, image_bgr: NDArray[np.uint8]) -> None:
        """Resize into the input, letterboxed, and invoke."""
        height, width = image_bgr.shape[:2]
        scale = min(self.spec.width / width, self.spec.height / height)
        w, h = round(width * scale), round(height * scale)
        x, y = (self.spec.width - w) // 2, (self.spec.height - h) // 2
        cv2.resize(image_bgr, (w, h), dst=self.model.tensor(self.index)()[0, y : y + h, x : x + w])
        self.model.invoke()


def run_bare(bundle: Path, video: Path) -> Pass:
    """A reader thread, `cv2.resize`, invoke; nothing else."""
    bare = Bare(bundle)
    waiting: queue.Queue[Any] = queue.Queue(BACKLOG)

    def read() -> None:
        capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, DECODERS])
        while True:
            good, image = capture.read()
            waiting.put(image if good else None)
            if not good:
                return

    threading.Thread(target=read, daemon=True).start()
    frames, begun = 0, Clock.now()
    while (image := waiting.get()) is not None:
        if not frames:
            begun = Clock.now()
        bare.see(image)
        frames += 1
    return Pass.of(frames, begun, Clock.now())


def invoke_ms(bundle: Path, *, seconds: float = 0.5) -> float:
    """The median of bare invokes."""
    model = Bare(bundle).model
    took: list[float] = []
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        begun_s = time.perf_counter()
        model.invoke()
        took.append(time.perf_counter() - begun_s)
    return float(np.median(took)) * 1e3


@dataclass(frozen=True, slots=True)
class Held:
    """What a process held in RAM, in 10^6 bytes, when so many frames were done."""

    frames: int
    rss_mb: float


def run_child(
    bundle: Path, cameras: dict[str, CameraConfig], url: str, *, every: int, health_s: float = 3600.0
) -> list[Held]:
    """The agent in a process of its own, to the end of its sources; what it held at each multiple of ``every`` frames.

    Raises:
        CalledProcessError: it failed.
    """
    spec = {"bundle": str(bundle), "url": url, "every": every, "health_s": health_s, "cameras": cameras}
    command = [sys.executable, __file__, msgspec.json.encode(spec, enc_hook=lambda time: f"{time:.3f}s").decode()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [msgspec.json.decode(line, type=Held) for line in done.stdout.splitlines()]


def child(spec: dict[str, Any]) -> None:
    """What `run_child` starts."""

    def watch(hub: Any) -> None:  # noqa: ANN401 -- the agent's hub, made a `TimedHub`
        def look() -> None:
            mark = spec["every"]
            while True:
                while hub.taken < mark:
                    time.sleep(0.005)
                pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
                held = Held(mark, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
                print(msgspec.json.encode(held).decode(), flush=True)
                mark += spec["every"]

        threading.Thread(target=look, daemon=True).start()

    cameras = msgspec.convert(spec["cameras"], dict[str, CameraConfig], dec_hook=lambda kind, text: kind.parse(text))
    run_agent(Path(spec["bundle"]), cameras, spec["url"], health_s=spec["health_s"], watch=watch)


if __name__ == "__main__":
    child(msgspec.json.decode(sys.argv[1]))
