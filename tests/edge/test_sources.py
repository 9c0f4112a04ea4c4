"""Sources deliver pictures, or say in one line why not."""

import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.errors import CameraError
from tinysight_edge.belt import Belt, digit_indices
from tinysight_edge.cameras.buffers import Buffers
from tinysight_edge.config.types import CameraConfig
from tinysight_edge.sources import Policy, Source, name_of, open_source, policy_of
from tinysight_edge.sources import rtsp as rtsp_module
from tinysight_edge.sources.address import Address
from tinysight_edge.sources.images import FolderSource
from tinysight_edge.sources.multipart import Parts, boundary_of
from tinysight_edge.units import Seconds

WRONG = "wrong-word"


def opened(spec: str, *, secret: str | None = None, **given: Any) -> Source:
    limits = {"open_timeout": Seconds(5), "read_timeout": Seconds(1)}
    return open_source(CameraConfig(source=spec, **{**limits, **given}), secret=secret)


def drain(source: Source) -> list[tuple[int, ...]]:
    shapes = []
    while (got := source.read()) is not None:
        shapes.append(got[0].shape)
    source.close()
    return shapes


def write_video(path: Path, frames: int = 12) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), i % 25 * 10, np.uint8))
    writer.release()


def test_a_video_is_read_whole_with_its_times(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    source = opened(str(tmp_path / "v.mp4"))
    assert (source.name, source.width, source.height, source.fps) == ("v.mp4", 64, 48, 10.0)
    assert source.duration_s == 1.2
    times = [got[1] for got in iter(source.read, None) if got is not None]
    assert times == pytest.approx([i / 10 for i in range(12)])


def test_a_video_in_real_time_takes_as_long_as_it_is(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    begun = time.monotonic()
    assert len(drain(opened(str(tmp_path / "v.mp4"), realtime=True))) == 12
    assert time.monotonic() - begun >= 1.1


def test_a_video_that_was_cut_off_is_an_error_and_not_an_end(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for i in range(40):
        writer.write(np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    raw = (tmp_path / "v.avi").read_bytes()
    (tmp_path / "v.avi").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CameraError, match=r"v\.avi ends after \d+ of 40 frames"):
        drain(opened(str(tmp_path / "v.avi")))


def test_a_video_that_changes_its_resolution_is_read_whole_in_its_first_size(tmp_path: Path) -> None:
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


def test_pictures_that_somebody_holds_are_left_alone_and_the_memory_of_others_is_used_again(tmp_path: Path) -> None:
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


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name, side in (("b.png", 20), ("a.jpg", 10), ("c.txt", 0)):
        if side:
            cv2.imwrite(str(tmp_path / name), np.zeros((side, side, 3), np.uint8))
        else:
            (tmp_path / name).write_text("no image")
    assert drain(opened(str(tmp_path))) == [(10, 10, 3), (20, 20, 3)]


def test_a_gray_image_becomes_three_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "g.png"), np.zeros((5, 6), np.uint8))
    assert drain(opened(str(tmp_path))) == [(5, 6, 3)]


def test_the_belt_keeps_its_pace() -> None:
    source = opened("synthetic:belt?fps=50&frames=10&seed=3&width=160&height=120")
    begun = time.monotonic()
    assert drain(source) == [(120, 160, 3)] * 10
    assert time.monotonic() - begun >= 9 / 50


def test_how_a_source_is_treated_is_known_before_it_is_opened(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4")
    device = Policy(live=True, lasting=True)
    for spec, policy in {
        "synthetic:belt": Policy(live=True), str(tmp_path): Policy(still=True), str(tmp_path / "v.mp4"): Policy(),
        "0": device, "/dev/video2": device, "/dev/v4l/by-id/usb-046d_C920-video-index0": device,
        "rtsp://10.0.0.9/s": device, "http://cam/video": device, "https://cam/video": device,
        "picamera2": device, "picamera2:1?fps=10": device,
    }.items():  # fmt: skip
        assert policy_of(CameraConfig(source=spec)) == policy
    assert policy_of(CameraConfig(source=str(tmp_path / "v.mp4"), realtime=True)) == Policy(live=True)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "none.mp4",
        "x" * 300,
        "a\0b",
        "rtsps://camera/stream",
        "rtsp://",
        "rtsp://camera:99999/",
        "http://camera/a b",
        "synthetic:moon",
        "synthetic:belt?speed=1",
        "synthetic:belt?fps=fast",
        "synthetic:belt?fps=0",
        "synthetic:belt?width=1000000",
        "synthetic:belt?split=all",
        "99",
        "/dev/video99",
        "/dev/v4l/by-id/nothing",
        "picamera2?fps=fast",
    ],
)
def test_what_cannot_be_opened_is_said_with_a_mend(spec: str) -> None:
    with pytest.raises(CameraError) as refused:
        opened(spec)
    assert refused.value.mend.endswith(".")


def test_a_broken_image_is_named(tmp_path: Path) -> None:
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


def test_a_folder_without_images_and_a_file_that_is_no_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="holds no images"):
        opened(str(tmp_path))
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(CameraError, match=r"v\.mp4 cannot be opened"):
        opened(str(tmp_path / "v.mp4"))


# Addresses.

words = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x17F, exclude_characters="\x7f"), min_size=1, max_size=20
)


@given(words, words)
def test_credentials_survive_the_url_and_are_never_shown(user: str, password: str) -> None:
    address = Address.parse("rtsp://cam:8554/live/1?x=2", username=f"u-{user}", secret=f"p-{password}")
    again = Address.parse(address.full)
    assert (again.username, again.secret, again.target) == (f"u-{user}", f"p-{password}", "/live/1?x=2")
    assert address.shown == "rtsp://cam:8554/live/1"
    assert f"p-{password}" not in repr(address)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://me:hidden@10.0.0.9/live", "rtsp://10.0.0.9/live"),
        ("rtsp://10.0.0.9:554/user=me&password=hidden&channel=1", "rtsp://10.0.0.9/..."),
        ("http://cam:81/video?pwd=hidden", "http://cam:81/video"),
        ("http://[fe80::1]:81/v", "http://[fe80::1]:81/v"),
        ("http://cam/bild-ä/v", "http://cam/..."),
        ("rtps://me:hidden@cam/v", "rtps://..."),
        ("rtsp://me:hidden@cam:99999/v", "rtsp://..."),
        ("picamera2:1?fps=10", "picamera2:1"),
        ("synthetic:belt?seed=5", "synthetic:belt"),
        ("0", "camera 0"),
        ("/dev/video1", "/dev/video1"),
        ("/videos/a.mp4", "a.mp4"),
    ],
)
def test_what_is_shown_of_a_source_holds_no_credentials(source: str, shown: str) -> None:
    assert name_of(CameraConfig(source=source)) == shown


# RTSP: GStreamer's server in a process of its own.


def udp_sockets() -> int:
    """How many this process has open."""
    mine = {str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}
    every = Path("/proc/self/net/udp").read_text(encoding="ascii").splitlines()[1:]
    return sum(f"socket:[{line.split()[9]}]" in mine for line in every)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_delivers_breaks_when_killed_and_times_out_when_stalled(rtsp: Any, transport: Any) -> None:
    rtsp.start()
    for hurt in (rtsp.stall, rtsp.kill):
        source = opened(rtsp.url, transport=transport)
        assert (source.name, source.width, source.height, source.fps) == (rtsp.url, 320, 240, 15.0)
        means = [got[0].mean() for got in itertools.islice(iter(source.read, None), 10) if got is not None]
        assert len(means) == 10
        assert (udp_sockets() > 0) == (transport == "udp")
        assert min(means) > 0
        hurt()
        with pytest.raises(CameraError, match="delivers no picture"):
            drain(source)
        source.close()
        rtsp.go_on() if hurt == rtsp.stall else None


def test_rtsp_says_why_it_cannot_be_opened(rtsp: Any, mjpeg: Any) -> None:
    with pytest.raises(CameraError, match="nothing listens"):
        opened(rtsp.url)
    with pytest.raises(CameraError, match="nobody knows"):
        opened("rtsp://camera.invalid/stream")
    rtsp.user, rtsp.password = "viewer", "p@ss:w/rd?"
    rtsp.start()
    mjpeg.start()
    with pytest.raises(CameraError, match="wants a user name"):
        opened(rtsp.url)
    with pytest.raises(CameraError, match="refuses the user name") as refused:
        opened(rtsp.url, username="viewer", secret=WRONG)
    assert WRONG not in str(refused.value)
    with pytest.raises(CameraError, match="does not speak RTSP"):
        opened(mjpeg.url.replace("http:", "rtsp:"))
    source = opened(rtsp.url, username="viewer", secret=rtsp.password)
    assert source.read() is not None
    source.close()
    rtsp.kill()
    rtsp.user = None
    rtsp.start()
    with pytest.raises(CameraError, match="has no such stream"):
        opened(rtsp.url + "x")


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_camera_that_takes_the_connection_and_says_nothing_is_given_up(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(CameraError, match="does not answer"):
        opened(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/stream", open_timeout=Seconds(0.5))


def test_an_opening_that_never_returns_blocks_the_other_transport_for_its_time_out_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rtsp_module, "LATE_S", 0.1)
    monkeypatch.setenv(rtsp_module.OPTIONS, "")
    opening, entered, release = rtsp_module._Opening(), threading.Event(), threading.Event()

    def hang() -> None:
        with opening.by("tcp", timeout_s=0.5):
            entered.set()
            release.wait()

    thread = threading.Thread(target=hang, daemon=True)
    thread.start()
    entered.wait()
    with opening.by("tcp", timeout_s=0.1):
        pass
    with pytest.raises(CameraError, match="other transport than udp"), opening.by("udp", timeout_s=0.1):
        pass
    with opening.by("udp", timeout_s=5.0):
        assert os.environ[rtsp_module.OPTIONS] == "rtsp_transport;udp"
        release.set()
        thread.join()
    with opening.by("tcp", timeout_s=0.1):
        assert os.environ[rtsp_module.OPTIONS] == "rtsp_transport;tcp"


# MJPEG.


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("length", [False, True])
def test_mjpeg_is_read_with_and_without_lengths_and_chunks(mjpeg: Any, *, chunked: bool, length: bool) -> None:
    mjpeg.chunked, mjpeg.length, mjpeg.ends_after = chunked, length, 5
    mjpeg.start()
    source = opened(mjpeg.url)
    assert source.name == mjpeg.url
    if chunked:  # without chunks, or with them, the camera's end is an end; a killed one is an error
        got = [source.read() for _ in range(4)]
        assert [each is not None and each[0].shape for each in got] == [(240, 320, 3)] * 4
        source.close()
    else:
        assert drain(source)[:4] == [(240, 320, 3)] * 4


def test_damaged_jpegs_cost_themselves_alone(mjpeg: Any) -> None:
    damage: list[Callable[[bytes], bytes]] = [
        lambda raw: raw,
        lambda raw: raw[: len(raw) // 2],
        lambda _: b"",
        lambda raw: raw[:200] + bytes(100) + raw[300:],
        lambda raw: raw[: -len(raw) // 3] + b"\xff\xc4\xff" + raw[-len(raw) // 3 :],
        lambda _: b"\xff\xd8 no picture \xff\xd9",
    ]
    whole = mjpeg.encode
    mjpeg.encode = lambda image, number: damage[number % len(damage)](whole(image, number))
    mjpeg.picture = lambda number: np.full((48, 64, 3), 10 * number, np.uint8)
    mjpeg.start()
    source = opened(mjpeg.url)
    good, damaged = 0, 0
    for _ in range(18):
        assert source.grab() is not None
        if (image := source.retrieve()) is None:
            damaged += 1
        else:
            good += 1
            assert image.shape == (48, 64, 3)
    source.close()
    assert (good, damaged) == (3, 15)


def test_mjpeg_may_change_its_resolution(mjpeg: Any) -> None:
    mjpeg.picture = lambda number: np.zeros((48, 64, 3) if number < 2 else (96, 80, 3), np.uint8)
    mjpeg.ends_after = 4
    mjpeg.start()
    source = opened(mjpeg.url)
    assert (source.width, source.height) == (0, 0), "unknown before the first picture"
    assert drain(source) == [(48, 64, 3)] * 2 + [(96, 80, 3)] * 2
    assert (source.width, source.height) == (80, 96)


@pytest.mark.parametrize("way", ["basic", "digest"])
def test_mjpeg_takes_credentials_only_when_asked(mjpeg: Any, way: str) -> None:
    mjpeg.auth = way
    mjpeg.start()
    with pytest.raises(CameraError, match="wants a user name"):
        opened(mjpeg.url)
    with pytest.raises(CameraError, match="refuses"):
        opened(mjpeg.url, username="viewer", secret=WRONG)
    mjpeg.asked.clear()
    source = opened(mjpeg.url, username=mjpeg.user, secret=mjpeg.password)
    assert source.read() is not None
    source.close()
    assert mjpeg.asked[0] == ""
    assert mjpeg.asked[1].lower().startswith(way)


@pytest.mark.parametrize(
    ("challenges", "said"),
    [
        pytest.param([], "does not say how to log in", id="no challenge"),
        pytest.param(["Digest nonce=abc"], "in an unknown way", id="no realm"),
        pytest.param(['Digest realm="camera", nonce="abc", qop="auth-int"'], "in an unknown way", id="auth-int"),
        pytest.param(['Digest realm="camera", nonce="abc", algorithm=X'], "in an unknown way", id="an algorithm"),
        pytest.param(["Digest realm=, x"], "in an unknown way", id="no pairs"),
        pytest.param(['Bearer realm="camera"'], "in an unknown way", id="no scheme of ours"),
    ],
)
def test_no_password_goes_in_the_clear_to_who_did_not_ask_for_it(mjpeg: Any, challenges: list[str], said: str) -> None:
    mjpeg.auth, mjpeg.challenges = "digest", challenges
    mjpeg.start()
    with pytest.raises(CameraError, match=said):
        opened(mjpeg.url, username=mjpeg.user, secret=mjpeg.password)
    assert mjpeg.asked == [""]


def test_a_login_of_other_letters_goes_by_basic_and_is_answered_by_digest(mjpeg: Any) -> None:
    mjpeg.auth, mjpeg.password = "digest", "pässword"
    mjpeg.start()
    with pytest.raises(CameraError, match="ASCII only") as refused:
        opened(mjpeg.url, username=mjpeg.user, secret=mjpeg.password)
    assert mjpeg.password not in str(refused.value)
    mjpeg.auth, mjpeg.challenges = "basic", ['Digest realm="camera", nonce="abc"', 'Basic realm="camera"']
    source = opened(mjpeg.url, username=mjpeg.user, secret=mjpeg.password)
    assert source.read() is not None
    source.close()


def test_mjpeg_says_what_is_wrong_with_an_answer(mjpeg: Any) -> None:
    with pytest.raises(CameraError, match="nothing listens"):
        opened(mjpeg.url)
    mjpeg.start()
    with pytest.raises(CameraError, match="does not answer"):
        opened(mjpeg.url.replace("http:", "https:"))
    for status, said in ((404, "status 404"), (302, "elsewhere"), (403, "wants a user name")):
        mjpeg.status = status
        with pytest.raises(CameraError, match=said):
            opened(mjpeg.url)
    mjpeg.status, mjpeg.content_type = 200, "text/html"
    with pytest.raises(CameraError, match="no MJPEG stream"):
        opened(mjpeg.url)


@pytest.mark.parametrize("drip", [False, True])
def test_an_mjpeg_stream_that_stalls_or_drips_is_an_error(mjpeg: Any, *, drip: bool) -> None:
    mjpeg.start()
    source = opened(mjpeg.url)
    assert source.read() is not None
    if drip:
        mjpeg.drips = True
    else:
        mjpeg.stall()
    with pytest.raises(CameraError, match="delivers no picture"):
        drain(source)
    source.close()


@given(
    st.lists(
        st.binary(max_size=60).filter(lambda b: b"--edge" not in b and not b.endswith((b"\r", b"\n"))), max_size=6
    ),
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.lists(st.sampled_from([None, "true", "short", "long"]), min_size=6, max_size=6),
)
def test_parts_are_the_same_however_the_bytes_come_and_whatever_the_lengths_say(
    bodies: list[bytes], sizes: list[int], lengths: list[str | None]
) -> None:
    stream = b"preamble\r\n"
    for body, length in zip(bodies, lengths, strict=False):
        said = {"true": len(body), "short": max(len(body) - 3, 0), "long": len(body) + 30}.get(length or "")
        stream += b"--edge\r\nContent-Type: image/jpeg\r\n"
        stream += b"" if said is None else b"Content-Length: %d\r\n" % said
        stream += b"\r\n" + body + b"\r\n"
    stream += b"--edge--\r\n\r\n"
    chunks, at = itertools.cycle(sizes), 0

    def more(most: int) -> bytes:
        nonlocal at
        piece = stream[at : at + min(next(chunks), most)]
        at += len(piece)
        return piece

    got = list(iter(Parts(more, b"--edge").next, None))
    want = [
        body[:-3] if length == "short" and len(body) > 3 else body
        for body, length in zip(bodies, lengths, strict=False)
    ]
    assert len(got) == len(want)
    for mine, theirs, length in zip(got, want, lengths, strict=False):
        if length == "short" and len(theirs) < 3:
            continue
        assert mine == theirs


def test_a_stream_without_end_is_refused_and_not_collected() -> None:
    with pytest.raises(CameraError, match="above 16 MiB"):
        Parts(bytes, b"--edge").next()
    begun = iter([b"--edge\r\n\r\n"])
    with pytest.raises(CameraError, match="above 16 MiB"):
        Parts(lambda most: next(begun, bytes(most)), b"--edge").next()
    begun = iter([b"--edge\r\n"])
    with pytest.raises(CameraError, match="headers never end"):
        Parts(lambda most: next(begun, b"x" * most), b"--edge").next()


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/x-mixed-replace; boundary=abc", b"--abc"),
        ("multipart/x-mixed-replace;boundary=--abc", b"--abc"),
        ('Multipart/X-Mixed-Replace; charset=x; Boundary="a b"', b"--a b"),
        ("multipart/x-mixed-replace", None),
        ("image/jpeg", None),
        ("", None),
    ],
)
def test_boundaries_are_read_as_cameras_write_them(content_type: str, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary


# picamera2, by a fake of its interface: there is no such camera here.


class FakePicamera:
    """What `PicameraSource` uses of ``picamera2.Picamera2``."""

    def __init__(self, number: int = 0) -> None:
        if number > 0:
            raise IndexError("list index out of range")
        self.calls: list[str] = []
        self.size = (0, 0)

    def create_video_configuration(self, main: dict[str, Any], controls: dict[str, Any]) -> dict[str, Any]:
        assert main["format"] == "RGB888"
        assert controls == {"FrameRate": 10.0}
        return main

    def configure(self, configuration: dict[str, Any]) -> None:
        self.size = configuration["size"]

    def start(self) -> None:
        self.calls.append("start")

    def capture_array(self, name: str) -> Any:
        assert name == "main"
        if len(self.calls) > 3:
            raise RuntimeError("Camera frontend has timed out")
        self.calls.append("capture")
        return np.zeros((self.size[1], self.size[0], 3), np.uint8)

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")


def test_picamera2_is_imported_when_wanted_and_its_faults_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CameraError, match="not installed"):
        opened("picamera2")
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=FakePicamera))
    with pytest.raises(CameraError, match="cannot be opened: list index"):
        opened("picamera2:1?fps=10")
    source = opened("picamera2?width=640&height=480&fps=10")
    assert (source.name, source.width, source.height, source.fps) == ("picamera2", 640, 480, 10.0)
    got = source.read()
    assert got is not None
    assert got[0].shape == (480, 640, 3)
    with pytest.raises(CameraError, match="timed out"):
        drain(source)
    source.close()


# The belt.


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
