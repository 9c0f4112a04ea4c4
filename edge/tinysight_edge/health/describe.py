"""What the device is and runs: the `Info` message.

In: the bundle, the loaded model, the opened cameras.  Out: `Info`. How it does is `meter`'s and `verdict`'s.
"""

import os
import platform
from datetime import datetime
from pathlib import Path

from tinysight_contract import __version__
from tinysight_contract.bundle import Bundle
from tinysight_contract.messages import BundleRef, CameraInfo, Info
from tinysight_edge.interpreter import Model

__all__ = ["describe"]


def _hardware() -> dict[str, str | int | float]:
    """What this machine is, as far as it says so."""
    try:
        model = Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0 \n")
    except OSError:
        model = platform.processor() or platform.machine()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return {"model": model, "machine": platform.machine(), "cpus": os.cpu_count() or 1, "memory_mib": memory}


def describe(
    bundle: Bundle, model: Model, cameras: dict[str, CameraInfo], *, boot_id: str, started_at: datetime
) -> Info:
    """The `Info` message: what this device is and runs, and since when (aware UTC)."""
    manifest = bundle.manifest
    return Info(
        boot_id=boot_id,
        started_at=started_at,
        software={"tinysight": __version__, "python": platform.python_version(), "os": platform.platform()},
        runtime={
            "name": model.runtime.name,
            "version": model.runtime.version,
            "file": model.variant.file,
            "engine": model.engine.name,
            "choice": "; ".join(model.choice),
        },
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
