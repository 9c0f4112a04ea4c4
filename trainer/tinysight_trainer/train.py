"""START HERE: train a model, step by step, and survive being killed.

In: a data set and a `Config`.  Out: a run folder (see ``tinysight_converters.run``). After every epoch all state goes
into ``checkpoint.npz`` in one step; ``resume`` goes on from there with the same batches, so that a killed training ends
where an undisturbed one does. With ``ensemble`` the teachers are trained first, each in a folder of its own.
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from tinysight_contract import __version__
from tinysight_contract.errors import DataError, TrainError
from tinysight_contract.files import locked, replace_file
from tinysight_contract.manifest import Input
from tinysight_converters.run import EXAMPLES, Example, Examples, Run, save_run
from tinysight_trainer.combine import compare_models, train_teachers
from tinysight_trainer.config import Config, to_toml
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.item import Item
from tinysight_trainer.data.ready import check_ready
from tinysight_trainer.fit import Fitted, fit, prepare, save_model
from tinysight_trainer.loop import CHECKPOINT, Progress, Row, read_checkpoint
from tinysight_trainer.models import STRIDE
from tinysight_trainer.pictures import Pictures, load_pictures

__all__ = [
    "SETTINGS",
    "Progress",
    "Sides",
    "check_folder",
    "describe",
    "read_pictures",
    "sides_of",
    "train",
    "training_figures",
]

SETTINGS: Final = "config.toml"
VALIDATION_SHARE: Final = 0.05
MIN_VALIDATION: Final = 50  # or a fifth of the training split, if that is less
MIN_SESSIONS: Final = 5  # with fewer, single files are set aside
MAX_CALIBRATION: Final = 200


class Sides(msgspec.Struct, frozen=True, kw_only=True):
    """What is learned from, what only measures the loss, and what the conversion gets."""

    learning: list[Example]
    validation: list[Example]
    examples: Examples
    data: str

    @property
    def digest(self) -> str:
        """Of the data set and of who is on which side; sessions decide about that, and the data set's own has none."""
        sides = [[each.sha256 for each in side] for side in (self.learning, self.validation)]
        return hashlib.sha256(msgspec.json.encode([self.data, *sides])).hexdigest()


def train(data: Dataset, config: Config, out: Path, *, resume: bool, progress: Progress) -> Run:
    """Train and write the run folder.

    Args:
        data: the data set.
        config: every setting.
        out: the run folder.
        resume: go on from the folder's checkpoint.
        progress: is told how it goes.

    Raises:
        TrainError: the folder is in use, there is nothing to resume, or the loss is no longer finite.
        DataError: the data set cannot be trained on, or an image is broken or has changed.
        OSError: the disk is full; what was there before is still whole.
    """
    for note in check_ready(data):
        progress.say(note)
    sides = sides_of(data)
    check_folder(out, config, sides, resume=resume)
    out.mkdir(parents=True, exist_ok=True)
    busy = TrainError(f"Another training is at work in {out}.", mend="Wait for it, or name another --out.")
    with locked(out, busy):
        return _train(data, sides, config, out, progress)


def _train(data: Dataset, sides: Sides, config: Config, out: Path, progress: Progress) -> Run:
    prepare(config)
    replace_file(out / SETTINGS, to_toml(config))
    replace_file(out / EXAMPLES, msgspec.json.encode(sides.examples))
    spec = Input(height=config.height, width=config.width, color=config.color)
    pictures = read_pictures(data, sides, spec, progress)
    fit_one = partial(fit, data, pictures=pictures, digest=sides.digest, progress=progress)
    teachers: list[Any] = []
    if config.ensemble:
        teachers = train_teachers(fit_one, config, out)
    fitted = fit_one(config, out, teachers=teachers if config.distill else [])
    figures = training_figures(fitted, config, len(pictures[0]))
    run = describe(data, config, spec, figures)
    save_model(fitted.model, out)
    if teachers:
        figures |= compare_models(run, out, teachers, fitted.model, sides.examples.test, progress=progress)
    save_run(out, run)
    return run


def read_pictures(data: Dataset, sides: Sides, spec: Input, progress: Progress) -> tuple[Pictures, Pictures]:
    """To learn from, and to measure with.

    Raises:
        DataError: an image is missing, broken or changed.
    """
    progress.say(f"Reading {len(sides.learning)} pictures to learn from, {len(sides.validation)} to measure")
    return load_pictures(sides.learning, data.root, spec), load_pictures(sides.validation, data.root, spec)


def check_folder(out: Path, config: Config, sides: Sides, *, resume: bool, elsewhere: str = "in another --out") -> None:
    """Refuse to overwrite a run, and to go on with other settings or data than it began with.

    Args:
        out: the folder.
        config: every setting.
        sides: of the pictures.
        resume: go on from the folder's checkpoint.
        elsewhere: how to begin anew, for the messages.

    Raises:
        TrainError: there is something already, or nothing to resume, or it began otherwise.
    """
    if not resume:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise TrainError(f"{out} exists already.", mend=f"Begin {elsewhere}, or go on with --resume.")
        return
    begun = [path for path in (out, *sorted(out.glob("teacher-*")), out / "alone") if (path / CHECKPOINT).is_file()]
    if not begun and not (out / SETTINGS).is_file():
        raise TrainError(f"{out} has nothing to resume.", mend="Begin without --resume.")
    abouts = {folder: msgspec.json.decode(read_checkpoint(folder)["about"].tobytes()) for folder in begun}
    if not (out / SETTINGS).is_file() or (out / SETTINGS).read_bytes() != to_toml(config):
        raise TrainError(
            f"{out} began with other settings or another data set.",
            mend=f"Give the same ones, or begin {elsewhere}.",
        )
    for folder, about in abouts.items():
        if about["version"] != __version__:
            raise TrainError(f"{folder} was begun by TinySight {about['version']}.", mend=f"Begin anew {elsewhere}.")
        if about["digest"] != sides.digest:
            raise TrainError(
                f"{out} began with other settings or another data set.",
                mend=f"Give the same ones, or begin {elsewhere}.",
            )


def sides_of(data: Dataset) -> Sides:
    """Part the pictures, in an order that depends on their content alone.

    Calibration pictures also tune the threshold, so none of them may be learned from: they are those that measure the
    loss. Without a split of their own, some of the training pictures are set aside.
    """

    def ordered(items: tuple[Item, ...]) -> list[Example]:
        return data.examples(sorted(items, key=lambda item: (item.sha256, item.name)))

    train, held = data.of("train"), data.of("calibration")
    if not held:
        held = _set_aside(train)
        apart = {item.sha256 for item in held}
        train = tuple(item for item in train if item.sha256 not in apart)
    learning, validation = ordered(train), ordered(held)
    chosen = [validation[i] for i in np.random.default_rng(0).permutation(len(validation))[:MAX_CALIBRATION]]
    examples = Examples(calibration=chosen, test=ordered(data.of("test")))
    return Sides(learning=learning, validation=validation, examples=examples, data=data.digest)


def _set_aside(train: tuple[Item, ...]) -> tuple[Item, ...]:
    """Some of the training pictures: whole sessions when there are several, and never a file that is left as well.

    Every class keeps a picture to be learned from.

    Raises:
        DataError: none can be spared.
    """
    sessions = {item: item.session or item.sha256 for item in train}
    files = {item: item.sha256 for item in train}
    count = max(int(len(train) * VALIDATION_SHARE), min(MIN_VALIDATION, len(train) // 5), 1)
    taken = _spared(sessions, count) if len(set(sessions.values())) >= MIN_SESSIONS else []
    if len(taken) < count:  # most classes have one session
        taken = _spared(files, count)
    if not taken:
        raise DataError("No class has a picture to spare for measuring.", mend="Add a second picture to a class.")
    return tuple(taken)


def _spared(groups: dict[Item, str], count: int) -> list[Item]:
    """At least ``count`` pictures in whole groups, or as many as leave something of every class."""
    members: dict[str, set[str]] = {}
    copies: dict[str, list[Item]] = {}
    for item, group in groups.items():
        members.setdefault(group, set()).add(item.sha256)
        copies.setdefault(item.sha256, []).append(item)
    left, taken = _shown(groups), list[Item]()
    names = sorted(members)
    for at in np.random.default_rng(0).permutation(len(names)):
        if len(taken) >= count:
            break
        mine = [item for file in members[names[at]] for item in copies.get(file, ())]
        shown = _shown(mine)
        if len(mine) < len(groups) - len(taken) and all(number < left[label] for label, number in shown.items()):
            left -= shown
            taken += mine
            for file in members[names[at]]:
                copies.pop(file, None)
    return taken


def _shown(items: Iterable[Item]) -> Counter[str]:
    return Counter(shown.label for item in items for shown in item.shown if not shown.crowd)


def training_figures(fitted: Fitted, config: Config, images: int) -> Row:
    """What a training measured of itself; ``images`` is how many were learned from."""
    last = fitted.history[-1]
    return {
        "train_s": round(last["seconds"], 2),
        "epochs": float(len(fitted.history)),
        "params": float(fitted.model.count_params()),
        "images": float(images),
        "val_loss": min(row["val_loss"] for row in fitted.history) if config.patience else last["val_loss"],
    }


def describe(data: Dataset, config: Config, spec: Input, figures: Row) -> Run:
    """What ``run.json`` says of a training."""
    return Run(
        task=config.task,
        labels=list(data.labels),
        input=spec,
        stride=STRIDE if config.task == "detect" else 0,
        dataset=str(data.root.resolve()),
        dataset_digest=data.digest,
        seed=config.seed,
        config=msgspec.to_builtins(config),
        tools={
            "tinysight": __version__,
            "tensorflow": version("tensorflow"),
            "keras": version("keras"),
            "python": sys.version.split()[0],
        },
        figures=figures,
    )
