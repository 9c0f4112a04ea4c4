"""What a quickly trained model makes of pictures that it has not learned from.

In: pictures with the labels they carry, parted into folds.  Out: for each picture what the model says that was trained
on the other folds, so that a wrong label cannot have taught it. Relatives (one session, near-duplicates) share a fold.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tinysight_contract.manifest import Input
from tinysight_converters.run import Example, Run
from tinysight_edge.decode import Detections
from tinysight_trainer.config import Config, make_config
from tinysight_trainer.loop import Loop, Progress
from tinysight_trainer.models import STRIDE, build_model
from tinysight_trainer.pictures import Pictures, load_pictures, steps_of
from tinysight_trainer.scores import KerasModel
from tinysight_trainer.targets import Grid

__all__ = ["SIDE", "detections_out_of_fold", "folds_of", "probabilities_out_of_fold", "turns_out_of_fold"]

SIDE: Final = 32
CLASS_FOLDS: Final = 3
BOX_FOLDS: Final = 2
TURN_FOLDS: Final = 2
TURN_PICTURES: Final = 3000  # a fold learns from, each in four positions
# How many pictures a model looks at while it learns; a small set is seen more often.
CLASS_BUDGET: Final = 130_000  # by one fold
TURN_BUDGET: Final = 50_000  # likewise
BOX_BUDGET: Final = 30_000  # likewise
EPOCHS: Final = (3, 20)
BATCH: Final = 64
ASKED: Final = 512

Said = Callable[[str], None]


def folds_of(groups: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """A fold for each picture; groups stay whole."""
    distinct, inverse = np.unique(groups, return_inverse=True)
    return np.asarray(np.random.default_rng(0).permutation(len(distinct))[inverse] % count, np.int64)


def probabilities_out_of_fold(
    pictures: NDArray[np.uint8], class_ids: NDArray[np.int32], groups: NDArray[np.int64], labels: int, say: Said
) -> NDArray[np.float32]:
    """A classifier's probabilities.

    Args:
        pictures: uint8 (n, 32, 32, 3).
        class_ids: int32 (n,), as labelled.
        groups: int64 (n,), relatives share one.
        labels: number of classes.
        say: told what is being done.

    Returns:
        float32 (n, labels), rows sum to one.
    """
    folds = folds_of(groups, CLASS_FOLDS)
    out = np.full((len(pictures), labels), 1 / labels, np.float32)
    for fold in range(CLASS_FOLDS):
        learn, ask = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(learn) and len(ask):
            what = f"fold {fold + 1} of {CLASS_FOLDS}"
            model = _classifier(pictures[learn], class_ids[learn], labels, budget=CLASS_BUDGET, what=what, say=say)
            out[ask] = _asked(model, pictures[ask])
    return out


def turns_out_of_fold(pictures: NDArray[np.uint8], groups: NDArray[np.int64], say: Said) -> NDArray[np.float32]:
    """How probably each picture is upright, or turned to the left by 90, 180 or 270 degrees.

    Args:
        pictures: uint8 (n, 32, 32, 3), most of them upright.
        groups: int64 (n,), relatives share one.
        say: told what is being done.

    Returns:
        float32 (n, 4), rows sum to one.
    """
    folds = folds_of(groups, TURN_FOLDS)
    out = np.full((len(pictures), 4), 1 / 4, np.float32)
    for fold in range(TURN_FOLDS):
        learn, ask = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(learn) and len(ask):
            learn = np.random.default_rng(fold).permutation(learn)[:TURN_PICTURES]
            four = np.concatenate([np.rot90(pictures[learn], turn, (1, 2)) for turn in range(4)])
            turns = np.repeat(np.arange(4, dtype=np.int32), len(learn))
            what = f"which way is up, fold {fold + 1} of {TURN_FOLDS}"
            model = _classifier(four, turns, 4, budget=TURN_BUDGET, what=what, say=say)
            out[ask] = _asked(model, pictures[ask])
    return out


def _classifier(
    pictures: NDArray[np.uint8], class_ids: NDArray[np.int32], labels: int, *, budget: int, what: str, say: Said
) -> Any:  # noqa: ANN401 -- Keras has no types
    epochs = _epochs(budget, len(pictures))
    config = make_config(
        {
            "input": f"{SIDE}x{SIDE}",
            "scale": 0.5,
            "epochs": epochs,
            "batch": BATCH,
            "learning_rate": 4e-3,
            "turn": 0.0,
            "smoothing": 0.0,
        },
        task="classify",
        source="quick model",
    )
    nothing, clear = np.empty((0, 4), np.float32), np.zeros(1, bool)
    shown = [(nothing, class_ids[n : n + 1], clear) for n in range(len(pictures))]
    return _trained(config, Pictures.of(pictures, shown, [""] * len(pictures)), None, labels, what=what, say=say)


def _epochs(budget: int, pictures: int) -> int:
    return int(np.clip(round(budget / max(pictures, 1)), *EPOCHS))


def _asked(model: Any, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:  # noqa: ANN401 -- see above
    parts = np.array_split(pictures, max(1, len(pictures) // ASKED))
    return np.concatenate([np.asarray(model(part.astype(np.float32), training=False)["scores"]) for part in parts])


def detections_out_of_fold(
    examples: list[Example], root: Path, labels: tuple[str, ...], groups: NDArray[np.int64], say: Said
) -> list[Detections]:
    """What a small detector finds in each picture, in its pixels, with all scores.

    Args:
        examples: pictures with the boxes they carry.
        root: of the data set.
        labels: by class id.
        groups: int64 (n,), relatives share one.
        say: told what is being done.

    Raises:
        DataError: an image is missing, broken or changed.
    """
    folds = folds_of(groups, BOX_FOLDS)
    config = make_config(
        {"epochs": _epochs(BOX_BUDGET, len(examples) // BOX_FOLDS)}, task="detect", source="quick model"
    )
    spec = Input(height=config.height, width=config.width)
    grid = Grid(config.height // STRIDE, config.width // STRIDE, len(labels), STRIDE)
    out: list[Detections] = [_NOTHING] * len(examples)
    for fold in range(BOX_FOLDS):
        learn, ask = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if not len(learn) or not len(ask):
            continue
        held = load_pictures([examples[n] for n in learn], root, spec)
        model = _trained(config, held, grid, len(labels), what=f"fold {fold + 1} of {BOX_FOLDS}", say=say)
        finder = KerasModel(_as_run(config, labels, spec), [model])
        for number, found in zip(ask, finder.find_all([examples[n] for n in ask], root), strict=True):
            out[number] = found
    return out


_NOTHING: Final = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))


def _trained(config: Config, pictures: Pictures, grid: Grid | None, labels: int, *, what: str, say: Said) -> Any:  # noqa: ANN401 -- see above
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    say(f"A quick model learns from {len(pictures)} pictures, {config.epochs} times ({what})")
    model = build_model(config, labels)
    loop = Loop(model, config, grid, labels, steps_per_epoch=steps_of(pictures, config.batch))
    for epoch in range(config.epochs):
        loop.epoch(pictures, epoch, Progress())
    return loop.finish()


def _as_run(config: Config, labels: tuple[str, ...], spec: Input) -> Run:
    return Run(
        task=config.task,
        labels=list(labels),
        input=spec,
        stride=STRIDE,
        dataset="",
        dataset_digest="0" * 64,
        seed=0,
        config={},
        tools={},
        figures={},
    )
