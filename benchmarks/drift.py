"""How far a model's scores drift from those in its test pictures: when nothing is wrong, and when something is.

    python benchmarks/drift.py        4 minutes; 6 more the first time, to train both models

A detector before twenty belts that it never saw, one frame a second each, until a thousand parcels were counted; a
classifier before twenty draws of a thousand pictures of its test digits. Then the same with other light, another
camera and other objects. All of it is counted by the device's own `ModelMeter`. Prints one JSON line last: of each
world the drift of scores and the mix of labels, in the median and the greatest of its cameras, after 200 and 1,000.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from quantize import draw as draw_digits
from quantize import varied
from rig import kept, say
from steps import tinysight, where
from yard import Yard

from tinysight_contract.bundle import Bundle
from tinysight_contract.messages import ModelRef
from tinysight_contract.metrics import LEAST
from tinysight_edge.belt import Belt
from tinysight_edge.decode import make_decoder
from tinysight_edge.health.model_metrics import WINDOW, ModelMeter
from tinysight_edge.interpreter import Model
from tinysight_edge.preprocess import Preprocessor

BELT: Final = ("--epochs", "12", "--seed", "7")
PICTURES: Final = 2000
DIGITS: Final = ("--input", "32x32", "--epochs", "10", "--ema", "0.99")
CAMERAS, TROUBLED = 20, 5
FPS: Final = 15
Image = NDArray[np.uint8]
Look = Callable[[Image], Image]


def belt_model() -> Path:
    """The demo's detector."""

    def make(out: Path) -> None:
        folder = out.parent
        tinysight("data", "synth", "belt", "--out", "data", "--images", str(PICTURES), "--seed", "7", cwd=folder)
        tinysight("train", "data", "--out", "run", *BELT, cwd=folder)
        tinysight("convert", "run", "--out", out.name, cwd=folder)

    return kept("drift-belt.bundle", [PICTURES, BELT], make)


def digits_model() -> Path:
    """The digits classifier of `quantize`."""

    def make(out: Path) -> None:
        folder = out.parent
        draw_digits(folder / "digits.npz")
        tinysight("data", "import", "digits.npz", "--out", "data", cwd=folder)
        tinysight("train", "data", "--out", "run", *DIGITS, cwd=folder)
        tinysight("convert", "run", "--out", out.name, cwd=folder)

    return kept("drift-digits.bundle", [DIGITS], make)


def lit(factor: float, plus: float = 0.0) -> Look:
    """The same in other light."""
    return lambda image: cv2.convertScaleAbs(image, alpha=factor, beta=plus).astype(np.uint8)


def blurred(sigma: float) -> Look:
    """Out of focus."""
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def noisy(sigma: float) -> Look:
    """A sensor in the dark."""
    dice = np.random.default_rng(3)
    return lambda image: np.clip(image + dice.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


LOOKS: Final[dict[str, Look]] = {
    "darker (x 0.6)": lit(0.6),
    "dark (x 0.25)": lit(0.25),
    "glare (x 1.5 + 60)": lit(1.5, 60.0),
    "colours swapped": lambda image: np.ascontiguousarray(image[..., ::-1]),
    "negative": lambda image: np.asarray(255 - image, np.uint8),
    "out of focus": blurred(2.0),
    "noise": noisy(30.0),
    "turned by 90": lambda image: np.ascontiguousarray(np.rot90(image)),
    "upside down": lambda image: np.ascontiguousarray(image[::-1, ::-1]),
}


def belt(seed: int) -> Iterator[Image]:
    """One frame a second of one belt, for ever; parcels stay in view for some seconds."""
    world = Belt(seed, split="test", speed_px=60.0 / FPS)
    return (world.frame(60 * FPS + second * FPS)[0] for second in count())


def yard(seed: int) -> Iterator[Image]:
    """Other objects before another ground."""
    world = Yard(seed)
    return (world.frame(second * 30)[0] for second in count())


def digits(seed: int) -> Iterator[Image]:
    """Digits that were tested with, each drawn anew."""
    with tempfile.TemporaryDirectory() as folder:
        draw_digits(Path(folder) / "digits.npz")
        with np.load(Path(folder) / "digits.npz") as held:
            whole = held["x_test"]
    order = np.random.default_rng(seed).permutation(len(whole))
    return (cv2.cvtColor(whole[index], cv2.COLOR_GRAY2BGR).astype(np.uint8) for index in order)


def letters(seed: int) -> Iterator[Image]:
    """Capital letters in the size of digits."""
    dice = np.random.default_rng(seed)
    for _ in count():
        paper = np.zeros((1, 32, 32), np.uint8)
        cv2.putText(paper[0], chr(int(dice.integers(65, 91))), (6, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 225, 3)
        yield np.asarray(cv2.cvtColor(varied(paper, 1, int(dice.integers(1 << 30)))[0], cv2.COLOR_GRAY2BGR), np.uint8)


class Device:
    """What a device does with a model, without its cameras."""

    def __init__(self, path: Path) -> None:
        bundle = Bundle.open(path)
        self._manifest, model = bundle.manifest, Model.load(bundle)
        self._threshold = self._manifest.thresholds_of(model.variant).score
        low = 0.0 if self._manifest.task == "classify" else 0.5 * self._threshold
        self._decode = make_decoder(self._manifest, model.variant, min_score=low)
        self._prepare, self._model = Preprocessor(self._manifest.input, model.variant.input), model
        self._ref = ModelRef(name=self._manifest.name, version=self._manifest.version, digest=bundle.digest)

    def watch(self, world: Iterator[Image], look: Look, *, most_s: int = 3000) -> dict[int, tuple[float, float] | None]:
        """Drift and mix once so many were found; None where that takes longer."""
        meter = ModelMeter(self._manifest, self._ref, self._threshold, "bench")
        wanted, told = [LEAST, WINDOW], dict[int, tuple[float, float] | None]()
        for second, image in zip(range(most_s), world, strict=False):
            tensor, fit = self._prepare(look(image))
            meter.note("camera", float(second), self._decode(self._model.run(tensor)).in_frame(fit), 1.0)
            if second % 5 == 0 and sum((now := meter.take()).scores) >= wanted[0] and now.drift is not None:
                told[wanted.pop(0)] = now.drift, now.mix or 0.0
            if not wanted:
                break
        return {number: told.get(number) for number in (LEAST, WINDOW)}


def figures(device: Device, world: Callable[[int], Iterator[Image]], look: Look, *, cameras: int) -> dict[str, Any]:
    """Of several cameras, the median and the greatest."""
    seen = [device.watch(world(seed), look) for seed in range(9000, 9000 + cameras)]
    made: dict[str, Any] = {}
    for number in (LEAST, WINDOW):
        known = [each for one in seen if (each := one[number]) is not None]
        for place, name in enumerate(("drift", "mix")):
            values = sorted(each[place] for each in known)
            made[f"{name}_{number}"] = [round(median(values), 3), round(values[-1], 3)] if values else None
    return made


def main() -> None:
    """Make, watch, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    told: dict[str, Any] = {}
    for name, path, own, others in (
        ("belt", belt_model(), belt, {"the yard's crates": yard}),
        ("digits", digits_model(), digits, {"letters": letters}),
    ):
        device = Device(path)
        told[name] = {"as tested": figures(device, own, lambda image: image, cameras=CAMERAS)}
        for what, look in LOOKS.items():
            told[name][what] = figures(device, own, look, cameras=TROUBLED)
        for what, world in others.items():
            told[name][what] = figures(device, world, lambda image: image, cameras=TROUBLED)
        for what, each in told[name].items():
            say(f"{name}, {what}: {each}")
    print(json.dumps({**told, "where": where()}))


if __name__ == "__main__":
    main()
