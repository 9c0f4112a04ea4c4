"""``tinysight bundle import``: what the user says of somebody else's model, checked and handed on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from tinysight_contract.manifest import Anchors, RuntimeCheck, Scheme

__all__ = ["import_"]

MAX_ANCHORS_BYTES = 1 << 20


def import_(
    model: Annotated[Path, typer.Argument(help="A .tflite, a .keras or a SavedModel's folder.", show_default=False)],
    *,
    decode: Annotated[str, typer.Option(help="What its outputs are: centernet, classify, ssd, ssd-anchors or yolo.")],
    name: Annotated[str, typer.Option(help="Of the model.")],
    out: Annotated[Path, typer.Option(help="The bundle to write.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="Text file with a label per line, in the model's order. [default: the file's metadata]"),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(help="What numbers become: float32, float16, dynamic or int8; of a .keras or a SavedModel."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of images, or a .npy, to find int8's ranges with.")
    ] = None,
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
    layout: Annotated[
        str | None,
        typer.Option(
            help="channels-first, channels-last or end-to-end (yolo). Asked when shapes do not say it.",
            show_default=False,
        ),
    ] = None,
    background: Annotated[
        bool | None, typer.Option(help="The file's class 0 is no label. Asked when there is a score too many.")
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
    """Make a bundle of a model from elsewhere; what its outputs mean is checked, not guessed."""
    from tinysight_contract.manifest import Thresholds, check_version
    from tinysight_contract.topics import check_id
    from tinysight_converters.foreign.roles import LAYOUTS, Asked, check_kind
    from tinysight_edge.console import console, finish

    check_kind(decode)
    check_id(name, what="--name")
    check_version(version, what="--version")
    from tinysight_converters.foreign.importer import Wanted, import_model
    from tinysight_converters.foreign.model import SCHEMES
    from tinysight_converters.foreign.picture import PIXELS, Picture

    made = import_model(
        model,
        labels,
        out,
        asked=Asked(
            decode=decode,
            activation=_choice("--activation", activation, ("none", "softmax", "sigmoid")),
            units=_choice("--units", units, ("pixels", "normalized")),
            objectness=objectness,
            layout=_choice("--layout", layout, LAYOUTS),
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
            scheme=cast("Scheme | None", _choice("--scheme", scheme, SCHEMES)),
            calibration=calibration,
        ),
        say=lambda line: None if quiet else console.print(f"{line} …", markup=False),
    )
    for warning in made.warnings if not quiet else ():
        console.print(f"warning: {warning}", markup=False)
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
            "labelled_by": made.labelled_by,
            "runtimes": ", ".join(_check(each) for each in variant.runtimes),
            "found": ", ".join(map(str, made.found)),
        },
        as_json=as_json,
    )


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
    from tinysight_contract.files import read_capped
    from tinysight_converters.foreign.roles import PRESETS, parse_anchors

    if given is None or given in PRESETS:
        return PRESETS[given] if given else None
    try:
        return parse_anchors(read_capped(Path(given), MAX_ANCHORS_BYTES), source=f"--anchors {given}")
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


def _check(check: "RuntimeCheck") -> str:
    return f"{check.name} {check.version}".strip() + ("" if check.ok else f" fails: {check.detail}")
