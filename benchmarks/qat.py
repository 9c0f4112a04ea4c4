"""What quantization-aware training gives back of what int8 takes from a model that is hard to quantize.

    python benchmarks/qat.py        about 5 minutes on 2 cores

The model is hard on purpose, in ways that are found in the field. Its convolutions are depthwise and pointwise with few
channels, so each channel counts. Every activation is swish, which has no upper limit and a small negative part. And
the scales of its batch normalisations begin unevenly (as those of trained MobileNets are; M. Nagel et al., arXiv
1906.04721, section 3.1) and are trained from there: a tensor has one range for all its channels, and the quiet ones get
few of its 256 levels. The data are parcels cut out of the belt's pictures; the splits share no digit.

Four files are measured with the device's own code: float, int8 with ranges by least and greatest value (the usual
scheme), int8 with ranges by least squared error and no training, and int8 after ``train --qat``. Prints one JSON line
last.
"""

import argparse
import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import cv2
import keras
import msgspec
import numpy as np
from keras import layers
from steps import tinysight, where

from tinysight_contract.manifest import Input
from tinysight_converters.audit import check_int8
from tinysight_converters.bench import draft_manifest, variant_of
from tinysight_converters.proof import detect_all
from tinysight_converters.run import EXAMPLES, MODEL, Run, load_examples, save_run
from tinysight_converters.tflite import Recipe, convert_model
from tinysight_converters.trial import try_model
from tinysight_edge.belt import LABELS, Belt, Split
from tinysight_edge.interpreter import Model, find_runtime
from tinysight_trainer.config import Config, make_config, to_toml
from tinysight_trainer.data.dataset import open_dataset
from tinysight_trainer.fit import fit, prepare, save_model
from tinysight_trainer.loop import Progress
from tinysight_trainer.qat import QAT, fine_tune
from tinysight_trainer.scores import figures_of
from tinysight_trainer.train import SETTINGS, describe, read_pictures, sides_of, training_figures

SIDE: Final = 24
MOVED: Final = 120  # frames until parcels have come into view
COUNTS: Final[tuple[tuple[Split, int], ...]] = (("train", 4000), ("calibration", 300), ("test", 2000))
WIDTHS: Final = (10, 20, 20, 40, 40, 40, 40)
SPREAD: Final = 1.0  # standard deviation of the scales' logarithm: the middle 95 % lie within a factor of 50


def hard_model(config: Config, labels: int) -> Any:  # noqa: ANN401 -- Keras has no types
    """A small MobileNet with swish and unevenly scaled channels."""
    image = keras.Input((config.height, config.width, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = _scaled(layers.Conv2D(WIDTHS[0], 3, padding="same", use_bias=False)(x))
    for before, channels in pairwise(WIDTHS):
        stride = 2 if channels > before else 1
        x = _scaled(layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x))
        x = _scaled(layers.Conv2D(channels, 1, use_bias=False)(x))
    scores = layers.Dense(labels, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, {"scores": scores})
    rng = np.random.default_rng(config.seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(np.exp(rng.normal(0, SPREAD, layer.gamma.shape)))
    return model


def _scaled(x: Any) -> Any:  # noqa: ANN401 -- see above
    return layers.Activation("swish")(layers.BatchNormalization(momentum=0.95)(x))


def cut_parcels(out: Path, seed: int) -> None:
    """Folders of splits with folders of classes."""
    for split, count in COUNTS:
        done = number = 0
        while done < count:
            belt = Belt(seed * 100_000 + number, split=split)
            number += 1
            image, shown = belt.frame(MOVED)
            for truth in shown:
                if truth.clear:
                    left, top, right, bottom = (round(each) for each in truth.box_px)
                    small = cv2.resize(image[top:bottom, left:right], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
                    path = out / split / LABELS[truth.label] / f"{done}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), small)
                    done += 1


def main() -> None:
    """Cut, train, quantize in three ways, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cut_parcels(folder / "parcels", given.seed)
        tinysight("data", "import", "parcels", "--out", "data", "--quiet", cwd=folder)
        data, out = open_dataset(folder / "data"), folder / "run"
        config = make_config(
            {"input": f"{SIDE}x{SIDE}", "epochs": given.epochs, "batch": 64, "learning_rate": 4e-3, "seed": given.seed},
            task="classify",
            source="benchmark",
        )
        prepare(config)
        sides, spec, progress = sides_of(data), Input(height=SIDE, width=SIDE), Progress()
        pictures = read_pictures(data, sides, spec, progress)
        fitted = fit(
            data, config, out, pictures=pictures, digest=sides.digest, progress=progress, teachers=[], make=hard_model
        )
        save_model(fitted.model, out)
        (out / SETTINGS).write_bytes(to_toml(config))
        (out / EXAMPLES).write_bytes(msgspec.json.encode(sides.examples))
        run = describe(data, config, spec, training_figures(fitted, config, len(pictures[0])))
        save_run(out, run)
        trained_s = time.monotonic() - begun
        tuned = fine_tune(data, {}, out, resume=False, progress=progress)
        figures = measure(run, out, pictures[1].take(np.arange(len(pictures[1]))))
    lost = figures["float"] - figures["ptq"]
    figures["recovered"] = round((figures["qat"] - figures["ptq"]) / lost, 3) if lost else 0.0
    result = {
        **figures,
        "params": int(run.figures["params"]),
        "test_images": COUNTS[-1][1],
        "qat_epochs": int(tuned["epochs"]),
        "qat_s": tuned["train_s"],
        "trained_s": round(trained_s, 1),
        "seconds": round(time.monotonic() - begun, 1),
    }
    print(json.dumps({**result, "where": where()}))


def measure(run: Run, out: Path, calibration: np.ndarray[Any, Any]) -> dict[str, float]:
    """Accuracy on the test pictures, by how the model was quantized."""
    wanted = [Recipe(scheme="float32"), Recipe(scheme="int8"), Recipe(scheme="int8", ranges="mse")]
    files = convert_model(out / MODEL, calibration, wanted).files
    files += convert_model(out / QAT / MODEL, calibration, [Recipe(scheme="int8-qat")]).files
    runtime, test, root = find_runtime(), load_examples(out).test, Path(run.dataset)
    draft = draft_manifest(run, name="hard", version="0.0.0", release=0)
    accuracies = {}
    for way, content in zip(("float", "ptq", "mse", "qat"), files, strict=True):
        trial = try_model(content).loaded()
        if way != "float":
            check_int8(trial)
        variant = variant_of("float32" if way == "float" else "int8", trial)
        found = detect_all(Model(content, variant, runtime=runtime), draft, test, root)
        accuracies[way] = round(figures_of(run, found, test)["accuracy"], 4)
    return accuracies


if __name__ == "__main__":
    main()
