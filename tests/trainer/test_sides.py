"""Who is learned from, who measures, who tests: nobody on two sides, and something of every class to learn."""

from pathlib import Path
from typing import Any

import pytest

from tinysight_contract.errors import DataError
from tinysight_converters.run import load_examples
from tinysight_trainer.data.dataset import Dataset, open_dataset


def test_the_test_pictures_are_none_that_were_learned_from(world: Path) -> None:
    for run, name in (("detector", "belt"), ("classifier", "digits")):
        examples, data = load_examples(world / run), open_dataset(world / name)
        learned = {item.sha256 for item in data.of("train")}
        assert examples.test
        assert not learned & {each.sha256 for each in examples.test}


def test_without_a_calibration_split_whole_sessions_and_no_copies_are_set_aside(tmp_path: Path) -> None:
    from tinysight_trainer.data.item import Item, Shown
    from tinysight_trainer.train import sides_of

    def item(number: int, split: Any, session: str | None) -> Item:
        label = Shown(label="ab"[number % 4 // 2])
        name = f"{split}{number}.png"
        return Item(
            name=name, sha256=f"{number // 2:064x}", width=9, height=9, split=split, session=session, shown=(label,)
        )

    for sessions in (None, 20):
        items = [item(n, "train", None if sessions is None else f"s{n % sessions}") for n in range(200)]
        tested = [item(n, "test", None) for n in range(1000, 1010)]
        sides = sides_of(Dataset(tmp_path, (*items, *tested), "classify"))
        held, learned = ({each.sha256 for each in side} for side in (sides.validation, sides.learning))
        assert not held & learned
        assert 40 <= len(sides.validation) <= 80
        assert len(sides.validation) + len(sides.learning) == 200


def test_what_is_set_aside_leaves_every_class_something_to_learn(tmp_path: Path) -> None:
    from tinysight_trainer.data.item import Item, Shown
    from tinysight_trainer.train import sides_of

    def item(number: int, label: str, session: str | None = None, split: Any = "train") -> Item:
        return Item(
            name=f"{number}.png",
            sha256=f"{number:064x}",
            width=9,
            height=9,
            split=split,
            session=session,
            shown=(Shown(label=label),),
        )

    def classes(items: list[Item]) -> tuple[set[int], int]:
        sides = sides_of(Dataset(tmp_path, (*items, item(999, "a", split="test")), "classify"))
        return {each.class_ids[0] for each in sides.learning}, len(sides.validation)

    one_session_each = [item(10 * n + m, label, f"s{n}") for n, label in enumerate("abcdef") for m in range(10)]
    assert classes(one_session_each) == (set(range(6)), 12)
    one_more = [*one_session_each, item(98, "a", "s6")]
    assert classes(one_more) == (set(range(6)), 12)  # that session alone would be too few to measure with
    for number in range(40):  # what is set aside follows from the digests: other ones, other dice
        rare = [item(1000 * number + n, "rare" if n < 2 else "ab"[n % 2]) for n in range(62)]
        learned, held = classes(rare)
        assert (learned, held) == ({0, 1, 2}, 12)
    with pytest.raises(DataError, match="to spare"):
        classes([item(1, "a"), item(2, "b")])
