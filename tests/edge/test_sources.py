"""Sources deliver pictures, or say in one line why not."""

import itertools
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tinysight_contract.errors import CameraError
from tinysight_edge.belt import Belt, digit_indices
from tinysight_edge.sources import Source, open_source


def drain(source: Source) -> list[tuple[int, ...]]:
    shapes = []
    while (got := source.read()) is not None:
        shapes.append(got[0].shape)
    source.close()
    return shapes


def write_video(path: Path, frames: int = 12) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), i * 10, np.uint8))
    writer.release()


def test_a_video_is_read_whole_with_its_times(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    source = open_source(str(tmp_path / "v.mp4"))
    assert (source.name, source.width, source.height, source.fps) == ("v.mp4", 64, 48, 10.0)
    assert (source.live, source.still, source.duration_s) == (False, False, 1.2)
    times = [got[1] for got in iter(source.read, None) if got is not None]
    assert times == pytest.approx([i / 10 for i in range(12)])


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name, side in (("b.png", 20), ("a.jpg", 10), ("c.txt", 0)):
        if side:
            cv2.imwrite(str(tmp_path / name), np.zeros((side, side, 3), np.uint8))
        else:
            (tmp_path / name).write_text("no image")
    source = open_source(str(tmp_path))
    assert source.still
    assert drain(source) == [(10, 10, 3), (20, 20, 3)]


def test_a_gray_image_becomes_three_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "g.png"), np.zeros((5, 6), np.uint8))
    assert drain(open_source(str(tmp_path))) == [(5, 6, 3)]


def test_the_belt_is_live_and_keeps_its_pace() -> None:
    source = open_source("synthetic:belt?fps=50&frames=10&seed=3&width=160&height=120")
    begun = time.monotonic()
    assert drain(source) == [(120, 160, 3)] * 10
    assert time.monotonic() - begun >= 9 / 50
    assert source.live


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "none.mp4",
        "rtsp://camera/stream",
        "synthetic:moon",
        "synthetic:belt?speed=1",
        "synthetic:belt?fps=fast",
        "synthetic:belt?fps=0",
        "synthetic:belt?width=1000000",
        "synthetic:belt?split=all",
        "99",
    ],
)
def test_what_cannot_be_opened_is_said_with_a_mend(spec: str) -> None:
    with pytest.raises(CameraError) as refused:
        open_source(spec)
    assert refused.value.mend.endswith(".")


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((5, 6, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"\x89PNG and then nothing")
    (tmp_path / "c.png").write_bytes(b"")
    source = open_source(str(tmp_path))
    source.read()
    for name in ("b.png", "c.png"):
        with pytest.raises(CameraError, match=name):
            source.read()


def test_a_folder_without_images_and_a_file_that_is_no_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="holds no images"):
        open_source(str(tmp_path))
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(CameraError, match=r"v\.mp4 cannot be opened"):
        open_source(str(tmp_path / "v.mp4"))


def test_the_belt_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    one, again, other = (Belt(seed).frame(70) for seed in (5, 5, 6))
    assert np.array_equal(one[0], again[0])
    assert one[1] == again[1]
    assert not np.array_equal(one[0], other[0])


def test_any_frame_of_the_belt_can_be_drawn_at_any_time() -> None:
    forwards = Belt(5)
    played = [forwards.frame(i) for i in range(60)]
    assert np.array_equal(Belt(5).frame(59)[0], played[59][0])


def test_parcels_move_to_the_right_keep_their_label_and_leave() -> None:
    belt = Belt(5)
    paths: dict[int, list[tuple[float, int]]] = {}
    for i in range(400):
        for truth in belt.frame(i)[1]:
            if truth.box_px[0] > 0:
                paths.setdefault(truth.parcel, []).append((truth.box_px[0], truth.label))
    assert len(paths) > 15
    for steps in paths.values():
        assert len({label for _, label in steps}) == 1
        assert all(b >= a for (a, _), (b, _) in itertools.pairwise(steps))


def test_true_boxes_lie_within_the_frame_and_around_something() -> None:
    for seed in range(10):
        image, shown = Belt(seed).frame(100)
        assert image.shape == (240, 320, 3)
        assert image.dtype == np.uint8
        for truth in shown:
            x1, y1, x2, y2 = truth.box_px
            assert 0 <= x1 < x2 <= 320
            assert 0 <= y1 < y2 <= 240
            assert 0 <= truth.label <= 9


def test_the_splits_share_no_digit() -> None:
    train, calibration, test = (set(digit_indices(split)) for split in ("train", "calibration", "test"))
    assert not train & calibration
    assert not train & test
    assert not calibration & test
    assert len(train | calibration | test) == 1797


def test_the_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    from tinysight_edge.belt import _digits

    images, labels = _digits()
    real = load_digits()
    assert np.array_equal(images, real.images)
    assert np.array_equal(labels, real.target)
