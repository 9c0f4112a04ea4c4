"""The proof as a page for people: one self-contained file with pictures, readable on a phone.

In: `Facts`.  Out: ``report.html``; nothing is loaded from anywhere and every text from outside is escaped.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tinysight_converters.audit import operators, outside_delegate
from tinysight_converters.bench import Candidate
from tinysight_converters.drawing import class_chart, confusion_chart, curve_chart, example_sheet
from tinysight_converters.metrics import confusion
from tinysight_converters.page import bars, card, cards, histogram, image, noise_colour, note, page, points, safe, table
from tinysight_converters.report import Facts

__all__ = ["layer_bars", "report_html"]

METRIC_NAMES: Final = {"ap50": "AP50", "ap50_95": "AP50-95", "accuracy": "Accuracy"}
EXAMPLES_SHOWN: Final = 6
LABELS_SHOWN: Final = 20
COLUMN: Final = "#0969da"
FAINTEST: Final = 1e-6


def report_html(facts: Facts, *, pictures: bool) -> bytes:
    """The page for people; the one in a bundle does without ``pictures``, which would be most of every update."""
    manifest = facts.manifest
    title, first = f"{manifest.name} {manifest.version}", facts.variants[0]
    shown = _pictures(facts, first) if pictures else [note("Charts and pictures are in the page beside the bundle.")]
    body = [
        f"<h1>{safe(title)}</h1>",
        note(
            f"{manifest.task}, {len(manifest.labels)} classes. Proved on {len(facts.examples.test)} pictures that "
            "training never saw, with the device's own preprocessing, interpreter and decoder."
        ),
        _cards(facts, first),
        "<h2>Variants</h2>",
        _variants(facts),
        *_ladder(facts),
        *shown,
        *_reference(facts, first),
        *_findings(facts),
        *_layers(facts),
        "<h2>Where it runs</h2>",
        _runtimes(facts),
        "<h2>Inside</h2>",
        _inside(facts),
        "<h2>Where it comes from</h2>",
        _provenance(facts),
    ]
    return page(f"{title}: proof", body)


def _pictures(facts: Facts, first: Candidate) -> list[str]:
    pair = (facts.reference.proof, first.proof)
    count, columns = (EXAMPLES_SHOWN, 1) if facts.manifest.task == "detect" else (2 * EXAMPLES_SHOWN, 3)
    root, true = Path(facts.run.dataset), facts.examples.test
    return [
        *_charts(facts, first),
        "<h2>Pictures</h2>",
        note(
            f"Left the float model, right {first.scheme}; those first that it gets wrong or on which they differ most. "
            "Drawn is what passes the threshold of each; white is the truth."
        ),
        image(
            example_sheet(facts.manifest, root, true, pair, count=count, columns=columns),
            "held-out pictures with what both models find",
        ),
    ]


def _cards(facts: Facts, first: Candidate) -> str:
    made, reference = [], facts.reference
    for name, value in first.proof.metrics.items():
        lost = (value - reference.proof.metrics[name]) * 100
        mood = "good" if lost > -1 else "bad"
        made.append(card(f"{value:.3f}", f"{METRIC_NAMES[name]} of {first.scheme}", f"{lost:+.2f} points", mood=mood))
    smaller = f"{reference.figures.kib / first.figures.kib:.1f}x smaller"
    made.append(card(f"{first.figures.kib:.0f} KiB", f"size of {first.scheme}", smaller))
    if facts.latency_ms is not None:
        mine, theirs = facts.latency_ms[first.scheme][0], facts.latency_ms["float32"][0]
        made.append(card(f"{mine:.2f} ms", f"{first.scheme}, one thread, here", f"{theirs / mine:.1f}x faster"))
    made.append(card(f"{first.proof.agreement * 100:.1f} %", "agrees with float"))
    return cards(made)


def _variants(facts: Facts) -> str:
    metrics = list(facts.reference.proof.metrics)
    head = ["variant", *(METRIC_NAMES[name] for name in metrics), "agreement", "threshold", "KiB"]
    measured = facts.latency_ms is not None and facts.memory_kib is not None
    head += ["ms p50", "ms p95", "grows by MiB"] if measured else []
    shown = [*facts.variants, *(() if facts.reference in facts.variants else (facts.reference,))]
    rows = []
    for each in shown:
        row: list[Any] = [
            f"{each.scheme}, {each.how}" + ("" if each in facts.variants else ", not in the bundle"),
            *(f"{each.proof.metrics[name]:.4f}" for name in metrics),
            f"{each.proof.agreement * 100:.2f} %",
            f"{each.proof.threshold:g}",
            f"{each.figures.kib:.0f}",
        ]
        if facts.latency_ms is not None and facts.memory_kib is not None:
            grown = facts.memory_kib.get(each.scheme)
            row += [f"{ms:.3f}" for ms in facts.latency_ms[each.scheme]]
            row.append("" if grown is None else f"{grown / 1024:.1f}")
        rows.append(row)
    return table(head, rows)


def _ladder(facts: Facts) -> Iterator[str]:
    if not facts.ladder:
        return
    timed = facts.latency_ms is not None
    head = ["step", "metric", "drop", "bought", "KiB", *(["ms", "budget"] if timed else [])]
    rows = []
    for step in facts.ladder:
        if step.figures is None:
            rows.append([f"{step.name}: {step.said}", *[""] * (len(head) - 1)])
            continue
        costs = [f"{step.figures.metric:.4f}", f"{step.figures.drop_pt:+.2f}pt", f"{step.bought_pt:+.2f}pt"]
        costs += [f"{step.figures.kib:.0f}", *([f"{step.figures.ms:.2f}"] if timed else [])]
        rows.append([step.name, *costs, *([step.said or "holds"] if timed else [])])
    yield "<h2>What the budget took</h2>"
    yield table(head, rows)


def _charts(facts: Facts, first: Candidate) -> Iterator[str]:
    labels, true = facts.manifest.labels, facts.examples.test
    if facts.manifest.task == "classify":
        yield "<h2>What is taken for what</h2>"
        counts = confusion(first.proof.found, true, len(labels))
        yield image(confusion_chart(labels, counts), f"confusion matrix of {first.scheme}")
        return
    proofs = {"float32": facts.reference.proof, first.scheme: first.proof}
    yield "<h2>Precision and recall</h2>"
    yield image(curve_chart(proofs, true), "precision over recall of both models")
    yield "<h2>By class</h2>"
    yield image(class_chart(labels, proofs, true), "average precision of each class")


def _reference(facts: Facts, first: Candidate) -> Iterator[str]:
    reference = facts.manifest.reference
    if reference is None:
        return
    classifies = facts.manifest.task == "classify"
    what = "its first answer to each picture" if classifies else "all that it finds above its threshold"
    yield "<h2>How sure it is</h2>"
    yield note(
        f"What {first.scheme} says of the held-out pictures, {what}, by its score. A device compares with this what "
        "it finds before its cameras, and says so when the two drift apart."
    )
    yield histogram(reference.scores, "how often each score was given")
    most, total = max(reference.labels.values(), default=1), max(sum(reference.scores), 1)
    ranked = sorted(reference.labels.items(), key=lambda item: (-item[1], item[0]))
    rows = [
        (label, [(COLUMN, count / most)], [count, f"{100 * count / total:.1f} %"])
        for label, count in ranked[:LABELS_SHOWN]
    ]
    if rows:
        yield bars(["label", "", "found", "share"], rows)
    if len(ranked) > LABELS_SHOWN:
        yield note(f"{len(ranked) - LABELS_SHOWN} more labels were found less often.")


def _findings(facts: Facts) -> Iterator[str]:
    if facts.findings:
        yield "<h2>What was to be expected</h2>"
        yield points(
            f"{each.rule}: {', '.join(each.where[:5])}: {each.reason}. Cost: {each.cost}. {each.mend}"
            for each in facts.findings
        )


def _layers(facts: Facts) -> Iterator[str]:
    if not facts.layers:
        return
    yield "<h2>What int8 does to each layer</h2>"
    yield note(
        "Each layer of the plain int8 file, given the float model's input: the noise it adds, as a share of what it "
        "carries (the bar is logarithmic), and its error in steps of its own scale, of which 0.29 is mere rounding."
    )
    yield layer_bars([(each.layer, each.op, each.noise, each.rms_steps, each.scale) for each in facts.layers])


def layer_bars(layers: list[tuple[str, str, float, float, float]]) -> str:
    """Layer, operator, noise, error in steps and scale, with a bar for the noise on a logarithmic scale."""
    rows = []
    for layer, op, noise, rms_steps, scale in layers:
        share = 1 - math.log(min(max(noise, FAINTEST), 1.0)) / math.log(FAINTEST)
        rows.append((layer, [(noise_colour(noise), share)], [op, f"{noise:.2g}", f"{rms_steps:.2f}", f"{scale:.4g}"]))
    return bars(["layer", "noise", "operator", "share", "steps", "scale"], rows)


def _runtimes(facts: Facts) -> str:
    rows = [
        [each.scheme, f"{check.name} {check.version}", "runs" if check.ok else "fails", check.detail]
        for each in facts.manifest.variants
        for check in each.runtimes
    ]
    if facts.old_runtime:
        why = facts.old_runtime if facts.latency_ms is not None else ""
        rows.append(["all", "tflite-runtime 2.14.0", "not tried", why])
    lines = "".join("<tr>" + "".join(f"<td>{safe(cell)}" for cell in row) for row in rows)
    return f"<div class=scroll><table class=wrap>{lines}</table></div>"


def _inside(facts: Facts) -> str:
    counts = {each.scheme: operators(each.trial) for each in facts.variants}
    names = sorted({name for each in counts.values() for name in each})
    rows = [[name, *(each.get(name, "") for each in counts.values())] for name in names]
    rows.append(["pieces run by XNNPACK", *(each.trial.partitions for each in facts.variants)])
    outside = [", ".join(sorted(op.name for op in outside_delegate(each.trial))) or "-" for each in facts.variants]
    rows.append(["operators outside it", *outside])
    return table(["operator", *counts], rows)


def _provenance(facts: Facts) -> str:
    origin = facts.manifest.provenance
    rows: list[tuple[str, Any]] = [
        ("data set", origin.dataset_digest),
        ("calibration", f"{facts.calibration.source}, {facts.calibration.digest}"),
        *origin.config.items(),
        *origin.tools.items(),
        *((name, f"{value:g}") for name, value in facts.run.figures.items()),
    ]
    lines = "".join(f"<tr><td>{safe(name)}<td><code>{safe(value)}</code>" for name, value in rows)
    return f"<table class=wrap>{lines}</table>"
