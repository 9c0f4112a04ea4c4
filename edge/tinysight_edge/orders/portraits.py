"""A picture of what a camera shows now, for who asked for one.

In: every frame, in the telling thread.  Out: a copy of the next one of a camera, to the thread that waits for it. A
frame that nobody waits for costs the look into an empty dictionary. Its masks are black: frames are masked at the
source.
"""

import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_edge.cameras.hub import Frame

__all__ = ["Portraits"]

WAIT_S: Final = 10.0
Image = NDArray[np.uint8]


class Portraits:
    """Who waits for which camera; one at a time."""

    def __init__(self) -> None:
        self._wanted: dict[str, list[Image]] = {}
        self._came = threading.Event()

    def offer(self, frame: Frame) -> None:
        """Give it to who waits for this camera. For the telling thread; never waits."""
        if self._wanted and (given := self._wanted.pop(frame.camera, None)) is not None:
            given.append(frame.image_bgr.copy())
            self._came.set()

    def next(self, camera: str, *, wait_s: float = WAIT_S) -> Image | None:
        """The next picture of a camera, (H, W, 3) BGR; None when none comes in time."""
        given: list[Image] = []
        self._came.clear()
        self._wanted[camera] = given
        self._came.wait(wait_s)
        self._wanted.pop(camera, None)
        return given[0] if given else None
