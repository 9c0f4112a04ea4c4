"""``tinysight data`` and ``tinysight train`` from the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tinysight_trainer.train import Progress

__all__ = ["data_app", "train"]

data_app = typer.Typer(no_args_is_help=True)
synth_app = typer.Typer(no_args_is_help=True)
data_app.add_typer(synth_app, name="synth", help="Draw a data set: nothing is downloaded.")

Json = Annotated[bool, typer.Option("--json", help="End with one JSON line.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and results.")]


@data_app.callback()
def _data() -> None:
    """Make data sets."""


@synth_app.callback()
def _synth() -> None:
    """Draw data sets and videos whose truth is known."""


@synth_app.command()
def belt(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the new data set; a name that ends in .mp4 makes a video.")],
    images: Annotated[
        int, typer.Option(help="Training images; calibration and test images come on top.", min=1)
    ] = 3000,
    frames: Annotated[int, typer.Option(help="Frames of a video, at 15 a second.", min=1)] = 300,
    seed: Annotated[int, typer.Option(help="Of everything.", min=0, max=2**32 - 1)] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw a conveyor whose parcels carry real handwritten digits: a COCO data set, or a video with its truth."""
    from rich.progress import Progress

    from tinysight_edge.console import console, finish
    from tinysight_trainer.synth import belt_dataset, belt_video

    if out.suffix.lower() == ".mp4":
        finish({"video": str(out), "frames": belt_video(out, frames=frames, seed=seed)}, as_json=as_json)
        return
    with Progress(console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task("drawing", total=None)
        sizes = belt_dataset(
            out, images=images, seed=seed, progress=lambda done, of: bar.update(task, completed=done, total=of)
        )
    finish({"data": str(out), **sizes}, as_json=as_json)


def train(
    data: Annotated[Path, typer.Argument(help="A COCO data set, or a folder of images per class.", show_default=False)],
    *,
    task: Annotated[str, typer.Option(help="detect or classify.")],
    out: Annotated[Path, typer.Option(help="The run folder to make.")],
    epochs: Annotated[int, typer.Option(help="How often every image is seen.", min=1)] = 13,
    batch: Annotated[int, typer.Option(help="Images per step.", min=1)] = 16,
    size: Annotated[
        str | None, typer.Option("--input", help="WIDTHxHEIGHT of the model. [default: 128x96, or 64x64 to classify]")
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="At its peak.", min=1e-7, max=1.0)] = 2e-3,
    scale: Annotated[float, typer.Option(help="Of the model's channels.", min=0.25, max=4.0)] = 1.0,
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0, max=2**32 - 1)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed training stopped.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a detector or a classifier on your images. Ctrl-C or a power cut: go on with --resume."""
    from tinysight_contract.errors import ConfigError
    from tinysight_edge.console import console, finish
    from tinysight_edge.quiet import without_lines
    from tinysight_trainer.dataset import read_dataset

    if task not in {"detect", "classify"}:
        raise ConfigError(f"There is no task {task!r}.", mend="Choose --task detect or --task classify.")
    width, height = _parse_size(size or ("128x96" if task == "detect" else "64x64"))
    checked = read_dataset(data, task)
    for note in checked.notes:
        console.print(note)
    with without_lines(b"WARNING: All log messages before", b"I0000"):
        from tinysight_trainer.train import Config
        from tinysight_trainer.train import train as train_model

    config = Config(
        task=task,
        width=width,
        height=height,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        scale=scale,
        seed=seed,
    )
    with _bar(quiet=quiet) as progress:
        run = train_model(checked, config, out, resume=resume, progress=progress)
    finish({"run": str(out), "task": task, "labels": len(run.labels), **run.figures}, as_json=as_json)


def _parse_size(text: str) -> tuple[int, int]:
    from tinysight_contract.errors import ConfigError

    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ConfigError(f"--input {text!r} is no size.", mend="Write it as WIDTHxHEIGHT, such as 128x96.")
    sides = int(width), int(height)
    if any(side % 16 or not 32 <= side <= 1024 for side in sides):
        raise ConfigError(f"--input {text} does not fit the model.", mend="Use multiples of 16 from 32 to 1024.")
    return sides


@contextmanager
def _bar(*, quiet: bool) -> Iterator["Progress"]:
    """A progress bar with the loss and the time left, and a line an epoch, while the ``with`` lasts."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from tinysight_edge.console import console
    from tinysight_trainer.train import Progress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))

    class Shown(Progress):
        def begin(self, *, steps: int, done: int) -> None:
            self.task = bar.add_task("training", total=steps, completed=done)

        def step(self, *, loss: float) -> None:
            bar.update(self.task, advance=1, description=f"loss {loss:.3f}")

        def epoch(self, row: dict[str, float]) -> None:
            if not quiet:
                bar.console.print(
                    f"epoch {row['epoch']:3.0f}  loss {row['loss']:.4f}  held out {row['val_loss']:.4f}  "
                    f"{row['seconds']:5.0f} s"
                )

    with Bar(*columns, TimeRemainingColumn(), console=console, transient=True, disable=quiet) as bar:
        yield Shown()
