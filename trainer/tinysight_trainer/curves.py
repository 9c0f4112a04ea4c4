"""Draw how a training went."""

import io
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tinysight_contract.files import replace_file

__all__ = ["draw_curves"]

COLOURS: Final = ("#1f6feb", "#d1242f", "#1a7f37")


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
