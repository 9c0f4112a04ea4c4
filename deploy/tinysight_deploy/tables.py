"""Tables on stdout: as wide as the terminal, and folded nowhere where a program reads them."""

import sys
from typing import Final

from rich.console import Console, RenderableType

__all__ = ["show_table"]

WIDE: Final = 1000
"""Columns where there is no terminal."""


def show_table(table: RenderableType) -> None:
    """Print a table, or several with words between them."""
    if sys.stdout.isatty():
        Console(highlight=False).print(table)
        return
    console = Console(highlight=False, width=WIDE)
    with console.capture() as held:
        console.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in held.get().splitlines()))
