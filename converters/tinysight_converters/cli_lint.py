"""``tinysight lint`` from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tinysight_converters.lint import Finding

__all__ = ["lint"]


def lint(
    model: Annotated[
        Path,
        typer.Argument(help="A run folder, a .keras, a SavedModel, a .tflite or a bundle.", show_default=False),
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Say what in a model will suffer from int8 or fail on a device, what that costs, and how to mend it.

    Status 1 when something will not run at all.
    """
    import sys

    import msgspec

    findings = _findings(model)
    if as_json:
        sys.stdout.write(msgspec.json.encode({"model": str(model), "findings": findings}).decode() + "\n")
    else:
        _show(findings)
    if any(each.level == "error" for each in findings):
        raise typer.Exit(1)


def _findings(model: Path) -> "list[Finding]":
    from tinysight_contract.bundle import Bundle
    from tinysight_contract.errors import ConversionError
    from tinysight_converters.graph import read_graph
    from tinysight_converters.lint import lint_graph
    from tinysight_converters.run import MODEL
    from tinysight_converters.trial import read_model, try_model

    if not model.exists():
        raise ConversionError(f"There is no {model}.", mend="Check the path.")
    if model.is_file() and model.suffix in {".bundle", ".tflite"}:
        bundle = Bundle.open(model) if model.suffix == ".bundle" else None
        content = bundle.read(bundle.manifest.variants[0].file) if bundle else read_model(model)
        return lint_graph(read_graph(content), try_model(content))
    if (model / MODEL).is_file():
        model = model / MODEL
    return _before_conversion(model)


def _before_conversion(model: Path) -> "list[Finding]":
    """By its layers, and by what TensorFlow's converter makes of it in float32."""
    import numpy as np

    from tinysight_contract.errors import ConversionError
    from tinysight_converters.graph import read_graph
    from tinysight_converters.lint import RULES, lint_graph
    from tinysight_converters.tflite import Recipe, convert_model

    findings: list[Finding] = []
    if model.is_file() and model.suffix == ".keras":
        from tinysight_converters.lint_keras import lint_keras_file

        findings = lint_keras_file(model)
        if any(each.level == "error" and each.rule in {"several-inputs", "unknown-shape"} for each in findings):
            return findings
    elif not (model / "saved_model.pb").is_file():
        raise ConversionError(
            f"{model} is no model.", mend="Give a run folder, a .keras, a SavedModel, a .tflite or a bundle."
        )
    try:
        (content,) = convert_model(model, np.zeros((0, 1, 1, 3)), [Recipe(scheme="float32", flex=True)]).files
    except ConversionError as error:
        why = str(error).removesuffix(error.mend).strip()
        raise ConversionError(why, mend="Change the model: what does not convert runs on no device.") from error
    seen = {each.rule for each in findings}
    findings += [each for each in lint_graph(read_graph(content)) if each.rule not in seen]
    return sorted(findings, key=lambda each: list(RULES).index(each.rule))


def _show(findings: "list[Finding]") -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if not findings:
        console.print("Nothing in it is known to suffer from int8.")
    for each in findings:
        style = "red" if each.level == "error" else ""
        console.print(f"{each.level}: {each.rule}: {each.place}", markup=False, style=style)
        console.print(f"  why:  {each.reason}\n  cost: {each.cost}\n  mend: {each.mend}", markup=False)
