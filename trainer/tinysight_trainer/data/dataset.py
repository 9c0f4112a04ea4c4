"""The data set on disk: COCO's own JSON with a few keys more, the images as they came, one digest over it all.

::

    DS/annotations.json   COCO with a few keys more (annotations.py)
    DS/images/...         the files, byte for byte as they came
    DS/dataset.json       the digest and counts, for programs and people; made from annotations.json
    DS/removed/...        what `tinysight data apply` took out, with its annotations

``annotations.json`` is the commit point: written in one step, so a change is there whole or not at all. Two data sets
that show the same in the same splits have the same digest, whatever their files are called and wherever they came from.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from tinysight_contract.errors import ConfigError, DataError
from tinysight_contract.files import replace_file
from tinysight_converters.run import Example
from tinysight_trainer.data.annotations import SCHEMA, About, from_coco, to_coco
from tinysight_trainer.data.item import SPLITS, Item, LeftOut, Split, SplitFigures, Task, natural

__all__ = ["ANNOTATIONS", "DATASET", "IMAGES", "Dataset", "check_free", "open_dataset"]

DATASET: Final = "dataset.json"
ANNOTATIONS: Final = "annotations.json"
IMAGES: Final = "images"
MAX_BYTES: Final = 1 << 30


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        root: its folder.
        items: its pictures, by name.
        task: detect when boxes are shown, classify when whole pictures are of a class, None when nothing is labelled.
        left_out: what an import could not take.
        figures: of the splits.
        source: where it came from.
        notes: what the user should know, a sentence each; not stored.
    """

    root: Path
    items: tuple[Item, ...]
    task: Task | None
    left_out: tuple[LeftOut, ...] = ()
    figures: SplitFigures | None = None
    source: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All classes that are shown, in natural order; their index is the class id."""
        return tuple(sorted({shown.label for item in self.items for shown in item.shown}, key=natural))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what is shown where, in which split."""
        rows = sorted(
            msgspec.json.encode(
                [item.sha256, item.split, item.labelled, sorted(item.shown, key=msgspec.json.encode)], order="sorted"
            )
            for item in self.items
        )
        return hashlib.sha256(b"\n".join(rows)).hexdigest()

    def of(self, split: Split | None) -> tuple[Item, ...]:
        """The labelled pictures of a split."""
        return tuple(item for item in self.items if item.split == split and item.labelled)

    def examples(self, items: Iterable[Item]) -> list[Example]:
        """As the trainer and the converters take them, with names from the data set's root on."""
        ids = {label: index for index, label in enumerate(self.labels)}
        return [
            Example(
                name=f"{IMAGES}/{item.name}",
                sha256=item.sha256,
                boxes=[shown.box for shown in item.shown if shown.box is not None],
                class_ids=[ids[shown.label] for shown in item.shown],
                crowd=[shown.crowd for shown in item.shown],
            )
            for item in items
        ]

    def path(self, item: Item) -> Path:
        """Of the picture's file."""
        return self.root / IMAGES / item.name

    def counts(self) -> dict[str, int]:
        """Pictures by split, and those without."""
        held = Counter("unlabelled" if not item.labelled else item.split or "unsplit" for item in self.items)
        return {name: held[name] for name in (*SPLITS, "unsplit", "unlabelled") if held[name]}

    def with_items(self, items: Iterable[Item]) -> "Dataset":
        """The same with other pictures; the task follows from what they show, and the splits are unmeasured.

        Raises:
            DataError: some pictures are of a class and others show boxes.
        """
        held = tuple(sorted(items, key=lambda item: natural(item.name)))
        return replace(self, items=held, task=_task(held), figures=None)

    def save(self) -> None:
        """Write ``annotations.json`` in one step, then ``dataset.json``.

        Raises:
            DataError: a label is empty or too long, or a number is not finite; the data set is then as it was.
            OSError: the disk is full or not writable; likewise.
        """
        about = About(task=self.task, left_out=list(self.left_out), split=self.figures, source=self.source)
        replace_file(self.root / ANNOTATIONS, to_coco(self.items, self.labels, about))
        summary = {
            "schema": SCHEMA,
            "digest": self.digest,
            "task": self.task,
            "labels": self.labels,
            "images": self.counts(),
            "left_out": len(self.left_out),
            "split": self.figures,
            "source": self.source,
        }
        replace_file(self.root / DATASET, msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n")


def _task(items: Iterable[Item]) -> Task | None:
    kinds = {shown.box is None for item in items for shown in item.shown}
    if len(kinds) > 1:
        whole = next(item.name for item in items for shown in item.shown if shown.box is None)
        raise DataError(
            f"Some pictures show boxes, and {whole} is of a class as a whole.",
            mend="Keep boxes and whole-picture classes in data sets of their own.",
        )
    return None if not kinds else "classify" if kinds.pop() else "detect"


def open_dataset(root: Path) -> Dataset:
    """Read a data set's annotations; its images are read, and checked against their digests, when they are used.

    Raises:
        DataError: it is none, or its annotations are damaged.
    """
    path = root / ANNOTATIONS
    if not root.is_dir():
        raise DataError(f"There is no data set {root}.", mend="Check the path; `tinysight data synth belt` makes one.")
    if not (root / DATASET).is_file() or not path.is_file():
        raise DataError(
            f"{root} is no TinySight data set.", mend=f"Make one of it: tinysight data import {root} --out DATA."
        )
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MiB.", mend="Split the data set.")
    try:
        items, about = from_coco(path.read_bytes())
        summary = msgspec.json.decode((root / DATASET).read_bytes(), type=dict[str, msgspec.Raw])
        held = msgspec.json.decode(summary["digest"], type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise DataError(f"{path} is damaged: {error}.", mend="Import the data set again.") from error
    if about.schema != SCHEMA:
        raise DataError(f"{root} has schema {about.schema}, this is {SCHEMA}.", mend="Update TinySight.")
    data = Dataset(root, items, _task(items), tuple(about.left_out), about.split, about.source)
    if data.digest != held:
        data = replace(data, notes=(f"{path} was changed since it was written; its digest is {data.digest[:12]} now.",))
    return data


def check_free(out: Path) -> None:
    """Refuse to write where something is.

    Raises:
        ConfigError: ``out`` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already.", mend="Name another --out, or remove it.")
