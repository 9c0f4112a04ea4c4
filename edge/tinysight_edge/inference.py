"""From a frame of one camera to its detections: motion gate, tiles, preparing, the model, decoding.

In: `Frame.image_bgr` and its source time.  Out: `Seen`. In two steps, so that the model can see the next frame while
another thread reads what it said of this one: `look` ends with the model's raw answers, `read` makes boxes of them.
Cameras share one `Model`, which runs one frame at a time; each has an `Inference` of its own, for what it remembers of
its last frames. Knows no tracks, no cameras and no MQTT.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConfigError
from tinysight_edge.cameras.buffers import Buffers
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.decode import Detections, make_decoder
from tinysight_edge.interpreter import Model
from tinysight_edge.motion import MotionGate
from tinysight_edge.preprocess import Fit, Fitted, Preprocessor, fit_picture
from tinysight_edge.tiles import Tile, join, lay_out

__all__ = ["LOW_BAND", "Inference", "Looked", "Seen"]

log = logging.getLogger(__name__)

LOW_BAND: Final = 0.5  # of the threshold: weaker detections may go on with a track, and never begin one


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What the model answered to one frame, not yet read.

    Attributes:
        answers: tile number (0 for the whole frame), the way back, and raw outputs by name; None when nothing moves, so
            that nothing was inferred.
        laid: the tiles, when there are any.
        preprocess_ms: to look for motion, to resize and to place.
        inference_ms: in the model.
    """

    answers: list[tuple[int, Fit, dict[str, NDArray[Any]]]] | None
    laid: list[Tile]
    preprocess_ms: float
    inference_ms: float


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
        self._heartbeat_s = config.motion.heartbeat if config is not None and config.motion is not None else 0.0
        self._gate = MotionGate(config.motion) if config is not None and config.motion is not None else None
        self._prepare = Preprocessor(manifest.input, model.variant.input)
        self._decode = make_decoder(manifest, model.variant, min_score=0.0 if classifies else low * thresholds.score)
        self._spec, self._pictures = manifest.input, Buffers()
        self._size = (0, 0)
        self._laid: list[Tile] = []
        self._inferred: dict[int, float] = {}  # tiles that were, since the size is what it is, and when
        self._read: tuple[list[Tile], list[Detections | None]] = [], []
        self._begun = False

    @property
    def limit_s(self) -> float:
        """A look that takes longer hangs: as many runs of the model as one frame may need."""
        runs = 1 if self._tiles is None else self._tiles.columns * self._tiles.rows + self._tiles.whole
        return runs * self._model.limit_s

    def __call__(self, image_bgr: NDArray[np.uint8], at_s: float) -> Seen:
        """Look at a frame, uint8 (H, W, 3), of source time ``at_s``, and read the answer; as `look` and `read`."""
        return self.read(self.look(image_bgr, at_s))

    def look(
        self,
        image_bgr: NDArray[np.uint8],
        at_s: float,
        *,
        fitted: Fitted | None = None,
        prepared: Callable[[], None] = lambda: None,
    ) -> Looked:
        """Let the model see a frame, uint8 (H, W, 3), of source time ``at_s``. Belongs to one thread for all cameras.

        Args:
            image_bgr: the frame.
            at_s: its time.
            fitted: what `fit` has made of it.
            prepared: called when the model is about to run, which takes no interpreter lock: others may have it.

        Raises:
            ShapeError: the frame is not (H, W, 3) uint8.
            InferenceError: the model fails on it.
        """
        moving, begun_s, prepare_s = None, time.perf_counter(), 0.0
        if self._gate is not None:
            gate = self._gate(image_bgr, at_s)
            prepare_s = time.perf_counter() - begun_s
            if not gate.infer:
                return Looked(None, [], prepare_s * 1e3, 0.0)
            moving = gate.moving
        answers, infer_s = [], 0.0
        for number, view in self._views(image_bgr, moving, at_s):
            begun_s = time.perf_counter()
            if fitted is None or self._tiles is not None or not self._takes(fitted):  # it may have been made before
                fit = self._prepare(view, self._model.lend_input())[1]
            else:
                fit, prepare_s = fitted.fit, fitted.took_ms / 1e3
                self._prepare.fill(fitted.picture, self._model.lend_input())
            prepared_s = time.perf_counter()
            prepared()
            outputs = {name: lent.copy() for name, lent in self._model.run_lent().items()}
            infer_s += time.perf_counter() - prepared_s
            prepare_s += prepared_s - begun_s
            answers.append((number, fit, outputs))
        if not self._begun:
            self._begun = True
            log.info("first inference: %.1f ms by %s", infer_s * 1e3, self._model.engine.name)
        return Looked(answers, self._laid, prepare_s * 1e3, infer_s * 1e3)

    def fit(self, image_bgr: NDArray[np.uint8]) -> Fitted | None:
        """What the model will see of a frame. None where it may see nothing of it, or parts. For the capture thread.

        Raises:
            ShapeError: the frame is not (H, W, 3) uint8.
        """
        if self._gate is not None or self._tiles is not None:
            return None
        begun_s, spec = time.perf_counter(), self._spec
        picture = self._pictures.take((spec.height, spec.width, 1 if spec.color == "GRAY" else 3))
        fit = fit_picture(image_bgr, spec, picture)
        return Fitted(picture, fit, (time.perf_counter() - begun_s) * 1e3, spec)

    def read(self, looked: Looked) -> Seen:
        """Make detections of the model's answers. Belongs to one thread, which may be another one."""
        begun_s = time.perf_counter()
        if looked.answers is None:
            return Seen(None, looked.preprocess_ms, looked.inference_ms, 0.0)
        if looked.laid:
            found = self._join(looked.laid, looked.answers)
        else:
            _, fit, outputs = looked.answers[0]
            found = self._decode(outputs).in_frame(fit)
        return Seen(found, looked.preprocess_ms, looked.inference_ms, (time.perf_counter() - begun_s) * 1e3)

    def _takes(self, fitted: Fitted) -> bool:
        """Whether it was made for a model that sees pictures as this one does."""
        return fitted.spec is self._spec or fitted.spec == self._spec

    def _views(
        self, image_bgr: NDArray[np.uint8], moving: NDArray[np.bool_] | None, at_s: float
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The parts of the frame to be inferred: of tiles those in which something moves, and each now and then."""
        if self._tiles is None:
            yield 0, image_bgr
            return
        height, width = image_bgr.shape[:2]
        if self._size != (width, height):
            self._size, self._laid = (width, height), lay_out(width, height, self._tiles)
            self._inferred = {}
        for number, tile in enumerate(self._laid):
            quiet_s = at_s - self._inferred.get(number, -np.inf)
            if moving is None or quiet_s >= self._heartbeat_s or tile.moves(moving, width, height):
                self._inferred[number] = at_s
                yield number, tile.view(image_bgr)

    def _join(self, laid: list[Tile], answers: list[tuple[int, Fit, dict[str, NDArray[Any]]]]) -> Detections:
        """Tiles that were not inferred show what they showed the last time."""
        if self._read[0] is not laid:
            self._read = laid, [None] * len(laid)
        last = self._read[1]
        for number, fit, outputs in answers:
            last[number] = laid[number].in_frame(self._decode(outputs).in_frame(fit))
        parts = [(tile, found) for tile, found in zip(laid, last, strict=True) if found is not None]
        return join(parts, iou=self._iou)
