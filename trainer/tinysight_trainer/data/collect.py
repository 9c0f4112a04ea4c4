"""Collect pictures from a camera for later labelling.

In: any source that the edge can read.  Out: a data set that has one dated session more. Pictures are kept at a steady
pace or when something moves; what looks like one that is kept already is dropped. Each kept picture is on disk at once,
in a folder of its session; a collection that was killed is taken into the data set by the next one.
"""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from tinysight_contract.errors import DataError
from tinysight_contract.files import locked, replace_file
from tinysight_edge.sources import Source
from tinysight_trainer.data.dataset import DATASET, IMAGES, Dataset, open_dataset
from tinysight_trainer.data.item import Item
from tinysight_trainer.data.looks import Look, Looks, look_at, near_pairs
from tinysight_trainer.data.take import take

__all__ = ["Collected", "Motion", "collect"]

PENDING: Final = ".collecting"
RECENT: Final = 256  # kept pictures that a new one is compared with
JPEG_QUALITY: Final = 95
ROUNDING_S: Final = 1e-6
MOVED_LEVELS: Final = 18  # of 255 grey levels
MOVED_SHARE: Final = 0.004  # of the small picture

Image = NDArray[np.uint8]


class Motion:
    """Whether something moves: a running mean of small grey pictures, and how much of the picture differs from it."""

    def __init__(self) -> None:
        self._mean: NDArray[np.float32] | None = None

    def moved(self, image: Image) -> bool:
        """Look at the next picture; the first one always counts as moved."""
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        small = cv2.GaussianBlur(cv2.resize(grey, (160, 120), interpolation=cv2.INTER_AREA), (5, 5), 0)
        now = small.astype(np.float32)
        if self._mean is None:
            self._mean = now
            return True
        share = float((np.abs(now - self._mean) > MOVED_LEVELS).mean())
        self._mean += 0.1 * (now - self._mean)
        return share > MOVED_SHARE


class Collected:
    """How many pictures were seen, kept and dropped, and in which session."""

    def __init__(self, session: str) -> None:
        self.session, self.seen, self.kept, self.alike = session, 0, 0, 0


def collect(
    source: Source,
    out: Path,
    *,
    every_s: float,
    motion: bool,
    most: int,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Collected], None] = lambda _: None,
) -> tuple[Dataset, Collected]:
    """Read the source to its end, or until it is told to stop, and add what was kept to the data set.

    Args:
        source: opened; closed by the caller.
        out: a data set, or where to make one.
        every_s: the least time between two kept pictures, in the source's own time.
        motion: keep only while something moves.
        most: pictures to keep.
        stop: asked after each picture.
        progress: told how it goes.

    Raises:
        DataError: ``out`` is something else.
        CameraError: the source broke; what was kept until then is in the data set.
        OSError: the disk is full; what was kept until then stays on it.
    """
    known = (out / DATASET).is_file() or (out / PENDING).is_dir()
    if out.exists() and not known and any(out.iterdir()):
        raise DataError(f"{out} is no TinySight data set.", mend="Name another --out.")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, DataError(f"Another collection fills {out}.", mend="Wait for it, or name another --out.")):
        return _collect(source, out, every_s=every_s, motion=motion, most=most, stop=stop, progress=progress)


def _collect(
    source: Source,
    out: Path,
    *,
    every_s: float,
    motion: bool,
    most: int,
    stop: Callable[[], bool],
    progress: Callable[[Collected], None],
) -> tuple[Dataset, Collected]:
    done = Collected(_session(source.name, out))
    folder = out / PENDING / done.session
    folder.mkdir(parents=True)
    watcher, kept, last_s = Motion(), list[Look](), -np.inf
    try:
        while done.kept < most and not stop() and (taken := source.read()) is not None:
            image, at_s = taken
            done.seen += 1
            moved = watcher.moved(image) if motion else True
            if moved and at_s - last_s >= every_s - ROUNDING_S:
                last_s = at_s
                look = look_at(image)
                if _known(look, kept[-RECENT:]):
                    done.alike += 1
                else:
                    kept.append(look)
                    _keep(folder / f"{done.kept:06d}-{round(at_s * 1000):09d}.jpg", image)
                    done.kept += 1
            progress(done)
    finally:
        data = _take_in(out)
    return data, done


def _session(camera: str, out: Path) -> str:
    """A name that no session has, be it taken in or left by a kill within the same second."""
    name = "".join(c if c.isalnum() else "-" for c in camera).strip("-").lower() or "camera"
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(each for each in names if not any((out / folder / each).exists() for folder in (PENDING, IMAGES)))


def _known(look: Look, kept: list[Look]) -> bool:
    """Whether it looks like one of those."""
    pairs = near_pairs(Looks.of([*kept, look]))
    return bool((pairs.second == len(kept)).any())


def _keep(path: Path, image: Image) -> None:
    good, raw = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    if good:
        replace_file(path, raw.tobytes())


def _take_in(out: Path) -> Dataset:
    """Move what was collected, now or before a kill, into the data set: annotations first, then nothing is pending."""
    data = open_dataset(out) if (out / DATASET).is_file() else Dataset(out, (), None, source={"format": "collected"})
    known = {item.name for item in data.items}
    items, moves = [], []
    for path in sorted((out / PENDING).glob("*/*.jpg")):
        session = path.parent.name
        name = f"{session}/{path.name}"
        made = take(path.read_bytes())
        if not isinstance(made, str):
            moves.append((path, out / IMAGES / name))
            if name not in known:
                item = Item(name=name, sha256=made.sha256, width=made.width, height=made.height, session=session)
                items.append(replace(item, labelled=False))
    for path, target in moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, path.read_bytes())
    data = data.with_items([*data.items, *items])
    data.save()
    for folder in sorted((out / PENDING).glob("*")):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    (out / PENDING).rmdir()
    return data
