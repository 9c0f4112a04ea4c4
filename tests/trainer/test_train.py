"""A training leaves a whole run folder, and being killed changes nothing about where it ends."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinysight_contract.errors import DataError, TrainError
from tinysight_converters.run import load_run
from tinysight_trainer.config import Config, make_config, read_toml
from tinysight_trainer.data.dataset import IMAGES, Dataset, open_dataset

SMALL = (
    "--epochs",
    "3",
    "--scale",
    "0.5",
    "--batch",
    "16",
    "--seed",
    "9",
    "--ema",
    "0.9",
    "--patience",
    "9",
    "--quiet",
)


def weights(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "checkpoint.npz", allow_pickle=False) as held:
        return {name: held[name] for name in held.files if name != "about"}


def saved_weights(model: Path) -> list[np.ndarray]:
    import keras

    held: list[np.ndarray] = keras.models.load_model(model, compile=False).get_weights()
    return held


def test_the_run_folder_is_whole_and_says_where_it_comes_from(world: Path) -> None:
    folder = world / "detector"
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint.npz", "config.toml", "curves.png", "examples.json", "history.csv", "model.keras", "run.json",
        "tensorboard",
    }  # fmt: skip
    run = load_run(folder)
    data = open_dataset(world / "belt")
    assert (run.task, run.labels, run.stride, run.seed) == ("detect", list("0123456789"), 8, 5)
    assert run.dataset_digest == data.digest
    assert run.config["epochs"] == 2
    assert {"tensorflow", "keras", "python", "tinysight"} <= set(run.tools)
    assert (folder / "history.csv").read_text().count("\n") == 3
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    again = make_config(read_toml(folder / "config.toml"), task="detect", source="config.toml")
    assert (again.epochs, again.scale, again.seed) == (2, 0.5, 5)


def told_tensorboard(run: Path) -> set[tuple[str, int]]:
    import tensorflow as tf

    events = [
        tf.compat.v1.Event.FromString(raw.numpy())
        for log in (run / "tensorboard").iterdir()
        for raw in tf.data.TFRecordDataset(str(log))
    ]
    return {(value.tag, event.step) for event in events for value in event.summary.value}


def test_tensorboard_can_read_the_log(world: Path) -> None:
    assert {("loss", 1), ("val_loss", 2)} <= told_tensorboard(world / "detector")


@pytest.fixture(scope="module")
def whole(world: Path, warm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a small training that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    warm.run("tinysight_deploy", "train", str(world / "belt"), *SMALL, "--out", "run", cwd=folder).check_returncode()
    return folder / "run"


def test_a_training_killed_and_resumed_ends_with_the_same_weights(
    world: Path, whole: Path, warm: Any, tmp_path: Path
) -> None:
    command = ("tinysight_deploy", "train", str(world / "belt"), *SMALL, "--out", "killed")
    killed = warm.start(*command, cwd=tmp_path, said=tmp_path)
    history = tmp_path / "killed" / "history.csv"
    until_s = time.monotonic() + 120
    while not (history.exists() and history.read_text().count("\n") >= 2) and time.monotonic() < until_s:
        time.sleep(0.01)
    killed.kill()
    killed.join()
    assert not (tmp_path / "killed" / "run.json").exists(), "it was killed too late to show anything"
    warm.run(*command, "--resume", cwd=tmp_path).check_returncode()
    undisturbed, resumed = weights(whole), weights(tmp_path / "killed")
    assert undisturbed.keys() == resumed.keys()
    for name in undisturbed:
        assert np.array_equal(undisturbed[name], resumed[name]), name
    one, two = (saved_weights(run / "model.keras") for run in (whole, tmp_path / "killed"))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert {step for _, step in told_tensorboard(tmp_path / "killed")} >= {1, 2, 3}


def config(**changes: Any) -> Config:
    given = {"input": "32x32", "epochs": 1, "batch": 8, "scale": 0.5, **changes}
    return make_config(given, task=given.pop("task", "detect"), source="test")


def trained(data: Path, out: Path, given: Config, *, resume: bool = False) -> Any:
    return train_on(open_dataset(data), out, given, resume=resume)


def train_on(data: Dataset, out: Path, given: Config, *, resume: bool = False) -> Any:
    from tinysight_trainer.train import Progress, train

    return train(data, given, out, resume=resume, progress=Progress())


def test_a_run_is_never_overwritten_and_resumes_only_as_it_began(world: Path) -> None:
    with pytest.raises(TrainError, match="exists already"):
        trained(world / "belt", world / "detector", config())
    with pytest.raises(TrainError, match="other settings"):
        trained(world / "belt", world / "detector", config(), resume=True)


def test_a_resumed_training_learns_from_the_pictures_it_began_with(world: Path, tmp_path: Path) -> None:
    from msgspec.structs import replace

    data = open_dataset(world / "digits")
    data = data.with_items(replace(item, split=item.split and "train") for item in data.items[:200])
    data = data.with_items(replace(item, split="test" if at < 20 else "train") for at, item in enumerate(data.items))
    train_on(data, tmp_path / "r", config(task="classify"))
    (tmp_path / "r" / "run.json").unlink()
    grouped = data.with_items(replace(item, session=f"s{at % 9}") for at, item in enumerate(data.items))
    assert grouped.digest == data.digest
    with pytest.raises(TrainError, match="another data set"):
        train_on(grouped, tmp_path / "r", config(task="classify"), resume=True)


def test_two_trainings_do_not_share_a_folder(world: Path, tmp_path: Path) -> None:
    from tinysight_contract.files import locked

    with locked(tmp_path, RuntimeError()), pytest.raises(TrainError, match="Another training"):
        trained(world / "digits", tmp_path, config(task="classify"))


def test_a_training_does_not_go_on_in_another_precision(world: Path, tmp_path: Path) -> None:
    import keras

    trained(world / "digits", tmp_path / "r", config(task="classify"))
    from tinysight_trainer.loop import Loop
    from tinysight_trainer.models import build_model

    given = config(task="classify")
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        loop = Loop(build_model(given, 10), given, None, 10, steps_per_epoch=1)
        with pytest.raises(TrainError, match="was begun in float32, here it would go on in mixed_bfloat16"):
            loop.restore(tmp_path / "r")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    with pytest.raises(TrainError, match="does not fit the model"):
        Loop(build_model(given, 9), given, None, 9, steps_per_epoch=1).restore(tmp_path / "r")


def test_too_little_memory_is_an_error_with_its_mend(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from tinysight_trainer import loop

    def full(*_: Any) -> Any:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(loop.Loop, "epoch", full)
    with pytest.raises(TrainError, match="more memory than there is"):
        trained(world / "digits", tmp_path / "r", config(task="classify"))


def test_there_must_be_something_to_resume_and_it_must_be_whole(world: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nothing to resume"):
        trained(world / "belt", tmp_path / "none", config(), resume=True)
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(TrainError, match="damaged"):
        trained(world / "belt", tmp_path, config(), resume=True)


def test_a_training_killed_before_its_first_checkpoint_can_be_resumed(world: Path, tmp_path: Path) -> None:
    from tinysight_trainer.config import to_toml

    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "config.toml").write_bytes(to_toml(config()))
    assert trained(world / "belt", tmp_path / "r", config(), resume=True).task == "detect"


def test_a_loss_that_is_no_longer_finite_names_the_step_and_its_pictures(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinysight_trainer import loop
    from tinysight_trainer.losses import detector_loss

    def spoiled(*given: Any) -> dict[str, Any]:
        return {name: value * np.nan for name, value in detector_loss(*given).items()}

    monkeypatch.setattr(loop, "detector_loss", spoiled)
    with pytest.raises(TrainError, match=r"nan in epoch 1, step 1 \(batch of 8: images/train/\d+\.jpg, "):
        trained(world / "belt", tmp_path / "r", config())


def test_a_picture_that_changed_since_the_import_is_named(world: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(world / "digits", tmp_path / "digits")
    data = open_dataset(tmp_path / "digits")
    victim = data.of("train")[0]
    (data.root / IMAGES / victim.name).write_bytes((data.root / IMAGES / data.of("train")[1].name).read_bytes())
    with pytest.raises(DataError, match="has changed"):
        trained(tmp_path / "digits", tmp_path / "r", config(task="classify"))


def test_a_full_disk_during_a_checkpoint_keeps_the_last_one_and_can_be_resumed(
    world: Path, whole: Path, warm: Any, tmp_path: Path
) -> None:
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import tinysight_trainer.loop as loop, tinysight_trainer.fit\n"
        "save = loop.Loop.save\n"
        "def full(self, out, epoch, history, digest):\n"
        "    if epoch == 2: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "    save(self, out, epoch, history, digest)\n"
        "loop.Loop.save = full\n"
        "from tinysight_deploy.cli import _run\n"
        "sys.exit(_run(sys.argv[1:]))\n"
    )
    full = ("train", str(world / "belt"), *SMALL, "--out", str(tmp_path / "full"))
    done = subprocess.run(
        [sys.executable, "-c", program, *full],
        env={**os.environ, **warm.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "free space" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "full").glob(".*part*"))
    warm.run("tinysight_deploy", *full, "--resume", cwd=tmp_path).check_returncode()
    undisturbed, resumed = weights(whole), weights(tmp_path / "full")
    assert all(np.array_equal(undisturbed[name], resumed[name]) for name in undisturbed)


def test_patience_ends_a_training_and_keeps_the_best_weights(world: Path, tmp_path: Path) -> None:
    from tinysight_trainer.loop import Loop
    from tinysight_trainer.pictures import load_pictures
    from tinysight_trainer.train import sides_of

    given = config(task="classify", epochs=40, patience=2, learning_rate=1.0)  # so high that it soon gets worse
    run = trained(world / "digits", tmp_path / "r", given)
    rows = [line.split(",") for line in (tmp_path / "r" / "history.csv").read_text().splitlines()]
    losses = [float(row[rows[0].index("val_loss")]) for row in rows[1:]]
    assert len(losses) == run.figures["epochs"] == losses.index(min(losses)) + 3 < 40
    data = open_dataset(world / "digits")
    held = load_pictures(sides_of(data).validation, data.root, run.input)

    def loss_of_saved() -> float:
        import keras

        model = keras.models.load_model(tmp_path / "r" / "model.keras", compile=False)
        return float(Loop(model, given, None, 10, steps_per_epoch=1).evaluate(held)["val_loss"])

    assert loss_of_saved() == pytest.approx(min(losses), rel=1e-4) == pytest.approx(run.figures["val_loss"], rel=1e-4)
    for name in ("run.json", "model.keras"):  # killed after its last epoch
        (tmp_path / "r" / name).unlink()
    assert trained(world / "digits", tmp_path / "r", given, resume=True).figures["epochs"] == run.figures["epochs"]
    assert loss_of_saved() == pytest.approx(min(losses), rel=1e-4)


def test_weights_follow_from_seed_and_content_and_not_from_names(world: Path, tmp_path: Path) -> None:
    from tinysight_trainer.data.formats import WRITERS, read_source
    from tinysight_trainer.data.importer import import_pictures

    data = open_dataset(world / "digits")
    (tmp_path / "csv").mkdir()
    WRITERS["csv"](data, tmp_path / "csv")
    again = import_pictures(read_source(str(tmp_path / "csv"), "csv")[1], tmp_path / "again", source={})
    assert again.digest == data.digest
    assert [item.name for item in again.items] != [item.name for item in data.items]
    given = config(task="classify", mixup=0.3, cutmix=0.3, class_weights=True)
    for name, root in (("one", data.root), ("two", again.root)):
        trained(root, tmp_path / name, given)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_teachers_teach_and_all_are_compared(world: Path, tmp_path: Path, tinysight_warm: Any) -> None:
    command = [
        "train", world / "digits", "--out", "r", "--input", "16x16", "--epochs", "2", "--scale", "0.5",
        "--ensemble", "2", "--distill", "--quiet", "--json",
    ]  # fmt: skip
    done = tinysight_warm(*command)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    rows = json.loads((tmp_path / "r" / "combined.json").read_text())
    assert list(rows) == ["teacher-1", "teacher-2", "ensemble", "alone", "distilled"]
    assert rows["ensemble"]["params"] == 2 * rows["teacher-1"]["params"] > 2 * rows["alone"]["params"]
    assert rows["alone"]["params"] == rows["distilled"]["params"] == result["params"]
    assert result["distilled_accuracy"] == rows["distilled"]["accuracy"]
    assert tinysight_warm("evaluate", "r", "--report", "page.html", "--quiet").returncode == 0
    page = (tmp_path / "page.html").read_text()
    assert "Teachers and student" in page
    assert all(f"<td>{name}" in page for name in rows)
    (tmp_path / "r" / "run.json").unlink()  # killed while the last one was learning
    done = tinysight_warm(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r" / "combined.json").read_text()) == rows


def test_the_command_says_what_it_made(world: Path, tinysight: Any) -> None:
    done = tinysight(
        "train", world / "digits", "--task", "classify", "--out", "r", "--input", "32x32", "--epochs", "1", "--scale",
        "0.25", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["labels"] == 10
    assert "held out" in done.stderr


def test_a_file_of_settings_is_taken_and_a_flag_beats_it(world: Path, tmp_path: Path, tinysight_warm: Any) -> None:
    file = 'input = "16x16"\nepochs = 1\nscale = 0.25\nclass_weights = true\n[search]\nscale = [0.5]\n'
    (tmp_path / "my.toml").write_text(file)
    flags = ("--scale", "0.5", "--no-class-weights", "--quiet")
    done = tinysight_warm("train", world / "digits", "--out", "r", "--config", "my.toml", *flags)
    assert done.returncode == 0, done.stderr
    settings = load_run(tmp_path / "r").config
    assert (settings["input"], settings["scale"], settings["epochs"]) == ("16x16", 0.5, 1)
    assert settings["class_weights"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("none",), "There is no data set", id="no data set"),
        pytest.param((".",), "is no TinySight data set", id="empty folder"),
        pytest.param(("DIGITS", "--task", "detect"), "the data set is for 'classify'", id="another task"),
        pytest.param(("DIGITS", "--model", "huge"), "Invalid enum value 'huge'", id="unknown model"),
        pytest.param(("DIGITS", "--scale", "99"), "<= 4.0", id="value out of range"),
        pytest.param(("BELT", "--input", "100x100"), "multiples of 16", id="size that does not fit"),
        pytest.param(("BELT", "--input", "big"), "no size", id="size that is none"),
        pytest.param(("DIGITS", "--distill"), "needs teachers", id="nobody to learn from"),
        pytest.param(("DIGITS", "--mosaic", "0.5"), "only to detect", id="what does nothing here"),
        pytest.param(("BELT", "--class-weights"), "only to classify", id="nor here"),
        pytest.param(("BELT", "--freeze"), "only lite0", id="nothing to freeze"),
        pytest.param(("BELT", "--model", "lite0", "--scale", "2"), "comes in one size", id="nothing to scale"),
        pytest.param(("BELT", "--teacher-scale", "2"), "needs teachers", id="no teachers to scale"),
        pytest.param(("DIGITS", "--mixup", "0.7", "--cutmix", "0.7"), "more than 1", id="more than all pictures"),
        pytest.param(("DIGITS", "--config", "none.toml"), "cannot be read", id="no settings"),
        pytest.param(("DIGITS", "--config", "typo.toml"), "Did you mean 'epochs'?", id="typo in the settings"),
        pytest.param(("DIGITS", "--config", "broken.toml"), "no TOML", id="broken settings"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: tuple[str, ...], said: str, world: Path, tinysight: Any, tmp_path: Path
) -> None:
    (tmp_path / "typo.toml").write_text("epoch = 3\n")
    (tmp_path / "broken.toml").write_text("epochs = = 3\n")
    sets = {"DIGITS": str(world / "digits"), "BELT": str(world / "belt")}
    done = tinysight("train", *(sets.get(word, word) for word in arguments), "--out", "r")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "r").exists()
