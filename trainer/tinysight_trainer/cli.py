"""``tinysight train``, ``evaluate`` and ``tune`` from the command line."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from tinysight_trainer.config import Config

if TYPE_CHECKING:
    from tinysight_trainer.loop import Progress

__all__ = ["evaluate", "quiet_tensorflow", "shown_progress", "train"]

Json = Annotated[bool, typer.Option("--json", help="End with one JSON line.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and results.")]


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag for each setting of `Config`; those given arrive in its ``settings``."""
    own = inspect.signature(command)
    hints = get_type_hints(Config, include_extras=True)
    flags = []
    for name in Config.__struct_fields__:
        kind, meta = get_args(hints[name])
        group = meta.extra["group"]
        default = Config.__struct_defaults__[Config.__struct_fields__.index(name)]
        words = meta.description
        if get_origin(kind) is not None:
            words, kind = f"{words} One of: {', '.join(get_args(kind))}.", str
        if default not in {"", False}:
            words = f"{words} [default: {default}]"
        option = typer.Option(f"--{name.replace('_', '-')}", help=words, rich_help_panel=group, show_default=False)
        flags.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
            )
        )

    def run(**given: Any) -> None:  # noqa: ANN401 -- typer has checked them
        settings = {name: given.pop(name) for name in Config.__struct_fields__}
        command(settings={name: value for name, value in settings.items() if value is not None}, **given)

    kept = [each for each in own.parameters.values() if each.name != "settings"]
    parameters = [*kept, *flags]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run


@_with_settings
def train(
    data: Annotated[Path, typer.Argument(help="A data set, see `tinysight data import`.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option(help="The run folder to make.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML with the same names as the flags; a flag beats it.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed training stopped.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    settings: dict[str, Any],
) -> None:
    """Train a detector or a classifier on a data set. Ctrl-C or a power cut: go on with --resume."""
    from tinysight_edge.console import finish
    from tinysight_trainer.config import make_config, read_toml
    from tinysight_trainer.data.dataset import open_dataset

    checked = open_dataset(data)
    given = {**(read_toml(config) if config else {}), **settings}
    given.pop("search", None)
    wanted = make_config(given, task=checked.task or "detect", source=str(config or "command line"))
    with quiet_tensorflow():
        from tinysight_trainer.train import train as train_model
    with shown_progress(quiet=quiet) as progress:
        run = train_model(checked, wanted, out, resume=resume, progress=progress)
    finish({"run": str(out), "task": run.task, "labels": len(run.labels), **run.figures}, as_json=as_json)


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Import TensorFlow without its greetings."""
    from tinysight_edge.quiet import without_lines

    with without_lines(b"WARNING: All log messages before", b"I0000"):
        yield


@contextmanager
def shown_progress(*, quiet: bool) -> Iterator["Progress"]:
    """A bar with the loss, pictures a second and the time left, and a line an epoch, while the ``with`` lasts."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from tinysight_edge.console import console
    from tinysight_trainer.loop import Progress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))

    class Shown(Progress):
        what, pictures = "", 0

        def begin(self, *, what: str, steps: int, done: int, pictures: int) -> None:
            self.task = bar.add_task(what, total=steps, completed=done, rate="")
            self.what, self.pictures = what, pictures

        def step(self, *, loss: float) -> None:
            speed = bar.tasks[self.task].speed or 0.0
            rate = f"{speed * self.pictures:,.0f} pictures/s"
            bar.update(self.task, advance=1, description=f"{self.what}, loss {loss:.3f}", rate=rate)

        def epoch(self, row: dict[str, float]) -> None:
            self.say(
                f"{self.what}: epoch {row['epoch']:3.0f}  loss {row['loss']:.4f}  held out {row['val_loss']:.4f}  "
                f"{row['seconds']:5.0f} s"
            )

        def say(self, text: str) -> None:
            if not quiet:
                bar.console.print(text)

    with Bar(*columns, TimeRemainingColumn(), console=console, transient=True, disable=quiet) as bar:
        yield Shown()


def evaluate(
    model: Annotated[Path, typer.Argument(help="A run folder, or a bundle.", show_default=False)],
    *,
    data: Annotated[
        Path | None, typer.Option(help="A data set. [default: the run's own test pictures]", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Of the data set: train, calibration, test or all.")] = "test",
    report: Annotated[
        Path | None, typer.Option(help="The page to write, with its figures as .json beside it.", show_default=False)
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="Of a bundle: int8 or float32. [default: the first]", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on pictures with their truth; the page shows where it fails and what it looked at."""
    from rich.progress import Progress as Bar

    from tinysight_contract.errors import ConfigError
    from tinysight_contract.files import replace_file
    from tinysight_edge.console import console, finish
    from tinysight_trainer.data.dataset import SPLITS, open_dataset

    if split not in {*SPLITS, "all"}:
        raise ConfigError(f"There is no split {split!r}.", mend=f"Choose one of: {', '.join(SPLITS)}, all.")
    held = open_dataset(data) if data is not None else None
    with quiet_tensorflow():
        from tinysight_trainer.evaluate import evaluate as measure
        from tinysight_trainer.evaluate import examples_for, open_subject
        from tinysight_trainer.evaluate_page import evaluation_json, evaluation_page

        subject = open_subject(model, scheme=scheme)
    examples, root, notes = examples_for(subject, held, split)
    for note in notes:
        console.print(note)
    with Bar(console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task("finding", total=len(examples))
        done = measure(subject, examples, root, progress=lambda count: bar.update(task, completed=count))
    if report is not None:
        replace_file(report.with_suffix(".json"), evaluation_json(subject, done))
        replace_file(report, evaluation_page(subject, done, root, notes=notes))
    figures = {name: value for name, value in done.figures.items() if value is not None}
    finish({"model": str(model), **figures, **({"report": str(report)} if report else {})}, as_json=as_json)
