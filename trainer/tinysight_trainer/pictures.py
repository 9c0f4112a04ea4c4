"""Training pictures, and the batches made of them by ``tf.data`` beside the training step.

In: examples and how the device fits pictures.  Out: batches of varied uint8 pictures with what is to be answered.
Fitted pictures are kept in memory as long as they are few; many are decoded again each time. A batch depends on the
seed, the epoch and its number alone, so a resumed training sees the same ones.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from tinysight_trainer.targets import Grid, encode, stack

__all__ = ["KEEP_BYTES", "Pictures", "batches", "order_of", "steps_of"]

KEEP_BYTES: Final = 2 << 30
AHEAD: Final = 4
WORKERS: Final = min(8, os.cpu_count() or 1)
CHUNK: Final = 256

Bytes = NDArray[np.uint8]


class Pictures:
    """Fitted pictures with what they show.

    Args:
        examples: which; every one is read and checked once.
        root: of the data set.
        spec: how the device fits pictures.
        keep_bytes: up to which size all are held in memory.
        progress: told how many are read.

    Raises:
        DataError: an image is missing, broken or changed.
    """

    def __init__(
        self,
        examples: list[Example],
        root: Path,
        spec: Input,
        *,
        keep_bytes: int = KEEP_BYTES,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._examples, self._root, self._spec = examples, root, spec
        self.names = [example.name for example in examples]
        self.shape: tuple[int, ...] = (spec.height, spec.width, 1 if spec.color == "GRAY" else 3)
        keep = len(examples) * int(np.prod(self.shape)) <= keep_bytes
        self._kept: Bytes | None = np.empty((len(examples), *self.shape), np.uint8) if keep else None
        self.shown: list[Boxes] = []
        with ThreadPoolExecutor(WORKERS) as pool:
            for start in range(0, len(examples), CHUNK):
                for number, (picture, boxes) in enumerate(pool.map(self._fit, examples[start : start + CHUNK]), start):
                    if self._kept is not None:
                        self._kept[number] = picture
                    self.shown.append(boxes)
                progress(len(self.shown))

    @classmethod
    def of(cls, images: Bytes, shown: list[Boxes], names: Sequence[str]) -> "Pictures":
        """Pictures that are fitted already, (n, height, width, channels)."""
        made = cls.__new__(cls)
        made.names, made.shown, made.shape, made._kept = list(names), shown, images.shape[1:], images
        return made

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: NDArray[np.intp]) -> Bytes:
        """Some pictures, (n, height, width, channels), to be written into."""
        if self._kept is not None:
            return self._kept[indices]
        return np.stack([self._fit(self._examples[index])[0] for index in indices])

    def _fit(self, example: Example) -> tuple[Bytes, Boxes]:
        picture = np.empty(self.shape, np.uint8)
        fit = fit_picture(example.picture(self._root), self._spec, picture)
        ids, crowd = np.array(example.class_ids, np.int32), np.array(example.crowd, bool)
        return picture, (fit.to_model(example.boxes_px), ids, crowd)


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
    size = min(config.batch, len(order))
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
