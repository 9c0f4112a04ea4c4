"""The optimizer's side of a training: one step, one epoch, and all of its state on disk.

In: a Keras model and a `Config`.  Out: losses per epoch, and ``checkpoint.npz``, written in one step after each. With
several GPUs a step is shared between them.
"""

import io
import zipfile
from functools import partial
from pathlib import Path
from typing import Any, Final

import keras
import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tinysight_contract import __version__
from tinysight_contract.errors import TrainError
from tinysight_contract.files import replace_file
from tinysight_trainer.config import Config
from tinysight_trainer.losses import classifier_loss, classifier_teaching, detector_loss, detector_teaching
from tinysight_trainer.pictures import Pictures, batches, order_of
from tinysight_trainer.targets import Grid

__all__ = ["CHECKPOINT", "Loop", "Progress", "read_checkpoint"]

CHECKPOINT: Final = "checkpoint.npz"
# Of the epochs; the box around a turned box is a guess, and the last ones are to learn true sizes.
TURN_SHARE: Final = 0.75
TEACHING_SHARE: Final = 0.9
NAMED: Final = 4

Row = dict[str, float]


class Progress:
    """What a training tells while it goes on. This one is silent."""

    def begin(self, *, what: str, steps: int, done: int, pictures: int) -> None:
        """``what`` has ``steps`` steps of ``pictures`` each, ``done`` of them before this start."""

    def step(self, *, loss: float) -> None:
        """One more step."""

    def epoch(self, row: Row) -> None:
        """An epoch has ended with these figures."""

    def say(self, text: str) -> None:
        """Something else worth a line."""


class Loop:
    """The optimizer's side: one step, one epoch, and its state on disk.

    Args:
        model: to be trained.
        config: every setting.
        grid: the detector's map, None for a classifier.
        labels: number of classes.
        steps_per_epoch: of the learning.
        class_weights: float32 (labels,), one on average.
        teachers: trained models whose common answer is learned too.
        strategy: how a step is shared between devices.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 -- Keras has no types
        config: Config,
        grid: Grid | None,
        labels: int,
        *,
        steps_per_epoch: int,
        class_weights: NDArray[np.float32] | None = None,
        teachers: list[Any] | None = None,
        strategy: Any = None,  # noqa: ANN401 -- see above
    ) -> None:
        self.model, self.config, self.grid, self.labels = model, config, grid, labels
        self.steps_per_epoch, self.steps = steps_per_epoch, steps_per_epoch * config.epochs
        self._teachers = teachers or []
        self._strategy = strategy or tf.distribute.get_strategy()
        self._replicas = self._strategy.num_replicas_in_sync
        with self._strategy.scope():
            self.kept = keras.models.clone_model(model) if config.ema else model
            self.kept.set_weights(model.get_weights())
            self._seen = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._optimizer = _optimizer(config, self.steps)
            self._optimizer.build(model.trainable_variables)
        self.best: tuple[float, list[NDArray[Any]]] | None = None
        if grid is not None:
            self._loss, self._teaching = detector_loss, detector_teaching
        else:
            weights = np.ones(labels, np.float32) if class_weights is None else class_weights
            self._loss = partial(classifier_loss, smoothing=config.smoothing, class_weights=tf.constant(weights))
            self._teaching = classifier_teaching
        self._step = tf.function(self._eager_step, reduce_retracing=True)
        self._forward = tf.function(self._eager_forward, reduce_retracing=True)

    def _eager_step(self, images: Any, truth: Any) -> Any:  # noqa: ANN401 -- tensors have no types
        losses = self._strategy.run(self._replica_step, (images, truth))
        losses = {name: self._strategy.reduce("MEAN", value, axis=None) for name, value in losses.items()}
        if self.config.ema:
            self._seen.assign_add(1)
            seen = tf.cast(self._seen, tf.float32)
            momentum = tf.minimum(self.config.ema, (1 + seen) / (10 + seen))
            for mean, weight in zip(self.kept.weights, self.model.weights, strict=True):
                if mean.dtype.startswith(("float", "bfloat")):
                    mean.assign(mean * tf.cast(momentum, mean.dtype) + weight * tf.cast(1 - momentum, mean.dtype))
        return losses

    def _replica_step(self, images: Any, truth: Any) -> Any:  # noqa: ANN401 -- tensors have no types
        images = tf.cast(images, tf.float32)
        with tf.GradientTape() as tape:
            outputs = self.model(images, training=True)
            losses = self._loss(outputs, truth)
            if self._teachers:
                answers = [teacher(images, training=False) for teacher in self._teachers]
                common = {name: tf.reduce_mean([each[name] for each in answers], 0) for name in outputs}
                losses["teaching"] = self._teaching(outputs, common)
                losses["loss"] = (1 - TEACHING_SHARE) * losses["loss"] + TEACHING_SHARE * losses["teaching"]
            scaled = self._optimizer.scale_loss(losses["loss"] / self._replicas)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        self._optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return losses

    def _eager_forward(self, images: Any, truth: Any) -> Any:  # noqa: ANN401 -- tensors have no types
        return self._loss(self.kept(tf.cast(images, tf.float32), training=False), truth)

    def epoch(self, pictures: Pictures, epoch: int, progress: Progress) -> Row:
        """Learn from every picture once; the mean of each part of the loss.

        Raises:
            TrainError: the loss is no longer a finite number.
            DataError: an image is missing, broken or changed.
        """
        sums: Row = {}
        turn = epoch < min(TURN_SHARE * self.config.epochs, self.config.epochs - 1)
        made = batches(pictures, self.grid, self.labels, self.config, epoch=epoch, turn=turn)
        for number, (images, truth) in enumerate(made):
            losses = {name: float(value) for name, value in self._step(*self._shared(images, truth)).items()}
            if not np.isfinite(losses["loss"]):
                shown = order_of(pictures, self.config, epoch)[number * len(images) : (number + 1) * len(images)]
                names = ", ".join(pictures.names[index] for index in shown[:NAMED])
                raise TrainError(
                    f"The loss is {losses['loss']} in epoch {epoch + 1}, step {number + 1} "
                    f"(batch of {len(images)}: {names}, ...).",
                    mend="Lower --learning-rate, or look at these images.",
                )
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            progress.step(loss=losses["loss"])
        return {name: total / self.steps_per_epoch for name, total in sums.items()}

    def _shared(self, images: Any, truth: Any) -> tuple[Any, Any]:  # noqa: ANN401 -- tensors have no types
        """A batch, parted between the devices."""
        if self._replicas == 1:
            return images, truth

        def mine(context: Any) -> Any:  # noqa: ANN401 -- see above
            index = context.replica_id_in_sync_group
            return tf.nest.map_structure(lambda part: part[index :: self._replicas], (images, truth))

        shared: tuple[Any, Any] = self._strategy.experimental_distribute_values_from_function(mine)
        return shared

    def evaluate(self, pictures: Pictures) -> Row:
        """The mean of each part of the loss on pictures that are not learned from."""
        sums: Row = {}
        for images, truth in batches(pictures, self.grid, self.labels, self.config, epoch=None):
            for name, value in self._forward(images, truth).items():
                sums[f"val_{name}"] = sums.get(f"val_{name}", 0.0) + float(value) * len(images) / len(pictures)
        return sums

    def ends(self, history: list[Row]) -> bool:
        """Whether enough epochs went by without a better held-out loss; remembers the best weights."""
        loss = history[-1]["val_loss"]
        if not self.config.patience:
            return False
        if self.best is None or loss < self.best[0]:
            self.best = loss, self.kept.get_weights()
        since = len(history) - 1 - min(range(len(history)), key=lambda at: history[at]["val_loss"])
        return since >= self.config.patience

    def finish(self) -> Any:  # noqa: ANN401 -- see above
        """The model with the weights that are to be used."""
        if self.best is not None:
            self.kept.set_weights(self.best[1])
        return self.kept

    def _state(self) -> list[Any]:
        """All variables; the generators inside layers (dropout) are among the model's in Keras 3."""
        averaged = [*self.kept.variables, self._seen] if self.config.ema else []
        return [*self.model.variables, *self._optimizer.variables, *averaged]

    def save(self, out: Path, epoch: int, history: list[Row], digest: str) -> None:
        """Write all state in one step.

        Raises:
            OSError: the disk is full; the last checkpoint is still there.
        """
        arrays = {f"v{number}": np.asarray(variable) for number, variable in enumerate(self._state())}
        about: dict[str, Any] = {"version": __version__, "epoch": epoch, "history": history, "digest": digest}
        about["config"] = msgspec.to_builtins(self.config)
        about["precision"] = keras.mixed_precision.global_policy().name
        if self.best is not None:
            about["best"] = self.best[0]
            arrays |= {f"b{number}": array for number, array in enumerate(self.best[1])}
        buffer = io.BytesIO()
        np.savez(buffer, about=np.frombuffer(msgspec.json.encode(about), np.uint8), **arrays)  # type: ignore[arg-type]  # numpy types **kwds as bool
        replace_file(out / CHECKPOINT, buffer.getvalue())

    def restore(self, out: Path) -> tuple[int, list[Row]]:
        """Take all state back; how many epochs are done, and their figures.

        Raises:
            TrainError: the checkpoint is damaged, or of a machine that trains in another precision.
        """
        held = read_checkpoint(out)
        about = msgspec.json.decode(held["about"].tobytes())
        precision = keras.mixed_precision.global_policy().name
        if about.get("precision") != precision:
            raise TrainError(
                f"{out} was begun in {about.get('precision')}, here it would go on in {precision}.",
                mend="Go on where it began (a GPU trains in another precision than a CPU), or begin in another --out.",
            )
        try:
            for number, variable in enumerate(self._state()):
                variable.assign(held[f"v{number}"])
            if "best" in about:
                self.best = about["best"], [held[f"b{number}"] for number in range(len(self.kept.get_weights()))]
        except (KeyError, ValueError) as error:
            raise TrainError(
                f"{out / CHECKPOINT} does not fit the model.", mend="Begin anew in another --out."
            ) from error
        return int(about["epoch"]), list(about["history"])


def _optimizer(config: Config, steps: int) -> Any:  # noqa: ANN401 -- Keras has no types
    warm_up = max(1, int(steps * config.warm_up))
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5,
        decay_steps=max(1, steps - warm_up),
        alpha=0.01,
        warmup_target=config.learning_rate,
        warmup_steps=warm_up,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, clipnorm=10.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if keras.mixed_precision.global_policy().name == "mixed_float16":
        return keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer


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
