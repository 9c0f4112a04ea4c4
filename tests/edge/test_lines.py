"""What crosses a line is counted once, in its direction, whatever the tracker's boxes and numbers do."""

import random
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.errors import ConfigError
from tinysight_edge.config.types import LineConfig, Point
from tinysight_edge.meaning.lines import Lines
from tinysight_edge.meaning.rows import feet_of, rows_of
from tinysight_edge.tracking.tracks import Tracks

Make = Callable[..., Tracks]
SIZE = 1024  # of the frame, a power of two, so that places on the grid are exact
DOWN = LineConfig(start=(0.5, 0.0), end=(0.5, 1.0))
UP = LineConfig(start=(0.5, 1.0), end=(0.5, 0.0))
place = st.tuples(st.integers(1, 63), st.integers(1, 63)).map(lambda at: (at[0] * 16.0, at[1] * 16.0))
ends = st.tuples(place, place).filter(lambda two: two[0] != two[1])


class Story:
    """Lines that are shown one frame after another."""

    def __init__(self, tracks: Make, lines: dict[str, LineConfig], labels: tuple[str, ...] = ("cat", "dog")) -> None:
        self.tracks, self.lines = tracks, Lines(lines, labels)
        self.last = Tracks.none()

    def show(self, feet: dict[int, tuple[float, float]], at_s: float, **more: object) -> None:
        now = self.tracks(feet, at_s, **more)
        gone = self.last.take(~np.isin(self.last.numbers, now.numbers))
        self.lines.end(gone, rows_of(gone.numbers, self.last.numbers))
        self.lines.move(rows_of(now.numbers, self.last.numbers), now, width=SIZE, height=SIZE)
        self.lines.see(now, feet_of(now.boxes_px, SIZE, SIZE), width=SIZE, height=SIZE)
        self.last = now

    def walk(self, *path: tuple[float, float]) -> dict[str, int]:
        for at, foot in enumerate(path):
            self.show({1: foot}, at)
        self.show({}, len(path))
        return self.lines.totals["gate"]


def side(start: Point, end: Point, point: Point) -> Fraction:
    (ax, ay), (bx, by), (px, py) = (tuple(map(Fraction, each)) for each in (start, end, point))
    return (bx - ax) * (py - ay) - (by - ay) * (px - ax)


def crossings(start: Point, end: Point, path: list[Point]) -> list[int]:
    """+1 for each step from the line's left to its right through it, -1 for each back, by exact arithmetic."""
    found = []
    for before, now in pairwise(path):
        was, is_ = side(start, end, before) >= 0, side(start, end, now) >= 0
        if was != is_ and side(before, now, start) * side(before, now, end) <= 0:
            found.append(1 if is_ else -1)
    return found


@given(ends, st.lists(place, min_size=1, max_size=30))
def test_in_minus_out_is_what_exact_arithmetic_says(tracks: Make, line: tuple[Point, Point], path: list[Point]) -> None:
    share = [(x / SIZE, y / SIZE) for x, y in line]
    totals = Story(tracks, {"gate": LineConfig(start=share[0], end=share[1])}).walk(*path)
    exact = crossings(*line, path)
    assert totals["in"] - totals["out"] == sum(exact)
    assert totals["in"] <= exact.count(1)
    assert totals["out"] <= exact.count(-1)


@given(st.lists(st.sampled_from([300.0, 400.0, 600.0, 700.0]), min_size=1, max_size=30))
def test_every_crossing_counts_when_the_object_moves_away_from_the_line(tracks: Make, xs: list[float]) -> None:
    path = [(x, 500.0) for x in xs]
    exact = crossings((512.0, SIZE), (512.0, 0.0), path)
    assert Story(tracks, {"gate": UP}).walk(*path) == {"in": exact.count(1), "out": exact.count(-1)}


@pytest.mark.parametrize(
    ("line", "to", "direction"),
    [
        pytest.param(UP, (700, 500), "in", id="up, to the right"),
        pytest.param(DOWN, (700, 500), "out", id="down, to the right"),
        pytest.param(LineConfig(start=(0.0, 0.5), end=(1.0, 0.5)), (300, 700), "in", id="rightwards, down"),
        pytest.param(LineConfig(start=(1.0, 0.5), end=(0.0, 0.5)), (300, 700), "out", id="leftwards, down"),
    ],
)
def test_in_is_from_left_to_right_seen_from_start_to_end(
    tracks: Make, line: LineConfig, to: Point, direction: str
) -> None:
    story = Story(tracks, {"gate": line})
    assert story.walk((300, 300), to) == {"in": 0, "out": 0, direction: 1}


def test_trembling_on_the_line_counts_once_when_it_is_left_on_the_other_side(tracks: Make) -> None:
    story = Story(tracks, {"gate": UP})
    story.show({1: (400, 500)}, 0.0)
    for at in range(1, 200):
        story.show({1: (511.0 if at % 2 else 513.0, 500)}, at / 30)
        assert story.lines.totals["gate"] == {"in": 0, "out": 0}
    story.show({1: (520, 500)}, 7.0)
    story.show({1: (521, 500)}, 7.1)
    assert story.lines.totals["gate"] == {"in": 1, "out": 0}
    assert [(each.line, each.direction) for each in story.lines.of(1)] == [("gate", "in")]


def test_one_that_comes_to_the_line_and_goes_back_counts_nothing(tracks: Make) -> None:
    assert Story(tracks, {"gate": UP}).walk((400, 500), (513, 500), (511, 500), (513, 500), (400, 500)) == {
        "in": 0,
        "out": 0,
    }


def test_one_that_vanishes_just_behind_the_line_counts(tracks: Make) -> None:
    assert Story(tracks, {"gate": UP}).walk((400, 500), (513, 500)) == {"in": 1, "out": 0}


def test_going_around_the_end_of_a_line_is_no_crossing(tracks: Make) -> None:
    short = LineConfig(start=(0.5, 0.5), end=(0.5, 0.25))
    assert Story(tracks, {"gate": short}).walk((400, 700), (600, 700), (600, 400)) == {"in": 0, "out": 0}
    assert Story(tracks, {"gate": short}).walk((400, 400), (600, 400), (600, 700), (400, 700)) == {"in": 1, "out": 0}


def test_a_line_from_edge_to_edge_is_not_passed_below_the_frame(tracks: Make) -> None:
    assert Story(tracks, {"gate": UP}).walk((400, SIZE + 9), (600, SIZE + 9)) == {"in": 1, "out": 0}


def test_an_object_counts_that_was_believed_behind_the_line_but_first_seen_before_it(tracks: Make) -> None:
    story = Story(tracks, {"gate": UP})
    story.show({1: (560, 500)}, 0.2, first={1: (480, 500)})
    assert story.lines.totals["gate"] == {"in": 1, "out": 0}


def test_a_line_takes_only_its_labels(tracks: Make) -> None:
    story = Story(tracks, {"dogs": LineConfig(start=UP.start, end=UP.end, labels=("dog",))})
    for at, x in enumerate((400, 600)):
        story.show({1: (x, 300), 2: (x, 700)}, at + 0.1, classes=[0, 1])
    assert story.lines.totals["dogs"] == {"in": 1, "out": 0}
    assert story.lines.crossed.tolist() == [[False], [True]]


def test_two_that_exchange_their_numbers_at_the_line_count_once_each(tracks: Make) -> None:
    """A leads, B follows; they are called by each other's number from the middle on."""
    story = Story(tracks, {"gate": UP})
    for at in range(40):
        lead, follow = (400.0 + 8 * at, 500.0), (370.0 + 8 * at, 500.0)
        story.show({1: lead, 2: follow} if at < 16 else {2: lead, 1: follow}, at / 30)
    assert story.lines.totals["gate"] == {"in": 2, "out": 0}


@pytest.mark.parametrize("step", [4.0, 8.0, 40.0])
def test_two_that_pass_each_other_at_the_line_count_both(tracks: Make, step: float) -> None:
    story = Story(tracks, {"gate": UP})
    for at in range(int(300 / step)):
        story.show({1: (362.0 + step * at, 500.0), 2: (662.0 - step * at, 500.0)}, at / 30)
    assert story.lines.totals["gate"] == {"in": 1, "out": 1}


@pytest.mark.parametrize("overlap", [True, False], ids=["the lost number still lives", "the lost number has ended"])
@pytest.mark.parametrize("back", [-15.0, 0.0, 15.0])
@pytest.mark.parametrize("lost_at", range(490, 540, 5))
def test_an_object_that_gets_another_number_near_the_line_counts_once(
    tracks: Make, lost_at: int, back: float, *, overlap: bool
) -> None:
    story = Story(tracks, {"gate": UP})
    for at, x in enumerate(range(400, lost_at, 5)):
        story.show({1: (x, 500)}, at / 30 + 0.01)
    lost_s, old = at / 30 + 0.01, (float(x), 500.0)
    for later in range(4, 40):
        now_s, new = lost_s + later / 30, (x + back + 5.0 * later, 500.0)
        if overlap and later < 30:
            began_s, first = lost_s + 2 / 30, (x + back + 10.0, 500.0)
            story.show({1: old, 2: new}, now_s, seen_s=[lost_s, now_s], started_s=[0, began_s], first={2: first})
        else:
            story.show({2: new}, now_s, started_s=lost_s + 3 / 30, first={2: (x + back + 15.0, 500.0)})
    story.show({}, 9.0)
    assert story.lines.totals["gate"] == {"in": 1, "out": 0}


@given(st.integers(0, 10_000))
def test_a_row_of_parcels_whose_numbers_break_at_random_is_counted_exactly(tracks: Make, seed: int) -> None:
    """Parcels 80 px apart pass trembling at 6 px a frame; each is lost once for up to half a second, somewhere."""
    dice = random.Random(seed)
    parcels, story = 12, Story(tracks, {"gate": UP})
    breaks = [(dice.uniform(400, 620), dice.uniform(0, 90)) for _ in range(parcels)]
    begun: dict[int, tuple[float, Point]] = {}
    for at in range(330):
        feet = {}
        for parcel, (lost_from, lost_for) in enumerate(breaks):
            x = 300.0 + 6 * at - 80 * parcel
            number = parcel + (parcels if x > lost_from else 0)
            if 300 <= x <= 900 and not lost_from < x < lost_from + lost_for:
                feet[number] = (x + dice.uniform(-1, 1), 500.0 + dice.uniform(-1, 1))
                begun.setdefault(number, (at / 30, feet[number]))
        ordered = sorted(feet)
        story.show(
            {number: feet[number] for number in ordered},
            at / 30,
            started_s=[begun[number][0] for number in ordered],
            first={number: begun[number][1] for number in ordered},
        )
    story.show({}, 99.0)
    assert story.lines.totals["gate"] == {"in": parcels, "out": 0}


def test_totals_go_on_from_what_they_were() -> None:
    lines = Lines({"gate": UP, "new": DOWN}, ("cat",), {"gate": {"in": 5, "out": 2}, "old": {"in": 1, "out": 1}})
    assert lines.totals == {"gate": {"in": 5, "out": 2}, "new": {"in": 0, "out": 0}}


def test_a_line_without_length_is_answered() -> None:
    with pytest.raises(ConfigError, match=r"lines\.gate has no length"):
        Lines({"gate": LineConfig(start=(0.5, 0.5), end=(0.5, 0.5))}, ("cat",))
