"""From a frame of one camera to its detections: motion gate, tiles, preparing, the model, decoding.

In: `Frame.image_bgr` and its source time.  Out: `Seen`. Cameras share one `Model`, which runs one frame at a time; each
has an `Inference` of its own, for what it remembers of its last frames. Knows no tracks, no cameras and no MQTT.
"""

import logging
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConfigError
from tinysight_edge.config import CameraConfig
from tinysight_edge.decode import Detections, make_decoder
from tinysight_edge.interpreter import Model
from tinysight_edge.motion import MotionGate
from tinysight_edge.preprocess import Preprocessor
from tinysight_edge.tiles import Tile, join, lay_out

__all__ = ["LOW_BAND", "Inference", "Seen"]

log = logging.getLogger(__name__)

LOW_BAND: Final = 0.5  # of the threshold: weaker detections may go on with a track, and never begin one


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one frame shows, and what it took to see it.

    Attributes:
        found: in frame pixels, strongest first, down to ``low`` of the threshold; of a classifier its strongest class,
            however weak. None when nothing moves, so that nothing was inferred.
        preprocess_ms: to look for motion, to resize and to place.
        inference_ms: in the model.
        decode_ms: from its answers to boxes in the frame.
    """

    found: Detections | None
    preprocess_ms: float
    inference_ms: float
    decode_ms: float


class Inference:
    """One camera's way from frames to detections.

    Args:
        bundle: what runs.
        model: it, loaded; shared by all cameras.
        config: of the camera; without one, whole frames and each of them.
        low: the share of the threshold down to which detections are told.

    Raises:
        ConfigError: tiles are asked for and the model says what a whole picture shows.
    """

    def __init__(
        self, bundle: Bundle, model: Model, config: CameraConfig | None = None, *, low: float = LOW_BAND
    ) -> None:
        manifest = bundle.manifest
        thresholds = manifest.thresholds_of(model.variant)
        classifies = manifest.task == "classify"
        self._tiles = config.tiles if config is not None else None
        if self._tiles is not None and classifies:
            raise ConfigError(
                f"{manifest.name} says what a whole picture shows, so it cannot look at tiles.",
                mend="Take `tiles` from the camera, or run a detector.",
            )
        self._model, self._iou = model, thresholds.iou
        self._gate = MotionGate(config.motion) if config is not None and config.motion is not None else None
        self._prepare = Preprocessor(manifest.input, model.variant.input)
        self._decode = make_decoder(manifest, model.variant, min_score=0.0 if classifies else low * thresholds.score)
        self._size = (0, 0)
        self._laid: list[Tile] = []
        self._last: list[Detections | None] = []
        self._spent = [0.0, 0.0, 0.0]  # seconds of this frame: prepare, infer, decode
        self._begun = False

    def __call__(self, image_bgr: NDArray[np.uint8], at_s: float) -> Seen:
        """Look at a frame, uint8 (H, W, 3), of source time ``at_s``.

        Raises:
            ShapeError: the frame is not (H, W, 3) uint8.
            InferenceError: the model fails on it.
        """
        self._spent[:] = 0.0, 0.0, 0.0
        moving, begun_s = None, time.perf_counter()
        if self._gate is not None:
            look = self._gate(image_bgr, at_s)
            self._spent[0] = time.perf_counter() - begun_s
            if not look.infer:
                return Seen(None, self._spent[0] * 1e3, 0.0, 0.0)
            moving = look.moving
        found = self._look(image_bgr) if self._tiles is None else self._look_at_tiles(image_bgr, moving)
        prepare_s, infer_s, decode_s = self._spent
        if not self._begun:
            self._begun = True
            log.info("first inference: %.1f ms by %s", infer_s * 1e3, self._model.engine.name)
        return Seen(found, prepare_s * 1e3, infer_s * 1e3, decode_s * 1e3)

    def _look(self, image_bgr: NDArray[np.uint8]) -> Detections:
        """One run of the model. Nothing that it lends outlives this function."""
        begun_s = time.perf_counter()
        fit = self._prepare(image_bgr, self._model.lend_input())[1]
        prepared_s = time.perf_counter()
        outputs = self._model.run_lent()
        inferred_s = time.perf_counter()
        found = self._decode(outputs).in_frame(fit)
        self._spent[0] += prepared_s - begun_s
        self._spent[1] += inferred_s - prepared_s
        self._spent[2] += time.perf_counter() - inferred_s
        return found

    def _look_at_tiles(self, image_bgr: NDArray[np.uint8], moving: NDArray[np.bool_] | None) -> Detections:
        """Tiles in which something moves are inferred; the others show what they showed the last time."""
        assert self._tiles is not None  # noqa: S101 -- the only caller has looked
        height, width = image_bgr.shape[:2]
        if self._size != (width, height):
            self._size, self._laid = (width, height), lay_out(width, height, self._tiles)
            self._last = [None] * len(self._laid)
        for number, tile in enumerate(self._laid):
            if moving is None or self._last[number] is None or tile.moves(moving, width, height):
                self._last[number] = tile.in_frame(self._look(tile.view(image_bgr)))
        begun_s = time.perf_counter()
        parts = [(tile, found) for tile, found in zip(self._laid, self._last, strict=True) if found is not None]
        joined = join(parts, iou=self._iou)
        self._spent[2] += time.perf_counter() - begun_s
        return joined
