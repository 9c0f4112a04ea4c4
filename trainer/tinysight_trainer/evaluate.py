"""How good a model is, where it fails, and what it looked at.

In: a run or a bundle, and pictures with their truth.  Out: `Evaluation`: figures, and what was found in every picture.
The page is made by `evaluate_page`. Preprocessing and decoder are the device's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import DataError
from tinysight_contract.manifest import Manifest
from tinysight_converters.metrics import above, best_threshold, calibration, coco_figures, confusion, hits, in_crowd
from tinysight_converters.proof import LOWEST_SCORE
from tinysight_converters.run import MODEL, Example, Run, load_examples, load_run
from tinysight_edge.decode import Detections, iou_matrix, make_decoder
from tinysight_edge.interpreter import Model
from tinysight_edge.preprocess import Preprocessor
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.scores import KerasModel

__all__ = ["Evaluation", "Subject", "evaluate", "examples_for", "open_subject"]

CLASS_BINS: Final = 15


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model that is evaluated.

    Attributes:
        name: of the file or folder.
        manifest: task, labels, input, decoding, threshold.
        find: what it finds in a picture (H, W, 3) uint8 BGR, in its pixels, with all scores.
        keras: the Keras model, when there is one.
        raw: its outputs for a fitted picture (height, width, channels) uint8, by name, as real numbers.
        run: when it is a run.
        folder: of the run.
    """

    name: str
    manifest: Manifest
    find: Callable[[NDArray[np.uint8]], Detections]
    raw: Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]
    keras: Any
    run: Run | None
    folder: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What came out.

    Attributes:
        figures: for programs and tables, 0..1 unless their names say otherwise.
        by_class: a row for each class: name, precision, recall, F1, number; for a detector AP50-95 too.
        counts: the confusion matrix; a detector's has "nothing" last.
        bins: mean score, share right, number: how honest the scores are.
        threshold: from which on a detection counts.
        found: per picture.
        examples: the pictures.
        badness: per picture, the worst highest; above 0 where something is wrong.
    """

    figures: dict[str, float | None]
    by_class: list[dict[str, Any]]
    counts: NDArray[np.int64]
    bins: list[tuple[float, float, int]]
    threshold: float
    found: list[Detections]
    examples: list[Example]
    badness: NDArray[np.float64]


def open_subject(path: Path, *, scheme: str | None = None) -> Subject:
    """A run folder or a bundle, ready to find things.

    Raises:
        ConversionError: the run is unfinished or damaged.
        BundleError: the bundle is.
        RuntimeLoadError: no runtime here loads it.
    """
    if path.is_dir():
        run = load_run(path)
        model = keras.models.load_model(path / MODEL, compile=False, safe_mode=True)
        finder = KerasModel(run, [model])

        def answer(picture: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            return {name: values[0] for name, values in finder.answer(picture[None]).items()}

        return Subject(path.name, finder.manifest, finder.find, answer, model, run, path)
    bundle = Bundle.open(path)
    device = Model.load(bundle, scheme=scheme)
    manifest = replace(bundle.manifest, thresholds=bundle.manifest.thresholds_of(device.variant))
    prepare = Preprocessor(manifest.input, device.variant.input)
    decode = make_decoder(manifest, device.variant, min_score=LOWEST_SCORE if manifest.task == "detect" else 0.0)

    def find(image: NDArray[np.uint8]) -> Detections:
        tensor, fit = prepare(image)
        return decode(device.run(tensor)).in_frame(fit)

    def raw(picture: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        outputs = device.run(prepare.from_picture(picture))
        return {
            each.name: (outputs[each.name][0].astype(np.float32) - each.zero_point) * np.float32(each.scale or 1.0)
            for each in device.variant.outputs
        }

    return Subject(f"{path.name} ({device.variant.scheme})", manifest, find, raw, None, None, None)


def examples_for(subject: Subject, data: Dataset | None, split: str) -> tuple[list[Example], Path, list[str]]:
    """The pictures to evaluate on, their folder, and what the user should know.

    Args:
        subject: the model.
        data: a data set, or None for the pictures that the run kept for its test.
        split: of the data set, or ``all``.

    Raises:
        DataError: there is no picture, it is of another task, or shows classes that the model does not know.
    """
    if data is None:
        if subject.run is None or subject.folder is None:
            raise DataError("A bundle does not hold its test pictures.", mend="Give --data DATASET.")
        return load_examples(subject.folder).test, Path(subject.run.dataset), []
    items = [item for item in data.items if item.labelled and split in {"all", item.split}]
    if not items:
        raise DataError(f"{data.root} has no labelled picture in {split}.", mend="Give --split all, or another one.")
    if data.task != subject.manifest.task:
        raise DataError(
            f"{data.root} is to {data.task}, the model is to {subject.manifest.task}.", mend="Give another data set."
        )
    known = {label: index for index, label in enumerate(subject.manifest.labels)}
    if strange := [label for label in data.labels if label not in known]:
        raise DataError(
            f"The model does not know {strange[0]!r}.", mend=f"It knows {', '.join(known)}; rename, or leave it out."
        )
    ids = [known[label] for label in data.labels]
    examples = [replace(each, class_ids=[ids[c] for c in each.class_ids]) for each in data.examples(items)]
    if data.task == "classify" and (odd := [each for each in examples if len(each.class_ids) != 1]):
        raise DataError(f"{odd[0].name} is of {len(odd[0].class_ids)} classes, not of one.", mend="Keep one of them.")
    notes = []
    if subject.manifest.provenance.dataset_digest != data.digest:
        notes.append("This is not the data set that the model was trained on, or it has changed since.")
    elif split not in {"test"}:
        notes.append("The model was trained on this data set: only its test split says how good it is.")
    return examples, data.root, notes


def evaluate(
    subject: Subject, examples: list[Example], root: Path, *, progress: Callable[[int], None] = lambda _: None
) -> Evaluation:
    """Find in every picture, and compare with the truth.

    Raises:
        DataError: an image is missing, broken or changed.
    """
    found = []
    for number, example in enumerate(examples, start=1):
        found.append(subject.find(example.picture(root)))
        progress(number)
    if subject.manifest.task == "classify":
        return _classes(subject.manifest.labels, found, examples)
    return _boxes(subject.manifest.labels, found, examples, _threshold(subject))


def _threshold(subject: Subject) -> float:
    """A bundle's own; a run has none yet, so it is tuned as a conversion does it: on the calibration pictures."""
    if subject.run is None or subject.folder is None:
        return subject.manifest.thresholds.score
    held, root = load_examples(subject.folder).calibration, Path(subject.run.dataset)
    return best_threshold([subject.find(example.picture(root)) for example in held], held)


def _classes(labels: Sequence[str], found: list[Detections], examples: list[Example]) -> Evaluation:
    counts = confusion(found, examples, len(labels))
    scores = np.array([float(each.scores[0]) for each in found])
    right = np.array([each.class_ids[0] == e.class_ids[0] for each, e in zip(found, examples, strict=True)])
    error, bins = calibration(scores, right, bins=CLASS_BINS)
    rows = _per_class(labels, counts)
    figures: dict[str, float | None] = {
        "pictures": float(len(examples)),
        "accuracy": float(right.mean()),
        "macro_f1": float(np.mean([row["f1"] for row in rows if row["number"]])),
        "calibration_error": error,
    }
    return Evaluation(figures, rows, counts, bins, 0.0, found, examples, np.where(right, -scores, scores))


def _boxes(labels: Sequence[str], found: list[Detections], examples: list[Example], threshold: float) -> Evaluation:
    figures, by_class = coco_figures(found, examples, len(labels))
    counts = confusion(found, examples, len(labels), threshold=threshold)
    scores, right, wanted = hits(found, examples)
    passed = scores >= threshold
    good = int((right & passed).sum())
    error, bins = calibration(scores[scores >= 0.05], right[scores >= 0.05])
    rows = _per_class(labels, counts)
    for row, value in zip(rows, by_class, strict=True):
        row["ap50_95"] = value
    more: dict[str, float | None] = {
        "pictures": float(len(examples)),
        "objects": float(wanted),
        "threshold": threshold,
        "precision": good / max(int(passed.sum()), 1),
        "recall": good / max(wanted, 1),
        "calibration_error": error,
    }
    badness = np.array([_badness(each, example, threshold) for each, example in zip(found, examples, strict=True)])
    return Evaluation({**figures, **more}, rows, counts, bins, threshold, found, examples, badness)


def _per_class(labels: Sequence[str], counts: NDArray[np.int64]) -> list[dict[str, Any]]:
    rows = []
    for index, label in enumerate(labels):
        right, taken, there = int(counts[index, index]), int(counts[:, index].sum()), int(counts[index].sum())
        precision, recall = right / max(taken, 1), right / max(there, 1)
        f1 = 2 * right / max(taken + there, 1)
        rows.append({"label": label, "precision": precision, "recall": recall, "f1": f1, "number": there})
    return rows


def _badness(found: Detections, example: Example, threshold: float) -> float:
    """How much is missed, invented and misnamed in a picture."""
    kept, crowd = above(found, threshold), np.array(example.crowd, bool)
    if not len(kept):
        return float((~crowd).sum())
    if not example.boxes:
        return float(kept.scores.sum())
    overlap = iou_matrix(kept.boxes_px, example.boxes_px)
    same = overlap * (kept.class_ids[:, None] == np.array(example.class_ids)[None])
    missed = float((~crowd & (same.max(0) < 0.5)).sum())
    invented = float(kept.scores[(same.max(1) < 0.5) & ~in_crowd(kept, example)].sum())
    return missed + invented
