"""The cameras that run and the view of each: opened, changed while the loop runs, ended.

In: a configuration, and `Change`s of it.  Out: `cameras` and `views`, and word of what could not be opened. Belongs to
the telling thread; the inference thread only looks into `views`.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Final

from tinysight_contract.errors import ConfigError, TinySightError
from tinysight_contract.messages import CameraInfo, CameraState, Counts, Event
from tinysight_edge.cameras.camera import Camera, stop_all
from tinysight_edge.cameras.hub import Hub
from tinysight_edge.config.file import secret_of
from tinysight_edge.config.reload import Change
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.sources import name_of, policy_of
from tinysight_edge.view import Seer, View

__all__ = ["Lineup"]

AGAIN_S: Final = 10.0
Crossed = Mapping[str, Mapping[str, int]]


class Lineup:
    """What runs of a configuration.

    Args:
        seer: what sees.
        config: which cameras.
        hub: where their frames go.
        environ: where their passwords may be.
        tell: takes a camera's events and counts.
        say: takes a camera's state and its reason; called by capture threads as well.

    Attributes:
        config: what holds now.
        cameras: that could be opened, by id.
        views: of those.
        unopened: why the others could not be opened; they are tried again.
        disabled: that somebody has switched off; they stay so until he switches them on, or a restart.
    """

    def __init__(
        self,
        seer: Seer,
        config: AgentConfig,
        hub: Hub,
        *,
        environ: Mapping[str, str],
        tell: Callable[[str, Iterable[Event], Counts | None], None],
        say: Callable[[str, CameraState, str], None],
    ) -> None:
        self.config = config
        self.cameras: dict[str, Camera] = {}
        self.views: dict[str, View] = {}
        self.unopened: dict[str, TinySightError] = {}
        self.disabled: set[str] = set()
        self._crossed: dict[str, Crossed] = {}  # of those that are disabled
        self._seer, self._hub, self._environ, self._tell, self._say = seer, hub, environ, tell, say
        self._beside: set[Seer] = set()  # that every view is ready for, with the one that sees
        self._again_s = 0.0

    def open(self, *, all_of_them: bool) -> None:
        """Open all, in their order; no more once the hub is stopped.

        Raises:
            TinySightError: one cannot be opened, and ``all_of_them`` are wanted; or none can be.
        """
        for id_ in self.config.cameras:
            if self._hub.stopped:
                return
            self._open(id_)
            if id_ in self.unopened and (all_of_them or len(self.unopened) == len(self.config.cameras)):
                raise self.unopened[id_]
        self._again_s = time.monotonic() + AGAIN_S

    def start(self) -> None:
        """Begin to capture."""
        for camera in self.cameras.values():
            camera.start()

    def apply(self, change: Change) -> None:
        """Make what runs what is wanted. What is not named in the change goes on as it is."""
        self.config = change.config
        with self._hub.held():
            crossed = self._close({*change.removed, *change.reopened} & self.cameras.keys())
            for id_ in change.removed:
                self.unopened.pop(id_, None)
                self.disabled.discard(id_)
                self._crossed.pop(id_, None)
                self._hub.forget(id_)
            for id_ in (*change.reopened, *change.added):
                if id_ not in self.disabled:
                    self._begin(id_, crossed.get(id_))
            remeant = {*change.remeant, *(self.views if "rules" in change.sections else ())}
            for id_ in remeant & self.views.keys():
                self._remake(id_)

    def enable(self, id_: str, *, enabled: bool) -> None:
        """Switch a camera of the configuration on or off; on, it goes on with the totals of its lines."""
        if enabled is (id_ not in self.disabled) or id_ not in self.config.cameras:
            return
        with self._hub.held():
            if enabled:
                self.disabled.discard(id_)
                self._begin(id_, self._crossed.pop(id_, None))
                return
            self.disabled.add(id_)
            self.unopened.pop(id_, None)
            self._crossed.update(self._close({id_} & self.cameras.keys()))
        self._say(id_, CameraState.DISABLED, "it was switched off by a command")

    def again(self) -> None:
        """Try what could not be opened, every ten seconds."""
        if self.unopened and (now_s := time.monotonic()) >= self._again_s:
            self._again_s = now_s + AGAIN_S
            for id_ in list(self.unopened):
                self._begin(id_)

    def broken(self) -> dict[str, str]:
        """What could not be opened, or broke for good, and why."""
        failures = {id_: camera.failure for id_, camera in self.cameras.items() if camera.failure is not None}
        return {id_: error.what for id_, error in {**self.unopened, **failures}.items()}

    def describe(self) -> dict[str, CameraInfo]:
        """What is known of each that is configured: of one that is switched off or cannot be opened its name alone."""
        return {
            id_: self.cameras[id_].describe()
            if id_ in self.cameras
            else CameraInfo(source=name_of(config), width=0, height=0, fps=0.0)
            for id_, config in self.config.cameras.items()
        }

    def end(self, id_: str, reason: str) -> None:
        """End what is followed, so that no reader waits for it."""
        self._tell(id_, *self.views[id_].end(reason))

    def ready(self, seer: Seer) -> None:
        """Let every view be able to look through this model, those to come as well.

        Raises:
            ConfigError: a camera asks for what it cannot give, though it be unplugged or switched off now.
        """
        for id_ in self.config.cameras.keys() - self.views.keys():
            View(seer, self.config, id_, still=False)
        try:
            for view in self.views.values():
                view.ready(seer)
        except ConfigError:
            self.keep({self._seer, *self._beside})
            raise
        self._beside.add(seer)

    def become(self, seer: Seer) -> None:
        """All looks that come from now on are by this model, for which the views are ready."""
        self._seer = seer
        for id_, view in self.views.items():
            self._tell(id_, *view.become(seer))
            self.cameras[id_].fit = view.infer(seer).fit

    def keep(self, seers: Collection[Seer]) -> None:
        """Let go of all other models but the one that sees."""
        self._beside = {*seers} - {self._seer}
        for view in self.views.values():
            view.keep({self._seer, *seers})

    def stop(self) -> None:
        """End everything."""
        for id_ in self.views:
            self.end(id_, "stopped")
        stop_all(self.cameras.values())

    def check(self, config: AgentConfig) -> None:
        """See that this model can do what a configuration asks for.

        Raises:
            ConfigError: it cannot.
        """
        for id_ in config.cameras:
            View(self._seer, config, id_, still=False)

    def _close(self, ids: Collection[str]) -> dict[str, Crossed]:
        """End cameras and what is followed there; the totals of their lines."""
        crossed: dict[str, Crossed] = {id_: self.views[id_].lives.crossed for id_ in ids}
        for id_ in ids:
            self.end(id_, "stopped")
        stop_all([self.cameras[id_] for id_ in ids])
        for id_ in ids:
            del self.views[id_], self.cameras[id_]
        return crossed

    def _begin(self, id_: str, crossed: Crossed | None = None) -> None:
        self._open(id_, crossed)
        if id_ in self.cameras:
            self.cameras[id_].start()

    def _open(self, id_: str, crossed: Crossed | None = None) -> None:
        known = self.unopened.pop(id_, None)
        try:
            config = self.config.cameras[id_]
            still = policy_of(config).still
            view = self._view(id_, still=still, crossed=crossed)
            secret = partial(secret_of, config.password_file, config.password_env, self._environ)
            camera = Camera(id_, config, self._hub, self._say, secret=secret)
            camera.open()
        except TinySightError as error:
            self.unopened[id_] = error
            if known is None or known.what != error.what:
                self._say(id_, CameraState.DISABLED, error.what)
            return
        self.cameras[id_] = camera
        self._show(id_, view)

    def _remake(self, id_: str) -> None:
        """The same camera with another meaning: what is followed ends and begins anew, lines go on counting."""
        self.end(id_, "stopped")
        still, crossed = self.cameras[id_].policy.still, self.views[id_].lives.crossed
        self._show(id_, self._view(id_, still=still, crossed=crossed))

    def _view(self, id_: str, *, still: bool, crossed: Crossed | None) -> View:
        view = View(self._seer, self.config, id_, still=still, crossed=crossed)
        for seer in self._beside:
            view.ready(seer)
        return view

    def _show(self, id_: str, view: View) -> None:
        self.views[id_], self.cameras[id_].fit = view, view.infer(self._seer).fit
        self.end(id_, "stopped")  # nothing is there yet: zeros, for who waits for counts
