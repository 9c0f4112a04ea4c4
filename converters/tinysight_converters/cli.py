"""``tinysight convert`` and ``export`` from the command line."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["convert", "export"]


def convert(
    run: Annotated[Path, typer.Argument(help="The run folder of a finished training.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option(help="The bundle to write.")],
    name: Annotated[str | None, typer.Option(help="Of the model. [default: from --out]", show_default=False)] = None,
    version: Annotated[str, typer.Option(help="Of the model.")] = "0.1.0",
    release: Annotated[int, typer.Option(help="Rises with each bundle of this name.", min=0)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and results.")] = False,
) -> None:
    """Quantize a trained model to int8 and prove it on held-out pictures; both go into one bundle."""
    import re

    from tinysight_contract.errors import ConfigError
    from tinysight_contract.topics import check_id
    from tinysight_edge.console import console, finish

    name = check_id(name or out.stem.lower().replace("_", "-"), what="--name")
    if re.fullmatch(r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?", version) is None:
        raise ConfigError(f"--version {version!r} is no version.", mend="Write it as 1.2.3.")
    from tinysight_converters.convert import convert_run

    made = convert_run(
        run,
        out,
        name=name,
        version=version,
        release=release,
        say=lambda line: None if quiet else console.print(f"{line} …"),
    )
    int8, reference = made.proofs["int8"], made.proofs["float32"]
    figures: dict[str, float | str] = {"bundle": str(out), "digest": made.digest}
    for metric in reference.metrics:
        figures |= {f"float_{metric}": reference.metrics[metric], f"int8_{metric}": int8.metrics[metric]}
    figures |= {
        "agreement": int8.agreement,
        "threshold": made.threshold,
        "bundle_kib": made.size_bytes / 1024,
        "int8_kib": int8.size_bytes / 1024,
        "float_kib": reference.size_bytes / 1024,
        "int8_ms": int8.latency_ms[0],
        "float_ms": reference.latency_ms[0],
    }
    finish(figures, as_json=as_json)


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
