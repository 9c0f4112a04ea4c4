"""The page about a data set: figures, what is to be said about them, and samples of every class.

In: a `Dataset` and its `Inspection`.  Out: one HTML page. Only the pictures that are shown are decoded, a
few at a time.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tinysight_converters.page import bars, card, cards, figure, grid, legend, note, page, points, safe, table
from tinysight_edge.sources import decode_image
from tinysight_trainer.data.cells import BoxFigures
from tinysight_trainer.data.dataset import Dataset
from tinysight_trainer.data.inspect import Inspection, Sample, findings, pick, split_name
from tinysight_trainer.data.sheets import (
    SPLIT_COLOURS,
    class_colour,
    count_chart,
    crop_tile,
    frame_tile,
    jpeg,
    missing_tile,
    place_chart,
    sheet,
    size_chart,
    whole_tile,
)
from tinysight_trainer.data.take import in_parallel
from tinysight_trainer.targets import STRIDE

__all__ = ["inspection_page"]

SAMPLES: Final = 24
WHOLE: Final = 12
CLASSES: Final = 20
COLUMNS: Final = 6
TILE_PX: Final = 112
WHOLE_PX: Final = 480
MAX_ROWS: Final = 60

Image = NDArray[np.uint8]
Progress = Callable[[int, int | None], None]


def inspection_page(data: Dataset, found: Inspection, *, progress: Progress = lambda _, __: None) -> bytes:
    """The whole page.

    Args:
        data: whose pictures are shown.
        found: its figures.
        progress: told how many of how many pictures are drawn.
    """
    labels = _worth_a_sheet(found)
    whole = WHOLE if data.task == "detect" else 0
    groups = pick(data, per_group=SAMPLES, whole=whole, labels=labels)
    tiles, broken = _drawn(data, groups, progress)
    said = [*data.notes, *findings(found)]
    if broken:
        said.insert(0, f"Of the pictures shown here cannot be used: {'; '.join(broken)}. Run `tinysight data clean`.")
    title = data.root.resolve().name
    body = [
        f"<h1>{safe(title)}</h1>",
        note(f"What is in it: {found.task or 'nothing labelled'}, digest {found.digest[:16]}"),
        _cards(found),
        "<h2>Worth knowing</h2>",
        points(said) if said else note("Nothing stands out."),
        *_classes(found),
        *_boxes(data, found),
        *_whole(data, groups.get("whole", []), tiles.get("whole", [])),
        *_samples(found, groups, tiles, labels),
        *_pictures(found),
        *_origin(found),
    ]
    return page(f"{title}: data set", body)


def _worth_a_sheet(found: Inspection) -> tuple[str, ...]:
    """All classes, or of many the most and the least frequent ones."""
    if len(found.objects) <= CLASSES:
        return tuple(found.objects)
    order = sorted(found.objects, key=lambda label: sum(found.objects[label].values()))
    kept = {*order[: CLASSES // 2], *order[-CLASSES // 2 :]}
    return tuple(label for label in found.objects if label in kept)


def _cards(found: Inspection) -> str:
    splits = ", ".join(f"{count} {name}" for name, count in found.pictures.items())
    made = [card(f"{found.total:,}", "pictures", splits)]
    if found.objects:
        each = "objects" if found.task == "detect" else "pictures of a class"
        made.append(card(f"{found.shown:,}", each, f"{found.empty:,} pictures show nothing"))
        mood = "bad" if found.lacking else ""
        uneven = f"most : least = {found.imbalance:.3g} : 1"
        made.append(card(f"{len(found.objects):,}", "classes", uneven, mood=mood))
    if found.largest_session is not None:
        made.append(card(f"{found.sessions:,}", "capture sessions", f"the largest has {found.largest_session[1]:,}"))
    if found.splits is not None:
        leak = found.splits.leak
        below = f"{found.splits.random_leak:.1%} had they been split at random"
        made.append(card(f"{leak:.1%}", "leak of the splits", below, mood="bad" if leak > 0.01 else "good"))
    if found.boxes is not None:
        width, height = found.boxes.input_wh
        mood = "good" if found.boxes.fits else "bad"
        below = f"{found.boxes.hidden:.1%} hidden, at {width}x{height}"
        made.append(card(f"{found.boxes.too_small:.1%}", "of the boxes too small", below, mood=mood))
    return cards(made)


def _classes(found: Inspection) -> Iterator[str]:
    if not found.objects:
        return
    splits = list(found.pictures)
    totals = {label: sum(held.values()) for label, held in found.objects.items()}
    most = max(totals.values())
    shown = list(totals)
    if len(shown) > MAX_ROWS:
        shown = sorted(totals, key=lambda label: -totals[label])[:MAX_ROWS]
    yield f"<h2>Classes</h2><p class=note>{legend({split: SPLIT_COLOURS[split] for split in splits})}</p>"
    yield bars(
        ("class", "", *splits, "all"),
        (
            (
                label,
                [(SPLIT_COLOURS[split], count / most) for split, count in found.objects[label].items()],
                [*(found.objects[label].get(split, 0) for split in splits), totals[label]],
            )
            for label in shown
        ),
    )
    if len(totals) > MAX_ROWS:
        yield note(f"These are the most frequent; {len(totals) - MAX_ROWS} more are in the figures of --json.")


def _boxes(data: Dataset, found: Inspection) -> Iterator[str]:
    if found.boxes is None or not len(found.boxes.sides_px):
        return
    width, height = found.boxes.input_wh
    common = found.sizes[0]
    yield "<h2>Objects</h2>"
    yield grid(
        (
            figure(
                size_chart(found.boxes.sides_px, found.boxes.input_wh, STRIDE),
                "width and height of the boxes in model pixels",
                f"Box sizes as a model of {width}x{height} sees them. What is in the red is smaller than a cell in "
                "one direction and can hardly be found.",
            ),
            figure(
                place_chart(found.boxes.centres, common[0] / common[1]),
                "where in the frame objects are",
                "Where the centres of the objects are. Where there are none, the model learns to expect none.",
            ),
            figure(
                count_chart(found.per_picture, "objects in a picture"),
                "objects per picture",
                f"How many objects a picture shows; {found.empty:,} labelled pictures show nothing.",
            ),
            _inputs(found.boxes, found.others),
        ),
        least_rem=22,
    )
    if any(shown.crowd for item in data.items for shown in item.shown):
        yield note("Crowds are left out of sizes, places, shares and samples.")


def _inputs(boxes: BoxFigures, others: Sequence[BoxFigures]) -> str:
    rows = ((f"{each.input_wh[0]}x{each.input_wh[1]}", *_shares(each)) for each in (boxes, *others))
    shares = table(("input", "too small", "pairs in a cell", "hidden"), rows)
    said = note(
        f"Other inputs. Too small: narrower or lower than a cell of {STRIDE} model pixels. Pairs in a "
        f"cell: two objects of one class in one picture ({boxes.pairs:,} pairs) with their centres in the same cell. "
        "Hidden: objects lost by that. Twice the width and height takes four times as long."
    )
    return f"<div>{shares}{said}</div>"


def _shares(each: BoxFigures) -> tuple[str, str, str]:
    return f"{each.too_small:.2%}", f"{each.same_cell_pairs:.2%}", f"{each.hidden:.2%}"


def _whole(data: Dataset, samples: Sequence[Sample], tiles: Sequence[Image]) -> Iterator[str]:
    if not samples:
        return
    ids = {label: index for index, label in enumerate(data.labels)}
    yield "<h2>Pictures with their boxes</h2>"
    yield grid(
        (
            figure(
                jpeg(tile),
                "a picture with its boxes",
                f"{item.name}, {split_name(item)}:",
                {shown.label: class_colour(ids[shown.label]) for shown in item.shown},
            )
            for (item, _), tile in zip(samples, tiles, strict=True)
        ),
        least_rem=14,
    )


def _samples(
    found: Inspection,
    groups: Mapping[str, Sequence[Sample]],
    tiles: Mapping[str, Sequence[Image]],
    labels: Sequence[str],
) -> Iterator[str]:
    captions = {f"class {label}": f"{label}: {sum(found.objects[label].values()):,}" for label in labels}
    captions |= {"nothing": f"Show nothing: {found.empty:,}", "unlabelled": f"Not labelled: {found.unlabelled:,}"}
    made = [
        figure(jpeg(sheet(tiles[group], COLUMNS)), "samples", text)
        for group, text in captions.items()
        if groups.get(group)
    ]
    if not made:
        return
    yield f"<h2>Samples</h2><p class=note>{legend({split: SPLIT_COLOURS[split] for split in found.pictures})}, by the"
    yield f" line below each; up to {SAMPLES} at random.</p>"
    if len(labels) < len(found.objects):
        yield note(f"Of {len(found.objects):,} classes, the {CLASSES // 2} most and the {CLASSES // 2} least frequent.")
    yield grid(made, least_rem=24)


def _pictures(found: Inspection) -> Iterator[str]:
    if not found.sizes:
        return
    yield "<h2>Picture sizes</h2>"
    yield table(("size", "pictures"), ((f"{width}x{height}", f"{count:,}") for width, height, count in found.sizes))
    (narrow, wide), (low, high) = found.widths, found.heights
    aspects = ", ".join(f"{name} ({count:,})" for name, count in found.aspects)
    yield note(f"Widths {narrow} to {wide}, heights {low} to {high} pixels. Width to height: {aspects}.")


def _origin(found: Inspection) -> Iterator[str]:
    yield "<h2>Where it comes from</h2>"
    rows = [*found.source.items(), ("digest", found.digest)]
    if found.splits is not None:
        rows.append(("split by", found.splits.how))
    if found.largest_session is not None:
        rows.append(("largest session", f"{found.largest_session[0]} ({found.largest_session[1]:,} pictures)"))
    yield f"<div class=wrap>{table(('', ''), rows)}</div>"
    if found.left_out_count:
        yield f"<h2>Left out by the import: {found.left_out_count:,}</h2>"
        yield f"<div class=wrap>{table(('file', 'why'), ((each.file, each.why) for each in found.left_out))}</div>"
        if found.left_out_count > len(found.left_out):
            yield note(f"These are the first {len(found.left_out)}; all are in annotations.json.")


def _drawn(
    data: Dataset, groups: Mapping[str, Sequence[Sample]], progress: Progress
) -> tuple[dict[str, list[Image]], list[str]]:
    """A tile for each sample, and the pictures that cannot be used."""
    todo = [(group, sample) for group, samples in groups.items() for sample in samples]
    colours = {label: class_colour(index) for index, label in enumerate(data.labels)}
    tiles: dict[str, list[Image]] = {group: [] for group in groups}
    broken: dict[str, None] = {}

    def work(each: tuple[str, Sample]) -> Image | str:
        group, (item, shown) = each
        image = _read(data, each[1])
        if isinstance(image, str):
            return image
        if group == "whole":
            boxes = [(held.box, colours[held.label]) for held in item.shown if held.box is not None]
            return whole_tile(image, boxes, WHOLE_PX)
        return crop_tile(image, None if shown is None else shown.box, TILE_PX)

    for number, ((group, (item, _)), tile) in enumerate(zip(todo, in_parallel(work, iter(todo)), strict=True), 1):
        if isinstance(tile, str):
            broken[f"{item.name} ({tile})"] = None
        drawn = missing_tile(TILE_PX) if isinstance(tile, str) else tile
        tiles[group].append(drawn if group == "whole" else frame_tile(drawn, SPLIT_COLOURS[split_name(item)]))
        progress(number, len(todo))
    return tiles, list(broken)[:10]


def _read(data: Dataset, sample: Sample) -> Image | str:
    """The picture, or why it cannot be used."""
    try:
        raw = data.path(sample[0]).read_bytes()
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError) as error:
        return str(error)
    if hashlib.sha256(raw).hexdigest() != sample[0].sha256:
        return "changed since it was taken in"
    image = decode_image(raw)
    return "broken" if image is None else image
