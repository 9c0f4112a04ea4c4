"""What moves when a device that has one bundle gets the next: the difference, against the whole.

    python benchmarks/delta.py        2 minutes; 10 more the first time, for training

Two models are trained by the commands that a user types: the belt's detector and an EfficientNet-Lite0 classifier of
digits. Each is then trained on twice, on the same pictures: once with nothing free but the layers that give the outputs
(``head``), once with everything free at a tenth of the learning rate (``all``). What comes of it is converted as the
next releases. All four pairs are measured as whole bundles: weights, manifest, golden vectors, report.

A ratio is the delta's bytes by the new bundle's, of both models the worse; ``full_zstd_ratio`` is what zstd alone makes
of the new bundle. ``apply_mib`` is what making the largest bundle adds to a process that has the base and the delta in
memory, its result included. Runs are kept below the user's cache. Prints one JSON line last.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import keras
from msgspec.structs import asdict, replace
from quantize import draw
from rig import kept, say
from steps import tinysight, where

from tinysight_contract.manifest import Input
from tinysight_converters.run import EXAMPLES, MODEL, load_run, save_run
from tinysight_edge.update.delta import apply_delta, make_delta
from tinysight_trainer.config import make_config, read_toml, to_toml
from tinysight_trainer.data.dataset import open_dataset
from tinysight_trainer.fit import fit, prepare, save_model
from tinysight_trainer.loop import Progress
from tinysight_trainer.train import SETTINGS, describe, read_pictures, sides_of, training_figures

SEED: Final = ("--seed", "7")
FLAGS: Final = {
    "detector": ("belt", "--epochs", "8"),
    "classifier": ("digits", "--model", "lite0", "--input", "64x64", "--epochs", "4"),
}
HEADS: Final = ("heatmap", "box", "scores")
EPOCHS: Final = 2  # of the training that follows
SHARE_OF_RATE: Final = 0.1
REPEATS: Final = 5
APPLY: Final = """
import re, sys
from pathlib import Path
from tinysight_edge.update.delta import apply_delta, make_delta

def peak_mib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

folder, size, digest = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
base, delta = (folder / "base").read_bytes(), (folder / "delta").read_bytes()
before = peak_mib()
apply_delta(base, delta, size=size, digest=digest)
print(peak_mib() - before)
"""


def make_runs(folder: Path) -> None:
    """The data sets, and of each model a run and the two that go on from it."""
    folder.mkdir()
    tinysight("data", "synth", "belt", "--out", "belt", "--images", "800", *SEED, cwd=folder)
    draw(folder / "digits.npz")
    tinysight("data", "import", "digits.npz", "--out", "digits", cwd=folder)
    for name, flags in FLAGS.items():
        tinysight("train", flags[0], "--out", name, *flags[1:], *SEED, cwd=folder)
        train_on(folder / name, folder / f"{name}-head", only=HEADS)
        train_on(folder / name, folder / f"{name}-all", only=())


def train_on(begun: Path, out: Path, *, only: tuple[str, ...]) -> None:
    """Go on with a finished run in another folder; ``only`` names the layers that are free, none: all, and gently."""
    run = load_run(begun)
    data = open_dataset(Path(run.dataset))
    was = make_config(read_toml(begun / SETTINGS), task=run.task, source=str(begun))
    rate = was.learning_rate * (1 if only else SHARE_OF_RATE)
    config = make_config({**asdict(was), "epochs": EPOCHS, "learning_rate": rate}, task=run.task, source="benchmark")
    prepare(config)
    sides, spec, progress = sides_of(data), Input(height=config.height, width=config.width), Progress()
    pictures = read_pictures(data, sides, spec, progress)

    def resumed(_config: object, _labels: int) -> Any:  # noqa: ANN401 -- Keras has no types
        model = keras.models.load_model(begun / MODEL, compile=False, safe_mode=True)
        for layer in model.layers:
            layer.trainable = not only or layer.name in only
        return model

    fitted = fit(
        data, config, out, pictures=pictures, digest=sides.digest, progress=progress, teachers=[], make=resumed
    )
    save_model(fitted.model, out)
    (out / SETTINGS).write_bytes(to_toml(config))
    shutil.copy(begun / EXAMPLES, out / EXAMPLES)
    save_run(out, describe(data, config, spec, training_figures(fitted, config, len(pictures[0]))))


def convert(runs: Path, run: str, release: int, out: Path) -> bytes:
    """A run's bundle; its data set may have moved since it was trained."""
    name = run.split("-", maxsplit=1)[0]
    save_run(runs / run, replace(load_run(runs / run), dataset=str(runs / FLAGS[name][0])))
    flags = ("--name", name, "--version", f"1.{release}.0", "--release", str(release))
    proof = tinysight("convert", run, "--out", out / f"{run}.bundle", *flags, cwd=runs)
    say(f"{run}: {proof['bundle_kib']:.0f} KiB, costs {proof['drop_pt']:.2f} points")
    return (out / f"{run}.bundle").read_bytes()


def compare(base: bytes, new: bytes) -> dict[str, float]:
    """Both ways of getting a bundle to a device."""
    begun_s = time.perf_counter()
    delta = make_delta(base, new)
    made_s = time.perf_counter() - begun_s
    applied_s, digest = [], hashlib.sha256(new).hexdigest()
    for _ in range(REPEATS):
        begun_s = time.perf_counter()
        apply_delta(base, delta, size=len(new), digest=digest)
        applied_s.append(time.perf_counter() - begun_s)
    return {
        "kib": round(len(new) / 1024, 1),
        "delta_kib": round(len(delta) / 1024, 1),
        "ratio": round(len(delta) / len(new), 4),
        "full_zstd_ratio": round(len(make_delta(b"", new)) / len(new), 4),
        "make_s": round(made_s, 2),
        "apply_s": round(median(applied_s), 4),
        "apply_mib": measured_apart(base, delta, len(new), digest),
    }


def measured_apart(base: bytes, delta: bytes, size: int, digest: str) -> float:
    """What applying adds to a new process at its peak, in MiB."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "base").write_bytes(base)
        (Path(name) / "delta").write_bytes(delta)
        command = [sys.executable, "-c", APPLY, name, str(size), digest]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return round(float(done.stdout), 1)


def main() -> None:
    """Train once, convert, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    runs = kept("fine-tuned", [list(FLAGS.items()), HEADS, EPOCHS, SHARE_OF_RATE], make_runs)
    pairs: dict[str, dict[str, dict[str, float]]] = {"head": {}, "all": {}}
    with tempfile.TemporaryDirectory() as name:
        for model in FLAGS:
            base = convert(runs, model, 1, Path(name))
            for release, kind in enumerate(pairs, start=2):
                pairs[kind][model] = compare(base, convert(runs, f"{model}-{kind}", release, Path(name)))
                say(f"{model}-{kind}: {pairs[kind][model]}")
    every = [figures for models in pairs.values() for figures in models.values()]
    worst = {
        "head_only_ratio": max(figures["ratio"] for figures in pairs["head"].values()),
        "all_weights_ratio": max(figures["ratio"] for figures in pairs["all"].values()),
        **{
            name: max(figures[name] for figures in every)
            for name in ("full_zstd_ratio", "make_s", "apply_s", "apply_mib")
        },
    }
    print(json.dumps({**worst, "pairs": pairs, "where": where()}))


if __name__ == "__main__":
    main()
