"""A camera that delivers pictures and sees nothing is noticed, within the time that is promised, and none else."""

from typing import Any

import numpy as np
import pytest

from tinysight_contract.messages import CameraState
from tinysight_edge.belt import Belt
from tinysight_edge.cameras.sight import Sight

FPS = 10.0
ONLINE, DARK, COVERED, FROZEN = CameraState.ONLINE, CameraState.DARK, CameraState.COVERED, CameraState.FROZEN


def watch(sight: Sight, cameras: Any, kinds: list[tuple[str, float]], **size: int) -> list[tuple[float, CameraState]]:
    """Show scenes for so many seconds each; when which state began, in seconds since the last scene began."""
    changes, state, number = [], sight.state, 0
    for kind, lasts_s in kinds:
        for step in range(int(lasts_s * FPS)):
            number += 1
            seen = sight.look(cameras.scene(kind, number, **size), number / FPS)
            if seen != state:
                changes.append((step / FPS, seen))
                state = seen
    return changes


@pytest.mark.parametrize("size", [{}, {"width": 640, "height": 360}, {"width": 64, "height": 48}])
@pytest.mark.parametrize(
    ("kind", "state", "within_s"),
    [
        ("dark", DARK, 2.5),
        ("covered", COVERED, 5.5),
        ("dazzled", COVERED, 5.5),
        ("frozen", FROZEN, 4.5),
    ],
)
def test_what_goes_wrong_is_told_in_time_and_so_is_its_end(
    cameras: Any, kind: str, state: CameraState, within_s: float, size: dict[str, int]
) -> None:
    (fell_s, fallen), (rose_s, risen) = watch(
        Sight(frozen_after_s=4.0), cameras, [("lively", 8), (kind, 8), ("lively", 4)], **size
    )
    assert (fallen, risen) == (state, ONLINE)
    assert within_s - 1.0 <= fell_s <= within_s
    assert rose_s <= 1.5


def test_a_still_scene_a_lamp_at_night_and_a_short_shadow_are_no_faults(cameras: Any) -> None:
    kinds = [("still", 20), ("lamp", 8), ("lively", 6), ("covered", 3), ("lively", 3), ("dark", 1.5), ("still", 5)]
    assert watch(Sight(frozen_after_s=4.0), cameras, kinds) == []


@pytest.mark.parametrize("seed", range(12))
def test_no_belt_is_ever_blamed(seed: int) -> None:
    sight, belt = Sight(frozen_after_s=2.0), Belt(seed)
    assert {sight.look(belt.frame(i)[0], i / 4) for i in range(120)} == {ONLINE}


def test_a_plain_view_says_nothing_by_being_plain(cameras: Any) -> None:
    assert watch(Sight(frozen_after_s=4.0), cameras, [("covered", 20), ("dazzled", 20)]) == []


def test_a_black_picture_that_repeats_is_dark_and_not_frozen() -> None:
    sight = Sight(frozen_after_s=1.0)
    states = [sight.look(np.zeros((90, 160, 3), np.uint8), i / FPS) for i in range(100)]
    assert (states[0], states[-1]) == (ONLINE, DARK)
    assert FROZEN not in states


def test_one_changed_bit_is_a_change(cameras: Any) -> None:
    sight, image = Sight(frozen_after_s=1.0), cameras.scene("frozen", 0)
    for i in range(80):
        image = image.copy()
        image[100, 100] ^= 1
        assert sight.look(image, i / 4) is ONLINE


def test_between_two_looks_nothing_is_looked_at() -> None:
    sight = Sight(frozen_after_s=1.0)
    assert sight.look(np.full((90, 160, 3), 90, np.uint8), 0.0) is ONLINE
    assert sight.look("no picture", 0.2) is ONLINE  # type: ignore[arg-type] # which would raise if it was


def test_what_is_masked_counts_for_nothing(cameras: Any) -> None:
    """A mask over half the picture has an edge, which is structure, and blackness, which is dark."""
    hidden = np.zeros((240, 320), np.bool_)
    hidden[:, :200] = True
    sight, states = Sight(frozen_after_s=60.0), list[CameraState]()
    for kind, count in (("lively", 80), ("covered", 80), ("lively", 30), ("dark", 40)):
        for i in range(count):
            image = cameras.scene(kind, i)
            image[hidden] = 0
            states.append(sight.look(image, len(states) / FPS, hidden=hidden))
    assert [states[79], states[159], states[189], states[-1]] == [ONLINE, COVERED, ONLINE, DARK]
    everything = np.ones((240, 320), np.bool_)
    sight = Sight(frozen_after_s=60.0)
    assert {sight.look(np.zeros((240, 320, 3), np.uint8), i, hidden=everything) for i in range(30)} == {ONLINE}


def test_a_lost_camera_begins_anew_and_what_it_used_to_show_is_remembered(cameras: Any) -> None:
    sight = Sight(frozen_after_s=4.0)
    watch(sight, cameras, [("lively", 8), ("covered", 8)])
    heir = sight.heir()
    assert (sight.state, heir.state) == (COVERED, ONLINE)
    watch(sight, cameras, [("lively", 8)])
    assert heir.state is ONLINE, "what its forerunner still looks at is nothing to it"
    assert [state for _, state in watch(heir, cameras, [("covered", 8)])] == [COVERED]


def test_a_change_of_size_is_a_change(cameras: Any) -> None:
    sight = Sight(frozen_after_s=2.0)
    for i in range(80):
        size = {"width": 320, "height": 240} if i // 10 % 2 else {"width": 640, "height": 480}
        assert sight.look(cameras.scene("frozen", 0, **size), i / FPS) is ONLINE
