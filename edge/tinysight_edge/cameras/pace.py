"""When the next picture is wanted, and when the next attempt is due. Pure: times come from outside."""

import random
from typing import Final

__all__ = ["BackOff", "RateLimit"]

WAITS_S: Final = (1.0, 30.0)
STABLE_S: Final = 10.0
ROUNDING_S: Final = 1e-6


class RateLimit:
    """Lets so many pictures a second pass, spread evenly.

    The next one is due a period after the last was due, not after it came: otherwise a limit of 10 would make 7.5 of
    30 pictures a second that come with a little jitter.
    """

    def __init__(self, fps: float | None) -> None:
        self._period_s = 1.0 / fps if fps else 0.0
        self._due_s = float("-inf")

    def passes(self, at_s: float) -> bool:
        """Whether the picture of this time is wanted."""
        if at_s < self._due_s - ROUNDING_S:
            return False
        late = at_s - self._due_s >= self._period_s
        self._due_s = (at_s if late else self._due_s) + self._period_s
        return True


class BackOff:
    """How long to wait before the next attempt: 1 s, doubled up to 30 s, less up to a half by chance.

    The chance keeps many devices from asking one recorder at the same moment.
    """

    def __init__(self) -> None:
        self._wait_s = WAITS_S[0]

    def next_s(self, *, delivered_s: float) -> float:
        """Seconds to wait after an attempt that delivered for so long; a stable one begins anew."""
        if delivered_s >= STABLE_S:
            self._wait_s = WAITS_S[0]
        wait_s = self._wait_s
        self._wait_s = min(wait_s * 2, WAITS_S[1])
        return wait_s * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter, not a secret
