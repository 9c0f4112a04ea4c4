"""START HERE: from a run to a bundle that has proved itself.

run → child process (`tflite`) → audit → threshold → proof on held-out pictures → golden vectors → report → bundle.
Nothing is written before all of it has succeeded.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from tinysight_contract import manifest as mf
from tinysight_contract.bundle import LABELS, Bundle, file_ref, pack_bundle
from tinysight_contract.errors import ConversionError
from tinysight_contract.files import replace_file
from tinysight_converters.audit import float_tensors, operators, tensors
from tinysight_converters.metadata import with_metadata
from tinysight_converters.metrics import best_threshold
from tinysight_converters.proof import Proof, compare, detect_all, fit_all
from tinysight_converters.report import report_html, report_json
from tinysight_converters.run import MODEL, Examples, Run, check_target, load_examples, load_run
from tinysight_converters.tflite import convert_model
from tinysight_edge.interpreter import Model, Runtime, find_runtime, self_test

__all__ = ["Converted", "convert_run", "draft_manifest", "variant_of"]

SCHEMES: Final = ("int8", "float32")  # the device takes the first that loads
GOLDEN_COUNT: Final = 8
CLASSIFY_THRESHOLD: Final = 0.5


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion made.

    Attributes:
        digest: of the bundle.
        size_bytes: of the bundle.
        threshold: the tuned score.
        proofs: by scheme.
    """

    digest: str
    size_bytes: int
    threshold: float
    proofs: dict[str, Proof]


def convert_run(
    run_folder: Path, out: Path, *, name: str, version: str, release: int, say: Callable[[str], None]
) -> Converted:
    """Convert a finished run into a bundle.

    Args:
        run_folder: as the trainer left it.
        out: the bundle to write; an existing one is replaced in one step.
        name: of the model.
        version: of the model, ``1.2.3``.
        release: rises with each bundle of this name.
        say: told what is being done.

    Raises:
        ConversionError: the run is unfinished or damaged, the converter fails, the int8 model is not int8 throughout.
        DataError: a picture of the data set is missing, broken or changed.
    """
    check_target(out)
    run, examples = load_run(run_folder), load_examples(run_folder)
    runtime = find_runtime()
    root = Path(run.dataset)
    draft = draft_manifest(run, name=name, version=version, release=release)
    say(f"Fitting {len(examples.calibration)} pictures of the training side to calibrate with")
    any_variant = mf.Variant(
        file="any", scheme="int8", input=mf.Tensor(name="image", shape=[1, 1, 1, 1], dtype="uint8", scale=1.0),
        outputs=[], runtimes=[], golden={},
    )  # fmt: skip
    calibration = fit_all(examples.calibration, root, draft, any_variant)
    say("Converting to int8 and float32")
    contents = convert_model(run_folder / MODEL, calibration, SCHEMES)
    if floating := float_tensors(contents["int8"], runtime):
        raise ConversionError(
            f"The int8 model holds {len(floating)} float tensors, the first is {floating[0]!r}.",
            mend="Replace the layer it belongs to by one that quantizes.",
        )
    variants = [variant_of(scheme, contents[scheme], runtime) for scheme in SCHEMES]
    say("Tuning the threshold on the calibration pictures, with the int8 model")
    bare = Model(contents["int8"], variants[0], runtime=runtime)
    manifest = replace(draft, thresholds=_thresholds(draft, bare, examples, root))
    contents = {
        scheme: with_metadata(content, manifest, threshold=manifest.thresholds.score)
        for scheme, content in contents.items()
    }
    models: dict[str, Model] = {each.scheme: Model(contents[each.scheme], each, runtime=runtime) for each in variants}
    say(f"Proving both on {len(examples.test)} held-out pictures with the device's own code")
    sizes = {scheme: len(content) for scheme, content in contents.items()}
    proofs = compare(manifest, models, sizes, examples.test, root)
    golden_pictures = fit_all(examples.test[:GOLDEN_COUNT], root, manifest, any_variant)
    files = {
        LABELS: "".join(f"{label}\n" for label in run.labels).encode(),
        "golden-input.bin": golden_pictures.tobytes(),
        **{f"{scheme}.tflite": content for scheme, content in contents.items()},
    }
    proved = []
    for variant in variants:
        outputs = _golden_outputs(models[variant.scheme], golden_pictures, manifest)
        names = {output: f"golden-{variant.scheme}-{output}.bin" for output in outputs}
        files |= {names[output]: data for output, data in outputs.items()}
        proved.append(replace(variant, golden=names))
    manifest = replace(
        manifest,
        variants=proved,
        golden=mf.Golden(file="golden-input.bin", count=len(golden_pictures)),
        provenance=replace(manifest.provenance, calibration_digest=hashlib.sha256(calibration.tobytes()).hexdigest()),
    )
    say("Writing the report and the bundle")
    ops = {scheme: operators(content, runtime) for scheme, content in contents.items()}
    files["report.json"] = report_json(manifest, run, examples, proofs, ops)
    files["report.html"] = report_html(manifest, run, examples, proofs, ops)
    manifest = replace(manifest, files={file: file_ref(data) for file, data in sorted(files.items())})
    raw = pack_bundle(manifest, files)
    bundle = Bundle.parse(raw, source=str(out))
    for scheme in SCHEMES:
        if (reason := self_test(bundle, Model.load(bundle, scheme=scheme))) is not None:
            raise ConversionError(f"The new bundle fails its own self-test: {reason}.", mend="Report this as a bug.")
    replace_file(out, raw)
    return Converted(bundle.digest, bundle.size_bytes, manifest.thresholds.score, proofs)


def draft_manifest(run: Run, *, name: str, version: str, release: int) -> mf.Manifest:
    """The manifest as far as it is known before converting."""
    tools = {**run.tools, "litert": version_of("ai-edge-litert")}
    return mf.Manifest(
        name=name,
        version=version,
        release=release,
        task=run.task,
        labels=run.labels,
        input=run.input,
        decode=mf.CenterNet(stride=run.stride) if run.task == "detect" else mf.Classify(),
        thresholds=mf.Thresholds(score=CLASSIFY_THRESHOLD),
        variants=[],
        golden=mf.Golden(file="golden-input.bin", count=1),
        provenance=mf.Provenance(
            dataset_digest=run.dataset_digest, calibration_digest=None, seed=run.seed, config=run.config, tools=tools
        ),
        files={},
    )


def variant_of(scheme: str, content: bytes, runtime: Runtime) -> mf.Variant:
    """What the manifest says of a converted file, before it has proved anything.

    Raises:
        ConversionError: it does not load, or its tensors are none that a device understands.
    """
    input_tensor, outputs = tensors(content, runtime)
    return mf.Variant(
        file=f"{scheme}.tflite",
        scheme="int8" if scheme == "int8" else "float32",
        input=input_tensor,
        outputs=outputs,
        runtimes=[mf.RuntimeCheck(name=runtime.name, version=runtime.version, ok=True)],
        golden={},
    )


def _thresholds(draft: mf.Manifest, model: Model, examples: Examples, root: Path) -> mf.Thresholds:
    """Tuned on pictures of the training side, never on the test."""
    if draft.task == "classify":
        return draft.thresholds
    found = detect_all(model, draft, examples.calibration, root)
    return mf.Thresholds(score=round(best_threshold(found, examples.calibration), 4))


def _golden_outputs(model: Model, pictures: NDArray[np.uint8], manifest: mf.Manifest) -> dict[str, bytes]:
    """What the variant answers to the golden pictures, raw, by output."""
    from tinysight_edge.preprocess import Preprocessor  # noqa: PLC0415 -- only the golden vectors need it here

    prepare = Preprocessor(manifest.input, model.variant.input)
    answers = [model.run(prepare.from_picture(picture)) for picture in pictures]
    return {name: b"".join(answer[name][0].tobytes() for answer in answers) for name in answers[0]}
