"""What the machine says of itself: memory, temperature, throttling, disk, clock.

In: Linux's own files, and ``vcgencmd`` of the Raspberry Pi.  Out: one `Reading`. What a machine does not offer is None,
never a guess. Takes up to some milliseconds, so the caretaker reads it once a second, the inference loop never.
"""

import ctypes
import math
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Machine", "Reading", "clock_synced"]

_CLOCK_ERROR: Final = 5  # TIME_ERROR of adjtimex(2)
_PROCESSOR: Final = re.compile(r"cpu|soc|core|x86_pkg", re.IGNORECASE)
_SLOWS_CPU: Final = re.compile(r"cpufreq|^Processor$")
_ASK_EVERY_S: Final = 5.0
UNDERVOLTAGE: Final = 1 << 0
CAPPED: Final = 1 << 1 | 1 << 2
HOT: Final = 1 << 3
"""Bits of ``get_throttled`` (Raspberry Pi documentation, vcgencmd): now, not "since boot"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The machine at one moment.

    Attributes:
        memory_mib: what this process holds in RAM.
        memory_free: the share of the machine's RAM that can still be had, 0..1.
        temperature_c: of the processor's hottest zone.
        slowed: why the firmware or the kernel slows the processor now: ``heat``, ``undervoltage``, or nothing.
        disk_free_mib: where the agent keeps its state.
        clock_synced: whether the kernel believes the clock to be right.
    """

    memory_mib: float = 0.0
    memory_free: float | None = None
    temperature_c: float | None = None
    slowed: frozenset[str] | None = None
    disk_free_mib: float = math.inf
    clock_synced: bool | None = None


class Machine:
    """This machine.

    Args:
        folder: on the disk whose room is told.
        root: where ``/sys`` and ``/proc/meminfo`` are looked for; another one in tests.
    """

    def __init__(self, folder: Path, *, root: Path = Path("/")) -> None:
        self._folder, self._root = folder, root
        thermal = root / "sys/class/thermal"
        zones = {zone: _text(zone / "type") or "" for zone in sorted(thermal.glob("thermal_zone*"))}
        of_processor = [zone for zone, kind in zones.items() if _PROCESSOR.search(kind)]
        self._zones = [zone / "temp" for zone in of_processor or zones]
        self._coolers = [
            each / "cur_state"
            for each in sorted(thermal.glob("cooling_device*"))
            if _SLOWS_CPU.search(_text(each / "type") or "")
        ]
        self._volts = [
            each / "in0_lcrit_alarm"
            for each in sorted((root / "sys/class/hwmon").glob("hwmon*"))
            if _text(each / "name") == "rpi_volt"
        ]
        self._firmware = next(iter((root / "sys/devices/platform").glob("soc*/soc*:firmware/get_throttled")), None)
        self._vcgencmd = shutil.which("vcgencmd")
        self._flags: int | None = None
        self._asked_s = -_ASK_EVERY_S

    def read(self) -> Reading:
        """Look at everything."""
        return Reading(
            memory_mib=round(_memory_mib(), 1),
            memory_free=self._memory_free(),
            temperature_c=self._temperature_c(),
            slowed=self._slowed(),
            disk_free_mib=_disk_free_mib(self._folder),
            clock_synced=clock_synced(),
        )

    def _temperature_c(self) -> float | None:
        degrees = [value / 1000 for zone in self._zones if (value := _number(zone)) is not None]
        return max((each for each in degrees if -40.0 < each < 150.0), default=None)  # a dead sensor says 0 K or 255 C

    def _memory_free(self) -> float | None:
        found = dict(
            re.findall(r"^(MemTotal|MemAvailable): +(\d+) kB$", _text(self._root / "proc/meminfo") or "", re.M)
        )
        if len(found) < 2 or not int(found["MemTotal"]):
            return None
        return round(int(found["MemAvailable"]) / int(found["MemTotal"]), 4)

    def _slowed(self) -> frozenset[str] | None:
        """A limit set by hand (``scaling_max_freq``) is nobody's trouble; what a cooling device takes away is."""
        flags = self._throttled_flags()
        coolers = [state for each in self._coolers if (state := _number(each)) is not None]
        volts = [alarm for each in self._volts if (alarm := _number(each)) is not None]
        if flags is None and not coolers and not volts:
            return None
        flags = flags or 0
        causes = set[str]()
        if flags & UNDERVOLTAGE or any(volts):
            causes.add("undervoltage")
        capped_by_heat = flags & CAPPED and not causes  # the firmware caps for either
        if flags & HOT or capped_by_heat or any(state > 0 for state in coolers):
            causes.add("heat")
        return frozenset(causes)

    def _throttled_flags(self) -> int | None:
        """Of the Raspberry Pi's firmware. Its file in /sys is gone from kernels since 2025 (raspberrypi/linux#6697)."""
        if self._vcgencmd is None:
            return _number(self._firmware, base=16) if self._firmware else None
        if time.monotonic() - self._asked_s >= _ASK_EVERY_S:
            self._asked_s = time.monotonic()
            self._flags = _ask(self._vcgencmd)
        return self._flags


def clock_synced() -> bool | None:
    """Whether the kernel believes the clock to be right (adjtimex(2)); None where it cannot be asked."""
    try:
        answer = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else answer != _CLOCK_ERROR


def _ask(vcgencmd: str) -> int | None:
    try:
        done = subprocess.run([vcgencmd, "get_throttled"], capture_output=True, text=True, timeout=2.0, check=False)
        return int(done.stdout.strip().removeprefix("throttled="), 16)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path, *, base: int = 10) -> int | None:
    try:
        return int(_text(path) or "", base)
    except ValueError:
        return None


def _memory_mib() -> float:
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
