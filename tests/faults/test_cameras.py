"""Cameras that are away, that stall, and that end: each is told, found again, and slows nobody else."""

import time
from pathlib import Path
from typing import Any

import cv2

from tinysight_contract.messages import CameraState, Event, EventType, Health
from tinysight_edge.belt import Belt

SHORT = 'read_timeout = "1s"\nopen_timeout = "2s"\nfrozen_after = "2s"\n'


def test_an_rtsp_camera_may_be_absent_and_killed_and_stall(
    cameras: Any, rtsp: Any, ear: Any, make_device: Any, tell: Any
) -> None:
    by_tcp, by_udp = rtsp, cameras.RtspServer(pattern="smpte")
    by_tcp._looks[-1] = "smpte"
    device = make_device(
        gate=f'source = "{by_tcp.url}"\n{SHORT}', yard=f'source = "{by_udp.url}"\ntransport = "udp"\n{SHORT}'
    )
    begun_s = device.starts[0]
    found_s = ear.state(CameraState.RECONNECTING)
    there_s = time.monotonic()
    by_tcp.start()
    by_udp.start()
    try:
        well_s = ear.state(CameraState.ONLINE)
        ear.state(CameraState.ONLINE, camera="yard")
        said = ear.told(since_s=begun_s)
        tell("RTSP camera absent at start", found_s=found_s - begun_s, well_s=well_s - there_s, published=said)

        for fault, camera, server in (
            ("RTSP over TCP stalls", "gate", by_tcp),
            ("RTSP over UDP stalls", "yard", by_udp),
        ):
            stalled_s = time.monotonic()
            server.stall()
            found_s = ear.state(CameraState.STALLED, camera=camera, since_s=stalled_s)
            server.go_on()
            again_s = time.monotonic()
            well_s = ear.state(CameraState.ONLINE, camera=camera, since_s=found_s)
            said = ear.told(since_s=stalled_s)
            tell(fault, found_s=found_s - stalled_s, well_s=well_s - again_s, published=said)

        killed_s = time.monotonic()
        by_tcp.kill()
        found_s = ear.state(CameraState.RECONNECTING, since_s=killed_s)
        by_tcp.start()
        again_s = time.monotonic()
        well_s = ear.state(CameraState.ONLINE, since_s=found_s)
        said = ear.told(since_s=killed_s)
        tell(
            "RTSP server killed and started again",
            found_s=found_s - killed_s,
            well_s=well_s - again_s,
            published=said,
        )
        ear.wait(Health, lambda health: health.cameras["gate"].inferred > 0, since_s=well_s)
        assert device.ends == []
    finally:
        by_udp.kill()


def test_a_camera_that_hangs_is_told_and_slows_no_other(world: Any, ear: Any, make_device: Any, tell: Any) -> None:
    mjpeg = world.server
    mjpeg.start()
    device = make_device(gate='source = "synthetic:belt"', far=f'source = "{mjpeg.url}"\n{SHORT}')
    ear.state(CameraState.ONLINE, camera="far")
    ear.event(camera="far")
    before_s = time.monotonic()
    time.sleep(4.0)
    stalled_s = time.monotonic()
    mjpeg.stall()
    found_s = ear.state(CameraState.STALLED, camera="far", since_s=stalled_s)
    ear.event(lambda event: event.reason == "camera lost", camera="far", since_s=stalled_s)
    time.sleep(4.0)
    again_s = time.monotonic()
    mjpeg.go_on()
    well_s = ear.state(CameraState.ONLINE, camera="far", since_s=again_s)
    ear.event(camera="far", since_s=well_s)
    tell("MJPEG stalls", found_s=found_s - stalled_s, well_s=well_s - again_s, published=ear.told(since_s=stalled_s))

    def fps(since_s: float, until_s: float) -> float:
        rates: list[float] = [
            each.cameras["gate"].fps for at_s, each in ear.of(Health, since_s=since_s) if at_s < until_s
        ]
        return sum(rates) / len(rates)

    alone, beside = fps(before_s + 1, stalled_s), fps(stalled_s + 1, again_s)
    assert beside > 0.6 * alone, "the healthy one goes on at its pace"
    tell(
        "one camera of two hangs",
        found_s=found_s - stalled_s,
        published=f"the healthy one is inferred at {alone:.1f} fps before and {beside:.1f} fps meanwhile",
    )
    ear.check_all_came()
    assert device.ends == []


def test_a_video_that_ends_is_told_and_the_other_camera_goes_on(
    ear: Any, make_device: Any, tell: Any, tmp_path: Path
) -> None:
    film = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"mp4v"), 15.0, (320, 240))
    belt = Belt(3)
    for number in range(60):
        writer.write(belt.frame(100 + number)[0])
    writer.release()
    device = make_device(gate='source = "synthetic:belt"', film=f'source = "{film}"\nrealtime = true')
    ear.event(camera="film")
    found_s = ear.state(CameraState.DISABLED, camera="film")
    begun_s = ear.state(CameraState.ONLINE, camera="film")
    ear.event(since_s=found_s)
    ear.check_all_came()
    film_events = [event for _, event in ear.of(Event, camera="film")]
    ended = {event.id for event in film_events if event.type is EventType.END}
    assert ended == {event.id for event in film_events}, "nobody waits for an end"
    tell(
        "a video ends beside a camera",
        found_s=max(found_s - begun_s - 59 / 15, 0.0),
        published=f"{ear.told(since_s=begun_s)}; each of its {len(ended)} objects has its `end`",
    )
    assert device.ends == []
