"""What is told of a flash: steps while it goes on, a `Result` for each device at its end.

A device's words reach the terminal only through `plain`. Bars are drawn where there is a terminal; results go to
stdout, one line a device.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.text import Text

from tinysight_contract.updates import Code, Release
from tinysight_edge.console import console

__all__ = ["GOOD", "Bars", "Outcome", "Result", "Silence", "Step", "View", "line_of", "show", "size"]

Outcome = Literal["confirmed", "unchanged", "staged", "would-install", "rejected", "failed", "rolled-back"]
GOOD: Final[frozenset[Outcome]] = frozenset({"confirmed", "unchanged", "staged", "would-install"})
_COLOURS: Final[dict[Outcome, str]] = {
    "confirmed": "green",
    "unchanged": "dim",
    "staged": "cyan",
    "would-install": "cyan",
    "rejected": "bold red",
    "failed": "bold red",
    "rolled-back": "bold yellow",
}


class Result(Struct, frozen=True, kw_only=True):
    """How a flash ended for one device.

    Attributes:
        device: as it was named, or its address.
        outcome: confirmed: it runs. Unchanged: it ran already. Staged: it is there and waits for its test or trial.
            Would-install: a dry run. Rejected, failed, rolled-back: it does not run there.
        code: why not, for programs; null for what is not of the device's store, such as a lost connection.
        reason: why not, or what it waits for, for people.
        moved_bytes: what was transferred to the device this time.
        transfer: ``delta``, ``full``, or empty when the bundle was there.
        why_full: why it was not a delta.
        seconds: how long it took.
        tries: how often it was connected to.
    """

    device: str
    outcome: Outcome
    code: Code | None = None
    reason: str = ""
    moved_bytes: int = 0
    transfer: str = ""
    why_full: str = ""
    seconds: float = 0.0
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """What goes on for a device.

    Attributes:
        device: as in `Result`.
        what: in a word or two.
        done: of ``total``; bytes for transfers.
        total: 0 when nobody knows.
    """

    device: str
    what: str
    done: int = 0
    total: int = 0


class View(Protocol):
    """Who watches."""

    def tell(self, step: Step) -> None:
        """Take note of a step."""


class Silence:
    """Watches nothing."""

    def tell(self, step: Step) -> None:
        """See `View.tell`."""


class Bars:
    """A bar for each device, on stderr. Made by `shown`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def tell(self, step: Step) -> None:
        """See `View.tell`."""
        task = self._tasks.get(step.device)
        if task is None:
            task = self._tasks[step.device] = self._progress.add_task(step.device, total=None, what="")
        self._progress.update(task, what=step.what, completed=step.done, total=step.total or None)

    @classmethod
    @contextmanager
    def shown(cls) -> Iterator[View]:
        """Bars while the ``with`` lasts, or silence where there is no terminal."""
        if not console.is_terminal:
            yield Silence()
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[what]}", markup=False),
            BarColumn(bar_width=24),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            yield cls(progress)


def show(release: Release, results: Iterable[Result]) -> None:
    """Print one line for each device."""
    results = list(results)
    width = max((len(each.device) for each in results), default=0)
    out = Console(highlight=False, soft_wrap=True)
    for each in results:
        text = Text(f"{each.device:<{width}}  ")
        text.append(f"{each.outcome:<13}  ", style=_COLOURS[each.outcome])
        out.print(text.append(line_of(release, each)))


def line_of(release: Release, result: Result) -> str:
    """What there is to say about a result."""
    name = f"{release.name} {release.version}"
    code = f" ({result.code.value})" if result.code is not None else ""
    moved = _moved(result)
    tries = f"; connected {result.tries} times" if result.tries > 1 else ""
    if result.outcome == "unchanged":
        return f"{name} is active there already; nothing was changed{tries}."
    if result.outcome == "would-install":
        return f"{name}: {moved} would be moved."
    if result.outcome == "confirmed":
        return f"{name} runs there; {moved} moved in {result.seconds:.1f} s{tries}."
    if result.outcome == "staged":
        return f"{name} is there; {moved} moved in {result.seconds:.1f} s{tries}. {result.reason}"
    return f"{name}{code}: {result.reason.removeprefix(f'{result.device}: ')}"


def size(count: int) -> str:
    """Bytes for people, in powers of 1024."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.0f} KiB" if count < 1024 * 1024 else f"{count / (1024 * 1024):.1f} MiB"


def _moved(result: Result) -> str:
    how = {
        "delta": " (the difference alone)",
        "full": f" (the whole bundle: {result.why_full.rstrip('.') or 'there is nothing to differ from'})",
    }
    return size(result.moved_bytes) + how.get(result.transfer, "")
