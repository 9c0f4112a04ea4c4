"""How many pictures a second the input pipeline can feed, and how many the training takes.

    python benchmarks/data_pipeline.py      about 1 minute

Fed: an epoch of varied batches with nobody training, pictures in memory and from their files each time. Trained: steps
on one batch that is there already, and a whole epoch as it really is. In turn, in one run, because machines are noisy.
Prints one JSON line last.
"""

import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from steps import tinysight, where

from tinysight_contract.manifest import Input
from tinysight_trainer.config import Config, make_config
from tinysight_trainer.data.dataset import open_dataset
from tinysight_trainer.fit import prepare
from tinysight_trainer.loop import Loop, Progress
from tinysight_trainer.models import STRIDE, build_model
from tinysight_trainer.pictures import Pictures, batches, load_pictures, steps_of
from tinysight_trainer.targets import Grid

IMAGES, ROUNDS = 1000, 3


def rate(work: Callable[[], int]) -> float:
    """Pictures a second."""
    begun = time.monotonic()
    return work() / (time.monotonic() - begun)


def fed(pictures: Pictures, grid: Grid, config: Config, epoch: int) -> int:
    """An epoch of batches that nobody learns from."""
    return sum(len(images) for images, _ in batches(pictures, grid, 10, config, epoch=epoch))


def main() -> None:
    """Measure the detector's pipeline."""
    config = make_config({"epochs": ROUNDS}, task="detect", source="benchmark")
    spec = Input(height=config.height, width=config.width)
    grid = Grid(config.height // STRIDE, config.width // STRIDE, 10, STRIDE)
    prepare(config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tinysight("data", "synth", "belt", "--out", "data", "--images", str(IMAGES), "--quiet", cwd=folder)
        data = open_dataset(folder / "data")
        examples = data.examples(data.of("train"))
        held = load_pictures(examples, data.root, spec)
        files = load_pictures(examples, data.root, spec, keep_bytes=0)
        loop = Loop(build_model(config, 10), config, grid, 10, steps_per_epoch=steps_of(held, config.batch))
        batch = next(iter(batches(held, grid, 10, config, epoch=0)))
        loop._step(*batch)

        def steps(_: int) -> int:
            for _step in range(steps_of(held, config.batch)):
                float(loop._step(*batch)["loss"])
            return steps_of(held, config.batch) * config.batch

        def whole(pictures: Pictures, number: int) -> int:
            loop.epoch(pictures, number, Progress())
            return steps_of(pictures, config.batch) * config.batch

        works: dict[str, Callable[[int], int]] = {
            "fed_from_memory": partial(fed, held, grid, config),
            "fed_from_files": partial(fed, files, grid, config),
            "trained_alone": steps,
            "trained_from_memory": partial(whole, held),
            "trained_from_files": partial(whole, files),
        }
        best: dict[str, float] = {}
        for number in range(ROUNDS):
            for key, work in works.items():
                best[key] = max(best.get(key, 0.0), rate(partial(work, number)))
    figures = {f"{key}_per_s": round(value, 1) for key, value in best.items()}
    figures["fed_over_trained"] = round(best["fed_from_memory"] / best["trained_alone"], 2)
    print(json.dumps({**figures, "where": where()}))


if __name__ == "__main__":
    main()
