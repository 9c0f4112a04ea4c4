"""Thresholds are tuned for each variant, and answers that are none are no proof."""

from pathlib import Path

import numpy as np
import pytest

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConversionError
from tinysight_contract.messages import ModelRef
from tinysight_converters.proof import Proof, detect_all, reference_of, tuned_threshold
from tinysight_converters.run import Example, load_examples
from tinysight_edge.decode import Detections
from tinysight_edge.health.model_metrics import ModelMeter
from tinysight_edge.inference import Inference
from tinysight_edge.interpreter import Model


def says(*scores: float) -> list[Detections]:
    box = np.array([[0, 0, 9, 9]], np.float32)
    return [Detections(box, np.array([score], np.float32), np.array([0], np.int32)) for score in scores]


NOBODY: list[Example] = []


def test_the_float_classifier_speaks_from_one_half_on() -> None:
    assert tuned_threshold(says(0.9, 0.2), NOBODY, "classify") == 0.5


def test_a_quantized_classifier_speaks_as_often_as_the_float_one() -> None:
    timid = says(0.45, 0.44, 0.40, 0.10)  # int8 has pressed its scores together
    assert tuned_threshold(timid, NOBODY, "classify", told=3) == pytest.approx(0.25)
    assert tuned_threshold(says(0.7, 0.6, 0.1), NOBODY, "classify", told=0) == pytest.approx(0.85)
    assert tuned_threshold(timid, NOBODY, "classify", told=4) == pytest.approx(0.05)
    assert tuned_threshold(says(0.9, 0.8, 0.2), NOBODY, "classify", told=2) == 0.5, "where one half does, it stays"


def test_a_classifier_that_answers_no_numbers_is_refused(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, examples = Bundle.open(world / "classifier.bundle"), load_examples(world / "classifier")
    model = Model.load(bundle, scheme="float32")
    whole = model.run
    monkeypatch.setattr(model, "run", lambda tensor: {n: np.full_like(a, np.nan) for n, a in whole(tensor).items()})
    with pytest.raises(ConversionError, match="with no number"):
        detect_all(model, bundle.manifest, examples.test, world / "digits")


def test_a_variant_that_answers_otherwise_here_is_passed_over(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(world / "classifier.bundle")
    assert Model.load(bundle).variant.scheme == "int8"
    whole = Model.run

    def broken(self: Model, tensor: np.ndarray) -> dict[str, np.ndarray]:
        answers = whole(self, tensor)
        return {name: 127 - each if self.variant.scheme == "int8" else each for name, each in answers.items()}

    monkeypatch.setattr(Model, "run", broken)
    assert Model.load(bundle).variant.scheme == "float32"


@pytest.mark.parametrize(("task", "data"), [("detector", "belt"), ("classifier", "digits")])
def test_a_device_that_sees_the_test_pictures_counts_what_the_manifest_says(task: str, data: str, world: Path) -> None:
    bundle, examples = Bundle.open(world / f"{task}.bundle"), load_examples(world / task).test
    manifest, model = bundle.manifest, Model.load(bundle)
    assert model.variant is manifest.variants[0]
    reference, threshold = manifest.reference, manifest.thresholds_of(model.variant).score
    if task == "detector":  # so small a training finds nothing that it would believe
        threshold = 0.05
        proof = Proof({}, threshold, 1.0, detect_all(model, manifest, examples, world / data))
        reference = reference_of(proof, manifest)
    ref = ModelRef(name=manifest.name, version=manifest.version, digest=bundle.digest)
    infer, meter = Inference(bundle, model, low=0.01), ModelMeter(manifest, ref, threshold, "b1")
    for second, example in enumerate(examples):
        found = infer(example.picture(world / data), float(second)).found
        assert found is not None
        meter.note("test", float(second), found, 1.0)
    told = meter.take()
    assert reference is not None
    assert (told.scores, told.labels) == (reference.scores, reference.labels)
    assert sum(told.scores) == sum(told.labels.values()) > 0
    assert task == "detector" or sum(told.scores) == told.frames == len(examples)
