"""START HERE: the agent, from a frame to its events.

A frame's way: `camera` → `hub` → `looking` (`inference`) → `view` (`track` → `events`) → `telling` → `publisher` (with
`outbox`). What happens beside the frames is `steering`.
One capture thread per camera, one that runs the model, this loop that tells what it saw, one publisher; beside them one
that looks after the device (`caretaker`), one that writes pictures, one that reads the configuration again, and one
that ends a process that hangs.
"""

import contextlib
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BrokerError, ConfigError, TinySightError
from tinysight_contract.messages import utc_now
from tinysight_edge.cameras.hub import Frame, Hub
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.config.watch import Watch
from tinysight_edge.governor import Governor
from tinysight_edge.health.describe import describe
from tinysight_edge.health.meter import Meter
from tinysight_edge.health.verdict import Code
from tinysight_edge.lineup import Lineup
from tinysight_edge.looking import Look, Looking, Switched
from tinysight_edge.meaning.closing import closings
from tinysight_edge.meaning.events import Sequence
from tinysight_edge.neighbours.neighbours import Neighbours
from tinysight_edge.notify import notify
from tinysight_edge.orders.actions import Hands
from tinysight_edge.orders.asker import Asker
from tinysight_edge.orders.portraits import Portraits
from tinysight_edge.outbox import Outbox
from tinysight_edge.parts import make_caretaker, make_desk, make_model_meter, make_publisher, make_updater
from tinysight_edge.pictures.upload import Uploader
from tinysight_edge.steering import Steering
from tinysight_edge.telling import Teller
from tinysight_edge.update.report import Report
from tinysight_edge.update.shadow import Shadow
from tinysight_edge.update.starting import load_first
from tinysight_edge.update.swap import Swapper
from tinysight_edge.update.trial import Pulse
from tinysight_edge.view import Seer, View
from tinysight_edge.watchdog import Watchdog

if TYPE_CHECKING:
    from tinysight_edge.update.updater import Updater

__all__ = ["Agent"]

log = logging.getLogger(__name__)

DRAIN_S: Final = 10.0
STOP_WITHIN_S: Final = 2.0
LOOK_EVERY_S: Final = 0.25
START_WITHIN_S: Final = 180.0  # to load the model, with accelerators that hang


class _Stopped(Exception):  # noqa: N818 -- no error, and nobody else sees it
    """`Agent.stop` was called during the start."""


class Agent:
    """Cameras, one model, one publisher.

    Args:
        bundle: what sees.
        config: what to do.
        environ: where passwords may be.
        watch: reads the configuration again; None for one that does not change.
        watchdog: ends the process when the loop hangs; None where nobody would start it again.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: AgentConfig,
        *,
        environ: Mapping[str, str] = os.environ,
        watch: Watch | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.config, self.hub = config, Hub()
        self._first = bundle
        self.boot_id, self._started_at = secrets.token_hex(8), utc_now()
        self.meter = Meter(self.hub)
        self._environ, self._watch, self._watchdog = environ, watch, watchdog
        self._governor = Governor(config.governor)
        self._stopped_s: float | None = None
        self.again = False
        self._portraits = Portraits()
        self._looked_s = 0.0
        self._pulse = Pulse(time.monotonic())
        self._shadow: Shadow | None = None
        self._updater: Updater | None = None

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
        drain_s, reason = DRAIN_S, "stopped"
        with contextlib.ExitStack() as beside:
            if self._watchdog is not None:
                beside.enter_context(self._watchdog)
            try:
                self._prepare()
            except _Stopped:  # nobody has heard of this start, so there is no goodbye to say
                left = len(self._outbox)
                self._outbox.close()
                return self._result(Counter(), 0, left)
            try:
                if not self.config.broker.start_offline:
                    self._publisher.wait_first_connect(heed=self._heed)
                self._heed()
                self._lineup.start()
                self._stand_by(beside)
                ready()
                notify("READY=1")
                self._loop()
            except _Stopped:
                pass
            except BaseException as error:
                drain_s = 0.0 if isinstance(error, BrokerError) else DRAIN_S
                reason = error.what if isinstance(error, TinySightError) else type(error).__name__
                raise
            finally:
                left = self._leave(drain_s, "restarting" if self.again else reason)
        self._publisher.check()
        for camera in self._lineup.cameras.values():
            if camera.failure is not None and self._stopped_s is None:
                raise camera.failure
        return self._result(self._teller.made, self._publisher.sent, left)

    def stop(self) -> None:
        """End `run` within three seconds, also while it starts. May be called from a signal handler.

        What is native cannot be interrupted: a call that loads, compiles or runs the model once, or opens a file. When
        one of these takes longer, so does the end; systemd kills what is not gone after `TimeoutStopSec`.
        """
        self._stopped_s = self._stopped_s or time.monotonic()
        self.hub.stop()

    def restart(self) -> None:
        """End `run` as `stop` does; whoever called it finds ``again`` set and starts another."""
        self.again = True
        self.stop()

    def _heed(self) -> None:
        """Break the start off when its end is wanted."""
        if self._stopped_s is not None:
            raise _Stopped

    def _result(self, made_by_type: Counter[str], sent: int, left: int) -> dict[str, int | str]:
        made = {f"events_{kind}": made_by_type[kind] for kind in ("start", "update", "end")}
        told = {"events_sent": sent, "events_waiting": left}
        return {"frames": self.meter.frames, **made, **told, "boot_id": self.boot_id}

    def _prepare(self) -> None:
        """Load the model, open what can be opened, and begin to tell; close what an earlier start left open."""
        config, watch = self.config, self._watch
        self._outbox = outbox = Outbox(config.state / "outbox.db", config.outbox)
        with self._guard(START_WITHIN_S):
            bundle, model, unfit = load_first(self._first, config.model, heed=self._heed)
        seer = Seer(bundle, model, self.boot_id, Sequence())
        del self._first, bundle, model  # other models may follow, and this one's memory is theirs then
        if watch is not None:
            watch.reloader.runs(seer.bundle.digest)
        self._caretaker = care = make_caretaker(config, self.boot_id, self.meter, self._governor)
        care.say(Code.UPDATE_FAILED, unfit)
        self._finds = make_model_meter(seer)
        care.sees(self._finds)
        hands = Hands(
            config=lambda: self._steering.config,
            watch=watch,
            restart=self.restart,
            supervised="NOTIFY_SOCKET" in self._environ,
            enable=lambda camera, enabled: self._steering.enable(camera, enabled),  # noqa: PLW0108 -- not made yet
            portraits=self._portraits,
        )
        self._desk = desk = make_desk(config, self.boot_id, seer.bundle.digest, hands=hands, caretaker=care)
        self._neighbours = others = Neighbours(config)
        self._publisher = publisher = make_publisher(
            config,
            self.boot_id,
            self._environ,
            outbox=outbox,
            caretaker=care,
            meter=self.meter,
            desk=desk,
            neighbours=others,
        )
        others.start(publisher.foreign)
        note = watch.reloader.note_camera if watch is not None else lambda _id, _state: None
        me = config.site, config.device
        self._teller = teller = Teller(
            *me, self.boot_id, publisher=publisher, caretaker=care, neighbours=others, note_camera=note
        )
        self._lineup = Lineup(seer, config, self.hub, environ=self._environ, tell=teller.seen, say=teller.camera)
        self._looking = Looking(self.hub, seer, view_of=self._view_of, guard=self._guard)
        self.swapper = Swapper(seer, lineup=self._lineup, looking=self._looking, became=self._became)
        for topic, event in closings(
            outbox.left_open(), site=me[0], device=me[1], boot_id=self.boot_id, sequence=seer.sequence
        ):
            teller.event(topic, event)
        self._lineup.open(all_of_them=watch is None)
        self._steering = Steering(
            config,
            watch,
            hub=self.hub,
            governor=self._governor,
            caretaker=care,
            publisher=publisher,
            teller=teller,
            lineup=self._lineup,
            seer=seer,
            tell_info=self._tell_info,
        )
        self._report = Report(desk=desk, watch=watch, caretaker=care, teller=teller) if config.model.store else None
        self._tell_info()
        care.start(publisher)
        publisher.start()
        desk.start(publisher)

    def _leave(self, drain_s: float, reason: str) -> int:
        """End everything and say why; how many events stay in the outbox. After `stop` within three seconds."""
        begun_s = self._stopped_s or time.monotonic()
        self._steering.close()
        self.hub.stop()
        self.swapper.close()
        if self._updater is not None:
            self._updater.stop()
        self._desk.stop()
        notify("STOPPING=1")
        self._lineup.stop()
        self._caretaker.stop()
        self._looking.close()
        if self._steering.pictures is not None:
            self._steering.pictures.close(wait_s=0.5)
        self.meter.close()
        self._neighbours.leave()
        if self._stopped_s is not None:
            drain_s = max(0.3, STOP_WITHIN_S - (time.monotonic() - begun_s))
        return self._publisher.close(drain_s=drain_s, reason=reason)

    # The loop.

    def _loop(self) -> None:
        views = self._lineup.views
        for item in self._looking:
            if self._watchdog is not None:
                self._watchdog.progress()
            self._publisher.check()
            if isinstance(item, Look):
                if item.view is views.get(item.frame.camera):
                    self._see(item)
                else:  # it was replaced a moment ago
                    self.meter.drop(item.frame.camera, "reloaded")
            elif isinstance(item, Switched):
                self.swapper.switched(item)
            elif item is not None and item.camera in views:
                self._lineup.end(item.camera, "camera lost")
            del item  # its picture's memory takes the next one while that is waited for, and is warm in the cache
            if (now_s := time.monotonic()) >= self._looked_s + LOOK_EVERY_S:
                self._looked_s = now_s
                self._steering.look_around()
                self.swapper.look_around()

    def _guard(self, limit_s: float) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self._watchdog is None else self._watchdog.busy(limit_s)

    def _view_of(self, frame: Frame) -> View | None:
        """Who is to see a frame, None when it is passed over; asked by the inference thread."""
        camera, view = self._lineup.cameras.get(frame.camera), self._lineup.views.get(frame.camera)
        if camera is None or view is None:
            self.meter.drop(frame.camera, "reloaded")
            return None
        if not camera.policy.live or self._governor.allow(frame.camera, frame.captured_s):
            return view
        self.meter.drop(frame.camera, "governed")
        return None

    def _see(self, look: Look) -> None:
        """From the model's answer to events."""
        frame, view = look.frame, look.view
        try:
            told = view.tell(frame, look.looked, clock_synced=self._caretaker.clock_synced)
        except Exception as error:
            if not self.swapper.broke(error):
                raise
            self.meter.drop(frame.camera, "reloaded")
            return
        self._teller.seen(frame.camera, told.events, told.counts)
        self._portraits.offer(frame)
        self._pulse.note(frame.camera, look.run_ms, now_s := time.monotonic())
        if (shadow := self._shadow) is not None and told.found is not None:
            shadow.offer(frame, told.found)
        if (frames := self._steering.frames) is not None:
            message = frames.of(frame, told, view.lives.ids)
            if message is not None:
                self._teller.frame(frame.camera, message)
        if told.found is None:
            self.meter.drop(frame.camera, "still")
            return
        if (pictures := self._steering.pictures) is not None:
            pictures.offer(frame, told.found, told.alive, view.lives.ids)
        if look.run_ms is not None:  # of tiles in none of which anything moves nothing was inferred either
            self._finds.note(frame.camera, frame.at_s, told.found, look.run_ms)
        pictures_ms = (time.monotonic() - now_s) * 1e3
        self.meter.note(frame.camera, told.latency, meaning_ms=told.meaning_ms, pictures_ms=pictures_ms)
        if self._lineup.cameras[frame.camera].policy.live:
            age_ms = told.latency.total + told.meaning_ms
            self._governor.note(frame.camera, age_ms, age_ms - told.latency.wait)

    def _became(self, seer: Seer) -> None:
        """Another model sees."""
        self._pulse, self._finds = Pulse(time.monotonic()), make_model_meter(seer)
        self._caretaker.sees(self._finds)
        self._steering.became(seer)

    def _tell_info(self) -> None:
        self._teller.info_due = False  # before: what becomes another while it is described is due again
        config, seer, wanted = self._steering.config, self.swapper.seer, self._report.coming if self._report else None
        cameras = self._lineup.describe()
        info = describe(config, seer.bundle, seer.model, cameras, boot_id=self.boot_id, started_at=self._started_at)
        self._teller.info(config, info, wanted=wanted)

    def _stand_by(self, beside: contextlib.ExitStack) -> None:
        """Start what runs beside the loop as long as it does."""
        port = self.config.health.prometheus_port
        if port is not None:
            from tinysight_edge.health.prometheus import Prometheus  # noqa: PLC0415 -- an HTTP server, only on demand

            try:
                beside.enter_context(Prometheus(port, self._caretaker.snapshot))
            except ConfigError as error:  # a page that nobody can read must not end seeing
                log.error("%s", error)
        if self._watch is not None:
            reloader, seer = self._watch.reloader, self.swapper.seer
            reloader.labels, reloader.check = seer.bundle.manifest.labels, self._lineup.check
            beside.enter_context(self._watch)
            me = self.config.site, self.config.device
            asker = Asker(
                *me,
                config=lambda: self._steering.config,
                away_since_s=lambda: self._publisher.away_since_s,
                take=reloader.ask,
            )
            beside.enter_context(asker)
            examples = self.config.state / "examples"
            beside.enter_context(Uploader(examples, *me, config=lambda: self._steering.config))
        if self._report is not None and self.config.model.store is not None:
            self._updater = make_updater(
                self.config.model.store,
                self._report,
                config=lambda: self._steering.config,
                swapper=self.swapper,
                pulse=lambda: self._pulse,
                shadow=partial(setattr, self, "_shadow"),
                meter=self.meter,
                caretaker=self._caretaker,
            )
            self._updater.start()
