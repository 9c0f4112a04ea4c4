"""Training pictures, and the batches made of them by ``tf.data`` beside the training step.

In: examples and how the device fits pictures.  Out: batches of varied uint8 pictures with what is to be answered.
Fitted pictures are kept in memory as long as they are few; many are decoded again each time. A batch depends on the
seed, the epoch and its number alone, so a resumed training sees the same ones.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tinysight_contract.errors import TinySightError
from tinysight_contract.manifest import Input
from tinysight_converters.run import Example
from tinysight_edge.preprocess import fit_picture
from tinysight_trainer.augment import Boxes, blend, mosaic, vary
from tinysight_trainer.config import Config
from tinysight_trainer.data.take import WORKERS, in_parallel
from tinysight_trainer.targets import Grid, encode, stack

__all__ = ["KEEP_BYTES", "Pictures", "batches", "load_pictures", "order_of", "steps_of"]

KEEP_BYTES: Final = 2 << 30
AHEAD: Final = 4
MEASURE_BATCH: Final = 32  # whatever the batch of the training, so that losses can be compared

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Fitted pictures with what they show.

    Attributes:
        names: of their files.
        shown: what each shows.
        shape: of each, (height, width, channels).
        take: gives those with these indices, uint8 (n, height, width, channels), to be written into.
    """

    names: Sequence[str]
    shown: Sequence[Boxes]
    shape: tuple[int, ...]
    take: Callable[[NDArray[np.intp]], Bytes]

    @classmethod
    def of(cls, images: Bytes, shown: Sequence[Boxes], names: Sequence[str]) -> "Pictures":
        """Pictures in memory, (n, height, width, channels)."""
        return cls(names, shown, images.shape[1:], images.__getitem__)

    def __len__(self) -> int:
        return len(self.names)


def load_pictures(examples: Sequence[Example], root: Path, spec: Input, *, keep_bytes: int = KEEP_BYTES) -> Pictures:
    """Read, check and fit all of them once.

    Args:
        examples: which.
        root: of the data set.
        spec: how the device fits pictures.
        keep_bytes: up to which size all are held in memory.

    Raises:
        DataError: an image is missing, broken or changed.
    """
    shape = (spec.height, spec.width, 1 if spec.color == "GRAY" else 3)
    keep = len(examples) * math.prod(shape) <= keep_bytes
    kept = np.empty((len(examples) if keep else 0, *shape), np.uint8)
    shown: list[Boxes] = []

    def fit(example: Example) -> tuple[Bytes, Boxes]:
        picture = np.empty(shape, np.uint8)
        way = fit_picture(example.picture(root), spec, picture)
        ids, crowd = np.array(example.class_ids, np.int32), np.array(example.crowd, bool)
        return picture, (way.to_model(example.boxes_px), ids, crowd)

    for number, (picture, boxes) in enumerate(in_parallel(fit, iter(examples))):
        if keep:
            kept[number] = picture
        shown.append(boxes)
    names = [example.name for example in examples]
    if keep:
        return Pictures.of(kept, shown, names)
    return Pictures(names, shown, shape, lambda indices: np.stack([fit(examples[at])[0] for at in indices]))


def steps_of(pictures: Pictures, batch: int) -> int:
    """Steps in an epoch of learning; what does not fill a batch is left out, another part of it each time."""
    return max(1, len(pictures) // min(batch, len(pictures)))


def order_of(pictures: Pictures, config: Config, epoch: int | None) -> NDArray[np.intp]:
    """In which order an epoch takes the pictures, one batch after another."""
    order = np.arange(len(pictures))
    if epoch is not None:
        np.random.default_rng((config.seed, epoch)).shuffle(order)
    return order


def batches(
    pictures: Pictures, grid: Grid | None, labels: int, config: Config, *, epoch: int | None, turn: bool = True
) -> Iterator[tuple[Any, Any]]:
    """One epoch, made ahead on all cores.

    Args:
        pictures: to learn from.
        grid: the detector's map, None for a classifier.
        labels: number of classes.
        config: batch, seed, and how pictures are varied.
        epoch: its number: shuffle and vary; None: every picture once, in order, as it is.
        turn: turning and slanting is among the variations.

    Yields:
        uint8 (b, height, width, channels), and the truth: the four parts of ``Targets``, or float32 (b, labels).

    Raises:
        DataError: an image is missing, broken or changed.
    """
    order = order_of(pictures, config, epoch)
    size = min(config.batch if epoch is not None else MEASURE_BATCH, len(order))
    count = -(-len(order) // size) if epoch is None else steps_of(pictures, config.batch)
    failed: list[TinySightError] = []

    def make(number: NDArray[np.int64]) -> list[NDArray[Any]]:
        indices = order[int(number) * size : (int(number) + 1) * size]
        rng = None if epoch is None else np.random.default_rng((config.seed, epoch, int(number)))
        try:
            return _make(pictures, indices, grid, labels, config, rng=rng, turn=turn)
        except TinySightError as error:
            failed.append(error)
            raise

    truth = [(labels,)] if grid is None else [(grid.height, grid.width, n) for n in (grid.labels, 1, 4, 1)]

    def shaped(number: Any) -> tuple[Any, ...]:  # noqa: ANN401 -- tensors have no types
        # stateful=False: else tf.data would make one batch after another, for fear of their order
        made = tf.numpy_function(make, [number], [tf.uint8] + [tf.float32] * len(truth), stateful=False)
        for tensor, shape in zip(made, (pictures.shape, *truth), strict=True):
            tensor.set_shape((None, *shape))
        return made[0], made[1] if grid is None else tuple(made[1:])

    made = tf.data.Dataset.range(count).map(shaped, num_parallel_calls=WORKERS, deterministic=True).prefetch(AHEAD)
    try:
        yield from made
    except tf.errors.OpError:
        if failed:
            raise failed[0] from None
        raise


def _make(
    pictures: Pictures,
    indices: NDArray[np.intp],
    grid: Grid | None,
    labels: int,
    config: Config,
    *,
    rng: np.random.Generator | None,
    turn: bool,
) -> list[NDArray[Any]]:
    images = pictures.take(indices)
    shown = [pictures.shown[index] for index in indices]
    if rng is not None:
        if grid is not None and config.mosaic:
            for place in np.flatnonzero(rng.random(len(indices)) < config.mosaic):
                others = rng.integers(len(pictures), size=3)
                four = [images[place], *pictures.take(others)]
                images[place], shown[place] = mosaic(four, [shown[place], *(pictures.shown[o] for o in others)], rng)
        shown = vary(images, shown, config, rng, turn=turn)
    if grid is not None:
        targets = stack([encode(boxes, class_ids, crowd, grid) for boxes, class_ids, crowd in shown])
        return [images, targets.heat, targets.heat_weight, targets.box, targets.box_weight]
    wanted = np.zeros((len(indices), labels), np.float32)
    wanted[np.arange(len(indices)), [class_ids[0] for _, class_ids, _ in shown]] = 1.0
    if rng is not None and (config.mixup or config.cutmix):
        blend(images, wanted, config, rng)
    return [images, wanted]
