"""A classifier's .tflite is at home in MediaPipe: the real client takes it as it is and answers as our runtime does."""

import json
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tinysight_contract.bundle import Bundle
from tinysight_converters.environments import environment
from tinysight_converters.metadata import with_metadata
from tinysight_edge.belt import _digits
from tinysight_edge.interpreter import Model
from tinysight_edge.preprocess import Preprocessor

MEDIAPIPE = (
    "mediapipe==1.2.3",
    "certifi==2026.10.19.post1",
    "numpy==2.4.6",
    # MediaPipe draws with these two; the one without a window system stands for opencv-contrib-python.
    "opencv-python-headless==5.0.0.93",
    "matplotlib==3.11.2",
    "contourpy==1.3.3",
    "cycler==0.12.1",
    "fonttools==4.68.0",
    "kiwisolver==1.5.1",
    "packaging==26.4",
    "pillow==13.0.0",
    "pyparsing==3.3.3",
    "python-dateutil==4.0.0",
    "six==1.17.0",
)
CLIENT = Path(__file__).parent / "mediapipe_client.py"


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    """200 digits that the classifier never saw, at its own size."""
    images, _labels = _digits()
    return np.stack(
        [cv2.cvtColor(255 - cv2.resize(each * 15, (32, 32)), cv2.COLOR_GRAY2RGB) for each in images[300:500]]
    )


def classify(tflite: Path, pictures: NDArray[np.uint8]) -> list[Any]:
    np.save(tflite.with_suffix(".npy"), pictures)
    command: list[str | Path] = [environment("mediapipe", MEDIAPIPE), "-I", CLIENT, tflite, tflite.with_suffix(".npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("scheme", "off"), [("int8", 0.0), ("float32", 1e-5)])
def test_mediapipe_answers_as_our_own_runtime(
    scheme: str, off: float, world: Path, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    bundle = Bundle.open(world / "classifier.bundle")
    manifest, model = bundle.manifest, Model.load(bundle, scheme=scheme)
    (tmp_path / "model.tflite").write_bytes(bundle.read(f"{scheme}.tflite"))
    answers = classify(tmp_path / "model.tflite", pictures)
    assert len(answers) == 200

    prepare, output = Preprocessor(manifest.input, model.variant.input), model.variant.outputs[0]
    seen = set()
    for picture, (every, _) in zip(pictures, answers, strict=True):
        stored = model.run(prepare.from_picture(picture))["scores"][0]
        scores = (stored.astype(np.float64) - output.zero_point) * (output.scale or 1.0)
        seen.add(scores.tobytes())
        theirs = {index: score for _, index, score in every}
        assert {index: name for name, index, _ in every} == dict(enumerate(manifest.labels))
        assert np.abs(scores - [theirs[index] for index in range(len(scores))]).max() <= off
        assert scores[every[0][1]] == scores.max(), "the same class is the strongest"
    assert len(seen) > 50, "the pictures differ, and so do the answers"


def test_mediapipe_keeps_to_the_threshold_of_the_file(world: Path, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    bundle = Bundle.open(world / "classifier.bundle")
    content = bundle.read("int8.tflite")
    (tmp_path / "usual.tflite").write_bytes(content)
    best = [every[0][2] for every, _ in classify(tmp_path / "usual.tflite", pictures)]
    middle = float(np.median(best))
    (tmp_path / "other.tflite").write_bytes(with_metadata(content, bundle.manifest, threshold=middle))
    answered = [len(usual) > 0 for _, usual in classify(tmp_path / "other.tflite", pictures)]
    assert answered == [score >= middle for score in best]
    assert {True, False} == set(answered)
