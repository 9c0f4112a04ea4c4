"""Where capture threads leave frames and the inference loop takes them, one camera after the other.

In: `Frame`s of several threads.  Out: frames and gaps, in turn, to one loop. On a live source the newest frame wins; a
file's thread waits. Every frame that is passed over is counted by its cause. Knows nothing of sources or models.
"""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_edge.preprocess import Fitted

__all__ = ["Frame", "Gap", "Hub", "Seat"]

FILE_BACKLOG: Final = 2
IDLE_S: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of one camera.

    Attributes:
        camera: the camera's id.
        image_bgr: uint8 (H, W, 3), turned and masked; nobody writes into it. Its memory is used again once nobody
            refers to it any more.
        at_s: seconds since the camera was started, never backwards; what tracks are timed by.
        captured_at: the same moment as aware UTC.
        captured_s: ``time.monotonic()`` when the picture arrived; what latencies are timed by.
        fitted: the same as the model sees it, where that has been made already.
    """

    camera: str
    image_bgr: NDArray[np.uint8]
    at_s: float
    captured_at: datetime
    captured_s: float
    fitted: Fitted | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """The camera's pictures end here, for a while or for ever; whatever was seen is no longer followed."""

    camera: str


class Seat:
    """One camera's place at the hub, for its threads."""

    def __init__(self, hub: "Hub", camera: str) -> None:
        self.camera = camera
        self._hub = hub
        self._changed = hub.changed
        self.waiting: deque[Frame | Gap] = deque()
        self.taken = True

    def put(self, frame: Frame, *, live: bool) -> None:
        """Hand a frame over. Live: replaces one that still waits. File: waits until there is room."""
        with self._changed:
            while not live and len(self.waiting) >= FILE_BACKLOG and self._wanted():
                self._changed.wait()
            if self._wanted():
                if live:
                    self._pass_over("stale")
                self._hub.frames[self.camera] += 1
                self.waiting.append(frame)
                self._changed.notify_all()

    def drop(self, cause: str) -> None:
        """Count a picture that arrived and is not handed over."""
        with self._changed:
            self._hub.frames[self.camera] += 1
            self._hub.dropped[self.camera][cause] += 1

    def lose(self) -> None:
        """The camera delivers nothing for now."""
        with self._changed:
            if self._wanted():
                self.waiting.append(Gap(self.camera))
                self._changed.notify_all()

    def leave(self, *, now: bool = False) -> None:
        """The camera will deliver no more. What waits is still taken, unless it is to be gone at once."""
        with self._changed:
            if self.taken:
                if now:
                    self._pass_over("stopped")
                self.waiting.append(Gap(self.camera))
                self.taken = False
                self._changed.notify_all()

    def _pass_over(self, cause: str) -> None:
        """Drop the frames that wait, not the gaps."""
        if not self.waiting:
            return
        gaps = [each for each in self.waiting if isinstance(each, Gap)]
        if frames := len(self.waiting) - len(gaps):
            self._hub.dropped[self.camera][cause] += frames
            self.waiting = deque(gaps)

    def _wanted(self) -> bool:
        return self.taken and not self._hub.stopped


class Hub:
    """The meeting point.

    Attributes:
        frames: by camera, pictures that arrived.
        dropped: by camera and cause (stale, rate, damaged, stopped), those of them that the loop never got.
        forgotten: cameras that are no longer told of; their figures stay, so that each frame is counted once.
        changed: guards all of this; held for microseconds.
        stopped: `stop` was called.
    """

    def __init__(self) -> None:
        self.frames: Counter[str] = Counter()
        self.dropped: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.forgotten: set[str] = set()
        self.changed = threading.Condition()
        self.stopped = False
        self._seats: deque[Seat] = deque()
        self._holds = 0

    def join(self, camera: str) -> Seat:
        """Give a camera its seat; the loop goes on until all that joined have left.

        One of the same name that has left is followed without a break: its gap comes first.
        """
        with self.changed:
            seat = Seat(self, camera)
            for old in [each for each in self._seats if each.camera == camera and not each.taken]:
                seat.waiting.extend(old.waiting)
                self._seats.remove(old)
            self._seats.append(seat)
            self.forgotten.discard(camera)
            return seat

    def forget(self, camera: str) -> None:
        """Such a camera is no longer told of, once all of its frames have been."""
        with self.changed:
            self.forgotten.add(camera)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The loop goes on meanwhile although all cameras have left: others are about to join."""
        with self.changed:
            self._holds += 1
        try:
            yield
        finally:
            with self.changed:
                self._holds -= 1
                self.changed.notify_all()

    @property
    def has_more(self) -> bool:
        """Whether something waits to be taken; a guess, since it asks without the lock."""
        return any(seat.waiting for seat in tuple(self._seats))

    def stop(self) -> None:
        """End the loop and all waits, now. May be called from a signal handler's thread."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def __iter__(self) -> Iterator[Frame | Gap | None]:
        """Frames and gaps until all cameras have left or `stop`; None each time half a second brought neither."""
        while True:
            with self.changed:
                self.changed.wait_for(self._ready, timeout=IDLE_S)
                if self.stopped:
                    return
                item = self._take()
                if item is None and self._deserted():
                    return
            yield item
            del item  # the frame's memory may be used again while the loop waits for the next one

    def _deserted(self) -> bool:
        return not self._holds and not any(seat.taken for seat in self._seats)

    def _ready(self) -> bool:
        return self.stopped or any(seat.waiting for seat in self._seats) or self._deserted()

    def _take(self) -> Frame | Gap | None:
        """The next item of the next camera in turn; a seat that was left and is empty goes."""
        for _ in range(len(self._seats)):
            seat = self._seats.popleft()
            if seat.waiting:
                self._seats.append(seat)
                item = seat.waiting.popleft()
                self.changed.notify_all()
                return item
            if seat.taken:
                self._seats.append(seat)
        return None
