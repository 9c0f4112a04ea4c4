"""START HERE: the agent, from a frame to its events.

A frame's way: `camera` → `preprocess` → `interpreter` → `decode` → `track` → `events` → `publisher` (with `outbox`).
One capture thread per camera, this one inference loop, one publisher thread.
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinysight_contract import topics as t
from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BrokerError
from tinysight_contract.messages import (
    CameraState,
    CameraStatus,
    FrameSize,
    LatencyMs,
    ModelRef,
    State,
    Status,
    utc_now,
)
from tinysight_edge.camera import Camera, Frame, Hub
from tinysight_edge.config import GovernorConfig
from tinysight_edge.decode import Decoder, make_decoder
from tinysight_edge.events import Identity, Lives, Moment, Sequence
from tinysight_edge.governor import Governor
from tinysight_edge.health.caretaker import Caretaker
from tinysight_edge.health.describe import describe
from tinysight_edge.health.machine import Machine
from tinysight_edge.health.meter import Meter
from tinysight_edge.interpreter import Model
from tinysight_edge.mqtt import Address
from tinysight_edge.outbox import Outbox
from tinysight_edge.preprocess import Preprocessor
from tinysight_edge.publisher import Publisher
from tinysight_edge.track import Track, Tracker

__all__ = ["Agent", "Settings"]

DRAIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an agent needs to know besides its bundle.

    Attributes:
        site: the site's id.
        device: the device's id.
        broker: where events go.
        cameras: camera id to source.
        state: folder for what must survive a restart.
        scheme: the variant to run; None takes the first that loads.
        threads: of the interpreter.
        start_offline: begin although the broker is away; events wait in the outbox.
        health_every_s: seconds between health messages.
    """

    site: str
    device: str
    broker: Address
    cameras: dict[str, str]
    state: Path
    scheme: str | None = None
    threads: int = 1
    start_offline: bool = False
    health_every_s: float = 30.0


@dataclass(slots=True)
class _View:
    """What the loop keeps per camera; ``moment`` is its last frame."""

    tracker: Tracker
    lives: Lives
    events: t.EventTopic
    counts: t.CountsTopic
    moment: Moment | None = None


class Agent:
    """Cameras, one model, one publisher.

    Args:
        bundle: what to run.
        settings: where and for whom.
    """

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.bundle, self.settings = bundle, settings
        self.boot_id = secrets.token_hex(8)
        self.hub = Hub()
        self.made: Counter[str] = Counter()
        self._me = settings.site, settings.device
        self._sequence = Sequence()
        self._cameras = [Camera(id_, spec, self.hub, self._tell_camera) for id_, spec in settings.cameras.items()]
        self._meter = Meter(self.hub)

    def run(self, *, ready: Callable[[], None] = lambda: None) -> dict[str, int | str]:
        """Go on until every source has ended or `stop` is called; then close what is open and leave cleanly.

        Args:
            ready: called once, when frames begin to flow.

        Returns:
            Frames, events by type, how many of them the broker has and how many wait in the outbox.

        Raises:
            TinySightError: the model fails its self-test, a source cannot be opened or a file breaks, the broker is
                absent or refuses. What was seen until then has been told.
        """
        for camera in self._cameras:
            camera.open()
        model = Model.load(self.bundle, scheme=self.settings.scheme, threads=self.settings.threads)
        self._caretaker = self._make_caretaker()
        self._publisher = self._make_publisher(model)
        self._caretaker.start(self._publisher)
        self._publisher.start()
        drain_s = DRAIN_S
        try:
            if not self.settings.start_offline:
                self._publisher.wait_first_connect()
            views = {camera.id: self._view(camera) for camera in self._cameras}
            prepare = Preprocessor(self.bundle.manifest.input, model.variant.input)
            decode = make_decoder(self.bundle.manifest, model.variant)
            for camera in self._cameras:
                camera.start()
            ready()
            for item in self.hub:
                self._publisher.check()
                if isinstance(item, Frame):
                    self._see(item, views[item.camera], prepare, model, decode)
                elif item is not None:
                    self._end(views[item.camera])
            for view in views.values():
                self._end(view)
        except BrokerError:
            drain_s = 0.0
            raise
        finally:
            for camera in self._cameras:
                camera.stop()
            self._caretaker.stop()
            left = self._publisher.close(drain_s=drain_s)
        self._publisher.check()
        for camera in self._cameras:
            if camera.failure is not None:
                raise camera.failure
        made = {f"events_{kind}": self.made[kind] for kind in ("start", "update", "end")}
        sent = {"events_sent": self._publisher.sent, "events_waiting": left}
        return {"frames": self._meter.frames, **made, **sent, "boot_id": self.boot_id}

    def stop(self) -> None:
        """End `run` soon. May be called from a signal handler."""
        self.hub.stop()

    def _see(self, frame: Frame, view: _View, prepare: Preprocessor, model: Model, decode: Decoder) -> None:
        """One frame's way to its events."""
        begun = time.monotonic()
        tensor, fit = prepare(frame.image_bgr)
        prepared = time.monotonic()
        outputs = model.run(tensor)
        inferred = time.monotonic()
        found = decode(outputs).in_frame(fit)
        decoded = time.monotonic()
        alive, ended = view.tracker.update(found, frame.at_s)
        done = time.monotonic()
        latency = LatencyMs(
            wait=round((begun - frame.captured_s) * 1e3, 3),
            preprocess=round((prepared - begun) * 1e3, 3),
            inference=round((inferred - prepared) * 1e3, 3),
            decode=round((decoded - inferred) * 1e3, 3),
            track=round((done - decoded) * 1e3, 3),
            total=round((done - frame.captured_s) * 1e3, 3),
        )
        size = FrameSize(width=fit.frame_w, height=fit.frame_h)
        view.moment = Moment(frame.captured_at, frame.at_s, size, latency, self._caretaker.clock_synced)
        self._tell(view, alive, ended, view.moment)
        self._meter.note(frame.camera, latency)

    def _end(self, view: _View) -> None:
        """End what is followed, so that no reader waits for it."""
        if view.moment is not None:
            self._tell(view, [], view.tracker.end_all(), view.moment)

    def _tell(self, view: _View, alive: list[Track], ended: list[Track], moment: Moment) -> None:
        for event in view.lives.tell(alive, ended, moment):
            self.made[event.type] += 1
            self._publisher.event(view.events, event)
        if (counts := view.lives.counts(alive, at=moment.at)) is not None:
            self._publisher.state(view.counts, counts)

    def _view(self, camera: Camera) -> _View:
        manifest = self.bundle.manifest
        model = ModelRef(name=manifest.name, version=manifest.version, digest=self.bundle.digest)
        still = camera.source.still
        view = _View(
            Tracker(
                min_hits=1 if still else 3,
                max_lost_s=0.0 if still else 1.0,
                same_class=manifest.task == "classify",
            ),
            Lives(
                Identity(*self._me, camera.id, self.boot_id, model, tuple(manifest.labels)),
                self._sequence,
            ),
            t.EventTopic(*self._me, camera.id),
            t.CountsTopic(*self._me, camera.id),
        )
        if (counts := view.lives.counts([], at=utc_now())) is not None:
            self._publisher.state(view.counts, counts)
        return view

    def _make_caretaker(self) -> Caretaker:
        return Caretaker(
            *self._me,
            self.boot_id,
            machine=Machine(self.settings.state),
            meter=self._meter,
            governor=Governor(GovernorConfig()),
            every_s=self.settings.health_every_s,
        )

    def _make_publisher(self, model: Model) -> Publisher:
        here = t.StatusTopic(*self._me)
        online = Status(state=State.ONLINE, boot_id=self.boot_id, reason="started", at=utc_now())
        offline = Status(state=State.OFFLINE, boot_id=self.boot_id, reason="connection lost", at=utc_now())
        publisher = Publisher(
            self.settings.broker,
            Outbox(self.settings.state / "outbox.db"),
            client_id="_".join(("tinysight", *self._me)),  # ids hold no "_", so no two devices share one
            online=(here, online),
            offline=(here, offline),
            every_s=self.settings.health_every_s,
            report=self._caretaker.report,
            published=self._meter.published,
        )
        cameras = {camera.id: camera.source for camera in self._cameras}
        info = describe(self.bundle, model, cameras, boot_id=self.boot_id)
        publisher.state(t.InfoTopic(*self._me), info)
        return publisher

    def _tell_camera(self, camera: str, state: CameraState, reason: str) -> None:
        status = CameraStatus(state=state, since=utc_now(), reason=reason, boot_id=self.boot_id)
        self._publisher.state(t.CameraStatusTopic(*self._me, camera), status)
        self._caretaker.camera(camera, state)
