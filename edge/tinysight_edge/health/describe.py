"""What the device is and runs: the `Info` message.

In: the configuration, the bundle, the loaded model, what is known of the cameras.  Out: `Info`. How it does is
`meter`'s and `verdict`'s. What the configuration hides stays hidden: privacy masks, logins, paths.
"""

import os
import platform
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from tinysight_contract import __version__
from tinysight_contract.bundle import Bundle
from tinysight_contract.messages import MAX_PAYLOAD_BYTES, BundleRef, CameraInfo, Info, LineShape, ZoneShape, encode
from tinysight_edge.config.types import AgentConfig, CameraConfig, PublishConfig
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


def _shaped(camera: CameraInfo, config: CameraConfig) -> CameraInfo:
    """The same with where its zones and lines are."""
    return replace(
        camera,
        zones={
            name: ZoneShape(polygon=[*zone.polygon], labels=_named(zone.labels)) for name, zone in config.zones.items()
        },
        lines={
            name: LineShape(start=line.start, end=line.end, labels=_named(line.labels))
            for name, line in config.lines.items()
        },
    )


def _named(labels: tuple[str, ...] | None) -> list[str] | None:
    return None if labels is None else [*labels]


def _publishes(config: PublishConfig) -> list[str]:
    """The kinds that are sent only when the file says so."""
    return [*(["frame"] if config.frames is not None else []), *(["snapshot"] if config.snapshots else [])]


def describe(
    config: AgentConfig,
    bundle: Bundle,
    model: Model,
    cameras: dict[str, CameraInfo],
    *,
    boot_id: str,
    started_at: datetime,
) -> Info:
    """The `Info` message.

    Args:
        config: what holds now.
        bundle: the active one.
        model: what runs of it.
        cameras: what is known of each that is configured.
        boot_id: of this process.
        started_at: when it began, aware UTC.

    Returns:
        What this device is and runs; without all zones and lines when they would make it larger than a payload may be.
    """
    manifest = bundle.manifest
    info = Info(
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
        cameras={id_: _shaped(camera, config.cameras[id_]) for id_, camera in cameras.items()},
        bundle=BundleRef(
            name=manifest.name,
            version=manifest.version,
            release=manifest.release,
            digest=bundle.digest,
            task=manifest.task,
            scheme=model.variant.scheme,
            labels=manifest.labels,
        ),
        publishes=_publishes(config.publish),
    )
    return info if len(encode(info)) <= MAX_PAYLOAD_BYTES else replace(info, cameras=cameras)
