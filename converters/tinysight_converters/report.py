"""The proof as a file for programs and a page for people.

In: what `proof` measured.  Out: ``report.json``, and ``report.html``: one self-contained page with pictures, readable
on a phone, with nothing loaded from anywhere and every text from outside escaped.
"""

from pathlib import Path
from typing import Any, Final

import msgspec

from tinysight_contract.manifest import Manifest
from tinysight_converters.drawing import class_chart, confusion_chart, curve_chart, example_sheet
from tinysight_converters.metrics import confusion
from tinysight_converters.page import card, cards, image, note, page, safe, table
from tinysight_converters.proof import Proof
from tinysight_converters.run import Examples, Run

__all__ = ["report_html", "report_json"]

METRIC_NAMES: Final = {"ap50": "AP50", "ap50_95": "AP50-95", "accuracy": "Accuracy"}
EXAMPLES_SHOWN: Final = 6


def report_json(
    manifest: Manifest, run: Run, examples: Examples, proofs: dict[str, Proof], ops: dict[str, dict[str, int]]
) -> bytes:
    """The figures for programs."""
    content = {
        "schema": "1.0",
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "held_out_images": len(examples.test),
        "calibration_images": len(examples.calibration),
        "thresholds": manifest.thresholds,
        "provenance": manifest.provenance,
        "training": run.figures,
        "variants": [
            {
                "scheme": proof.scheme,
                "size_bytes": proof.size_bytes,
                "metrics": {name: round(value, 6) for name, value in proof.metrics.items()},
                "agreement_with_float": round(proof.agreement, 6),
                "latency_ms": {"p50": round(proof.latency_ms[0], 4), "p95": round(proof.latency_ms[1], 4)},
                "operators": ops[proof.scheme],
                "runtimes": manifest.variant(proof.scheme).runtimes,
            }
            for proof in proofs.values()
        ],
    }
    return msgspec.json.format(msgspec.json.encode(content, order="sorted"), indent=1) + b"\n"


def report_html(
    manifest: Manifest, run: Run, examples: Examples, proofs: dict[str, Proof], ops: dict[str, dict[str, int]]
) -> bytes:
    """The page for people."""
    title = f"{manifest.name} {manifest.version}"
    found = {scheme: proof.found for scheme, proof in proofs.items()}
    sheet = example_sheet(manifest, Path(run.dataset), examples.test, found, count=EXAMPLES_SHOWN)
    body = [
        f"<h1>{safe(title)}</h1>",
        note(
            f"{manifest.task}, {len(manifest.labels)} classes. Proved on {len(examples.test)} pictures that training "
            "never saw, with the device's own preprocessing, interpreter and decoder."
        ),
        _cards(proofs),
        "<h2>Variants</h2>",
        _variants(manifest, proofs),
        *_charts(manifest, examples, proofs),
        "<h2>Pictures</h2>",
        note(
            "Left the float model, right int8; those first on which they differ most, or are wrong. Drawn is what "
            f"passes the threshold of {manifest.thresholds.score:g}; white is the truth."
        ),
        image(sheet, "held-out pictures with what both models find"),
        "<h2>Inside</h2>",
        _operators(ops),
        "<h2>Where it comes from</h2>",
        _provenance(manifest, run, examples),
    ]
    return page(f"{title}: proof", body)


def _cards(proofs: dict[str, Proof]) -> str:
    reference, int8 = proofs["float32"], proofs["int8"]
    made = []
    for name, value in int8.metrics.items():
        lost = (value - reference.metrics[name]) * 100
        mood = "good" if lost > -1 else "bad"
        made.append(card(f"{value:.3f}", f"{METRIC_NAMES[name]} of int8", f"{lost:+.2f} points", mood=mood))
    smaller = f"{reference.size_bytes / int8.size_bytes:.1f}x smaller"
    faster = f"{reference.latency_ms[0] / int8.latency_ms[0]:.1f}x faster"
    made += [
        card(f"{int8.size_bytes / 1024:.0f} KiB", "size of int8", smaller),
        card(f"{int8.latency_ms[0]:.2f} ms", "int8, one thread, here", faster),
        card(f"{int8.agreement * 100:.1f} %", "agrees with float"),
    ]
    return cards(made)


def _variants(manifest: Manifest, proofs: dict[str, Proof]) -> str:
    metrics = list(proofs["float32"].metrics)
    head = ["variant", *(METRIC_NAMES[name] for name in metrics), "agreement", "KiB", "ms p50", "ms p95", "runs on"]
    rows = [
        [
            proof.scheme,
            *(f"{proof.metrics[name]:.4f}" for name in metrics),
            f"{proof.agreement * 100:.2f} %",
            f"{proof.size_bytes / 1024:.0f}",
            f"{proof.latency_ms[0]:.3f}",
            f"{proof.latency_ms[1]:.3f}",
            ", ".join(f"{each.name} {each.version}" for each in manifest.variant(proof.scheme).runtimes if each.ok),
        ]
        for proof in proofs.values()
    ]
    return table(head, rows)


def _charts(manifest: Manifest, examples: Examples, proofs: dict[str, Proof]) -> list[str]:
    if manifest.task == "classify":
        chart = confusion_chart(manifest.labels, confusion(proofs["int8"].found, examples.test, len(manifest.labels)))
        return ["<h2>What is taken for what</h2>", image(chart, "confusion matrix of the int8 model")]
    curves = {scheme: proof.found for scheme, proof in proofs.items()}
    return [
        "<h2>Precision and recall</h2>",
        image(curve_chart(curves, examples.test, manifest.thresholds.score), "precision over recall of both models"),
        "<h2>By class</h2>",
        image(class_chart(manifest.labels, curves, examples.test), "average precision of each class"),
    ]


def _operators(ops: dict[str, dict[str, int]]) -> str:
    names = sorted({name for counts in ops.values() for name in counts})
    return table(["operator", *ops], [[name, *(counts.get(name, "") for counts in ops.values())] for name in names])


def _provenance(manifest: Manifest, run: Run, examples: Examples) -> str:
    origin = manifest.provenance
    rows: list[list[Any]] = [
        ["data set", origin.dataset_digest],
        ["calibration", f"{len(examples.calibration)} pictures, {origin.calibration_digest}"],
        *([name, value] for name, value in origin.config.items()),
        *([name, version] for name, version in origin.tools.items()),
        *([name, f"{value:g}"] for name, value in run.figures.items()),
    ]
    lines = "".join(f"<tr><td>{safe(name)}<td><code>{safe(value)}</code>" for name, value in rows)
    return f"<table class=wrap>{lines}</table>"
