"""A run goes on with int8's rounding, in a folder of its own, and being killed changes nothing about where it ends."""

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tinysight_contract.errors import ConfigError, ConversionError, TrainError
from tinysight_converters.audit import float_tensors, operators
from tinysight_converters.run import Examples, load_examples
from tinysight_converters.tflite import Recipe, convert_model
from tinysight_converters.trial import try_model
from tinysight_trainer.config import to_toml
from tinysight_trainer.data.dataset import open_dataset

pytestmark = pytest.mark.usefixtures("warm_children")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def test_a_killed_and_resumed_fine_tuning_ends_with_the_same_weights_and_is_int8_throughout(
    world: Path, warm: Any, tmp_path: Path
) -> None:
    import keras

    from tinysight_trainer.qat import QAT

    for name in ("whole", "killed"):
        shutil.copytree(world / "detector", tmp_path / name)
    command = (
        "tinysight_deploy", "train", str(world / "belt"), "--qat", "--epochs", "3", "--batch", "8", "--quiet", "--out",
    )  # fmt: skip
    warm.run(*command, "whole", cwd=tmp_path).check_returncode()
    killed = warm.start(*command, "killed", cwd=tmp_path, said=tmp_path)
    history = tmp_path / "killed" / QAT / "history.csv"
    until_s = time.monotonic() + 120
    while not (history.exists() and history.read_text().count("\n") >= 2) and time.monotonic() < until_s:
        time.sleep(0.01)
    killed.kill()
    killed.join()
    assert not (tmp_path / "killed" / QAT / "model.keras").exists(), "it was killed too late to show anything"
    warm.run(*command, "killed", "--resume", cwd=tmp_path).check_returncode()
    one, two = (
        keras.models.load_model(tmp_path / name / QAT / "model.keras", compile=False, safe_mode=True).get_weights()
        for name in ("whole", "killed")
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    for name in ("whole", "killed"):
        assert digests(tmp_path / name) == digests(world / "detector"), "the run itself stays what it is"
    assert {path.name for path in (tmp_path / "whole" / QAT).iterdir()} == {
        "checkpoint.npz", "config.toml", "curves.png", "history.csv", "model.keras", "tensorboard",
    }  # fmt: skip
    pictures = np.zeros((1, 96, 128, 3), np.uint8)
    recipe = Recipe(scheme="int8-qat")
    (content,) = convert_model(tmp_path / "whole" / QAT / "model.keras", pictures, [recipe]).files
    trial = try_model(content).loaded()
    assert float_tensors(trial) == []
    assert operators(trial)["CONV_2D"] > 5


def test_fine_tuning_is_shorter_and_gentler_and_keeps_all_other_settings(world: Path, tmp_path: Path) -> None:
    from msgspec.structs import replace

    from tinysight_trainer.config import make_config, read_toml
    from tinysight_trainer.qat import settings_of

    began = make_config(read_toml(world / "classifier" / "config.toml"), task="classify", source="test")
    long = replace(began, epochs=24, mixup=0.3, ensemble=2, distill=True, teacher_scale=2.0)
    (tmp_path / "config.toml").write_bytes(to_toml(long))
    gentle = settings_of(tmp_path, {}, task="classify")
    wanted = replace(began, epochs=6, learning_rate=2e-4, mixup=0.3, precision="float32")
    assert gentle == wanted
    assert settings_of(world / "classifier", {}, task="classify").epochs == 2
    given = {"epochs": 9, "learning_rate": 1e-3, "batch": 4, "seed": 77}
    assert settings_of(tmp_path, given, task="classify") == replace(wanted, **given)
    with pytest.raises(ConfigError, match="With --qat scale is what it was"):
        settings_of(tmp_path, {"epochs": 3, "scale": 2.0}, task="classify")


def fine_tuned(data: Path, out: Path, *, resume: bool = False) -> Any:
    from tinysight_trainer.loop import Progress
    from tinysight_trainer.qat import fine_tune

    return fine_tune(open_dataset(data), {"epochs": 1}, out, resume=resume, progress=Progress())


def test_only_a_finished_run_of_the_same_data_set_goes_on_and_is_not_overwritten(world: Path, tmp_path: Path) -> None:
    run = tmp_path / "r"
    with pytest.raises(ConversionError, match=r"There is no run .* Make one"):
        fine_tuned(world / "digits", run)
    shutil.copytree(world / "classifier", run)
    with pytest.raises(TrainError, match="was trained on another data set"):
        fine_tuned(world / "belt", run)
    with pytest.raises(TrainError, match="nothing to resume"):
        fine_tuned(world / "digits", run, resume=True)
    (run / "qat").mkdir()
    (run / "qat" / "config.toml").touch()
    with pytest.raises(TrainError, match=r"exists already.*removing"):
        fine_tuned(world / "digits", run)
    with pytest.raises(TrainError, match=r"other settings.*removing"):
        fine_tuned(world / "digits", run, resume=True)
    (run / "run.json").unlink()
    with pytest.raises(ConversionError, match="has not ended"):
        fine_tuned(world / "digits", run)


def test_other_pictures_to_calibrate_with_are_another_data_set(world: Path, tmp_path: Path) -> None:
    """Sessions decide who is on which side, and the data set's digest does not know them."""
    shutil.copytree(world / "classifier", tmp_path / "r")
    held = load_examples(tmp_path / "r")
    moved = Examples(calibration=held.calibration[1:], test=held.test)
    (tmp_path / "r" / "examples.json").write_bytes(msgspec.json.encode(moved))
    with pytest.raises(TrainError, match="another data set"):
        fine_tuned(world / "digits", tmp_path / "r")
