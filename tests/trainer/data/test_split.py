"""Copies are found among look-alikes, and relatives never stand on both sides of a split."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinysight_contract.errors import DataError
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.item import Item, Shown
from tinysight_trainer.data.looks import Looks, Pairs, clusters, look_at, near_pairs
from tinysight_trainer.data.split import groups_of, leak_of, split_dataset

Make = Callable[..., Dataset]
CAT = Shown(label="cat")
NO_PAIRS = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def scene(number: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def compressed(image: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1), np.uint8)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "compressed": compressed,
    "smaller": lambda image: cv2.resize(image, (80, 60), interpolation=cv2.INTER_AREA),
    "darker": lambda image: (image * 0.7).astype(np.uint8),
    "noisy": lambda image: np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(np.uint8),
    "blurred": lambda image: cv2.GaussianBlur(image, (5, 5), 0),
    "shaken": lambda image: np.roll(image, (1, -2), (0, 1)),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found_and_others_are_not(how: str) -> None:
    images = [scene(number) for number in range(40)]
    pairs = near_pairs(Looks.of(look_at(image) for image in [*images, *(COPIES[how](image) for image in images)]))
    assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == {(n, n + 40) for n in range(40)}


def test_blank_pictures_are_alike_and_like_nothing_else() -> None:
    images = [np.full((40, 40, 3), 7, np.uint8), scene(1), np.full((40, 40, 3), 200, np.uint8)]
    pairs = near_pairs(Looks.of(look_at(image) for image in images))
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0], [2])


def test_a_camera_that_never_moves_stays_affordable() -> None:
    looks = Looks.of([look_at(scene(1))] * 3000)
    pairs = near_pairs(looks)
    assert len(pairs) < 10 * 3000
    assert set(clusters(3000, pairs, most=3000).tolist()) == {0}


def test_no_pictures_have_no_pairs() -> None:
    assert len(near_pairs(Looks.of([]))) == 0


def test_a_cluster_that_grows_too_large_is_parted_at_its_weakest_links() -> None:
    chain = Pairs(np.array([0, 1, 2]), np.array([1, 2, 3]), np.array([0.99, 0.96, 0.98], np.float32))
    assert clusters(4, chain, most=4).tolist() == [0, 0, 0, 0]
    assert clusters(4, chain, most=2).tolist() == [0, 0, 2, 2]


def items(sessions: list[str | None], labels: list[str]) -> tuple[Item, ...]:
    return tuple(
        Item(
            name=f"{number:03d}.png",
            sha256=f"{number:064x}",
            width=10,
            height=10,
            session=session,
            shown=(Shown(label=label),),
        )
        for number, (session, label) in enumerate(zip(sessions, labels, strict=True))
    )


def random_looks(count: int) -> Looks:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, count).astype(np.uint64)
    return Looks(hashes, rng.integers(0, 256, (count, 32, 32)).astype(np.uint8))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), min_size=30, max_size=120))
def test_sessions_stay_together_and_every_picture_gets_a_split(told: list[tuple[int, str]]) -> None:
    data = Dataset(Path("data"), items([f"s{number}" for number, _ in told], [label for _, label in told]), "classify")
    try:
        parted = split_dataset(data, random_looks(len(told)))
    except DataError:
        assert len({number for number, _ in told}) < 4
        return
    by_session: dict[str, set[str | None]] = {}
    for item in parted.items:
        by_session.setdefault(str(item.session), set()).add(item.split)
    assert all(len(splits) == 1 for splits in by_session.values())
    assert None not in {item.split for item in parted.items}
    assert parted.figures is not None
    assert parted.figures.leak == 0.0
    assert parted.of("test")


def test_each_split_gets_its_share_of_each_class() -> None:
    labels = ["rare" if number % 20 == 0 else "common" for number in range(1000)]
    data = Dataset(Path("data"), items([None] * 1000, labels), "classify")
    parted = split_dataset(data, random_looks(1000))
    for split, share in (("train", 0.7), ("calibration", 0.1), ("test", 0.2)):
        held = parted.of(split)  # type: ignore[arg-type]  # names of splits
        rare = sum(item.shown[0].label == "rare" for item in held)
        assert abs(len(held) - 1000 * share) <= 2
        assert abs(rare - 50 * share) <= 1


def test_the_leak_of_a_random_split_is_shown_beside() -> None:
    data = Dataset(Path("data"), items([f"s{number // 10}" for number in range(300)], ["a"] * 300), "classify")
    figures = split_dataset(data, random_looks(300)).figures
    assert figures is not None
    assert figures.leak == 0.0
    assert figures.random_leak > 0.9


def test_a_picture_that_has_a_split_keeps_it() -> None:
    first = split_dataset(Dataset(Path("d"), items([None] * 50, ["a"] * 50), "classify"), random_looks(50))
    grown = Dataset(Path("d"), (*first.items, *items([None] * 80, ["a"] * 80)[50:]), "classify")
    parted = split_dataset(grown, random_looks(80))
    assert [item.split for item in parted.items[:50]] == [item.split for item in first.items]
    assert all(item.split for item in parted.items)


def test_a_relative_of_a_test_picture_joins_the_test() -> None:
    known = Item(name="a", sha256="0" * 64, width=9, height=9, session="s", split="test", shown=(CAT,))
    new = Item(name="b", sha256="1" * 64, width=9, height=9, session="s", shown=(CAT,))
    rest = items([None] * 20, ["cat"] * 20)
    parted = split_dataset(Dataset(Path("d"), (known, new, *rest), "classify"), random_looks(22))
    assert {item.name: item.split for item in parted.items}["b"] == "test"


def test_one_session_alone_cannot_be_split_unless_it_is_cut() -> None:
    data = Dataset(Path("d"), items(["s"] * 60, ["a"] * 60), "classify")
    with pytest.raises(DataError, match="--cut-sessions"):
        split_dataset(data, random_looks(60))
    parted = split_dataset(data, random_looks(60), cut=10)
    splits = [item.split for item in parted.items]
    assert sum(a != b for a, b in pairwise(splits)) <= 9  # in blocks, not strewn


def test_the_same_file_twice_is_one_group() -> None:
    held = items([None] * 3, ["a"] * 3)
    twin = Item(name="twin", sha256=held[1].sha256, width=10, height=10)
    assert groups_of((*held, twin), NO_PAIRS).tolist() == [0, 1, 2, 1]


def test_the_leak_counts_test_pictures_with_relatives_elsewhere() -> None:
    held = items(["s", "s", "t", "t", None], ["a"] * 5)
    assert leak_of(held, np.array(["train", "test", "test", "test", "test"]), NO_PAIRS) == 0.25
    assert leak_of(held, np.array(["calibration", "test", "test", "test", ""]), NO_PAIRS) == pytest.approx(1 / 3)
    assert leak_of(held, np.array([""] * 5), NO_PAIRS) == 0.0
    alike = Pairs(np.array([3]), np.array([4]), np.array([0.97], np.float32))
    assert leak_of(held, np.array(["test", "test", "test", "train", "test"]), alike) == 0.5
    copies = Pairs(np.array([0, 0]), np.array([1, 4]), np.array([0.999, 0.999], np.float32))
    assert leak_of(items([None] * 5, ["a"] * 5), np.array(["", "test", "", "", "train"]), copies) == 1.0


def test_a_session_that_was_cut_still_counts_as_a_leak() -> None:
    data = Dataset(Path("d"), items(["s"] * 60, ["a"] * 60), "classify")
    figures = split_dataset(data, random_looks(60), cut=10).figures
    assert figures is not None
    assert figures.leak == 1.0


@pytest.mark.parametrize("size", [4, 9])
def test_bursts_stay_together_in_a_small_set(size: int) -> None:
    looks = Looks.of(look_at(scene(number // size)) for number in range(90))
    parted = split_dataset(Dataset(Path("d"), items([None] * 90, ["a"] * 90), "classify"), looks)
    assert parted.figures is not None
    assert parted.figures.leak == 0.0
    assert parted.figures.random_leak > 0.5
