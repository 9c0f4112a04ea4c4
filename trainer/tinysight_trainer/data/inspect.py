"""What is in a data set, in figures: before it is trusted.

In: a `Dataset`, and the model's input.  Out: an `Inspection`, what is to be said about it, and which pictures to show.
Looks at annotations only: pure functions, no I/O, no picture is read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, Final

import numpy as np

from tinysight_trainer.data.cells import WORTH_SAYING, BoxFigures, box_figures, larger_inputs
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.item import SPLITS, Item, LeftOut, Shown, SplitFigures, Task
from tinysight_trainer.targets import STRIDE

__all__ = ["Inspection", "Sample", "findings", "inspect_data", "pick", "split_name"]

UNEVEN: Final = 10.0
LISTED_LEFT_OUT: Final = 50
LISTED_SIZES: Final = 8

Sample = tuple[Item, Shown | None]
"""A picture and the thing of it that is meant; None: the whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """The figures of a data set.

    Attributes:
        task: what it teaches.
        digest: of the data set.
        source: where it came from.
        pictures: how many, by split; those that nobody has labelled are ``unlabelled``.
        sessions: how many there are.
        largest_session: its name and its number of pictures.
        objects: of each class by split; for whole pictures of a class, the pictures.
        per_picture: how many labelled pictures show so many objects.
        lacking: classes that a split with pictures does not show.
        imbalance: how many times the most frequent class is as frequent as the least; 1 without classes.
        sizes: the most frequent widths and heights, and how many pictures have them.
        widths: the least and the most, in pixels; 0 without pictures.
        heights: likewise.
        aspects: the most frequent ratios of width to height, and how many pictures have them.
        boxes: at the asked input; None without boxes.
        others: the same at larger inputs.
        splits: how well they are apart.
        left_out: what an import could not take, the first of it.
        left_out_count: all of it.
    """

    task: Task | None
    digest: str
    source: Mapping[str, str]
    pictures: Mapping[str, int]
    sessions: int
    largest_session: tuple[str, int] | None
    objects: Mapping[str, Mapping[str, int]]
    per_picture: Mapping[int, int]
    lacking: Mapping[str, tuple[str, ...]]
    imbalance: float
    sizes: tuple[tuple[int, int, int], ...]
    widths: tuple[int, int]
    heights: tuple[int, int]
    aspects: tuple[tuple[str, int], ...]
    boxes: BoxFigures | None
    others: tuple[BoxFigures, ...]
    splits: SplitFigures | None
    left_out: tuple[LeftOut, ...]
    left_out_count: int

    @property
    def total(self) -> int:
        """Pictures of any kind."""
        return sum(self.pictures.values())

    @property
    def unlabelled(self) -> int:
        """Pictures that nobody has looked at."""
        return self.pictures.get("unlabelled", 0)

    @property
    def empty(self) -> int:
        """Labelled pictures that show nothing."""
        return self.per_picture.get(0, 0)

    @property
    def shown(self) -> int:
        """Objects in all pictures, or pictures that are of a class."""
        return sum(sum(held.values()) for held in self.objects.values())

    def result(self) -> dict[str, Any]:
        """For programs."""
        made: dict[str, Any] = {
            "task": self.task,
            "digest": self.digest,
            "source": self.source,
            "images": self.total,
            "pictures": self.pictures,
            "labelled": self.total - self.unlabelled,
            "unlabelled": self.unlabelled,
            "empty": self.empty,
            "sessions": self.sessions,
            "largest_session": None if self.largest_session is None else self.largest_session[1],
            "labels": len(self.objects),
            "objects": self.objects,
            "per_picture": {str(count): pictures for count, pictures in self.per_picture.items()},
            "lacking": self.lacking,
            "imbalance": self.imbalance,
            "sizes": self.sizes,
            "widths": self.widths,
            "heights": self.heights,
            "aspects": dict(self.aspects),
            "left_out": self.left_out_count,
            "leak": None if self.splits is None else self.splits.leak,
            "random_leak": None if self.splits is None else self.splits.random_leak,
        }
        for each in (self.boxes, *self.others):
            if each is not None:
                width, height = each.input_wh
                made.setdefault("inputs", {})[f"{width}x{height}"] = {
                    "too_small": each.too_small,
                    "same_cell_pairs": each.same_cell_pairs,
                    "hidden": each.hidden,
                }
        return made


def split_name(item: Item) -> str:
    """The split of a picture, or why it has none."""
    return "unlabelled" if not item.labelled else item.split or "unsplit"


def inspect_data(data: Dataset, input_wh: tuple[int, int]) -> Inspection:
    """All figures of a data set, with boxes as a model of this input sees them."""
    counts = data.counts()
    objects: dict[str, Counter[str]] = {label: Counter() for label in data.labels}
    for item in data.items:
        for shown in item.shown:
            objects[shown.label][split_name(item)] += 1
    totals = [held.total() for held in objects.values()]
    sessions = Counter(item.session for item in data.items if item.session is not None)
    sizes = Counter((item.width, item.height) for item in data.items)
    aspects: Counter[str] = Counter()
    for (width, height), count in sizes.items():
        aspects[_aspect(width, height)] += count
    seen = box_figures(data, [input_wh, *larger_inputs(input_wh)]) if data.task == "detect" else ()
    return Inspection(
        task=data.task,
        digest=data.digest,
        source=data.source,
        pictures=counts,
        sessions=len(sessions),
        largest_session=next(iter(sessions.most_common(1)), None),
        objects={label: {split: held[split] for split in counts if held[split]} for label, held in objects.items()},
        per_picture=dict(sorted(Counter(len(item.shown) for item in data.items if item.labelled).items())),
        lacking={
            split: missing
            for split in SPLITS
            if split in counts and (missing := tuple(label for label in data.labels if not objects[label][split]))
        },
        imbalance=max(totals) / min(totals) if totals else 1.0,
        sizes=tuple((*size, count) for size, count in sizes.most_common(LISTED_SIZES)),
        widths=_range(width for width, _ in sizes),
        heights=_range(height for _, height in sizes),
        aspects=tuple(aspects.most_common(LISTED_SIZES)),
        boxes=next(iter(seen), None),
        others=seen[1:],
        splits=data.figures,
        left_out=data.left_out[:LISTED_LEFT_OUT],
        left_out_count=len(data.left_out),
    )


def _range(sides: Iterable[int]) -> tuple[int, int]:
    held = set(sides)
    return (min(held), max(held)) if held else (0, 0)


def _aspect(width: int, height: int) -> str:
    """As people say it when that is short (4:3), else as a number."""
    by = gcd(width, height)
    return f"{width // by}:{height // by}" if max(width, height) // by <= 21 else f"{width / height:.2f}:1"


def findings(found: Inspection) -> tuple[str, ...]:
    """What the user should know, and do, a sentence or two each; the gravest first."""
    said = []
    if found.unlabelled:
        said.append(f"{found.unlabelled} of {found.total} pictures are not labelled yet; they are not learned from.")
    if found.task is not None and (unsplit := found.pictures.get("unsplit", 0)):
        said.append(f"{unsplit} labelled pictures have no split. Run `tinysight data split`.")
    for split, labels in found.lacking.items():
        names = ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
        said.append(f"The {split} pictures lack {names}. Add pictures that show them, or split anew.")
    if found.splits is not None and found.splits.leak > WORTH_SAYING:
        said.append(
            f"{found.splits.leak:.1%} of the test pictures have a relative among those that are learned from, so the "
            "test flatters. Run `tinysight data split --anew`."
        )
    if found.imbalance > UNEVEN:
        totals = {label: sum(held.values()) for label, held in found.objects.items()}
        most, least = max(totals, key=totals.__getitem__), min(totals, key=totals.__getitem__)
        said.append(f"{most} is {found.imbalance:.0f} times as frequent as {least}. Add pictures that show {least}.")
    if found.boxes is not None:
        said += _about_boxes(found.boxes, found.others)
    if found.task == "detect" and not found.empty:
        said.append(
            "Every labelled picture shows something. Add some of the empty scene: false alarms come from there."
        )
    if found.left_out_count:
        said.append(f"The import left out {found.left_out_count} files or labels; see the list.")
    return tuple(said)


def _about_boxes(boxes: BoxFigures, others: Sequence[BoxFigures]) -> list[str]:
    said = []
    if boxes.too_small > WORTH_SAYING:
        way_out = _way_out(each for each in others if each.too_small <= WORTH_SAYING)
        said.append(
            f"{boxes.too_small:.1%} of the boxes are smaller than one cell of {STRIDE} model pixels: too small to be "
            f"found. {way_out}"
        )
    if not boxes.apart:
        way_out = _way_out(each for each in others if each.apart)
        said.append(
            f"{boxes.same_cell_pairs:.1%} of the pairs of one class have their centres in one cell, which hides "
            f"{boxes.hidden:.1%} of the objects: they cannot be told apart. {way_out}"
        )
    return said


def _way_out(enough: Iterable[BoxFigures]) -> str:
    first = next(iter(enough), None)
    if first is None:
        return "Cut the pictures into tiles, or bring the camera closer; a larger --input alone is not enough."
    return f"Train with --input {first.input_wh[0]}x{first.input_wh[1]}, or cut the pictures into tiles."


def pick(data: Dataset, *, per_group: int, whole: int, labels: Sequence[str], seed: int = 0) -> dict[str, list[Sample]]:
    """Which pictures to show, the same for the same data set and seed.

    Args:
        data: to be shown.
        per_group: at most so many of each class (crowds left out), of those that show nothing, of the unlabelled.
        whole: so many labelled pictures with all they show.
        labels: the classes to be shown.
        seed: of the choice.

    Returns:
        By ``class <label>``, ``nothing``, ``unlabelled`` and ``whole``, in the data set's order.
    """
    wanted = {f"class {label}" for label in labels}
    limits = {"whole": whole}
    totals = Counter(group for group, _ in _members(data, wanted))
    rng = np.random.default_rng(seed)
    chosen = {
        group: set(rng.choice(count, min(count, limits.get(group, per_group)), replace=False).tolist())
        for group, count in sorted(totals.items())
    }
    seen: Counter[str] = Counter()
    out: dict[str, list[Sample]] = {group: [] for group in chosen}
    for group, sample in _members(data, wanted):
        if seen[group] in chosen[group]:
            out[group].append(sample)
        seen[group] += 1
    return out


def _members(data: Dataset, wanted: set[str]) -> Iterable[tuple[str, Sample]]:
    for item in data.items:
        if not item.labelled:
            yield "unlabelled", (item, None)
            continue
        yield ("whole" if item.shown else "nothing"), (item, None)
        for shown in item.shown:
            if (group := f"class {shown.label}") in wanted and not shown.crowd:
                yield group, (item, shown)
