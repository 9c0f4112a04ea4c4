"""Batches follow from seed, epoch and number alone, whether pictures are held or read again."""

from pathlib import Path
from typing import Any

import numpy as np

from tinysight_contract.manifest import Input
from tinysight_trainer.config import Config, make_config
from tinysight_trainer.data.dataset import open_dataset
from tinysight_trainer.targets import Grid


def config(**changes: Any) -> Config:
    given = {"input": "32x32", "epochs": 1, "batch": 8, "scale": 0.5, **changes}
    return make_config(given, task=given.pop("task", "detect"), source="test")


def pictures(world: Path, count: int | None = None, *, keep_bytes: int = 1 << 30) -> Any:
    from tinysight_trainer.pictures import load_pictures

    data = open_dataset(world / "belt")
    examples = data.examples(data.of("train"))[:count]
    return load_pictures(examples, data.root, Input(height=96, width=128), keep_bytes=keep_bytes)


def test_batches_depend_on_seed_epoch_and_number_alone(world: Path) -> None:
    from tinysight_trainer.pictures import batches

    held, grid = pictures(world), Grid(12, 16, 10, 8)

    def epoch(seed: int, number: int, source: Any = held) -> list[np.ndarray]:
        given = config(input="128x96", batch=16, seed=seed, mosaic=0.3, blur=0.3, flip=0.5)
        return [np.asarray(images) for images, _ in batches(source, grid, 10, given, epoch=number)]

    one, again, later, other = epoch(1, 0), epoch(1, 0), epoch(1, 1), epoch(2, 0)
    assert len(one) == 4
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], later[0])
    assert not np.array_equal(one[0], other[0])
    from_files = epoch(1, 0, pictures(world, keep_bytes=0))
    assert all(np.array_equal(a, b) for a, b in zip(one, from_files, strict=True))


def test_a_reader_may_leave_at_any_moment(world: Path) -> None:
    from tinysight_trainer.pictures import AHEAD, batches

    held = pictures(world, AHEAD + 1)
    for taken in range(AHEAD + 2):
        made = iter(batches(held, Grid(12, 16, 10, 8), 10, config(input="128x96", batch=1), epoch=None))
        for _ in range(taken):
            next(made, None)
        made.close()  # type: ignore[attr-defined]  # it is a generator


def test_fewer_pictures_than_a_batch_are_one_batch(world: Path) -> None:
    from tinysight_trainer.pictures import batches, steps_of

    held = pictures(world, 5)
    made = list(batches(held, Grid(12, 16, 10, 8), 10, config(input="128x96", batch=64), epoch=0))
    assert [len(images) for images, _ in made] == [5]
    assert steps_of(held, 64) == 1


def test_the_held_out_loss_is_the_same_whatever_the_batch(world: Path) -> None:
    from tinysight_trainer.loop import Loop
    from tinysight_trainer.models import build_model

    held = pictures(world, 40)
    given = [config(input="128x96", batch=batch) for batch in (1, 8, 64)]
    model = build_model(given[0], 10)
    loops = [Loop(model, each, Grid(12, 16, 10, 8), 10, steps_per_epoch=1) for each in given]
    losses = [loop.evaluate(held)["val_loss"] for loop in loops]
    assert losses == [losses[0]] * 3
