"""Check of one camera: it opens, delivers, at what rate, and what the picture looks like. Saves one to look at."""

import time
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import CameraError
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.doctor.result import Figure, Result, fail, ok, warn
from tinysight_edge.doctor.subject import Subject
from tinysight_edge.sources import Source, open_source, policy_of

__all__ = ["camera"]

DARK: Final = 12.0  # mean grey value
COVERED: Final = 4.0  # standard deviation of grey values
LEAST_FPS: Final = 1.0
RECORDED_FRAMES: Final = 50  # of a file; it has no rate of its own


def camera(subject: Subject, name: str) -> Result:
    """Open it, read for some seconds, save the last picture.

    Raises:
        CameraError: it cannot be opened, or breaks.
        ConfigError: its password cannot be had.
    """
    config = subject.cameras[name]
    begun_s = time.monotonic()
    source, live = _open(subject, config)
    opened_ms = (time.monotonic() - begun_s) * 1e3
    try:
        images, took_s = _read(source, subject.options.seconds, live=live)
    finally:
        source.close()
    if not images:
        raise CameraError(f"{source.name} delivers no picture.", mend="Check its cable and that nobody else uses it.")
    last = images[-1]
    height, width = last.shape[:2]
    fps = (len(images) - 1) / took_s if len(images) > 1 and took_s > 0 else 0.0
    figures: dict[str, Figure] = {
        "width": width,
        "height": height,
        "fps": round(fps if live else source.fps, 2),
        "frames": len(images),
        "open_ms": round(opened_ms, 1),
        "picture": _save(subject, name, last),
    }
    rate = f"{fps:.1f} fps" if live else f"{len(images)} pictures read"
    about = f"{source.name}: {width}x{height}, {rate}"
    if live and fps < LEAST_FPS:
        mend = "Lower the resolution or the bit rate in the camera's settings, or use its sub-stream."
        return fail(f"{about}; that is too slow.", mend, figures)
    if (wrong := _wrong(images, live=live)) is not None:
        return warn(f"{about}; {wrong[0]}.", wrong[1], figures)
    return ok(f"{about}.", figures)


def _open(subject: Subject, config: CameraConfig) -> tuple[Source, bool]:
    """The source, and whether it is live; the only place that knows how sources are opened."""
    return open_source(config, secret=subject.secret(config)), policy_of(config).live


def _read(source: Source, seconds: float, *, live: bool) -> tuple[list[NDArray[np.uint8]], float]:
    """Small copies of what comes, the last one whole, and the seconds between the first and the last."""
    small: list[NDArray[np.uint8]] = []
    whole: NDArray[np.uint8] | None = None
    first_s = last_s = time.monotonic()
    until_s = first_s + seconds
    while (time.monotonic() < until_s or not small) and (live or len(small) < RECORDED_FRAMES):
        if (got := source.read()) is None:
            break
        whole, last_s = got[0], time.monotonic()
        first_s = first_s if small else last_s
        small.append(np.asarray(whole[::8, ::8].copy(), np.uint8))
    return ([*small[:-1], whole] if whole is not None else []), last_s - first_s


def _wrong(images: list[NDArray[np.uint8]], *, live: bool) -> tuple[str, str] | None:
    """What is wrong with the picture and what to do; ``images`` are small copies but for the last."""
    last = cv2.cvtColor(images[-1], cv2.COLOR_BGR2GRAY)
    if float(last.mean()) < DARK:
        return "the picture is dark", "Switch on the light, take off the lens cap, or raise the exposure."
    if float(last.std()) < COVERED:
        return "the picture shows nothing", "Uncover the lens and check the focus."
    small = [*images[:-1], images[-1][::8, ::8]]
    if live and len(small) > 5 and all(np.array_equal(one, small[0]) for one in small[1:]):
        return "the picture is frozen", "Switch the camera off and on; look whether its clock goes on."
    return None


def _save(subject: Subject, name: str, image: NDArray[np.uint8]) -> str | None:
    if subject.options.pictures is None:
        return None
    folder = Path(subject.options.pictures)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jpg"
    if not cv2.imwrite(str(path), image):
        raise CameraError(f"{path} cannot be written.", mend="Name another --pictures folder.")
    return str(path)
