"""The motion gate sees what moves and where, and neither noise nor light."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinysight_edge.belt import Belt
from tinysight_edge.config.types import MotionConfig
from tinysight_edge.motion import SETTLE_S, Look, MotionGate
from tinysight_edge.units import Seconds

Image = NDArray[np.uint8]
FPS = 10.0
QUIET = MotionConfig(heartbeat=Seconds(1e9))


class Room:
    """A room that is drawn: a texture, light, noise, and a box that may stand anywhere."""

    def __init__(self, seed: int = 0) -> None:
        self.rng, self.size = np.random.default_rng(seed), (320, 180)
        self.grain = self.rng.standard_normal((8, 180, 320, 3), np.float32)
        coarse = self.rng.integers(40, 160, (12, 20, 3)).astype(np.uint8)
        self.walls = cv2.resize(coarse, self.size, interpolation=cv2.INTER_CUBIC)

    def picture(
        self, *, noise: float = 4.0, light: float | NDArray[np.float32] = 1.0, box: tuple[int, int, int] | None = None
    ) -> Image:
        """``box``: left, top, side."""
        image = self.walls.astype(np.float32)
        if box is not None:
            x, y, side = box
            image[y : y + side, x : x + side] = (30, 200, 230)
        image *= light
        grain = np.roll(self.grain[self.rng.integers(8)], self.rng.integers(180), 0)  # drawn once, laid anew each time
        image += noise * grain
        return np.clip(image, 0, 255).astype(np.uint8)


def run(gate: MotionGate, pictures: list[Image], begin_s: float = 0.0) -> list[Look]:
    return [gate(picture, begin_s + number / FPS) for number, picture in enumerate(pictures)]


@pytest.mark.parametrize("noise", [0.0, 3.0, 12.0, 30.0])
def test_a_still_noisy_room_does_not_move(noise: float) -> None:
    room = Room()
    looks = run(MotionGate(QUIET), [room.picture(noise=noise) for _ in range(100)])
    assert [look.why for look in looks] == ["first"] + ["still"] * 99
    assert looks[0].moving.all()
    assert not any(look.moving.any() for look in looks[1:])


@given(st.integers(0, 302), st.integers(0, 162), st.integers(0, 1000))
@settings(max_examples=25)
def test_a_small_box_that_appears_is_motion_at_its_place_and_nowhere_else(x: int, y: int, seed: int) -> None:
    room, side = Room(seed), 18
    gate = MotionGate(QUIET)
    run(gate, [room.picture() for _ in range(5)])
    look = gate(room.picture(box=(x, y, side)), 5 / FPS)
    assert look.why == "motion"
    rows, columns = look.moving.shape
    ys, xs = np.nonzero(look.moving)
    step_x, step_y = 320 / columns, 180 / rows
    assert xs.min() * step_x >= x - 4 * step_x
    assert (xs.max() + 1) * step_x <= min(320, x + side) + 4 * step_x
    assert ys.min() * step_y >= y - 4 * step_y
    assert (ys.max() + 1) * step_y <= min(180, y + side) + 4 * step_y


def test_a_slow_object_moves_all_the_way() -> None:
    room, gate = Room(), MotionGate(QUIET)
    run(gate, [room.picture() for _ in range(5)])
    looks = run(gate, [room.picture(box=(20 + number // 10, 75, 20)) for number in range(400)], 1.0)  # a pixel a second
    assert all(look.infer for look in looks)
    where = [np.nonzero(look.moving)[1].mean() for look in looks[100::100]]
    assert where == sorted(where)


def test_after_the_motion_inference_goes_on_for_a_while_and_then_ends() -> None:
    room, gate = Room(), MotionGate(QUIET)
    run(gate, [room.picture() for _ in range(5)])
    assert gate(room.picture(box=(50, 50, 25)), 0.6).why == "motion"
    looks = run(gate, [room.picture() for _ in range(60)], 0.7)
    whys = [look.why for look in looks]
    settled = whys.index("still")
    assert SETTLE_S * FPS - 1 <= settled <= 3 * SETTLE_S * FPS
    assert set(whys[settled:]) == {"still"}
    assert all(look.moving.any() for look in looks[:settled])


def lamp(number: int) -> float:
    return 0.6 if number < 20 else 1.1


def cloud(number: int) -> float:
    return 1.0 - 0.5 * min(number, 50) / 50


def flicker(number: int) -> float:
    return 1.0 + 0.15 * float(np.sin(number))


@pytest.mark.parametrize("light", [lamp, cloud, flicker], ids=lambda each: str(each.__name__))
def test_light_that_changes_everywhere_is_no_motion(light: Callable[[int], float]) -> None:
    room = Room()
    looks = run(MotionGate(QUIET), [room.picture(light=light(number)) for number in range(120)])
    assert {look.why for look in looks[1:]} == {"still"}


@pytest.mark.parametrize("side", ["left", "top", "everywhere"])
def test_a_lamp_in_a_corner_or_one_that_blinds_is_motion_but_not_for_ever(side: str) -> None:
    room = Room()
    light = np.ones((180, 320, 1), np.float32)
    {"left": light[:, :100], "top": light[:45], "everywhere": light}[side][:] = 1.8
    pictures = [room.picture() for _ in range(5)] + [room.picture(light=light) for _ in range(250)]
    whys = [look.why for look in run(MotionGate(QUIET), pictures)]
    assert whys[5] == "motion"
    assert set(whys[-50:]) == {"still"}


def test_another_view_is_inferred_once_and_becomes_the_background() -> None:
    looks = run(MotionGate(QUIET), [Room(0).picture()] * 5 + [Room(1).picture() for _ in range(60)])
    assert looks[5].moving.all()
    assert {look.why for look in looks[5 + int(SETTLE_S * FPS) + 1 :]} == {"still"}


def test_what_has_come_to_rest_is_background_in_the_end_and_is_seen_when_it_leaves() -> None:
    room, gate = Room(), MotionGate(QUIET)
    run(gate, [room.picture() for _ in range(5)])
    looks = run(gate, [room.picture(box=(150, 100, 30)) for _ in range(400)], 1.0)
    assert looks[0].why == "motion"
    assert {look.why for look in looks[-20:]} == {"still"}
    assert gate(room.picture(), 42.0).why == "motion"


def test_the_heartbeat_infers_the_whole_picture_as_often_as_asked() -> None:
    room = Room()
    looks = run(MotionGate(MotionConfig(heartbeat=Seconds(2.0))), [room.picture() for _ in range(100)])
    beats = [number for number, look in enumerate(looks) if look.why == "heartbeat"]
    assert beats == [20, 40, 60, 80]
    assert all(looks[number].moving.all() for number in beats)


def test_less_than_the_least_area_is_no_motion() -> None:
    for min_area, why in ((0.001, "motion"), (0.05, "still")):
        room, gate = Room(), MotionGate(MotionConfig(heartbeat=Seconds(1e9), min_area=min_area))
        run(gate, [room.picture() for _ in range(5)])
        assert gate(room.picture(box=(150, 50, 20)), 0.5).why == why


def test_another_size_begins_anew_and_a_tiny_picture_is_no_trouble() -> None:
    gate = MotionGate(QUIET)
    assert gate(Room().picture(), 0.0).why == "first"
    for number, size in enumerate([(1, 1), (3, 500), (1920, 1080)]):
        shape = (size[1], size[0], 3)
        assert gate(np.zeros(shape, np.uint8), number + 1.0).why == "first"
        assert gate(np.zeros(shape, np.uint8), number + 1.5).why == "still"


def test_parcels_on_the_belt_move_and_a_stopped_belt_does_not() -> None:
    belt, gate = Belt(3), MotionGate(QUIET)
    moving = run(gate, [belt.frame(200 + number)[0] for number in range(40)])
    assert all(look.infer for look in moving)
    stopped = run(gate, [belt.frame(239)[0]] * 300, 4.0)
    assert {look.why for look in stopped[-50:]} == {"still"}
