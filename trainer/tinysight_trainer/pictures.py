"""Training pictures in memory, and the batches made of them.

In: examples and how the device fits pictures.  Out: batches of augmented uint8 pictures with their targets, made in a
thread beside the training step. A batch depends on the seed, the epoch and its number alone, so a resumed training
sees the same ones.
"""

import queue
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tinysight_contract.errors import DataError
from tinysight_contract.manifest import Input
from tinysight_converters.run import Example
from tinysight_edge.preprocess import fit_picture
from tinysight_trainer.targets import Grid, Targets, encode, stack

__all__ = ["Batch", "Pictures", "batches", "load_pictures"]

MAX_BYTES: Final = 8 << 30
AHEAD: Final = 4
CLEAR_SHARE: Final = 0.7  # an object of which less is left in the picture is not to be named


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Fitted pictures with what they show.

    Attributes:
        images: uint8 (n, height, width, 3), RGB, fitted by the device's own code.
        boxes_px: per picture float32 (k, 4) in model pixels.
        class_ids: per picture int32 (k,).
        crowd: per picture bool (k,).
    """

    images: NDArray[np.uint8]
    boxes_px: list[NDArray[np.float32]]
    class_ids: list[NDArray[np.int32]]
    crowd: list[NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one step learns from.

    Attributes:
        images: uint8 (b, height, width, 3).
        targets: of a detector, or None.
        class_ids: int32 (b,) of a classifier, or None.
    """

    images: NDArray[np.uint8]
    targets: Targets | None
    class_ids: NDArray[np.int32] | None


def load_pictures(examples: list[Example], root: Path, spec: Input) -> Pictures:
    """Read and fit all examples.

    Raises:
        DataError: an image is missing, broken or changed, or all together need more than 8 GiB.
    """
    needed = len(examples) * spec.height * spec.width * 3
    if needed > MAX_BYTES:
        raise DataError(
            f"{len(examples)} pictures of {spec.width}x{spec.height} need {needed >> 30} GiB of memory.",
            mend=f"Train on fewer images or with a smaller --input; {MAX_BYTES >> 30} GiB are allowed.",
        )
    images = np.empty((len(examples), spec.height, spec.width, 3), np.uint8)
    boxes, class_ids, crowd = [], [], []
    for number, example in enumerate(examples):
        fit = fit_picture(example.picture(root), spec, images[number])
        boxes.append(fit.to_model(example.boxes_px))
        class_ids.append(np.array(example.class_ids, np.int32))
        crowd.append(np.array(example.crowd, bool))
    return Pictures(images, boxes, class_ids, crowd)


def batches(
    pictures: Pictures, grid: Grid | None, *, size: int, seed: int, epoch: int, augment: bool, turn: bool = True
) -> Generator[Batch, None, None]:
    """One epoch in random order; made ahead in a thread. When augmenting, what does not fill a batch is left out.

    Args:
        pictures: to learn from.
        grid: the detector's map, None for a classifier.
        size: pictures per batch.
        seed: of the training.
        epoch: its number.
        augment: vary the pictures, and shuffle.
        turn: turning and slanting is among the variations.
    """
    order = np.arange(len(pictures))
    if augment:
        np.random.default_rng((seed, epoch)).shuffle(order)
        size = min(size, len(order))
        order = order[: len(order) // size * size]
    made: queue.Queue[Batch | BaseException | None] = queue.Queue(AHEAD)
    stop = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stop.is_set():
            try:
                made.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def produce() -> None:
        try:
            for number, start in enumerate(range(0, len(order), size)):
                if stop.is_set():
                    return
                rng = np.random.default_rng((seed, epoch, number)) if augment else None
                put(_make(pictures, order[start : start + size], grid, rng, turn=turn))
            put(None)
        except BaseException as error:  # noqa: BLE001 -- handed to the reader, who raises it
            put(error)

    thread = threading.Thread(target=produce, name="batches", daemon=True)
    thread.start()
    try:
        while (batch := made.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        stop.set()
        thread.join()


def _make(
    pictures: Pictures, indices: NDArray[np.intp], grid: Grid | None, rng: np.random.Generator | None, *, turn: bool
) -> Batch:
    images = pictures.images[indices]
    targets = []
    for place, index in enumerate(indices):
        boxes, crowd = pictures.boxes_px[index], pictures.crowd[index]
        if rng is not None:
            boxes, crowd = _cut(_vary(images[place], boxes, rng, turn=turn), crowd, images.shape[2], images.shape[1])
        if grid is not None:
            targets.append(encode(boxes, pictures.class_ids[index], crowd, grid))
    if grid is not None:
        return Batch(images, stack(targets), None)
    return Batch(images, None, np.array([pictures.class_ids[index][0] for index in indices], np.int32))


def _vary(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], rng: np.random.Generator, *, turn: bool = True
) -> NDArray[np.float32]:
    """Size, slant, place, light, colour and noise, in place; the boxes of the varied picture.

    Nothing is mirrored: what is written, and much else, is not the same in the mirror.
    """
    height, width = image.shape[:2]
    centre = np.array((width / 2, height / 2))
    angle, slant = (np.deg2rad(rng.uniform(-8, 8)), rng.uniform(-0.15, 0.15)) if turn else (0.0, 0.0)
    zoom = rng.uniform(0.8, 1.25) * np.array((rng.uniform(0.87, 1.15), rng.uniform(0.87, 1.15)))
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.array(
        [[1, slant], [0, 1]]
    )
    linear = linear * zoom
    shift = centre - linear @ centre + rng.uniform(-0.12, 0.12, 2) * (width, height)
    move = np.column_stack((linear, shift))
    moved = cv2.warpAffine(image, move, (width, height), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    moved *= rng.uniform(0.75, 1.3) * rng.uniform(0.93, 1.07, 3).astype(np.float32)
    moved += rng.uniform(-18, 18)
    if rng.random() < 0.5:
        moved += rng.standard_normal(moved.shape, np.float32) * np.float32(rng.uniform(0, 6))
    image[:] = np.clip(moved, 0, 255)
    # The box around the moved box; its sides grow with turn and slant, so half of that growth is taken back.
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 @ linear.T + shift
    sides = (boxes[:, 2:] - boxes[:, :2]) @ ((np.abs(linear) + np.diag(np.abs(np.diag(linear)))) / 2).T
    return np.concatenate((middle - sides / 2, middle + sides / 2), 1).astype(np.float32)


def _cut(
    boxes: NDArray[np.float32], crowd: NDArray[np.bool_], width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes within the picture; what was mostly cut away is no longer to be named."""
    if not len(boxes):
        return boxes, crowd
    inside = np.clip(boxes, 0.0, np.array((width, height, width, height), np.float32))
    before, after = ((each[:, 2:] - each[:, :2]).prod(1) for each in (boxes, inside))
    return inside, crowd | (after < CLEAR_SHARE * before)
