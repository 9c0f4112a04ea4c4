"""Compare a new model with the one that sees, on some of its frames, before it may see itself.

In: every so-many-th frame and what was found in it, from the telling thread, which never waits.  Out: an `Agreement`.
The new model runs in the thread of whoever calls `work`; of frames that come meanwhile none waits.
"""

from collections.abc import Mapping
from queue import Empty, SimpleQueue

import numpy as np
from msgspec.structs import replace

from tinysight_contract.errors import InferenceError, TinySightError
from tinysight_edge.cameras.hub import Frame
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.decode import Detections
from tinysight_edge.inference import Inference
from tinysight_edge.update.trial import Agreement
from tinysight_edge.view import Seer

__all__ = ["Shadow", "comparable", "unreadable"]


def comparable(now: Seer, new: Seer) -> bool:
    """Whether what two models say can be compared at all."""
    return now.bundle.manifest.task == new.bundle.manifest.task


class Shadow:
    """A model that sees what another one sees, and is not heard.

    Args:
        now: the one that sees.
        new: the one beside it; runs in no other thread meanwhile.
        cameras: as configured. Where only is looked when something moves, all of the frame is looked at here.
        every: so-many-th frame.

    Raises:
        ConfigError: a camera asks for what the new one cannot give.
    """

    def __init__(self, now: Seer, new: Seer, cameras: Mapping[str, CameraConfig], *, every: int) -> None:
        self.agreement = Agreement()
        self._now, self._new, self._every = now, new, every
        self._ways = {
            id_: Inference(new.bundle, new.model, replace(each, motion=None)) for id_, each in cameras.items()
        }
        self._classifies = new.bundle.manifest.task == "classify"
        self._labels = now.bundle.manifest.labels, new.bundle.manifest.labels
        self._held: SimpleQueue[tuple[Frame, Detections]] = SimpleQueue()
        self._count = 0

    def offer(self, frame: Frame, found: Detections) -> None:
        """A frame, and what the model that sees has found in it; never waits."""
        self._count += 1
        if self._count % self._every == 0 and self._held.empty() and frame.camera in self._ways:
            self._held.put((frame, found))

    def work(self, wait_s: float) -> None:
        """Look at the next frame that is offered within this time, if one is.

        Raises:
            InferenceError: the new model fails on it, or answers what cannot be read.
        """
        try:
            frame, found = self._held.get(timeout=wait_s)
        except Empty:
            return
        try:
            other = self._ways[frame.camera](frame.image_bgr, frame.at_s).found
        except TinySightError:
            raise
        except Exception as error:
            raise unreadable(self._new, error) from error
        if other is None:
            return
        if self._classifies:
            pairs = zip((found, other), self._labels, strict=True)
            one, two = (labels[int(each.class_ids[0])] if len(each) else None for each, labels in pairs)
            self.agreement.classes(one, two)
        else:
            sure = _sure(found, self._now.threshold), _sure(other, self._new.threshold)
            self.agreement.detections(*sure, labels=self._labels)


def unreadable(seer: Seer, error: Exception) -> InferenceError:
    """What its answers to a frame were, when nothing could be made of them."""
    what = f"{seer.ref.name} {seer.ref.version} answers what cannot be read: {type(error).__name__}: {error}."
    return InferenceError(what[:500], mend="Convert the model again.")


def _sure(found: Detections, threshold: float) -> Detections:
    rows = np.flatnonzero(found.scores >= threshold)
    return Detections(found.boxes_px[rows], found.scores[rows], found.class_ids[rows])
