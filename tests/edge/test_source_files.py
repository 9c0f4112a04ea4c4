"""Videos and folders of images deliver all they hold, or say in one line why not."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tinysight_contract.errors import CameraError
from tinysight_edge.cameras.buffers import Buffers
from tinysight_edge.sources.images import FolderSource


def write_video(path: Path, frames: int = 12) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), i % 25 * 10, np.uint8))
    writer.release()


def test_a_video_is_read_whole_with_its_times(opened: Any, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    source = opened(str(tmp_path / "v.mp4"))
    assert (source.name, source.width, source.height, source.fps) == ("v.mp4", 64, 48, 10.0)
    assert source.duration_s == 1.2
    times = [got[1] for got in iter(source.read, None) if got is not None]
    assert times == pytest.approx([i / 10 for i in range(12)])


def test_a_video_in_real_time_takes_as_long_as_it_is(opened: Any, drain: Any, tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    begun = time.monotonic()
    assert len(drain(opened(str(tmp_path / "v.mp4"), realtime=True))) == 12
    assert time.monotonic() - begun >= 1.1


def test_a_video_that_was_cut_off_is_an_error_and_not_an_end(opened: Any, drain: Any, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for i in range(40):
        writer.write(np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    raw = (tmp_path / "v.avi").read_bytes()
    (tmp_path / "v.avi").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CameraError, match=r"v\.avi ends after \d+ of 40 frames"):
        drain(opened(str(tmp_path / "v.avi")))


def test_a_video_that_changes_its_resolution_is_read_whole_in_its_first_size(opened: Any, tmp_path: Path) -> None:
    raw = b""
    for name, size in (("a.ts", (64, 48)), ("b.ts", (128, 96))):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter.fourcc(*"mpg2"), 25.0, size)
        for _ in range(20):
            writer.write(np.full((size[1], size[0], 3), size[0], np.uint8))
        writer.release()
        raw += (tmp_path / name).read_bytes()
    (tmp_path / "both.ts").write_bytes(raw)
    source = opened(str(tmp_path / "both.ts"))
    levels = [round(got[0].mean(), -1) for got in iter(source.read, None) if got is not None]
    source.close()
    assert len(levels) >= 39, "the decoder holds one back where the sequence changes"
    assert (levels[0], levels[-1]) == (60.0, 130.0)
    assert (source.width, source.height) == (64, 48)


def test_pictures_that_somebody_holds_are_left_alone_and_the_memory_of_others_is_used_again(
    opened: Any, tmp_path: Path
) -> None:
    write_video(tmp_path / "v.mp4", frames=40)
    source = opened(str(tmp_path / "v.mp4"))
    kept, seen = [], set()
    for number, (image, _) in enumerate(got for got in iter(source.read, None) if got is not None):
        seen.add(image.ctypes.data)
        if number % 10 == 5:
            kept.append((image[10:20, 10:20], image[10:20, 10:20].copy()))
        del image
    assert len(kept) == 4
    assert all(np.array_equal(view, copy) for view, copy in kept), "a view holds the whole picture"
    assert len(seen) <= 6, "a free one each time, and never more than the pool's most here"


def test_a_pool_gives_nothing_that_anybody_refers_to_in_whatever_way() -> None:
    buffers = Buffers(most=2)
    first = buffers.take((4, 4, 3))
    at = first.ctypes.data
    ways: list[Callable[[Any], Any]] = [
        lambda a: a, lambda a: a[1:], lambda a: a.reshape(-1)[3:], memoryview, lambda a: {"deep": [a]}, np.asarray,
    ]  # fmt: skip
    for way in ways:
        held = way(first)
        del first
        assert buffers.take((4, 4, 3)).ctypes.data != at
        del held
        first = buffers.take((4, 4, 3))
        assert first.ctypes.data == at
    others = [buffers.take((4, 4, 3)) for _ in range(5)]
    assert len({each.ctypes.data for each in [first, *others]}) == 6, "beyond its most they are new"
    assert buffers.take((2, 2, 3)).shape == (2, 2, 3)


def test_a_folder_is_read_in_the_order_of_its_names(opened: Any, drain: Any, tmp_path: Path) -> None:
    for name, side in (("b.png", 20), ("a.jpg", 10), ("c.txt", 0)):
        if side:
            cv2.imwrite(str(tmp_path / name), np.zeros((side, side, 3), np.uint8))
        else:
            (tmp_path / name).write_text("no image")
    assert drain(opened(str(tmp_path))) == [(10, 10, 3), (20, 20, 3)]


def test_a_gray_image_becomes_three_channels(opened: Any, drain: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "g.png"), np.zeros((5, 6), np.uint8))
    assert drain(opened(str(tmp_path))) == [(5, 6, 3)]


def test_a_broken_image_is_named(opened: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((5, 6, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"\x89PNG and then nothing")
    (tmp_path / "c.png").write_bytes(b"")
    source = opened(str(tmp_path))
    source.read()
    for name in ("b.png", "c.png"):
        with pytest.raises(CameraError, match=name):
            source.read()


def test_a_folder_that_cannot_be_listed_is_a_camera_error(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="cannot be read: No such file"):  # as when it goes between two looks
        FolderSource(tmp_path / "gone")


def test_a_folder_without_images_and_a_file_that_is_no_video_are_refused(opened: Any, tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="holds no images"):
        opened(str(tmp_path))
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(CameraError, match=r"v\.mp4 cannot be opened"):
        opened(str(tmp_path / "v.mp4"))
