"""Tables on stdout: as wide as the terminal, and folded nowhere where a program reads them."""

import sys
from typing import Final

from rich.console import Console
from rich.table import Table

__all__ = ["show_table"]

WIDE: Final = 1000


def show_table(table: Table) -> None:
    """Print a table."""
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDE).print(table)
