"""Pictures are large: the memory of one that nobody looks at any more takes the next.

In: the shape that is wanted.  Out: a uint8 array. A C library that allocates each picture anew costs a page fault for
every 4 KiB wherever malloc maps large blocks freshly (always on 32-bit ARM): 1.7 instead of 0.4 ms a 720p picture.

Whether somebody still looks is what CPython counts anyway: the references to the array. A view, a memoryview and an
OpenCV call that is running each hold one. When none but the pool's own is left nobody can get another, so the answer
cannot change behind our back, in whatever thread it is asked.
"""

import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Buffers"]

Image = NDArray[np.uint8]


def _references(buffers: list[Image], index: int) -> int:
    return sys.getrefcount(buffers[index])


_IDLE: Final = _references([np.empty(0, np.uint8)], 0)  # measured, since Python versions count their own differently


class Buffers:
    """A few arrays of one shape; for one thread.

    Args:
        most: arrays that are made at once and kept; further ones are made and forgotten.
    """

    def __init__(self, most: int = 6) -> None:
        self._most = most
        self._buffers: list[Image] = []

    def take(self, shape: tuple[int, ...]) -> Image:
        """An array that nobody else holds; what is in it is left over."""
        if not self._buffers or self._buffers[0].shape != shape:
            self._buffers = [np.empty(shape, np.uint8) for _ in range(self._most)]
            for buffer in self._buffers:
                buffer.fill(0)  # the memory is claimed now, so that it does not seem to leak later
        for index in range(len(self._buffers)):
            if _references(self._buffers, index) == _IDLE:
                return self._buffers[index]
        return np.empty(shape, np.uint8)
