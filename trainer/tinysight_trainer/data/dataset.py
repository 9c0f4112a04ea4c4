"""The data set on disk: COCO's own JSON with a few keys more, the images as they came, one digest over it all.

::

    DS/annotations.json   COCO; each image also has sha256, split, session, labelled; all else under info.tinysight
    DS/images/...         the files, byte for byte as they came
    DS/dataset.json       the digest and counts, for programs and people; made from annotations.json
    DS/removed/...        what `tinysight data apply` took out, with its annotations

``annotations.json`` is the commit point: written in one step, so a change is there whole or not at all. Two data sets
that show the same in the same splits have the same digest, whatever their files are called and wherever they came from.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tinysight_contract.errors import ConfigError, DataError
from tinysight_contract.files import replace_file
from tinysight_converters.run import BoxPx, Example

__all__ = [
    "ANNOTATIONS",
    "DATASET",
    "IMAGES",
    "MAX_LABEL",
    "SPLITS",
    "Dataset",
    "Item",
    "LeftOut",
    "Shown",
    "Split",
    "SplitFigures",
    "Task",
    "check_free",
    "natural",
    "open_dataset",
]

SCHEMA: Final = 1
DATASET: Final = "dataset.json"
ANNOTATIONS: Final = "annotations.json"
IMAGES: Final = "images"
MAX_BYTES: Final = 1 << 30
MAX_LABEL: Final = 100

Split = Literal["train", "calibration", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
Task = Literal["detect", "classify"]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]


class Shown(Struct, frozen=True, kw_only=True, omit_defaults=True, order=True):
    """One thing that a picture shows.

    Attributes:
        label: its class.
        box: x1 y1 x2 y2 in pixels of the picture as it is seen, to a hundredth; None: it is of this class as a whole.
        crowd: many at once; neither right nor wrong to find.
        polygons: outlines, each x y x y ... in pixels.
    """

    label: str
    box: BoxPx | None = None
    crowd: bool = False
    polygons: tuple[tuple[float, ...], ...] = ()


class Item(Struct, frozen=True, kw_only=True):
    """One picture.

    Attributes:
        name: of its file below ``images/``, with slashes.
        sha256: of the file.
        width: in pixels, as it is seen (turned by its EXIF data).
        height: likewise.
        split: what it is for; None: not decided.
        session: pictures of one session were taken together and stay in one split; None: on its own.
        labelled: somebody has looked; a labelled picture that shows nothing is a picture of nothing.
        shown: what it shows.
    """

    name: str
    sha256: Sha256
    width: int
    height: int
    split: Split | None = None
    session: str | None = None
    labelled: bool = True
    shown: tuple[Shown, ...] = ()


class LeftOut(Struct, frozen=True, kw_only=True):
    """A picture or annotation that could not be taken in."""

    file: str
    why: str


class SplitFigures(Struct, frozen=True, kw_only=True):
    """How well the splits are apart.

    Attributes:
        leak: share of test pictures with a near-duplicate among those for training or calibration, 0..1.
        random_leak: the same, had the pictures been split at random.
        how: by what they were split.
    """

    leak: float
    random_leak: float
    how: str


class _Info(Struct, kw_only=True):
    schema: int = SCHEMA
    task: Task | None = None
    left_out: list[LeftOut] = []
    split: SplitFigures | None = None
    source: dict[str, str] = {}


class _Wrapped(Struct, kw_only=True):
    tinysight: _Info


class _Image(Struct, kw_only=True, omit_defaults=True):
    id: int
    file_name: str
    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]
    sha256: Sha256
    split: Split | None = None
    session: str | None = None
    labelled: bool = True


class _Annotation(Struct, kw_only=True, omit_defaults=True):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float] | UnsetType = UNSET
    area: float | UnsetType = UNSET
    segmentation: list[list[float]] | UnsetType = UNSET
    iscrowd: int = 0


class _Category(Struct, kw_only=True):
    id: int
    name: Annotated[str, Meta(min_length=1, max_length=MAX_LABEL)]


class _Coco(Struct, kw_only=True):
    info: _Wrapped
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def natural(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key in which 10 follows 9; no two texts have the same one."""
    parts = [part for part in re.split(r"([0-9]+)", text) if part]
    numbers = [part.lstrip("0") if part[0] in "0123456789" else None for part in parts]
    key = [
        (1, 0, part) if number is None else (0, len(number), number)
        for part, number in zip(parts, numbers, strict=True)
    ]
    return key, text


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
        ids = {label: index + 1 for index, label in enumerate(self.labels)}
        images, annotations = [], []
        for number, item in enumerate(self.items, start=1):
            images.append(
                _Image(
                    id=number,
                    file_name=item.name,
                    width=item.width,
                    height=item.height,
                    sha256=item.sha256,
                    split=item.split,
                    session=item.session,
                    labelled=item.labelled,
                )
            )
            annotations += [_annotation(shown, number, ids) for shown in item.shown]
        for number, each in enumerate(annotations, start=1):
            each.id = number
        info = _Info(task=self.task, left_out=list(self.left_out), split=self.figures, source=self.source)
        categories = [_Category(id=number, name=label) for label, number in ids.items()]
        coco = _Coco(info=_Wrapped(tinysight=info), images=images, annotations=annotations, categories=categories)
        raw = msgspec.json.encode(coco)
        try:
            msgspec.json.decode(raw, type=_Coco)  # what cannot be read back must not replace what can
        except msgspec.ValidationError as error:
            raise DataError(
                f"{self.root}: this cannot be written: {error}.",
                mend=f"Labels have 1 to {MAX_LABEL} letters, and boxes are finite numbers.",
            ) from error
        replace_file(self.root / ANNOTATIONS, raw)
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


def _annotation(shown: Shown, image_id: int, ids: dict[str, int]) -> _Annotation:
    made = _Annotation(id=0, image_id=image_id, category_id=ids[shown.label], iscrowd=int(shown.crowd))
    if shown.box is not None:
        x1, y1, x2, y2 = shown.box
        made.bbox = (x1, y1, round(x2 - x1, 2), round(y2 - y1, 2))
        made.area = round((x2 - x1) * (y2 - y1), 4)
    if shown.polygons:
        made.segmentation = [list(each) for each in shown.polygons]
    return made


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
        coco = msgspec.json.decode(path.read_bytes(), type=_Coco)
        summary = msgspec.json.decode((root / DATASET).read_bytes(), type=dict[str, msgspec.Raw])
        held = msgspec.json.decode(summary["digest"], type=str)
        items = _items(coco)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise DataError(f"{path} is damaged: {error}.", mend="Import the data set again.") from error
    if coco.info.tinysight.schema != SCHEMA:
        raise DataError(f"{root} has schema {coco.info.tinysight.schema}, this is {SCHEMA}.", mend="Update TinySight.")
    info = coco.info.tinysight
    data = Dataset(root, items, _task(items), tuple(info.left_out), info.split, info.source)
    if data.digest != held:
        data = replace(data, notes=(f"{path} was changed since it was written; its digest is {data.digest[:12]} now.",))
    return data


def _items(coco: _Coco) -> tuple[Item, ...]:
    names = {each.id: each.name for each in coco.categories}
    shown: dict[int, list[Shown]] = {image.id: [] for image in coco.images}
    for each in coco.annotations:
        box = None
        if each.bbox is not UNSET:
            x, y, w, h = each.bbox
            box = (round(x, 2), round(y, 2), round(x + w, 2), round(y + h, 2))
        polygons = () if each.segmentation is UNSET else tuple(tuple(polygon) for polygon in each.segmentation)
        shown[each.image_id].append(
            Shown(label=names[each.category_id], box=box, crowd=bool(each.iscrowd), polygons=polygons)
        )
    for image in coco.images:
        name = image.file_name
        if name.startswith(("/", "\\")) or ".." in Path(name).parts or not name.isprintable():
            raise KeyError(f"{name!a} is no name within the data set")
    return tuple(
        Item(
            name=image.file_name,
            sha256=image.sha256,
            width=image.width,
            height=image.height,
            split=image.split,
            session=image.session,
            labelled=image.labelled,
            shown=tuple(shown[image.id]),
        )
        for image in coco.images
    )


def check_free(out: Path) -> None:
    """Refuse to write where something is.

    Raises:
        ConfigError: ``out`` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already.", mend="Name another --out, or remove it.")
