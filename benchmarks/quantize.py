"""Quantize a digits classifier, the belt detector and an EfficientNet-Lite0 classifier, and measure what int8 costs.

    python benchmarks/quantize.py        about 12 minutes on 2 cores, most of it training

The digits are scikit-learn's. Of those that are tested with, none was trained on; each is drawn eight times, moved,
paler and with noise, so that a point is more than a handful of pictures. The same commands that a user types. Prints
one JSON line last: the worst loss in points, the worst size and the worst speed of int8 against float32.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from steps import tinysight, where

SIDE = 32
TRAINED, DRAWN = 1257, 8
LARGE_KIB = 200


def varied(images: NDArray[np.uint8], times: int, seed: int) -> NDArray[np.uint8]:
    """Each of (n, 32, 32) so many times, moved by up to two pixels, paler and with noise."""
    dice = np.random.default_rng(seed)
    made = []
    for image in np.repeat(images, times, axis=0):
        shift = np.array([[1, 0, dice.uniform(-2, 2)], [0, 1, dice.uniform(-2, 2)]])
        moved = cv2.warpAffine(image, shift, (SIDE, SIDE)).astype(np.float32)
        pale = moved * dice.uniform(0.5, 1.0) + dice.uniform(0, 40)
        made.append(np.clip(pale + dice.normal(0, 12, (SIDE, SIDE)), 0, 255).astype(np.uint8))
    return np.stack(made)


def draw(path: Path) -> None:
    """The data set, in the form of keras.datasets."""
    held = load_digits()
    images = np.stack([cv2.resize((image * 15).astype(np.uint8), (SIDE, SIDE)) for image in held.images])
    order = np.random.default_rng(0).permutation(len(images))
    learned, tested = order[:TRAINED], order[TRAINED:]
    np.savez(
        path,
        x_train=varied(images[learned], 3, 1),
        y_train=np.repeat(held.target[learned], 3),
        x_test=varied(images[tested], DRAWN, 2),
        y_test=np.repeat(held.target[tested], DRAWN),
    )


def classifier(folder: Path, run: str, *settings: str) -> dict[str, Any]:
    """Train on the digits and convert."""
    tinysight("train", "digits", "--out", run, *settings, cwd=folder)
    return tinysight("convert", run, "--out", f"{run}.bundle", cwd=folder)


def main() -> None:
    """Draw, train, convert, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "digits.npz")
        tinysight("data", "import", "digits.npz", "--out", "digits", cwd=folder)
        tinysight("data", "synth", "belt", "--out", "belt", "--seed", "7", cwd=folder)
        tinysight("train", "belt", "--out", "detector", "--seed", "7", cwd=folder)
        proofs = {
            "digits": classifier(folder, "small", "--input", "32x32", "--epochs", "10", "--ema", "0.99"),
            "lite0": classifier(folder, "lite", "--model", "lite0", "--input", "64x64", "--epochs", "6"),
            "belt": tinysight("convert", "detector", "--out", "belt.bundle", cwd=folder),
        }
    figures: dict[str, Any] = {}
    for name, proof in proofs.items():
        metric = "ap50_95" if name == "belt" else "accuracy"
        figures[name] = {
            "float": round(proof[f"float_{metric}"], 4),
            "int8": round(proof[f"int8_{metric}"], 4),
            "agreement": round(proof["agreement"], 4),
            "float_kib": round(proof["float_kib"], 1),
            "int8_kib": round(proof["int8_kib"], 1),
            "float_ms": round(proof["float_ms"], 4),
            "int8_ms": round(proof["int8_ms"], 4),
        }
    large = [each for each in figures.values() if each["float_kib"] > LARGE_KIB]
    worst = {
        "classifier_drop_pt": round(max(proofs[name]["drop_pt"] for name in ("digits", "lite0")), 3),
        "detector_drop_pt": round(proofs["belt"]["drop_pt"], 3),
        "size_ratio": round(max(each["int8_kib"] / each["float_kib"] for each in large), 3),
        "speedup": round(min(each["float_ms"] / each["int8_ms"] for each in figures.values()), 2),
    }
    print(json.dumps({**worst, **figures, "where": where()}))


if __name__ == "__main__":
    main()
