"""Numbers as a model stores them: what they really are, and which of them can pass a threshold.

In: quantized or float arrays of one output.  Out: float32. Integers are compared as integers as long as possible.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinysight_contract.manifest import Output
from tinysight_edge.decoders.boxes import Detections

__all__ = ["Decoder", "Task", "activated", "lowest_passing", "real"]

Decoder = Callable[[Mapping[str, NDArray[Any]]], Detections]
"""Outputs by name, raw, with their batch dimension of one → detections in model pixels."""

How = TypeVar("How")


@dataclass(frozen=True, slots=True)
class Task(Generic[How]):
    """What a decoder is made from.

    Attributes:
        how: the kind of decoding and its numbers.
        outputs: by role.
        labels: how many there are.
        width: of the model's picture in pixels.
        height: likewise.
        score: nothing below it is told.
        iou: overlap above which two boxes of a class are the same object.
    """

    how: How
    outputs: Mapping[str, Output]
    labels: int
    width: int
    height: int
    score: float
    iou: float


def real(stored: NDArray[Any], output: Output) -> NDArray[np.float32]:
    """What the stored numbers stand for."""
    if output.dtype == "float32":
        return stored.astype(np.float32, copy=False)
    return (stored.astype(np.float32) - np.float32(output.zero_point)) * np.float32(output.scale)


def activated(scores: NDArray[np.float32], activation: str) -> NDArray[np.float32]:
    """Scores (…, classes) after ``none``, ``sigmoid`` or ``softmax``; NaN stays NaN."""
    if activation == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(scores, -80.0, 80.0))), np.float32)
    if activation == "softmax":
        high = scores.max(-1, keepdims=True)
        with np.errstate(over="ignore", invalid="ignore"):  # a foreign model may answer anything
            grown = np.exp(np.maximum(scores - high, -80.0))
        return np.asarray(grown / grown.sum(-1, keepdims=True), np.float32)
    return scores


def lowest_passing(output: Output, score: float, activation: str = "none") -> float:
    """The lowest stored number whose real value reaches ``score``; above all of them when none does.

    Of integers it is an integer, so that NumPy compares bytes with a byte.

    Args:
        output: whose numbers they are.
        score: the threshold.
        activation: ``none`` or ``sigmoid``, applied to each number by itself.
    """
    if output.dtype == "float32":
        if activation == "none":
            return score
        edges = np.linspace(-80.0, 80.0, 1601, dtype=np.float32)  # the step below it lets a little too much pass
        at = int(np.searchsorted(activated(edges, activation), score))
        return float(edges[max(at - 1, 0)]) if at else -np.inf
    bounds = np.iinfo(np.dtype(output.dtype))
    every = np.arange(bounds.min, bounds.max + 1)
    passing = activated(real(every, output), activation) >= np.float32(score)
    return int(every[passing][0]) if passing.any() else int(bounds.max) + 1
