"""An evaluation as a page: figures, charts, the worst pictures, and what the model looked at.

In: a `Subject`, its `Evaluation`.  Out: one self-contained HTML page, and JSON. Every text from outside is escaped.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from tinysight_converters.drawing import chart, confusion_chart, draw_example, png
from tinysight_converters.metrics import above, hits
from tinysight_converters.page import card, cards, grid, image, img, note, page, safe, table
from tinysight_converters.run import Example
from tinysight_edge.decode import Detections
from tinysight_edge.preprocess import fit_picture
from tinysight_trainer.combine import COMPARED
from tinysight_trainer.data.sheets import jpeg
from tinysight_trainer.evaluate import Evaluation, Subject
from tinysight_trainer.saliency import GradientSaliency, covering_map, overlay

__all__ = ["evaluation_json", "evaluation_page"]

WORST: Final = 24
EXPLAINED: Final = 12
TILE_PX: Final = 300
NAMES: Final = {
    "accuracy": "Accuracy",
    "macro_f1": "mean F1",
    "ap50": "AP50",
    "ap50_95": "AP50-95",
    "precision": "Precision",
    "recall": "Recall",
    "calibration_error": "calibration error",
}

_STYLE: Final = "<style>.pair{display:grid;grid-template-columns:1fr 1fr;gap:.2rem}</style>"


def evaluation_json(subject: Subject, done: Evaluation) -> bytes:
    """The figures for programs."""
    content = {
        "schema": 1,
        "model": subject.name,
        "task": subject.manifest.task,
        "figures": done.figures,
        "by_class": done.by_class,
        "confusion": done.counts.tolist(),
        "worst": [done.examples[at].name for at in _worst_first(done)[:WORST] if done.badness[at] > 0],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def evaluation_page(subject: Subject, done: Evaluation, root: Path, *, notes: Sequence[str] = ()) -> bytes:
    """The page for people.

    Raises:
        DataError: an image is missing, broken or changed.
    """
    labels = subject.manifest.labels
    detect = subject.manifest.task == "detect"
    named = [*labels, "nothing"] if detect else labels
    order = _worst_first(done)
    body = [
        _STYLE,
        f"<h1>{safe(subject.name)}</h1>",
        note(f"{subject.manifest.task}, {len(labels)} classes, evaluated on {len(done.examples)} pictures."),
        *(note(each) for each in notes),
        note(f"A detection counts from a score of {done.threshold:.3f} on, tuned on calibration pictures.")
        if detect
        else "",
        cards(
            card(f"{value:.3f}", NAMES[name])
            for name, value in done.figures.items()
            if name in NAMES and value is not None
        ),
        _compared(subject),
        "<h2>By class</h2>",
        _by_class(done.by_class, detect=detect),
        "<h2>What is taken for what</h2>",
        image(confusion_chart(named, done.counts), "confusion matrix"),
    ]
    if detect:
        body += ["<h2>Precision and recall</h2>", image(_curves(done, labels), "precision over recall of each class")]
        body += ["<h2>By size</h2>", _by_size(done.figures)]
    body += [
        "<h2>How honest the scores are</h2>",
        note("Of answers with a score of 0.8, eight of ten should be right: then the bars end at the line."),
        image(_honesty(done), "share of right answers by score"),
        "<h2>The worst pictures</h2>",
        note(
            "White is the truth, coloured what the model says."
            if detect
            else "First what it is, then what the model says."
        ),
        _worst(subject, done, root, [at for at in order[:WORST] if done.badness[at] > 0]),
        "<h2>What it looked at</h2>",
        note(
            "Coloured is what the answer rests on: "
            + ("where its gradient is (Grad-CAM)." if subject.keras is not None else "what must not be covered.")
            + " The worst pictures first, then the best."
        ),
        _explained(subject, done, root, [*order[: EXPLAINED // 2], *order[::-1][: EXPLAINED // 2]]),
    ]
    return page(f"{subject.name}: evaluation", body)


def _worst_first(done: Evaluation) -> list[int]:
    return [int(at) for at in np.argsort(-done.badness, kind="stable")]


def _compared(subject: Subject) -> str:
    """Teachers, ensemble, student alone and distilled, when there were teachers."""
    if subject.folder is None or not (subject.folder / COMPARED).is_file():
        return ""
    rows = msgspec.json.decode((subject.folder / COMPARED).read_bytes(), type=dict[str, dict[str, float]])
    names = [name for name in next(iter(rows.values())) if name != "params"]
    head = ["model", *(NAMES[name] for name in names), "parameters"]
    lines = [[who, *(f"{row[name]:.4f}" for name in names), f"{row['params']:,.0f}"] for who, row in rows.items()]
    return f"<h2>Teachers and student</h2>{table(head, lines)}"


def _by_class(rows: list[dict[str, Any]], *, detect: bool) -> str:
    head = ["class", "precision", "recall", "F1", *(["AP50-95"] if detect else []), "number"]
    lines = []
    for row in rows:
        precise = [f"{row[name]:.3f}" if row["number"] else "" for name in ("precision", "recall", "f1")]
        average = ["" if row.get("ap50_95") is None else f"{row['ap50_95']:.3f}"] if detect else []
        lines.append([row["label"], *precise, *average, row["number"]])
    return table(head, lines)


def _by_size(figures: dict[str, float | None]) -> str:
    sizes = {"ap_small": "below 32x32 pixels", "ap_medium": "up to 96x96", "ap_large": "larger"}
    rows = [[words, "none there" if figures[name] is None else f"{figures[name]:.3f}"] for name, words in sizes.items()]
    return table(["boxes in the picture", "AP50-95"], rows)


def _curves(done: Evaluation, labels: Sequence[str]) -> bytes:
    """Precision over recall at IoU 0.5, a thin line a class and a thick one for all."""
    figure, axis = chart(5.8, 3.6)
    for class_id in [*range(len(labels)), None]:
        found, true = done.found, done.examples
        if class_id is not None:
            found = [_only(each, class_id) for each in found]
            true = [_true_only(each, class_id) for each in true]
        scores, right, wanted = hits(found, true)
        if not wanted:
            continue
        summed = np.cumsum(right[np.argsort(-scores, kind="stable")])
        precision, recall = summed / np.arange(1, len(summed) + 1), summed / wanted
        thick = {"color": "#1f6feb", "linewidth": 2.4} if class_id is None else {"color": "#8c959f", "linewidth": 0.8}
        axis.plot(recall, precision, **thick)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    return png(figure)


def _only(found: Detections, class_id: int) -> Detections:
    keep = found.class_ids == class_id
    return Detections(found.boxes_px[keep], found.scores[keep], found.class_ids[keep])


def _true_only(example: Example, class_id: int) -> Example:
    keep = [at for at, c in enumerate(example.class_ids) if c == class_id]
    return Example(
        name=example.name,
        sha256=example.sha256,
        boxes=[example.boxes[at] for at in keep],
        class_ids=[class_id] * len(keep),
        crowd=[example.crowd[at] for at in keep],
    )


def _honesty(done: Evaluation) -> bytes:
    figure, axis = chart(5.0, 3.2)
    total = max(sum(count for _, _, count in done.bins), 1)
    for score, share, count in done.bins:
        axis.bar(score, share, 0.05, color="#1f6feb", alpha=0.25 + 0.75 * min(1.0, 4 * count / total))
    axis.plot([0, 1], [0, 1], color="#8c959f", linewidth=1)
    axis.set(xlabel="score", ylabel="share that is right", xlim=(0, 1.03), ylim=(0, 1.03))
    return png(figure)


def _worst(subject: Subject, done: Evaluation, root: Path, chosen: Sequence[int]) -> str:
    if not chosen:
        return note("Nothing is wrong with any of them.")
    labels, made = subject.manifest.labels, []
    for at in chosen:
        example, found = done.examples[at], done.found[at]
        picture = example.picture(root)
        if subject.manifest.task == "detect":
            tile, words = draw_example(picture, example, above(found, done.threshold), labels), ""
        else:
            tile = _large(picture)
            words = f"{labels[example.class_ids[0]]} → {labels[found.class_ids[0]]} ({float(found.scores[0]):.0%})"
        made.append(_figure([tile], example.name, words))
    return grid(made, least_rem=17)


def _explained(subject: Subject, done: Evaluation, root: Path, chosen: Sequence[int]) -> str:
    gradients = GradientSaliency(subject.keras) if subject.keras is not None else None
    labels, made = subject.manifest.labels, []
    for at in dict.fromkeys(chosen):
        example, found = done.examples[at], done.found[at]
        if not len(found):
            continue
        spec = subject.manifest.input
        picture = np.empty((spec.height, spec.width, 1 if spec.color == "GRAY" else 3), np.uint8)
        fit = fit_picture(example.picture(root), spec, picture)
        class_id, cell = int(found.class_ids[0]), None
        if subject.manifest.task == "detect":
            x1, y1, x2, y2 = fit.to_model(found.boxes_px[:1])[0]
            heat = subject.raw(picture)["heatmap"][..., class_id]
            cell = _strongest(heat, (y1 + y2) / 2 / spec.height, (x1 + x2) / 2 / spec.width)
        if gradients is not None:
            saliency = gradients.of(picture, class_id, cell)
        else:
            saliency = covering_map(lambda given, c=class_id, w=cell: _score(subject, given, c, w), picture)  # type: ignore[misc]  # bound now
        shown = picture[..., ::-1] if picture.shape[2] == 3 else np.repeat(picture, 3, 2)
        tiles = [_large(np.ascontiguousarray(shown)), _large(overlay(np.ascontiguousarray(shown), saliency))]
        if cell is not None:
            for tile in tiles:
                scale = tile.shape[1] / spec.width
                corners = [round(float(side) * scale) for side in (x1, y1, x2, y2)]
                cv2.rectangle(tile, tuple(corners[:2]), tuple(corners[2:]), (255, 255, 255), 1)
        made.append(_figure(tiles, example.name, f"{labels[class_id]} ({float(found.scores[0]):.0%})"))
    return grid(made, least_rem=17)


def _strongest(heat: NDArray[np.float32], y: float, x: float) -> tuple[int, int]:
    """The cell that answered: a box cut off at the edge has its centre in another one, but not far away."""
    rows, columns = heat.shape
    row, column = (int(np.clip(at * side, 0, side - 1)) for at, side in ((y, rows), (x, columns)))
    top, left = max(row - 1, 0), max(column - 1, 0)
    near = heat[top : row + 2, left : column + 2]
    at = np.unravel_index(int(near.argmax()), near.shape)
    return top + int(at[0]), left + int(at[1])


def _score(subject: Subject, picture: NDArray[np.uint8], class_id: int, cell: tuple[int, int] | None) -> float:
    outputs = subject.raw(picture)
    return float(outputs["scores"][class_id] if cell is None else outputs["heatmap"][cell[0], cell[1], class_id])


def _large(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = TILE_PX / max(picture.shape[:2])
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=way), np.uint8)


def _figure(tiles: Sequence[NDArray[np.uint8]], name: str, words: str) -> str:
    made = "".join(img(jpeg(tile), name) for tile in tiles)
    pair = made if len(tiles) == 1 else f"<div class=pair>{made}</div>"
    return f"<figure>{pair}<figcaption><b>{safe(words)}</b> {safe(name)}</figcaption></figure>"
