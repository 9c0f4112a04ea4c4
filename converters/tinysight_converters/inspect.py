"""What is in a bundle, and what differs between two.

In: `Bundle`s.  Out: plain values to print, or a page that draws the first variant's graph with the error of each layer.
"""

from collections import Counter
from typing import Any, Final

import msgspec
from msgspec import Struct

from tinysight_contract.bundle import Bundle
from tinysight_contract.manifest import Reference, Variant
from tinysight_contract.metrics import BINS
from tinysight_converters.graph import Graph, Node, read_graph
from tinysight_converters.page import BAD_NOISE, FAIR_NOISE, noise_colour, note, page, safe, table
from tinysight_converters.tflite import LayerError

__all__ = ["DIGEST", "difference", "inspection", "inspection_page"]

REPORT: Final = "report.json"
PROOF: Final = ("held_out_images", "reference", "variants", "ladder")
DIGEST: Final = "digest"
MAX_DRAWN: Final = 400
LABELS_TOLD: Final = 5
PLAIN: Final = "#57606a"
WIDTH, NODE_H, STEP, LEFT = 640, 40, 56, 90


class _Measured(Struct, frozen=True, kw_only=True):
    """What a report says of a model."""

    scheme: str = ""
    how: str = ""
    metrics: dict[str, float]
    threshold: float | None = None
    agreement_with_float: float | None = None
    size_bytes: int | None = None


class _Step(Struct, frozen=True, kw_only=True):
    """What a report says of a step towards the budget."""

    step: str
    holds: bool
    metric: float | None = None
    drop_pt: float | None = None
    kib: float | None = None


class _Report(Struct, frozen=True, kw_only=True):
    """What is read here of a ``report.json``, which may be of anybody's making."""

    held_out_images: int = 0
    reference: _Measured | None = None
    variants: list[_Measured] = []
    ladder: list[_Step] = []
    layers: list[LayerError] = []


def inspection(bundle: Bundle) -> dict[str, Any]:
    """The manifest, what stands in each variant's file, and the proof."""
    manifest = bundle.manifest
    return {
        "digest": bundle.digest,
        "size_bytes": bundle.size_bytes,
        "manifest": msgspec.to_builtins(manifest),
        "found": _found(manifest.reference),
        "variants": [_variant(bundle, variant) for variant in manifest.variants],
        "proof": _proof(bundle),
    }


def _found(reference: Reference | None) -> str:
    """What the reference says, in a line."""
    if reference is None:
        return "unknown, so devices cannot tell whether it drifts"
    total = sum(reference.scores)
    if not total:
        return "nothing was found"
    above, place = 0, BINS
    while 2 * above < total:
        place -= 1
        above += reference.scores[place]
    ranked = sorted(reference.labels.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{label} {count}" for label, count in ranked[:LABELS_TOLD]]
    more = [f"{len(ranked) - LABELS_TOLD} more labels"] if len(ranked) > LABELS_TOLD else []
    share = f"{100 * above / total:.0f} % with a score of {place / BINS:.2f} or more"
    return f"{total} found, {share}: {', '.join([*named, *more])}"


def _report(bundle: Bundle) -> _Report:
    """The report; an empty one when there is none, or one of another form."""
    if REPORT not in bundle.manifest.files:
        return _Report()
    try:
        return msgspec.json.decode(bundle.read(REPORT), type=_Report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Report()


def _proof(bundle: Bundle) -> dict[str, Any]:
    """The report's figures; nothing when it has none."""
    report = _report(bundle)
    if not report.variants:
        return {}
    return {key: msgspec.to_builtins(getattr(report, key)) for key in PROOF}


def _variant(bundle: Bundle, variant: Variant) -> dict[str, Any]:
    graph = read_graph(bundle.read(variant.file))
    return {
        "scheme": variant.scheme,
        "kib": bundle.manifest.files[variant.file].size_bytes / 1024,
        "operators": dict(sorted(Counter(node.op for node in graph.nodes).items())),
        "tensors": len(graph.tensors),
        "float_tensors": sum(tensor.dtype.startswith("float") for tensor in graph.tensors),
        "runtimes": [f"{each.name} {each.version}: {'runs' if each.ok else each.detail}" for each in variant.runtimes],
    }


def difference(one: Bundle, other: Bundle) -> list[tuple[str, str, str]]:
    """What is not the same: place, there, here. The proof's figures are among it, files are told by their digests.

    The bundles' own digests are told when nothing else that is read differs.
    """
    left, right = _flat(one), _flat(other)
    rows = [
        (key, left.get(key, "-"), right.get(key, "-"))
        for key in sorted({*left, *right})
        if left.get(key) != right.get(key)
    ]
    return rows if rows or one.digest == other.digest else [(DIGEST, one.digest, other.digest)]


def _flat(bundle: Bundle) -> dict[str, str]:
    found: dict[str, str] = {}

    def walk(value: Any, place: str) -> None:  # noqa: ANN401 -- JSON of any form
        if isinstance(value, dict):
            for key, each in value.items():
                walk(each, f"{place}.{key}" if place else str(key))
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            for number, each in enumerate(value):
                name = each.get("scheme") or each.get("name") or number
                walk(each, f"{place}[{name}]")
        else:
            found[place] = msgspec.json.encode(value).decode()

    walk(msgspec.to_builtins(bundle.manifest), "")
    proof = _proof(bundle)
    walk({key: proof.get(key) for key in ("reference", "variants")}, "proof")
    return found


def inspection_page(bundle: Bundle) -> bytes:
    """The first variant's graph, each operator with what it makes and how much int8 harms it."""
    manifest, first = bundle.manifest, bundle.manifest.variants[0]
    graph = read_graph(bundle.read(first.file))
    noise = {each.tensor: each for each in _report(bundle).layers}
    if not any(tensor.name in noise for tensor in graph.tensors):
        noise = {}
    said = f"{first.scheme}, {len(graph.nodes)} operators."
    said += " Colours: the noise that int8 adds to what a layer carries." if noise else " No errors by layer are known."
    rows = [
        [name, ", ".join(map(str, tensor.shape)), tensor.dtype, f"{tensor.scale:.4g}" if tensor.scales else ""]
        for name, tensor in (
            *((f"in: {graph.tensors[index].name}", graph.tensors[index]) for index in graph.inputs),
            *((f"out: {graph.tensors[index].name}", graph.tensors[index]) for index in graph.outputs),
        )
    ]
    body = [
        f"<h1>{safe(manifest.name)} {safe(manifest.version)}</h1>",
        note(said),
        table(["tensor", "shape", "type", "scale"], rows),
        note(f"green: less than {FAIR_NOISE:g}; yellow: less than {BAD_NOISE:g}; red: more") if noise else "",
        _drawing(graph, noise),
    ]
    return page(f"{manifest.name}: graph", body)


def _drawing(graph: Graph, noise: dict[str, LayerError]) -> str:
    """From top to bottom in the order they run; what skips an operator goes round it on the left."""
    nodes = graph.nodes[:MAX_DRAWN]
    made_at = {index: at for at, node in enumerate(nodes) for index in node.outputs}
    ends = {(made_at.get(index, at), at) for at, node in enumerate(nodes) for index in node.inputs}
    parts = [_edge(before, at) for before, at in sorted(ends) if before < at]
    parts += [_box(graph, node, at, noise) for at, node in enumerate(nodes)]
    height = len(nodes) * STEP + 20
    more = note(f"{len(graph.nodes) - MAX_DRAWN} more are not drawn.") if len(graph.nodes) > MAX_DRAWN else ""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" style="max-width:100%;height:auto" role="img" '
        f'aria-label="the graph">{"".join(parts)}</svg>{more}'
    )


def _edge(before: int, after: int) -> str:
    top, bottom = before * STEP + 10 + NODE_H, after * STEP + 10
    if after == before + 1:
        path = f"M{LEFT + 30} {top}V{bottom}"
    else:
        out = max(8, LEFT - 16 - 7 * (after - before))
        path = f"M{LEFT} {top - NODE_H / 2}C{out} {top},{out} {bottom},{LEFT} {bottom + NODE_H / 2}"
    return f'<path d="{path}" fill="none" stroke="{PLAIN}" stroke-width="1.5"/>'


def _box(graph: Graph, node: Node, at: int, noise: dict[str, LayerError]) -> str:
    tensor = graph.tensors[node.outputs[0]] if node.outputs else None
    known = noise.get(tensor.name) if tensor else None
    share = known.noise if known else 0.0
    colour = PLAIN if known is None else noise_colour(share)
    shape = "x".join(map(str, tensor.shape)) if tensor else ""
    made = f"{shape} {tensor.dtype}" if tensor else ""
    below = f"{known.layer}  noise {share:.2g}, {known.rms_steps:.2f} steps" if known else ""
    y = at * STEP + 10
    return (
        f'<rect x="{LEFT}" y="{y}" width="{WIDTH - LEFT - 10}" height="{NODE_H}" rx="6" fill="{colour}22" '
        f'stroke="{colour}"/>'
        f'<text x="{LEFT + 10}" y="{y + 17}" font-size="13" fill="currentColor" font-weight="600">{safe(node.op)}'
        f"</text>"
        f'<text x="{WIDTH - 20}" y="{y + 17}" font-size="12" fill="currentColor" text-anchor="end">{safe(made)}</text>'
        f'<text x="{LEFT + 10}" y="{y + 33}" font-size="12" fill="currentColor" opacity=".75">{safe(below)}</text>'
    )
