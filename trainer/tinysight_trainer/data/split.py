"""Part a data set so that the test says something about new pictures.

In: pictures and how they look.  Out: the same pictures with a split each, and how well the splits are apart. What was
taken in one session, or looks the same, stays together; each split gets its share of every class. No I/O.
Source of the greedy assignment: K. Sechidis et al., On the Stratification of Multi-label Data, ECML PKDD 2011.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from tinysight_contract.errors import DataError
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.item import SPLITS, Item, SplitFigures, natural
from tinysight_trainer.data.looks import SAME, Looks, Pairs, Union, clusters, near_pairs

__all__ = ["SHARES", "groups_of", "leak_of", "measure", "split_dataset"]

SHARES: Final = {"train": 0.7, "calibration": 0.1, "test": 0.2}
MOST: Final = (50, 0.02)  # pictures, or this share of all: a larger cluster of look-alikes is taken apart
RANDOM_TRIES: Final = 10


def groups_of(items: Sequence[Item], pairs: Pairs, *, cut: int = 1) -> NDArray[np.int64]:
    """A number for each picture: those with the same one belong together.

    Args:
        items: the pictures.
        pairs: the near-duplicates among them.
        cut: sessions are cut into so many blocks of neighbours first.
    """
    union = Union(len(items))
    for number, cluster in enumerate(
        clusters(len(items), pairs, most=max(MOST[0], int(len(items) * MOST[1]))).tolist()
    ):
        union.join(number, cluster)
    sessions: dict[str, list[int]] = defaultdict(list)
    for number in sorted(range(len(items)), key=lambda at: natural(items[at].name)):
        if (session := items[number].session) is not None:
            sessions[session].append(number)
    blocks = [list(part) for held in sessions.values() for part in np.array_split(held, min(cut, len(held)))]
    blocks += _same(items)

    for block in blocks:
        for other in block[1:]:
            union.join(int(block[0]), int(other))
    return union.groups()


def _same(items: Sequence[Item]) -> list[list[int]]:
    """Pictures that are the same file."""
    held: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        held[item.sha256].append(number)
    return [each for each in held.values() if len(each) > 1]


def split_dataset(data: Dataset, looks: Looks, *, anew: bool = False, cut: int = 1) -> Dataset:
    """Give every labelled picture a split.

    A picture that has one keeps it, so that a test stays a test while the data set grows, unless ``anew`` is given.

    Args:
        data: to be split.
        looks: of its pictures, in its order.
        anew: forget the splits that are there.
        cut: see `groups_of`.

    Raises:
        DataError: the pictures hang together so much that a split would be left empty.
    """
    pairs = near_pairs(looks)
    groups = groups_of(data.items, pairs, cut=cut)
    given = [None if anew or not item.labelled else item.split for item in data.items]
    splits = _assign(data, groups, given)
    items = [
        replace(item, split=None if split is None else SPLITS[split])
        for item, split in zip(data.items, splits, strict=True)
    ]
    part = data.with_items(items)
    for split in ("train", "test"):
        if any(item.labelled for item in items) and not part.of(split):
            largest = Counter(groups.tolist()).most_common(1)[0][1]
            raise DataError(
                f"{data.root}: nothing is left for {split}: {largest} of {len(items)} pictures hang together by "
                "session or look.",
                mend="Take pictures on another day, or give --cut-sessions 10 to part sessions by time.",
            )
    how = "capture session and near-duplicates" if any(item.session for item in items) else "near-duplicates"
    return _with_figures(part, pairs, how)


def measure(data: Dataset, looks: Looks) -> Dataset:
    """The data set with its own splits, and how well they are apart."""
    return _with_figures(data, near_pairs(looks), "as it came")


def _with_figures(data: Dataset, pairs: Pairs, how: str) -> Dataset:
    splits = np.array([item.split or "" for item in data.items])
    rng = np.random.default_rng(0)
    tries = [leak_of(data.items, rng.permutation(splits), pairs) for _ in range(RANDOM_TRIES)]
    figures = SplitFigures(leak=leak_of(data.items, splits, pairs), random_leak=float(np.mean(tries)), how=how)
    return dataclasses.replace(data, figures=figures)


def leak_of(items: Sequence[Item], splits: NDArray[np.str_], pairs: Pairs) -> float:
    """Share of test pictures of which a relative is among those for training or calibration.

    Relatives are of one session, the same file, the same but for noise, or near-duplicates; whatever `groups_of` has
    cut or taken apart.
    """
    tested, learned = splits == "test", (splits == "train") | (splits == "calibration")
    leaks = np.zeros(len(items), bool)
    for key in _kinships(items, pairs):
        leaks |= np.isin(key, key[learned])
    leaks[pairs.first] |= learned[pairs.second]
    leaks[pairs.second] |= learned[pairs.first]
    return float(leaks[tested].mean()) if tested.any() else 0.0


def _kinships(items: Sequence[Item], pairs: Pairs) -> Iterator[NDArray[np.int64]]:
    """Numbers for the pictures, once by session, once by file, once by what is the same but for noise."""
    for texts in ([item.session or f"/{item.name}" for item in items], [item.sha256 for item in items]):
        yield np.unique(np.array(texts), return_inverse=True)[1].astype(np.int64)
    yield clusters(len(items), pairs.where(pairs.likeness >= SAME), most=len(items))


def _assign(data: Dataset, groups: NDArray[np.int64], given: Sequence[str | None]) -> list[int | None]:
    """Index into SPLITS for each labelled picture; whole groups, large ones first, then those with rare classes."""
    labels = {label: index for index, label in enumerate(data.labels)}
    members: dict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups.tolist()):
        if data.items[number].labelled:
            members[group].append(number)
    content = {group: _content(data, held, labels) for group, held in members.items()}
    total = np.sum(list(content.values()), axis=0) if content else np.zeros(len(labels) + 1)
    wanted = np.outer([SHARES[split] for split in SPLITS], total)
    out: list[int | None] = [None] * len(data.items)
    fresh = []
    for group, held in members.items():
        there = Counter(given[number] for number in held if given[number] is not None)
        if not there:
            fresh.append(group)
            continue
        most = max(there, key=lambda split: (there[split], split == "train"))
        for number in held:
            split = SPLITS.index(given[number] or most)
            out[number] = split
            wanted[split] -= _content(data, [number], labels)
    # Of equal groups the order follows from their pictures, not from their names.
    rarity = {group: _rarity(content[group], total) for group in fresh}
    first = {group: min(data.items[number].sha256 for number in members[group]) for group in fresh}
    fresh.sort(key=lambda group: (-len(members[group]), rarity[group], first[group]))
    for group in fresh:
        need = (wanted / np.maximum(total, 1)) @ (content[group] / np.maximum(total, 1))
        choice = int(np.argmax(need))
        wanted[choice] -= content[group]
        for number in members[group]:
            out[number] = choice
    test = SPLITS.index("test")
    spare = [group for group in fresh if out[members[group][0]] == 0]
    if test not in out and len(spare) > 1:  # so few that a fifth of them is less than one
        for number in members[spare[-1]]:
            out[number] = test
    return out


def _content(data: Dataset, numbers: Sequence[int], labels: dict[str, int]) -> NDArray[np.float64]:
    """How often each class is shown, and how many pictures there are."""
    out = np.zeros(len(labels) + 1)
    for number in numbers:
        for shown in data.items[number].shown:
            out[labels[shown.label]] += 1
    out[-1] = len(numbers)
    return out


def _rarity(content: NDArray[np.float64], total: NDArray[np.float64]) -> float:
    """How frequent the rarest class in it is."""
    return float(min((total[at] for at in np.flatnonzero(content)), default=0.0))
