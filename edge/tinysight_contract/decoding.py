"""How a model's raw outputs mean detections: one frozen type per kind, its tag and its numbers.

In: what a manifest says under ``decode``.  Out: the kind, and the shapes that its outputs must have. A device turns
them into boxes (`tinysight_edge.decode`); nothing here calculates with arrays.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

__all__ = [
    "MAX_CANDIDATES",
    "Anchors",
    "CenterNet",
    "Classify",
    "Decode",
    "Role",
    "Ssd",
    "SsdAnchors",
    "Yolo",
    "decode_contradiction",
]

MAX_CANDIDATES: Final = 1 << 18
"""No output may hold more boxes than this, so that decoding stays bounded."""

Role = Literal["heatmap", "box", "scores", "embedding", "boxes", "classes", "count", "predictions"]
Shapes = dict[str, list[int]]
ANY: Final = 0  # stands for n, the number of boxes: not known beforehand, and the same in all outputs

MaxObjects = Annotated[int, Meta(ge=1, le=1000)]
Stride = Annotated[int, Meta(ge=1, le=8192)]
Share = Annotated[float, Meta(gt=0.0, le=10.0)]
Ratio = Annotated[float, Meta(gt=0.0, le=100.0)]
Divisor = Annotated[float, Meta(ge=1e-3, le=1e6)]


class CenterNet(Struct, frozen=True, kw_only=True, tag_field="kind", tag="centernet"):
    """Peaks of ``heatmap`` (H, W, classes); ``box`` (H, W, 4) holds dx, dy, log w, log h in cells.

    Source: X. Zhou et al., Objects as Points, arXiv 1904.07850.
    """

    stride: Stride
    max_objects: MaxObjects = 100

    def shapes(self, labels: int, height: int, width: int) -> Shapes:
        """What each role's output looks like."""
        grid = [1, height // self.stride, width // self.stride]
        return {"heatmap": [*grid, labels], "box": [*grid, 4]}


class Classify(Struct, frozen=True, kw_only=True, tag_field="kind", tag="classify"):
    """``scores`` (classes,), the strongest of them; ``activation`` is what the host still has to apply.

    With ``background`` the first score stands for "nothing" and is no label, as in models of 1001 classes.
    """

    activation: Literal["none", "softmax", "sigmoid"] = "none"
    background: bool = False

    def shapes(self, labels: int, height: int, width: int) -> Shapes:  # noqa: ARG002 -- the same for every kind
        """What each role's output looks like."""
        return {"scores": [1, labels + self.background]}


class Ssd(Struct, frozen=True, kw_only=True, tag_field="kind", tag="ssd"):
    """The outputs of ``TFLite_Detection_PostProcess``, which has decoded and suppressed inside the graph.

    ``boxes`` (n, 4): ymin, xmin, ymax, xmax as shares of the picture; ``classes`` (n,), ``scores`` (n,), and ``count``,
    how many of the n hold. With ``background`` class 0 is no label and class 1 is the first.
    """

    background: bool = False
    max_objects: MaxObjects = 100

    def shapes(self, labels: int, height: int, width: int) -> Shapes:  # noqa: ARG002 -- the same for every kind
        """What each role's output looks like."""
        return {"boxes": [1, ANY, 4], "classes": [1, ANY], "scores": [1, ANY], "count": [1]}


class Anchors(Struct, frozen=True, kw_only=True):
    """Where the boxes of an SSD head start from, in the terms of MediaPipe's ``SsdAnchorsCalculator``.

    A layer's map has ``ceil(side / stride)`` cells a side, or those of ``feature_maps`` (height, width). A cell has
    one anchor per aspect ratio, and one between this layer's scale and the next unless the interpolated ratio is 0.
    Layers of equal stride share their cells.
    """

    strides: Annotated[list[Stride], Meta(min_length=1, max_length=16)]
    min_scale: Share
    max_scale: Share
    aspect_ratios: Annotated[list[Ratio], Meta(min_length=1, max_length=16)]
    interpolated_scale_aspect_ratio: Annotated[float, Meta(ge=0.0, le=100.0)] = 1.0
    reduce_boxes_in_lowest_layer: bool = False
    fixed_anchor_size: bool = False
    offset: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5
    feature_maps: list[tuple[Stride, Stride]] | None = None

    def grids(self, height: int, width: int) -> list[tuple[int, int, list[int]]]:
        """Rows, columns and the layers of each map, for a picture of this size."""
        found: list[tuple[int, int, list[int]]] = []
        for layer, stride in enumerate(self.strides):
            if found and stride == self.strides[layer - 1]:
                found[-1][2].append(layer)
                continue
            rows, columns = -(-height // stride), -(-width // stride)
            if self.feature_maps is not None:
                rows, columns = self.feature_maps[layer]
            found.append((rows, columns, [layer]))
        return found

    def cell(self, layer: int) -> list[tuple[float, float]]:
        """Scale and aspect ratio of each anchor that a layer puts into a cell."""
        scale = self._scale(layer)
        if layer == 0 and self.reduce_boxes_in_lowest_layer:
            return [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        made = [(scale, ratio) for ratio in self.aspect_ratios]
        if self.interpolated_scale_aspect_ratio > 0:
            following = 1.0 if layer == len(self.strides) - 1 else self._scale(layer + 1)
            made.append(((scale * following) ** 0.5, self.interpolated_scale_aspect_ratio))
        return made

    def count(self, height: int, width: int) -> int:
        """How many anchors there are for a picture of this size."""
        return sum(
            rows * columns * sum(len(self.cell(layer)) for layer in layers)
            for rows, columns, layers in self.grids(height, width)
        )

    def _scale(self, layer: int) -> float:
        if len(self.strides) == 1:
            return (self.min_scale + self.max_scale) / 2
        return self.min_scale + (self.max_scale - self.min_scale) * layer / (len(self.strides) - 1)


class SsdAnchors(Struct, frozen=True, kw_only=True, tag_field="kind", tag="ssd-anchors"):
    """The raw heads of an SSD: ``boxes`` (n, 4): ty, tx, th, tw about their anchors; ``scores`` (n, classes).

    The first two are divided by ``scales`` and counted in anchors, the others in logarithms of them. With
    ``background`` the first score of each box stands for "nothing" and is no label.

    Source: W. Liu et al., SSD, arXiv 1512.02325; box coder of the TensorFlow Object Detection API.
    """

    anchors: Anchors
    activation: Literal["none", "softmax", "sigmoid"]
    background: bool = False
    scales: tuple[Divisor, Divisor, Divisor, Divisor] = (10.0, 10.0, 5.0, 5.0)
    max_objects: MaxObjects = 100

    def shapes(self, labels: int, height: int, width: int) -> Shapes:
        """What each role's output looks like."""
        n = self.anchors.count(height, width)
        return {"boxes": [1, n, 4], "scores": [1, n, labels + self.background]}


class Yolo(Struct, frozen=True, kw_only=True, tag_field="kind", tag="yolo"):
    """A YOLO head in one output: ``predictions`` holds centre x, centre y, width, height and the classes' scores.

    ``layout``: channels-first is (4 + classes, n), as of YOLOv8 and later, channels-last (n, 4 + classes). With
    ``objectness`` a fifth number before the classes multiplies them, as in YOLOv5. Of a head that has suppressed inside
    the graph, as YOLOv10's, it is end-to-end: (n, 6) with x1, y1, x2, y2, score and class. ``units`` of the boxes:
    pixels of the model's picture, or shares of it.
    """

    layout: Literal["channels-first", "channels-last", "end-to-end"]
    units: Literal["pixels", "normalized"]
    objectness: bool = False
    max_objects: MaxObjects = 100

    def shapes(self, labels: int, height: int, width: int) -> Shapes:  # noqa: ARG002 -- the same for every kind
        """What each role's output looks like."""
        if self.layout == "end-to-end":
            return {"predictions": [1, ANY, 6]}
        channels = 4 + self.objectness + labels
        return {"predictions": [1, channels, ANY] if self.layout == "channels-first" else [1, ANY, channels]}


Decode = CenterNet | Classify | Ssd | SsdAnchors | Yolo


def decode_contradiction(
    decode: Decode, outputs: Mapping[str, list[int]], *, task: str, labels: int, height: int, width: int
) -> str | None:
    """Why these outputs cannot be decoded so, or None. No I/O.

    Args:
        decode: the kind and its numbers.
        outputs: role to shape.
        task: detect or classify.
        labels: how many there are.
        height: of the model's picture.
        width: likewise.
    """
    if (task == "classify") != isinstance(decode, Classify):
        return f"the task {task} is not decoded by {type(decode).__name__}"
    if isinstance(decode, CenterNet) and decode.stride > min(height, width):
        return f"a stride of {decode.stride} leaves no cell of {height}x{width}"
    if isinstance(decode, SsdAnchors) and (reason := _anchors_contradiction(decode.anchors)) is not None:
        return reason
    if isinstance(decode, Yolo) and decode.layout == "end-to-end" and decode.objectness:
        return "an end-to-end head has no objectness"
    n = ANY
    for role, want in decode.shapes(labels, height, width).items():
        if role not in outputs:
            return f"decoding needs an output with role {role!r}"
        shape = outputs[role]
        if ANY in want and len(shape) == len(want):
            n = n or shape[want.index(ANY)]
        if shape != [side or n for side in want]:
            return f"{role} has shape {shape}, {labels} labels need {[side or n or 'n' for side in want]}"
        if len(shape) == 3 and max(shape) > MAX_CANDIDATES:
            return f"{role} has shape {shape}, at most {MAX_CANDIDATES} boxes are decoded"
    return None


def _anchors_contradiction(anchors: Anchors) -> str | None:
    if anchors.feature_maps is not None and len(anchors.feature_maps) != len(anchors.strides):
        return f"there are {len(anchors.strides)} strides and {len(anchors.feature_maps)} feature maps"
    if anchors.max_scale < anchors.min_scale:
        return "the anchors' largest scale is below their smallest"
    return None
