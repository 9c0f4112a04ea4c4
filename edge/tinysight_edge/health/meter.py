"""The flow of frames: how long each stage takes, how old frames are when their events are ready, what was dropped.

In: a line of figures per inferred frame, a cause per dropped one, the hub's counters.  Out: a `Flow` for each report,
and `Totals` since the start. Bounded: the last 8,192 frames between two reports, in one buffer made at the start.
"""

import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.messages import CameraHealth, LatencyMs, Percentiles

__all__ = ["AGE_AT_PUBLISH", "STAGES", "Counted", "Flow", "Meter", "Totals"]

STAGES: Final = ("wait", "preprocess", "inference", "decode", "track", "meaning", "pictures")
AGE_AT_PUBLISH: Final = "age_at_publish"
_ROWS: Final = 8192
_COLUMNS: Final = 2 + len(STAGES)  # camera's number, age, stages
_ROW: Final = struct.Struct(f"{_COLUMNS}f")


class Counted(Protocol):
    """What is read of the hub: frames that came by camera, those of them that were dropped, cameras that are gone."""

    frames: Counter[str]
    forgotten: set[str]

    @property
    def dropped(self) -> Mapping[str, Counter[str]]:
        """By camera and cause."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What flowed between two reports.

    Attributes:
        seconds: how long that was.
        cameras: by id.
        latency_ms: by stage, over all cameras.
        cpu_percent: of this process; 100 is one core.
    """

    seconds: float
    cameras: dict[str, CameraHealth]
    latency_ms: dict[str, Percentiles]
    cpu_percent: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Frames since the start: that came, that were inferred, that were dropped by camera and cause."""

    frames: dict[str, int]
    inferred: dict[str, int]
    dropped: dict[tuple[str, str], int]


class Meter:
    """Written by the telling loop (`note`, `drop`), the inference thread (`drop`) and the publisher (`published`).

    What is written for each inferred frame has one writer and needs no lock; a reader takes a copy in one step of the
    interpreter. A frame is counted as come before it is counted as anything else, and read in the opposite order: so no
    report has more inferred and dropped than came.

    Args:
        hub: whose counters are read.
    """

    def __init__(self, hub: Counted) -> None:
        self._hub = hub
        self._buffer = bytearray(_ROWS * _ROW.size)
        self._next = 0
        self._taken = 0
        self._numbers: dict[str, int] = {}
        self._inferred: list[int] = []
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._published: deque[float] = deque(maxlen=_ROWS)
        self._lock = threading.Lock()
        self._final: Totals | None = None
        self._since_s, self._cpu_s = time.monotonic(), time.process_time()
        self._before = Totals({}, {}, {})

    @property
    def frames(self) -> int:
        """How many frames were inferred."""
        return sum(self._inferred)

    def note(self, camera: str, latency: LatencyMs, *, meaning_ms: float = 0.0, pictures_ms: float = 0.0) -> None:
        """One inferred frame: what each stage took. Costs about a microsecond."""
        number = self._numbers.get(camera)
        if number is None:
            number = len(self._inferred)
            self._inferred.append(0)
            self._numbers[camera] = number
        self._inferred[number] += 1
        _ROW.pack_into(
            self._buffer,
            self._next % _ROWS * _ROW.size,
            number,
            latency.total + meaning_ms,
            latency.wait,
            latency.preprocess,
            latency.inference,
            latency.decode,
            latency.track,
            meaning_ms,
            pictures_ms,
        )
        self._next += 1

    def drop(self, camera: str, cause: str) -> None:
        """One frame that was passed over after it had left the hub: ``still``, ``governed`` or ``reloaded``."""
        with self._lock:
            self._dropped[camera, cause] += 1

    def close(self) -> None:
        """Close the account, when nothing is seen any more: what came and was not told of was dropped as ``stopped``.

        Whatever a thread that was left behind still does counts no more.
        """
        with self._lock:
            totals = self._sums()
            left = Counter(totals.frames)
            left.subtract(totals.inferred)
            for (camera, _), count in totals.dropped.items():
                left[camera] -= count
            dropped = Counter(totals.dropped)
            dropped.update({(camera, "stopped"): count for camera, count in left.items() if count > 0})
            self._final = Totals(totals.frames, totals.inferred, dict(dropped))

    def published(self, age_ms: float) -> None:
        """How old the frame was when its event was handed to the connection."""
        self._published.append(age_ms)

    def totals(self) -> Totals:
        """All since the start; once closed, always the same."""
        with self._lock:
            return self._final or self._sums()

    def _sums(self) -> Totals:
        numbers, inferred = dict(self._numbers), list(self._inferred)
        dropped = Counter(dict(self._dropped))
        for camera, causes in list(self._hub.dropped.items()):
            dropped.update({(camera, cause): count for cause, count in list(causes.items())})
        return Totals(dict(self._hub.frames), {camera: inferred[i] for camera, i in numbers.items()}, dict(dropped))

    def take(self, *, keep: bool = False) -> Flow:
        """All since the last call, for one caller at a time.

        Args:
            keep: only look; the next call finds all of it again.
        """
        now_s, cpu_s, totals, before = time.monotonic(), time.process_time(), self.totals(), self._before
        since_s, since_cpu_s, upto, published = self._since_s, self._cpu_s, self._next, self._published
        rows = self._rows(upto)
        if keep:
            published = published.copy()
        else:
            self._since_s, self._cpu_s, self._before, self._taken = now_s, cpu_s, totals, upto
            self._published = deque(maxlen=_ROWS)
        seconds = max(now_s - since_s, 1e-3)
        cpu_percent = round(100.0 * (cpu_s - since_cpu_s) / seconds, 1)
        cameras = {}
        for camera, frames in totals.frames.items():
            came = frames - before.frames.get(camera, 0)
            inferred = totals.inferred.get(camera, 0) - before.inferred.get(camera, 0)
            dropped = {
                cause: count - before.dropped.get((of, cause), 0)
                for (of, cause), count in sorted(totals.dropped.items())
                if of == camera
            }
            if camera in self._hub.forgotten and not (came or inferred or any(dropped.values())):
                continue
            cameras[camera] = CameraHealth(
                fps=round(inferred / seconds, 2),
                fps_in=round(came / seconds, 2),
                frames=came,
                inferred=inferred,
                dropped={"stale": 0} | dropped,
                frame_age_ms=_percentiles(rows[rows[:, 0] == self._numbers.get(camera, -1), 1]),
            )
        latency_ms = {stage: _percentiles(rows[:, 2 + i]) for i, stage in enumerate(STAGES)}
        latency_ms[AGE_AT_PUBLISH] = _percentiles(np.array(published, np.float32))
        return Flow(seconds, cameras, latency_ms if len(rows) else {}, cpu_percent)

    def _rows(self, upto: int) -> NDArray[np.float32]:
        """float32 (n, 9): what was noted since the last time, as far as it was not overwritten."""
        count = min(upto - self._taken, _ROWS)
        ring = np.frombuffer(bytes(self._buffer), np.float32).reshape(_ROWS, _COLUMNS)
        return ring[np.arange(upto - count, upto) % _ROWS]


def _percentiles(values: NDArray[np.float32]) -> Percentiles:
    if not len(values):
        return Percentiles(p50=0.0, p95=0.0)
    middle, tail = np.percentile(values, (50, 95))
    return Percentiles(p50=round(float(middle), 3), p95=round(float(tail), 3))
