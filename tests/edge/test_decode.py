"""The fast decoder gives what a slow and obvious one gives."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tinysight_contract import manifest as mf
from tinysight_contract.errors import ShapeError
from tinysight_edge.decode import Detections, iou_matrix, make_decoder
from tinysight_edge.preprocess import Fit

Sample = Callable[..., tuple[mf.Manifest, dict[str, bytes]]]
H, W, C, STRIDE = 6, 8, 3, 8


def detector(dtype: str, *, score: float = 0.3, iou: float = 0.5, max_objects: int = 100) -> mf.Manifest:
    heat = {"int8": (1 / 256, -128), "float32": (0.0, 0), "uint8": (1 / 256, 0)}[dtype]
    box = {"int8": (0.0144, 11), "float32": (0.0, 0), "uint8": (0.0144, 139)}[dtype]
    outputs = [
        mf.Output(name="h", role="heatmap", shape=[1, H, W, C], dtype=dtype, scale=heat[0], zero_point=heat[1]),  # type: ignore[arg-type]  # from the table
        mf.Output(name="b", role="box", shape=[1, H, W, 4], dtype=dtype, scale=box[0], zero_point=box[1]),  # type: ignore[arg-type]  # from the table
    ]
    variant = mf.Variant(
        file="m.tflite",
        scheme="int8",
        input=mf.Tensor(name="x", shape=[1, H * STRIDE, W * STRIDE, 3], dtype="uint8"),
        outputs=outputs,
        runtimes=[],
        golden={},
    )
    return mf.Manifest(
        name="m",
        version="1.0.0",
        release=1,
        task="detect",
        labels=["a", "b", "c"],
        input=mf.Input(height=H * STRIDE, width=W * STRIDE),
        decode=mf.CenterNet(stride=STRIDE, max_objects=max_objects),
        thresholds=mf.Thresholds(score=score, iou=iou),
        variants=[variant],
        golden=mf.Golden(file="g", count=1),
        provenance=mf.Provenance(dataset_digest="0" * 64, calibration_digest=None, seed=0, config={}, tools={}),
        files={},
    )


def raw(dtype: str, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    if dtype == "float32":
        return {"h": rng.random((1, H, W, C), np.float32), "b": rng.normal(0, 1, (1, H, W, 4)).astype(np.float32)}
    low, high = (-128, 128) if dtype == "int8" else (0, 256)
    return {name: rng.integers(low, high, (1, H, W, n)).astype(dtype) for name, n in (("h", C), ("b", 4))}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("seed", range(10))
def test_the_decoder_agrees_with_the_obvious_one(dtype: str, seed: int, obvious: ModuleType) -> None:
    manifest = detector(dtype)
    outputs = raw(dtype, np.random.default_rng(seed))
    got = make_decoder(manifest, manifest.variants[0])(outputs)
    want = obvious.decode(manifest, manifest.variants[0], outputs)
    assert len(got) == len(want) > 0
    assert sorted(got.class_ids.tolist()) == sorted(c for _, c, _ in want)
    assert np.allclose(got.scores, [score for score, _, _ in want], atol=1e-5)
    for box, c in zip(got.boxes_px, got.class_ids, strict=True):
        assert any(c == wc and np.allclose(box, wbox, rtol=1e-4, atol=1e-2) for _, wc, wbox in want)


def test_of_two_equal_neighbours_the_first_stays() -> None:
    manifest = detector("int8")
    heat = np.full((1, H, W, C), -128, np.int8)
    heat[0, 2, 3:5, 1] = 100
    found = make_decoder(manifest, manifest.variants[0])({"h": heat, "b": np.full((1, H, W, 4), 11, np.int8)})
    assert len(found) == 1
    assert found.class_ids.tolist() == [1]
    assert np.allclose(found.boxes_px, [[20, 12, 28, 20]])


def test_an_empty_picture_gives_no_detections_even_at_threshold_zero() -> None:
    manifest = detector("int8", score=0.0)
    nothing = {"h": np.full((1, H, W, C), -128, np.int8), "b": np.zeros((1, H, W, 4), np.int8)}
    assert len(make_decoder(manifest, manifest.variants[0])(nothing)) == 0


def test_no_more_than_the_promised_number_and_a_huge_box_does_not_overflow() -> None:
    manifest = detector("float32", score=0.0, iou=1.0, max_objects=3)
    outputs = raw("float32", np.random.default_rng(0))
    outputs["b"][..., 2:] = 1e30
    with np.errstate(all="raise"):
        found = make_decoder(manifest, manifest.variants[0])(outputs)
    assert len(found) == 3
    assert np.isfinite(found.boxes_px).all()


def classifier(activation: str, dtype: str = "float32") -> mf.Manifest:
    manifest = detector("float32", score=0.4)
    output = mf.Output(name="s", role="scores", shape=[1, 3], dtype=dtype, scale=1 / 256, zero_point=-128)  # type: ignore[arg-type]  # from the table
    from msgspec.structs import replace

    how = mf.Classify(activation=activation)  # type: ignore[arg-type]  # from the table
    return replace(manifest, task="classify", decode=how, variants=[replace(manifest.variants[0], outputs=[output])])


@pytest.mark.parametrize(
    ("activation", "scores", "want"),
    [
        pytest.param("none", [0.1, 0.7, 0.2], (1, 0.7), id="probabilities"),
        pytest.param("softmax", [0.0, 2.0, 0.0], (1, math.exp(2) / (math.exp(2) + 2)), id="logits"),
        pytest.param("none", [0.35, 0.35, 0.3], None, id="nothing passes the threshold"),
    ],
)
def test_a_classifier_says_its_strongest_class_of_the_whole_picture(
    activation: str, scores: list[float], want: tuple[int, float] | None
) -> None:
    manifest = classifier(activation)
    found = make_decoder(manifest, manifest.variants[0])({"s": np.array([scores], np.float32)})
    if want is None:
        assert len(found) == 0
        return
    assert found.class_ids.tolist() == [want[0]]
    assert found.scores[0] == pytest.approx(want[1])
    assert found.boxes_px.tolist() == [[0, 0, W * STRIDE, H * STRIDE]]


def test_a_quantized_classifier_is_dequantized() -> None:
    manifest = classifier("none", "int8")
    found = make_decoder(manifest, manifest.variants[0])({"s": np.array([[-128, 0, 64]], np.int8)})
    assert found.scores.tolist() == [0.75]


def test_detections_are_cut_at_the_frames_edge() -> None:
    fit = Fit.of(320, 240, mf.Input(height=48, width=64))
    found = Detections(np.array([[-9, -9, 99, 99]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    assert found.in_frame(fit).boxes_px.tolist() == [[0, 0, 320, 240]]


@pytest.mark.parametrize(
    "shapes", [((2, 5), (2,), (2,)), ((2, 4), (1,), (2,)), ((2, 4), (2,), (2, 1))], ids=["boxes", "scores", "classes"]
)
def test_detections_check_their_shapes_at_birth(shapes: tuple[tuple[int, ...], ...]) -> None:
    boxes, scores, classes = (np.zeros(shape, np.float32) for shape in shapes)
    with pytest.raises(ShapeError):
        Detections(boxes, scores, classes.astype(np.int32))


def test_overlap_is_what_it_is_by_hand() -> None:
    a = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    assert np.allclose(iou_matrix(a, b), np.array([[1, 1 / 3, 0], [0, 0, 0]]))
    assert iou_matrix(a[:0], b).shape == (0, 3)
