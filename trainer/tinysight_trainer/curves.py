"""Draw how a training went, and what many of them came to."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tinysight_contract.files import replace_file
from tinysight_trainer.trials import Point

__all__ = ["draw_curves", "draw_pareto"]

COLOURS: Final = ("#1f6feb", "#d1242f", "#1a7f37")
FAINT: Final = "#6e7781"


def draw_curves(history: list[dict[str, float]], path: Path, *, title: str) -> None:
    """One panel for each part of the loss, learning and validation, as PNG.

    Args:
        history: a row an epoch, as in ``history.csv``.
        path: of the PNG.
        title: above it.
    """
    parts = [name for name in history[0] if f"val_{name}" in history[0]]
    epochs = [row["epoch"] for row in history]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.4 * len(parts), 3.0), dpi=130, layout="constrained")
        for axis, name, colour in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, COLOURS, strict=False):
            learned, held = ([row[key] for row in history] for key in (name, f"val_{name}"))
            axis.plot(epochs, learned, color=colour, alpha=0.45, marker=".", label="learned from")
            axis.plot(epochs, held, color=colour, marker=".", label="held out")
            axis.annotate(
                f"{held[-1]:.3g}", (epochs[-1], held[-1]), textcoords="offset points", xytext=(2, 6), color=colour
            )
            if min(learned + held) > 0:
                axis.set_yscale("log")
            axis.set(title=name, xlabel="epoch")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.grid(alpha=0.25)
            axis.legend(frameon=False)
        figure.suptitle(title.replace("$", r"\$"), fontweight="bold")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    replace_file(path, buffer.getvalue())


def draw_pareto(points: Sequence[Point], path: Path, *, title: str, measure: str) -> None:
    """Accuracy over latency of all finished trials, the size of a dot being that of the file, as PNG.

    Below the line lies what a faster trial beats. A blue dot there is small for what it does; a grey one close to
    another has no number.

    Args:
        points: with their place; one at least has finished.
        path: of the PNG.
        title: above it.
        measure: name of the accuracy.
    """
    finished = sorted((p for p in points if p.state == "finished"), key=lambda p: (p.int8_ms, -p.accuracy))
    front = [point for point in finished if point.front]
    stairs = [p for at, p in enumerate(front) if all(p.accuracy > other.accuracy for other in front[:at])]
    largest = max(point.int8_kib for point in finished)
    pruned = len(points) - len(finished)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.4, 4.2), dpi=130, layout="constrained")
        axis = figure.subplots()
        ms, accuracies = [p.int8_ms for p in stairs], [p.accuracy for p in stairs]
        axis.plot(ms, accuracies, color=COLOURS[0], linewidth=1.2, drawstyle="steps-post", zorder=1)
        named: list[Point] = []
        for point in sorted(finished, key=lambda each: not each.front):
            area = 20 + 230 * point.int8_kib / largest
            colour, alpha = (COLOURS[0], 0.8) if point.front else (FAINT, 0.25)
            place = point.int8_ms, point.accuracy
            axis.scatter(*place, s=area, color=colour, alpha=alpha, linewidths=0, zorder=2 + point.front)
            if not point.front and any(_near(point, other, finished) for other in named):
                continue
            named.append(point)
            side, weight = (-1, "bold") if point.front else (1, "normal")
            axis.annotate(
                str(point.number),
                place,
                textcoords="offset points",
                xytext=(side * (area**0.5 / 2 + 2), 3 if point.front else -3),
                ha="right" if point.front else "left",
                color=colour,
                fontweight=weight,
            )
        smallest = min(point.int8_kib for point in finished)
        note = f"Dots: int8 file of {smallest:.0f} to {largest:.0f} KiB; numbers: trials"
        note += f"; {pruned} given up" if pruned else ""
        axis.set(xlabel=f"int8 latency in ms, one thread, this machine\n{note}", ylabel=f"int8 {measure}, validation")
        axis.margins(0.12)
        axis.grid(alpha=0.25)
        figure.suptitle(title.replace("$", r"\$"), fontweight="bold")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    replace_file(path, buffer.getvalue())


def _near(one: Point, other: Point, points: Sequence[Point]) -> bool:
    """Whether their numbers would stand upon each other."""
    ms, accuracies = [each.int8_ms for each in points], [each.accuracy for each in points]
    beside = abs(one.int8_ms - other.int8_ms) <= 0.05 * (max(ms) - min(ms))
    return beside and abs(one.accuracy - other.accuracy) <= 0.045 * (max(accuracies) - min(accuracies))
