"""What a search may try is checked before anything is trained, and a typo is answered."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tinysight_contract.errors import ConfigError
from tinysight_trainer.config import Config, make_config, read_toml
from tinysight_trainer.search import Choice, Range, default_space, draw, parse_time, part, plain, read_space
from tinysight_trainer.trials import Point, best_of, comparable, csv_of, falls_behind, with_front


def read(table: Any, task: str = "detect", **fixed: Any) -> dict[str, Any]:
    return read_space(table, fixed, task=task, source="s.toml")


@pytest.mark.parametrize(("name", "entry", "wanted"), [
    ("learning_rate", {"low": 5e-4, "high": 8e-3, "log": True}, Range(low=5e-4, high=8e-3, log=True)),
    ("batch", {"low": 8, "high": 64, "step": 8}, Range(low=8, high=64, step=8, whole=True)),
    ("epochs", {"low": 1, "high": 3}, Range(low=1, high=3, step=1, whole=True)),
    ("batch", {"low": 8, "high": 64, "log": True}, Range(low=8, high=64, log=True, whole=True)),
    ("zoom", {"low": 0, "high": 0.3, "step": 0.1}, Range(low=0, high=0.3, step=0.1)),
    ("scale", [0.5, 1], Choice(values=(0.5, 1.0))),
    ("input", ["96x64", "128x96"], Choice(values=("96x64", "128x96"))),
    ("freeze", [True, False], Choice(values=(True, False))),
])  # fmt: skip
def test_what_may_be_searched(name: str, entry: Any, wanted: Range | Choice) -> None:
    fixed = {"model": "lite0", "input": "96x64"} if name == "freeze" else {}
    assert read({name: entry}, **fixed) == {name: wanted}


@pytest.mark.parametrize(("table", "fixed", "words"), [
    pytest.param({"learning_rat": [1e-3]}, {}, "'learning_rat'. Did you mean 'learning_rate'?", id="typo"),
    pytest.param({"zoom": [0.1]}, {"epoch": 3}, "Did you mean 'epochs'?", id="typo in a fixed setting"),
    pytest.param(7, {}, "is no table", id="no table"),
    pytest.param({}, {}, "nothing to search for", id="empty"),
    pytest.param({"zoom": 0.1}, {}, "zoom is one value", id="one value"),
    pytest.param({"zoom": []}, {}, "no usable list", id="empty list"),
    pytest.param({"zoom": [0.1, 0.1]}, {}, "no usable list", id="doubled"),
    pytest.param({"zoom": [[0.1]]}, {}, "Expected `float`, got `array`", id="a list in a list"),
    pytest.param({"zoom": {"low": 0.1}}, {}, "missing required field `high`", id="no upper end"),
    pytest.param({"zoom": {"low": 0.1, "high": 0.2, "lgo": True}}, {}, "unknown field `lgo`", id="typo in a range"),
    pytest.param({"zoom": {"low": 0.3, "high": 0.2}}, {}, "low is not below high", id="the wrong way round"),
    pytest.param({"zoom": {"low": 0.1, "high": math.inf}}, {}, "has no end", id="no end"),
    pytest.param({"zoom": {"low": 0.1, "high": 0.95}}, {}, "Expected `float` <= 0.9", id="above what is possible"),
    pytest.param({"zoom": {"low": -0.1, "high": 0.5}}, {}, "Expected `float` >= 0.0", id="below what is possible"),
    pytest.param({"batch": {"low": 8.5, "high": 64}}, {}, "Expected `int`, got `float`", id="half a picture"),
    pytest.param({"batch": {"low": 8, "high": 64, "step": 5}}, {}, "steps of 5 do not lead from 8 to 64", id="step"),
    pytest.param({"batch": {"low": 8, "high": 9, "step": 0.5}}, {}, "steps of 0.5", id="half a step"),
    pytest.param({"zoom": {"low": 0.0, "high": 0.5, "step": 0}}, {}, "steps of 0", id="no step"),
    pytest.param({"zoom": {"low": 0.0, "high": 0.5, "log": True}}, {}, "log needs low above 0", id="log of zero"),
    pytest.param({"input": {"low": 1, "high": 2}}, {}, "input is no number", id="a range of words"),
    pytest.param({"freeze": {"low": 0, "high": 1}}, {}, "freeze is no number", id="a range of yes and no"),
    pytest.param({"input": ["96x64", "97x64"]}, {}, "--input 97x64 does not fit", id="a size that does not fit"),
    pytest.param({"input": ["80x64"], "model": ["small", "lite0"]}, {}, "80x64 does not fit", id="not every model"),
    pytest.param({"model": ["small", "lite0"]}, {"color": "GRAY"}, "lite0 sees colours", id="against a fixed setting"),
    pytest.param({"ensemble": [0, 3]}, {}, "trains no teachers", id="teachers"),
    pytest.param({"zoom": [0.1]}, {"ensemble": 3}, "trains no teachers", id="fixed teachers"),
])  # fmt: skip
def test_what_may_not_be_searched(table: Any, fixed: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(table, **fixed)
    assert words in str(refused.value)
    assert refused.value.mend


def test_a_flag_beats_the_search_and_the_search_beats_the_file() -> None:
    file = {"epochs": 3, "zoom": 0.1, "search": {"zoom": [0.1, 0.2], "scale": [0.5, 1.0]}}
    assert part(file, {"scale": 0.75}) == ({"epochs": 3, "scale": 0.75}, {"zoom": [0.1, 0.2]})
    assert part({"epochs": 3}, {"epochs": 4}) == ({"epochs": 4}, None)


@pytest.mark.parametrize(("task", "model"), [
    ("detect", "small"), ("detect", "medium"), ("detect", "lite0"), ("classify", "small"), ("classify", "lite0"),
])  # fmt: skip
def test_without_a_table_the_usual_settings_lie_inside_what_is_searched(task: str, model: str) -> None:
    fixed = {"model": model, "zoom": 0.2}
    space = default_space(fixed, task=task, source="flags")
    assert "zoom" not in space
    assert ("scale" in space) == (model != "lite0")
    usual = make_config(fixed, task=task, source="flags")
    assert set(plain(space, usual)) == set(space)


def test_with_everything_fixed_there_is_nothing_to_search_for() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        default_space(msgspec.to_builtins(Config(input="64x64")), task="detect", source="tuned.toml")


class Ends:
    """Draws the upper ends."""

    def suggest_float(self, _name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        assert low < high
        assert not (step and log)
        return high

    def suggest_int(self, _name: str, low: int, high: int, *, step: int, log: bool) -> int:
        assert low < high
        assert not (step > 1 and log)
        return high

    def suggest_categorical(self, _name: str, choices: Sequence[Any]) -> Any:
        return choices[-1]


def test_what_is_drawn_is_a_setting_of_the_right_kind(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        "[search]\nbatch = { low = 8, high = 64, step = 8 }\nzoom = { low = 0, high = 0.5 }\ncolor = ['RGB', 'GRAY']\n"
    )
    fixed, table = part(read_toml(tmp_path / "s.toml"), {})
    drawn = draw(read_space(table, fixed, task="detect", source="s.toml"), Ends())
    assert drawn == {"batch": 64, "color": "GRAY", "zoom": 0.5}
    assert isinstance(drawn["batch"], int)
    make_config(drawn, task="detect", source="drawn")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("30m", 1800.0), ("1.5h", 5400.0)])
def test_a_time_has_a_unit(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["30", "", "m", "0m", "-3m", "nans", "infh", "3d", "3 min"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="30m"):
        parse_time(text)


def point(number: int, accuracy: float, ms: float, kib: float, **more: Any) -> Point:
    made = {"state": "finished", "config": Config(input="64x64"), "drawn": ("zoom",), **more}
    return Point(number=number, accuracy=accuracy, int8_ms=ms, int8_kib=kib, **made)


def test_the_front_is_what_no_other_trial_beats() -> None:
    held = [
        point(0, 0.9, 2.0, 50),
        point(1, 0.8, 1.0, 50),
        point(2, 0.7, 1.5, 60),  # beaten by 1
        point(3, 0.7, 2.0, 20),  # slow and bad, but small
        point(4, 0.9, 2.0, 50),  # the same as 0
        point(5, math.nan, math.nan, math.nan, state="pruned"),
    ]
    assert [each.number for each in with_front(held) if each.front] == [0, 1, 3]
    best = best_of([*reversed(held)])
    assert best is not None
    assert best.number == 0
    assert best_of(held[5:]) is None


@pytest.mark.parametrize(("loss", "epoch", "peers", "behind"), [
    pytest.param(2.0, 3, 4, True, id="worse than the median"),
    pytest.param(1.0, 3, 4, False, id="as good as the median"),
    pytest.param(2.0, 3, 3, False, id="too few to compare with"),
    pytest.param(2.0, 2, 4, False, id="too early"),
    pytest.param(2.0, 9, 4, False, id="after the last epoch"),
    pytest.param(math.nan, 3, 4, True, id="no number"),
])  # fmt: skip
def test_when_a_trial_is_given_up(loss: float, epoch: int, peers: int, behind: bool) -> None:
    short = [[0.1, 0.1]] * 9  # never got as far as epoch 3
    assert falls_behind(loss, epoch, 9, [[1.0] * 9] * peers + (short if epoch > 2 else [])) is behind


@pytest.mark.parametrize(("changes", "fair"), [
    ({}, True), ({"zoom": 0.0, "learning_rate": 1e-4}, True), ({"scale": 0.5}, True), ({"scale": 1.5}, False),
    ({"input": "96x96"}, False), ({"smoothing": 0.1}, False), ({"model": "medium"}, False), ({"epochs": 5}, False),
])  # fmt: skip
def test_a_model_is_measured_by_its_like_and_by_smaller_ones(changes: dict[str, Any], fair: bool) -> None:
    usual = Config(input="64x64")
    assert comparable(usual, msgspec.structs.replace(usual, **changes)) is fair


def test_the_table_of_trials_has_a_row_for_each_and_says_why_one_was_given_up() -> None:
    rows = csv_of([point(0, 0.5, 1, 2), point(1, math.nan, math.nan, math.nan, why="too slow, too bad")], measure="ap")
    assert rows.decode().splitlines() == [
        "trial,state,front,ap,int8_ms,int8_kib,epochs,seconds,zoom,why",
        "0,finished,0,0.5,1,2,0,0.0,0.25,",
        '1,finished,0,,,,0,0.0,0.25,"too slow, too bad"',
    ]
