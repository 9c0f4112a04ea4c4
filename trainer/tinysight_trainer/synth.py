"""Draw a data set or a video of the belt, with its truth, from a seed.

In: how many pictures and a seed.  Out: a COCO data set whose splits show different handwritten digits, or a video
with a JSON file of what each frame shows. The same arguments give the same bytes, whatever the number of processes.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final, get_args

import cv2
import msgspec

from tinysight_contract.errors import ConfigError, DataError
from tinysight_contract.files import fsync_folder, replace_file
from tinysight_edge.belt import LABELS, Belt, Split, Truth
from tinysight_trainer.coco import Annotation, Category, Coco, Picture

__all__ = ["make_belt_set", "make_belt_video", "split_sizes"]

FRAMES_PER_BELT: Final = 6  # a belt takes ten times longer to draw than a frame
FRAME_STEP: Final = 97  # at 4 pixels a frame more than the width: two pictures of a belt share no parcel
BELT_SEEDS: Final[dict[Split, int]] = {"train": 0, "calibration": 1, "test": 2}
FPS: Final = 15


def split_sizes(images: int) -> dict[Split, int]:
    """Pictures per split for so many training pictures."""
    return {
        "train": images,
        "calibration": min(max(images // 10, 8), 200),
        "test": min(max(images // 5, 16), 500),
    }


def make_belt_set(out: Path, *, images: int, seed: int, workers: int, each: Callable[[], object]) -> dict[str, int]:
    """Write the data set; ``out`` appears when it is whole.

    Args:
        out: a new or empty folder.
        images: training pictures; the other splits are shares of it.
        seed: of the belts.
        workers: processes.
        each: called after each picture, to tell of progress.

    Returns:
        Pictures per split, and ``objects`` that are to be found in them.

    Raises:
        ConfigError: ``out`` is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty.", mend="Name another --out, or remove it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        found = _write_set(part, images=images, seed=seed, workers=workers, each=each)
        if out.exists():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    fsync_folder(out.parent)
    return found


def _write_set(root: Path, *, images: int, seed: int, workers: int, each: Callable[[], object]) -> dict[str, int]:
    sizes = split_sizes(images)
    jobs: list[tuple[Path, Split, int, int, int]] = []
    for split in get_args(Split):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        jobs += [
            (folder, split, seed, first, min(FRAMES_PER_BELT, sizes[split] - first))
            for first in range(0, sizes[split], FRAMES_PER_BELT)
        ]
    shown: dict[Split, list[list[Truth]]] = {split: [] for split in sizes}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for (_, split, *_), truths in zip(jobs, pool.map(_draw, jobs, chunksize=8), strict=True):
            shown[split] += truths
            for _ in truths:
                each()
    (root / "annotations").mkdir()
    for split, pictures in shown.items():
        (root / "annotations" / f"{split}.json").write_bytes(msgspec.json.encode(_coco(split, pictures)))
    objects = sum(truth.clear for pictures in shown.values() for truths in pictures for truth in truths)
    return {**sizes, "objects": objects}


def _draw(job: tuple[Path, Split, int, int, int]) -> list[list[Truth]]:
    """Draw the pictures of one belt into files; what each shows. Runs in a process of its own."""
    folder, split, seed, first, count = job
    belt = Belt(_belt_seed(seed, split, first), split=split)
    shown = []
    for number in range(count):
        image, truths = belt.frame((number + 1) * FRAME_STEP)
        cv2.imwrite(str(folder / f"{first + number + 1:06d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        shown.append(truths)
    return shown


def _belt_seed(seed: int, split: Split, first: int) -> int:
    """A number of its own for every belt of every data set."""
    return (seed * len(BELT_SEEDS) + BELT_SEEDS[split]) * 1_000_003 + first


def _coco(split: Split, pictures: list[list[Truth]]) -> Coco:
    """A parcel that is cut off too far to be named becomes a crowd: a region that counts neither way."""
    images, annotations = [], []
    for number, truths in enumerate(pictures, 1):
        images.append(Picture(id=number, file_name=f"{split}/{number:06d}.jpg", width=320, height=240))
        for truth in truths:
            x1, y1, x2, y2 = truth.box_px
            annotations.append(
                Annotation(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=truth.label + 1,
                    bbox=(x1, y1, x2 - x1, y2 - y1),
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=int(not truth.clear),
                )
            )
    categories = [Category(id=index + 1, name=label) for index, label in enumerate(LABELS)]
    return Coco(images=images, annotations=annotations, categories=categories)


def make_belt_video(out: Path, *, frames: int, seed: int, each: Callable[[], object]) -> Path:
    """Write a video of one belt, and ``<name>.truth.json`` beside it.

    Args:
        out: the video, an ``.mp4``; replaced when it exists.
        frames: its length; there are 15 a second.
        seed: of the belt, whose digits are those of the test split.
        each: called after each frame, to tell of progress.

    Returns:
        Where the truth is: per frame its parcels with id, label, box in pixels, and whether enough of it is seen.

    Raises:
        ConfigError: the name does not end in ``.mp4``.
        DataError: OpenCV cannot write a video here.
    """
    if out.suffix != ".mp4":
        raise ConfigError(f"{out} does not end in .mp4.", mend="Name the video like belt.mp4.")
    out.parent.mkdir(parents=True, exist_ok=True)
    belt = Belt(seed, split="test")
    part = out.with_name(f".{out.stem}.{os.getpid()}.part.mp4")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (belt.width, belt.height))
    try:
        if not writer.isOpened():
            raise DataError(f"OpenCV cannot write {out} here.", mend="Check the folder's rights, and OpenCV's codecs.")
        truth = []
        for index in range(frames):
            image, shown = belt.frame(index)
            writer.write(image)
            truth.append({"frame": index, "parcels": list(_told(shown))})
            each()
        writer.release()
        truth_path = out.with_suffix(".truth.json")
        facts = {"fps": FPS, "width": belt.width, "height": belt.height, "labels": LABELS, "frames": truth}
        replace_file(truth_path, msgspec.json.encode(facts))
        part.replace(out)
    finally:
        writer.release()
        part.unlink(missing_ok=True)
    return truth_path


def _told(shown: list[Truth]) -> Iterator[dict[str, object]]:
    for truth in shown:
        yield {"id": truth.parcel, "label": LABELS[truth.label], "box_px": truth.box_px, "clear": truth.clear}
