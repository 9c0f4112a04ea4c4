"""Draw the belt as a data set or a video: training material with nothing downloaded.

In: a number of images and a seed.  Out: a data set with splits of disjoint digits, or a video with its truth.
The result depends on the arguments alone, not on the number of processes. Written beside the target and renamed at
the end, so there is a whole data set or none.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import cv2
import msgspec

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import replace_file
from tinysight_edge.belt import LABELS, Belt, Split, Truth
from tinysight_trainer.data.dataset import IMAGES, Dataset
from tinysight_trainer.data.importer import new_folder
from tinysight_trainer.data.item import Item, Shown
from tinysight_trainer.data.looks import Look, Looks, look_at
from tinysight_trainer.data.split import measure

__all__ = ["belt_dataset", "belt_video", "split_sizes"]

FRAMES_PER_BELT: Final = 4
APART: Final = 120  # frames between two pictures of one belt: more than a parcel needs to pass
JPEG_QUALITY: Final = 95


def split_sizes(images: int) -> dict[Split, int]:
    """How many images each split gets when ``images`` are for training."""
    return {"train": images, "calibration": min(200, max(10, images // 10)), "test": min(500, max(20, images // 5))}


def belt_dataset(out: Path, *, images: int, seed: int, progress: Callable[[int, int], None]) -> dict[str, int]:
    """Write a data set of the belt to ``out``; the number of images by split.

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
    items: list[Item] = []
    looks: list[Look] = []
    with new_folder(out) as folder, ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for split, count in sizes.items():
            (folder / IMAGES / split).mkdir(parents=True)
            jobs = [(folder, split, seed, first, count) for first in range(0, count, FRAMES_PER_BELT)]
            for drawn in pool.map(_draw, jobs, chunksize=16):
                items += [item for item, _ in drawn]
                looks += [look for _, look in drawn]
                progress(len(items), sum(sizes.values()))
        held = {item.name: look for item, look in zip(items, looks, strict=True)}
        data = Dataset(folder, (), None, source={"format": "synthetic:belt", "seed": str(seed)}).with_items(items)
        measure(data, Looks.of(held[item.name] for item in data.items)).save()
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


def _draw(job: tuple[Path, Split, int, int, int]) -> list[tuple[Item, Look]]:
    """Pictures ``first`` and the following of a split, all of one belt, and how they look."""
    folder, split, seed, first, count = job
    cv2.setNumThreads(1)
    salt = {"train": 1, "calibration": 2, "test": 3}[split]
    belt = Belt(((seed * 4 + salt) << 24) + first, split=split)
    drawn = []
    for step, number in enumerate(range(first, min(first + FRAMES_PER_BELT, count))):
        image, truths = belt.frame(100 + step * APART)
        _, encoded = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        content = encoded.tobytes()
        name = f"{split}/{number:06d}.jpg"
        (folder / IMAGES / name).write_bytes(content)
        item = Item(
            name=name,
            sha256=hashlib.sha256(content).hexdigest(),
            width=belt.width,
            height=belt.height,
            split=split,
            session=f"belt {split} {first:06d}",
            shown=tuple(_shown(truth) for truth in truths),
        )
        drawn.append((item, look_at(image)))
    return drawn


def _shown(truth: Truth) -> Shown:
    """A parcel that is not clear is a crowd: neither right nor wrong to find."""
    x1, y1, x2, y2 = (round(float(side), 2) for side in truth.box_px)
    return Shown(label=LABELS[truth.label], box=(x1, y1, x2, y2), crowd=not truth.clear)
