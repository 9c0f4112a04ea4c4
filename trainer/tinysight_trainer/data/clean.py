"""Find what is wrong with a data set, have a person decide, do what was decided.

In: a data set.  Out: ``clean.json``, a list of findings to accept or reject, and ``clean.html``, the same with
pictures. `apply_findings` does what was accepted and nothing else; pictures that it takes out lie in ``removed/`` with
what they showed.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tinysight_contract.errors import DataError
from tinysight_contract.files import replace_file
from tinysight_trainer.data.checks import KINDS, Finding, Remedy, check_boxes, check_copies, check_looks, finding
from tinysight_trainer.data.dataset import IMAGES, Dataset
from tinysight_trainer.data.item import Item, Shown
from tinysight_trainer.data.looks import Look, Looks, near_pairs
from tinysight_trainer.data.split import groups_of
from tinysight_trainer.data.take import in_parallel, take

__all__ = ["CLEAN", "REMOVED", "Findings", "apply_findings", "find_faults", "load_findings", "save_findings"]

CLEAN: Final = "clean.json"
REMOVED: Final = "removed"
SCHEMA: Final = 1
MAX_BYTES: Final = 256 << 20


class Findings(Struct, frozen=True, kw_only=True):
    """What was found in a data set.

    Attributes:
        schema: of this file.
        digest: of the data set that was looked at.
        findings: by kind, the surest first.
    """

    schema: int = SCHEMA
    digest: str
    findings: list[Finding]

    def counts(self) -> dict[str, int]:
        """Findings by kind."""
        return {kind: n for kind in KINDS if (n := sum(each.kind == kind for each in self.findings))}


def find_faults(
    data: Dataset,
    *,
    models: bool = True,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> Findings:
    """Look at every picture, compare all with all, and ask quickly trained models.

    Args:
        data: to be looked at; nothing of it is changed.
        models: train quick models to find wrong labels, boxes and turned pictures.
        say: told what is being done.
        progress: told how many pictures have been read.
    """
    say(f"Looking at {len(data.items)} pictures")
    items, looks, found = _look(data, progress)
    pairs = near_pairs(Looks.of(looks))
    found += check_copies(items, pairs)
    for item in data.items:
        found += check_boxes(item)
    if models and items:
        from tinysight_trainer.data.mislabels import (  # noqa: PLC0415 -- TensorFlow
            check_boxes_by_model,
            check_labels,
            check_turned,
        )

        groups = groups_of(items, pairs)
        if data.task is not None:
            found += check_labels(data, items, groups, say)
        if data.task == "detect":
            found += check_boxes_by_model(data, items, groups, say)
        found += check_turned(data, items, groups, say)
    kinds = list(KINDS)
    found.sort(key=lambda each: (kinds.index(each.kind), -each.strength, each.pictures))
    return Findings(digest=data.digest, findings=found)


def _look(data: Dataset, progress: Callable[[int], None]) -> tuple[list[Item], list[Look], list[Finding]]:
    """The pictures that can be read, how they look, and what is wrong with them."""

    def work(item: Item) -> Look | str:
        try:
            taken = take(data.path(item).read_bytes())
        except OSError as error:
            return str(error.strerror)
        if isinstance(taken, str):
            return taken
        return taken.look if taken.sha256 == item.sha256 else "the file is not the one that was imported"

    items, looks, found = [], [], []
    for number, (item, look) in enumerate(zip(data.items, in_parallel(work, iter(data.items)), strict=True), start=1):
        progress(number)
        if isinstance(look, str):
            found.append(finding("broken", [item], look, Remedy(act="remove-picture")))
            continue
        items.append(item)
        looks.append(look)
        found += check_looks(item, look)
    return items, looks, found


def save_findings(path: Path, findings: Findings) -> None:
    """Write ``clean.json`` in one step."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(findings), indent=1) + b"\n")


def load_findings(path: Path) -> Findings:
    """Read ``clean.json``.

    Raises:
        DataError: it is missing, damaged, or not ours.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MiB.", mend="Run `tinysight data clean` again.")
        held = msgspec.json.decode(path.read_bytes(), type=Findings)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.", mend="Run `tinysight data clean` first."
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}.", mend="Run `tinysight data clean` again.") from error
    if held.schema != SCHEMA:
        raise DataError(f"{path} has schema {held.schema}, this is {SCHEMA}.", mend="Run `tinysight data clean` again.")
    return held


def apply_findings(data: Dataset, findings: Findings, accepted: Sequence[Finding]) -> Dataset:
    """Do what was accepted: the new data set is written, then the pictures that left it are put aside.

    Args:
        data: as it was when it was looked at.
        findings: of that look.
        accepted: those of them whose remedy is wanted.

    Raises:
        DataError: the data set has changed since, or a finding does not fit it.
        OSError: the disk is full; the data set is as it was.
    """
    if findings.digest != data.digest:
        raise DataError(
            f"{data.root} has changed since it was looked at.", mend=f"Run `tinysight data clean {data.root}` again."
        )
    by_picture: dict[str, list[Remedy]] = defaultdict(list)
    for each in accepted:
        by_picture[each.pictures[0]].append(each.remedy)
    known = {item.name for item in data.items}
    if missing := [name for name in by_picture if name not in known]:
        raise DataError(f"There is no picture {missing[0]!a} in {data.root}.", mend="Run `tinysight data clean` again.")
    kept, gone = [], []
    for item in data.items:
        remedies = by_picture.get(item.name, [])
        if any(remedy.act == "remove-picture" for remedy in remedies):
            gone.append(item)
        else:
            kept.append(_mended(item, remedies))
    cleaned = data.with_items(kept)
    if gone:
        _put_aside(data, gone)
    cleaned.save()
    for item in gone:
        (data.root / IMAGES / item.name).unlink(missing_ok=True)
    return cleaned


def _mended(item: Item, remedies: Sequence[Remedy]) -> Item:
    shown: list[Shown | None] = list(item.shown)
    for remedy in sorted(remedies, key=lambda remedy: remedy.act == "remove-box"):  # last, whatever else is said
        if remedy.act == "add-box":
            shown.append(Shown(label=remedy.label, box=remedy.box))
            continue
        if not 0 <= remedy.index < len(item.shown):
            raise DataError(f"{item.name} shows no thing {remedy.index}.", mend="Run `tinysight data clean` again.")
        held = shown[remedy.index]
        if remedy.act == "remove-box" or held is None:
            shown[remedy.index] = None
        elif remedy.act == "set-label":
            shown[remedy.index] = replace(held, label=remedy.label)
        else:
            shown[remedy.index] = replace(held, box=remedy.box)
    return replace(item, shown=tuple(each for each in shown if each is not None))


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the disk knows no links."""
    try:
        os.link(source, target)
    except OSError:
        replace_file(target, source.read_bytes())


def _put_aside(data: Dataset, gone: Sequence[Item]) -> None:
    """The files and what they showed, under ``removed/<time>``, complete before anything else changes."""
    folder = data.root / REMOVED / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    for item in gone:
        target = folder / IMAGES / item.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if data.path(item).is_file():
            _link(data.path(item), target)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "items.json", msgspec.json.format(msgspec.json.encode(list(gone)), indent=1) + b"\n")
