"""What the trainer draws is what the device decodes: the two are inverses."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract import manifest as mf
from tinysight_edge.decode import Decoder, make_decoder
from tinysight_trainer.targets import Grid, encode, stack

GRID = Grid(height=12, width=16, labels=3, stride=8)


def decoder() -> Decoder:
    variant = mf.Variant(
        file="m",
        scheme="float32",
        input=mf.Tensor(name="x", shape=[1, 96, 128, 3], dtype="float32"),
        outputs=[
            mf.Output(name="heatmap", role="heatmap", shape=[1, 12, 16, 3], dtype="float32"),
            mf.Output(name="box", role="box", shape=[1, 12, 16, 4], dtype="float32"),
        ],
        runtimes=[],
        golden={},
    )
    manifest = mf.Manifest(
        name="m",
        version="1.0.0",
        release=0,
        task="detect",
        labels=["a", "b", "c"],
        input=mf.Input(height=96, width=128),
        decode=mf.CenterNet(stride=8),
        thresholds=mf.Thresholds(score=0.99),
        variants=[variant],
        golden=mf.Golden(file="g", count=1),
        provenance=mf.Provenance(dataset_digest="", calibration_digest=None, seed=0, config={}, tools={}),
        files={},
    )
    return make_decoder(manifest, variant)


boxes = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(10, 30), st.floats(10, 22), st.integers(0, 2)),
    min_size=1,
    max_size=5,
    unique_by=lambda each: each[:2],
)


@given(boxes)
def test_boxes_drawn_and_decoded_are_the_same_boxes(placed: list[tuple[int, int, float, float, int]]) -> None:
    """Objects at least three cells apart, so that no two share a centre."""
    corners = np.array(
        [(x * 32 + 1, y * 24 + 1, x * 32 + 1 + w, y * 24 + 1 + h) for x, y, w, h, _ in placed], np.float32
    )
    ids = np.array([c for *_, c in placed], np.int32)
    drawn = encode(corners, ids, np.zeros(len(ids), bool), GRID)
    found = decoder()({"heatmap": drawn.heat[None], "box": drawn.box[None]})
    assert sorted(found.class_ids.tolist()) == sorted(ids.tolist())
    for box, class_id in zip(corners, ids, strict=True):
        same = (found.class_ids == class_id) & (np.abs(found.boxes_px - box).max(1) < 1e-2)
        assert same.sum() == 1


def test_every_object_counts_the_same_however_large() -> None:
    corners = np.array([(0, 0, 12, 12), (40, 20, 120, 90)], np.float32)
    drawn = encode(corners, np.array([0, 1], np.int32), np.zeros(2, bool), GRID)
    assert np.isclose(drawn.box_weight.sum(), 2.0)
    assert (drawn.heat == 1).sum() == 2


def test_a_crowd_is_neither_right_nor_wrong() -> None:
    corners = np.array([(0, 0, 32, 32)], np.float32)
    drawn = encode(corners, np.zeros(1, np.int32), np.ones(1, bool), GRID)
    assert drawn.heat.max() == 0
    assert (drawn.heat_weight[:4, :4] == 0).all()
    assert drawn.heat_weight.sum() == 12 * 16 - 16
    assert drawn.box_weight.sum() == 0


def test_a_centre_under_a_crowd_still_counts() -> None:
    corners = np.array([(0, 0, 32, 32), (4, 4, 28, 28)], np.float32)
    drawn = encode(corners, np.zeros(2, np.int32), np.array([True, False]), GRID)
    assert drawn.heat_weight[2, 2, 0] == 1


def test_what_lies_outside_is_left_out() -> None:
    corners = np.array([(-60, 0, -20, 30), (500, 0, 530, 30), (5, 5, 5, 9)], np.float32)
    drawn = encode(corners, np.zeros(3, np.int32), np.zeros(3, bool), GRID)
    assert drawn.heat.max() == 0


def test_stacking_adds_a_leading_axis() -> None:
    one = encode(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool), GRID)
    assert stack([one, one]).heat.shape == (2, 12, 16, 3)
