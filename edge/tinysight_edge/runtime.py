"""START HERE: the agent, from a frame to its events.

A frame's way: `camera` → `hub` → `looking` (`inference`) → `view` (`track` → `events`) → `publisher` (with `outbox`).
One capture thread per camera, one that runs the model, this loop that tells what it saw, one publisher; beside them one
that looks after the device (`caretaker`), one that writes pictures, one that reads the configuration again, and one
that ends a process that hangs.
"""

import contextlib
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from tinysight_contract import topics as t
from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BrokerError, CameraError, TinySightError
from tinysight_contract.messages import CameraState, CameraStatus, Counts, Event, utc_now
from tinysight_edge.cameras.camera import Camera, stop_all
from tinysight_edge.cameras.hub import Frame, Hub
from tinysight_edge.choice import choose
from tinysight_edge.config.file import secret_of
from tinysight_edge.config.reload import Change
from tinysight_edge.config.reloader import Watch
from tinysight_edge.config.types import AgentConfig, CameraConfig
from tinysight_edge.governor import Governor
from tinysight_edge.health.describe import describe
from tinysight_edge.health.meter import Meter
from tinysight_edge.health.verdict import Code
from tinysight_edge.looking import Look, Looking
from tinysight_edge.meaning.closing import closings
from tinysight_edge.meaning.events import Sequence
from tinysight_edge.mqtt import Address
from tinysight_edge.notify import notify
from tinysight_edge.outbox import Outbox
from tinysight_edge.parts import make_caretaker, make_pictures, make_publisher
from tinysight_edge.view import Seer, View
from tinysight_edge.watchdog import Watchdog

__all__ = ["Agent"]

DRAIN_S: Final = 10.0
STOP_WITHIN_S: Final = 2.0
LOOK_EVERY_S: Final = 0.25
SWITCH_S: Final = (
    1e-4  # so long a thread may keep others waiting for the lock; Python's 5 ms is a frame of a video file
)


class Agent:
    """Cameras, one model, one publisher.

    Args:
        bundle: what sees.
        config: what to do.
        broker: where events go, with its login.
        environ: where passwords may be.
        watch: reads the configuration again; None for one that does not change.
        watchdog: ends the process when the loop hangs; None where nobody would start it again.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: AgentConfig,
        broker: Address,
        *,
        environ: Mapping[str, str] = os.environ,
        watch: Watch | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.bundle, self.config, self.hub = bundle, config, Hub()
        self.boot_id = secrets.token_hex(8)
        self.made: Counter[str] = Counter()
        self.meter = Meter(self.hub)
        self._broker, self._environ, self._watch, self._watchdog = broker, environ, watch, watchdog
        self._me = config.site, config.device
        self._governor = Governor(config.governor)
        self._cameras: dict[str, Camera] = {}
        self._views: dict[str, View] = {}
        self._stopped = False
        self._looked_s = 0.0

    def run(self, *, ready: Callable[[], None] = lambda: None) -> dict[str, int | str]:
        """Go on until every source has ended or `stop` is called; then close what is open and leave cleanly.

        Args:
            ready: called once, when frames begin to flow.

        Returns:
            Frames, events by type, how many of them the broker has and how many wait in the outbox.

        Raises:
            TinySightError: the model fails its self-test or on a frame, a file cannot be opened or breaks, the broker
                is absent or refuses. What was seen until then has been told.
        """
        self._prepare()
        sys.setswitchinterval(SWITCH_S)
        drain_s, reason = DRAIN_S, "stopped"
        with contextlib.ExitStack() as beside:
            try:
                if not self.config.broker.start_offline:
                    self._publisher.wait_first_connect()
                for camera in self._cameras.values():
                    camera.start()
                self._stand_by(beside)
                ready()
                notify("READY=1")
                self._loop()
            except TinySightError as error:
                drain_s, reason = 0.0 if isinstance(error, BrokerError) else DRAIN_S, error.what
                raise
            finally:
                left = self._leave(drain_s, reason)
        self._publisher.check()
        for camera in self._cameras.values():
            if camera.failure is not None:
                raise camera.failure
        made = {f"events_{kind}": self.made[kind] for kind in ("start", "update", "end")}
        sent = {"events_sent": self._publisher.sent, "events_waiting": left}
        return {"frames": self.meter.frames, **made, **sent, "boot_id": self.boot_id}

    def stop(self) -> None:
        """End `run` soon. May be called from a signal handler."""
        self._stopped = True
        self.hub.stop()

    def _prepare(self) -> None:
        """Open what can be opened, load the model, and begin to tell; close what an earlier start left open."""
        config, (site, device) = self.config, self._me
        blind = self._open_cameras()
        wanted = config.model
        model = choose(self.bundle, scheme=wanted.scheme, threads=wanted.threads, engine=wanted.engine)
        self._seer = seer = Seer(self.bundle, model, self.boot_id, Sequence())
        for camera in self._cameras.values():
            self._watch_by(camera, View(seer, config, camera.id, still=camera.policy.still))
        outbox = Outbox(config.state / "outbox.db")
        self._caretaker = make_caretaker(config, self.boot_id, self.meter, self._governor)
        self._publisher = make_publisher(
            config, self.boot_id, self._broker, outbox=outbox, caretaker=self._caretaker, meter=self.meter
        )
        left_open = outbox.left_open()
        for topic, event in closings(left_open, site=site, device=device, boot_id=self.boot_id, sequence=seer.sequence):
            self._publish(topic, event)
        self._take_pictures()
        self._tell_info()
        for id_, why in blind.items():
            self._tell_camera(id_, CameraState.DISABLED, why)
        for id_ in self._views:
            self._end(id_, "stopped")  # nothing is there yet: zeros, for who waits for counts
        self._caretaker.start(self._publisher)
        self._publisher.start()

    def _open_cameras(self) -> dict[str, str]:
        """Open them; why some could not be. With a file that can be mended meanwhile, the others go on without them."""
        blind: dict[str, str] = {}
        for id_, each in self.config.cameras.items():
            camera = self._camera(id_, each)
            try:
                camera.open()
            except CameraError as error:
                if self._watch is None or len(blind) + 1 == len(self.config.cameras):
                    raise
                blind[id_] = error.what
            else:
                self._cameras[id_] = camera
        return blind

    def _leave(self, drain_s: float, reason: str) -> int:
        """End everything and say why; how many events stay in the outbox. After `stop` within three seconds."""
        begun_s = time.monotonic()
        notify("STOPPING=1")
        for id_ in self._views:
            self._end(id_, "stopped")
        stop_all(self._cameras.values())
        self._caretaker.stop()
        if self._pictures is not None:
            self._pictures.close(wait_s=0.5)
        if self._stopped:
            drain_s = max(0.3, STOP_WITHIN_S - (time.monotonic() - begun_s))
        return self._publisher.close(drain_s=drain_s, reason=reason)

    # The loop.

    def _loop(self) -> None:
        limit_s, watchdog = self._seer.model.limit_s, self._watchdog

        def guard(runs: int) -> contextlib.AbstractContextManager[object]:
            return contextlib.nullcontext() if watchdog is None else watchdog.busy(runs * limit_s)

        for item in Looking(self.hub, self._views, allow=self._allow, guard=guard):
            if watchdog is not None:
                watchdog.progress()
            self._publisher.check()
            if isinstance(item, Look):
                if item.view is self._views.get(item.frame.camera):  # else it was replaced a moment ago
                    self._see(item)
            elif item is not None and item.camera in self._views:
                self._end(item.camera, "camera lost")
            if (now_s := time.monotonic()) >= self._looked_s + LOOK_EVERY_S:
                self._looked_s = now_s
                self._look_around()

    def _allow(self, frame: Frame) -> bool:
        """Whether a frame is to be inferred; asked by the inference thread."""
        camera = self._cameras.get(frame.camera)
        if camera is None or not camera.policy.live or self._governor.allow(frame.camera, frame.captured_s):
            return True
        self.meter.drop(frame.camera, "governed")
        return False

    def _see(self, look: Look) -> None:
        """From the model's answer to events."""
        frame, view = look.frame, look.view
        told = view.tell(frame, look.looked, clock_synced=self._caretaker.clock_synced)
        self._tell(frame.camera, told.events, told.counts)
        if told.found is None:
            self.meter.drop(frame.camera, "still")
            return
        kept_s = time.monotonic()
        if self._pictures is not None:
            self._pictures.offer(frame, told.found, told.alive, view.lives.ids)
        pictures_ms = (time.monotonic() - kept_s) * 1e3
        self.meter.note(frame.camera, told.latency, meaning_ms=told.meaning_ms, pictures_ms=pictures_ms)
        if self._cameras[frame.camera].policy.live:
            age_ms = told.latency.total + told.meaning_ms
            self._governor.note(frame.camera, age_ms, age_ms - told.latency.wait)

    def _end(self, camera: str, reason: str) -> None:
        """End what is followed, so that no reader waits for it."""
        self._tell(camera, *self._views[camera].end(reason))

    def _tell(self, camera: str, events: Iterable[Event], counts: Counts | None) -> None:
        for event in events:
            self._publish(t.EventTopic(*self._me, camera), event)
        if counts is not None:
            self._publisher.state(t.CountsTopic(*self._me, camera), counts)

    def _publish(self, topic: t.EventTopic, event: Event) -> None:
        self.made[event.type] += 1
        self._publisher.event(topic, event)

    # What happens beside the frames.

    def _look_around(self) -> None:
        """A few times a second: changes of the configuration, and what is to be said of it."""
        if self._watch is not None:
            while (change := self._watch.take()) is not None:
                self._apply(change)
            refused = self._watch.reloader.now.refused
            self._caretaker.say(Code.CONFIG_REFUSED, None if refused is None else str(refused.error))
        unwritten = self._publisher.trouble
        self._caretaker.say(Code.OUTBOX_FAILING, None if unwritten is None else unwritten.what)
        if self._pictures is not None:
            trouble = self._pictures.trouble
            self._caretaker.say(Code.PICTURES_FAILING, None if trouble is None else trouble.what)

    def _apply(self, change: Change) -> None:
        """Make what runs what is wanted. What is not named in the change goes on as it is."""
        old, self.config = self.config, change.config
        self._governor.config = change.config.governor
        self._publisher.every_s = self._caretaker.every_s = change.config.health.every
        meaning = {*change.remeant, *(self._views if "rules" in change.sections else ())}
        with self.hub.held():
            for id_ in {*change.removed, *change.reopened} & self._cameras.keys():
                self._end(id_, "stopped")
                self._cameras.pop(id_).stop()
                del self._views[id_]
            for id_ in (*change.reopened, *change.added):
                self._begin(id_)
            for id_ in meaning & self._views.keys():
                self._remake(id_)
        for id_ in change.removed:
            self._caretaker.camera(id_, None)
            for topic in (t.CameraStatusTopic(*self._me, id_), t.CountsTopic(*self._me, id_)):
                self._publisher.state(topic, None)
        if (old.snapshots, old.examples) != (change.config.snapshots, change.config.examples):
            if self._pictures is not None:
                self._pictures.close(wait_s=0.5)
            self._take_pictures()
        self._tell_info()

    def _begin(self, id_: str) -> None:
        """A camera that is new. One that cannot be opened is told, and taken back when its trial is over."""
        camera = self._camera(id_, self.config.cameras[id_])
        try:
            camera.open()
        except CameraError as error:
            self._tell_camera(id_, CameraState.DISABLED, error.what)
            return
        self._watch_by(camera, View(self._seer, self.config, id_, still=camera.policy.still))
        self._cameras[id_] = camera
        self._end(id_, "stopped")
        camera.start()

    def _remake(self, id_: str) -> None:
        """The same camera with another meaning: what is followed ends and begins anew, lines go on counting."""
        self._end(id_, "stopped")
        crossed, camera = self._views[id_].lives.crossed, self._cameras[id_]
        view = View(self._seer, self.config, id_, still=camera.policy.still, crossed=crossed)
        self._watch_by(camera, view)
        self._end(id_, "stopped")

    def _tell_camera(self, camera: str, state: CameraState, reason: str) -> None:
        """Called by capture threads."""
        status = CameraStatus(state=state, since=utc_now(), reason=reason, boot_id=self.boot_id)
        self._publisher.state(t.CameraStatusTopic(*self._me, camera), status)
        self._caretaker.camera(camera, state)
        if self._watch is not None:
            self._watch.reloader.note_camera(camera, state)
        if state is CameraState.ONLINE:
            self._tell_info()  # now its size is known

    def _tell_info(self) -> None:
        cameras = {id_: camera.describe() for id_, camera in list(self._cameras.items())}
        info = describe(self.bundle, self._seer.model, cameras, boot_id=self.boot_id)
        self._publisher.state(t.InfoTopic(*self._me), info)

    # Parts.

    def _watch_by(self, camera: Camera, view: View) -> None:
        self._views[camera.id], camera.fit = view, view.infer.fit

    def _take_pictures(self) -> None:
        self._pictures = make_pictures(self.config, self._seer)
        if self._pictures is not None:
            self._pictures.start()

    def _camera(self, id_: str, config: CameraConfig) -> Camera:
        secret = secret_of(config.password_file, config.password_env, self._environ)
        return Camera(id_, config, self.hub, self._tell_camera, secret=secret)

    def _check(self, config: AgentConfig) -> None:
        """See that this model can do what a configuration asks for; it raises what is wrong."""
        for id_ in config.cameras:
            View(self._seer, config, id_, still=False)

    def _stand_by(self, beside: contextlib.ExitStack) -> None:
        """Start what runs beside the loop as long as it does."""
        port = self.config.health.prometheus_port
        if port is not None:
            from tinysight_edge.health.prometheus import Prometheus  # noqa: PLC0415 -- an HTTP server, only on demand

            beside.enter_context(Prometheus(port, self._caretaker.snapshot))
        if self._watch is not None:
            self._watch.reloader.labels, self._watch.reloader.check = self.bundle.manifest.labels, self._check
            beside.enter_context(self._watch)
        if self._watchdog is not None:
            beside.enter_context(self._watchdog)
