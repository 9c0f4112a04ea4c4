"""Cameras: one capture thread each, and the hand-over to the one inference loop.

In: `Source` objects.  Out: `Frame`s, fairly taken in turn. On a live source the newest frame wins and every frame
that was passed over is counted; a file is read whole, so its thread waits instead.
"""

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import CameraError
from tinysight_contract.messages import CameraState, utc_now
from tinysight_edge.sources import Source, open_source

__all__ = ["Camera", "Frame", "Gap", "Hub"]

log = logging.getLogger(__name__)

FILE_BACKLOG: Final = 2
RETRY_S: Final = (1.0, 30.0)
MAX_DURATION_S: Final = 10 * 365 * 86400.0  # a file's header may say anything


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of one camera.

    Attributes:
        camera: the camera's id.
        image_bgr: uint8 (H, W, 3); belongs to the reader.
        at_s: seconds since the camera was started, never backwards; what tracks are timed by.
        captured_at: the same moment as aware UTC.
        captured_s: ``time.monotonic()`` when the picture arrived; what latencies are timed by.
    """

    camera: str
    image_bgr: NDArray[np.uint8]
    at_s: float
    captured_at: datetime
    captured_s: float


@dataclass(frozen=True, slots=True)
class Gap:
    """The camera's pictures end here, for a while or for ever; whatever was seen is no longer followed."""

    camera: str


class Hub:
    """Where capture threads leave frames and the inference loop takes them, one camera after the other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[Frame | Gap]] = {}
        self._open: set[str] = set()
        self._turn: deque[str] = deque()
        self._stopped = False
        self.frames: Counter[str] = Counter()
        self.dropped: Counter[tuple[str, str]] = Counter()

    def join(self, camera: str) -> None:
        """Announce a camera; the loop goes on until all that joined have left."""
        with self._changed:
            self._waiting[camera] = deque()
            self._open.add(camera)
            self._turn.append(camera)

    def leave(self, camera: str) -> None:
        """The camera will deliver no more."""
        with self._changed:
            self._open.discard(camera)
            self._changed.notify_all()

    def lose(self, camera: str) -> None:
        """The camera delivers nothing for now."""
        with self._changed:
            self._waiting[camera].append(Gap(camera))
            self._changed.notify_all()

    def put(self, frame: Frame, *, live: bool) -> None:
        """Hand a frame over. Live: replaces one that still waits. File: waits until there is room."""
        with self._changed:
            waiting = self._waiting[frame.camera]
            self.frames[frame.camera] += 1
            if live:
                gaps = [each for each in waiting if isinstance(each, Gap)]
                self.dropped[frame.camera, "stale"] += len(waiting) - len(gaps)
                waiting.clear()
                waiting.extend(gaps)
            else:
                self._changed.wait_for(lambda: len(waiting) < FILE_BACKLOG or self._stopped)
            if not self._stopped:
                waiting.append(frame)
                self._changed.notify_all()

    def stop(self) -> None:
        """End the loop and all waits, now. May be called from a signal handler's thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame | Gap | None]:
        """Frames and gaps until all cameras have left or `stop`; None each time half a second brought neither."""
        while True:
            with self._changed:
                self._changed.wait_for(self._ready, timeout=0.5)
                if self._stopped:
                    return
                item = self._take()
                if item is None and not self._open:
                    return
            yield item

    def _ready(self) -> bool:
        return self._stopped or not self._open or any(self._waiting.values())

    def _take(self) -> Frame | Gap | None:
        for _ in range(len(self._turn)):
            camera = self._turn[0]
            self._turn.rotate(-1)
            if self._waiting[camera]:
                item = self._waiting[camera].popleft()
                self._changed.notify_all()
                return item
        return None


@dataclass
class Camera:
    """A source with its capture thread.

    Args:
        id: the camera's id, a level of its topics.
        spec: the source as the user wrote it.
        hub: where frames go.
        tell: called with the new state and its reason whenever the state changes.

    Attributes:
        failure: why a file ended before its end, or a camera for good; or None.
    """

    id: str
    spec: str
    hub: Hub
    tell: Callable[[str, CameraState, str], None]
    source: Source = field(init=False)
    failure: CameraError | None = field(default=None, init=False)

    def open(self) -> None:
        """Open the source.

        Raises:
            CameraError: it is unknown or cannot be opened.
        """
        self.source = open_source(self.spec)
        self.hub.join(self.id)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._capture, name=f"capture-{self.id}", daemon=True)

    def start(self) -> None:
        """Begin to capture."""
        self.tell(self.id, CameraState.ONLINE, "the source delivers")
        self._thread.start()

    def stop(self) -> None:
        """End the thread and give the source back; a source that hangs is left behind after two seconds."""
        self._stop.set()
        self.hub.stop()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _capture(self) -> None:
        try:
            self._deliver()
        except Exception as error:  # noqa: BLE001 -- whatever a driver throws must not pass for the end of the source
            self.failure = CameraError(f"{self.id} broke: {error!r}.", mend="Check the source; report this as a bug.")
            self.tell(self.id, CameraState.DISABLED, "the source broke")
        finally:
            self.source.close()
            self.hub.lose(self.id)
            self.hub.leave(self.id)

    def _deliver(self) -> None:
        begun_s = time.monotonic()
        known = 0 < self.source.duration_s < MAX_DURATION_S
        begun = utc_now() - timedelta(seconds=self.source.duration_s if known else 0)
        while not self._stop.is_set():
            try:
                got = self.source.read()
            except CameraError as error:
                if not self._recover(error):
                    return
                continue
            if got is None:
                self.tell(self.id, CameraState.DISABLED, "the source has ended")
                return
            image, at_s = got
            now_s, captured_at = time.monotonic(), begun + timedelta(seconds=at_s)
            if self.source.live:  # its own clock begins anew whenever it is opened
                at_s, captured_at = now_s - begun_s, utc_now()
            self.hub.put(Frame(self.id, image, at_s, captured_at, now_s), live=self.source.live)

    def _recover(self, error: CameraError) -> bool:
        """Open a live source again, for ever, with growing waits. False when it is not worth it."""
        if not self.source.live:
            self.failure = error
            self.tell(self.id, CameraState.DISABLED, error.what)
            return False
        log.warning("%s: %s", self.id, error)
        self.hub.lose(self.id)
        self.tell(self.id, CameraState.RECONNECTING, error.what)
        wait_s = RETRY_S[0]
        while not self._stop.wait(wait_s * random.uniform(0.5, 1.0)):  # noqa: S311 -- jitter, not a secret
            self.source.close()
            try:
                self.source = open_source(self.spec)
                self.source.read()  # one that opens and delivers nothing is not back
            except CameraError as again:
                log.info("%s: %s", self.id, again)
                wait_s = min(wait_s * 2, RETRY_S[1])
                continue
            self.tell(self.id, CameraState.ONLINE, "the source is back")
            return True
        return False
