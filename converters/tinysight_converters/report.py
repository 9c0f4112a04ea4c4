"""The proof as a file for programs: all that is known of a conversion, in one JSON.

In: `Facts`.  Out: ``report.json``. The one in the bundle holds nothing that differs from one conversion to the next;
the one beside the bundle has times and memory too.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from tinysight_contract.manifest import Manifest
from tinysight_converters.audit import float_tensors, operators, outside_delegate
from tinysight_converters.bench import Candidate
from tinysight_converters.calibration import Calibration
from tinysight_converters.ladder import Step
from tinysight_converters.lint import Finding
from tinysight_converters.run import Examples, Run
from tinysight_converters.tflite import LayerError

__all__ = ["Facts", "report_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is known of a conversion.

    Attributes:
        manifest: of the bundle, but for its files.
        run: what was trained.
        examples: with which it was not.
        reference: the float model.
        variants: what is in the bundle, in its order.
        layers: what int8 does to each.
        findings: what the float file was warned of.
        ladder: what was tried for the budget.
        calibration: what int8 was calibrated with.
        old_runtime: why tflite-runtime was not tried; empty when it was.
        latency_ms: p50 and p95 by scheme, of one inference with one thread here; None in the bundle.
        memory_kib: by how much a process grew, by scheme; None in the bundle.
    """

    manifest: Manifest
    run: Run
    examples: Examples
    reference: Candidate
    variants: list[Candidate]
    layers: list[LayerError]
    findings: list[Finding]
    ladder: list[Step]
    calibration: Calibration
    old_runtime: str
    latency_ms: dict[str, tuple[float, float]] | None = None
    memory_kib: dict[str, int] | None = None


def report_json(facts: Facts) -> bytes:
    """The figures for programs."""
    content = {
        "schema": "2.0",
        "name": facts.manifest.name,
        "version": facts.manifest.version,
        "task": facts.manifest.task,
        "held_out_images": len(facts.examples.test),
        "calibration": {"images": len(facts.calibration.pictures), "digest": facts.calibration.digest},
        "provenance": facts.manifest.provenance,
        "training": facts.run.figures,
        "reference": _numbers(facts.reference),
        "variants": [_variant(facts, each) for each in facts.variants],
        "layers": facts.layers,
        "lint": facts.findings,
        "ladder": [_step(facts, step) for step in facts.ladder],
        "not_tried": facts.old_runtime,
    }
    return msgspec.json.format(msgspec.json.encode(content, order="sorted"), indent=1) + b"\n"


def _numbers(each: Candidate) -> dict[str, Any]:
    return {
        "size_bytes": len(each.content),
        "metrics": {name: round(value, 6) for name, value in each.proof.metrics.items()},
        "threshold": each.proof.threshold,
    }


def _variant(facts: Facts, each: Candidate) -> dict[str, Any]:
    made: dict[str, Any] = {
        "scheme": each.scheme,
        "how": each.how,
        **_numbers(each),
        "agreement_with_float": round(each.proof.agreement, 6),
        "operators": operators(each.trial),
        "float_tensors": len(float_tensors(each.trial)),
        "delegate_partitions": each.trial.partitions,
        "outside_delegate": sorted(op.name for op in outside_delegate(each.trial)),
        "runtimes": facts.manifest.variant(each.scheme).runtimes,
    }
    if facts.latency_ms is not None and facts.memory_kib is not None:
        p50, p95 = facts.latency_ms[each.scheme]
        made |= {
            "latency_ms": {"p50": round(p50, 4), "p95": round(p95, 4)},
            "memory_kib": facts.memory_kib[each.scheme],
        }
    return made


def _step(facts: Facts, step: Step) -> dict[str, Any]:
    made: dict[str, Any] = {"step": step.name, "holds": step.holds}
    if step.figures is None:
        return {**made, "said": step.said}
    made |= {"metric": round(step.figures.metric, 6), "drop_pt": round(step.figures.drop_pt, 4)}
    made |= {"bought_pt": round(step.bought_pt, 4), "kib": round(step.figures.kib, 1)}
    if facts.latency_ms is not None:
        made |= {"ms": round(step.figures.ms, 4), "said": step.said}
    return made
