"""The one thread that looks after the device, once a second: reads the machine, lets the governor adjust, tells alerts.

In: the machine, the meters, the states of the cameras and of the publisher.  Out: `Health` when the publisher asks for
it and `ModelMetrics` beside it, alerts when they change, and a `Snapshot` for Prometheus. Judges nothing itself: that
is for `verdict`, `governor` and `model_metrics`.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from tinysight_contract.messages import BrokerHealth, CameraState, Health, ModelMetrics, OutboxHealth, utc_now
from tinysight_contract.topics import HealthTopic, ModelTopic, Topic
from tinysight_edge.governor import Governor
from tinysight_edge.health.alerts import Alerts
from tinysight_edge.health.machine import Machine, Reading
from tinysight_edge.health.meter import Meter
from tinysight_edge.health.model_metrics import DriftWatch, ModelMeter
from tinysight_edge.health.prometheus import Snapshot
from tinysight_edge.health.verdict import Code, Facts, Problem, judge, verdict
from tinysight_edge.notify import notify

__all__ = ["Caretaker"]

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
FIRST_S: Final = 5.0
LATE: Final = 1.5  # of the time between two reports, while nobody asks because the broker is away


class Told(Protocol):
    """What is needed of the publisher."""

    away_since_s: float | None

    @property
    def outbox_share(self) -> float:
        """How full the outbox is, 0..1."""

    def state(self, topic: Topic, message: Struct | None) -> None:
        """Publish the newest of a topic; None clears it."""

    def outbox_health(self) -> OutboxHealth:
        """How many events wait and how many were given up."""

    def broker_health(self) -> BrokerHealth:
        """How many sessions there were, and why they ended."""


class Caretaker:
    """Looks after one device.

    Args:
        site: the site's id.
        device: the device's id.
        boot_id: of this process.
        machine: what is read.
        meter: what flows.
        governor: what is adjusted.
        every_s: between two health messages.
        max_drift: how far the model's scores may be from those in its test pictures.

    Attributes:
        every_s: as given; may be changed.
        drift: decides whether the model drifts.
    """

    def __init__(
        self,
        site: str,
        device: str,
        boot_id: str,
        *,
        machine: Machine,
        meter: Meter,
        governor: Governor,
        every_s: float = 30.0,
        max_drift: float = 1.0,
    ) -> None:
        self._topic, self._boot_id = HealthTopic(site, device), boot_id
        self._model_topic, self.drift = ModelTopic(site, device), DriftWatch(max_drift)
        self._sees: ModelMeter | None = None
        self._told: ModelMeter | None = None
        self._found: ModelMetrics | None = None
        self._machine, self._meter, self._governor = machine, meter, governor
        self.every_s = every_s
        self._alerts = Alerts(site, device, boot_id)
        self._reading = Reading()
        self._begun_s = self._reported_s = time.monotonic()
        self._cameras: dict[str, CameraState] = {}
        self._said: dict[Code, str] = {}
        self._discarded = 0
        self._health: Health | None = None
        self._problems: list[Problem] = []
        self._lock = threading.Lock()
        self._off = threading.Event()
        self._status = ""

    @property
    def clock_synced(self) -> bool | None:
        """Whether the clock was right a second ago; what events say of it."""
        return self._reading.clock_synced

    def start(self, publisher: Told) -> None:
        """Begin to look after everything."""
        self._publisher = publisher
        self._reading = self._machine.read()
        self._thread = threading.Thread(target=self._live, name="caretaker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; may be called although it was never started."""
        self._off.set()
        if (thread := getattr(self, "_thread", None)) is not None:
            thread.join(2 * EVERY_S)

    def camera(self, camera: str, state: CameraState | None) -> None:
        """A camera's new state; None when there is no such camera any more."""
        if state is None:
            self._cameras.pop(camera, None)
        else:
            self._cameras[camera] = state  # one step of the interpreter each, for several threads come here

    def sees(self, meter: ModelMeter) -> None:
        """Whose account of what it finds is told from now on."""
        self._sees = meter

    def say(self, code: Code, what: str | None) -> None:
        """A problem that another part has found, such as a refused configuration; None when it is over."""
        if what is None:
            self._said.pop(code, None)
        else:
            self._said[code] = what

    def report(self, outbox: OutboxHealth, broker: BrokerHealth) -> tuple[HealthTopic, Health]:
        """All since the last report; what `Publisher` asks for."""
        with self._lock:
            health = self._take_stock(outbox, broker, keep=False)
            self._discarded = sum(outbox.discarded.values())
            return self._topic, health

    def _take_stock(self, outbox: OutboxHealth, broker: BrokerHealth, *, keep: bool) -> Health:
        """How everything does; with ``keep`` the next report has all of it again."""
        flow, reading, limits = self._meter.take(keep=keep), self._reading, self._governor.limits()
        self._tell_model()
        cameras = {id_: replace(each, limit_fps=limits.get(id_)) for id_, each in flow.cameras.items()}
        self._problems = judge(self._facts({id_: each.frame_age_ms.p95 for id_, each in cameras.items()}, outbox))
        self._reported_s = time.monotonic()
        self._health = Health(
            at=utc_now(),
            boot_id=self._boot_id,
            uptime_s=round(self._reported_s - self._begun_s, 3),
            cameras=cameras,
            latency_ms=flow.latency_ms,
            cpu_percent=flow.cpu_percent,
            memory_mib=reading.memory_mib,
            temperature_c=reading.temperature_c,
            disk_free_mib=reading.disk_free_mib,
            outbox=outbox,
            verdict=verdict(self._problems),
            throttled=None if reading.slowed is None else bool(reading.slowed),
            broker=broker,
        )
        return self._health

    def _tell_model(self) -> None:
        """What the model has found, and whether it drifts; while the broker is away the newest waits for it."""
        if (meter := self._sees) is not None:
            self._told, self._found = meter, meter.take()
            self.say(Code.MODEL_DRIFTED, self.drift.judge(self._found))
            self._publisher.state(self._model_topic, self._found)

    def snapshot(self) -> Snapshot | None:
        """For Prometheus: the last report, and the counters as they are now."""
        health = self._health
        return None if health is None else Snapshot(health, self._problems, self._meter.totals(), self._found)

    def _live(self) -> None:
        while True:
            try:
                self._look()
            except Exception:
                log.exception("the caretaker broke; report this as a bug")  # seeing goes on without it
            if self._off.wait(EVERY_S):
                return

    def _look(self) -> None:
        self._reading = self._machine.read()
        now_s = time.monotonic()
        self._governor.adjust(self._reading.temperature_c, self._reading.slowed, now_s)
        outbox = self._publisher.outbox_health()
        with self._lock:
            due_s = FIRST_S if self._health is None else LATE * self.every_s
            if self._publisher.away_since_s is not None and now_s - self._reported_s > due_s:
                self._take_stock(outbox, self._publisher.broker_health(), keep=True)
            if self._told is not self._sees:  # soon after a swap nobody shall believe in the model before
                self._tell_model()
            ages = {id_: each.frame_age_ms.p95 for id_, each in self._health.cameras.items()} if self._health else {}
            self._problems = judge(self._facts(ages, outbox))
            told = self._alerts.changes(self._problems, now_s=now_s, now=utc_now())
        for topic, alert in told:
            self._publisher.state(topic, alert)
        status = "; ".join(problem.what for problem in self._problems[:3]) or "ok"
        if status != self._status:
            self._status = status
            notify(f"STATUS={status}")

    def _facts(self, ages: Mapping[str, float], outbox: OutboxHealth) -> Facts:
        config, away_since_s = self._governor.config, self._publisher.away_since_s
        return Facts(
            cameras=dict(list(self._cameras.items())),
            machine=self._reading,
            max_temperature_c=config.max_temperature_c,
            age_p95_ms={camera: ages[camera] for camera in self._governor.cameras if camera in ages},
            max_age_ms=config.max_frame_age * 1e3,
            limits_fps=self._governor.limits(),
            limit_reason=self._governor.reason,
            outbox_share=self._publisher.outbox_share,
            discarded=sum(outbox.discarded.values()) - self._discarded,
            broker_away_s=None if away_since_s is None else time.monotonic() - away_since_s,
            said=dict(list(self._said.items())),
        )
