"""``tinysight bundle``: import one of a foreign model (`cli_import`), look into one, compare two."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tinysight_converters.cli_import import import_

__all__ = ["bundle_app"]

bundle_app = typer.Typer(no_args_is_help=True)
bundle_app.command("import")(import_)

MAX_SHOWN = 200


@bundle_app.callback()
def _bundle() -> None:
    """Bundles: bring your own model, look into one, compare two."""


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
    from tinysight_converters.inspect import DIGEST, difference

    rows = difference(Bundle.open(one), Bundle.open(other))
    if as_json:
        found = [{"what": what, "one": left, "other": right} for what, left, right in rows]
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    elif rows:
        table = Table(*(Column(Text(name)) for name in ("what", one.name, other.name)), box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(Text(printable(each)[:MAX_SHOWN]) for each in row))
        console = Console(highlight=False)
        console.print(table)
        if rows[0][0] == DIGEST:
            console.print("Nothing else that is read differs.")
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
        "data set": manifest["provenance"]["dataset_digest"] or "unknown",
        "calibration": manifest["provenance"]["calibration_digest"] or "none",
        "in its tests": found["found"],
    }
    grid = Table(box=None, pad_edge=False, show_header=False)
    for key, value in facts.items():
        grid.add_row(key, Text(printable(str(value))))
    console.print(grid)
    metrics = {each["scheme"]: each["metrics"] for each in found["proof"].get("variants", [])}
    table = Table("variant", "KiB", "input", "threshold", "proof", "runs on", "operators", box=None, pad_edge=False)
    outputs = Table("variant", "role", "output", "type", box=None, pad_edge=False)
    for each, variant in zip(found["variants"], manifest["variants"], strict=True):
        proof = ", ".join(f"{name} {value:.4f}" for name, value in metrics.get(each["scheme"], {}).items())
        operators = ", ".join(f"{count} {name}" for name, count in each["operators"].items())
        tensor = f"{variant['input']['dtype']} {variant['input']['shape']}"
        score = f"{(variant['thresholds'] or manifest['thresholds'])['score']:.3g}"
        runs = "\n".join(each["runtimes"])
        row = (each["scheme"], f"{each['kib']:.0f}", tensor, score, proof or "none", runs, operators)
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
        for output in variant["outputs"]:
            cells = (each["scheme"], output["role"], output["name"], f"{output['dtype']} {output['shape']}")
            outputs.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)
    console.print(outputs)
