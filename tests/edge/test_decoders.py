"""Decoders of foreign models give what slow and obvious ones give, and nothing that cannot be true."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from msgspec.structs import replace
from numpy.typing import NDArray

from tinysight_contract import manifest as mf
from tinysight_edge.decode import DECODERS, Detections, make_decoder
from tinysight_edge.decoders.boxes import distinct, iou_matrix, strongest
from tinysight_edge.decoders.ssd import anchor_boxes

H, W, N = 48, 64, 40
SMALL = mf.Anchors(strides=[16, 32], min_scale=0.2, max_scale=0.9, aspect_ratios=[1.0, 2.0, 0.5])
MOBILENET = mf.Anchors(
    strides=[16, 32, 64, 128, 256, 512],
    min_scale=0.2,
    max_scale=0.95,
    aspect_ratios=[1.0, 2.0, 0.5, 3.0, 0.3333],
    reduce_boxes_in_lowest_layer=True,
)
KINDS: dict[str, mf.Decode] = {
    "yolov8 pixels": mf.Yolo(layout="channels-first", units="pixels"),
    "yolov8 normalized": mf.Yolo(layout="channels-first", units="normalized"),
    "yolov5": mf.Yolo(layout="channels-last", units="normalized", objectness=True),
    "yolo end-to-end": mf.Yolo(layout="end-to-end", units="normalized"),
    "yolo end-to-end in pixels": mf.Yolo(layout="end-to-end", units="pixels"),
    "ssd": mf.Ssd(),
    "ssd with background": mf.Ssd(background=True),
    "ssd-anchors sigmoid": mf.SsdAnchors(anchors=SMALL, activation="sigmoid"),
    "ssd-anchors softmax": mf.SsdAnchors(anchors=SMALL, activation="softmax", background=True),
    "ssd-anchors none": mf.SsdAnchors(anchors=SMALL, activation="none", background=True, scales=(1, 2, 3, 4)),
    "classify softmax": mf.Classify(activation="softmax", background=True),
    "classify sigmoid": mf.Classify(activation="sigmoid"),
}
SPANS = {"boxes": (-2.0, 2.0), "scores": (-4.0, 4.0), "classes": (0.0, 3.0), "count": (0.0, float(N))}


def bundle_of(how: mf.Decode, dtype: str = "float32", *, score: float = 0.4, iou: float = 0.45) -> mf.Manifest:
    outputs = []
    for role, shape in how.shapes(3, H, W).items():
        low, high = SPANS.get(role, (0.0, 1.0))
        if role == "predictions" and isinstance(how, mf.Yolo) and how.units == "pixels":
            high = 64.0
        elif role == "predictions" and isinstance(how, mf.Yolo) and how.layout == "end-to-end":
            high = 2.0
        step = (high - low) / 255
        quantized = {} if dtype == "float32" else {"scale": step, "zero_point": round(-128 - low / step)}
        sides = [side or N for side in shape]
        outputs.append(mf.Output(name=f"the {role}", role=role, shape=sides, dtype=dtype, **quantized))  # type: ignore[arg-type]  # from the table
    variant = mf.Variant(
        file="m.tflite",
        scheme="int8",
        input=mf.Tensor(name="x", shape=[1, H, W, 3], dtype="uint8", scale=1.0),
        outputs=outputs,
        runtimes=[],
        golden={output.name: "g" for output in outputs},
    )
    return mf.Manifest(
        name="m",
        version="1.0.0",
        release=1,
        task="classify" if isinstance(how, mf.Classify) else "detect",
        labels=["a", "b", "c"],
        input=mf.Input(height=H, width=W),
        decode=how,
        thresholds=mf.Thresholds(score=score, iou=iou),
        variants=[variant],
        golden=mf.Golden(file="g", count=1),
        provenance=mf.Provenance(dataset_digest=None, calibration_digest=None, seed=None, config={}, tools={}),
        files={name: mf.FileRef(sha256="0" * 64, size_bytes=0) for name in ("g", "m.tflite")},
    )


def drawn(manifest: mf.Manifest, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Random answers that look like a model's."""
    made: dict[str, NDArray[Any]] = {}
    for output in manifest.variants[0].outputs:
        low, high = SPANS.get(output.role, (0.0, 1.0))
        values = rng.uniform(low, high, output.shape)
        if output.role == "classes":
            values = np.floor(values)
        if output.role == "boxes" and isinstance(manifest.decode, mf.Ssd):
            corner, size = rng.uniform(0, 0.7, (1, N, 2)), rng.uniform(0.05, 0.5, (1, N, 2))
            values = np.concatenate((corner, corner + size), 2)
        if output.role == "predictions":
            assert isinstance(manifest.decode, mf.Yolo)
            if manifest.decode.layout == "end-to-end":
                corner, size = rng.uniform(0, 0.7, (1, N, 2)), rng.uniform(0.05, 0.5, (1, N, 2))
                score, class_id = rng.random((1, N, 1)), rng.integers(0, 3, (1, N, 1))
                values = np.concatenate((corner, corner + size, score, class_id), 2)
            first = manifest.decode.layout == "channels-first"
            boxes = values[:, :4] if first else values[..., :4]
            if manifest.decode.units == "pixels":
                boxes *= 64
        if output.dtype == "int8":
            values = np.clip(np.rint(values / output.scale) + output.zero_point, -128, 127)
        made[output.name] = values.astype(output.dtype)
    return made


def assert_same(got: Detections, want: list[Any]) -> None:
    assert len(got) == len(want)
    assert np.allclose(got.scores, np.minimum([score for score, _, _ in want], 1.0), atol=1e-5)
    left = list(range(len(want)))
    for box, score, class_id in zip(got.boxes_px, got.scores, got.class_ids, strict=True):
        fits = [
            i
            for i in left
            if class_id == want[i][1]
            and abs(score - min(1.0, want[i][0])) < 1e-4
            and np.allclose(box, want[i][2], atol=1e-2, rtol=1e-4)
        ]
        assert fits, (score, class_id, box)
        left.remove(fits[0])


QUANTIZED = [kind for kind in KINDS if not isinstance(KINDS[kind], mf.Ssd)]  # whose operator answers in floats


@pytest.mark.parametrize(
    ("kind", "dtype"), [*((kind, "float32") for kind in KINDS), *((kind, "int8") for kind in QUANTIZED)]
)
def test_every_decoder_agrees_with_the_obvious_one(kind: str, dtype: str, obvious: ModuleType) -> None:
    found = 0
    for seed in range(8):
        manifest = bundle_of(KINDS[kind], dtype)
        assert mf.contradiction(manifest) is None
        outputs = drawn(manifest, np.random.default_rng(seed))
        want = obvious.decode(manifest, manifest.variants[0], outputs)
        assert_same(make_decoder(manifest, manifest.variants[0])(outputs), want)
        found += len(want)
    assert found >= 4, "the cases are worth something"


def test_every_kind_of_the_manifest_has_a_decoder() -> None:
    assert set(DECODERS) == set(mf.Decode.__args__)


def test_the_anchors_of_ssd_mobilenet_are_1917_and_those_of_mediapipe(obvious: ModuleType) -> None:
    made = anchor_boxes(MOBILENET, 300, 300)
    assert made.shape == (1917, 4)
    assert MOBILENET.count(300, 300) == 1917
    assert np.allclose(made, obvious.anchors(MOBILENET, 300, 300), atol=1e-6)
    assert np.allclose(made[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1])


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(
            mf.Anchors(
                strides=[8, 16, 16, 16], min_scale=0.15, max_scale=0.75, aspect_ratios=[1.0], fixed_anchor_size=True
            ),
            id="layers that share their cells",
        ),
        pytest.param(
            mf.Anchors(
                strides=[16], min_scale=0.2, max_scale=0.4, aspect_ratios=[2.0], interpolated_scale_aspect_ratio=0.0
            ),
            id="one layer",
        ),
        pytest.param(replace(SMALL, feature_maps=[(5, 7), (2, 3)], offset=0.0), id="maps of a size of their own"),
    ],
)
def test_anchors_are_counted_and_placed_as_mediapipe_does(spec: mf.Anchors, obvious: ModuleType) -> None:
    made = anchor_boxes(spec, 128, 96)
    assert len(made) == spec.count(128, 96)
    assert np.allclose(made, obvious.anchors(spec, 128, 96), atol=1e-6)


NUMBERS = st.one_of(st.floats(width=32), st.sampled_from([0.0, 0.875, 1.0, 2.0, -1.0, 300.0, 2.0**127, -(2.0**127)]))


@pytest.mark.parametrize("kind", [*KINDS, "centernet"])
@given(data=st.data(), score=st.sampled_from([0.0, 0.3, 1.0]))
def test_whatever_a_model_answers_what_is_told_can_be_true(kind: str, data: st.DataObject, score: float) -> None:
    manifest = bundle_of(KINDS.get(kind, mf.CenterNet(stride=16)), score=score)
    outputs = {
        output.name: data.draw(arrays(np.float32, tuple(output.shape), elements=NUMBERS, fill=NUMBERS))
        for output in manifest.variants[0].outputs
    }
    told = make_decoder(manifest, manifest.variants[0])(outputs)  # and without a warning: those are errors here
    assert np.isfinite(told.boxes_px).all()
    assert ((told.scores >= max(0.0, score)) & (told.scores <= 1)).all()
    assert ((told.class_ids >= 0) & (told.class_ids < 3)).all()
    assert (told.boxes_px[:, 2:] > told.boxes_px[:, :2]).all()
    assert (np.diff(told.scores) <= 0).all()


@pytest.mark.parametrize("kind", ["yolov8 normalized", "yolo end-to-end", "ssd", "ssd-anchors sigmoid"])
def test_no_more_than_the_promised_number_and_the_strongest_of_all(kind: str) -> None:
    how = KINDS[kind]
    assert not isinstance(how, mf.Classify)
    manifest = bundle_of(replace(how, max_objects=3), score=0.1, iou=1.0)
    outputs = drawn(manifest, np.random.default_rng(1))
    everything = make_decoder(bundle_of(how, score=0.1, iou=1.0), manifest.variants[0])(outputs)
    told = make_decoder(manifest, manifest.variants[0])(outputs)
    assert len(told) == 3
    assert np.allclose(told.scores, everything.scores[:3])


def test_a_variants_own_thresholds_win() -> None:
    manifest = bundle_of(KINDS["yolov5"], score=0.0, iou=1.0)
    outputs = drawn(manifest, np.random.default_rng(2))
    variant = replace(manifest.variants[0], thresholds=mf.Thresholds(score=0.5, iou=0.2))
    told = make_decoder(manifest, variant)(outputs)
    assert 0 < len(told) < len(make_decoder(manifest, manifest.variants[0])(outputs))
    assert told.scores.min() >= 0.5


def test_a_count_that_is_no_number_holds_nothing_and_a_class_without_label_is_left_out() -> None:
    manifest = bundle_of(KINDS["ssd"])
    outputs = drawn(manifest, np.random.default_rng(3))
    outputs["the scores"][:] = 0.9
    for count in (np.nan, -1.0):
        outputs["the count"][:] = count
        assert len(make_decoder(manifest, manifest.variants[0])(outputs)) == 0
    outputs["the count"][:] = np.inf
    outputs["the classes"][0, 0::2], outputs["the classes"][0, 1::2] = 3.0, -1.0
    outputs["the classes"][0, 7] = 2.0
    assert make_decoder(manifest, manifest.variants[0])(outputs).class_ids.tolist() == [2]


def shaped(how: mf.Decode, **shapes: list[int]) -> str:
    """The contradiction of a bundle whose outputs have other shapes."""
    manifest = bundle_of(KINDS["ssd-anchors none"] if isinstance(how, mf.SsdAnchors) else how)
    variant = manifest.variants[0]
    outputs = [replace(output, shape=shapes.get(output.role, output.shape)) for output in variant.outputs]
    return mf.contradiction(replace(manifest, decode=how, variants=[replace(variant, outputs=outputs)])) or ""


@pytest.mark.parametrize(
    ("how", "shapes", "said"),
    [
        pytest.param(KINDS["yolov8 pixels"], {"predictions": [1, 8, 40]}, "need [1, 7, 40]", id="yolo, a class more"),
        pytest.param(KINDS["yolov8 pixels"], {"predictions": [1, 40, 7]}, "need [1, 7, 7]", id="yolo, turned"),
        pytest.param(KINDS["yolov5"], {"predictions": [1, 40, 7]}, "need [1, 40, 8]", id="yolo without objectness"),
        pytest.param(KINDS["yolov5"], {"predictions": [40, 8]}, "need [1, 'n', 8]", id="yolo without a batch"),
        pytest.param(KINDS["yolo end-to-end"], {"predictions": [1, 40, 7]}, "need [1, 40, 6]", id="yolo, end to end"),
        pytest.param(
            mf.Yolo(layout="end-to-end", units="pixels", objectness=True), {}, "no objectness", id="end to end, weighed"
        ),
        pytest.param(KINDS["ssd"], {"classes": [1, 39]}, "classes has shape [1, 39]", id="ssd, fewer classes"),
        pytest.param(KINDS["ssd"], {"count": [1, 1]}, "count has shape", id="ssd, count of another form"),
        pytest.param(KINDS["ssd-anchors none"], {"scores": [1, 64, 3]}, "need [1, 64, 4]", id="no background"),
        pytest.param(KINDS["ssd-anchors none"], {"boxes": [1, 63, 4]}, "need [1, 64, 4]", id="an anchor less"),
        pytest.param(KINDS["classify softmax"], {"scores": [1, 3]}, "need [1, 4]", id="classify, no background"),
        pytest.param(
            KINDS["yolov5"], {"predictions": [1, 1 << 20, 8]}, "at most 262144 boxes", id="more boxes than are decoded"
        ),
        pytest.param(
            mf.SsdAnchors(anchors=replace(SMALL, feature_maps=[(3, 4)]), activation="none"),
            {}, "2 strides and 1 feature maps", id="a map for one of two strides",
        ),
        pytest.param(
            mf.SsdAnchors(anchors=replace(SMALL, max_scale=0.1), activation="none"), {}, "largest scale", id="scales"
        ),
    ],
)  # fmt: skip
def test_outputs_that_do_not_fit_the_decoder_are_named(
    how: mf.Decode, shapes: Mapping[str, list[int]], said: str
) -> None:
    assert said in shaped(how, **shapes)


@given(st.integers(0, 60), st.floats(0.0, 1.0), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_suppression_keeps_what_no_stronger_one_of_its_class_covers(n: int, iou: float, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (n, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(1, 40, (n, 2))), 1).astype(np.float32)
    scores = np.sort(rng.random(n).astype(np.float32))[::-1]
    found = Detections(boxes, scores, rng.integers(0, 2, n).astype(np.int32))
    told = distinct(found, iou=iou, most=most)
    overlap = iou_matrix(told.boxes_px, told.boxes_px) - np.eye(len(told))
    assert ((overlap <= iou + 1e-5) | (told.class_ids[:, None] != told.class_ids[None])).all()
    assert len(told) == most or n == 0 or len(told) <= n
    whole = distinct(found, iou=iou, most=1000)
    assert np.array_equal(told.boxes_px, whole.boxes_px[:most])


@given(arrays(np.float32, st.integers(0, 200), elements=st.sampled_from([0.125, 0.25, 0.375, 0.5])), st.integers(1, 20))
def test_the_strongest_are_those_that_a_full_sort_gives(scores: NDArray[np.float32], most: int) -> None:
    assert strongest(scores, most).tolist() == np.argsort(-scores, kind="stable")[:most].tolist()
