"""What several tests of the device share."""

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.errors import CameraError
from tinysight_contract.messages import CameraState, Health, ModelRef, State, Status, decode, utc_now
from tinysight_contract.mqtt import Address
from tinysight_edge.cameras import camera as camera_module
from tinysight_edge.cameras import pace
from tinysight_edge.cameras.camera import Camera
from tinysight_edge.cameras.hub import Frame, Gap, Hub
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.outbox import Outbox
from tinysight_edge.pictures.pictures import About
from tinysight_edge.publisher import Publisher
from tinysight_edge.sources import Policy, Source, open_source
from tinysight_edge.tracking.tracks import Tracks
from tinysight_edge.units import Seconds

GOLDEN = Path(__file__).parents[1] / "golden"
DEVICE = Policy(live=True, lasting=True)

Foot = tuple[float, float]


@pytest.fixture(scope="session")
def tracks() -> Callable[..., Tracks]:
    """Make `Tracks` of feet in pixels; boxes are 20 wide and 20 high. What is not given is plain."""

    def make(
        feet: dict[int, Foot],
        at_s: float,
        *,
        classes: Sequence[int] | None = None,
        started_s: float | Sequence[float] = 0.0,
        seen_s: Sequence[float] | None = None,
        first: dict[int, Foot] | None = None,
        score: float = 0.9,
        best: float = 0.9,
        median: float = 0.9,
        stationary: bool = False,
    ) -> Tracks:
        n, begun = len(feet), {**feet, **(first or {})}

        def boxes(at: Sequence[Foot]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            return np.array([(x - 10, y - 20, x + 10, y) for x, y in at], np.float32).reshape(n, 4)

        return Tracks(
            numbers=np.array(sorted(feet), np.int64),
            boxes_px=boxes([feet[number] for number in sorted(feet)]),
            scores=np.full(n, score, np.float32),
            median_scores=np.full(n, median, np.float32),
            best_scores=np.full(n, best, np.float32),
            class_ids=np.array(classes if classes is not None else [0] * n, np.int32),
            started_s=np.broadcast_to(np.asarray(started_s, np.float64), (n,)),
            seen_s=np.array(seen_s if seen_s is not None else [at_s] * n, np.float64),
            stationary=np.full(n, stationary),
            first_boxes_px=boxes([begun[number] for number in sorted(feet)]),
        )

    return make


@pytest.fixture(scope="session")
def about() -> About:
    """Whose pictures they are: a detector of cats and dogs, threshold 0.5."""
    model = ModelRef(name="m", version="1", digest="a" * 64)
    return About(site="plant-1", device="belt-7", model=model, task="detect", labels=("cat", "dog"), threshold=0.5)


@pytest.fixture(scope="session")
def frame() -> Callable[..., Frame]:
    """Make frames of 320x240 of a camera that began at 10:00:00 on 2026-11-25."""

    def make(at_s: float, image: Any = None, camera: str = "gate") -> Frame:
        image = np.full((240, 320, 3), 90, np.uint8) if image is None else image
        captured_at = datetime(2026, 11, 25, 10, tzinfo=UTC) + timedelta(seconds=at_s)
        return Frame(camera, image, at_s, captured_at, 1000.0 + at_s)

    return make


@pytest.fixture(scope="session")
def opened() -> Callable[..., Source]:
    """Open a source by its name, with short time limits."""

    def make(spec: str, *, secret: str | None = None, **given: Any) -> Source:
        limits = {"open_timeout": Seconds(5), "read_timeout": Seconds(1)}
        return open_source(CameraConfig(source=spec, **{**limits, **given}), secret=secret)

    return make


@pytest.fixture(scope="session")
def drain() -> Callable[[Source], list[tuple[int, ...]]]:
    """Read a source to its end, and close it: the shapes of its pictures."""

    def read(source: Source) -> list[tuple[int, ...]]:
        shapes = []
        while (got := source.read()) is not None:
            shapes.append(got[0].shape)
        source.close()
        return shapes

    return read


class Rig:
    """A camera, its hub, a loop that takes everything, and what was told."""

    def __init__(self, **config: Any) -> None:
        given = {"source": "0", "open_timeout": Seconds(2), "read_timeout": Seconds(0.5), **config}
        self.hub = Hub()
        self.told: list[tuple[CameraState, str]] = []
        self.items: list[Frame | Gap] = []
        secret = given.pop("secret", lambda: None)
        self.camera = Camera(
            "a", CameraConfig(**given), self.hub, lambda _, *told: self.told.append(told), secret=secret
        )
        self._loop = threading.Thread(target=self._take, daemon=True)

    def start(self) -> "Rig":
        self.camera.open()
        self._loop.start()
        self.camera.start()
        return self

    def _take(self) -> None:
        self.items.extend(item for item in self.hub if item is not None)

    def end(self) -> None:
        if self._loop.ident is None:  # never begun
            return
        self.camera.stop()
        self._loop.join(5)
        assert not self._loop.is_alive()

    @property
    def states(self) -> list[CameraState]:
        return [state for state, _ in self.told]

    @property
    def numbers(self) -> list[int | str]:
        return [int(i.image_bgr[0, 0, 0]) if isinstance(i, Frame) else "gap" for i in self.items]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    """Make rigs; given scripts, these are what opening gives, one after the other. Waits are short."""
    monkeypatch.setattr(pace, "WAITS_S", (0.1, 0.2))
    monkeypatch.setattr(camera_module, "MARGIN_S", 0.2)
    monkeypatch.setattr(camera_module, "ASK_MARGIN_S", 0.5)
    made: list[Rig] = []

    def make(*scripts: Source | Exception, policy: Policy = DEVICE, **config: Any) -> Rig:
        if scripts:
            left = list(scripts)

            def open_script(_config: CameraConfig, **_: Any) -> Source:
                script = left.pop(0) if left else CameraError("It is away.", mend="Wait.")
                if isinstance(script, Exception):
                    raise script
                return script

            monkeypatch.setattr(camera_module, "open_source", open_script)
            monkeypatch.setattr(camera_module, "policy_of", lambda _: policy)
        made.append(Rig(**config))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def make_publisher(tmp_path: Path) -> Iterator[Callable[..., Publisher]]:
    """Start publishers for one device, whose outbox stands in the test's folder; they end with the test."""
    made: list[Publisher] = []

    def make(url: str | Callable[[], Address], *, every_s: float = 30.0, **options: Any) -> Publisher:
        here, health = t.StatusTopic("plant-1", "belt-7"), t.HealthTopic("plant-1", "belt-7")
        example = decode((GOLDEN / "health.json").read_bytes(), Health)
        online = Status(state=State.ONLINE, boot_id="b1", reason="started", at=utc_now())
        publisher = Publisher(
            partial(Address.parse, url) if isinstance(url, str) else url,
            Outbox(tmp_path / "outbox.db"),
            client_id="tinysight-plant-1-belt-7",
            online=(here, online),
            offline=(here, replace(online, state=State.OFFLINE, reason="connection lost")),
            every_s=every_s,
            report=lambda outbox, broker: (health, replace(example, outbox=outbox, broker=broker)),
            **options,
        )
        made.append(publisher)
        publisher.start()
        return publisher

    yield make
    for publisher in made:
        publisher.close(drain_s=0)
