"""``tinysight data``: from raw pictures to a data set one can trust."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinysight_trainer.cli_label import collect, label, prelabel
from tinysight_trainer.cli_pull import pull
from tinysight_trainer.cli_shared import Data, Json, Quiet, counting, finish_data, quiet_tensorflow

if TYPE_CHECKING:
    from tinysight_trainer.data.inspect import Inspection

__all__ = ["data_app"]

data_app = typer.Typer(no_args_is_help=True)
synth_app = typer.Typer(no_args_is_help=True)
data_app.add_typer(synth_app, name="synth", help="Draw a data set: nothing is downloaded.")

NewData = Annotated[Path, typer.Option("--out", help="The data set to make.")]


for command in (collect, pull, prelabel, label):
    data_app.command()(command)


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
    with counting("drawing", quiet=quiet) as count:
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
    with counting("importing", quiet=quiet) as count:
        data = import_pictures(
            raws,
            out,
            source={"format": chosen, "from": Path(source).name},
            rename=renamed,
            session=session,
            progress=lambda done: count(done, None),
        )
    finish_data(data, as_json=as_json)


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
    with counting("looking", quiet=quiet, total=len(held.items)) as count:
        looks = looks_of(held, lambda done: count(done, len(held.items)))
    parted = split_dataset(held, looks, anew=anew, cut=cut_sessions)
    parted.save()
    finish_data(parted, as_json=as_json)


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
    from tinysight_trainer.data.dataset import open_dataset

    with quiet_tensorflow():
        from tinysight_trainer.data.clean import CLEAN, find_faults, save_findings
        from tinysight_trainer.data.clean_page import clean_page

    held = open_dataset(data)
    with counting("looking", quiet=quiet, total=len(held.items)) as count:
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
    finish_data(cleaned, as_json=as_json, accepted=len(wanted), removed=len(held.items) - len(cleaned.items))


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

        with counting("drawing", quiet=quiet) as count:
            content = inspection_page(held, found, progress=count)
        replace_file(report, content)
    where = None if report is None else str(report)
    if as_json:
        finish({"data": str(data), **found.result(), "findings": said, "report": where}, as_json=True)
        return
    for each in said:
        console.print(each, markup=False)
    finish(_in_short(found, data, where), as_json=False)


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
