"""What a budget says, and how far down the ladder it leads."""

from typing import Any, cast

import pytest

from tinysight_contract.errors import ConfigError, ConversionError
from tinysight_converters.bench import Candidate
from tinysight_converters.budget import Budget, Figures, parse_budget
from tinysight_converters.ladder import Rung, climb


class Made:
    """As much of a candidate as the ladder looks at."""

    scheme = "int8"

    def __init__(self, name: str, drop_pt: float, kib: float, ms: float) -> None:
        self.name, self.figures = name, Figures(metric=0.9 - drop_pt / 100, drop_pt=drop_pt, kib=kib, ms=ms)


def rung(name: str, drop_pt: float = 0.0, kib: float = 100.0, ms: float = 1.0, **more: Any) -> Rung:
    return Rung(name, lambda: cast("Candidate", Made(name, drop_pt, kib, ms)), **more)


def test_a_budget_is_read_with_and_without_units() -> None:
    assert parse_budget("drop=0.5pt,kib=600,ms=2") == Budget(drop_pt=0.5, kib=600.0, ms=2.0)
    assert parse_budget(" ms=1.5ms , drop=1") == Budget(drop_pt=1.0, ms=1.5)


@pytest.mark.parametrize(
    "text", ["", "drop", "drop=", "drop=a", "drop=-1", "size=3", "kib=1,kib=2", "ms=nan", "ms=inf"]
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        parse_budget(text)


def test_each_limit_that_breaks_is_named() -> None:
    budget = Budget(drop_pt=0.5, kib=600, ms=2)
    assert budget.breaks(Figures(metric=0.9, drop_pt=0.5, kib=600, ms=2)) == []
    said = budget.breaks(Figures(metric=0.9, drop_pt=0.6, kib=700, ms=3))
    assert said == ["drop 0.60pt > 0.5pt", "700 KiB > 600 KiB", "3.00 ms > 2 ms"]


def test_the_first_step_that_holds_is_kept_and_no_more_are_made() -> None:
    def never() -> Candidate:
        raise AssertionError("not needed")

    kept, steps = climb([rung("a", 2), rung("b", 0.4), Rung("c", never)], Budget(drop_pt=0.5))
    assert cast("Any", kept).name == "b"
    assert [(step.name, step.holds) for step in steps] == [("a", False), ("b", True)]
    assert steps[1].bought_pt == pytest.approx(1.6)


def test_a_step_that_cannot_be_made_is_told_and_passed() -> None:
    def fails() -> Candidate:
        raise ConversionError("No such layer.", mend="Add it.")

    kept, steps = climb([rung("a", 2), Rung("b", fails), rung("c", 0)], Budget(drop_pt=1))
    assert cast("Any", kept).name == "c"
    assert steps[1].said == "cannot be made: No such layer."


def test_when_only_size_fails_nothing_more_is_tried() -> None:
    kept, steps = climb([rung("a", 0, kib=900), rung("b"), rung("c", slow=True)], Budget(drop_pt=1, kib=600))
    assert kept is None
    assert [step.figures is None for step in steps] == [False, True, True]
    assert all("not tried" in step.said for step in steps[1:])


def test_when_drop_and_size_fail_only_the_slow_steps_are_spared() -> None:
    kept, steps = climb([rung("a", 2, kib=900), rung("b", 1, kib=950), rung("c", slow=True)], Budget(drop_pt=0, kib=1))
    assert kept is None
    assert [step.figures is None for step in steps] == [False, False, True]
    assert steps[1].bought_pt == pytest.approx(1.0)
    assert "no step makes it smaller" in steps[2].said


def test_what_is_too_large_for_its_floats_does_not_stop_the_training_for_int8() -> None:
    rungs = [rung("a", 2, kib=500), rung("b", 0, kib=700), rung("c", 0.5, kib=500, slow=True)]
    kept, _ = climb(rungs, Budget(drop_pt=1, kib=600))
    assert cast("Any", kept).name == "c"


def test_layers_asked_for_in_float_do_not_stop_the_ladder_by_their_size() -> None:
    mixed = cast("Any", Made("mixed", 0, 900, 1))
    mixed.scheme = "int8-mixed"
    kept, steps = climb([Rung("mixed", lambda: mixed), rung("c", 0, kib=500, slow=True)], Budget(drop_pt=1, kib=600))
    assert cast("Any", kept).name == "c"
    assert len(steps) == 2
