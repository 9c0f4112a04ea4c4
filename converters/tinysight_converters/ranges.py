"""Find the ranges of a fake-quantized model by showing it pictures.

In: a model of `quantized_clone`, fitted pictures.  Out: the same model with its ranges set, either to all that was
seen, or to what makes the rounding's squared error least: a rare outlier is cut off, and all else gets finer steps.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tinysight_converters.fake_quant import FakeQuant, QuantConv2D, QuantDense, QuantDepthwiseConv2D

__all__ = ["calibrate", "fake_quants", "round_biases"]

BATCH: Final = 16
BINS: Final = 8192
SHARES: Final = np.geomspace(1.0, 0.02, 120)  # of a range, that are tried
ROUNDS: Final = 2

Span = tuple[float, float]


def fake_quants(model: Any) -> list[FakeQuant]:  # noqa: ANN401 -- Keras has no types
    """The layers whose ranges are to be found."""
    return [layer for layer in model.layers if isinstance(layer, FakeQuant) and not layer.fixed]


def calibrate(model: Any, pictures: NDArray[np.uint8], *, method: Literal["minmax", "mse"]) -> None:  # noqa: ANN401 -- see above
    """Set all ranges that are to be found; nothing is rounded but the weights while they are sought.

    Args:
        model: made by `quantized_clone`.
        pictures: fitted (n, height, width, channels), as the device will feed them.
        method: ``minmax`` takes all that is seen, ``mse`` the range with the least squared error.
    """
    grids = fake_quants(model)
    spans: dict[str, Span] = {grid.name: (0.0, 0.0) for grid in grids}

    def widen(name: str, seen: NDArray[np.float32]) -> None:
        low, high = spans[name]
        spans[name] = min(low, float(seen.min())), max(high, float(seen.max()))

    _show(model, grids, pictures, widen)
    spans = {name: span if span[0] < span[1] else (0.0, 1.0) for name, span in spans.items()}
    if method == "mse":
        counts = {grid.name: np.zeros(BINS, np.int64) for grid in grids}

        def count(name: str, seen: NDArray[np.float32]) -> None:
            counts[name] += np.histogram(seen, BINS, spans[name])[0]

        _show(model, grids, pictures, count)
        spans = {name: _least_error(counts[name], span) for name, span in spans.items()}
    for grid in grids:
        low, high = spans[grid.name]
        grid.low.assign(low)
        grid.high.assign(high)
    round_biases(model)


def round_biases(model: Any) -> None:  # noqa: ANN401 -- see above
    """Put every bias where int8 has it: on a whole multiple of its input's step times its weights'."""
    for layer in model.layers:
        if isinstance(layer, QuantConv2D | QuantDepthwiseConv2D | QuantDense):
            source = layer
            while not isinstance(source, FakeQuant):
                source = source.input._keras_history.operation
            step = (np.float64(source.high) - np.float64(source.low)) / 255 * np.float64(layer.weight_range()) / 127
            whole = np.round(np.asarray(layer.bias) / step)
            if np.ptp(np.float32(whole * step)) == 0 != np.ptp(whole):
                whole[0] += 1  # TensorFlow 2.21 reads equal values of different steps all in the first one's
            layer.bias.assign(whole * step)


def _show(
    model: Any,  # noqa: ANN401 -- see above
    grids: list[FakeQuant],
    pictures: NDArray[np.uint8],
    see: Callable[[str, NDArray[np.float32]], None],
) -> None:
    """Call ``see`` with the name of each layer and what comes into it."""
    for grid in grids:
        grid.see = see
    try:
        for start in range(0, len(pictures), BATCH):
            model(pictures[start : start + BATCH].astype(np.float32), training=False)
    finally:
        for grid in grids:
            grid.see = None


def _least_error(counts: NDArray[np.int64], span: Span) -> Span:
    """The part of a range that rounds what is in the histogram with the least squared error."""
    edges = np.linspace(*span, BINS + 1)
    values = (edges[1:] + edges[:-1]) / 2

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        zero = np.round(-low / step)
        rounded = (np.clip(np.round(values / step), -zero, 255 - zero)) * step
        return float(counts @ np.square(values - rounded))

    low, high = span
    for _ in range(ROUNDS):
        high = min((span[1] * share for share in SHARES), key=lambda end: error(low, end))
        low = min((span[0] * share for share in SHARES), key=lambda end: error(end, high))
    return low, high
