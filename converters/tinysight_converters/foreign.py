"""START HERE: from somebody else's .tflite file to a bundle that the device runs like its own.

In: a TFLite file, its labels, and what no file says.  Out: a bundle with golden vectors, whole or not at all. The file
is opened in a child process only (`trial`); what its outputs mean is found in `roles`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from tinysight_contract import manifest as mf
from tinysight_contract.bundle import LABELS, Bundle, file_ref, pack_bundle
from tinysight_contract.errors import BundleError, ConversionError, DataError
from tinysight_contract.files import replace_file
from tinysight_converters.foreign_file import naming, opened, scheme_of, tensor_fields
from tinysight_converters.foreign_picture import Picture, golden_pictures, input_of
from tinysight_converters.roles import Asked, find_roles
from tinysight_converters.trial import Trial, try_model
from tinysight_edge.decode import make_decoder
from tinysight_edge.decoders.stored import real
from tinysight_edge.preprocess import Preprocessor

__all__ = ["Imported", "Wanted", "import_model", "read_labels"]

MAX_LABELS_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the bundle is to be.

    Attributes:
        name: of the model.
        version: of the model.
        release: rises with each bundle of this name.
        thresholds: of the detections.
        pictures: folder of pictures for the golden vectors; None draws some.
    """

    name: str
    version: str
    release: int
    thresholds: mf.Thresholds
    pictures: Path | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made.

    Attributes:
        digest: of the bundle.
        size_bytes: of the bundle.
        manifest: of the bundle.
        pixels: how pixels are scaled, and whether the user or the file says so.
        found: detections in each golden picture.
    """

    digest: str
    size_bytes: int
    manifest: mf.Manifest
    pixels: str
    found: list[int]


def import_model(
    model: Path, labels: Path, out: Path, *, asked: Asked, picture: Picture, wanted: Wanted, say: Callable[[str], None]
) -> Imported:
    """Make a bundle of a foreign TFLite file.

    Args:
        model: the file.
        labels: a text file with a label per line.
        out: the bundle to write; an existing one is replaced in one step.
        asked: what the outputs mean.
        picture: how frames are fitted.
        wanted: name and thresholds.
        say: told what is being done.

    Raises:
        ConfigError: something must be said that the file does not say.
        ConversionError: the file does not load, is of another task, or does not fit its labels.
        DataError: the labels or the pictures cannot be used.
    """
    if not out.parent.is_dir() or out.is_dir() or not os.access(out.parent, os.W_OK):
        raise ConversionError(f"{out} cannot be written.", mend="Name a file in a folder that you may write to.")
    names = read_labels(labels)
    say(f"Opening {model.name} in a process of its own")
    content = _read(model)
    trial = opened(try_model(content))
    named_by, inputs, outputs = naming(trial)
    spec, tensor, pixels = input_of(inputs[0], picture)
    how, roles = find_roles(outputs, trial.ops, asked, labels=len(names), height=spec.height, width=spec.width)
    scheme = scheme_of(trial)
    golden = golden_pictures(wanted.pictures, spec)
    say(f"Running it on {len(golden)} {'drawn pictures' if wanted.pictures is None else 'pictures'}")
    prepare = Preprocessor(spec, tensor)
    answers = opened(
        try_model(content, inputs=np.stack([prepare.from_picture(each)[0].copy() for each in golden]))
    ).answers
    variant = mf.Variant(
        file=f"{scheme}.tflite",
        scheme=scheme,
        input=tensor,
        outputs=[mf.Output(**tensor_fields(each), role=cast("mf.Role", role)) for role, each in roles.items()],
        runtimes=[mf.RuntimeCheck(name=trial.runtime, version=trial.version, ok=True)],
        golden={each.name: f"golden-{scheme}-{role}.bin" for role, each in roles.items()},
        named_by=named_by,
    )
    raw = {output.name: answers[str(roles[output.role].index)] for output in variant.outputs}
    files = {
        LABELS: "".join(f"{label}\n" for label in names).encode(),
        "golden-input.bin": golden.tobytes(),
        variant.file: content,
        **{file: np.ascontiguousarray(raw[output]).tobytes() for output, file in variant.golden.items()},
    }
    manifest = mf.Manifest(
        name=wanted.name,
        version=wanted.version,
        release=wanted.release,
        task="classify" if isinstance(how, mf.Classify) else "detect",
        labels=names,
        input=spec,
        decode=how,
        thresholds=wanted.thresholds,
        variants=[variant],
        golden=mf.Golden(file="golden-input.bin", count=len(golden)),
        provenance=_provenance(model, pixels, trial),
        files={file: file_ref(data) for file, data in sorted(files.items())},
    )
    _check_answers(manifest, raw)
    decode = make_decoder(manifest, variant)
    found = [len(decode({name: each[i : i + 1] for name, each in raw.items()})) for i in range(len(golden))]
    try:
        packed = pack_bundle(manifest, files)
    except BundleError as error:
        raise ConversionError(
            f"{model} cannot become a bundle: {error.what}", mend="Export the model again."
        ) from error
    replace_file(out, packed)
    return Imported(Bundle.parse(packed, source=str(out)).digest, len(packed), manifest, pixels, found)


def read_labels(path: Path) -> list[str]:
    """A text file's lines, each a label.

    Raises:
        DataError: it cannot be read, is no UTF-8 text, or has an empty, overlong or doubled line.
    """
    try:
        if path.stat().st_size > MAX_LABELS_BYTES:
            raise DataError(f"{path} has more than {MAX_LABELS_BYTES} bytes.", mend="Give a file of labels.")
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", mend="Check the path of --labels.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text.", mend="Save it as UTF-8, one label per line.") from error
    while lines and not lines[-1]:
        lines.pop()
    if not 0 < len(lines) <= 10000:
        raise DataError(f"{path} has {len(lines)} labels.", mend="Give between 1 and 10000, one per line.")
    for number, label in enumerate(lines, start=1):
        if not label or len(label) > 100:
            raise DataError(f"{path}, line {number}: a label has 1 to 100 characters.", mend="Give the class a name.")
        if (first := lines.index(label) + 1) != number:
            raise DataError(
                f"{path}: {label!r} stands in lines {first} and {number}.", mend="Give each class a name of its own."
            )
    return lines


def _read(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        raise ConversionError(f"{model} cannot be read: {error.strerror}.", mend="Check the path.") from error


def _check_answers(manifest: mf.Manifest, raw: dict[str, NDArray[Any]]) -> None:
    """What the model answers can be what the user says it is.

    Raises:
        ConversionError: it answers no numbers, or scores or boxes that are outside of what was said.
    """
    how = manifest.decode
    for output in manifest.variants[0].outputs:
        answers = real(raw[output.name], output)
        if not np.isfinite(answers).all():
            raise ConversionError(
                f"{output.name} holds what is no number.", mend="Check --pixels, or give --pictures it was made for."
            )
        low, high = float(answers.min()), float(answers.max())
        shares = output.role == "scores" and isinstance(how, mf.Classify | mf.SsdAnchors) and how.activation == "none"
        if shares and not -0.01 <= low <= high <= 1.01:
            raise ConversionError(
                f"{output.name} goes from {low:.3g} to {high:.3g} and holds no shares.",
                mend="Give --activation softmax or --activation sigmoid.",
            )
        if isinstance(how, mf.Yolo):
            boxes = answers[:, :4] if how.layout == "channels-first" else answers[..., :4]
            if (how.units == "normalized") != (boxes.max() <= 2.0):
                raise ConversionError(
                    f"The boxes of {output.name} reach {boxes.max():.3g} and are not {how.units}.",
                    mend="Give the other one of --units.",
                )


def _provenance(model: Path, pixels: str, trial: Trial) -> mf.Provenance:
    return mf.Provenance(
        dataset_digest=None,
        calibration_digest=None,
        seed=None,
        config={"imported_from": model.name, "pixels": pixels},
        tools={trial.runtime: trial.version},
    )
