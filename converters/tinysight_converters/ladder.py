"""Back off step by step until a budget holds. Decides; makes nothing itself.

In: rungs, each a way to make a candidate, the cheapest first.  Out: the first candidate within the budget, and what
each step bought.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tinysight_contract.errors import ConversionError
from tinysight_converters.bench import Candidate
from tinysight_converters.budget import Budget, Figures

__all__ = ["Rung", "Step", "climb"]


@dataclass(frozen=True, slots=True)
class Rung:
    """A way to convert; ``make`` may raise ConversionError, which ends this rung alone. ``slow``: takes minutes."""

    name: str
    make: Callable[[], Candidate]
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What became of a rung.

    Attributes:
        name: of the rung.
        figures: None when it was not tried, or could not be made.
        bought_pt: points gained over the first step.
        said: what does not hold, or why there are no figures; empty when the budget holds.
    """

    name: str
    figures: Figures | None
    bought_pt: float
    said: str

    @property
    def holds(self) -> bool:
        """Whether the budget is kept."""
        return self.figures is not None and not self.said


def climb(
    rungs: Iterable[Rung], budget: Budget, *, told: Callable[[Step], None] = lambda _step: None
) -> tuple[Candidate | None, list[Step]]:
    """Try the rungs in order and keep the first that holds.

    If the first rung is full int8, it is the smallest and quickest there is, and every other only mends a drop. So when
    its drop holds, the rest is not tried; and when it is too large, the slow ones are not, though the others still show
    what they would buy.
    """
    steps: list[Step] = []
    first: Candidate | None = None
    for rung in rungs:
        if first is not None and (reason := _hopeless(rung, first, budget)):
            steps.append(Step(rung.name, None, 0.0, f"not tried: {reason}"))
            continue
        try:
            candidate = rung.make()
        except ConversionError as error:
            steps.append(Step(rung.name, None, 0.0, f"cannot be made: {error.what}"))
            told(steps[-1])
            continue
        figures = candidate.figures
        first = first or candidate
        broken = budget.breaks(figures)
        steps.append(Step(rung.name, figures, 100 * (figures.metric - first.figures.metric), ", ".join(broken)))
        told(steps[-1])
        if not broken:
            return candidate, steps
    return None, steps


def _hopeless(rung: Rung, first: Candidate, budget: Budget) -> str:
    if first.scheme != "int8":
        return ""
    if not budget.drops(first.figures):
        return "the drop holds, and no step makes it smaller or faster"
    if rung.slow and budget.kib is not None and first.figures.kib > budget.kib:
        return "no step makes it smaller"
    return ""
