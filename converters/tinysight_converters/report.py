"""The proof as a file for programs and a page for people.

In: what `proof` measured.  Out: ``report.json``, and ``report.html``: one self-contained page with pictures, readable
on a phone, with nothing loaded from anywhere and every text from outside escaped.
"""

import base64
import html
from pathlib import Path
from typing import Any, Final

import msgspec

from tinysight_contract.manifest import Manifest
from tinysight_converters.drawing import class_chart, confusion_chart, curve_chart, example_sheet
from tinysight_converters.proof import Proof
from tinysight_converters.run import Examples, Run

__all__ = ["report_html", "report_json"]

METRIC_NAMES: Final = {"ap50": "AP50", "ap50_95": "AP50-95", "accuracy": "Accuracy"}
EXAMPLES_SHOWN: Final = 6

_STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--good:#1a7f37;--bad:#d1242f}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;margin:.5rem 0 0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.6rem;margin:1rem 0}
.card{border:1px solid var(--line);border-radius:.6rem;padding:.6rem .8rem}.card b{display:block;font-size:1.35rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.35rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}img{max-width:100%;height:auto;border-radius:.4rem;background:#fff}
.wrap td{white-space:normal;text-align:left;vertical-align:top}
code{font-size:.85em;overflow-wrap:anywhere;background:var(--soft);padding:.1rem .3rem;border-radius:.2rem}
.note{opacity:.75;font-size:.9rem}.good{color:var(--good)}.bad{color:var(--bad)}
"""


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
        f"<h1>{_safe(title)}</h1>",
        _note(
            f"{manifest.task}, {len(manifest.labels)} classes. Proved on {len(examples.test)} pictures that training "
            "never saw, with the device's own preprocessing, interpreter and decoder."
        ),
        _cards(proofs),
        "<h2>Variants</h2>",
        _variants(manifest, proofs),
        *_charts(manifest, examples, proofs),
        "<h2>Pictures</h2>",
        _note(
            "Left the float model, right int8; those first on which they differ most, or are wrong. Drawn is what "
            f"passes the threshold of {manifest.thresholds.score:g}; white is the truth."
        ),
        _image(sheet, "held-out pictures with what both models find"),
        "<h2>Inside</h2>",
        _operators(ops),
        "<h2>Where it comes from</h2>",
        _provenance(manifest, run, examples),
    ]
    page = (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{_safe(title)}: proof</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
    return page.encode()


def _safe(text: Any) -> str:  # noqa: ANN401 -- anything that has a text
    return html.escape(str(text))


def _note(text: str) -> str:
    return f"<p class=note>{_safe(text)}</p>"


def _cards(proofs: dict[str, Proof]) -> str:
    reference, int8 = proofs["float32"], proofs["int8"]
    cards = []
    for name, value in int8.metrics.items():
        lost = (value - reference.metrics[name]) * 100
        mood = "good" if lost > -1 else "bad"
        cards.append((f"{value:.3f}", f"{METRIC_NAMES[name]} of int8", f"<span class={mood}>{lost:+.2f} points</span>"))
    cards += [
        (f"{int8.size_bytes / 1024:.0f} KiB", "size of int8", f"{reference.size_bytes / int8.size_bytes:.1f}x smaller"),
        (
            f"{int8.latency_ms[0]:.2f} ms",
            "int8, one thread, here",
            f"{reference.latency_ms[0] / int8.latency_ms[0]:.1f}x faster",
        ),
        (f"{int8.agreement * 100:.1f} %", "agrees with float", ""),
    ]
    made = "".join(f"<div class=card><b>{big}</b>{small}<br>{note}</div>" for big, small, note in cards)
    return f"<div class=cards>{made}</div>"


def _table(head: list[str], rows: list[list[Any]]) -> str:
    top = "".join(f"<th>{_safe(cell)}" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{_safe(cell)}" for cell in row) for row in rows)
    return f"<div class=scroll><table><tr>{top}{lines}</table></div>"


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
    return _table(head, rows)


def _charts(manifest: Manifest, examples: Examples, proofs: dict[str, Proof]) -> list[str]:
    if manifest.task == "classify":
        chart = confusion_chart(manifest.labels, examples.test, proofs["int8"].found)
        return ["<h2>What is taken for what</h2>", _image(chart, "confusion matrix of the int8 model")]
    curves = {scheme: proof.found for scheme, proof in proofs.items()}
    return [
        "<h2>Precision and recall</h2>",
        _image(curve_chart(curves, examples.test, manifest.thresholds.score), "precision over recall of both models"),
        "<h2>By class</h2>",
        _image(class_chart(manifest.labels, curves, examples.test), "average precision of each class"),
    ]


def _image(raw: bytes, alt: str) -> str:
    kind = "jpeg" if raw.startswith(b"\xff\xd8") else "png"
    return f'<p><img alt="{_safe(alt)}" src="data:image/{kind};base64,{base64.b64encode(raw).decode()}"></p>'


def _operators(ops: dict[str, dict[str, int]]) -> str:
    names = sorted({name for counts in ops.values() for name in counts})
    return _table(["operator", *ops], [[name, *(counts.get(name, "") for counts in ops.values())] for name in names])


def _provenance(manifest: Manifest, run: Run, examples: Examples) -> str:
    origin = manifest.provenance
    rows: list[list[Any]] = [
        ["data set", origin.dataset_digest],
        ["calibration", f"{len(examples.calibration)} pictures, {origin.calibration_digest}"],
        *([name, value] for name, value in origin.config.items()),
        *([name, version] for name, version in origin.tools.items()),
        *([name, f"{value:g}"] for name, value in run.figures.items()),
    ]
    lines = "".join(f"<tr><td>{_safe(name)}<td><code>{_safe(value)}</code>" for name, value in rows)
    return f"<table class=wrap>{lines}</table>"
