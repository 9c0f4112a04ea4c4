"""START HERE: train a model, step by step, and survive being killed.

In: a checked data set and a `Config`.  Out: a run folder (see ``tinysight_converters.run``). After every epoch all
state goes into ``checkpoint.npz`` in one step; ``resume`` goes on from there with the same batches, so that a killed
training ends where an undisturbed one does.
"""

import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import keras
import msgspec
import numpy as np
import tensorflow as tf

from tinysight_contract import __version__
from tinysight_contract.errors import TrainError
from tinysight_contract.files import replace_file
from tinysight_contract.manifest import Input
from tinysight_converters.run import EXAMPLES, MODEL, Example, Examples, Run, save_run
from tinysight_trainer.curves import draw_curves
from tinysight_trainer.dataset import Dataset
from tinysight_trainer.loop import CHECKPOINT, Config, Loop, Progress, read_checkpoint
from tinysight_trainer.models import STRIDE, build_model
from tinysight_trainer.pictures import load_pictures
from tinysight_trainer.targets import Grid

__all__ = ["Config", "Progress", "train"]

HISTORY: Final = "history.csv"
VALIDATION_SHARE: Final = 0.05
MIN_VALIDATION: Final = 50  # or a fifth of the training split, if that is less
MAX_CALIBRATION: Final = 200


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
    loop = Loop(model, config, steps_per_epoch=max(1, len(train_set) // min(config.batch, len(train_set))))
    out.mkdir(parents=True, exist_ok=True)
    done, history = loop.restore(out) if resume else (0, [])
    spent_s = history[-1]["seconds"] if history else 0.0
    progress.begin(steps=loop.steps, done=done * loop.steps_per_epoch)
    if not done:
        loop.save(out, 0, [], data.digest)
    replace_file(out / EXAMPLES, msgspec.json.encode(examples))
    for epoch in range(done, config.epochs):
        row = {"epoch": float(epoch + 1), **loop.epoch(train_set, grid, epoch, progress)}
        row |= loop.evaluate(val_set, grid)
        row["seconds"] = spent_s + time.monotonic() - begun_s
        history.append(row)
        loop.save(out, epoch + 1, history, data.digest)
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


def _check_folder(out: Path, config: Config, data: Dataset, *, resume: bool) -> None:
    """Refuse to overwrite a run, and to go on with other settings or data than it began with."""
    if not resume:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise TrainError(f"{out} exists already.", mend="Name another --out, or go on with --resume.")
        return
    if not (out / CHECKPOINT).is_file():
        raise TrainError(f"{out} has nothing to resume.", mend="Begin without --resume.")
    about = msgspec.json.decode(read_checkpoint(out)["about"].tobytes())
    if about["version"] != __version__:
        raise TrainError(f"{out} was begun by TinySight {about['version']}.", mend="Begin anew in another --out.")
    if about["config"] != asdict(config) or about["digest"] != data.digest:
        raise TrainError(
            f"{out} began with other settings or another data set.",
            mend="Give the same ones, or begin in another --out.",
        )


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
