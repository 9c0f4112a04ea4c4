"""Hard examples: what counts as hard, how a budget is shared, and what lies in the folder."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.files import replace_file
from tinysight_contract.messages import FrameSize
from tinysight_edge.config.types import ExamplesConfig
from tinysight_edge.decode import Detections
from tinysight_edge.pictures.doubts import Doubts, Reason, Sampler
from tinysight_edge.pictures.examples import Example
from tinysight_edge.pictures.jpeg import read_comment
from tinysight_edge.pictures.pictures import About, Pictures
from tinysight_edge.tracking.tracks import Tracks
from tinysight_edge.units import Size

SIZE = FrameSize(width=320, height=240)
BEGAN = datetime(2026, 11, 25, 10, tzinfo=UTC)
Box = tuple[float, float, float, float]
INNER: Box = (100, 100, 150, 150)
OTHER: Box = (200, 100, 250, 150)
AT_EDGE: Box = (1, 100, 50, 150)


def detections(*rows: tuple[Box, float]) -> Detections:
    boxes = np.array([box for box, _ in rows], np.float32).reshape(len(rows), 4)
    return Detections(boxes, np.array([score for _, score in rows], np.float32), np.ones(len(rows), np.int32))


def tracks(seen_s: Sequence[float] = (), classes: Sequence[int] | None = None) -> Tracks:
    """Tracks 0, 1 and so on, last seen at the given times."""
    n = len(seen_s)
    matters: dict[str, Any] = {
        "numbers": np.arange(n, dtype=np.int64),
        "class_ids": np.array(classes if classes is not None else [1] * n, np.int32),
        "seen_s": np.array(seen_s, np.float64),
    }
    rest = np.ones((n, 4), np.float32)  # nobody asks for it
    return Tracks(**{each.name: matters.get(each.name, rest) for each in fields(Tracks)})


Step = tuple[Detections, Sequence[float], Sequence[int] | None]


def reasons(*steps: Step, fps: float = 10.0) -> list[tuple[list[Reason], bool]]:
    doubts = Doubts(0.5)
    return [
        doubts.of(found, tracks([each / fps for each in seen], classes), at / fps, SIZE)
        for at, (found, seen, classes) in enumerate(steps)
    ]


SURE = (INNER, 0.9)


@pytest.mark.parametrize(
    ("steps", "last"),
    [
        pytest.param([(detections(SURE), [0], None)] * 1, ([], False), id="a sure one is not hard"),
        pytest.param([(detections((INNER, 0.52)), [0], None)], (["margin"], False), id="just above the threshold"),
        pytest.param([(detections((INNER, 0.45)), [], None)], (["margin"], False), id="just below it"),
        pytest.param([(detections((INNER, 0.2)), [], None)], ([], False), id="far below it"),
        pytest.param([(detections(SURE), [0], None), (detections(SURE), [1], None)], ([], False), id="twice the same"),
        pytest.param(
            [(detections(SURE), [0], None), (detections(SURE, (OTHER, 0.9)), [1], None)],
            (["count"], False),
            id="appeared in the middle",
        ),
        pytest.param(
            [(detections(SURE, (OTHER, 0.9)), [0], None), (detections(SURE), [1], None)],
            (["count"], False),
            id="vanished in the middle",
        ),
        pytest.param(
            [(detections(SURE), [0], None), (detections(SURE, (AT_EDGE, 0.9)), [1], None)],
            ([], False),
            id="came in at the edge",
        ),
        pytest.param(
            [(detections(SURE, (AT_EDGE, 0.9)), [0], None), (detections(SURE), [1], None)],
            ([], False),
            id="went out at the edge",
        ),
        pytest.param(
            [(detections(SURE), [0], [0]), (detections(SURE), [1], [1])], (["label"], False), id="called otherwise"
        ),
        pytest.param(
            [(detections(SURE), [0], [0]), (detections(SURE), [1, 1], [1, 1])],
            (["label"], False),
            id="called otherwise while another came",
        ),
        pytest.param(
            [(detections(SURE), [0, 0], None), (detections(SURE), [1, 0], None), (detections(SURE), [2, 2], None)],
            ([], True),
            id="seen, missed, seen",
        ),
        pytest.param(
            [(detections(SURE), [0, 0], None), (detections(SURE), [1, 0], None), (detections(SURE), [2, 0], None)],
            ([], False),
            id="seen, missed, missed",
        ),
    ],
)
def test_what_is_hard(steps: list[Step], last: tuple[list[Reason], bool]) -> None:
    assert reasons(*steps)[-1] == last


def test_frames_far_apart_say_nothing_of_each_other() -> None:
    steps: list[Step] = [(detections(SURE), [0], [0]), (detections(SURE, (OTHER, 0.9)), [1], [1])]
    assert reasons(*steps, fps=0.5)[-1] == ([], False)
    doubts = Doubts(0.5)
    doubts.of(detections(SURE), tracks([0.0], [0]), 0.0, SIZE)
    doubts.forget()
    assert doubts.of(detections(), tracks([0.1], [1]), 0.1, SIZE) == ([], False)


ALL: list[Reason] = ["margin", "flicker", "count", "label"]
Wishes = st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.sampled_from(ALL), min_size=1, unique=True)), min_size=1)


@given(per_hour=st.integers(1, 600), wishes=Wishes, step_s=st.floats(0.1, 100))
def test_the_budget_is_never_exceeded(per_hour: int, wishes: Any, step_s: float) -> None:
    sampler, taken = Sampler(per_hour), []
    for number, (camera, given_) in enumerate(wishes * 5):
        now_s = number * step_s
        if (reason := sampler.choose(camera, given_, now_s)) is not None:
            sampler.took(camera, reason, now_s)
            taken.append(now_s)
    for begun_s in taken:
        assert sum(begun_s <= at_s < begun_s + 3600 - 1e-3 for at_s in taken) <= per_hour


def test_a_frequent_reason_leaves_room_for_rare_ones_and_for_other_cameras() -> None:
    sampler, taken = Sampler(60), Counter[tuple[str, Reason]]()
    for second in range(6 * 3600):
        for camera in ("a", "b", "c"):
            given_: list[Reason] = ["margin"] if camera != "c" else []
            if second % 60 < 30 and camera == "c":
                given_.append("label")
            if given_ and (reason := sampler.choose(camera, given_, float(second))) is not None:
                sampler.took(camera, reason, float(second))
                taken[camera, reason] += 1
    assert sum(taken.values()) >= 0.8 * 360
    assert min(taken.values()) >= 0.5 * max(taken.values()), taken


@pytest.fixture
def make(tmp_path: Path, about: About) -> Iterator[Callable[..., Pictures]]:
    made: list[Pictures] = []

    def begin(whose: About = about, **config: Any) -> Pictures:
        made.append(Pictures(tmp_path, whose, snapshots=None, examples=ExamplesConfig(**config)))
        made[-1].start()
        return made[-1]

    yield begin
    for each in made:
        each.close()


def scene(seed: int, size: tuple[int, int] = (240, 320)) -> Any:
    """A picture that looks like no other one."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR)


def index_of(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "examples/annotations.json").read_bytes())
    return held


def test_a_hard_picture_is_kept_whole_with_what_the_model_proposes(
    make: Callable[..., Pictures], tmp_path: Path, frame: Any
) -> None:
    pictures, image = make(), scene(1)
    image[:60, :80] = 0  # as a privacy polygon leaves it
    pictures.offer(frame(0.0, image), detections(SURE, (OTHER, 0.52), (AT_EDGE, 0.45)), tracks(), {})
    pictures.close()
    (path,) = tmp_path.rglob("*.jpg")
    assert path.relative_to(tmp_path).as_posix().startswith("examples/images/belt-7/gate/20261125T100000000Z-margin-")
    seen = cv2.imread(str(path))
    assert seen is not None
    assert seen[:58, :78].max() < 8
    assert np.abs(seen[64:].astype(int) - image[64:]).mean() < 3
    said = read_comment(path.read_bytes(), Example)
    assert said is not None
    assert [(each.label, each.score) for each in said.detections] == [("dog", 0.9), ("dog", 0.52)]
    held = index_of(tmp_path)
    assert [image["file_name"] for image in held["images"]] == [f"belt-7/gate/{path.name}"]
    (about,) = held["images"]
    assert (about["width"], about["height"], about["labelled"]) == (320, 240, False)
    assert (about["site"], about["device"], about["camera"], about["reason"]) == ("plant-1", "belt-7", "gate", "margin")
    assert about["model"]["digest"] == "a" * 64
    assert [each["bbox"] for each in held["annotations"]] == [[100, 100, 50, 50], [200, 100, 50, 50]]
    assert [each["name"] for each in held["categories"]] == ["dog"]
    assert pictures.counts == {"examples": 1}


def test_the_frame_in_which_an_object_was_missed_is_the_one_that_is_kept(
    make: Callable[..., Pictures], tmp_path: Path, frame: Any
) -> None:
    pictures = make()
    busy = (AT_EDGE, 0.9)  # something is always at the edge, so a change of the count says nothing
    both, one = detections(SURE, (OTHER, 0.9), busy), detections(SURE, busy)
    for at, (found, seen) in enumerate([(both, [0, 0]), (one, [1, 0]), (both, [2, 2]), (one, [3, 2])]):
        alive = tracks([each / 10 for each in seen])
        pictures.offer(frame(at / 10, np.full((240, 320, 3), 60 * at, np.uint8)), found, alive, {})
    pictures.close()
    (path,) = tmp_path.rglob("*.jpg")
    said = read_comment(path.read_bytes(), Example)
    assert said is not None
    assert said.reason == "flicker"
    assert said.captured_at == BEGAN + timedelta(seconds=0.1)
    assert len(said.detections) == 2
    kept = cv2.imread(str(path))
    assert kept is not None
    assert abs(float(kept.mean()) - 60) < 3


def test_another_camera_between_two_frames_changes_nothing(
    make: Callable[..., Pictures], tmp_path: Path, frame: Any
) -> None:
    pictures, calm, busy = make(), detections(SURE), (AT_EDGE, 0.9)
    both, one = detections(SURE, (OTHER, 0.9), busy), detections(SURE, busy)
    for at, (found, seen) in enumerate([(both, [0, 0]), (one, [1, 0]), (both, [2, 2])]):
        pictures.offer(frame(at / 10, scene(at)), found, tracks([each / 10 for each in seen]), {})
        pictures.offer(frame(at / 10, scene(9), "yard"), calm, tracks([at / 10]), {})
    pictures.close()
    assert [path.parent.name for path in tmp_path.rglob("*.jpg")] == ["gate"]


def test_near_duplicates_are_passed_over_and_a_small_object_makes_the_difference(
    make: Callable[..., Pictures], tmp_path: Path, frame: Any
) -> None:
    pictures, image = make(per_hour=3600), scene(1)
    hard, rng = detections((INNER, 0.52)), np.random.default_rng(2)
    noisy = np.clip(image.astype(np.int16) + rng.integers(-8, 9, image.shape), 0, 255).astype(np.uint8)
    changed = image.copy()
    changed[100:130, 200:230] = 255 - changed[100:130, 200:230] // 2
    for at, each in enumerate([image, noisy, changed]):
        pictures.offer(frame(float(at), each), hard, tracks(), {})
    pictures.offer(frame(0.0, image, "yard"), hard, tracks(), {})  # within the same second: no budget
    pictures.offer(frame(3.0, image, "yard"), hard, tracks(), {})
    pictures.close()
    assert pictures.counts == {"examples": 3, "alike": 1}
    assert sorted(path.parent.name for path in tmp_path.rglob("*.jpg")) == ["gate", "gate", "yard"]


def test_a_picture_of_very_many_objects_keeps_the_strongest(
    make: Callable[..., Pictures], tmp_path: Path, frame: Any
) -> None:
    pictures = make()
    rows = [((100.0, 100.0, 150.0 + n / 10, 150.0), 0.9 - n / 2000) for n in range(700)] + [(OTHER, 0.52)]
    pictures.offer(frame(0.0, scene(1)), detections(*rows), tracks(), {})
    pictures.close()
    held = index_of(tmp_path)
    assert [each["score"] for each in held["annotations"]][:2] == [0.9, 0.8995]
    assert len(held["annotations"]) == 200


def test_a_classifier_proposes_a_label_and_no_box(
    make: Callable[..., Pictures], tmp_path: Path, frame: Any, about: About
) -> None:
    pictures, whole = make(replace(about, task="classify")), (0.0, 0.0, 320.0, 240.0)
    pictures.offer(frame(0.0, scene(1)), detections((whole, 0.48), (whole, 0.4)), tracks(), {})
    pictures.close()
    assert index_of(tmp_path)["annotations"] == [{"id": 1, "image_id": 1, "category_id": 1, "score": 0.48}]


def test_the_folder_is_bounded_and_its_index_names_what_is_there_after_a_kill(
    make: Callable[..., Pictures], tmp_path: Path, frame: Any
) -> None:
    hard, rng = detections((INNER, 0.52)), np.random.default_rng(2)
    for boot in range(2):
        pictures = make(per_hour=3600, keep=Size(1_000_000))
        for number in range(9):
            at_s = boot * 20.0 + number * 1.1
            noise = rng.integers(0, 255, (240, 320, 3), np.uint8)
            pictures.offer(frame(at_s, noise), hard, tracks(), {})
            while pictures._held_bytes:
                time.sleep(0.001)
        assert pictures.counts == {"examples": 9}
        if boot == 0:
            (tmp_path / "examples/annotations.json").unlink()  # as after a kill before it was written
    pictures.close()
    names = {path.relative_to(tmp_path / "examples/images").as_posix() for path in tmp_path.rglob("*.jpg")}
    assert {image["file_name"] for image in index_of(tmp_path)["images"]} == names
    assert 4 <= len(names) < 18
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 1_000_000


def test_the_folder_is_bounded_although_pictures_are_small_and_the_model_proposes_much(
    make: Callable[..., Pictures], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: Any
) -> None:
    keep, most = 2**20, 0

    def replaced(path: Path, data: bytes) -> None:
        nonlocal most
        if path.parent.exists():
            most = max(most, len(data) + sum(each.stat().st_size for each in tmp_path.rglob("*") if each.is_file()))
        replace_file(path, data)

    monkeypatch.setattr("tinysight_edge.pictures.examples.replace_file", replaced)
    monkeypatch.setattr("tinysight_edge.pictures.ring.replace_file", replaced)
    pictures = make(per_hour=3600, keep=Size(keep))
    rows = [((100.0, 100.0, 150.0 + n / 10, 150.0), 0.9 - n / 2000) for n in range(199)] + [(OTHER, 0.52)]
    for number in range(60):
        pictures.offer(frame(number * 1.1, scene(number)), detections(*rows), tracks(), {})
        while pictures._held_bytes:
            time.sleep(0.001)
    pictures.close()
    assert pictures.counts == {"examples": 60}, pictures.trouble
    assert 0 < most <= keep
    names = {path.relative_to(tmp_path / "examples/images").as_posix() for path in tmp_path.rglob("*.jpg")}
    assert {image["file_name"] for image in index_of(tmp_path)["images"]} == names
    assert names


def test_an_alike_picture_says_nothing_of_the_disk(
    make: Callable[..., Pictures],
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[[Callable[[], object]], None],
    frame: Any,
) -> None:
    pictures, hard = make(per_hour=3600), detections((INNER, 0.52))
    pictures.offer(frame(0.0, scene(1)), hard, tracks(), {})
    eventually(lambda: pictures.counts["examples"] == 1)
    with monkeypatch.context() as fault:
        fault.setattr("tinysight_edge.pictures.ring.replace_file", full)
        pictures.offer(frame(2.0, scene(2)), hard, tracks(), {})
        eventually(lambda: pictures.counts["failed"] == 1)
        pictures.offer(frame(4.0, scene(1)), hard, tracks(), {})
        eventually(lambda: pictures.counts["alike"] == 1)
        assert pictures.trouble is not None


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_damaged_or_foreign_picture_counts_for_the_bound_and_is_not_in_the_index(
    make: Callable[..., Pictures], tmp_path: Path, frame: Any
) -> None:
    folder = tmp_path / "examples/images/belt-7/gate"
    folder.mkdir(parents=True)
    (folder / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (folder / "notes.txt").write_bytes(b"mine")
    pictures = make()
    pictures.offer(frame(0.0, scene(1)), detections((INNER, 0.52)), tracks(), {})
    pictures.close()
    assert pictures.trouble is None
    assert len(index_of(tmp_path)["images"]) == 1
