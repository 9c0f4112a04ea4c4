"""MJPEG over HTTP: lengths, chunks, damage, logins and stalls, and the parts of a stream."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.errors import CameraError
from tinysight_edge.sources.multipart import Parts, boundary_of

WRONG = "wrong-word"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("length", [False, True])
def test_mjpeg_is_read_with_and_without_lengths_and_chunks(
    opened: Any, drain: Any, mjpeg: Any, *, chunked: bool, length: bool
) -> None:
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


def test_damaged_jpegs_cost_themselves_alone(opened: Any, mjpeg: Any) -> None:
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


def test_mjpeg_may_change_its_resolution(opened: Any, drain: Any, mjpeg: Any) -> None:
    mjpeg.picture = lambda number: np.zeros((48, 64, 3) if number < 2 else (96, 80, 3), np.uint8)
    mjpeg.ends_after = 4
    mjpeg.start()
    source = opened(mjpeg.url)
    assert (source.width, source.height) == (0, 0), "unknown before the first picture"
    assert drain(source) == [(48, 64, 3)] * 2 + [(96, 80, 3)] * 2
    assert (source.width, source.height) == (80, 96)


@pytest.mark.parametrize("way", ["basic", "digest"])
def test_mjpeg_takes_credentials_only_when_asked(opened: Any, mjpeg: Any, way: str) -> None:
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
def test_no_password_goes_in_the_clear_to_who_did_not_ask_for_it(
    opened: Any, mjpeg: Any, challenges: list[str], said: str
) -> None:
    mjpeg.auth, mjpeg.challenges = "digest", challenges
    mjpeg.start()
    with pytest.raises(CameraError, match=said):
        opened(mjpeg.url, username=mjpeg.user, secret=mjpeg.password)
    assert mjpeg.asked == [""]


def test_a_login_of_other_letters_goes_by_basic_and_is_answered_by_digest(opened: Any, mjpeg: Any) -> None:
    mjpeg.auth, mjpeg.password = "digest", "pässword"
    mjpeg.start()
    with pytest.raises(CameraError, match="ASCII only") as refused:
        opened(mjpeg.url, username=mjpeg.user, secret=mjpeg.password)
    assert mjpeg.password not in str(refused.value)
    mjpeg.auth, mjpeg.challenges = "basic", ['Digest realm="camera", nonce="abc"', 'Basic realm="camera"']
    source = opened(mjpeg.url, username=mjpeg.user, secret=mjpeg.password)
    assert source.read() is not None
    source.close()


def test_mjpeg_says_what_is_wrong_with_an_answer(opened: Any, mjpeg: Any) -> None:
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
def test_an_mjpeg_stream_that_stalls_or_drips_is_an_error(opened: Any, drain: Any, mjpeg: Any, *, drip: bool) -> None:
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
