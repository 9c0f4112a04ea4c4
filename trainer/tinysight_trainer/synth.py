"""Draw the belt as a data set or a video: training material with nothing downloaded.

In: a number of images and a seed.  Out: a COCO data set with splits of disjoint digits, or a video with its truth.
The result depends on the arguments alone, not on the number of processes. Written beside the target and renamed at
the end, so there is a whole data set or none.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import cv2
import msgspec

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import fsync_folder, replace_file
from tinysight_edge.belt import LABELS, Belt, Split, Truth

__all__ = ["belt_dataset", "belt_video", "split_sizes"]

FRAMES_PER_BELT: Final = 4
APART: Final = 120  # frames between two pictures of one belt: more than a parcel needs to pass
JPEG_QUALITY: Final = 95


def split_sizes(images: int) -> dict[Split, int]:
    """How many images each split gets when ``images`` are for training."""
    return {"train": images, "calibration": min(200, max(10, images // 10)), "test": min(500, max(20, images // 5))}


def belt_dataset(out: Path, *, images: int, seed: int, progress: Callable[[int, int], None]) -> dict[str, int]:
    """Write a COCO data set of the belt to ``out``; the number of images by split.

    Args:
        out: the data set's folder; must not exist, or be empty.
        images: of the training split.
        seed: of everything.
        progress: told how many of all images are done.

    Raises:
        ConfigError: ``out`` is in use, or there is nothing to draw.
    """
    if images < 1:
        raise ConfigError(f"{images} images are no data set.", mend="Give --images 100 or more.")
    sizes = split_sizes(images)
    with (
        _new_folder(out.absolute()) as folder,
        ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool,
    ):
        (folder / "annotations").mkdir()
        done = 0
        for split, count in sizes.items():
            (folder / "images" / split).mkdir(parents=True)
            coco = _Coco()
            firsts = range(0, count, FRAMES_PER_BELT)
            jobs = [(folder, split, seed, first, count) for first in firsts]
            for first, shown in zip(firsts, pool.map(_draw, jobs, chunksize=16), strict=True):
                for number, truths in enumerate(shown, start=first):
                    coco.add(f"{split}/{number:06d}.jpg", truths)
                done += len(shown)
                progress(done, sum(sizes.values()))
            (folder / "annotations" / f"{split}.json").write_bytes(coco.to_json())
    return {str(split): count for split, count in sizes.items()}


def belt_video(out: Path, *, frames: int, seed: int, fps: float = 15.0) -> int:
    """Write a video of the belt, and ``<name>.truth.json`` with what each frame shows; the number of frames.

    Raises:
        ConfigError: the folder is missing, or OpenCV cannot write such a video.
    """
    if frames < 1:
        raise ConfigError(f"{frames} frames are no video.", mend="Give --frames 100 or more.")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent} is no folder.", mend="Make it first.")
    belt = Belt(seed, speed_px=60.0 / fps)
    part = out.with_name(f".{out.stem}.part{out.suffix}")
    truth: list[list[dict[str, Any]]] = []
    try:
        writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"mp4v"), fps, (belt.width, belt.height))
        if not writer.isOpened():
            raise ConfigError(f"{out} cannot be written as a video.", mend="Check the folder's rights and free space.")
        for index in range(frames):
            image, shown = belt.frame(index)
            writer.write(image)
            truth.append(
                [{"parcel": t.parcel, "label": LABELS[t.label], "box": t.box_px, "clear": t.clear} for t in shown]
            )
        writer.release()
        if cv2.VideoCapture(str(part)).get(cv2.CAP_PROP_FRAME_COUNT) != frames:
            raise ConfigError(f"{out} could not be written whole.", mend="Free some space.")
        content = {"width": belt.width, "height": belt.height, "fps": fps, "frames": truth}
        replace_file(out.with_suffix(".truth.json"), msgspec.json.encode(content))
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return frames


def _draw(job: tuple[Path, Split, int, int, int]) -> list[list[Truth]]:
    """Pictures ``first`` and the following of a split, all of one belt; what they show."""
    folder, split, seed, first, count = job
    cv2.setNumThreads(1)
    salt = {"train": 1, "calibration": 2, "test": 3}[split]
    belt = Belt(((seed * 4 + salt) << 24) + first, split=split)
    shown = []
    for step, number in enumerate(range(first, min(first + FRAMES_PER_BELT, count))):
        image, truths = belt.frame(100 + step * APART)
        path = folder / "images" / split / f"{number:06d}.jpg"
        if not cv2.imwrite(str(path), image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)):
            raise OSError(28, "The image cannot be written", str(path))
        shown.append(truths)
    return shown


class _Coco:
    """Collects a COCO annotation file. A parcel that is not clear is a crowd: neither right nor wrong to find."""

    def __init__(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, file_name: str, truths: list[Truth], width: int = 320, height: int = 240) -> None:
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for truth in truths:
            x1, y1, x2, y2 = truth.box_px
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": truth.label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(not truth.clear),
                }
            )

    def to_json(self) -> bytes:
        categories = [{"id": index + 1, "name": label} for index, label in enumerate(LABELS)]
        return msgspec.json.encode({"images": self._images, "annotations": self._annotations, "categories": categories})


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes ``out`` when all went well, and vanishes when not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already.", mend="Name another --out, or remove it.")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if out.exists():
            out.rmdir()
        part.rename(out)
        fsync_folder(out.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
