"""A camera that delivers pictures, and they are no good: frozen, black, covered, of another size, corrupt."""

import time
from typing import Any

import pytest

from tinysight_contract.messages import CameraState, Event, Health

SHORT = 'read_timeout = "1s"\nopen_timeout = "2s"\nfrozen_after = "2s"\n'


@pytest.fixture
def device(world: Any, ear: Any, make_device: Any) -> Any:
    """An agent with one MJPEG camera that shows the belt."""
    mjpeg = world.server
    mjpeg.start()
    device = make_device(gate=f'source = "{mjpeg.url}"\n{SHORT}')
    ear.event()
    return device


def test_a_picture_that_is_frozen_black_or_covered_is_told_and_so_is_its_end(
    device: Any, world: Any, ear: Any, tell: Any
) -> None:
    time.sleep(max(6.0 - (time.monotonic() - ear.state(CameraState.ONLINE)), 0.0))  # it learns what a view looks like
    for fault, shows, state in (
        ("picture frozen", "frozen", CameraState.FROZEN),
        ("picture black", "dark", CameraState.DARK),
        ("lens covered", "covered", CameraState.COVERED),
    ):
        changed_s = time.monotonic()
        world.shows = shows
        found_s = ear.state(state, since_s=changed_s)
        back_s = time.monotonic()
        world.shows = "belt"
        well_s = ear.state(CameraState.ONLINE, since_s=back_s)
        ear.event(since_s=well_s)
        said = ear.told(since_s=changed_s)
        assert said.startswith(f"`gate` {state} → online")
        tell(fault, found_s=found_s - changed_s, well_s=well_s - back_s, published=said)
    ear.check_all_came()
    assert device.ends == []


def test_pictures_of_another_size_and_corrupt_ones_disturb_nothing_else(
    device: Any, world: Any, ear: Any, tell: Any
) -> None:
    changed_s = time.monotonic()
    world.scale = 2
    well_s, event = ear.event(lambda event: event.frame.width == 640, since_s=changed_s)
    assert (event.frame.height, max(event.box) <= 1.0) == (480, True)
    world.scale = 1
    ear.event(lambda event: event.frame.width == 320, since_s=well_s)
    assert ear.told(since_s=changed_s) == "", "the camera stays online"
    said = f"events with `frame` {event.frame.width} x {event.frame.height}; the camera stays online"
    tell("resolution changes", well_s=well_s - changed_s, published=said)

    mjpeg = world.server
    whole = mjpeg.encode
    changed_s = time.monotonic()
    mjpeg.encode = lambda image, number: whole(image, number) if number % 2 else whole(image, number)[:2000]
    found_s, health = ear.wait(
        Health, lambda health: health.cameras["gate"].dropped.get("damaged", 0) > 0, since_s=changed_s
    )
    ear.event(since_s=found_s)
    lost = f"`health` counts {health.cameras['gate'].dropped['damaged']} dropped as `damaged`, 1 s; events go on"
    assert ear.told(since_s=changed_s) == "", "the camera stays online"
    tell("every other JPEG is corrupt", found_s=found_s - changed_s, published=lost)

    changed_s = time.monotonic()
    mjpeg.encode = lambda image, number: whole(image, number)[:2000]
    found_s = ear.state(CameraState.RECONNECTING, since_s=changed_s)
    back_s = time.monotonic()
    mjpeg.encode = whole
    well_s = ear.state(CameraState.ONLINE, since_s=back_s)
    ear.event(since_s=well_s)
    said = ear.told(since_s=changed_s)
    tell("every JPEG is corrupt", found_s=found_s - changed_s, well_s=well_s - back_s, published=said)
    ear.check_all_came()
    assert {event.boot_id for _, event in ear.of(Event)} == {event.boot_id}
    assert device.ends == []
