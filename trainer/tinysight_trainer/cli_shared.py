"""What the trainer's commands share: their options, how they count, how they end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tinysight_trainer.data.dataset import Dataset

__all__ = ["Data", "Json", "Quiet", "counting", "finish_data", "quiet_tensorflow"]

Json = Annotated[bool, typer.Option("--json", help="End with one JSON line.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and results.")]
Data = Annotated[Path, typer.Argument(help="A data set.", show_default=False)]


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Import TensorFlow without its greetings."""
    from tinysight_edge.quiet import without_lines

    with without_lines(b"WARNING: All log messages before", b"I0000"):
        yield


def finish_data(data: "Dataset", *, as_json: bool, **more: Any) -> None:  # noqa: ANN401 -- figures of any kind
    """End with what is in a data set now."""
    from tinysight_edge.console import console, finish

    for note in data.notes:
        console.print(note, markup=False)
    for each in data.left_out[:5]:
        console.print(f"left out: {each.file}: {each.why}", markup=False)
    if len(data.left_out) > 5:
        console.print(f"... and {len(data.left_out) - 5} more; all are listed in {data.root / 'annotations.json'}")
    result: dict[str, Any] = {
        "data": str(data.root),
        "task": data.task,
        "labels": len(data.labels),
        "images": len(data.items),
        **data.counts(),
        "left_out": len(data.left_out),
    }
    if data.figures is not None:
        result |= {"leak": data.figures.leak, "random_leak": data.figures.random_leak}
    finish({**result, **more, "digest": data.digest}, as_json=as_json)


@contextmanager
def counting(what: str, *, quiet: bool, total: int | None = None) -> Iterator[Callable[[int, int | None], None]]:
    """A bar while the ``with`` lasts, to be told how many of how many are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tinysight_edge.console import console

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task(what, total=total)

        def count(done: int, of: int | None = None) -> None:
            bar.update(task, completed=done, total=of or total)

        yield count
