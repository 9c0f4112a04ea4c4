"""One camera's way from a frame to its events: what is kept of it.

In: `Frame`s, and word that there are none.  Out: `Told`: events, counts when they changed, and what the frame cost.
Knows nothing of threads, brokers or disks.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from tinysight_contract.bundle import Bundle
from tinysight_contract.messages import Counts, Event, FrameSize, LatencyMs, ModelRef, utc_now
from tinysight_edge.cameras.hub import Frame
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.decode import Detections
from tinysight_edge.inference import Inference, Looked
from tinysight_edge.interpreter import Model
from tinysight_edge.meaning.events import Identity, Lives, Moment, Sequence
from tinysight_edge.tracking.states import States
from tinysight_edge.tracking.track import Tracker
from tinysight_edge.tracking.tracks import Tracks

__all__ = ["Seer", "Told", "View"]


@dataclass(frozen=True, slots=True, eq=False)
class Seer:
    """What sees, and for whom: the same for all cameras.

    Attributes:
        bundle: what runs.
        model: it, loaded.
        boot_id: of this start of the agent.
        sequence: of the device's events.
    """

    bundle: Bundle
    model: Model
    boot_id: str
    sequence: Sequence

    @property
    def ref(self) -> ModelRef:
        """Which model sees."""
        manifest = self.bundle.manifest
        return ModelRef(name=manifest.name, version=manifest.version, digest=self.bundle.digest)

    @property
    def threshold(self) -> float:
        """The score from which on a detection counts."""
        return self.bundle.manifest.thresholds_of(self.model.variant).score


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What one frame brought.

    Attributes:
        events: in the order of their ``seq``.
        counts: what is present, if that changed.
        alive: what is followed.
        found: what the model saw; None when nothing moved, so that it was not asked.
        latency: what the frame cost until its tracks were known.
        meaning_ms: from there to its events.
    """

    events: list[Event]
    counts: Counts | None
    alive: Tracks
    found: Detections | None
    latency: LatencyMs
    meaning_ms: float


class View:
    """What the loop keeps of one camera. It belongs to the telling thread, but for what `infer` gives.

    Several models may be ready beside the one that sees; the inference thread looks through any of them.

    Args:
        seer: what sees.
        config: of the agent.
        camera: which camera.
        still: its pictures have nothing to do with each other.
        crossed: totals of lines to go on from, when only the configuration has changed.

    Raises:
        ConfigError: the camera or a rule asks for what this model cannot give.
    """

    def __init__(
        self,
        seer: Seer,
        config: AgentConfig,
        camera: str,
        *,
        still: bool,
        crossed: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        self._config, self._camera, self._still = config, camera, still
        self._infers: dict[Seer, Inference] = {}
        self._seer: Seer
        self._follow: Tracker | States
        self.lives: Lives
        self.ready(seer)
        self._moment: Moment | None = None
        self._meet(seer, crossed)

    def ready(self, seer: Seer) -> None:
        """Be able to look through this model.

        Raises:
            ConfigError: the camera asks for what it cannot give.
        """
        if seer not in self._infers:
            self._infers[seer] = Inference(seer.bundle, seer.model, self._config.cameras[self._camera])

    def infer(self, seer: Seer) -> Inference:
        """The way through a model that is `ready`. From any thread; what it gives belongs to the inference thread."""
        return self._infers[seer]

    def keep(self, seers: Collection[Seer]) -> None:
        """Be no longer ready for any other."""
        self._infers = {seer: infer for seer, infer in self._infers.items() if seer in seers}

    def become(self, seer: Seer) -> tuple[list[Event], Counts | None]:
        """From the next frame on another model, for which it is ready, has looked.

        With the same task and labels all that is followed goes on; else it ends here, and lines go on counting.
        """
        before, after = self._seer.bundle.manifest, seer.bundle.manifest
        if (before.task, before.labels) == (after.task, after.labels):
            self._seer = seer
            self.lives.seen_by(seer.ref)
            if isinstance(self._follow, Tracker):
                self._follow.high_score = np.float32(seer.threshold)
            else:
                self._follow.threshold = seer.threshold
            return [], None
        events, _ = self.end("model changed")
        self._meet(seer, self.lives.crossed)
        return events, self.lives.counts(at=utc_now() if self._moment is None else self._moment.at)

    def tell(self, frame: Frame, looked: Looked, *, clock_synced: bool | None) -> Told:
        """What a frame means to which the model has answered."""
        seen = self._infers[self._seer].read(looked)
        read_s = time.monotonic()
        if seen.found is None:
            alive, ended = self._follow.hold(frame.at_s), Tracks.none()
        else:
            alive, ended = self._follow.update(seen.found, frame.at_s)
        followed_s = time.monotonic()
        age_ms = (followed_s - frame.captured_s) * 1e3
        busy_ms = seen.preprocess_ms + seen.inference_ms + seen.decode_ms + (followed_s - read_s) * 1e3
        height, width = frame.image_bgr.shape[:2]
        latency = LatencyMs(
            wait=round(max(age_ms - busy_ms, 0.0), 3),
            preprocess=round(seen.preprocess_ms, 3),
            inference=round(seen.inference_ms, 3),
            decode=round(seen.decode_ms, 3),
            track=_ms(followed_s - read_s),
            total=round(age_ms, 3),
        )
        size = FrameSize(width=width, height=height)
        self._moment = moment = Moment(frame.captured_at, frame.at_s, size, latency, clock_synced)
        events = self.lives.tell(alive, ended, moment)
        counts = self.lives.counts(at=moment.at)
        return Told(events, counts, alive, seen.found, latency, _ms(time.monotonic() - followed_s))

    def end(self, reason: str) -> tuple[list[Event], Counts | None]:
        """Nothing more is seen for now: end what is followed, so that no reader waits for it."""
        if self._moment is None:
            return [], self.lives.counts(at=utc_now())
        events = self.lives.tell(Tracks.none(), self._follow.end_all(), self._moment, reason=reason)
        return events, self.lives.counts(at=self._moment.at)

    def _meet(self, seer: Seer, crossed: Mapping[str, Mapping[str, int]] | None) -> None:
        """Begin to follow what this model sees."""
        config, manifest, high = self._config, seer.bundle.manifest, seer.threshold
        classifies = manifest.task == "classify"
        self._seer = seer
        if classifies:
            self._follow = States(threshold=high, still=self._still)
        elif self._still:
            self._follow = Tracker(high_score=high, min_hits=1, max_lost_s=0.0)
        else:
            self._follow = Tracker(high_score=high)
        self.lives = Lives(
            Identity(config.site, config.device, self._camera, seer.boot_id, seer.ref, tuple(manifest.labels)),
            seer.sequence,
            camera=config.cameras[self._camera],
            rules=config.rules,
            gone="changed" if classifies else "left",
            crossed=crossed,
        )


def _ms(seconds: float) -> float:
    return round(max(seconds, 0.0) * 1e3, 3)
