"""The caretaker, with real files for a machine and a publisher that only remembers."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import Struct
from msgspec.structs import replace

from tinysight_contract.manifest import Manifest, Reference
from tinysight_contract.messages import (
    Alert,
    BrokerHealth,
    CameraState,
    Health,
    LatencyMs,
    ModelMetrics,
    ModelRef,
    OutboxHealth,
    Well,
    decode,
    encode,
)
from tinysight_contract.metrics import BINS
from tinysight_contract.topics import AlertTopic, ModelTopic, Topic
from tinysight_edge.config.types import GovernorConfig
from tinysight_edge.decode import Detections
from tinysight_edge.governor import Governor
from tinysight_edge.health import caretaker as module
from tinysight_edge.health.caretaker import Caretaker
from tinysight_edge.health.machine import Machine
from tinysight_edge.health.meter import Meter
from tinysight_edge.health.model_metrics import ModelMeter
from tinysight_edge.health.verdict import Code

Wait = Callable[[Callable[[], object]], None]


class Remembers:
    """What the caretaker needs of the publisher."""

    def __init__(self) -> None:
        self.away_since_s: float | None = None
        self.outbox = OutboxHealth(depth=0, discarded={}, last_seq=0)
        self.alerts: dict[str, Alert | None] = {}
        self.models: list[ModelMetrics] = []

    def state(self, topic: Topic, message: Struct | None) -> None:
        if isinstance(topic, ModelTopic):
            assert isinstance(message, ModelMetrics)
            self.models.append(message)
            return
        assert isinstance(topic, AlertTopic)
        assert message is None or isinstance(message, Alert)
        self.alerts[topic.code] = message

    @property
    def outbox_share(self) -> float:
        return self.outbox.depth / 100

    def outbox_health(self) -> OutboxHealth:
        return self.outbox

    def broker_health(self) -> BrokerHealth:
        return BrokerHealth(sessions=1, ended={}, refused={})

    @property
    def standing(self) -> set[str]:
        return {code for code, alert in self.alerts.items() if alert is not None} - {"clock-unsynced", "memory-high"}


class Hub:
    def __init__(self) -> None:
        self.frames: Counter[str] = Counter()
        self.dropped: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.forgotten: set[str] = set()


class Kit:
    """A caretaker and all that it looks after."""

    def __init__(self, root: Path) -> None:
        self.publisher, self.hub = Remembers(), Hub()
        self.temp = root / "sys/class/thermal/thermal_zone0/temp"
        self.temp.parent.mkdir(parents=True)
        (self.temp.parent / "type").write_text("cpu-thermal\n")
        self.temp.write_text("50000\n")
        self.meter, self.governor = Meter(self.hub), Governor(GovernorConfig())
        machine = Machine(root, root=root)
        self.caretaker = Caretaker(
            "plant-1",
            "belt-7",
            "b1",
            machine=machine,
            meter=self.meter,
            governor=self.governor,
            every_s=30.0,
            max_drift=0.4,
        )

    def frame(self, camera: str = "gate", age_ms: float = 20.0) -> None:
        self.hub.frames[camera] += 1
        if not self.governor.allow(camera, time.monotonic()):
            self.meter.drop(camera, "governed")
            return
        self.governor.note(camera, age_ms, 5.0)
        latency = LatencyMs(wait=1.0, preprocess=1.0, inference=3.0, decode=0.0, track=0.0, total=age_ms)
        self.meter.note(camera, latency)

    def report(self) -> Health:
        return self.caretaker.report(self.publisher.outbox, self.publisher.broker_health())[1]


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    monkeypatch.setattr(module, "EVERY_S", 0.02)
    monkeypatch.setattr("tinysight_edge.health.alerts.CLEAR_AFTER_S", 0.05)
    monkeypatch.setenv("PATH", "")
    made = Kit(tmp_path)
    made.caretaker.start(made.publisher)
    yield made
    made.caretaker.stop()


def test_a_report_is_a_valid_message_with_figures_of_all_parts(kit: Kit) -> None:
    kit.caretaker.camera("gate", CameraState.ONLINE)
    for _ in range(10):
        kit.frame()
    health = kit.report()
    assert decode(encode(health), Health) == health
    assert health.temperature_c == 50.0
    assert health.throttled is None
    assert (health.cameras["gate"].frames, health.cameras["gate"].inferred) == (10, 10)
    assert health.cameras["gate"].frame_age_ms.p95 == 20.0
    assert health.cameras["gate"].limit_fps is None
    assert health.cpu_percent >= 0
    assert health.disk_free_mib > 0


def test_a_stalled_camera_is_an_alert_until_it_is_back(kit: Kit, eventually: Wait) -> None:
    kit.caretaker.camera("gate", CameraState.STALLED)
    kit.caretaker.camera("yard", CameraState.ONLINE)
    eventually(lambda: kit.publisher.standing == {"camera-stalled"})
    verdict = kit.report().verdict
    assert (verdict.state, verdict.code) == (Well.DEGRADED, "camera.stalled")
    kit.caretaker.camera("yard", CameraState.RECONNECTING)
    eventually(lambda: kit.publisher.standing == {"camera-stalled", "camera-reconnecting", "cameras-none"})
    assert kit.report().verdict.state is Well.FAILING
    kit.caretaker.camera("gate", CameraState.ONLINE)
    kit.caretaker.camera("yard", None)
    eventually(lambda: not kit.publisher.standing)


def test_heat_limits_the_rate_and_the_report_says_what_was_given_up(kit: Kit, eventually: Wait) -> None:
    kit.temp.write_text("91000\n")

    def limited() -> bool:
        kit.frame()
        return "governor-limiting" in kit.publisher.standing

    eventually(limited)
    eventually(lambda: "thermal-hot" in kit.publisher.standing)
    health = kit.report()
    assert (health.cameras["gate"].limit_fps or 0) > 0
    assert health.temperature_c == 91.0
    assert health.cameras["gate"].dropped.get("governed", 0) + health.cameras["gate"].inferred <= kit.hub.frames["gate"]


def test_old_frames_and_events_that_were_given_up_are_told(kit: Kit, eventually: Wait) -> None:
    for _ in range(5):
        kit.frame(age_ms=900.0)
    kit.publisher.outbox = OutboxHealth(depth=90, discarded={"update": 4}, last_seq=1)
    eventually(lambda: {"outbox-discarding", "outbox-full"} <= kit.publisher.standing)
    assert kit.report().verdict.code == "outbox.discarding"
    eventually(lambda: "inference-slow" in kit.publisher.standing)
    eventually(lambda: "outbox-discarding" not in kit.publisher.standing)


def test_what_another_part_says_stands_until_it_takes_it_back(kit: Kit, eventually: Wait) -> None:
    kit.caretaker.say(Code.CONFIG_REFUSED, "agent.toml: unknown key 'camras'.")
    eventually(lambda: kit.publisher.standing == {"config-refused"})
    alert = kit.publisher.alerts["config-refused"]
    assert alert is not None
    assert alert.what == "agent.toml: unknown key 'camras'."
    kit.caretaker.say(Code.CONFIG_REFUSED, None)
    eventually(lambda: not kit.publisher.standing)


def test_while_the_broker_is_away_nobody_asks_and_prometheus_still_sees(
    kit: Kit, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kit.caretaker.snapshot() is None
    monkeypatch.setattr(module, "FIRST_S", 0.01)
    kit.publisher.away_since_s = time.monotonic() - 60
    kit.frame()
    eventually(lambda: kit.caretaker.snapshot() is not None)
    snapshot = kit.caretaker.snapshot()
    assert snapshot is not None
    assert "broker.absent" in {problem.code for problem in snapshot.problems}
    assert snapshot.totals.inferred == {"gate": 1}
    assert "broker-absent" not in kit.publisher.standing


def test_published_reports_add_up_to_all_frames_whatever_was_looked_at_between(
    kit: Kit, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_S", 0.01)
    monkeypatch.setattr(module, "LATE", 0.0)
    frames = []

    def flow(count: int) -> None:
        for _ in range(count):
            kit.frame()

    def seen() -> int:
        snapshot = kit.caretaker.snapshot()
        return 0 if snapshot is None else snapshot.health.cameras["gate"].frames

    flow(5)
    time.sleep(0.1)  # the first report comes after some seconds, and nobody looks before
    assert kit.caretaker.snapshot() is None
    frames.append(kit.report().cameras["gate"])
    flow(7)
    kit.publisher.away_since_s = time.monotonic()
    eventually(lambda: seen() == 7)
    flow(2)
    eventually(lambda: seen() == 9)
    kit.publisher.away_since_s = None
    frames.append(kit.report().cameras["gate"])
    assert [(each.frames, each.inferred) for each in frames] == [(5, 5), (9, 9)]


@pytest.fixture
def finds(sample: Any) -> Callable[..., ModelMeter]:
    """Make a meter of a model that found cats with scores of 0.99 when it was tested, and now finds so many."""

    def make(digest: str, *, sure: int = 0, unsure: int = 0) -> ModelMeter:
        reference = Reference(scores=[*[0] * (BINS - 1), 500], labels={"cat": 500})
        manifest: Manifest = replace(sample()[0], reference=reference)
        meter = ModelMeter(manifest, ModelRef(name="pets", version="1.0.0", digest=digest * 64), 0.5, "b1")
        for second, score in enumerate([0.99] * sure + [0.55] * unsure):
            box, scores = np.zeros((1, 4), np.float32), np.array([score], np.float32)
            meter.note("gate", float(second), Detections(box, scores, np.zeros(1, np.int32)), 4.0)
        return meter

    return make


def test_what_the_model_finds_is_told_with_each_report_and_soon_after_another_one_sees(
    kit: Kit, eventually: Wait, finds: Callable[..., ModelMeter]
) -> None:
    kit.report()
    assert kit.publisher.models == [], "nobody has counted anything"
    first = finds("a", sure=3)
    kit.caretaker.sees(first)
    eventually(lambda: [(each.bundle, each.frames) for each in kit.publisher.models] == [("a" * 64, 3)])
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    first.note("gate", 100.0, nothing, 4.0)
    kit.report()
    assert [each.frames for each in kit.publisher.models] == [3, 4]
    kit.caretaker.sees(finds("b"))
    eventually(lambda: len(kit.publisher.models) == 3)
    assert (kit.publisher.models[-1].bundle, kit.publisher.models[-1].frames) == ("b" * 64, 0)
    assert kit.publisher.models[-1].since > kit.publisher.models[0].since


def test_a_model_that_drifts_is_an_alert_until_it_is_calm_or_another_one_sees(
    kit: Kit, eventually: Wait, finds: Callable[..., ModelMeter]
) -> None:
    kit.caretaker.sees(finds("a", sure=500))
    kit.report()
    assert kit.publisher.standing == set()
    kit.caretaker.sees(finds("a", sure=500, unsure=400))
    eventually(lambda: kit.publisher.standing == {"model-drifted"})
    alert, verdict = kit.publisher.alerts["model-drifted"], kit.report().verdict
    assert alert is not None
    assert f"differ by {kit.publisher.models[-1].drift:.2f}" in alert.what
    assert "hard examples" in alert.mend
    assert (verdict.state, verdict.code) == (Well.DEGRADED, "model.drifted")
    snapshot = kit.caretaker.snapshot()
    assert snapshot is not None
    assert snapshot.model == kit.publisher.models[-1]
    kit.caretaker.sees(finds("b", unsure=100))
    eventually(lambda: not kit.publisher.standing)


def test_what_is_allowed_may_change(kit: Kit, eventually: Wait, finds: Callable[..., ModelMeter]) -> None:
    kit.caretaker.drift.most = 1.0
    kit.caretaker.sees(finds("a", unsure=300))
    kit.report()
    assert kit.publisher.models[-1].drift == 1.0
    assert kit.publisher.standing == set()
    kit.caretaker.drift.most = 0.9
    kit.report()
    eventually(lambda: kit.publisher.standing == {"model-drifted"})


def test_states_that_come_from_many_threads_at_once_are_all_kept(kit: Kit) -> None:
    def tell(name: str) -> None:
        for _ in range(300):
            kit.caretaker.camera(name, CameraState.STALLED)
            kit.caretaker.camera(f"{name}-gone", CameraState.ONLINE)
            kit.caretaker.camera(f"{name}-gone", None)

    names = [f"c{number}" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(tell, names))
    assert kit.caretaker._cameras == dict.fromkeys(names, CameraState.STALLED)


def test_a_failure_of_its_own_does_not_end_it(kit: Kit, eventually: Wait, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Remembers) -> OutboxHealth:
        raise RuntimeError("boom")

    with pytest.MonkeyPatch.context() as fault:
        fault.setattr(Remembers, "outbox_health", broken)
        eventually(lambda: "boom" in caplog.text)
    kit.caretaker.camera("gate", CameraState.FROZEN)
    eventually(lambda: kit.publisher.standing == {"camera-frozen"})
