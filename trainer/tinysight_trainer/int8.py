"""What becomes of a trained model on a device: its int8 file, tried with the device's own code.

In: a run's folder and pictures.  Out: accuracy in int8, latency and size. The conversion is that of a bundle.
"""

from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tinysight_converters.audit import check_int8
from tinysight_converters.bench import draft_manifest, variant_of
from tinysight_converters.proof import detect_all, time_variants
from tinysight_converters.run import MODEL, Example, Run
from tinysight_converters.tflite import Recipe, convert_model
from tinysight_converters.trial import try_model
from tinysight_edge.interpreter import Model, find_runtime
from tinysight_trainer.scores import figures_of

__all__ = ["Cost", "Int8Model"]


class Cost(Struct, frozen=True, kw_only=True):
    """What an architecture costs; what it has learned makes no difference.

    Attributes:
        int8_ms: median of one inference, one thread, this machine.
        int8_kib: of the file.
    """

    int8_ms: float
    int8_kib: float


class Int8Model:
    """A run's model, converted in a child process and loaded.

    Args:
        run: what was trained.
        folder: of the run.
        calibration: fitted pictures (n, height, width, channels).

    Raises:
        ConversionError: the converter fails, or the model is not int8 throughout.
        RuntimeLoadError: the interpreter here cannot run it.
    """

    def __init__(self, run: Run, folder: Path, calibration: NDArray[np.uint8]) -> None:
        self.run, self.manifest = run, draft_manifest(run, name="int8", version="0.0.0", release=0)
        (self.content,) = convert_model(folder / MODEL, calibration, [Recipe(scheme="int8")]).files
        trial = try_model(self.content).loaded()
        check_int8(trial)
        self._model = Model(self.content, variant_of("int8", trial), runtime=find_runtime())

    def figures(self, examples: list[Example], root: Path) -> dict[str, float]:
        """How good it is on these pictures, 0..1.

        Raises:
            DataError: an image is missing, broken or changed.
        """
        return figures_of(self.run, detect_all(self._model, self.manifest, examples, root), examples)

    def cost(self) -> Cost:
        """Take its time and size."""
        median_ms = time_variants(self.manifest, {"int8": self._model})["int8"][0]
        return Cost(int8_ms=round(median_ms, 4), int8_kib=round(len(self.content) / 1024, 2))
