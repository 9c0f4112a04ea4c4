"""Slow and obvious decoders, number by number, to compare the fast ones with. The fixture ``obvious`` is this file."""

import math
from typing import Any

from tinysight_contract import manifest as mf

Found = list[tuple[float, int, tuple[float, float, float, float]]]


def decode(manifest: mf.Manifest, variant: mf.Variant, outputs: dict[str, Any]) -> Found:
    """Score, class and corners in model pixels of what is found; strongest first."""
    how, thresholds = manifest.decode, variant.thresholds or manifest.thresholds
    real: dict[str, list[float]] = {
        output.role: [real_number(each, output) for each in outputs[output.name].ravel().tolist()]
        for output in variant.outputs
    }
    labels, width, height = len(manifest.labels), manifest.input.width, manifest.input.height
    if isinstance(how, mf.Classify):
        scores = activate(real["scores"], how.activation)[int(how.background) :]
        best = max(range(labels), key=lambda c: scores[c])
        return [(scores[best], best, (0, 0, width, height))] if scores[best] >= thresholds.score else []
    if isinstance(how, mf.Ssd):
        candidates = ssd(how, real, width, height)
    elif isinstance(how, mf.SsdAnchors):
        candidates = ssd_anchors(how, real, labels, width, height)
    elif isinstance(how, mf.Yolo):
        candidates = yolo(how, real["predictions"], labels, width, height)
    else:
        candidates = centernet(how, real, labels, width, height)
    real_boxes = [each for each in candidates if each[2][2] > each[2][0] and each[2][3] > each[2][1]]
    return distinct([each for each in real_boxes if each[0] >= thresholds.score], thresholds.iou)


def real_number(stored: float, output: mf.Output) -> float:
    return stored if output.dtype == "float32" else (stored - output.zero_point) * output.scale


def activate(scores: list[float], activation: str) -> list[float]:
    if activation == "sigmoid":
        return [1 / (1 + math.exp(-each)) for each in scores]
    if activation == "softmax":
        grown = [math.exp(each) for each in scores]
        return [each / sum(grown) for each in grown]
    return scores


def centernet(how: mf.CenterNet, real: dict[str, list[float]], labels: int, width: int, height: int) -> Found:
    """Cell by cell: look at the eight neighbours; of two equal ones the first stays."""
    rows, columns, stride = height // how.stride, width // how.stride, how.stride

    def heat(y: int, x: int, c: int) -> float:
        return real["heatmap"][(y * columns + x) * labels + c]

    made: Found = []
    for y in range(rows):
        for x in range(columns):
            for c in range(labels):
                beaten = False
                for ny in range(max(0, y - 1), min(rows, y + 2)):
                    for nx in range(max(0, x - 1), min(columns, x + 2)):
                        earlier = (ny, nx) < (y, x)
                        if heat(ny, nx, c) > heat(y, x, c) or (earlier and heat(ny, nx, c) == heat(y, x, c)):
                            beaten = True
                if not beaten:
                    at = (y * columns + x) * 4
                    dx, dy, lw, lh = real["box"][at : at + 4]
                    cx, cy, w, h = (x + dx) * stride, (y + dy) * stride, math.exp(lw) * stride, math.exp(lh) * stride
                    made.append((heat(y, x, c), c, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)))
    return made


def ssd(how: mf.Ssd, real: dict[str, list[float]], width: int, height: int) -> Found:
    made: Found = []
    for i in range(int(real["count"][0])):
        y1, x1, y2, x2 = real["boxes"][4 * i : 4 * i + 4]
        box = (x1 * width, y1 * height, x2 * width, y2 * height)
        class_id = int(real["classes"][i]) - (1 if how.background else 0)
        if class_id >= 0:
            made.append((real["scores"][i], class_id, box))
    return made


def anchors(spec: mf.Anchors, height: int, width: int) -> list[tuple[float, float, float, float]]:
    """MediaPipe's ``GenerateAnchors``, line by line: centre y, centre x, height, width."""

    def scale_of(index: int) -> float:
        if len(spec.strides) == 1:
            return (spec.min_scale + spec.max_scale) * 0.5
        return spec.min_scale + (spec.max_scale - spec.min_scale) * index / (len(spec.strides) - 1.0)

    made: list[tuple[float, float, float, float]] = []
    layer = 0
    while layer < len(spec.strides):
        sizes: list[tuple[float, float]] = []
        last = layer
        while last < len(spec.strides) and spec.strides[last] == spec.strides[layer]:
            scale = scale_of(last)
            if last == 0 and spec.reduce_boxes_in_lowest_layer:
                sizes += [(1.0, 0.1), (2.0, scale), (0.5, scale)]
            else:
                sizes += [(ratio, scale) for ratio in spec.aspect_ratios]
                if spec.interpolated_scale_aspect_ratio > 0:
                    after = 1.0 if last == len(spec.strides) - 1 else scale_of(last + 1)
                    sizes.append((spec.interpolated_scale_aspect_ratio, math.sqrt(scale * after)))
            last += 1
        stride = spec.strides[layer]
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        if spec.feature_maps is not None:
            rows, columns = spec.feature_maps[layer]
        for y in range(rows):
            for x in range(columns):
                for ratio, scale in sizes:
                    h, w = scale / math.sqrt(ratio), scale * math.sqrt(ratio)
                    if spec.fixed_anchor_size:
                        h = w = 1.0
                    made.append(((y + spec.offset) / rows, (x + spec.offset) / columns, h, w))
        layer = last
    return made


def ssd_anchors(how: mf.SsdAnchors, real: dict[str, list[float]], labels: int, width: int, height: int) -> Found:
    made: Found = []
    columns = labels + (1 if how.background else 0)
    for i, (ay, ax, ah, aw) in enumerate(anchors(how.anchors, height, width)):
        ty, tx, th, tw = (real["boxes"][4 * i + k] / how.scales[k] for k in range(4))
        y, x, h, w = ty * ah + ay, tx * aw + ax, math.exp(th) * ah, math.exp(tw) * aw
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        scores = activate(real["scores"][columns * i : columns * (i + 1)], how.activation)[columns - labels :]
        best = max(range(labels), key=lambda c: scores[c])
        made.append((scores[best], best, box))
    return made


def yolo(how: mf.Yolo, numbers: list[float], labels: int, width: int, height: int) -> Found:
    made: Found = []
    if how.layout == "end-to-end":
        for i in range(len(numbers) // 6):
            x1, y1, x2, y2, score, class_id = numbers[6 * i : 6 * i + 6]
            if how.units == "normalized":
                x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
            made.append((score, round(class_id), (x1, y1, x2, y2)))
        return made
    channels = 4 + labels + (1 if how.objectness else 0)
    n = len(numbers) // channels
    for i in range(n):
        if how.layout == "channels-first":
            one = [numbers[channel * n + i] for channel in range(channels)]
        else:
            one = numbers[i * channels : (i + 1) * channels]
        cx, cy, w, h = one[:4]
        if how.units == "normalized":
            cx, cy, w, h = cx * width, cy * height, w * width, h * height
        scores = one[channels - labels :]
        best = max(range(labels), key=lambda c: scores[c])
        score = scores[best] * (one[4] if how.objectness else 1.0)
        made.append((score, best, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)))
    return made


def distinct(found: Found, iou: float) -> Found:
    kept: Found = []
    for score, class_id, box in sorted(found, key=lambda each: -each[0]):
        if all(c != class_id or overlap(box, other) <= iou for _, c, other in kept):
            kept.append((score, class_id, box))
    return kept


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, wide) * max(0.0, high)
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / whole if whole > 0 else 0.0
