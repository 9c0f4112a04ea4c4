"""A Keras model as a finder of things, so that it is measured exactly as a device's model is.

In: a run and models of it.  Out: `Detections` per picture, by the device's own preprocessing and decoder, and figures.
"""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tinysight_contract import manifest as mf
from tinysight_converters.bench import draft_manifest
from tinysight_converters.metrics import average_precision, is_right
from tinysight_converters.proof import LOWEST_SCORE
from tinysight_converters.run import Example, Run
from tinysight_edge.decode import Detections, make_decoder
from tinysight_edge.preprocess import Fit, fit_picture

__all__ = ["KerasModel", "figures_of"]

BATCH = 32


class KerasModel:
    """One model, or several that answer together.

    Args:
        run: what they were trained for.
        models: of Keras, with the same outputs.
    """

    def __init__(self, run: Run, models: list[Any]) -> None:
        self.run = run
        self._models = [_compiled(model) for model in models]
        self.manifest = draft_manifest(run, name="model", version="0.0.0", release=0)
        shapes = {name: [1, *tensor.shape[1:]] for name, tensor in models[0].output.items()}
        outputs = [
            mf.Output(name=name, role=_ROLES[name], shape=shape, dtype="float32", scale=0.0, zero_point=0)
            for name, shape in shapes.items()
        ]
        size = [1, run.input.height, run.input.width, 1 if run.input.color == "GRAY" else 3]
        self.variant = mf.Variant(
            file="model.keras",
            scheme="float32",
            input=mf.Tensor(name="image", shape=size, dtype="float32", scale=0.0),
            outputs=outputs,
            runtimes=[],
            golden={},
        )
        lowest = LOWEST_SCORE if run.task == "detect" else 0.0
        self._decode = make_decoder(self.manifest, self.variant, min_score=lowest)

    def fit(self, example: Example, root: Path) -> tuple[NDArray[np.uint8], Fit]:
        """The picture as the model sees it, (height, width, channels).

        Raises:
            DataError: it is missing, broken or changed.
        """
        picture = np.empty(self.variant.input.shape[1:], np.uint8)
        return picture, fit_picture(example.picture(root), self.run.input, picture)

    def answer(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Mean outputs of the models for (n, height, width, channels), by name."""
        images = pictures.astype(np.float32)
        answers = [model(images) for model in self._models]
        return {name: np.mean([np.asarray(each[name]) for each in answers], 0) for name in answers[0]}

    def find(self, image: NDArray[np.uint8]) -> Detections:
        """What is found in one picture (H, W, 3) BGR, in its pixels, with all scores."""
        picture = np.empty(self.variant.input.shape[1:], np.uint8)
        fit = fit_picture(image, self.run.input, picture)
        return self._decode(self.answer(picture[None])).in_frame(fit)

    def find_all(self, examples: list[Example], root: Path) -> list[Detections]:
        """What is found in each example, in frame pixels, with all scores.

        Raises:
            DataError: an image is missing, broken or changed.
        """
        found = []
        for start in range(0, len(examples), BATCH):
            fitted = [self.fit(example, root) for example in examples[start : start + BATCH]]
            answers = self.answer(np.stack([picture for picture, _ in fitted]))
            for number, (_, fit) in enumerate(fitted):
                single = {name: values[number : number + 1] for name, values in answers.items()}
                found.append(self._decode(single).in_frame(fit))
        return found


def _compiled(model: Any) -> Any:  # noqa: ANN401 -- Keras has no types
    return tf.function(lambda images: model(images, training=False), reduce_retracing=True)


_ROLES: dict[str, Any] = {"heatmap": "heatmap", "box": "box", "scores": "scores"}


def figures_of(run: Run, found: list[Detections], true: list[Example]) -> dict[str, float]:
    """The figures of the task, 0..1."""
    if run.task == "classify":
        right = [is_right(each, example) for each, example in zip(found, true, strict=True)]
        return {"accuracy": sum(right) / len(right)}
    ap50, ap50_95 = average_precision(found, true, len(run.labels))
    return {"ap50": ap50, "ap50_95": ap50_95}
