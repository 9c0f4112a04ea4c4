"""Try every variant as a device would, on pictures that training never saw.

In: a manifest with its variants' files, and held-out examples.  Out: what each variant finds, how well, how fast.
Preprocessing, interpreter and decoder are the device's own code.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tinysight_contract.errors import ConversionError
from tinysight_contract.manifest import Manifest, Reference
from tinysight_contract.metrics import BINS
from tinysight_converters.metrics import above, agreement, average_precision, best_threshold, is_right
from tinysight_converters.run import Example
from tinysight_edge.decode import Detections, make_decoder
from tinysight_edge.health.model_metrics import sure_of
from tinysight_edge.interpreter import Model
from tinysight_edge.preprocess import Preprocessor

__all__ = ["Proof", "detect_all", "prove", "reference_of", "time_variants", "tuned_threshold"]

TIMED_RUNS: Final = 300
WARM_UP_RUNS: Final = 30
LOWEST_SCORE: Final = 0.01
CLASSIFY_THRESHOLD: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What one variant did on the held-out pictures.

    Attributes:
        metrics: ``ap50`` and ``ap50_95``, or ``accuracy``; in 0..1.
        threshold: the score tuned for it.
        agreement: with the float model, each at its own threshold, in 0..1.
        found: per picture, all detections down to a score of 0.01.
    """

    metrics: dict[str, float]
    threshold: float
    agreement: float
    found: list[Detections]

    @property
    def metric(self) -> float:
        """The one that counts: AP50-95, or accuracy."""
        return self.metrics["ap50_95" if "ap50_95" in self.metrics else "accuracy"]


def detect_all(model: Model, manifest: Manifest, examples: Sequence[Example], root: Path) -> list[Detections]:
    """What the model finds in each example, in frame pixels, with all scores.

    Raises:
        DataError: an image is missing, broken or changed.
        ConversionError: a classifier answers what is no number.
    """
    prepare = Preprocessor(manifest.input, model.variant.input)
    lowest = LOWEST_SCORE if manifest.task == "detect" else 0.0
    decode = make_decoder(manifest, model.variant, min_score=lowest)
    found = []
    for example in examples:
        tensor, fit = prepare(example.picture(root))
        found.append(decode(model.run(tensor)).in_frame(fit))
        if manifest.task == "classify" and not len(found[-1]):
            raise ConversionError(
                f"The {model.variant.scheme} model answers {example.name} with no number.",
                mend="Train again with a lower --learning-rate, or choose another --scheme.",
            )
    return found


def tuned_threshold(
    found: Sequence[Detections], calibration: Sequence[Example], task: str, *, told: int | None = None
) -> float:
    """The score from which on this variant is believed; tuned on pictures of the training side, never on the test.

    Args:
        found: in the calibration pictures, with all scores.
        calibration: the pictures' truth.
        task: detect takes the best F1; classify speaks as often as the float model does from one half on.
        told: how often that is; None when it is the float model.
    """
    if task == "detect":
        return round(best_threshold(found, calibration), 4)
    scores = np.sort([float(each.scores[0]) for each in found])[::-1]
    if told is None or told == int((scores >= CLASSIFY_THRESHOLD).sum()):
        return CLASSIFY_THRESHOLD
    above_it = scores[told - 1] if told else 1.0
    below_it = scores[told] if told < len(scores) else 0.0
    return round(float(np.clip((above_it + below_it) / 2, 0.05, 0.95)), 4)


def prove(
    model: Model,
    manifest: Manifest,
    examples: Sequence[Example],
    root: Path,
    *,
    threshold: float,
    reference: Proof | None = None,
) -> Proof:
    """One variant on the held-out examples, against the truth and against the float model.

    Args:
        model: the variant, loaded.
        manifest: says how to feed and to decode it.
        examples: never trained on, nor calibrated with.
        root: of the data set.
        threshold: tuned for it.
        reference: of the float model; None when it is the float model.

    Raises:
        DataError: an image is missing, broken or changed.
    """
    found = detect_all(model, manifest, examples, root)
    theirs, theirs_from = (found, threshold) if reference is None else (reference.found, reference.threshold)
    if manifest.task == "detect":
        ap50, ap50_95 = average_precision(found, examples, len(manifest.labels))
        metrics = {"ap50": ap50, "ap50_95": ap50_95}
        agreed = agreement([above(each, theirs_from) for each in theirs], [above(each, threshold) for each in found])
    else:
        right = [is_right(each, example) for each, example in zip(found, examples, strict=True)]
        metrics = {"accuracy": sum(right) / len(right)}
        agreed = float(np.mean([a.class_ids[0] == b.class_ids[0] for a, b in zip(theirs, found, strict=True)]))
    return Proof(metrics, threshold, agreed, found)


def reference_of(proof: Proof, manifest: Manifest) -> Reference:
    """What a variant has found in the held-out pictures, counted as a device counts what it finds."""
    scores, labels = np.zeros(BINS, np.int64), np.zeros(len(manifest.labels), np.int64)
    for found in proof.found:
        bins, ids = sure_of(found, manifest.task, proof.threshold)
        scores += np.bincount(bins, minlength=BINS)
        labels += np.bincount(ids, minlength=len(labels))
    named = {label: int(count) for label, count in zip(manifest.labels, labels, strict=True) if count}
    return Reference(scores=scores.tolist(), labels=named)


def time_variants(manifest: Manifest, models: dict[str, Model]) -> dict[str, tuple[float, float]]:
    """p50 and p95 in ms of one inference each, one thread; in turn, so that a busy machine is equally unfair to all."""
    side = (manifest.input.height, manifest.input.width, 1 if manifest.input.color == "GRAY" else 3)
    picture = np.random.default_rng(0).integers(0, 256, side).astype(np.uint8)
    tensors = {
        scheme: Preprocessor(manifest.input, model.variant.input).from_picture(picture)
        for scheme, model in models.items()
    }
    took: dict[str, list[float]] = {scheme: [] for scheme in models}
    for number in range(WARM_UP_RUNS + TIMED_RUNS):
        for scheme, model in models.items():
            begun = time.perf_counter()
            model.run(tensors[scheme])
            if number >= WARM_UP_RUNS:
                took[scheme].append((time.perf_counter() - begun) * 1e3)
    return {scheme: (float(np.percentile(t, 50)), float(np.percentile(t, 95))) for scheme, t in took.items()}
