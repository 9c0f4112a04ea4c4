"""Pictures of the proof: what both models see (JPEG), curves, classes, confusion (PNG).

In: detections and truth.  Out: image files' bytes. Charts are matplotlib's, on a canvas of their own: no display, no
global state.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tinysight_contract.manifest import Manifest
from tinysight_converters.metrics import above, agreement, coco_figures, hits, is_right
from tinysight_converters.proof import Proof
from tinysight_converters.run import Example
from tinysight_edge.decode import Detections

__all__ = ["chart", "class_chart", "confusion_chart", "curve_chart", "draw_example", "example_sheet", "png"]

Image = NDArray[np.uint8]
COLOURS: Final = ("#57606a", "#1f6feb")  # of the float model, and of what a device takes
TILE_PX: Final = 360
_HUES: Final = 10


def _plain(labels: Sequence[str]) -> list[str]:
    """Labels as they are: matplotlib would read mathematics between dollar signs."""
    return [label.replace("$", r"\$") for label in labels]


def png(figure: Figure) -> bytes:
    """The drawn figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def chart(width: float, height: float) -> tuple[Figure, Any]:
    """An empty chart of this size in inches, and its axis."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    return figure, axis


def curve_chart(proofs: Mapping[Any, Proof], true: Sequence[Example]) -> bytes:
    """Precision over recall at IoU 0.5, all classes together, of two models; a dot where the threshold of each is."""
    figure, axis = chart(5.6, 3.4)
    for (name, proof), colour, line in zip(proofs.items(), COLOURS, ("--", "-"), strict=False):
        scores, right, wanted = hits(proof.found, true)
        order = np.argsort(-scores, kind="stable")
        summed = np.cumsum(right[order])
        precision = summed / np.arange(1, len(order) + 1)
        recall = summed / max(wanted, 1)
        axis.plot(recall, precision, color=colour, linestyle=line, label=name)
        if (at := int((scores >= proof.threshold).sum()) - 1) >= 0:
            axis.plot(recall[at], precision[at], "o", color=colour)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.legend(frameon=False, loc="lower left")
    return png(figure)


def class_chart(labels: list[str], proofs: Mapping[Any, Proof], true: Sequence[Example]) -> bytes:
    """AP50-95 of each class, of two models side by side."""
    figure, axis = chart(max(5.6, 0.42 * len(labels)), 3.0)
    place = np.arange(len(labels))
    for offset, colour, (name, proof) in zip((-0.2, 0.2), COLOURS, proofs.items(), strict=False):
        values = [value or 0.0 for value in coco_figures(proof.found, true, len(labels))[1]]
        axis.bar(place + offset, values, 0.38, color=colour, label=name)
    axis.set(ylabel="AP50-95", ylim=(0, 1.02), xticks=place)
    axis.set_xticklabels(_plain(labels), rotation=0 if max(map(len, labels)) < 4 else 45)
    axis.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return png(figure)


def confusion_chart(labels: Sequence[str], counts: NDArray[np.int64]) -> bytes:
    """How often each true class (row) is taken for each class (column); ``counts`` is (n, n)."""
    side = min(9.0, max(3.4, 0.38 * len(labels) + 1.5))
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= 20:
        for row, column in np.argwhere(counts):
            shade = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade, fontsize=8)
        axis.set_xticks(range(len(labels)), _plain(labels), rotation=0 if max(map(len, labels)) < 4 else 60)
        axis.set_yticks(range(len(labels)), _plain(labels))
    axis.set(xlabel="taken for", ylabel="is")
    return png(figure)


def example_sheet(
    manifest: Manifest, root: Path, true: Sequence[Example], pair: tuple[Proof, Proof], *, count: int, columns: int = 1
) -> bytes:
    """Held-out pictures with what each of two models finds, side by side.

    Those come first that the right one gets wrong, or on which the two differ most; ``columns`` pairs stand in a row.
    """
    one, other = ([above(each, proof.threshold) for each in proof.found] for proof in pair)
    if manifest.task == "classify":
        differ = [
            abs(float(a.scores[0]) - float(b.scores[0])) + (not is_right(b, example))
            for a, b, example in zip(pair[0].found, pair[1].found, true, strict=True)
        ]
        one, other = pair[0].found, pair[1].found  # also what it does not dare to say
    else:
        differ = [1 - agreement([a], [b]) for a, b in zip(one, other, strict=True)]
    order = np.argsort(-np.array(differ), kind="stable")[:count]
    pairs = []
    for index in order:
        image = true[index].picture(root)
        left, right = (draw_example(image, true[index], each[index], manifest.labels) for each in (one, other))
        pairs.append(np.hstack([left, np.full((len(left), 8, 3), 255, np.uint8), right]))
    height, width = (max(tiles.shape[axis] for tiles in pairs) for axis in (0, 1))
    rows = []
    for start in range(0, len(pairs), columns):
        sheet = np.full((height + 8, columns * (width + 24) - 24, 3), 255, np.uint8)
        for number, tiles in enumerate(pairs[start : start + columns]):
            at = number * (width + 24)
            sheet[: tiles.shape[0], at : at + tiles.shape[1]] = tiles
        rows.append(sheet)
    _, raw = cv2.imencode(".jpg", np.vstack(rows), (cv2.IMWRITE_JPEG_QUALITY, 85))
    return raw.tobytes()


def _ascii(label: str) -> str:
    """OpenCV draws nothing else."""
    return label.encode("ascii", "replace").decode()


def draw_example(image: Image, example: Example, found: Detections, labels: Sequence[str]) -> Image:
    """The picture with the truth in white and what was found in its class's colour."""
    factor = TILE_PX / image.shape[1]
    out = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    for box, crowd in zip(example.boxes_px, example.crowd, strict=False):
        x1, y1, x2, y2 = (round(float(side) * factor) for side in box)
        cv2.rectangle(out, (x1, y1), (x2, y2), (255, 255, 255) if not crowd else (130, 130, 130), 1)
    for box, score, class_id in zip(found.boxes_px, found.scores, found.class_ids, strict=True):
        x1, y1, x2, y2 = (round(float(side) * factor) for side in box)
        hue = np.array([[[int(class_id) % _HUES * 180 // _HUES, 230, 255]]], np.uint8)
        colour = tuple(int(part) for part in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])
        cv2.rectangle(out, (x1, y1), (x2, y2), colour, 2)
        text = f"{_ascii(labels[class_id])} {score:.2f}"
        (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        top = y1 - h - 6 if y1 > h + 6 else y1 + 2
        cv2.rectangle(out, (x1, top), (x1 + w + 4, top + h + 6), colour, -1)
        cv2.putText(out, text, (x1 + 2, top + h + 2), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    if not example.boxes and example.class_ids:
        text, bottom = f"is {_ascii(labels[example.class_ids[0]])}", len(out) - 8
        for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(out, text, (6, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, thick, cv2.LINE_AA)
    return np.asarray(out, np.uint8)
