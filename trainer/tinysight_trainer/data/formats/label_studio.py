"""Label Studio: tasks to label, with what a model proposes, and its JSON export read back.

In and out: ``tasks.json`` and ``labels.xml``, the labelling interface. Label Studio serves the images itself when
``LOCAL_FILES_SERVING_ENABLED=true`` and ``LOCAL_FILES_DOCUMENT_ROOT`` is the data set's folder. Each task carries its
image's digest, so that labels find their way back whatever the files were called meanwhile.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import msgspec
from msgspec import Struct

from tinysight_contract.errors import DataError
from tinysight_trainer.data.dataset import IMAGES, Dataset
from tinysight_trainer.data.formats.raw import Proposal, pixels
from tinysight_trainer.data.item import Item, Shown

__all__ = ["interface", "read_labels", "tasks", "write"]

MEND: Final = "Export as JSON (not JSON-MIN) from Label Studio."


class _Result(Struct):
    type: str = ""
    value: dict[str, Any] = {}
    original_width: float = 0.0
    original_height: float = 0.0


class _Annotation(Struct):
    result: list[_Result] = []
    was_cancelled: bool = False


class _Task(Struct):
    data: dict[str, Any]
    annotations: list[_Annotation] = []


def tasks(data: Dataset, proposals: Mapping[str, Sequence[Proposal]]) -> bytes:
    """Every image as a task; labels it has become annotations, proposals (by name) become predictions."""
    made = []
    for item in data.items:
        about = {"image": f"/data/local-files/?d={quote(f'{IMAGES}/{item.name}')}", "name": item.name}
        task: dict[str, Any] = {"data": {**about, "sha256": item.sha256}}
        if item.labelled:
            task["annotations"] = [{"result": [_result(item, each) for each in item.shown]}]
        if item.name in proposals:
            held = proposals[item.name]
            results = [{**_result(item, each.shown), "score": round(each.score, 4)} for each in held]
            score = max((each.score for each in held), default=0.0)
            task["predictions"] = [{"model_version": "tinysight", "score": round(score, 4), "result": results}]
        made.append(task)
    return msgspec.json.format(msgspec.json.encode(made), indent=1)


def write(data: Dataset, out: Path) -> list[str]:
    """``tasks.json`` and ``labels.xml``; the images stay where they are."""
    (out / "tasks.json").write_bytes(tasks(data, {}))
    (out / "labels.xml").write_text(interface(data.labels, data.task), encoding="utf-8")
    crowds = sum(each.crowd for item in data.items for each in item.shown)
    return [f"{crowds} crowds became plain objects: Label Studio cannot say them."] if crowds else []


def interface(labels: Sequence[str], task: str | None) -> str:
    """The labelling interface, to be pasted into a project's settings."""
    if task == "classify":
        choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in labels)
        inner = f'<Choices name="label" toName="image" choice="single">{choices}</Choices>'
    else:
        boxes = "".join(f"<Label value={quoteattr(label)}/>" for label in labels)
        inner = f'<RectangleLabels name="label" toName="image">{boxes}</RectangleLabels>'
    return f'<View><Image name="image" value="$image" zoom="true"/>{inner}</View>\n'


def _result(item: Item, shown: Shown) -> dict[str, Any]:
    made: dict[str, Any] = {"from_name": "label", "to_name": "image"}
    made |= {"original_width": item.width, "original_height": item.height, "image_rotation": 0}
    if shown.box is None:
        return {**made, "type": "choices", "value": {"choices": [shown.label]}}
    x1, y1, x2, y2 = shown.box
    w, h = item.width / 100, item.height / 100
    value = {"x": x1 / w, "y": y1 / h, "width": (x2 - x1) / w, "height": (y2 - y1) / h, "rotation": 0}
    return {**made, "type": "rectanglelabels", "value": {**value, "rectanglelabels": [shown.label]}}


def read_labels(raw: bytes) -> dict[str, tuple[Shown, ...]]:
    """What was labelled, by the image's digest; tasks without a finished annotation are not in it.

    Raises:
        DataError: it is no export of Label Studio, or of a kind of label that is not known here.
    """
    try:
        held = msgspec.json.decode(raw, type=list[_Task])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"This is no export of Label Studio: {error}.", mend=MEND) from error
    out = {}
    for number, task in enumerate(held, start=1):
        done = [each for each in task.annotations if not each.was_cancelled]
        if not done:
            continue
        digest = task.data.get("sha256")
        if not isinstance(digest, str):
            raise DataError(f"Task {number} does not say which image it is.", mend="Import the tasks that we wrote.")
        where = f"Task {number} ({task.data.get('name')})"
        out[digest] = tuple(_shown(where, each) for each in done[-1].result)
    return out


def _shown(where: str, result: _Result) -> Shown:
    value = result.value
    names = value.get("rectanglelabels") or value.get("choices")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise DataError(f"{where}: a {result.type!r} is not known here.", mend="Label with boxes, or one choice.")
    if "choices" in value:
        return Shown(label=names[0])
    try:
        x, y, w, h = (float(value[side]) for side in ("x", "y", "width", "height"))
        turned = float(value.get("rotation") or 0)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: a box without its sides.", mend=MEND) from error
    if not (result.original_width > 0 and result.original_height > 0):
        raise DataError(f"{where}: it does not say how large the image was.", mend=MEND)
    if turned:
        raise DataError(f"{where}: a box is turned by {turned:g} degrees.", mend="Draw it upright.")
    sx, sy = result.original_width / 100, result.original_height / 100
    return Shown(label=names[0], box=pixels(x * sx, y * sy, (x + w) * sx, (y + h) * sy, where))
