"""``tinysight convert`` and ``export`` from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from tinysight_contract.manifest import Scheme
    from tinysight_converters.convert import Conversion
    from tinysight_converters.ladder import Step

__all__ = ["convert", "export"]


def convert(
    run: Annotated[Path, typer.Argument(help="The run folder of a finished training.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option(help="The bundle to write; its report goes beside it.")],
    scheme: Annotated[
        str, typer.Option(help="Variants: int8, int8-qat, dynamic, float16, float32; a device takes the best it can.")
    ] = "int8",
    budget: Annotated[
        str | None,
        typer.Option(help="What the first variant may cost: drop=0.5pt,kib=600,ms=2.", show_default=False),
    ] = None,
    keep_float: Annotated[
        str | None, typer.Option(help="Layers that int8 leaves in float32, as the report names them.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images, or a .npy of (n, h, w, c) in 0..255. [default: of the run]", show_default=False
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model. [default: from --out]", show_default=False)] = None,
    version: Annotated[str, typer.Option(help="Of the model.")] = "0.1.0",
    release: Annotated[int, typer.Option(help="Rises with each bundle of this name.", min=0)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and results.")] = False,
) -> None:
    """Quantize a trained model and prove it on held-out pictures; all goes into one bundle.

    With a budget that plain int8 breaks: better calibration, then the worst layers in float, then training for int8.
    Status 1, and no bundle, when none of them holds.
    """
    from tinysight_contract.manifest import check_version
    from tinysight_contract.topics import check_id
    from tinysight_edge.console import console, finish

    name = check_id(name or out.stem.lower().replace("_", "-"), what="--name")
    check_version(version, what="--version")
    from tinysight_converters.budget import parse_budget

    limits = parse_budget(budget) if budget is not None else None
    schemes = _schemes(scheme)
    from tinysight_converters.candidates import Wish
    from tinysight_converters.convert import convert_run

    wish = Wish(
        name=name,
        version=version,
        release=release,
        schemes=schemes,
        budget=limits,
        keep_float=tuple(part.strip() for part in (keep_float or "").split(",") if part.strip()),
        calibration=calibration,
    )
    made = convert_run(run, out, wish, say=lambda line: None if quiet else console.print(line, markup=False))
    if made.ladder and not as_json:
        _show_ladder(made.ladder)
    figures = _figures(made, out)
    if made.ladder and as_json:
        figures["ladder"] = [_step(step) for step in made.ladder]
    finish(figures, as_json=as_json)
    if made.digest is None:
        console.print("No step keeps the budget; nothing was written. Widen it, or train a better model.")
        raise typer.Exit(1)


def _schemes(text: str) -> "tuple[Scheme, ...]":
    from typing import get_args

    from tinysight_contract.errors import ConfigError
    from tinysight_contract.manifest import Scheme

    known = [each for each in get_args(Scheme) if each != "int8-mixed"]
    wanted = [part.strip() for part in text.split(",")]
    if unknown := [each for each in wanted if each not in known]:
        raise ConfigError(f"--scheme: there is no {unknown[0]!r}.", mend=f"Choose among {', '.join(known)}.")
    return tuple(each for each in known if each in wanted)


def _figures(made: "Conversion", out: Path) -> dict[str, Any]:
    first = made.variants[0]
    figures: dict[str, Any] = {"bundle": str(out) if made.digest else None, "digest": made.digest}
    figures |= {f"float_{name}": value for name, value in made.reference.proof.metrics.items()}
    for each in made.variants:
        scheme = each.scheme.replace("-", "_")
        figures |= {f"{scheme}_{name}": value for name, value in each.proof.metrics.items()}
        figures |= {f"{scheme}_kib": each.figures.kib, f"{scheme}_ms": each.figures.ms}
    figures |= {
        "drop_pt": first.figures.drop_pt,
        "agreement": first.proof.agreement,
        "threshold": first.proof.threshold,
        "float_kib": made.reference.figures.kib,
        "float_ms": made.reference.figures.ms,
    }
    if made.digest is not None:
        figures |= {"bundle_kib": made.size_bytes / 1024, "report": str(made.report)}
    return figures


def _step(step: "Step") -> dict[str, Any]:
    import msgspec

    costs = msgspec.to_builtins(step.figures) if step.figures is not None else {}
    return {"step": step.name, **costs, "bought_pt": step.bought_pt, "holds": step.holds, "said": step.said}


def _show_ladder(ladder: "list[Step]") -> None:
    """What each step bought, as a table on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step")
    for head in ("metric", "drop", "bought", "KiB", "ms"):
        table.add_column(head, justify="right")
    table.add_column("budget")
    for step in ladder:
        cells = [""] * 5
        if step.figures is not None:
            cells = [f"{step.figures.metric:.4f}", f"{step.figures.drop_pt:+.2f}pt", f"{step.bought_pt:+.2f}pt"]
            cells += [f"{step.figures.kib:.0f}", f"{step.figures.ms:.2f}"]
        table.add_row(Text(step.name), *cells, Text(step.said or "holds"))
    Console(highlight=False).print(table)


def export(
    run: Annotated[Path, typer.Argument(help="The run folder of a finished training.", show_default=False)],
    *,
    onnx: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    batch: Annotated[Literal["1", "dynamic"], typer.Option(help="Pictures at a time: one, or any number.")] = "1",
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and results.")] = False,
) -> None:
    """Write a trained model as ONNX, in float32, compared with Keras on held-out pictures."""
    from tinysight_converters.onnx_export import export_onnx
    from tinysight_edge.console import console, finish

    made = export_onnx(run, onnx, batch=batch, say=lambda line: None if quiet else console.print(f"{line} …"))
    figures = {"onnx": str(onnx), "sha256": made.sha256, "batch": batch, "opset": made.opset}
    figures |= {"onnx_kib": made.size_bytes / 1024, "pictures": made.pictures, "difference": made.difference}
    finish(figures, as_json=as_json)
