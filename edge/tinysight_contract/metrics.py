"""What a model does in the field, in figures that can be compared with what it did before it was signed.

In: how sure it was, of what, how often.  Out: how far that is from the reference in its manifest. Pure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from tinysight_contract.scalars import Count, Digest, Id, Time, Unit
from tinysight_contract.states import Percentiles

__all__ = ["BINS", "LEAST", "ModelMetrics", "Reference", "distance", "drift"]

BINS: Final = 20
"""Equal parts of 0..1; a score of 1 is in the last."""
LEAST: Final = 200
"""Objects or pictures; of fewer nobody says that they are others than before."""

Scores = Annotated[list[Count], Meta(min_length=BINS, max_length=BINS)]
Label = Annotated[str, Meta(min_length=1, max_length=100)]


class Reference(Struct, frozen=True, kw_only=True):
    """What a model found in the pictures that it was tested with: above its threshold, or a classifier's first answers.

    Attributes:
        scores: objects, or pictures of a classifier, by how sure the model was: 20 equal parts of 0..1.
        labels: the same by label; what was never found is left out.
    """

    scores: Scores
    labels: dict[Label, Count]


class ModelMetrics(Struct, frozen=True, kw_only=True):
    """``model``: what the model that sees has found since it began to, in one frame a second of each camera at most.

    Attributes:
        at: when it was so.
        boot_id: names the agent's run.
        bundle: SHA-256 of the bundle that sees, be it active or on trial.
        name: the bundle's name.
        version: the bundle's version.
        since: when it began to see in this run.
        frames: that were counted.
        scores: what was found in them above the threshold, or a classifier's first answer to each, by how sure the
            model was: 20 equal parts of 0..1.
        labels: the same by label, the 500 found most.
        inference_ms: of the newest thousand runs; null as long as there are fewer than twenty.
        drift: how far the newest thousand scores are from those in the signed manifest, 0 (alike) to 1 (nothing in
            common); null without a reference, or as long as there are fewer than 200.
        mix: the same of the labels.
    """

    at: Time
    boot_id: Id
    bundle: Digest
    name: str
    version: str
    since: Time
    frames: Count
    scores: Scores
    labels: dict[Label, Count]
    inference_ms: Percentiles | None = None
    drift: Unit | None = None
    mix: Unit | None = None


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Jensen-Shannon distance of two histograms of any sums, base 2: 0 when they are alike, 1 when nothing is shared.

    Source: Lin, Divergence measures based on the Shannon entropy, 1991; Endres and Schindelin, 2003 (its root is a
    metric).
    """
    whole, other_whole = sum(one), sum(other)
    if not whole or not other_whole:
        return 0.0 if whole == other_whole else 1.0
    total = 0.0
    for a, b in zip(one, other, strict=True):
        p, q = a / whole, b / other_whole
        middle = (p + q) / 2
        total += (p * math.log2(p / middle) if p else 0.0) + (q * math.log2(q / middle) if q else 0.0)
    return min(math.sqrt(max(total / 2, 0.0)), 1.0)


def drift(scores: Sequence[int], labels: Mapping[str, int], reference: Reference | None) -> tuple[float, float] | None:
    """How far scores and labels are from the reference; None without one, or when there is too little of either."""
    if reference is None or sum(scores) < LEAST or sum(reference.scores) < LEAST:
        return None
    names = sorted({*labels, *reference.labels})
    mix = distance([labels.get(name, 0) for name in names], [reference.labels.get(name, 0) for name in names])
    return distance(scores, reference.scores), mix
