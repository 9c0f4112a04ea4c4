"""Check of one camera: it opens, delivers, at what rate, and what the picture looks like. Saves one to look at.

In: a camera's configuration.  Out: a `Result`, and a picture as the agent sees it: turned, cropped, and black where
privacy polygons say so. No other picture is looked at or saved.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import CameraError
from tinysight_edge.cameras.orient import Orient
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.doctor.result import Figure, Result, fail, ok, warn
from tinysight_edge.doctor.subject import Subject
from tinysight_edge.sources import Source, open_source, policy_of

__all__ = ["camera"]

DARK: Final = 12.0  # mean grey value
COVERED: Final = 4.0  # standard deviation of grey values
LEAST_FPS: Final = 1.0
RECORDED_FRAMES: Final = 50  # of a file; it has no rate of its own
ENOUGH: Final = 5  # pictures alike before it is called frozen


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What came.

    Attributes:
        last: the last picture, (H, W, 3) uint8 BGR, as the agent sees it.
        hidden: what privacy polygons have blacked of it, bool (H, W), or None.
        count: of pictures.
        took_s: from the first to the last.
        differed: whether any was unlike the first.
    """

    last: NDArray[np.uint8]
    hidden: NDArray[np.bool_] | None
    count: int
    took_s: float
    differed: bool


def camera(subject: Subject, name: str) -> Result:
    """Open it, read for some seconds, save the last picture.

    Raises:
        CameraError: it cannot be opened, breaks, or delivers nothing.
        ConfigError: its password cannot be had, or its crop is empty.
        ShapeError: what it delivers is no picture.
    """
    config = subject.cameras[name]
    orient = Orient(config)
    begun_s = time.monotonic()
    source, live = _open(subject, config)
    opened_ms = (time.monotonic() - begun_s) * 1e3
    try:
        look = _read(source, orient, subject.options.seconds, live=live)
    finally:
        source.close()
    height, width = look.last.shape[:2]
    fps = (look.count - 1) / look.took_s if look.count > 1 and look.took_s > 0 else 0.0
    figures: dict[str, Figure] = {
        "width": width,
        "height": height,
        "fps": round(fps if live else source.fps, 2),
        "frames": look.count,
        "open_ms": round(opened_ms, 1),
        "picture": _save(subject, name, look.last),
    }
    rate = f"{fps:.1f} fps" if live else f"{look.count} pictures read"
    about = f"{source.name}: {width}x{height}, {rate}"
    if live and fps < LEAST_FPS:
        mend = "Lower the resolution or the bit rate in the camera's settings, or use its sub-stream."
        return fail(f"{about}; that is too slow.", mend, figures)
    if (wrong := _wrong(look, live=live)) is not None:
        return warn(f"{about}; {wrong[0]}.", wrong[1], figures)
    return ok(f"{about}.", figures)


def _open(subject: Subject, config: CameraConfig) -> tuple[Source, bool]:
    """The source, and whether it is live; the only place that knows how sources are opened."""
    return open_source(config, secret=subject.secret(config)), policy_of(config).live


def _read(source: Source, orient: Orient, seconds: float, *, live: bool) -> _Look:
    """Look at it for so long. A picture that cannot be oriented is an error, so none leaves here as it came."""
    first: NDArray[np.uint8] | None = None
    last: NDArray[np.uint8] | None = None
    count, differed = 0, False
    first_s = last_s = time.monotonic()
    until_s = first_s + seconds
    while (time.monotonic() < until_s or not count) and (live or count < RECORDED_FRAMES):
        if (got := source.read()) is None:
            break
        last, last_s, count = orient(got[0]), time.monotonic(), count + 1
        small = last[::8, ::8]
        if first is None:
            first, first_s = small.copy(), last_s
        differed = differed or not np.array_equal(small, first)
    if last is None:
        raise CameraError(f"{source.name} delivers no picture.", mend="Check its cable and that nobody else uses it.")
    return _Look(last, orient.hidden, count, last_s - first_s, differed)


def _wrong(look: _Look, *, live: bool) -> tuple[str, str] | None:
    """What is wrong with the picture and what to do; what privacy polygons have blacked is not judged."""
    grey = np.asarray(cv2.cvtColor(look.last, cv2.COLOR_BGR2GRAY))
    shown = grey if look.hidden is None else grey[~look.hidden]
    if not shown.size:
        return "privacy polygons hide all of the picture", "Draw them smaller."
    if float(shown.mean()) < DARK:
        return "the picture is dark", "Switch on the light, take off the lens cap, or raise the exposure."
    if float(shown.std()) < COVERED:
        return "the picture shows nothing", "Uncover the lens and check the focus."
    if live and look.count > ENOUGH and not look.differed:
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
