"""Devices that do not exist: each speaks as an agent does, of what a real one has seen.

In: a `Recording` and a `Plan`.  Out: on the broker, for each device a session of its own with its will, status, info,
health, camera status, counts, and events with rising ``seq``, sent again until acknowledged. Cameras begin at places of
their own in the recording; what began before is not told. A device that is cut off waits with its story until it is
back. `crowd` serves them all.
"""

import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, Final

from msgspec import Struct
from msgspec.structs import replace

from tinysight_contract import __version__
from tinysight_contract import topics as t
from tinysight_contract.errors import BrokerError
from tinysight_contract.messages import (
    CameraHealth,
    CameraState,
    CameraStatus,
    Counts,
    Event,
    EventType,
    Health,
    Info,
    OutboxHealth,
    Percentiles,
    State,
    Status,
    encode,
)
from tinysight_contract.mqtt import Address, Connection, Will
from tinysight_edge.simulate.recording import Recording

__all__ = ["HEALTH_EVERY_S", "Device", "Plan", "Play"]

DIAL_S: Final = 10.0
HEALTH_EVERY_S: Final = 30.0
MOST_WAITING: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be simulated.

    Attributes:
        address: of the broker.
        site: of all devices.
        prefix: of their ids; a number follows.
        devices: how many.
        cameras: of each.
        rate: how fast the recording is played; 1 is as it was.
        health_s: between two messages of a device's health, in seconds.
        seed: of where each camera begins.
    """

    address: Address
    site: str = "sim"
    prefix: str = "sim"
    devices: int = 1
    cameras: int = 1
    rate: float = 1.0
    health_s: float = HEALTH_EVERY_S
    seed: int = 0


class Play:
    """One camera's endless story. No clock and no I/O.

    Args:
        recording: what is told.
        begin_s: where in it the story begins.

    Attributes:
        crossed: how often each line was, in each direction, by what was told.
    """

    def __init__(self, recording: Recording, begin_s: float) -> None:
        self._recording, self._round = recording, 0
        self._at = next((n for n, step in enumerate(recording.steps) if step.at_s >= begin_s), 0)
        self.crossed = {name: {"in": 0, "out": 0} for name in recording.lines}
        self._open: dict[str, Event] = {}  # by the life's name in the recording: what was told of it last

    @property
    def due_s(self) -> float:
        """When the next step is due, in seconds of the recording since the beginning of its first round."""
        return self._round * self._recording.duration_s + self._recording.steps[self._at].at_s

    def step(self, now: datetime) -> Event | None:
        """Go on; the event to tell, without ``seq`` and names, or None when it belongs to a life that was not begun."""
        told = self._recording.steps[self._at].event
        self._at += 1
        if self._at == len(self._recording.steps):
            self._at, self._round = 0, self._round + 1
        before = self._open.get(told.id)
        if before is None and told.type is not EventType.START:
            return None
        event = self._at_present(told, before, now)
        for crossing in told.crossed[len(before.crossed) if before is not None else 0 :]:
            self.crossed[crossing.line][crossing.direction] += 1
        if told.type is EventType.END:
            del self._open[told.id]
        else:
            self._open[told.id] = event
        return event

    def stop(self, now: datetime) -> Iterator[Event]:
        """Ends of all that is open, one after another."""
        while self._open:
            event = self._open.pop(next(iter(self._open)))
            yield replace(event, type=EventType.END, seen_at=now, ended_at=now, reason="stopped")

    def present(self, labels: list[str], *, zone: str | None = None) -> dict[str, int]:
        """How many of each label are there now, in a zone or in the whole picture."""
        count = Counter(event.label for event in self._open.values() if zone is None or zone in event.zones.now)
        return {label: count[label] for label in labels}

    def _at_present(self, told: Event, before: Event | None, now: datetime) -> Event:
        started_at = now if before is None else before.started_at
        return replace(
            told,
            id=f"{int(now.timestamp() * 1000):x}-{secrets.token_hex(4)}" if before is None else before.id,
            started_at=started_at,
            seen_at=now,
            ended_at=now if told.type is EventType.END else None,
            track=replace(told.track, age_s=round(max((now - started_at).total_seconds(), 0.0), 3)),
        )


@dataclass(eq=False, kw_only=True)
class Device:
    """One device and its session.

    Attributes:
        sent: events given to the broker, each counted once.
        acknowledged: those that it has.
        connection: its session; None while there is none.
        ready: the broker has answered, and knows who is here.
        cut: how often its session was lost.
        begins_s: when it first dials, in seconds after the others; None until it is told to.
        out, out_bytes: messages that it has given to the broker, with their topics.
        heard, heard_bytes: messages that came for it, likewise.
        plays: its cameras' stories.
    """

    KEPT: ClassVar[tuple[type[t.StatusTopic | t.InfoTopic | t.HealthTopic | t.ReportedTopic | t.ModelTopic], ...]] = (
        t.StatusTopic,
        t.InfoTopic,
        t.HealthTopic,
    )

    name: str
    plan: Plan
    recording: Recording
    sent: int = 0
    acknowledged: int = 0
    cut: int = 0
    begins_s: float | None = 0.0
    out: int = 0
    out_bytes: int = 0
    heard: int = 0
    heard_bytes: int = 0
    next_health_s: float = 0.0
    connection: Connection | None = None
    ready: bool = False
    boot_id: str = field(default_factory=lambda: secrets.token_hex(8))
    plays: dict[str, Play] = field(default_factory=dict)
    _counted: dict[str, Counts] = field(default_factory=dict)
    _waiting: dict[int, Event] = field(default_factory=dict)  # by seq
    _in_flight: dict[int, int] = field(default_factory=dict)  # message number to seq; 0 for the goodbye
    _began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def dial(self) -> Connection:
        """A new session, with its will; the broker has not answered yet.

        Raises:
            BrokerError: nobody is there.
        """
        will = Status(state=State.OFFLINE, boot_id=self.boot_id, reason="connection lost", at=datetime.now(UTC))
        connection = Connection(
            self.plan.address,
            client_id="_".join(("tinysight", *self._me)),
            will=Will(str(t.StatusTopic(*self._me)), encode(will)),
            on_message=self._on_message,
            on_ack=self._on_ack,
        )
        connection.dial(timeout_s=DIAL_S)
        return connection

    def greet(self) -> None:
        """The broker has answered: say who is here, and again what it has not acknowledged."""
        now = datetime.now(UTC)
        self.ready = True
        self._say(t.StatusTopic(*self._me), Status(state=State.ONLINE, boot_id=self.boot_id, reason="started", at=now))
        self._say(t.InfoTopic(*self._me), self._info())
        for camera in self.plays:
            online = CameraStatus(
                state=CameraState.ONLINE, since=self._began, reason="the source delivers", boot_id=self.boot_id
            )
            self._say(t.CameraStatusTopic(*self._me, camera), online)
            self._say_counts(camera, now, again=True)
        for event in list(self._waiting.values()):
            self._send(replace(event, replayed=True))

    def hear(self, payload: bytes) -> None:
        """A message came for it; this one asked for none."""

    def lose(self) -> None:
        """The session is gone; what the broker has not acknowledged waits for the next one."""
        self.connection, self.ready = None, False
        self.cut += 1
        self._in_flight.clear()

    def step(self, camera: str) -> bool:
        """Tell the next step of a camera's story; False when the broker owes so many answers that it has to wait."""
        if len(self._waiting) >= MOST_WAITING:
            return False
        now = datetime.now(UTC)
        if (event := self.plays[camera].step(now)) is not None:
            self._tell(camera, event, now)
        return True

    def health(self) -> None:
        """Tell how it does: latencies as they were recorded, what waits, and figures of a device that is well."""
        now, dropped = datetime.now(UTC), {"stale": 0}
        fps = next(iter(self.recording.info.cameras.values())).fps
        age = self.recording.steps[0].event.latency_ms
        ages = Percentiles(p50=age.total, p95=age.total)
        frames = round(fps * HEALTH_EVERY_S)
        flow = CameraHealth(fps=fps, fps_in=fps, frames=frames, inferred=frames, dropped=dropped, frame_age_ms=ages)
        stages = ("wait", "preprocess", "inference", "decode", "track")
        message = Health(
            at=now,
            boot_id=self.boot_id,
            uptime_s=round((now - self._began).total_seconds(), 3),
            cameras=dict.fromkeys(self.plays, flow),
            latency_ms={each: Percentiles(p50=getattr(age, each), p95=getattr(age, each)) for each in stages},
            cpu_percent=20.0,
            memory_mib=120.0,
            temperature_c=48.0,
            disk_free_mib=8192.0,
            outbox=OutboxHealth(depth=len(self._waiting), discarded={}, last_seq=self.sent),
        )
        self._say(t.HealthTopic(*self._me), message)

    def stop(self) -> None:
        """End what is open, and say goodbye."""
        now = datetime.now(UTC)
        for camera, play in self.plays.items():
            for event in play.stop(now):
                self._tell(camera, event, now)
        gone = Status(state=State.OFFLINE, boot_id=self.boot_id, reason="stopped", at=now)
        self._in_flight[self._say(t.StatusTopic(*self._me), gone)] = 0

    def clear(self) -> None:
        """Take back what the broker retains of it."""
        topics: list[t.Topic] = [kind(*self._me) for kind in self.KEPT]
        topics += [kind(*self._me, camera) for camera in self.plays for kind in (t.CameraStatusTopic, t.CountsTopic)]
        for topic in topics:
            self._in_flight[self._publish(topic, b"", qos=1)] = 0

    @property
    def idle(self) -> bool:
        """The broker has all that it was given."""
        return not self._in_flight

    @property
    def _me(self) -> tuple[str, str]:
        return self.plan.site, self.name

    @property
    def _connected(self) -> Connection:
        if self.connection is None:
            raise BrokerError(f"{self.name} is not connected.", mend="Report this as a bug.")
        return self.connection

    def _tell(self, camera: str, event: Event, now: datetime) -> None:
        self.sent += 1
        named = replace(
            event, seq=self.sent, boot_id=self.boot_id, site=self.plan.site, device=self.name, camera=camera
        )
        self._waiting[named.seq] = named
        self._send(named)
        self._say_counts(camera, now)

    def _send(self, event: Event) -> None:
        topic = t.EventTopic(*self._me, event.camera)
        self._in_flight[self._publish(topic, encode(event), qos=topic.QOS)] = event.seq

    def _say_counts(self, camera: str, now: datetime, *, again: bool = False) -> None:
        play, labels = self.plays[camera], self.recording.info.bundle.labels
        counts = Counts(
            at=now,
            boot_id=self.boot_id,
            objects=play.present(labels),
            zones={zone: play.present(labels, zone=zone) for zone in self.recording.zones},
            lines={line: dict(ways) for line, ways in play.crossed.items()},
        )
        before = self._counted.get(camera)
        if again or before is None or replace(before, at=now) != counts:
            self._counted[camera] = counts
            self._say(t.CountsTopic(*self._me, camera), counts)

    def _say(self, topic: t.Topic, message: Struct) -> int:
        return self._publish(topic, encode(message), qos=topic.QOS)

    def _publish(self, topic: t.Topic, payload: bytes, *, qos: int) -> int:
        where = str(topic)
        self.out, self.out_bytes = self.out + 1, self.out_bytes + len(where) + len(payload)
        return self._connected.publish(where, payload, qos=qos, retain=topic.RETAIN)

    def _on_message(self, topic: str, payload: bytes, _retained: bool) -> None:
        self.heard, self.heard_bytes = self.heard + 1, self.heard_bytes + len(topic) + len(payload)
        self.hear(payload)

    def _info(self) -> Info:
        recorded = next(iter(self.recording.info.cameras.values()))
        cameras = dict.fromkeys(self.plays, replace(recorded, source="simulated"))
        software = {"tinysight": __version__}
        return replace(
            self.recording.info, boot_id=self.boot_id, started_at=self._began, software=software, cameras=cameras
        )

    def _on_ack(self, message: int, refusal: str | None, _final: bool) -> None:
        seq = self._in_flight.pop(message, None)
        if seq and refusal is None and self._waiting.pop(seq, None) is not None:
            self.acknowledged += 1
