"""What the device is and how it does: latencies, drops, CPU, memory, temperature, disk, clock.

In: durations as they happen.  Out: the `Health` and `Info` messages. Reads Linux's own files; what a machine does not
offer is None, never a guess.
"""

import ctypes
import os
import platform
import shutil
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

import numpy as np

from tinysight_contract import __version__
from tinysight_contract.bundle import Bundle
from tinysight_contract.messages import (
    BundleRef,
    CameraHealth,
    CameraInfo,
    Health,
    Info,
    LatencyMs,
    OutboxHealth,
    Percentiles,
    utc_now,
)
from tinysight_edge.hub import Hub
from tinysight_edge.interpreter import Model

__all__ = ["Meter", "clock_synced", "describe"]

STAGES: Final = ("wait", "preprocess", "inference", "decode", "track")
_MAX_SAMPLES: Final = 4096
_CLOCK_ERROR: Final = 5  # TIME_ERROR of adjtimex(2)


class Meter:
    """Collects what happens between two reports. `note` is called by the inference loop, `report` by the publisher."""

    def __init__(self, hub: Hub, *, boot_id: str, folder: Path) -> None:
        self.frames = 0
        self._hub, self._boot_id, self._folder = hub, boot_id, folder
        self._begun_s = self._since_s = time.monotonic()
        self._cpu_s = time.process_time()
        self._lock = threading.Lock()
        self._stages: dict[str, list[float]] = defaultdict(list)
        self._ages: dict[str, list[float]] = defaultdict(list)
        self._inferred: dict[str, int] = defaultdict(int)
        self._before: dict[str, tuple[int, Counter[str]]] = defaultdict(lambda: (0, Counter()))

    def note(self, camera: str, latency: LatencyMs) -> None:
        """One inferred frame: what each stage took, and how old it was when its events were ready."""
        with self._lock:
            self.frames += 1
            self._inferred[camera] += 1
            if len(self._ages[camera]) < _MAX_SAMPLES:
                self._ages[camera].append(latency.total)
                for stage in STAGES:
                    self._stages[stage].append(getattr(latency, stage))

    def report(self, outbox: OutboxHealth) -> Health:
        """All since the last report; begins anew."""
        with self._lock:
            stages, ages, inferred = self._stages, self._ages, self._inferred
            self._stages, self._ages, self._inferred = defaultdict(list), defaultdict(list), defaultdict(int)
        now_s, cpu_s = time.monotonic(), time.process_time()
        passed_s = max(now_s - self._since_s, 1e-3)
        cpu_percent = 100.0 * (cpu_s - self._cpu_s) / passed_s
        self._since_s, self._cpu_s = now_s, cpu_s
        cameras = {}
        for camera in list(self._hub.frames):
            frames, dropped = self._hub.frames[camera], Counter(self._hub.dropped[camera])
            frames_before, dropped_before = self._before[camera]
            self._before[camera] = (frames, dropped)
            cameras[camera] = CameraHealth(
                fps=round(inferred[camera] / passed_s, 2),
                frames=frames - frames_before,
                inferred=inferred[camera],
                dropped={cause: dropped[cause] - dropped_before[cause] for cause in ("stale", *dropped)},
                frame_age_ms=_percentiles(ages[camera]),
            )
        return Health(
            at=utc_now(),
            boot_id=self._boot_id,
            uptime_s=round(now_s - self._begun_s, 3),
            cameras=cameras,
            latency_ms={stage: _percentiles(took) for stage, took in sorted(stages.items())},
            cpu_percent=round(cpu_percent, 1),
            memory_mib=round(_memory_mib(), 1),
            temperature_c=_temperature_c(),
            disk_free_mib=_disk_free_mib(self._folder),
            outbox=outbox,
        )


def _percentiles(values: list[float]) -> Percentiles:
    if not values:
        return Percentiles(p50=0.0, p95=0.0)
    middle, tail = np.percentile(values, (50, 95))
    return Percentiles(p50=round(float(middle), 3), p95=round(float(tail), 3))


def _memory_mib() -> float:
    """What the process holds in RAM."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _disk_free_mib(folder: Path) -> float:
    try:
        return round(shutil.disk_usage(folder).free / 2**20, 1)
    except OSError:  # the folder's disk is gone; nothing is free there
        return 0.0


def _temperature_c() -> float | None:
    try:
        return int(Path("/sys/class/thermal/thermal_zone0/temp").read_text(encoding="ascii")) / 1000
    except (OSError, ValueError):
        return None


def _hardware() -> dict[str, str | int | float]:
    """What this machine is, as far as it says so."""
    try:
        model = Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0 \n")
    except OSError:
        model = platform.processor() or platform.machine()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return {"model": model, "machine": platform.machine(), "cpus": os.cpu_count() or 1, "memory_mib": memory}


def describe(bundle: Bundle, model: Model, cameras: dict[str, CameraInfo], *, boot_id: str) -> Info:
    """The `Info` message: what this device is and runs."""
    manifest = bundle.manifest
    return Info(
        boot_id=boot_id,
        started_at=utc_now(),
        software={"tinysight": __version__, "python": platform.python_version(), "os": platform.platform()},
        runtime={"name": model.runtime.name, "version": model.runtime.version, "file": model.variant.file},
        hardware=_hardware(),
        cameras=cameras,
        bundle=BundleRef(
            name=manifest.name,
            version=manifest.version,
            release=manifest.release,
            digest=bundle.digest,
            task=manifest.task,
            scheme=model.variant.scheme,
            labels=manifest.labels,
        ),
    )


def clock_synced() -> bool | None:
    """Whether the kernel believes the clock to be right (adjtimex(2)); None where it cannot be asked."""
    try:
        answer = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else answer != _CLOCK_ERROR
