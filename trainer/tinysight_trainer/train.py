"""START HERE: train a model, step by step, and survive being killed.

In: a checked data set and a `Config`.  Out: a run folder (see ``tinysight_converters.run``). After every epoch all
state goes into ``checkpoint.npz`` in one step; ``resume`` goes on from there with the same batches, so that a killed
training ends where an undisturbed one does.
"""

import io
import os
import sys
import time
import zipfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras
import tensorflow as tf

from tinysight_contract import __version__
from tinysight_contract.errors import TrainError
from tinysight_contract.files import replace_file
from tinysight_contract.manifest import Input
from tinysight_converters.run import EXAMPLES, MODEL, Example, Examples, Run, save_run
from tinysight_trainer.curves import draw_curves
from tinysight_trainer.dataset import Dataset
from tinysight_trainer.losses import classifier_loss, detector_loss
from tinysight_trainer.models import STRIDE, build_model
from tinysight_trainer.pictures import Batch, Pictures, batches, load_pictures
from tinysight_trainer.targets import Grid

__all__ = ["Config", "Progress", "train"]

CHECKPOINT: Final = "checkpoint.npz"
HISTORY: Final = "history.csv"
VALIDATION_SHARE: Final = 0.05
MIN_VALIDATION: Final = 50  # or a fifth of the training split, if that is less
MAX_CALIBRATION: Final = 200
WARM_UP_SHARE: Final = 0.05


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


def train(data: Dataset, config: Config, out: Path, *, resume: bool, progress: Progress) -> Run:
    """Train and write the run folder.

    Args:
        data: the checked data set.
        config: every setting.
        out: the run folder.
        resume: go on from the folder's checkpoint.
        progress: is told how it goes.

    Raises:
        TrainError: the folder is in use, there is nothing to resume, or the loss is no longer finite.
        DataError: an image is broken or has changed.
    """
    begun_s = time.monotonic()
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    _check_folder(out, config, data, resume=resume)
    spec = Input(height=config.height, width=config.width)
    learning, validation, examples = _sides(data)
    grid = _grid(data, config)
    train_set, val_set = (load_pictures(side, data.root, spec) for side in (learning, validation))
    model = build_model(
        config.task, labels=len(data.labels), height=config.height, width=config.width, scale=config.scale
    )
    loop = _Loop(model, config, steps_per_epoch=max(1, len(train_set) // min(config.batch, len(train_set))))
    out.mkdir(parents=True, exist_ok=True)
    done, history = loop.restore(out) if resume else (0, [])
    spent_s = history[-1]["seconds"] if history else 0.0
    progress.begin(steps=loop.steps, done=done * loop.steps_per_epoch)
    if not done:
        loop.save(out, 0, [], config, data.digest)
    replace_file(out / EXAMPLES, msgspec.json.encode(examples))
    for epoch in range(done, config.epochs):
        row = {"epoch": float(epoch + 1), **loop.epoch(train_set, grid, epoch, progress)}
        row |= loop.evaluate(val_set, grid)
        row["seconds"] = spent_s + time.monotonic() - begun_s
        history.append(row)
        loop.save(out, epoch + 1, history, config, data.digest)
        _write_history(out, history)
        progress.epoch(row)
    _write_history(out, history)
    figures = {
        "train_s": round(history[-1]["seconds"], 2),
        "epochs": float(config.epochs),
        "params": float(model.count_params()),
        "images": float(len(train_set)),
        "val_loss": history[-1]["val_loss"],
    }
    run = _describe(data, config, spec, figures)
    _save_model(model, out)
    draw_curves(history, out / "curves.png", title=f"{config.task}: {data.root.name}")
    save_run(out, run)
    return run


class _Loop:
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
        made = batches(pictures, grid, size=self.config.batch, seed=self.config.seed, epoch=epoch, augment=True)
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

    def save(self, out: Path, epoch: int, history: list[dict[str, float]], config: Config, digest: str) -> None:
        """Write all state in one step."""
        variables = [*self.model.variables, *self._optimizer.variables]
        arrays = {f"v{number}": np.asarray(variable) for number, variable in enumerate(variables)}
        # The generators inside layers (dropout) are among the model's variables in Keras 3.
        about = {
            "version": __version__,
            "epoch": epoch,
            "history": history,
            "config": asdict(config),
            "digest": digest,
        }
        buffer = io.BytesIO()
        np.savez(buffer, about=np.frombuffer(msgspec.json.encode(about), np.uint8), **arrays)  # type: ignore[arg-type]  # numpy types **kwds as bool
        replace_file(out / CHECKPOINT, buffer.getvalue())

    def restore(self, out: Path) -> tuple[int, list[dict[str, float]]]:
        """Take all state back; how many epochs are done, and their figures."""
        held = _read_checkpoint(out)
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


def _check_folder(out: Path, config: Config, data: Dataset, *, resume: bool) -> None:
    """Refuse to overwrite a run, and to go on with other settings or data than it began with."""
    if not resume:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise TrainError(f"{out} exists already.", mend="Name another --out, or go on with --resume.")
        return
    if not (out / CHECKPOINT).is_file():
        raise TrainError(f"{out} has nothing to resume.", mend="Begin without --resume.")
    about = msgspec.json.decode(_read_checkpoint(out)["about"].tobytes())
    if about["version"] != __version__:
        raise TrainError(f"{out} was begun by TinySight {about['version']}.", mend="Begin anew in another --out.")
    if about["config"] != asdict(config) or about["digest"] != data.digest:
        raise TrainError(
            f"{out} began with other settings or another data set.",
            mend="Give the same ones, or begin in another --out.",
        )


def _read_checkpoint(out: Path) -> dict[str, Any]:
    """All arrays of the checkpoint by name."""
    try:
        with np.load(io.BytesIO((out / CHECKPOINT).read_bytes()), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
            msgspec.json.decode(arrays["about"].tobytes())
            return arrays
    except (OSError, KeyError, msgspec.MsgspecError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TrainError(f"{out / CHECKPOINT} is damaged.", mend="Begin anew in another --out.") from error


def _sides(data: Dataset) -> tuple[list[Example], list[Example], Examples]:
    """What is learned from, what only measures the loss, and what the conversion gets.

    Calibration pictures also tune the threshold, so none of them may be learned from: without a split of their own they
    are the validation pictures.
    """
    held = list(data.splits["train"])
    order = np.random.default_rng(0).permutation(len(held))
    count = max(int(len(held) * VALIDATION_SHARE), min(MIN_VALIDATION, len(held) // 5))
    validation = [held[i] for i in order[:count]] or held
    learning = [held[i] for i in sorted(order[count:])]
    given = list(data.splits.get("calibration", ()))
    calibration = [given[i] for i in np.random.default_rng(0).permutation(len(given))] or validation
    return learning, validation, Examples(calibration=calibration[:MAX_CALIBRATION], test=list(data.splits["test"]))


def _grid(data: Dataset, config: Config) -> Grid | None:
    if config.task == "classify":
        return None
    return Grid(config.height // STRIDE, config.width // STRIDE, len(data.labels), STRIDE)


def _save_model(model: Any, out: Path) -> None:  # noqa: ANN401 -- Keras has no types
    part = out / ".part.keras"
    model.save(part)
    replace_file(out / MODEL, part.read_bytes())
    part.unlink()


def _write_history(out: Path, history: list[dict[str, float]]) -> None:
    names = list(history[0])
    lines = [",".join(names), *(",".join(f"{row[name]:.6g}" for name in names) for row in history)]
    replace_file(out / HISTORY, ("\n".join(lines) + "\n").encode())


def _describe(data: Dataset, config: Config, spec: Input, figures: dict[str, float]) -> Run:
    return Run(
        task="detect" if config.task == "detect" else "classify",
        labels=list(data.labels),
        input=spec,
        stride=STRIDE if config.task == "detect" else 0,
        dataset=str(data.root.resolve()),
        dataset_digest=data.digest,
        seed=config.seed,
        config=asdict(config),
        tools={
            "tinysight": __version__,
            "tensorflow": version("tensorflow"),
            "keras": version("keras"),
            "python": sys.version.split()[0],
        },
        figures=figures,
    )
