"""How commands speak: narration and progress on stderr for people, results on stdout for people or programs."""

import sys
from collections.abc import Mapping
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["console", "finish"]

console = Console(stderr=True, highlight=False, soft_wrap=True)
"""Narration and progress; never results."""


def finish(result: Mapping[str, Any], *, as_json: bool) -> None:
    """End a command with its result: one JSON line, or a table of names and values."""
    if as_json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        sys.stdout.flush()
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in result.items():
        table.add_row(name, Text(f"{value:.4g}" if isinstance(value, float) else str(value)))  # never markup
    Console(highlight=False).print(table)
