"""What came of the trials of a search: which are worth looking at, which to give up early, and all of it as CSV.

In: `Point`, one a trial.  Out: the front, the best, a verdict, bytes. No I/O.
"""

import csv
import io
import math
from collections.abc import Sequence
from statistics import median
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tinysight_trainer.config import Config

__all__ = ["Point", "best_of", "comparable", "csv_of", "falls_behind", "with_front"]

MIN_PEERS: Final = 4
PATIENT_SHARE: Final = 1 / 3  # of the epochs; before that a high learning rate only looks bad


class Point(Struct, frozen=True, kw_only=True):
    """One trial that has ended.

    Attributes:
        number: of the trial, from 0.
        state: finished, or given up before its end.
        config: every setting.
        drawn: the names of the settings that were searched.
        accuracy: of the int8 model on the validation pictures, 0..1.
        int8_ms: of one inference.
        int8_kib: of the file.
        losses: held-out, an epoch each.
        seconds: of the training.
        why: it was given up.
        front: no other trial is as good in all three and better in one.
    """

    number: int
    state: Literal["finished", "pruned"]
    config: Config
    drawn: tuple[str, ...]
    accuracy: float = math.nan
    int8_ms: float = math.nan
    int8_kib: float = math.nan
    losses: tuple[float, ...] = ()
    seconds: float = 0.0
    why: str = ""
    front: bool = False

    @property
    def goals(self) -> tuple[float, float, float]:
        """All three, the smaller the better."""
        return -self.accuracy, self.int8_ms, self.int8_kib


def with_front(points: Sequence[Point]) -> list[Point]:
    """The points, those marked that no other beats; of equal ones the first."""
    finished = [point for point in points if point.state == "finished"]

    def beaten(point: Point) -> bool:
        return any(
            all(a <= b for a, b in zip(other.goals, point.goals, strict=True))
            and (other.goals != point.goals or other.number < point.number)
            for other in finished
        )

    return [replace(point, front=point.state == "finished" and not beaten(point)) for point in points]


def best_of(points: Sequence[Point]) -> Point | None:
    """The most accurate; of equally accurate ones the fastest, then the smallest."""
    finished = [point for point in points if point.state == "finished"]
    return min(finished, key=lambda point: (point.goals, point.number), default=None)


def comparable(one: Config, other: Config) -> bool:
    """Whether the loss of ``other`` says what ``one`` should reach.

    It does for the same pictures and the same kind of loss, and a model that is no larger: a small model must not be
    given up because a large one learns better, its place is elsewhere on the front.
    """
    same = ("task", "model", "width", "height", "color", "epochs", "smoothing", "class_weights")
    return all(getattr(one, name) == getattr(other, name) for name in same) and other.scale <= one.scale


def falls_behind(loss: float, epoch: int, epochs: int, peers: Sequence[Sequence[float]]) -> bool:
    """Whether a trial is to be given up after ``epoch`` of ``epochs``, its held-out loss being what it is.

    Args:
        loss: of this epoch.
        epoch: from 1.
        epochs: of the whole training; after the last one there is nothing to save.
        peers: the losses of comparable trials, an epoch each.
    """
    reached = [losses[epoch - 1] for losses in peers if len(losses) >= epoch]
    if len(reached) < MIN_PEERS or not PATIENT_SHARE * epochs <= epoch < epochs:
        return False
    return not loss <= median(reached)  # also when it is no number


def csv_of(points: Sequence[Point], *, measure: str) -> bytes:
    """A row a trial; ``measure`` is the name of the accuracy."""
    drawn = sorted({name for point in points for name in point.drawn})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "front", measure, "int8_ms", "int8_kib", "epochs", "seconds", *drawn, "why"])
    for point in points:
        figures = (point.accuracy, point.int8_ms, point.int8_kib)
        shown: list[Any] = ["" if math.isnan(value) else f"{value:.6g}" for value in figures]
        settings = msgspec.to_builtins(point.config)
        row = [point.number, point.state, int(point.front), *shown, len(point.losses), f"{point.seconds:.1f}"]
        writer.writerow([*row, *(settings[name] for name in drawn), point.why])
    return text.getvalue().encode()
