"""Play a recording at its own pace, as if it were live."""

import time

from tinysight_edge.sources.base import Image, Source

__all__ = ["PacedSource"]


class PacedSource(Source):
    """Hands out another source's pictures no earlier than they are due."""

    def __init__(self, inner: Source) -> None:
        self._inner = inner
        self.name, self.fps, self.duration_s = inner.name, inner.fps, inner.duration_s
        self.width, self.height = inner.width, inner.height
        self._begun_s: float | None = None
        self._number = 0

    def grab(self) -> float | None:
        """Waits until the picture is due, and only then takes it; one that is late comes at once."""
        if self._begun_s is None:
            self._begun_s = time.monotonic()
        time.sleep(max(0.0, self._begun_s + self._number / (self.fps or 25.0) - time.monotonic()))
        self._number += 1
        return self._inner.grab()

    def retrieve(self) -> Image | None:
        """The other source's picture."""
        return self._inner.retrieve()

    def close(self) -> None:
        """Close the other source."""
        self._inner.close()
