"""Fine-tune a finished run with the rounding of int8 (quantization-aware training).

In: a run folder and the data set it was trained on.  Out: ``qat/`` within it, a fake-quantized ``model.keras`` with
checkpoint, history and curves of its own, which resumes like any training; its conversion is the scheme ``int8-qat``.
The run itself stays what it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import keras
import msgspec
import numpy as np
from msgspec.structs import replace

from tinysight_contract.errors import ConfigError, TrainError
from tinysight_contract.files import locked, replace_file
from tinysight_contract.manifest import Input
from tinysight_converters.clone import quantized_clone
from tinysight_converters.ranges import calibrate, round_biases
from tinysight_converters.run import MODEL, load_examples, load_run
from tinysight_trainer.config import Config, make_config, read_toml, to_toml
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.ready import check_ready
from tinysight_trainer.fit import fit, prepare, save_model
from tinysight_trainer.loop import Progress, Row
from tinysight_trainer.train import MAX_CALIBRATION, SETTINGS, check_folder, read_pictures, sides_of, training_figures

__all__ = ["QAT", "fine_tune", "settings_of"]

QAT: Final = "qat"
FREE: Final = ("epochs", "learning_rate", "batch", "seed")
LEAST_EPOCHS: Final = 2
SHARE_OF_EPOCHS: Final = 4
SHARE_OF_LEARNING_RATE: Final = 10


def fine_tune(data: Dataset, given: Mapping[str, Any], out: Path, *, resume: bool, progress: Progress) -> Row:
    """Go on with a run, its weights and activations rounded as int8 rounds them.

    Args:
        data: the data set of the run.
        given: epochs, learning_rate, batch and seed, as far as they are not to follow from the run.
        out: the run folder.
        resume: go on from the checkpoint in its ``qat``.
        progress: is told how it goes.

    Returns:
        What the training measured of itself.

    Raises:
        ConversionError: the run is missing or unfinished, or its model has a layer that cannot be quantized.
        ConfigError: a setting is none that can be changed.
        TrainError: the data set is another, the folder is in use, there is nothing to resume, or the loss is no longer
            finite.
        DataError: an image is missing, broken or changed.
        OSError: the disk is full; what was there before is still whole.
    """
    run = load_run(out)
    for note in check_ready(data):
        progress.say(note)
    config, sides, folder = settings_of(out, given, task=run.task), sides_of(data), out / QAT
    if data.digest != run.dataset_digest or sides.examples != load_examples(out):
        raise TrainError(f"{out} was trained on another data set.", mend="Give that one, or train anew without --qat.")
    check_folder(folder, config, sides, resume=resume, elsewhere=f"after removing {folder}")
    folder.mkdir(exist_ok=True)
    with locked(folder, TrainError(f"Another training is at work in {folder}.", mend="Wait for it.")):
        prepare(config)
        replace_file(folder / SETTINGS, to_toml(config))
        spec = Input(height=config.height, width=config.width, color=config.color)
        pictures = read_pictures(data, sides, spec, progress)

        def rounded(_config: Config, _labels: int) -> Any:  # noqa: ANN401 -- Keras has no types
            model = quantized_clone(keras.models.load_model(out / MODEL, compile=False, safe_mode=True))
            calibrate(model, pictures[1].take(np.arange(len(pictures[1]))[:MAX_CALIBRATION]), method="mse")
            return model

        fitted = fit(
            data, config, folder, pictures=pictures, digest=sides.digest, progress=progress, teachers=[], make=rounded,
            what=QAT,
        )  # fmt: skip
        round_biases(fitted.model)
        save_model(fitted.model, folder)
    return training_figures(fitted, config, len(pictures[0]))


def settings_of(out: Path, given: Mapping[str, Any], *, task: str) -> Config:
    """Those of the run, for a shorter and gentler training without teachers.

    Raises:
        ConfigError: a setting is none that can be changed, or does not fit.
    """
    if fixed := [name for name in given if name not in FREE]:
        raise ConfigError(
            f"With --qat {fixed[0]} is what it was in {out}.", mend=f"Leave it out; free are {', '.join(FREE)}."
        )
    began = make_config(read_toml(out / SETTINGS), task=task, source=str(out / SETTINGS))
    plain = Config()
    gentle = replace(
        began,
        epochs=max(LEAST_EPOCHS, began.epochs // SHARE_OF_EPOCHS),
        learning_rate=began.learning_rate / SHARE_OF_LEARNING_RATE,
        precision="float32",
        ensemble=plain.ensemble,
        distill=plain.distill,
        teacher_scale=plain.teacher_scale,
    )
    return make_config({**msgspec.to_builtins(gentle), **given}, task=task, source="command line")
