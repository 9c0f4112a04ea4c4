"""START HERE: from a run to a bundle that has proved itself.

run → `calibration` → child process (`tflite`) → `bench` (audit, threshold, proof) → `ladder` while the budget fails →
golden vectors → `runtimes` → `report` → bundle. Nothing is written before all of it has succeeded. What is measured in
time or memory stands beside the bundle and not in it, so that equal inputs give equal bundles.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from tinysight_contract import manifest as mf
from tinysight_contract.bundle import LABELS, Bundle, file_ref, pack_bundle
from tinysight_contract.errors import ConversionError, RuntimeLoadError
from tinysight_contract.files import replace_file
from tinysight_converters.bench import Candidate, draft_manifest, variant_of
from tinysight_converters.calibration import fit_examples
from tinysight_converters.candidates import SCHEMES, Maker, Wish
from tinysight_converters.graph import read_graph
from tinysight_converters.ladder import Step, climb
from tinysight_converters.lint import Finding, lint_graph
from tinysight_converters.proof import reference_of, time_variants
from tinysight_converters.report import Facts, report_json
from tinysight_converters.report_page import report_html
from tinysight_converters.run import check_target, load_examples, load_run
from tinysight_converters.runtimes import check_runtimes, old_runtime
from tinysight_edge.interpreter import Model
from tinysight_edge.preprocess import Preprocessor

__all__ = ["Conversion", "convert_run"]

GOLDEN_COUNT: Final = 8
GOLDEN: Final = "golden-input.bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What came of it.

    Attributes:
        digest: of the bundle; None when the budget failed and nothing was written.
        size_bytes: of the bundle.
        reference: the float model.
        variants: in the bundle, the first being what a device takes.
        ladder: what was tried for the budget.
        report: the page beside the bundle.
    """

    digest: str | None = None
    size_bytes: int = 0
    reference: Candidate
    variants: list[Candidate] = field(default_factory=list)
    ladder: list[Step] = field(default_factory=list)
    report: Path | None = None


def convert_run(run_folder: Path, out: Path, wish: Wish, *, say: Callable[[str], None]) -> Conversion:
    """Convert a finished run into a bundle, with its report beside it.

    Args:
        run_folder: as the trainer left it.
        out: the bundle to write; an existing one is replaced in one step.
        wish: what is to be made.
        say: told what is being done.

    Raises:
        ConversionError: the run is unfinished or damaged, the converter fails, the int8 model is not int8 throughout.
        DataError: a picture is missing, broken or changed, or the calibration set cannot be used.
        ConfigError: a layer to be kept in float is not there.
    """
    check_target(out)
    run, examples = load_run(run_folder), load_examples(run_folder)
    draft = draft_manifest(run, name=wish.name, version=wish.version, release=wish.release)
    work = Maker(run_folder, run, examples, draft, wish, say=say)
    made = [work.make(scheme) for scheme in SCHEMES if scheme in work.schemes]
    ladder: list[Step] = []
    if wish.budget is not None:
        say("Trying the budget")
        kept, ladder = climb(work.rungs(made[0]), wish.budget, told=lambda step: say(f"  {_told(step)}"))
        if kept is None:
            return Conversion(reference=work.bench.reference, variants=made, ladder=ladder)
        others = [each for each in made[1:] if each.scheme != kept.scheme]
        made = sorted((kept, *others), key=lambda each: SCHEMES.index(each.scheme))
    return _pack(work, made, ladder, out)


def _told(step: Step) -> str:
    if step.figures is None:
        return f"{step.name}: {step.said}"
    figures = step.figures
    cost = f"{figures.metric:.4f}, drop {figures.drop_pt:+.2f}pt, {figures.kib:.0f} KiB, {figures.ms:.2f} ms"
    return f"{step.name}: {cost}: {step.said or 'holds'}"


def _pack(work: Maker, made: list[Candidate], ladder: list[Step], out: Path) -> Conversion:
    """Golden vectors, runtimes, reports, and all of it in one file."""
    work.say("Trying every variant on every runtime")
    manifest, calibration = work.draft, work.calibration
    pictures = fit_examples(work.examples.test[:GOLDEN_COUNT], work.root, work.run.input)
    files = {
        LABELS: "".join(f"{label}\n" for label in work.run.labels).encode(),
        GOLDEN: pictures.tobytes(),
        "calibration.json": calibration.to_json(),
    }
    variants: list[mf.Variant] = []
    memory_kib: dict[str, int] = {}
    for each in made:
        inputs, answers = _golden(each.model, pictures, manifest)
        names = {output: f"golden-{each.scheme}-{output}.bin" for output in answers}
        checks, memory_kib[each.scheme] = check_runtimes(each.content, manifest, each.model.variant, inputs, answers)
        files[f"{each.scheme}.tflite"] = each.content
        files |= {names[output]: answer.tobytes() for output, answer in answers.items()}
        thresholds = mf.Thresholds(score=each.proof.threshold)
        variants.append(
            replace(variant_of(each.scheme, each.trial), runtimes=checks, golden=names, thresholds=thresholds)
        )
    first = variants[0].thresholds
    assert first is not None  # noqa: S101 -- set above
    manifest = replace(
        manifest,
        variants=[replace(each, thresholds=None if each.thresholds == first else each.thresholds) for each in variants],
        thresholds=first,
        golden=mf.Golden(file=GOLDEN, count=len(pictures)),
        reference=reference_of(made[0].proof, manifest),
        provenance=replace(manifest.provenance, calibration_digest=calibration.digest),
    )
    findings = _findings(work, made[0])
    latencies = time_variants(manifest, {each.scheme: each.model for each in (work.bench.reference, *made)})
    facts = Facts(
        manifest=manifest,
        run=work.run,
        examples=work.examples,
        reference=work.bench.reference,
        variants=made,
        layers=work.layers,
        findings=findings,
        ladder=ladder,
        calibration=calibration,
        old_runtime=old_runtime()[1],
    )
    work.say("Writing the report and the bundle")
    files["report.json"], files["report.html"] = report_json(facts), report_html(facts, pictures=False)
    manifest = replace(manifest, files={file: file_ref(data) for file, data in sorted(files.items())})
    raw = pack_bundle(manifest, files)
    bundle = Bundle.parse(raw, source=str(out))
    try:
        for variant in manifest.variants:
            Model.load(bundle, scheme=variant.scheme)
    except RuntimeLoadError as error:
        raise ConversionError(f"The new bundle is not sound: {error.what}", mend="Report this as a bug.") from error
    replace_file(out, raw)
    measured = dataclasses.replace(facts, latency_ms=latencies, memory_kib=memory_kib)
    page = out.with_suffix(".report.html")
    replace_file(out.with_suffix(".report.json"), report_json(measured))
    replace_file(page, report_html(measured, pictures=True))
    return Conversion(
        digest=bundle.digest,
        size_bytes=bundle.size_bytes,
        reference=work.bench.reference,
        variants=made,
        ladder=ladder,
        report=page,
    )


def _findings(work: Maker, first: Candidate) -> list[Finding]:
    """What lint says of the float file, and what only the first variant shows, as that it runs in pieces."""
    seen = {each.rule for each in work.findings}
    shown = [each for each in lint_graph(read_graph(first.content), first.trial) if each.rule not in seen]
    for each in shown:
        work.say(f"{each.level}: {each.line} {each.mend}")
    return [*work.findings, *shown]


def _golden(
    model: Model, pictures: NDArray[np.uint8], manifest: mf.Manifest
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """The golden pictures as the variant takes them, and what it answers, raw, by output."""
    prepare = Preprocessor(manifest.input, model.variant.input)
    inputs = np.stack([prepare.from_picture(picture)[0].copy() for picture in pictures])
    answers = [model.run(each[None]) for each in inputs]
    return inputs, {name: np.stack([answer[name][0] for answer in answers]) for name in answers[0]}
