"""Labels by machine and by hand: a model proposes, people correct, what they say comes back.

In: a data set, a bundle, or the export of a labelling tool.  Out: files for Label Studio or CVAT; or the data set with
the labels that people gave. Proposals never become labels by themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import DataError
from tinysight_contract.files import replace_file
from tinysight_edge.decode import make_decoder
from tinysight_edge.interpreter import Model
from tinysight_edge.preprocess import Preprocessor
from tinysight_edge.sources import decode_image
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.formats import cvat, label_studio
from tinysight_trainer.data.formats.raw import MAX_TEXT_BYTES, Proposal, read_text
from tinysight_trainer.data.item import Item, Shown

__all__ = ["propose", "take_labels", "write_proposals"]

UNCHANGED_PX: Final = 0.02  # percentages there and back


def propose(
    data: Dataset, bundle: Bundle, *, everything: bool, min_score: float, progress: Callable[[int], None]
) -> dict[str, tuple[Proposal, ...]]:
    """What a bundle's model sees in pictures, by their names.

    Args:
        data: the pictures.
        bundle: the model.
        everything: labelled pictures too.
        min_score: of a proposal, 0..1.
        progress: told how many pictures are done.

    Raises:
        DataError: a picture is missing or broken, or the data set is for another task.
    """
    manifest = bundle.manifest
    if data.task not in {None, manifest.task}:
        raise DataError(
            f"{data.root} is to {data.task}, the bundle is to {manifest.task}.", mend="Take another bundle."
        )
    model = Model.load(bundle)
    prepare = Preprocessor(manifest.input, model.variant.input)
    decode = make_decoder(manifest, model.variant, min_score=min_score if manifest.task == "detect" else 0.0)
    out: dict[str, tuple[Proposal, ...]] = {}
    for number, item in enumerate(data.items, start=1):
        progress(number)
        if item.labelled and not everything:
            continue
        try:
            image = decode_image(data.path(item).read_bytes())
        except OSError as error:
            raise DataError(f"{item.name} cannot be read: {error.strerror}.", mend="Put it back.") from error
        if image is None:
            raise DataError(f"{item.name} is broken.", mend=f"Run `tinysight data clean {data.root}`.")
        tensor, fit = prepare(image)
        found = decode(model.run(tensor)).in_frame(fit)
        held = []
        for box, score, class_id in zip(found.boxes_px, found.scores, found.class_ids, strict=True):
            x1, y1, x2, y2 = (round(float(side), 2) for side in box)
            whole = manifest.task == "classify"
            shown = Shown(label=manifest.labels[class_id], box=None if whole else (x1, y1, x2, y2))
            held.append(Proposal(shown=shown, score=float(score)))
            if whole:
                break  # the strongest
        out[item.name] = tuple(held)
    return out


def write_proposals(
    data: Dataset,
    proposals: Mapping[str, Sequence[Proposal]],
    labels: Sequence[str],
    task: str,
    out: Path,
    *,
    tool: str,
) -> list[Path]:
    """Files for a labelling tool: ``label-studio`` or ``cvat``.

    Raises:
        OSError: the disk is full or not writable.
    """
    out.mkdir(parents=True, exist_ok=True)
    if tool == "cvat":
        replace_file(out / "annotations.xml", cvat.annotations(data, proposals))
        return [out / "annotations.xml"]
    known = sorted({*data.labels, *labels})
    replace_file(out / "tasks.json", label_studio.tasks(data, proposals))
    replace_file(out / "labels.xml", label_studio.interface(known, task).encode())
    return [out / "tasks.json", out / "labels.xml"]


def take_labels(data: Dataset, path: Path, *, empty: bool = False) -> tuple[Dataset, int]:
    """The data set with the labels of a Label Studio or CVAT export, and how many pictures got some.

    What the export says of a picture replaces what was known of it, but for what these tools cannot say: that an object
    is a crowd, and outlines, stay with objects that did not change. Other pictures stay as they are.

    Args:
        data: the data set.
        path: the export.
        empty: pictures without any label in CVAT's export show nothing; else they stay as they are.

    Raises:
        DataError: it is no such export, or speaks of pictures that are not here.
    """
    raw = read_text(path, most=MAX_TEXT_BYTES)
    if raw.lstrip()[:1] == b"<":
        told, key = cvat.read_labels(raw), _by_name
        told = {name: shown for name, shown in told.items() if shown or empty}
    else:
        told, key = label_studio.read_labels(raw), _by_digest
    known = {key(item) for item in data.items}
    if strange := [name for name in told if name not in known]:
        raise DataError(f"{path} speaks of {strange[0]!a}, which is not in {data.root}.", mend="Take the right export.")
    items = [
        replace(item, shown=_kept(item.shown, told[key(item)]), labelled=True) if key(item) in told else item
        for item in data.items
    ]
    return data.with_items(items), sum(key(item) in told for item in data.items)


def _kept(before: Sequence[Shown], told: Sequence[Shown]) -> tuple[Shown, ...]:
    """What is told, with what is known besides of each object that did not change."""
    known = list(before)
    out = []
    for shown in told:
        same = next((each for each in known if each.label == shown.label and _same_box(each, shown)), None)
        if same is not None:
            known.remove(same)
        out.append(shown if same is None else same)
    return tuple(out)


def _same_box(one: Shown, other: Shown) -> bool:
    if one.box is None or other.box is None:
        return one.box is other.box
    return all(abs(a - b) <= UNCHANGED_PX for a, b in zip(one.box, other.box, strict=True))


def _by_name(item: Item) -> str:
    return item.name


def _by_digest(item: Item) -> str:
    return item.sha256
