"""Checks of the machine and of what is installed: nothing of the agent's own is needed for them."""

import datetime as dt
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from tinysight_edge.doctor.result import Result, fail, ok, warn
from tinysight_edge.doctor.subject import Subject
from tinysight_edge.health.machine import Machine

__all__ = ["clock", "cpu", "memory", "packages", "python", "runtime", "temperature"]

LEAST_PYTHON: Final = (3, 11)
LAST_TFLITE: Final = (3, 11)  # tflite-runtime 2.14 has wheels up to it, and is all there is for 32-bit ARM
LAST_LITERT: Final = (3, 14)
GLIBC: Final = {"litert": (2, 27), "tflite-runtime": (2, 34)}  # of their wheels; the second on ARM
LEAST_FREE_MIB: Final = 200
HOT_C: Final = (75.0, 85.0)
BEFORE: Final = 2025  # a clock that says less has not been set since the device was started
INSTALL: Final = "Run `pip install 'tinysight[edge]'` in the environment that runs this command."
KINDS: Final = {
    "x86": ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "fma"),
    "arm": ("asimd", "neon", "asimddp", "i8mm", "asimdhp", "sve"),
}
CALLED: Final = {"asimd": "NEON", "neon": "NEON", "asimddp": "dotprod", "asimdhp": "fp16"}


def python(_subject: Subject) -> Result:
    """Whether a runtime exists for this Python, this processor and this C library."""
    here, machine = sys.version_info[:2], platform.machine()
    libc, libc_version = platform.libc_ver()
    glibc = tuple(int(part) for part in re.findall(r"\d+", libc_version)[:2])
    about = f"Python {platform.python_version()} on {machine}, {libc or 'no glibc'} {libc_version}"
    figures = {"python": platform.python_version(), "machine": machine, "libc": f"{libc} {libc_version}".strip()}
    small = machine in {"armv7l", "armv6l", "armhf"}
    name = "tflite-runtime" if small else "litert"
    last = LAST_TFLITE if small else LAST_LITERT
    if here < LEAST_PYTHON:
        return fail(f"{about} is too old.", "Install Python 3.11 or later, and TinySight into it.", figures)
    if here > last:
        mend = f"Use Python {last[0]}.{last[1]}: `uv venv --python {last[0]}.{last[1]}`."
        return fail(f"{about}: there is no {name} wheel for it.", mend, figures)
    if libc != "glibc":
        mend = "Use a distribution with glibc, such as Debian; there are no wheels for musl."
        return fail(f"{about}: no runtime.", mend, figures)
    if glibc < GLIBC[name]:
        mend = f"Update the operating system; glibc {GLIBC[name][0]}.{GLIBC[name][1]} comes with "
        mend += "Debian 12." if small else "Debian 10."
        return fail(f"{about} is too old for {name}.", mend, figures)
    return ok(f"{about}.", figures)


def packages(_subject: Subject) -> Result:
    """NumPy, OpenCV and the MQTT client can be imported; an illegal instruction ends this process, and that is told."""
    import cv2  # noqa: PLC0415 -- see above
    import numpy as np  # noqa: PLC0415 -- see above
    import paho.mqtt  # noqa: PLC0415 -- see above

    found = {"numpy": np.__version__, "opencv": cv2.__version__, "paho-mqtt": paho.mqtt.__version__}
    about = ", ".join(f"{name} {number}" for name, number in found.items())
    both = [each for each in ("opencv-python", "opencv-python-headless", "opencv-contrib-python") if _version(each)]
    if len(both) > 1:
        mend = f"Run `pip uninstall {' '.join(both)}` and `pip install opencv-python-headless`."
        return warn(f"{about}; {' and '.join(both)} overwrite each other.", mend, found)
    registry = cv2.videoio_registry
    backends = sorted({registry.getBackendName(each) for each in registry.getBackends()})
    if "FFMPEG" not in backends:
        mend = "Install opencv-python-headless from PyPI; it brings FFmpeg."
        return warn(f"{about}; OpenCV has no FFmpeg, so RTSP and video files cannot be read.", mend, found)
    return ok(f"{about}.", {**found, "video": backends})


def runtime(_subject: Subject) -> Result:
    """LiteRT or tflite-runtime is installed, loads, and fits NumPy."""
    from tinysight_edge.interpreter import find_runtime  # noqa: PLC0415 -- loads it, which may crash

    if (old := _version("tflite-runtime")) and not _version("ai-edge-litert"):
        numpy = _version("numpy") or "?"
        if numpy.partition(".")[0] not in {"0", "1"}:
            mend = "Run `pip install 'numpy<2'`."
            return fail(f"tflite-runtime {old} cannot work with NumPy {numpy}.", mend, {"numpy": numpy})
    found = find_runtime()
    return ok(f"{found.name} {found.version} loads.", {"name": found.name, "version": found.version})


def cpu(_subject: Subject, *, cpuinfo: str | None = None, machine: str | None = None) -> Result:
    """What the processor can do for int8: LiteRT's kernels choose by these flags."""
    text = _read("/proc/cpuinfo") if cpuinfo is None else cpuinfo
    machine = platform.machine() if machine is None else machine
    words = set(re.sub(r"[^\w ]", " ", " ".join(re.findall(r"(?im)^(?:flags|features)\s*:(.*)$", text))).split())
    arm = machine.startswith(("arm", "aarch"))
    flags = [flag for flag in KINDS["arm" if arm else "x86"] if flag in words]
    called = list(dict.fromkeys(CALLED.get(flag, flag.upper() if not arm else flag) for flag in flags))
    name = re.search(r"(?im)^(?:model name|hardware)\s*:\s*(.*)$", text)
    about = f"{name[1].strip() if name else machine}, {os.cpu_count()} cores: {', '.join(called) or 'no vector units'}"
    figures = {"flags": flags, "cores": os.cpu_count()}
    if not flags:
        return warn(f"{about}.", "Expect it to be slow; take a smaller model.", figures)
    if arm and "asimddp" not in flags:
        return ok(f"{about}; without dotprod int8 is about half as fast.", figures)
    if not arm and "avx2" not in flags:
        return warn(f"{about}; no AVX2.", "Expect it to be slow; take a smaller model.", figures)
    return ok(f"{about}.", figures)


def memory(_subject: Subject) -> Result:
    """An agent with a small model takes about 150 MiB."""
    found = dict(re.findall(r"(?m)^(MemTotal|MemAvailable|SwapTotal): +(\d+) kB$", _read("/proc/meminfo")))
    if "MemAvailable" not in found:
        return warn("The machine does not say how much memory it has.", "Mount /proc.")
    total, free = int(found["MemTotal"]) // 1024, int(found["MemAvailable"]) // 1024
    about, figures = f"{free} of {total} MiB are free", {"total_mib": total, "free_mib": free}
    if free < LEAST_FREE_MIB:
        mend = f"End other programs until {LEAST_FREE_MIB} MiB are free: `ps aux --sort=-rss | head`."
        return warn(f"{about}; an agent takes about 150.", mend, figures)
    return ok(f"{about}.", figures)


def clock(_subject: Subject) -> Result:
    """Whether events will have the right time."""
    synced, now = Machine(Path("/")).read().clock_synced, dt.datetime.now(dt.UTC)
    about, figures = f"It is {now:%Y-%m-%d %H:%M:%S} UTC", {"synced": synced, "utc": now.isoformat()}
    mend = "Run `sudo timedatectl set-ntp true` and see `timedatectl timesync-status`; open UDP port 123."
    if now.year < BEFORE:
        return fail(f"{about}, which cannot be.", mend, figures)
    if synced is False:
        return warn(f"{about}, and the clock is not synchronized.", mend, figures)
    if synced is None:
        return ok(f"{about}; whether the clock is synchronized cannot be asked here.", figures)
    return ok(f"{about}, synchronized.", figures)


def temperature(_subject: Subject) -> Result:
    """Whether heat or the power supply slows the processor."""
    reading = Machine(Path("/")).read()
    degrees, slowed = reading.temperature_c, reading.slowed
    figures = {"celsius": degrees, "slowed": None if slowed is None else sorted(slowed)}
    about = "The processor's temperature is not told" if degrees is None else f"The processor has {degrees:.0f} °C"
    if slowed and "undervoltage" in slowed:
        mend = "Use the power supply that the board's maker names, and a short cable."
        return fail(f"{about} and is slowed: its supply is too weak.", mend, figures)
    if slowed:
        return warn(f"{about} and is slowed by heat.", "Fit a heat sink or a fan.", figures)
    if degrees is not None and degrees >= HOT_C[0]:
        make = fail if degrees >= HOT_C[1] else warn
        return make(f"{about}; it will be slowed soon.", "Fit a heat sink or a fan.", figures)
    return ok(f"{about}.", figures)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
