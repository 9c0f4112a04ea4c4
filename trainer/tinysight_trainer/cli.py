"""``tinysight train``, ``evaluate`` and ``tune`` from the command line."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer

from tinysight_trainer.cli_shared import Json, Quiet, quiet_tensorflow
from tinysight_trainer.config import Config

if TYPE_CHECKING:
    from tinysight_trainer.loop import Progress
    from tinysight_trainer.trials import Point

__all__ = ["evaluate", "shown_progress", "train", "tune"]


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
            words = f"{words} {default} by default."
        flag = name.replace("_", "-")
        names = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
        option = typer.Option(names, help=words, rich_help_panel=group, show_default=False)
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
    qat: Annotated[
        bool, typer.Option("--qat", help="Fine-tune the finished run --out with int8's rounding, in its folder qat.")
    ] = False,
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
    if qat:
        with quiet_tensorflow():
            from tinysight_trainer.qat import QAT, fine_tune
        with shown_progress(quiet=quiet) as progress:
            figures = fine_tune(checked, given, out, resume=resume, progress=progress)
        finish({"run": str(out / QAT), **figures}, as_json=as_json)
        return
    wanted = make_config(given, task=checked.task or "detect", source=str(config or "command line"))
    with quiet_tensorflow():
        from tinysight_trainer.train import train as train_model
    with shown_progress(quiet=quiet) as progress:
        run = train_model(checked, wanted, out, resume=resume, progress=progress)
    finish({"run": str(out), "task": run.task, "labels": len(run.labels), **run.figures}, as_json=as_json)


@_with_settings
def tune(
    data: Annotated[Path, typer.Argument(help="A data set, see `tinysight data import`.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option(help="The study folder; one that was killed goes on.")],
    trials: Annotated[int, typer.Option(help="Until so many trials of the whole study have ended.", min=1)] = 20,
    time: Annotated[
        str | None,
        typer.Option(
            help="Such as 90s, 30m or 2h: later than this no trial is begun; a running one ends as usual.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML: settings of every trial, and what to try in its table `search`.", show_default=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    settings: dict[str, Any],
) -> None:
    """Search for settings: accuracy against int8 latency and size.

    A setting given here is that of every trial; what is searched stands in the table `search` of --config, as
    learning_rate = { low = 5e-4, high = 8e-3, log = true } or scale = [0.5, 1.0]. The test pictures are not looked at.
    Ctrl-C or a power cut: the same command goes on.
    """
    from tinysight_edge.console import finish
    from tinysight_trainer.config import read_toml
    from tinysight_trainer.data.dataset import open_dataset
    from tinysight_trainer.data.ready import check_ready
    from tinysight_trainer.search import default_space, parse_time, part, read_space
    from tinysight_trainer.trials import best_of

    time_s = None if time is None else parse_time(time)
    checked = open_dataset(data)
    check_ready(checked)
    task, source = checked.task or "detect", str(config or "command line")
    fixed, table = part(read_toml(config) if config else {}, settings)
    if table is None:
        space = default_space(fixed, task=task, source=source)
    else:
        space = read_space(table, fixed, task=task, source=source)
    with quiet_tensorflow():
        from tinysight_trainer.tune import MEASURES, TUNED
        from tinysight_trainer.tune import tune as search
    with shown_progress(quiet=quiet) as progress:
        points = search(checked, fixed, space, out, trials=trials, time_s=time_s, progress=progress)
    if not quiet:
        _show_front(points, MEASURES[task])
    best = best_of(points)
    assert best is not None  # noqa: S101 -- else tune has raised
    result = {
        "study": str(out),
        "trials": len(points),
        "given_up": sum(point.state == "pruned" for point in points),
        "front": [point.number for point in points if point.front],
        "best": best.number,
        MEASURES[task]: best.accuracy,
        "int8_ms": best.int8_ms,
        "int8_kib": best.int8_kib,
        "settings": str(out / TUNED),
    }
    finish(result, as_json=as_json)


def _show_front(points: list["Point"], measure: str) -> None:
    """The trials that no other beats, the most accurate first, with what was searched."""
    from rich.table import Table

    from tinysight_edge.console import console

    front = sorted((point for point in points if point.front), key=lambda point: point.goals)
    drawn = front[0].drawn
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("trial", measure, "int8 ms", "int8 KiB", *drawn):
        table.add_column(name, justify="right")
    for point in front:
        values = [getattr(point.config, name) for name in drawn]
        settings = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
        table.add_row(
            str(point.number), f"{point.accuracy:.3f}", f"{point.int8_ms:.2f}", f"{point.int8_kib:.0f}", *settings
        )
    console.print(table)


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
            for before in bar.task_ids:
                bar.remove_task(before)
            self.task = bar.add_task(what, total=steps, completed=done, rate="")
            self.what, self.pictures = what, pictures

        def step(self, *, loss: float) -> None:
            speed = bar.tasks[-1].speed or 0.0
            rate = f"{speed * self.pictures:,.0f} pictures/s"
            bar.update(self.task, advance=1, description=f"{self.what}, loss {loss:.3f}", rate=rate)

        def epoch(self, row: dict[str, float]) -> None:
            self.say(
                f"{self.what}: epoch {row['epoch']:3.0f}  loss {row['loss']:.4f}  held out {row['val_loss']:.4f}  "
                f"{row['seconds']:5.0f} s"
            )

        def say(self, text: str) -> None:
            if not quiet:
                bar.console.print(text, markup=False)

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
        Path | None,
        typer.Option(help="The page to write, with its figures as .figures.json beside it.", show_default=False),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="Of a bundle: int8, float16, ... [default: the first]", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on pictures with their truth; the page shows where it fails and what it looked at."""
    from rich.progress import Progress as Bar

    from tinysight_contract.errors import ConfigError
    from tinysight_contract.files import replace_file
    from tinysight_edge.console import console, finish
    from tinysight_trainer.data.dataset import open_dataset
    from tinysight_trainer.data.item import SPLITS

    if split not in {*SPLITS, "all"}:
        raise ConfigError(f"There is no split {split!r}.", mend=f"Choose one of: {', '.join(SPLITS)}, all.")
    if data is None and split != "test":
        raise ConfigError("A run keeps its test pictures only.", mend="Give --data, or leave out --split.")
    if scheme is not None and model.is_dir():
        raise ConfigError("A run has one model.", mend="Leave out --scheme, or give a bundle.")
    if report is not None and report.suffix.lower() != ".html":
        raise ConfigError(f"{report} is no name of a page.", mend="Let it end in .html.")
    if report is not None and not report.parent.is_dir():
        raise ConfigError(f"There is no folder {report.parent}.", mend="Make it, or name another --report.")
    held = open_dataset(data) if data is not None else None
    with quiet_tensorflow():
        from tinysight_trainer.evaluate import evaluate as measure
        from tinysight_trainer.evaluate import examples_for, open_subject
        from tinysight_trainer.evaluate_page import evaluation_json, evaluation_page

        subject = open_subject(model, scheme=scheme)
    examples, root, notes = examples_for(subject, held, split)
    for note in notes:
        console.print(note, markup=False)
    with Bar(console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task("finding", total=len(examples))
        done = measure(subject, examples, root, progress=lambda count: bar.update(task, completed=count))
    if report is not None:
        replace_file(report.with_suffix(".figures.json"), evaluation_json(subject, done))
        replace_file(report, evaluation_page(subject, done, root, notes=notes))
    figures = {name: value for name, value in done.figures.items() if value is not None}
    finish({"model": str(model), **figures, **({"report": str(report)} if report else {})}, as_json=as_json)
