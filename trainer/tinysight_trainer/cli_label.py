"""``tinysight data collect``, ``prelabel`` and ``label``: from a camera to labels that people gave."""

from pathlib import Path
from typing import Annotated

import typer

from tinysight_trainer.cli_shared import Data, Json, Quiet, counting, finish_data

__all__ = ["collect", "label", "prelabel"]


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
    from tinysight_edge.config.types import CameraConfig
    from tinysight_edge.sources import open_source
    from tinysight_trainer.data.collect import collect as take_pictures

    if on not in {"always", "motion"}:
        raise ConfigError(f"There is no --on {on!r}.", mend="Choose always or motion.")
    every_s = _seconds(every)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    opened = open_source(CameraConfig(source=source))
    try:
        with counting("collecting", quiet=quiet, total=most) as count:
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
    finish_data(data, as_json=as_json, session=done.session, seen=done.seen, kept=done.kept, alike=done.alike)


def _seconds(text: str) -> float:
    import re

    from tinysight_contract.errors import ConfigError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no time.", mend="Write it with its unit: 500ms, 2s, 1m.")
    return float(found[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


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
    if tool == "cvat" and everything:
        raise ConfigError("CVAT has one layer for labels and proposals.", mend="Leave out --all, or use Label Studio.")
    held, opened = open_dataset(data), Bundle.open(bundle)
    with counting("proposing", quiet=quiet, total=len(held.items)) as count:
        made = propose(held, opened, everything=everything, min_score=min_score, progress=lambda n: count(n, None))
    files = write_proposals(held, made, opened.manifest.labels, opened.manifest.task, out, tool=tool)
    if not quiet and tool == "label-studio":
        console.print(
            f"Paste labels.xml into the project's labelling interface and import tasks.json; start Label Studio with "
            f"LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={data.resolve()}"
        )
    result = {"pictures": len(made), "proposals": sum(len(each) for each in made.values())}
    finish({**result, "files": [str(path) for path in files]}, as_json=as_json)


def label(
    data: Data,
    export: Annotated[Path, typer.Argument(help="JSON of Label Studio, or XML of CVAT.", show_default=False)],
    *,
    empty: Annotated[bool, typer.Option("--empty", help="CVAT: pictures without any label show nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Take over the labels that people gave in Label Studio or CVAT."""
    from tinysight_trainer.data.dataset import open_dataset
    from tinysight_trainer.data.label import take_labels

    labelled, count = take_labels(open_dataset(data), export, empty=empty)
    labelled.save()
    finish_data(labelled, as_json=as_json, taken=count)
