"""``tinysight bundle``: import one of a foreign model, look into one, compare two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tinysight_contract.manifest import Anchors

__all__ = ["bundle_app"]

bundle_app = typer.Typer(no_args_is_help=True)

MAX_SHOWN = 200
VERSION = r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?"


@bundle_app.callback()
def _bundle() -> None:
    """Bundles: bring your own model, look into one, compare two."""


@bundle_app.command("import")
def import_(
    model: Annotated[Path, typer.Argument(help="A .tflite file that somebody else's tools made.", show_default=False)],
    *,
    decode: Annotated[str, typer.Option(help="What its outputs are: centernet, classify, ssd, ssd-anchors or yolo.")],
    labels: Annotated[Path, typer.Option(help="Text file with a label per line, in the model's order.")],
    name: Annotated[str, typer.Option(help="Of the model.")],
    out: Annotated[Path, typer.Option(help="The bundle to write.")],
    resize: Annotated[
        str | None, typer.Option(help="How frames were fitted in training: letterbox, stretch or crop.")
    ] = None,
    pixels: Annotated[
        str | None, typer.Option(help="What pixels were in training: 0..1, -1..1 or 0..255. Asked for float inputs.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Instead of --pixels: per channel on 0..255, a,b,c.")] = None,
    std: Annotated[str | None, typer.Option(help="With --mean: per channel on 0..255, a,b,c.")] = None,
    color: Annotated[str | None, typer.Option(help="RGB, BGR or GRAY. [default: RGB, GRAY for one channel]")] = None,
    fill: Annotated[int, typer.Option(help="Gray of a letterbox's edges.", min=0, max=255)] = 114,
    activation: Annotated[
        str | None,
        typer.Option(help="Still to be applied to scores: none, softmax, sigmoid (classify, ssd-anchors)."),
    ] = None,
    units: Annotated[str | None, typer.Option(help="Of boxes: pixels or normalized (yolo).")] = None,
    objectness: Annotated[
        bool | None, typer.Option(help="A fifth number weighs the scores (yolo). Asked when shapes do not say it.")
    ] = None,
    background: Annotated[
        bool | None, typer.Option(help="The file's class 0 is no label. [default: as shapes say, no for ssd]")
    ] = None,
    anchors: Annotated[
        str | None, typer.Option(help="ssd-mobilenet, or a JSON file (ssd-anchors); see docs/decoders.md.")
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(help="ROLE=NAME where shapes do not say it. Repeatable.", show_default=False),
    ] = None,
    score: Annotated[float, typer.Option(help="Detections below it are not told.", min=0.0, max=1.0)] = 0.5,
    iou: Annotated[float, typer.Option(help="Boxes of a class that overlap more are one.", min=0.0, max=1.0)] = 0.5,
    max_objects: Annotated[int, typer.Option(help="Told of one frame at most.", min=1, max=1000)] = 100,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of pictures to check devices with. [default: drawn ones]")
    ] = None,
    version: Annotated[str, typer.Option(help="Of the model.")] = "0.1.0",
    release: Annotated[int, typer.Option(help="Rises with each bundle of this name.", min=0)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and results.")] = False,
) -> None:
    """Make a bundle of a TFLite file from elsewhere; what its outputs mean is checked, not guessed."""
    import re

    from tinysight_contract.errors import ConfigError
    from tinysight_contract.manifest import Thresholds
    from tinysight_contract.topics import check_id
    from tinysight_converters.roles import Asked, check_kind
    from tinysight_edge.console import console, finish

    check_kind(decode)
    check_id(name, what="--name")
    if re.fullmatch(VERSION, version) is None:
        raise ConfigError(f"--version {version!r} is no version.", mend="Write it as 1.2.3.")
    from tinysight_converters.foreign import Wanted, import_model
    from tinysight_converters.foreign_picture import PIXELS, Picture

    made = import_model(
        model,
        labels,
        out,
        asked=Asked(
            decode=decode,
            activation=_choice("--activation", activation, ("none", "softmax", "sigmoid")),
            units=_choice("--units", units, ("pixels", "normalized")),
            objectness=objectness,
            background=background,
            anchors=_anchors(anchors),
            max_objects=max_objects,
            outputs=_pairs(output or []),
        ),
        picture=Picture(
            resize=_choice("--resize", resize, ("letterbox", "stretch", "crop")),
            pixels=_choice("--pixels", pixels, tuple(PIXELS)),
            mean=_numbers("--mean", mean),
            std=_numbers("--std", std),
            color=_choice("--color", color and color.upper(), ("RGB", "BGR", "GRAY")),
            fill=fill,
        ),
        wanted=Wanted(
            name=name,
            version=version,
            release=release,
            thresholds=Thresholds(score=score, iou=iou),
            pictures=pictures,
        ),
        say=lambda line: None if quiet else console.print(f"{line} …"),
    )
    manifest = made.manifest
    variant = manifest.variants[0]
    finish(
        {
            "bundle": str(out),
            "digest": made.digest,
            "bundle_kib": made.size_bytes / 1024,
            "scheme": variant.scheme,
            "input": f"{variant.input.dtype} {manifest.input.width}x{manifest.input.height} {manifest.input.color} "
            f"{manifest.input.layout}",
            "pixels": made.pixels,
            "outputs": ", ".join(f"{output.role}={output.name}" for output in variant.outputs),
            "decode": _shown(manifest.decode),
            "labels": len(manifest.labels),
            "found": ", ".join(map(str, made.found)),
        },
        as_json=as_json,
    )


@bundle_app.command("inspect")
def inspect_(
    bundle: Annotated[Path, typer.Argument(help="A bundle.", show_default=False)],
    *,
    html: Annotated[
        Path | None, typer.Option(help="Draw the graph with each layer's error here.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line, the manifest whole.")] = False,
) -> None:
    """Print what a bundle holds: how it is fed and decoded, its variants, their operators, its proof."""
    import sys

    import msgspec

    from tinysight_contract.bundle import Bundle
    from tinysight_contract.files import replace_file
    from tinysight_converters.inspect import inspection, inspection_page

    held = Bundle.open(bundle)
    if html is not None:
        replace_file(html, inspection_page(held))
    found = inspection(held)
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        _print(found)


@bundle_app.command("diff")
def diff(
    one: Annotated[Path, typer.Argument(help="A bundle.", show_default=False)],
    other: Annotated[Path, typer.Argument(help="Another.", show_default=False)],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Print what differs between two bundles; status 1 when something does."""
    import sys

    import msgspec
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from tinysight_contract.bundle import Bundle
    from tinysight_converters.graph import printable
    from tinysight_converters.inspect import difference

    rows = difference(Bundle.open(one), Bundle.open(other))
    if as_json:
        found = [{"what": what, "one": left, "other": right} for what, left, right in rows]
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    elif rows:
        table = Table(*(Column(Text(name)) for name in ("what", one.name, other.name)), box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(Text(printable(each)[:MAX_SHOWN]) for each in row))
        Console(highlight=False).print(table)
    if rows:
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tinysight_converters.graph import printable

    console, manifest = Console(highlight=False), found["manifest"]
    console.print(f"{manifest['name']} {manifest['version']}, release {manifest['release']}", style="bold")
    facts = {
        "digest": found["digest"],
        "task": f"{manifest['task']}, {len(manifest['labels'])} labels: {', '.join(manifest['labels'][:12])}",
        "input": " ".join(f"{key}={value}" for key, value in manifest["input"].items() if value is not None),
        "decode": " ".join(f"{key}={value}" for key, value in manifest["decode"].items() if key != "anchors"),
        "threshold": manifest["thresholds"]["score"],
        "data set": manifest["provenance"]["dataset_digest"] or "unknown",
        "calibration": manifest["provenance"]["calibration_digest"] or "none",
    }
    grid = Table(box=None, pad_edge=False, show_header=False)
    for key, value in facts.items():
        grid.add_row(key, Text(printable(str(value))))
    console.print(grid)
    metrics = {each["scheme"]: each["metrics"] for each in found["proof"].get("variants", [])}
    table = Table("variant", "KiB", "input", "proof", "runs on", "operators", box=None, pad_edge=False)
    for each, variant in zip(found["variants"], manifest["variants"], strict=True):
        proof = ", ".join(f"{name} {value:.4f}" for name, value in metrics.get(each["scheme"], {}).items())
        operators = ", ".join(f"{count} {name}" for name, count in each["operators"].items())
        tensor = f"{variant['input']['dtype']} {variant['input']['shape']}"
        row = (each["scheme"], f"{each['kib']:.0f}", tensor, proof or "none", "\n".join(each["runtimes"]), operators)
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    console.print(table)


def _choice(flag: str, given: str | None, choices: tuple[str, ...]) -> str | None:
    from tinysight_contract.errors import ConfigError

    if given is not None and given not in choices:
        raise ConfigError(f"{flag} {given!r} is not known.", mend=f"Choose one of {', '.join(choices)}.")
    return given


def _numbers(flag: str, given: str | None) -> list[float] | None:
    import math

    from tinysight_contract.errors import ConfigError

    if given is None:
        return None
    try:
        numbers = [float(each) for each in given.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(math.isfinite(each) for each in numbers):
        raise ConfigError(f"{flag} {given!r} is no list of numbers.", mend="Write it as 123.7,116.3,103.5.")
    return numbers


def _pairs(given: list[str]) -> dict[str, str]:
    from tinysight_contract.errors import ConfigError

    made: dict[str, str] = {}
    for text in given:
        role, equals, output = text.partition("=")
        if not equals or role in made:
            raise ConfigError(f"--output {text!r} is not understood.", mend="Write ROLE=NAME, each role once.")
        made[role] = output
    return made


def _anchors(given: str | None) -> "Anchors | None":
    from tinysight_contract.errors import ConfigError
    from tinysight_converters.roles import PRESETS, parse_anchors

    if given is None or given in PRESETS:
        return PRESETS[given] if given else None
    try:
        return parse_anchors(Path(given).read_bytes()[: 1 << 20], source=f"--anchors {given}")
    except OSError as error:
        raise ConfigError(
            f"--anchors {given} cannot be read: {error.strerror}.", mend=f"Give a JSON file, or {', '.join(PRESETS)}."
        ) from error


def _shown(decode: object) -> str:
    import msgspec

    fields = msgspec.to_builtins(decode)
    kind = fields.pop("kind")
    fields.pop("anchors", None)
    return " ".join([kind, *(f"{key}={value}" for key, value in fields.items())])
