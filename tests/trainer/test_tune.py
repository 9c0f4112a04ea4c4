"""A search for settings survives being killed, keeps to what it began with, and never looks at the test pictures."""

import csv
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tinysight_contract.errors import DataError, TrainError
from tinysight_converters.run import load_examples, load_run
from tinysight_edge.belt import _digits, digit_indices
from tinysight_trainer.config import make_config, read_toml
from tinysight_trainer.data.dataset import Dataset, open_dataset
from tinysight_trainer.data.item import Item, Shown, Split
from tinysight_trainer.search import part, read_space

pytestmark = pytest.mark.slow

TOML = """
epochs = 4
input = "16x16"
batch = 16
seed = 3
[search]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
scale = [0.5, 1.0]
"""
TRIALS = 3


def make_data(root: Path) -> Dataset:
    """Threes and sevens, 28x28; the files of the test split are not there."""
    pictures, labels = _digits()
    items = []
    counts: dict[Split, int] = {"train": 64, "calibration": 24, "test": 8}
    (root / "images").mkdir(parents=True)
    for split, count in counts.items():
        for index in [each for each in digit_indices(split) if labels[each] in {3, 7}][:count]:
            larger = cv2.resize(pictures[index] * 15, (28, 28), interpolation=cv2.INTER_LINEAR)
            raw = cv2.imencode(".png", larger)[1].tobytes()
            name = f"{split}-{index}.png"
            if split != "test":
                (root / "images" / name).write_bytes(raw)
            shown = (Shown(label=str(labels[index])),)
            sha256 = hashlib.sha256(raw).hexdigest()
            items.append(Item(name=name, sha256=sha256, width=28, height=28, split=split, shown=shown))
    data = Dataset(root, (), None).with_items(items)
    data.save()
    return data


def rows(study: Path) -> list[dict[str, str]]:
    with (study / "trials.csv").open(newline="") as source:
        return list(csv.DictReader(source))


def tried(
    given: dict[str, Any], folder: Path, *, toml: str = TOML, data: Dataset | None = None, trials: int = 1
) -> Any:
    """Search in this process."""
    from tinysight_trainer.loop import Progress
    from tinysight_trainer.tune import tune

    (folder.parent / "now.toml").write_text(toml)
    fixed, table = part(read_toml(folder.parent / "now.toml"), given)
    held = data or open_dataset(folder.parent / "data")
    space = read_space(table, fixed, task="classify", source="now.toml")
    return tune(held, fixed, space, folder, trials=trials, time_s=None, progress=Progress())


@pytest.fixture(scope="module")
def killed(warm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data``, and ``study``: killed in the second trial, then gone on with; ``before`` is how it was in between."""
    root = tmp_path_factory.mktemp("tune")
    make_data(root / "data")
    (root / "s.toml").write_text(TOML)
    command = ["tinysight_deploy", "tune", str(root / "data"), "--out", str(root / "study")]
    command += ["--config", str(root / "s.toml"), "--trials", str(TRIALS), "--json"]
    first = warm.start(*command, "--quiet", cwd=root, said=root)
    history = root / "study" / "trial-0001" / "history.csv"
    until_s = time.monotonic() + 120
    while not history.exists() and first.is_alive() and time.monotonic() < until_s:
        time.sleep(0.01)
    first.kill()
    first.join()
    assert history.exists(), (root / "err").read_text()
    shutil.copytree(root / "study", root / "before")
    with (root / "study" / "journal.log").open("ab") as journal:
        journal.write(b'{"op_code":6,"worker_id":')  # as a power cut would leave it
    done = warm.run(*command, cwd=root)
    assert done.returncode == 0, done.stderr.decode()
    (root / "result.json").write_bytes(done.stdout)
    (root / "said.txt").write_bytes(done.stderr)
    return root


def test_a_killed_study_goes_on_where_it_was(killed: Path) -> None:
    before, after = rows(killed / "before"), rows(killed / "study")
    assert [row["trial"] for row in before] == ["0"]
    assert [row["trial"] for row in after] == [str(number) for number in range(TRIALS)]
    assert {**after[0], "front": ""} == {**before[0], "front": ""}
    assert {path.name for path in (killed / "study").glob("trial-*")} == {f"trial-000{n}" for n in range(TRIALS)}


def test_the_trial_that_was_running_goes_on_from_its_checkpoint(killed: Path) -> None:
    before, after = (killed / each / "trial-0001" for each in ("before", "study"))
    assert (after / "config.toml").read_bytes() == (before / "config.toml").read_bytes()
    learned = [line for line in (before / "history.csv").read_text().splitlines() if line]
    assert len(learned) >= 2
    assert (after / "history.csv").read_text().splitlines()[: len(learned)] == learned, "it began anew"
    assert rows(killed / "study")[1]["epochs"] == "4"


def test_the_first_trial_is_of_the_usual_settings(killed: Path) -> None:
    first = rows(killed / "study")[0]
    assert (float(first["learning_rate"]), float(first["scale"])) == (2e-3, 1.0)


def test_an_architecture_is_measured_once(killed: Path) -> None:
    costs = json.loads((killed / "study" / "study.json").read_bytes())["costs"]
    scales = {float(row["scale"]) for row in rows(killed / "study")}
    assert set(costs) == {f"small 16x16 RGB scale {scale:g}" for scale in scales}
    for row in rows(killed / "study"):
        cost = costs[f"small 16x16 RGB scale {float(row['scale']):g}"]
        assert (float(row["int8_ms"]), float(row["int8_kib"])) == pytest.approx((cost["int8_ms"], cost["int8_kib"]))


def test_the_result_says_which_trial_is_best_and_the_table_is_for_people(killed: Path) -> None:
    result = json.loads((killed / "result.json").read_text())
    best = rows(killed / "study")[result["best"]]
    assert result["trials"] == TRIALS
    assert (
        float(best["accuracy"])
        == pytest.approx(result["accuracy"])
        == max(float(row["accuracy"]) for row in rows(killed / "study"))
    )
    assert [row["trial"] for row in rows(killed / "study") if row["front"] == "1"] == [str(n) for n in result["front"]]
    said = (killed / "said.txt").read_text()
    assert f"Trial   {TRIALS - 1}: accuracy" in said
    assert "int8 KiB" in said


def test_the_settings_found_can_be_trained_with(killed: Path) -> None:
    result = json.loads((killed / "result.json").read_text())
    found = make_config(read_toml(Path(result["settings"])), task="classify", source="tuned.toml")
    best = rows(killed / "study")[result["best"]]
    assert (found.learning_rate, found.scale) == pytest.approx((float(best["learning_rate"]), float(best["scale"])))
    assert (found.epochs, found.input, found.seed) == (4, "16x16", 3)


def test_there_is_a_picture_and_a_trial_is_a_run_that_can_be_converted(killed: Path) -> None:
    assert np.asarray(cv2.imread(str(killed / "study" / "pareto.png"))).std() > 5
    run = load_run(killed / "study" / "trial-0000")
    assert (run.labels, run.config["scale"]) == (["3", "7"], 1.0)
    assert len(load_examples(killed / "study" / "trial-0000").test) == 8
    assert not list((killed / "study").glob("trial-*/checkpoint.npz")), "what has ended needs none"


def test_a_study_that_has_all_its_trials_trains_no_more(killed: Path) -> None:
    before = (killed / "study" / "trials.csv").read_bytes()
    points = tried({}, killed / "study", trials=2)
    assert len(points) == TRIALS
    assert (killed / "study" / "trials.csv").read_bytes() == before


@pytest.mark.parametrize(("given", "toml", "words"), [
    pytest.param({"epochs": 5}, TOML, "began with other settings", id="settings"),
    pytest.param({}, TOML.replace("1e-2", "2e-2"), r"began with another \[search\]", id="space"),
    pytest.param({"scale": 1.0}, TOML, "began with", id="a flag takes out what was searched"),
])  # fmt: skip
def test_a_study_goes_on_only_as_it_began(killed: Path, given: dict[str, Any], toml: str, words: str) -> None:
    with pytest.raises(TrainError, match=words) as refused:
        tried(given, killed / "study", toml=toml)
    assert "another --out" in refused.value.mend


def test_a_study_goes_on_only_with_its_data(killed: Path) -> None:
    data = open_dataset(killed / "data")
    fewer = data.with_items(data.items[1:])
    with pytest.raises(TrainError, match="another data set"):
        tried({}, killed / "study", data=fewer)


def test_two_searches_do_not_share_a_folder(killed: Path) -> None:
    from tinysight_trainer.study import taken

    with taken(killed / "study"), pytest.raises(TrainError, match="Another search is at work"):
        tried({}, killed / "study")
    with pytest.raises(TrainError, match="is no study"):
        tried({}, killed / "data")


def test_another_trials_folder_is_not_gone_on_with(tmp_path: Path) -> None:
    from tinysight_trainer.study import begin_trial

    usual = make_config({"input": "16x16"}, task="classify", source="test")
    begin_trial(tmp_path / "trial-0000", usual)
    begin_trial(tmp_path / "trial-0000", usual)
    with pytest.raises(TrainError, match="of another trial"):
        begin_trial(tmp_path / "trial-0000", make_config({"input": "20x20"}, task="classify", source="test"))


def test_data_that_cannot_be_trained_on_is_refused_before_anything_is_written(killed: Path, tmp_path: Path) -> None:
    data = open_dataset(killed / "data")
    untested = data.with_items(item for item in data.items if item.split != "test")
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match="no images for test"):
        tried({}, tmp_path / "x" / "study", data=untested)
    assert not (tmp_path / "x" / "study").exists()


def test_a_trial_that_falls_behind_is_given_up_and_a_loss_that_explodes_ends_only_its_trial(
    killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinysight_trainer import tune as module

    asked = iter([False, True])

    def fit(*_args: Any, what: str, progress: Any, **_more: Any) -> Any:
        if what != "trial 2":
            progress.epoch({"epoch": 1.0, "val_loss": 1.0})
        raise TrainError(f"The loss of {what} is nan.", mend="Lower --learning-rate.")

    monkeypatch.setattr(module, "fit", fit)
    monkeypatch.setattr(module, "falls_behind", lambda *_: next(asked))
    with pytest.raises(TrainError, match=r"Not one trial finished. The last: The loss of trial 2 is nan\."):
        tried({}, tmp_path / "study", data=open_dataset(killed / "data"), trials=3)
    assert [(row["state"], row["why"]) for row in rows(tmp_path / "study")] == [
        ("pruned", "The loss of trial 0 is nan"),
        ("pruned", "its loss fell behind"),
        ("pruned", "The loss of trial 2 is nan"),
    ]


def test_a_draw_that_fits_nothing_is_given_up_and_the_study_goes_on(
    killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinysight_trainer import tune as module

    def fit(*_args: Any, **_more: Any) -> Any:
        raise TrainError("It began.", mend="")

    monkeypatch.setattr(module, "fit", fit)
    toml = 'epochs = 1\ninput = "16x16"\n[search]\nmixup = [0.9, 0.0]\ncutmix = [0.9, 0.0]\n'
    with pytest.raises(TrainError, match="Not one trial finished"):
        tried({}, tmp_path / "study", toml=toml, data=open_dataset(killed / "data"), trials=9)
    for row in rows(tmp_path / "study"):
        fits = float(row["mixup"]) + float(row["cutmix"]) <= 1
        assert row["why"] == (
            "It began" if fits else f"trial {row['trial']}: mixup and cutmix are more than 1 together"
        )
    assert len({row["why"][:3] for row in rows(tmp_path / "study")}) == 2


def test_a_trial_that_takes_the_process_down_is_given_up_in_the_end(tmp_path: Path) -> None:
    from tinysight_trainer.study import count_start

    for epochs in (0, 0, 0, 1, 1, 1):
        count_start(tmp_path, epochs)
    with pytest.raises(TrainError, match="killed 3 times"):
        count_start(tmp_path, 1)
    (tmp_path / "starts.json").write_bytes(b"[1")
    count_start(tmp_path, 1)


def test_the_command_answers_a_typo_before_it_loads_tensorflow(tinysight: Any, killed: Path, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[search]\nlearning_rat = [0.1, 0.2]\n")
    for arguments, words in (
        (["--config", "s.toml"], "Did you mean 'learning_rate'?"),
        (["--time", "30"], "such as 90s, 30m or 2h"),
    ):
        done = tinysight("tune", killed / "data", "--out", "study", *arguments)
        assert done.returncode == 2
        assert words in done.stderr
        assert not (tmp_path / "study").exists()
