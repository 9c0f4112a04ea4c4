"""The best picture of each event: which frame it is, what the files say, and what a slow or full disk does to it."""

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tinysight_contract.messages import FrameSize
from tinysight_edge.config.types import SnapshotsConfig
from tinysight_edge.decode import Detections
from tinysight_edge.frames import detection_of
from tinysight_edge.pictures import pictures as module
from tinysight_edge.pictures.jpeg import read_comment, with_comment
from tinysight_edge.pictures.pictures import HELD_BYTES, About, Pictures
from tinysight_edge.pictures.snapshots import Best, Snapshot, draw, quality
from tinysight_edge.tracking.tracks import Tracks
from tinysight_edge.units import Size

SIZE = FrameSize(width=320, height=240)
BEGAN = datetime(2026, 11, 25, 10, tzinfo=UTC)
NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
Box = tuple[float, float, float, float]


def tracks(rows: Sequence[tuple[int, Box, float]], at_s: float) -> Tracks:
    n = len(rows)
    scores = np.array([score for _, _, score in rows], np.float32)
    boxes = np.array([box for _, box, _ in rows], np.float32).reshape(n, 4)
    matters: dict[str, Any] = {
        "numbers": np.array([number for number, _, _ in rows], np.int64),
        "scores": scores,
        "class_ids": np.ones(n, np.int32),
        "seen_s": np.full(n, at_s),
    }
    return Tracks(**{each.name: matters.get(each.name, boxes) for each in fields(Tracks)})  # nobody asks for the rest


@pytest.fixture
def make(tmp_path: Path, about: About) -> Iterator[Callable[..., Pictures]]:
    made: list[Pictures] = []

    def begin(**config: Any) -> Pictures:
        made.append(Pictures(tmp_path, about, snapshots=SnapshotsConfig(**config), examples=None))
        return made[-1]

    yield begin
    for each in made:
        if each._thread.is_alive():
            each.close()


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        pytest.param((1, (100, 100, 160, 160), 0.9), (1, (100, 100, 160, 160), 0.6), id="surer"),
        pytest.param((1, (100, 100, 180, 180), 0.7), (1, (100, 100, 140, 140), 0.7), id="larger"),
        pytest.param((1, (100, 100, 160, 160), 0.7), (1, (0, 100, 80, 160), 0.7), id="not cut off, though smaller"),
        pytest.param((1, (60, 60, 260, 200), 0.7), (1, (150, 150, 160, 160), 0.9), id="large beats a sure speck"),
    ],
)
def test_what_makes_a_good_picture(better: Any, worse: Any) -> None:
    good, bad = quality(tracks([better, worse], 0.0), 320, 240)
    assert good > bad


def rows_taken(best: Best, sizes: Sequence[float], *, fps: float = 10.0) -> list[int]:
    """Show one object whose side follows ``sizes``; the frames of which pictures are taken."""
    taken = []
    for number, side in enumerate(sizes):
        at_s = number / fps
        alive = tracks([(7, (100, 100, 100 + side, 100 + side), 0.8)], at_s)
        rows = best.better(alive, {7: "e"}, at_s, SIZE)
        best.took(rows, at_s)
        taken += [number] * len(rows)
    return taken


def test_the_first_picture_comes_with_the_event_and_an_equal_one_never_replaces_it() -> None:
    assert rows_taken(Best(), [50] * 100) == [0]


def test_an_object_that_comes_closer_is_taken_again_with_growing_pauses() -> None:
    taken = rows_taken(Best(), [10 * 1.05**number for number in range(60)])
    assert taken[0] == 0
    assert taken[-1] >= 25, "the last one is of a large object"
    pauses = np.diff(taken)
    assert (pauses[1:] >= pauses[:-1]).all()
    assert len(taken) <= 7


def test_an_object_that_is_not_seen_in_this_frame_has_no_picture_in_it() -> None:
    alive = tracks([(1, (100, 100, 150, 150), 0.9)], 1.0)
    assert list(Best().better(alive, {1: "e"}, 1.5, SIZE)) == []


def test_objects_without_an_event_have_no_picture_and_others_keep_their_own() -> None:
    best, box = Best(), (100.0, 100.0, 150.0, 150.0)
    rows = best.better(tracks([(1, box, 0.9), (2, box, 0.9)], 0.0), {2: "b"}, 0.0, SIZE)
    assert list(rows) == [1]
    best.took(rows, 0.0)
    # The first gets its event, another comes, the second stays as good as it was.
    three = tracks([(1, box, 0.9), (2, box, 0.9), (3, box, 0.9)], 5.0)
    rows = best.better(three, {1: "a", 2: "b", 3: "c"}, 5.0, SIZE)
    assert list(rows) == [0, 2]
    best.took(rows, 5.0)
    # A new event of an object that is followed already has no picture yet.
    four = tracks([(1, box, 0.9), (2, box, 0.9)], 9.0)
    assert list(best.better(four, {1: "a", 2: "b-again"}, 9.0, SIZE)) == [1]


def test_one_that_found_no_room_is_offered_again() -> None:
    best, alive = Best(), tracks([(1, (100, 100, 150, 150), 0.9)], 0.0)
    assert list(best.better(alive, {1: "e"}, 0.0, SIZE)) == [0]
    assert list(best.better(alive, {1: "e"}, 0.0, SIZE)) == [0], "nobody said that it was taken"


def test_each_event_has_its_picture_drawn_and_clean_and_both_say_what_they_show(
    make: Callable[..., Pictures], tmp_path: Path, frame: Any
) -> None:
    image = np.full((240, 320, 3), 90, np.uint8)
    image[:60, :80] = 0  # as a privacy polygon leaves it
    pictures = make()
    pictures.start()
    pictures.offer(frame(2.0, image), NOTHING, tracks([(1, (100, 60, 180, 160), 0.75)], 2.0), {1: "18f3-9c2a"})
    image[:] = 255  # the source may use its buffer again at once
    pictures.close()
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    assert files == ["snapshots/gate/18f3-9c2a.clean.jpg", "snapshots/gate/18f3-9c2a.jpg"]
    drawn, clean = (cv2.imread(str(tmp_path / name)) for name in reversed(files))
    assert clean is not None
    assert drawn is not None
    assert abs(int(clean[120, 240].max()) - 90) < 4
    assert clean[:58, :78].max() < 8, "what was black is black"
    assert drawn[60, 120, 1] > 150, "a green box"
    for name in files:
        said = read_comment((tmp_path / name).read_bytes(), Snapshot)
        assert said is not None
        assert (said.site, said.device, said.camera, said.event) == ("plant-1", "belt-7", "gate", "18f3-9c2a")
        assert said.captured_at == BEGAN + timedelta(seconds=2)
        assert said.model.digest == "a" * 64
        assert (said.detection.label, said.detection.score) == ("dog", 0.75)
        assert said.detection.box == (0.3125, 0.25, 0.5625, 0.66667)
        with Image.open(tmp_path / name) as other:
            other.load()
            assert b'"event":"18f3-9c2a"' in other.info["comment"], "others read it too"
    assert pictures.counts == {"snapshots": 1}


def test_a_better_picture_replaces_the_first(make: Callable[..., Pictures], tmp_path: Path, frame: Any) -> None:
    pictures = make()
    pictures.start()
    for at_s, side in ((0.0, 40), (1.0, 120), (2.0, 60)):
        shade = np.full((240, 320, 3), 50 + int(at_s) * 50, np.uint8)
        pictures.offer(
            frame(at_s, shade), NOTHING, tracks([(1, (100, 100, 100 + side, 100 + side), 0.8)], at_s), {1: "e"}
        )
    pictures.close()
    clean = cv2.imread(str(tmp_path / "snapshots/gate/e.clean.jpg"))
    assert clean is not None
    assert abs(int(clean.mean()) - 100) < 3
    assert pictures.counts == {"snapshots": 2}


def test_the_ring_is_bounded_and_goes_on_after_a_restart(
    make: Callable[..., Pictures], tmp_path: Path, frame: Any
) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (240, 320, 3), np.uint8)
    for boot in range(2):
        pictures = make(keep=Size(400_000))
        pictures.start()
        for number in range(6):
            alive = tracks([(number, (100, 100, 150, 150), 0.8)], float(number))
            pictures.offer(frame(float(number), noise), NOTHING, alive, {number: f"{boot}-{number}"})
            while pictures._held_bytes:
                time.sleep(0.001)
        pictures.close()
        sizes = [path.stat().st_size for path in tmp_path.rglob("*.jpg")]
        assert 200_000 < sum(sizes) <= 400_000
    assert not list(tmp_path.rglob("0-*")), "the oldest went"
    assert (tmp_path / "snapshots/gate/1-5.jpg").exists()


def test_a_slow_disk_costs_pictures_that_are_counted_and_never_more_than_a_few_frames_of_memory(
    make: Callable[..., Pictures], frame: Any
) -> None:
    pictures, image = make(), np.zeros((720, 1280, 3), np.uint8)  # not started: the slowest of all disks
    for number in range(20):
        alive = tracks([(number, (100, 100, 150, 150), 0.8)], float(number))
        pictures.offer(frame(float(number), image), NOTHING, alive, {number: f"e{number}"})
    fit = HELD_BYTES // image.nbytes
    assert pictures._jobs.qsize() == fit
    assert pictures.counts == {"dropped": 20 - fit}
    large = make()
    large.offer(frame(0.0, np.zeros((2160, 3840, 3), np.uint8)), NOTHING, alive, {19: "e"})
    assert large._jobs.qsize() == 1, "a frame that is larger than the bound is kept alone"


def test_a_disk_that_says_no_is_told_and_never_reaches_the_loop_and_then_it_goes_on(
    make: Callable[..., Pictures], tmp_path: Path, eventually: Callable[[Callable[[], object]], None], frame: Any
) -> None:
    pictures = make()
    pictures.start()
    alive = tracks([(1, (100, 100, 150, 150), 0.8)], 0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # the kernel refuses larger files, as a full disk does
    try:
        pictures.offer(frame(0.0), NOTHING, alive, {1: "lost"})
        eventually(lambda: pictures.counts["failed"] == 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    trouble = pictures.trouble
    assert trouble is not None
    assert "File too large" in trouble.what
    assert trouble.mend.startswith("Free some space")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing half is left"
    pictures.offer(frame(1.0), NOTHING, tracks([(2, (100, 100, 150, 150), 0.8)], 1.0), {2: "kept"})
    pictures.close()
    assert pictures.trouble is None
    assert (tmp_path / "snapshots/gate/kept.jpg").exists()


def test_the_trouble_is_over_when_the_disk_is_well_although_nothing_is_to_be_written(
    make: Callable[..., Pictures], tmp_path: Path, eventually: Callable[[Callable[[], object]], None], frame: Any
) -> None:
    with pytest.MonkeyPatch.context() as sooner:
        sooner.setattr(module, "PROBE_EVERY_S", 0.05)
        pictures = make()
        pictures.start()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            alive = tracks([(1, (100, 100, 150, 150), 0.8)], 0.0)
            pictures.offer(frame(0.0), NOTHING, alive, {1: "lost"})
            eventually(lambda: pictures.trouble is not None)
            time.sleep(0.2)
            assert pictures.trouble is not None
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        eventually(lambda: pictures.trouble is None)
    pictures.close()
    assert pictures.counts == {"failed": 1}, "a probe that failed is no picture that is lost"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_state_folder_that_cannot_be_made_is_told_and_tried_again(
    make: Callable[..., Pictures], tmp_path: Path, frame: Any
) -> None:
    (tmp_path / "snapshots").write_text("in the way")
    pictures = make()
    pictures.start()
    pictures.offer(frame(0.0), NOTHING, tracks([(1, (100, 100, 150, 150), 0.8)], 0.0), {1: "e"})
    while pictures.trouble is None:
        time.sleep(0.001)
    (tmp_path / "snapshots").unlink()
    pictures.offer(frame(1.0), NOTHING, tracks([(2, (100, 100, 150, 150), 0.8)], 1.0), {2: "f"})
    pictures.close()
    assert (tmp_path / "snapshots/gate/f.jpg").exists()


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.9, 0.9, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0)])
def test_drawing_stays_within_the_picture_and_leaves_the_original_alone(box: Box, about: About) -> None:
    image = np.full((60, 40, 3), 7, np.uint8)
    what = Snapshot(
        site="s",
        device="d",
        camera="c",
        event="e",
        captured_at=BEGAN,
        frame=FrameSize(width=40, height=60),
        model=about.model,
        detection=detection_of(
            about.labels,
            np.int32(0),
            np.float32(0.5),
            np.array(box, np.float32) * (40, 60, 40, 60),
            FrameSize(width=40, height=60),
        ),
    )
    assert draw(image, what).shape == image.shape
    assert (image == 7).all()


def test_a_comment_is_found_whatever_else_stands_in_the_header_and_nonsense_is_none() -> None:
    jpeg = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    assert read_comment(jpeg, Snapshot) is None
    assert read_comment(b"", Snapshot) is None
    assert read_comment(jpeg[:7], Snapshot) is None
    assert read_comment(with_comment(jpeg, b"{not json"), Snapshot) is None
    assert cv2.imdecode(np.frombuffer(with_comment(jpeg, b"x" * 65533), np.uint8), cv2.IMREAD_COLOR) is not None
    with pytest.raises(ValueError, match="too long"):
        with_comment(jpeg, b"x" * 65534)
