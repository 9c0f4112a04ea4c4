"""Tables on stdout: as wide as the terminal, and folded nowhere where a program reads them."""

import sys
from typing import Final

from rich.console import Console
from rich.table import Table

__all__ = ["WIDE", "show_table"]

WIDE: Final = 1000
"""Columns where there is no terminal."""


def show_table(table: Table) -> None:
    """Print a table."""
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDE).print(table)
