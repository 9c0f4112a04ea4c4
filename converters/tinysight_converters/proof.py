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
from numpy.typing import NDArray

from tinysight_contract.manifest import Manifest, Variant
from tinysight_converters.metrics import agreement, average_precision, is_right
from tinysight_converters.run import Example
from tinysight_edge.decode import Detections, make_decoder
from tinysight_edge.interpreter import Model
from tinysight_edge.preprocess import Preprocessor

__all__ = ["Proof", "compare", "detect_all", "fit_all", "time_variants"]

TIMED_RUNS: Final = 300
WARM_UP_RUNS: Final = 30
LOWEST_SCORE: Final = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What one variant did on the held-out pictures.

    Attributes:
        scheme: of the variant.
        size_bytes: of its file.
        metrics: ``ap50`` and ``ap50_95``, or ``accuracy``; in 0..1.
        agreement: with the float variant, in 0..1.
        latency_ms: p50 and p95 of one inference, one thread, this machine.
        found: per picture, all detections down to a score of 0.01.
    """

    scheme: str
    size_bytes: int
    metrics: dict[str, float]
    agreement: float
    latency_ms: tuple[float, float]
    found: list[Detections]


def fit_all(examples: Sequence[Example], root: Path, manifest: Manifest, variant: Variant) -> NDArray[np.uint8]:
    """The examples as the device fits them: (n, height, width, channels) uint8.

    Raises:
        DataError: an image is missing, broken or changed.
    """
    prepare = Preprocessor(manifest.input, variant.input)
    return np.stack([prepare.fit(example.picture(root))[0].copy() for example in examples])


def detect_all(model: Model, manifest: Manifest, examples: Sequence[Example], root: Path) -> list[Detections]:
    """What the model finds in each example, in frame pixels, with all scores.

    Raises:
        DataError: an image is missing, broken or changed.
    """
    prepare = Preprocessor(manifest.input, model.variant.input)
    lowest = LOWEST_SCORE if manifest.task == "detect" else 0.0
    decode = make_decoder(manifest, model.variant, min_score=lowest)
    found = []
    for example in examples:
        tensor, fit = prepare(example.picture(root))
        found.append(decode(model.run(tensor)).in_frame(fit))
    return found


def compare(
    manifest: Manifest, models: dict[str, Model], sizes: dict[str, int], examples: Sequence[Example], root: Path
) -> dict[str, Proof]:
    """Every variant on the held-out examples, against the truth and against the float variant.

    Args:
        manifest: with the tuned threshold.
        models: scheme to loaded variant; ``float32`` is among them.
        sizes: scheme to bytes of the file.
        examples: never trained on, nor calibrated with.
        root: of the data set.
    """
    latencies = time_variants(manifest, models)
    found = {scheme: detect_all(model, manifest, examples, root) for scheme, model in models.items()}
    proofs = {}
    for scheme, held in found.items():
        if manifest.task == "detect":
            ap50, ap50_95 = average_precision(held, examples, len(manifest.labels))
            metrics = {"ap50": ap50, "ap50_95": ap50_95}
            agreed = agreement(found["float32"], held, manifest.thresholds.score)
        else:
            right = [is_right(each, example) for each, example in zip(held, examples, strict=True)]
            metrics = {"accuracy": sum(right) / len(right)}
            same = [a.class_ids[0] == b.class_ids[0] for a, b in zip(found["float32"], held, strict=True)]
            agreed = float(np.mean(same))
        proofs[scheme] = Proof(scheme, sizes[scheme], metrics, agreed, latencies[scheme], held)
    return proofs


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
