"""``tinysight doctor``: can this machine be an agent, and what to do when not."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tinysight_edge.doctor.result import Result

__all__ = ["doctor"]


def doctor(
    *,
    config: Annotated[Path | None, typer.Option(help="An agent's configuration.", show_default=False)] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="A camera to look at instead, NAME=SOURCE; may be repeated.", show_default=False),
    ] = None,
    broker: Annotated[
        str | None, typer.Option(envvar="TINYSIGHT_BROKER", help="mqtt://[user:password@]host[:port].")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="A bundle to run.", show_default=False)] = None,
    store: Annotated[Path | None, typer.Option(help="A device store.", show_default=False)] = None,
    state: Annotated[Path | None, typer.Option(help="The agent's folder.", show_default=False)] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Save a picture of each camera here.", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to look at each camera.", min=0.1, max=600)] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON list.")] = False,
) -> None:
    """Check this machine: Python, runtime, processor, cameras, broker, clock, disk. Status 1 if anything fails."""
    import sys

    import msgspec
    from rich.console import Console

    from tinysight_edge.doctor.plan import examine
    from tinysight_edge.doctor.result import Verdict
    from tinysight_edge.doctor.subject import Options

    def text(path: Path | None) -> str | None:
        return None if path is None else str(path)

    options = Options(
        config=text(config),
        sources=_named(source or []),
        broker=broker,
        bundle=text(bundle),
        store=text(store),
        state=text(state),
        pictures=text(pictures),
        seconds=seconds,
    )
    screen = Console(highlight=False)
    found = []
    for result in examine(options):
        found.append(result)
        if not as_json:
            _show(screen, result)
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        _sum_up(screen, found)
    if any(each.verdict is Verdict.FAIL for each in found):
        raise typer.Exit(1)


def _named(given: list[str]) -> dict[str, str]:
    """Camera id to source; ``NAME=SOURCE`` names one, the others are cam0, cam1 and so on."""
    from tinysight_contract.topics import ID

    cameras = {}
    for number, text in enumerate(given):
        name, equals, spec = text.partition("=")
        named = bool(equals) and ID.fullmatch(name) is not None
        cameras[name if named else f"cam{number}"] = spec if named else text
    return cameras


def _show(screen: "Console", result: "Result") -> None:
    """A line of verdict, check and finding, and under it what to do."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    colour = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}[result.verdict]
    row = Table.grid(padding=(0, 1))
    row.add_column(width=4)
    row.add_column(width=14)
    row.add_column()
    what = Text(_plain(result.what), style="dim" if result.verdict == "skip" else "")
    row.add_row(Text(result.verdict, style=colour), Text(_plain(result.check), style="bold"), what)
    screen.print(row)
    if result.mend:
        screen.print(Padding(Text(f"→ {_plain(result.mend)}", style=colour), (0, 0, 0, 20)))


def _sum_up(screen: "Console", found: "list[Result]") -> None:
    from collections import Counter

    from rich.text import Text

    count = Counter(each.verdict.value for each in found)
    said = ", ".join(f"{count[each]} {each}" for each in ("ok", "warn", "fail", "skip") if count[each])
    screen.print(Text(f"\n{said}.", style="bold red" if count["fail"] else "bold"))


def _plain(text: str) -> str:
    """Text from outside, with nothing in it that would move the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
