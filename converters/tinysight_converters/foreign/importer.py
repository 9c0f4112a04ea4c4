"""START HERE: from somebody else's model to a bundle that the device runs like its own.

In: a .tflite, a .keras or a SavedModel (`model`), its labels, and what no file says.  Out: a bundle with golden
vectors, whole or not at all. The file is linted (`lint`), opened in child processes only (`trial`), and tried on every
runtime (`runtimes`); what its outputs mean is found in `roles` and doubted in
`answers`. Nothing is proved, for want of a truth to compare with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from tinysight_contract import manifest as mf
from tinysight_contract.bundle import LABELS, Bundle, file_ref, pack_bundle
from tinysight_contract.errors import BundleError, ConversionError
from tinysight_contract.files import replace_file
from tinysight_converters.foreign.answers import check_answers, check_classes, check_shapes
from tinysight_converters.foreign.file import linted, naming, opened, scheme_of, suffering, tensor_fields
from tinysight_converters.foreign.metadata import labels_of, said_by
from tinysight_converters.foreign.model import Flat, flat_model
from tinysight_converters.foreign.picture import Picture, feed, golden_pictures, input_of
from tinysight_converters.foreign.roles import Asked, find_roles
from tinysight_converters.run import check_target
from tinysight_converters.runtimes import check_runtimes, old_runtime
from tinysight_converters.trial import Trial, try_model
from tinysight_edge.decode import make_decoder

__all__ = ["Imported", "Wanted", "import_model"]

GOLDEN: Final = "golden-input.bin"
CALIBRATION: Final = "calibration.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the bundle is to be.

    Attributes:
        name: of the model.
        version: of the model.
        release: rises with each bundle of this name.
        thresholds: of the detections.
        pictures: folder of pictures for the golden vectors; None draws some.
        scheme: of a model that is still to be converted; None takes float32.
        calibration: pictures for int8.
    """

    name: str
    version: str
    release: int
    thresholds: mf.Thresholds
    pictures: Path | None = None
    scheme: mf.Scheme | None = None
    calibration: Path | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made.

    Attributes:
        digest: of the bundle.
        size_bytes: of the bundle.
        manifest: of the bundle.
        pixels: how pixels are scaled, and whether the user or the file says so.
        labelled_by: where the labels are from.
        found: detections in each golden picture.
        warnings: what may suffer on a device, and what of the file could not be read.
    """

    digest: str
    size_bytes: int
    manifest: mf.Manifest
    pixels: str
    labelled_by: str
    found: list[int]
    warnings: list[str]


def import_model(
    model: Path,
    labels: Path | None,
    out: Path,
    *,
    asked: Asked,
    picture: Picture,
    wanted: Wanted,
    say: Callable[[str], None],
) -> Imported:
    """Make a bundle of a foreign model.

    Args:
        model: a .tflite or .keras file, or the folder of a SavedModel.
        labels: a text file with a label per line; None takes those of the file's metadata.
        out: the bundle to write; an existing one is replaced in one step.
        asked: what the outputs mean.
        picture: how frames are fitted.
        wanted: name, thresholds, and how to convert.
        say: told what is being done.

    Raises:
        ConfigError: something must be said that the file does not say.
        ConversionError: the file does not load, is of another task, or does not fit its labels.
        DataError: the labels or the pictures cannot be used.
    """
    check_target(out)
    flat = flat_model(model, picture, scheme=wanted.scheme, calibration=wanted.calibration, say=say)
    content = flat.content
    said, warnings = said_by(content)
    names, labelled_by = labels_of(labels, said)
    findings = linted(content)
    say(f"Opening {model.name} in a process of its own")
    trial = opened(try_model(content))
    named_by, inputs, outputs = naming(trial)
    spec, tensor, pixels = input_of(inputs[0], picture, said)
    how, roles = find_roles(outputs, trial.ops, asked, labels=len(names), height=spec.height, width=spec.width)
    task: Literal["detect", "classify"] = "classify" if isinstance(how, mf.Classify) else "detect"
    check_shapes(how, roles, task=task, labels=len(names), height=spec.height, width=spec.width)
    check_classes(content, how, len(names))
    scheme = scheme_of(trial)
    golden = golden_pictures(wanted.pictures, spec)
    say(f"Running it on {len(golden)} {'drawn pictures' if wanted.pictures is None else 'pictures'}")
    fed = feed(golden, spec, tensor)
    answers = opened(try_model(content, inputs=fed)).answers
    variant = mf.Variant(
        file=f"{scheme}.tflite",
        scheme=scheme,
        input=tensor,
        outputs=[mf.Output(**tensor_fields(each), role=cast("mf.Role", role)) for role, each in roles.items()],
        runtimes=[],
        golden={each.name: f"golden-{scheme}-{role}.bin" for role, each in roles.items()},
        named_by=named_by,
    )
    raw = {output.name: np.ascontiguousarray(answers[str(roles[output.role].index)]) for output in variant.outputs}
    manifest = mf.Manifest(
        name=wanted.name,
        version=wanted.version,
        release=wanted.release,
        task=task,
        labels=names,
        input=spec,
        decode=how,
        thresholds=wanted.thresholds,
        variants=[variant],
        golden=mf.Golden(file=GOLDEN, count=len(golden)),
        provenance=_provenance(model, flat, trial, pixels=pixels, labels=labelled_by),
        files={},
    )
    check_answers(manifest, raw)
    say("Trying it on every runtime")
    variant = replace(variant, runtimes=_checked(content, manifest, variant, fed, raw))
    files = {
        LABELS: "".join(f"{label}\n" for label in names).encode(),
        GOLDEN: golden.tobytes(),
        variant.file: content,
        **{file: raw[output].tobytes() for output, file in variant.golden.items()},
    }
    if flat.calibration is not None:
        files[CALIBRATION] = flat.calibration.to_json()
    manifest = replace(
        manifest, variants=[variant], files={file: file_ref(data) for file, data in sorted(files.items())}
    )
    if why := old_runtime()[1]:
        warnings.append(f"It was not tried on tflite-runtime: {why}.")
    decode = make_decoder(manifest, variant)
    found = [len(decode({name: each[i : i + 1] for name, each in raw.items()})) for i in range(len(golden))]
    try:
        packed = pack_bundle(manifest, files)
    except BundleError as error:
        raise ConversionError(
            f"{model} cannot become a bundle: {error.what}", mend="Export the model again."
        ) from error
    replace_file(out, packed)
    return Imported(
        Bundle.parse(packed, source=str(out)).digest,
        len(packed),
        manifest,
        pixels,
        labelled_by,
        found,
        [*warnings, *suffering(findings, scheme)],
    )


def _checked(
    content: bytes, manifest: mf.Manifest, variant: mf.Variant, fed: NDArray[Any], raw: dict[str, NDArray[Any]]
) -> list[mf.RuntimeCheck]:
    """What every runtime makes of it; only the one that answered may not fail.

    Raises:
        ConversionError: it answers otherwise when it is asked again.
    """
    checks, _ = check_runtimes(content, manifest, variant, fed, raw)
    if not checks[0].ok:
        raise ConversionError(
            f"The model does not answer a picture twice alike: {checks[0].detail}.",
            mend="Export it again without what is random.",
        )
    return checks


def _provenance(model: Path, flat: Flat, trial: Trial, *, pixels: str, labels: str) -> mf.Provenance:
    return mf.Provenance(
        dataset_digest=None,
        calibration_digest=None if flat.calibration is None else flat.calibration.digest,
        seed=None,
        config={"imported_from": model.name, "pixels": pixels, "labels": labels},
        tools={**flat.tools, trial.runtime: trial.version},
    )
