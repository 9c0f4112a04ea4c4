"""``tinysight data``: from raw pictures to a data set one can trust."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tinysight_trainer.data.dataset import Dataset
    from tinysight_trainer.data.inspect import Inspection

__all__ = ["data_app"]

data_app = typer.Typer(no_args_is_help=True)
synth_app = typer.Typer(no_args_is_help=True)
data_app.add_typer(synth_app, name="synth", help="Draw a data set: nothing is downloaded.")

Json = Annotated[bool, typer.Option("--json", help="End with one JSON line.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and results.")]
Data = Annotated[Path, typer.Argument(help="A data set.", show_default=False)]
NewData = Annotated[Path, typer.Option("--out", help="The data set to make.")]


@data_app.callback()
def _data() -> None:
    """Bring in, collect, label, clean, split and look at pictures."""


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
    """Draw a conveyor whose parcels carry real handwritten digits: a data set, or a video with its truth."""
    from tinysight_edge.console import finish
    from tinysight_trainer.synth import belt_dataset, belt_video

    if out.suffix.lower() == ".mp4":
        finish({"video": str(out), "frames": belt_video(out, frames=frames, seed=seed)}, as_json=as_json)
        return
    with _counting("drawing", quiet=quiet) as count:
        sizes = belt_dataset(out, images=images, seed=seed, progress=count)
    finish({"data": str(out), **sizes}, as_json=as_json)


@data_app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="A folder or file, or mnist, fashion-mnist, cifar10.", show_default=False)
    ],
    *,
    out: NewData,
    form: Annotated[
        str, typer.Option("--format", help="auto, folder, coco, voc, yolo, csv, npz or idx.", metavar="FORMAT")
    ] = "auto",
    rename: Annotated[
        list[str] | None, typer.Option(help="OLD=NEW: call a class otherwise. May be repeated.", show_default=False)
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Of classes that npz and idx only number: a,b,c.", show_default=False)
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(help="Regular expression; its group in an image's name is its session.", show_default=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a data set of pictures and labels in any known format; what cannot be used is listed."""
    from tinysight_contract.errors import ConfigError
    from tinysight_trainer.data.formats import read_source
    from tinysight_trainer.data.importer import import_pictures

    renamed = {}
    for each in rename or ():
        old, between, new = each.partition("=")
        if not between or not old or not new:
            raise ConfigError(f"--rename {each!r} is no OLD=NEW.", mend="Write it as Cat=cat.")
        renamed[old] = new
    chosen, raws = read_source(source, form, names=[name.strip() for name in names.split(",")] if names else None)
    with _counting("importing", quiet=quiet) as count:
        data = import_pictures(
            raws,
            out,
            source={"format": chosen, "from": Path(source).name},
            rename=renamed,
            session=session,
            progress=lambda done: count(done, None),
        )
    _finish(data, as_json=as_json)


@data_app.command()
def export(
    data: Data,
    *,
    form: Annotated[
        str, typer.Option("--format", help="coco, yolo, voc, csv, folder, label-studio or cvat.", metavar="FORMAT")
    ],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    as_json: Json = False,
) -> None:
    """Write a data set in another format, and say what that format cannot say."""
    from tinysight_contract.errors import ConfigError
    from tinysight_edge.console import console, finish
    from tinysight_trainer.data.dataset import open_dataset
    from tinysight_trainer.data.formats import WRITERS
    from tinysight_trainer.data.importer import new_folder

    if form not in WRITERS:
        raise ConfigError(f"There is no format {form!r} to write.", mend=f"Choose one of: {', '.join(WRITERS)}.")
    held = open_dataset(data)
    with new_folder(out) as folder:
        lost = WRITERS[form](held, folder)
    for line in lost:
        console.print(line)
    finish({"out": str(out), "format": form, "images": len(held.items)}, as_json=as_json)


@data_app.command()
def collect(
    *,
    source: Annotated[str, typer.Option(help="A camera's number, a video, a folder of images, synthetic:belt.")],
    out: Annotated[Path, typer.Option(help="A data set, new or to be added to.")],
    every: Annotated[str, typer.Option(help="Least time between two pictures, with its unit: 500ms, 2s, 1m.")] = "2s",
    on: Annotated[str, typer.Option(help="always, or motion: only while something moves.")] = "always",
    most: Annotated[int, typer.Option(help="Pictures to keep.", min=1)] = 1000,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep pictures of a camera in a dated session; look-alikes are dropped. Ctrl-C ends it, and nothing is lost."""
    import signal
    import threading

    from tinysight_contract.errors import ConfigError
    from tinysight_edge.sources import open_source
    from tinysight_trainer.data.collect import collect as take_pictures

    if on not in {"always", "motion"}:
        raise ConfigError(f"There is no --on {on!r}.", mend="Choose always or motion.")
    every_s = _seconds(every)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    opened = open_source(source)
    try:
        with _counting("collecting", quiet=quiet, total=most) as count:
            data, done = take_pictures(
                opened,
                out,
                every_s=every_s,
                motion=on == "motion",
                most=most,
                stop=stop.is_set,
                progress=lambda done: count(done.kept, None),
            )
    finally:
        opened.close()
    _finish(data, as_json=as_json, session=done.session, seen=done.seen, kept=done.kept, alike=done.alike)


def _seconds(text: str) -> float:
    import re

    from tinysight_contract.errors import ConfigError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no time.", mend="Write it with its unit: 500ms, 2s, 1m.")
    return float(found[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


@data_app.command()
def prelabel(
    data: Data,
    *,
    bundle: Annotated[Path, typer.Option(help="Whose model proposes.")],
    out: Annotated[Path, typer.Option(help="Folder for the labelling tool's files.")],
    tool: Annotated[str, typer.Option(help="label-studio or cvat.")] = "label-studio",
    everything: Annotated[bool, typer.Option("--all", help="Also pictures that have labels.")] = False,
    min_score: Annotated[float, typer.Option(help="Of a proposed box.", min=0.01, max=1.0)] = 0.25,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Have a bundle's model propose labels, to be corrected in Label Studio or CVAT and read back with `label`."""
    from tinysight_contract.bundle import Bundle
    from tinysight_contract.errors import ConfigError
    from tinysight_edge.console import console, finish
    from tinysight_trainer.data.dataset import open_dataset
    from tinysight_trainer.data.label import propose, write_proposals

    if tool not in {"label-studio", "cvat"}:
        raise ConfigError(f"There is no tool {tool!r}.", mend="Choose label-studio or cvat.")
    held, opened = open_dataset(data), Bundle.open(bundle)
    with _counting("proposing", quiet=quiet, total=len(held.items)) as count:
        made = propose(held, opened, everything=everything, min_score=min_score, progress=lambda n: count(n, None))
    files = write_proposals(held, made, opened.manifest.labels, opened.manifest.task, out, tool=tool)
    if not quiet and tool == "label-studio":
        console.print(
            f"Paste labels.xml into the project's labelling interface and import tasks.json; start Label Studio with "
            f"LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={data.resolve()}"
        )
    result = {"pictures": len(made), "proposals": sum(len(each) for each in made.values())}
    finish({**result, "files": [str(path) for path in files]}, as_json=as_json)


@data_app.command()
def label(
    data: Data,
    export: Annotated[Path, typer.Argument(help="JSON of Label Studio, or XML of CVAT.", show_default=False)],
    *,
    as_json: Json = False,
) -> None:
    """Take over the labels that people gave in Label Studio or CVAT."""
    from tinysight_trainer.data.dataset import open_dataset
    from tinysight_trainer.data.label import take_labels

    labelled, count = take_labels(open_dataset(data), export)
    labelled.save()
    _finish(labelled, as_json=as_json, taken=count)


@data_app.command()
def split(
    data: Data,
    *,
    anew: Annotated[bool, typer.Option("--anew", help="Forget the splits that are there.")] = False,
    cut_sessions: Annotated[int, typer.Option(help="Cut each session into so many parts by time.", min=1)] = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Part pictures into train, calibration and test so that sessions and near-duplicates stay together."""
    from tinysight_trainer.data.dataset import open_dataset
    from tinysight_trainer.data.split import split_dataset
    from tinysight_trainer.data.take import looks_of

    held = open_dataset(data)
    with _counting("looking", quiet=quiet, total=len(held.items)) as count:
        looks = looks_of(held, lambda done: count(done, len(held.items)))
    parted = split_dataset(held, looks, anew=anew, cut=cut_sessions)
    parted.save()
    _finish(parted, as_json=as_json)


@data_app.command()
def clean(
    data: Data,
    *,
    models: Annotated[
        bool, typer.Option("--models/--no-models", help="Train quick models to find wrong labels, boxes, turns.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find broken, doubled, turned and mislabelled pictures: clean.html to look at, clean.json to decide."""
    from tinysight_contract.files import replace_file
    from tinysight_edge.console import console, finish
    from tinysight_trainer.cli import quiet_tensorflow
    from tinysight_trainer.data.dataset import open_dataset

    with quiet_tensorflow():
        from tinysight_trainer.data.clean import CLEAN, find_faults, save_findings
        from tinysight_trainer.data.clean_page import clean_page

    held = open_dataset(data)
    with _counting("looking", quiet=quiet, total=len(held.items)) as count:
        found = find_faults(
            held,
            models=models,
            say=lambda text: None if quiet else console.print(text),
            progress=lambda done: count(done, None),
        )
    save_findings(data / CLEAN, found)
    page = (data / CLEAN).with_suffix(".html")
    replace_file(page, clean_page(held, found))
    result = {"data": str(data), "findings": len(found.findings), **found.counts(), "page": str(page)}
    finish(result, as_json=as_json)


@data_app.command()
def apply(
    data: Data,
    *,
    findings: Annotated[
        Path | None, typer.Option(help="The decided list. [default: clean.json of the data set]", show_default=False)
    ] = None,
    accept: Annotated[str, typer.Option(help="Accept all of these kinds besides, with commas between.")] = "",
    as_json: Json = False,
) -> None:
    """Do what was accepted of `tinysight data clean`; pictures taken out are kept in removed/."""
    from tinysight_contract.errors import ConfigError
    from tinysight_trainer.data.checks import KINDS
    from tinysight_trainer.data.clean import CLEAN, apply_findings, load_findings
    from tinysight_trainer.data.dataset import open_dataset

    kinds = [kind.strip() for kind in accept.split(",") if kind.strip()]
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"There is no kind of finding {unknown[0]!r}.", mend=f"Known: {', '.join(KINDS)}.")
    held = open_dataset(data)
    found = load_findings(findings or data / CLEAN)
    wanted = [
        each
        for each in found.findings
        if each.decision == "accept" or (each.kind in kinds and each.decision != "reject")
    ]
    cleaned = apply_findings(held, found, wanted)
    _finish(cleaned, as_json=as_json, accepted=len(wanted), removed=len(held.items) - len(cleaned.items))


@data_app.command()
def inspect(
    data: Data,
    *,
    report: Annotated[Path | None, typer.Option(help="Write a page with charts and samples, FILE.html.")] = None,
    input_size: Annotated[
        str, typer.Option("--input", help="WIDTHxHEIGHT of the model that is to see the boxes.")
    ] = "128x96",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look at a data set before trusting it: what is in it, how even, how small, and samples of every class."""
    from rich.markup import escape

    from tinysight_contract.files import replace_file
    from tinysight_edge.console import console, finish
    from tinysight_trainer.config import parse_size
    from tinysight_trainer.data.dataset import open_dataset
    from tinysight_trainer.data.inspect import findings, inspect_data

    size = parse_size(input_size, "detect", "small")
    held = open_dataset(data)
    found = inspect_data(held, size)
    said = [*held.notes, *findings(found)]
    if report is not None:
        from tinysight_trainer.data.inspect_page import inspection_page

        with _counting("drawing", quiet=quiet) as count:
            content = inspection_page(held, found, progress=count)
        replace_file(report, content)
    where = None if report is None else str(report)
    if as_json:
        finish({"data": str(data), **found.result(), "findings": said, "report": where}, as_json=True)
        return
    for each in said:
        console.print(each, markup=False)
    finish({name: escape(str(value)) for name, value in _in_short(found, data, where).items()}, as_json=False)


def _in_short(found: "Inspection", data: Path, report: str | None) -> dict[str, str]:
    """The figures that fit on a screen."""
    out = {
        "data": str(data),
        "task": found.task or "nothing is labelled",
        "pictures": f"{found.total}: " + ", ".join(f"{count} {split}" for split, count in found.pictures.items()),
        "classes": f"{len(found.objects)}, most to least frequent {found.imbalance:.3g} : 1",
        "objects": f"{found.shown}; {found.empty} pictures show nothing",
        "sizes": ", ".join(f"{width}x{height} ({count})" for width, height, count in found.sizes),
    }
    if found.largest_session is not None:
        out["sessions"] = f"{found.sessions}, the largest has {found.largest_session[1]} pictures"
    for each in () if found.boxes is None else (found.boxes, *(() if found.boxes.fits else found.others)):
        width, height = each.input_wh
        out[f"at {width}x{height}"] = (
            f"{each.too_small:.2%} of the boxes too small, {each.same_cell_pairs:.2%} of the pairs in one cell, "
            f"{each.hidden:.2%} of the objects hidden"
        )
    if found.splits is not None:
        out["leak"] = f"{found.splits.leak:.2%}, at random {found.splits.random_leak:.2%}"
    out |= {"left out": str(found.left_out_count), "digest": found.digest}
    return out if report is None else {**out, "report": report}


def _finish(data: "Dataset", *, as_json: bool, **more: Any) -> None:  # noqa: ANN401 -- figures of any kind
    """End with what is in a data set now."""
    from tinysight_edge.console import console, finish

    for note in data.notes:
        console.print(note)
    for each in data.left_out[:5]:
        console.print(f"left out: {each.file}: {each.why}")
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
def _counting(what: str, *, quiet: bool, total: int | None = None) -> Iterator[Callable[[int, int | None], None]]:
    """A bar while the ``with`` lasts, to be told how many of how many are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tinysight_edge.console import console

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task(what, total=total)

        def count(done: int, of: int | None = None) -> None:
            bar.update(task, completed=done, total=of or total)

        yield count
