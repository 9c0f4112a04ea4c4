"""Train one model in a folder of its own, and go on there when it was killed.

In: pictures and a `Config`.  Out: a trained Keras model; checkpoint, history, curves and
TensorBoard's log in the folder.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from msgspec import Struct
from numpy.typing import NDArray

from tinysight_contract.errors import TrainError
from tinysight_contract.files import replace_file
from tinysight_converters.run import MODEL
from tinysight_trainer.config import Config
from tinysight_trainer.curves import draw_curves
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.loop import CHECKPOINT, Loop, Progress, Row
from tinysight_trainer.models import STRIDE, build_model
from tinysight_trainer.pictures import Pictures, steps_of
from tinysight_trainer.targets import Grid

__all__ = ["HISTORY", "Fitted", "fit", "prepare", "save_model"]

HISTORY: Final = "history.csv"


class Fitted(Struct, frozen=True, kw_only=True):
    """A trained model with how it went.

    Attributes:
        model: of Keras.
        history: a row an epoch.
    """

    model: Any
    history: list[Row]


def prepare(config: Config) -> None:
    """Make TensorFlow repeat itself exactly, in the wanted precision."""
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    gpu = bool(tf.config.list_physical_devices("GPU"))
    automatic = "mixed_float16" if gpu else "float32"
    keras.mixed_precision.set_global_policy(automatic if config.precision == "auto" else config.precision)


def fit(
    data: Dataset,
    config: Config,
    out: Path,
    *,
    pictures: tuple[Pictures, ...],
    digest: str,
    progress: Progress,
    teachers: list[Any],
    make: Callable[[Config, int], Any] = build_model,
    what: str = "training",
) -> Fitted:
    """Train one model in a folder, or go on where its checkpoint ends.

    Args:
        data: gives the labels.
        config: every setting.
        out: gets checkpoint, history, curves and TensorBoard's log.
        pictures: to learn from, and to measure with.
        digest: of the pictures, `Sides.digest`.
        progress: is told how it goes.
        teachers: trained models whose answers are learned too.
        make: gives the model to begin with, for a number of classes.
        what: is trained, for the progress.

    Raises:
        TrainError: the loss is no longer finite, or the memory is too small.
        DataError: an image is missing, broken or changed.
        OSError: the disk is full; the last checkpoint is still there.
    """
    begun_s = time.monotonic()
    learned, held = pictures
    devices = len(tf.config.list_physical_devices("GPU"))
    shared = 1 < devices <= min(config.batch, len(learned))
    strategy = tf.distribute.MirroredStrategy() if shared else None
    grid = None
    if config.task == "detect":
        grid = Grid(config.height // STRIDE, config.width // STRIDE, len(data.labels), STRIDE)
    keras.utils.set_random_seed(config.seed)
    with (strategy or tf.distribute.get_strategy()).scope():
        model = make(config, len(data.labels))
    loop = Loop(
        model,
        config,
        grid,
        len(data.labels),
        steps_per_epoch=steps_of(learned, config.batch),
        class_weights=_class_weights(learned, len(data.labels)) if config.class_weights and grid is None else None,
        teachers=teachers,
        strategy=strategy,
    )
    out.mkdir(parents=True, exist_ok=True)
    done, history = loop.restore(out) if (out / CHECKPOINT).is_file() else (0, [])
    spent_s = history[-1]["seconds"] if history else 0.0
    progress.begin(
        what=what, steps=loop.steps, done=done * loop.steps_per_epoch, pictures=min(config.batch, len(learned))
    )
    if not done:
        loop.save(out, 0, [], digest)
    with tf.Graph().as_default():  # TF 2's own writer needs TensorBoard to be installed, to write as well as to look
        log = tf.compat.v1.summary.FileWriter(str(out / "tensorboard"))
    try:
        for epoch in range(done, config.epochs):
            if history and loop.ends(history):
                break
            row = {"epoch": float(epoch + 1), **loop.epoch(learned, epoch, progress)}
            row |= loop.evaluate(held)
            row["seconds"] = spent_s + time.monotonic() - begun_s
            history.append(row)
            loop.ends(history)
            values = [tf.compat.v1.Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
            log.add_summary(tf.compat.v1.Summary(value=values), epoch + 1)
            log.flush()
            loop.save(out, epoch + 1, history, digest)
            _write_history(out, history)
            progress.epoch(row)
    except tf.errors.ResourceExhaustedError as error:
        raise TrainError("The training needs more memory than there is.", mend="Lower --batch or --input.") from error
    finally:
        log.close()
    _write_history(out, history)
    draw_curves(history, out / "curves.png", title=f"{what}: {data.root.name}")
    return Fitted(model=_in_float32(loop.finish(), config, len(data.labels)), history=history)


def _in_float32(model: Any, config: Config, labels: int) -> Any:  # noqa: ANN401 -- Keras has no types
    """The same weights in a model that the converters take; they know no mixed precision."""
    policy = keras.mixed_precision.global_policy()
    if policy.name == "float32":
        return model
    keras.mixed_precision.set_global_policy("float32")
    try:
        plain = build_model(config, labels)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    plain.set_weights(model.get_weights())
    return plain


def _class_weights(pictures: Pictures, labels: int) -> NDArray[np.float32]:
    """One on average over the pictures; a class half as frequent counts double."""
    counts = np.bincount([class_ids[0] for _, class_ids, _ in pictures.shown], minlength=labels)
    return np.asarray(counts.sum() / (labels * np.maximum(counts, 1)), np.float32)


def save_model(model: Any, out: Path) -> None:  # noqa: ANN401 -- Keras has no types
    """Write ``model.keras`` in one step."""
    part = out / ".part.keras"
    try:
        model.save(part)
        replace_file(out / MODEL, part.read_bytes())
    finally:
        part.unlink(missing_ok=True)


def _write_history(out: Path, history: list[Row]) -> None:
    names = list(history[0])
    lines = [",".join(names), *(",".join(f"{row[name]:.6g}" for name in names) for row in history)]
    replace_file(out / HISTORY, ("\n".join(lines) + "\n").encode())
