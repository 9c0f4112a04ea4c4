"""The optimizer's side of a training: one step, one epoch, and all of its state on disk.

In: a Keras model and a `Config`.  Out: losses per epoch, and ``checkpoint.npz``, written in one step after each.
"""

import io
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import keras
import msgspec
import numpy as np
import tensorflow as tf

from tinysight_contract import __version__
from tinysight_contract.errors import TrainError
from tinysight_contract.files import replace_file
from tinysight_trainer.losses import classifier_loss, detector_loss
from tinysight_trainer.pictures import Batch, Pictures, batches
from tinysight_trainer.targets import Grid

__all__ = ["CHECKPOINT", "Config", "Loop", "Progress", "read_checkpoint"]

CHECKPOINT: Final = "checkpoint.npz"
WARM_UP_SHARE: Final = 0.05
TURN_SHARE: Final = (
    0.75  # of the epochs; the box around a turned box is a guess, and the last ones are to learn true sizes
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting of a training.

    Attributes:
        task: detect or classify.
        width: of the model's input in pixels, a multiple of 16.
        height: likewise.
        epochs: how often every picture is seen.
        batch: pictures per step.
        learning_rate: at its peak.
        weight_decay: of AdamW.
        scale: of the model's channels.
        seed: of everything random.
    """

    task: str
    width: int
    height: int
    epochs: int
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    scale: float = 1.0
    seed: int = 0


class Progress:
    """What a training tells while it goes on. This one is silent."""

    def begin(self, *, steps: int, done: int) -> None:
        """The training has ``steps`` steps, ``done`` of them before this start."""

    def step(self, *, loss: float) -> None:
        """One more step."""

    def epoch(self, row: dict[str, float]) -> None:
        """An epoch has ended with these figures."""


class Loop:
    """The optimizer's side: one step, one epoch, and its state on disk."""

    def __init__(self, model: Any, config: Config, *, steps_per_epoch: int) -> None:  # noqa: ANN401 -- Keras has no types
        self.model, self.config, self.steps_per_epoch = model, config, steps_per_epoch
        self.steps = steps_per_epoch * config.epochs
        warm_up = max(1, int(self.steps * WARM_UP_SHARE))
        schedule = keras.optimizers.schedules.CosineDecay(
            1e-5,
            decay_steps=max(1, self.steps - warm_up),
            alpha=0.01,
            warmup_target=config.learning_rate,
            warmup_steps=warm_up,
        )
        self._optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, clipnorm=10.0)
        self._optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self._optimizer.build(model.trainable_variables)
        self._loss = detector_loss if config.task == "detect" else classifier_loss
        self._step = tf.function(self._eager_step, reduce_retracing=True)
        self._forward = tf.function(self._eager_forward, reduce_retracing=True)

    def _eager_step(self, images: Any, truth: Any) -> Any:  # noqa: ANN401 -- tensors have no types
        with tf.GradientTape() as tape:
            losses = self._loss(self.model(images, training=True), truth)
        gradients = tape.gradient(losses["loss"], self.model.trainable_variables)
        self._optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return losses

    def _eager_forward(self, images: Any, truth: Any) -> Any:  # noqa: ANN401 -- tensors have no types
        return self._loss(self.model(images, training=False), truth)

    def epoch(self, pictures: Pictures, grid: Grid | None, epoch: int, progress: Progress) -> dict[str, float]:
        """Learn from every picture once; the mean of each part of the loss."""
        sums: dict[str, float] = {}
        made = batches(
            pictures,
            grid,
            size=self.config.batch,
            seed=self.config.seed,
            epoch=epoch,
            augment=True,
            turn=epoch < TURN_SHARE * self.config.epochs,
        )
        for number, batch in enumerate(made):
            losses = {name: float(value) for name, value in self._step(*_tensors(batch)).items()}
            if not np.isfinite(losses["loss"]):
                raise TrainError(
                    f"The loss is {losses['loss']} in epoch {epoch + 1}, step {number + 1}.",
                    mend="Lower --learning-rate, or look at the images of this step.",
                )
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            progress.step(loss=losses["loss"])
        return {name: total / self.steps_per_epoch for name, total in sums.items()}

    def evaluate(self, pictures: Pictures, grid: Grid | None) -> dict[str, float]:
        """The mean of each part of the loss on pictures that are not learned from."""
        sums: dict[str, float] = {}
        made = batches(pictures, grid, size=self.config.batch, seed=0, epoch=0, augment=False)
        for batch in made:
            for name, value in self._forward(*_tensors(batch)).items():
                sums[f"val_{name}"] = sums.get(f"val_{name}", 0.0) + float(value) * len(batch.images) / len(pictures)
        return sums

    def save(self, out: Path, epoch: int, history: list[dict[str, float]], digest: str) -> None:
        """Write all state in one step."""
        variables = [*self.model.variables, *self._optimizer.variables]
        arrays = {f"v{number}": np.asarray(variable) for number, variable in enumerate(variables)}
        # The generators inside layers (dropout) are among the model's variables in Keras 3.
        about = {
            "version": __version__,
            "epoch": epoch,
            "history": history,
            "config": asdict(self.config),
            "digest": digest,
        }
        buffer = io.BytesIO()
        np.savez(buffer, about=np.frombuffer(msgspec.json.encode(about), np.uint8), **arrays)  # type: ignore[arg-type]  # numpy types **kwds as bool
        replace_file(out / CHECKPOINT, buffer.getvalue())

    def restore(self, out: Path) -> tuple[int, list[dict[str, float]]]:
        """Take all state back; how many epochs are done, and their figures."""
        held = read_checkpoint(out)
        about = msgspec.json.decode(held["about"].tobytes())
        for number, variable in enumerate([*self.model.variables, *self._optimizer.variables]):
            variable.assign(held[f"v{number}"])
        return int(about["epoch"]), list(about["history"])


def _tensors(batch: Batch) -> tuple[Any, Any]:
    images = tf.cast(batch.images, tf.float32)
    if batch.targets is None:
        return images, tf.constant(batch.class_ids)
    t = batch.targets
    return images, tuple(tf.constant(part) for part in (t.heat, t.heat_weight, t.box, t.box_weight))


def read_checkpoint(out: Path) -> dict[str, Any]:
    """All arrays of a run's checkpoint by name; ``about`` is JSON.

    Raises:
        TrainError: it is damaged.
    """
    try:
        with np.load(io.BytesIO((out / CHECKPOINT).read_bytes()), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
            msgspec.json.decode(arrays["about"].tobytes())
            return arrays
    except (OSError, KeyError, msgspec.MsgspecError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TrainError(f"{out / CHECKPOINT} is damaged.", mend="Begin anew in another --out.") from error
