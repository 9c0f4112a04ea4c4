"""End a process that hangs, so that its supervisor starts it again.

In: the inference loop's word that it turns (`progress`), and how long a call may take (`busy`).  Out: ``WATCHDOG=1`` to
systemd while it turns; else the stacks of all threads on stderr and status 70. Knows nothing of frames or models.

Three lines of defence. A thread looks twice a second, which finds a call into C that has let go of the GIL (an invoke).
It winds up ``faulthandler``'s timer, a C thread without need of the GIL, which finds what keeps the GIL (status 1). And
systemd kills a process that has said nothing for ``WatchdogSec``, when all threads are stopped.
"""

import faulthandler
import math
import os
import threading
import time
from types import TracebackType
from typing import Final, NoReturn, Self

from tinysight_edge.notify import notify, watchdog_s

__all__ = ["HANGS", "Watchdog"]

HANGS: Final = 70
"""Exit status of a process that found itself hanging (EX_SOFTWARE of sysexits.h)."""
LOOK_EVERY_S: Final = 0.5
STALL_S: Final = 20.0
GIL_S: Final = 20.0
PAUSED_S: Final = 2.0


class Watchdog:
    """Watches one loop. As a context it is on guard; at its end it lets go.

    Args:
        stall_s: how long a turn of the loop may take. A loop that waits for frames must turn too.
        gil_s: how long no Python thread may run; a backstop that must outlast any honest call.
    """

    def __init__(self, *, stall_s: float = STALL_S, gil_s: float = GIL_S) -> None:
        self._stall_s, self._gil_s = stall_s, gil_s
        self._away_s = 0.0
        self._turned_s = self._clock_s()
        self._until_s = math.inf
        self._limit_s = math.inf
        self._feed_every_s = (watchdog_s() or math.inf) / 3
        self._off = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._busy = _Busy(self)

    def __enter__(self) -> Self:
        faulthandler.enable()  # a crash in C, and systemd's SIGABRT, shall show where
        self.progress()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._off.set()
        self._thread.join()

    def progress(self) -> None:
        """The loop has turned."""
        self._turned_s = self._clock_s()

    def busy(self, limit_s: float) -> "_Busy":
        """``with watchdog.busy(10.0):`` around a call that may hang; one at a time, in one thread."""
        self._limit_s = limit_s
        return self._busy

    def _clock_s(self) -> float:
        """Stands still while the process does. Only the watch moves ``_away_s``, so that no thread undoes another's."""
        return time.monotonic() - self._away_s

    def _watch(self) -> None:
        fed_s, looked_s = 0.0, time.monotonic()
        try:
            while not self._off.wait(LOOK_EVERY_S):
                faulthandler.dump_traceback_later(self._gil_s, exit=True)
                now_s = time.monotonic()
                if (away_s := now_s - looked_s) > PAUSED_S:  # all of us were stopped or starved, the loop as well
                    self._away_s += away_s
                looked_s, clock_s = now_s, self._clock_s()
                if clock_s > self._until_s:
                    _end(f"A call of at most {self._limit_s:.1f} s has not come back")
                if self._until_s == math.inf and clock_s - self._turned_s > self._stall_s:
                    _end(f"The inference loop has not turned for {clock_s - self._turned_s:.1f} s")
                if now_s - fed_s >= self._feed_every_s:
                    fed_s = now_s
                    notify("WATCHDOG=1")
        finally:
            faulthandler.cancel_dump_traceback_later()


class _Busy:
    """The guard of one call; made once, so that a frame allocates nothing."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def __enter__(self) -> None:
        self._watchdog._until_s = self._watchdog._clock_s() + self._watchdog._limit_s

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.progress()
        self._watchdog._until_s = math.inf


def _end(what: str) -> NoReturn:
    """Say why and where, and end at once: what hangs would hang a clean end as well."""
    try:
        notify(f"STATUS={what}")
        os.write(2, f"error: {what}. The process ends with status {HANGS}, to be started again.\n".encode())
        faulthandler.dump_traceback(2, all_threads=True)
    finally:
        os._exit(HANGS)
