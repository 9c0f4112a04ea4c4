"""The web server, as a process: what it hands out, what it refuses, and that it ends when told."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_deploy.repo.serve import MAX_CONNECTIONS, Part, parse_range
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.sources import Budget, open_source
from tinysight_edge.update.trust import Trust, new_trust

World = Any  # see conftest
MakeBundle = Callable[..., Path]


@contextlib.contextmanager
def serving(repo: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "tinysight_deploy", "repo", "serve", "--repo", str(repo), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["address"], process
        finally:
            process.kill()


@pytest.fixture
def served(hobby: World, bundle: MakeBundle) -> Iterator[tuple[World, str, Any]]:
    hobby.repository().add(bundle(1))
    with serving(hobby.repo) as (address, process):
        yield hobby, address, process


def ask(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One request, its path sent as it is."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def test_a_device_updates_from_it(served: tuple[World, str, Any], bundle: MakeBundle) -> None:
    world, address, _ = served
    device = world.device("one")
    assert device.gets(address, "pets/pets-1.0.1.bundle") == bundle(1).read_bytes()
    world.rotate("root")
    world.repository().add(bundle(2))
    assert device.gets(address, "pets/pets-1.0.2.bundle") == bundle(2).read_bytes()


def test_our_own_devices_update_from_it_and_go_on_where_they_were(
    served: tuple[World, str, Any], bundle: MakeBundle, tmp_path: Path
) -> None:
    world, address, _ = served
    new_trust(tmp_path / "trust", world.repository().root_bytes(), disk=Disk())
    source = open_source(address)
    offer = Trust(tmp_path / "trust", source, now=datetime.now(UTC), disk=Disk()).resolve("pets/pets-1.0.1.bundle")
    listed = world.repository().look_up("pets@1.0.1")
    assert (offer.release, offer.signed, offer.path) == (listed.release, listed.signed, listed.file)
    raw = bundle(1).read_bytes()
    part, came = tmp_path / "x.part", [0]
    part.write_bytes(raw[:50_000])

    def tell(count: int) -> None:
        came[0] += count

    source.fetch(offer.path, part, size=offer.release.size_bytes, disk=Disk(), budget=Budget(), tell=tell)
    assert part.read_bytes() == raw
    assert came == [len(raw) - 50_000]


def test_parts_tags_and_what_caches_are_told(served: tuple[World, str, Any]) -> None:
    world, address, _ = served
    file = world.repository().look_up("pets@1.0.1").file
    raw = (world.repo / file).read_bytes()
    status, headers, body = ask(address, f"/{file}")
    assert (status, body) == (200, raw)
    assert headers["accept-ranges"] == "bytes"
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers
    tag = headers["etag"]
    size = len(raw)
    for asked, expected, told in [
        ("bytes=0-99", raw[:100], f"bytes 0-99/{size}"),
        ("bytes=100-", raw[100:], f"bytes 100-{size - 1}/{size}"),
        ("bytes=-7", raw[-7:], f"bytes {size - 7}-{size - 1}/{size}"),
        (f"bytes=5-{size * 9}", raw[5:], f"bytes 5-{size - 1}/{size}"),
    ]:
        status, headers, body = ask(address, f"/{file}", Range=asked)
        assert (status, body, headers["content-range"]) == (206, expected, told)
        assert ask(address, f"/{file}", "HEAD", Range=asked)[1]["content-length"] == str(len(expected))
    assert ask(address, f"/{file}", Range="bytes=5-9", If_Range=tag)[0] == 206
    assert ask(address, f"/{file}", Range="bytes=5-9", If_Range='"other"')[2] == raw
    assert ask(address, f"/{file}", Range="bytes=0-1,5-6")[2] == raw, "one part at a time"
    status, headers, _ = ask(address, f"/{file}", Range=f"bytes={size}-")
    assert (status, headers["content-range"]) == (416, f"bytes */{size}")
    assert ask(address, f"/{file}", If_None_Match=f'W/"x", {tag}')[0] == 304
    status, headers, body = ask(address, f"/{file}", "HEAD")
    assert (status, headers["content-length"], headers["etag"], body) == (200, str(size), tag, b"")


def test_the_timestamp_and_what_is_not_there_yet_are_not_kept_for_long(served: tuple[World, str, Any]) -> None:
    world, address, _ = served
    status, headers, _ = ask(address, "/metadata/timestamp.json")
    assert (status, headers["cache-control"]) == (200, "public, max-age=60, must-revalidate")
    assert headers["content-type"] == "application/json"
    assert ask(address, "/metadata/1.root.json")[1]["cache-control"].endswith("immutable")
    status, headers, _ = ask(address, "/metadata/2.root.json")
    assert (status, headers["cache-control"]) == (404, "no-store")
    before = ask(address, "/metadata/timestamp.json")[1]["etag"]
    world.repository().refresh()
    assert ask(address, "/metadata/timestamp.json")[1]["etag"] != before
    world.rotate("root")
    assert ask(address, "/metadata/2.root.json")[0] == 200


NOT_THERE = [
    "/",
    "/metadata",
    "/metadata/",
    "/targets/pets/",
    "//metadata/timestamp.json",
    "/metadata//timestamp.json",
    "/metadata/../metadata/timestamp.json",
    "/metadata/%2e%2e/%2e%2e/secret.txt",
    "/metadata/..%2f..%2fsecret.txt",
    "/metadata/%252e%252e%252fsecret.txt",
    "/targets/../../secret.txt",
    "/secret.txt",
    "/metadata/.hidden.json",
    "/.hidden/x.json",
    "/metadata/link.json",
    "/targets/linked/secret.txt",
    "/metadata/pipe.json",
    "/metadata/timestamp.json/",
    "/metadata/timestamp.json%00.txt",
    "/metadata/timestamp.json%0a",
    "/metadata/time%ff.json",
    "/metadata/" + "a" * 3000,
    "/keys/root.json",
    "/extra/x.json",
    "/targets/a/b/c/d.bundle",
]


def test_nothing_but_the_repositorys_files_is_handed_out_and_nothing_is_taken(served: tuple[World, str, Any]) -> None:
    world, address, _ = served
    (world.folder / "secret.txt").write_text("secret")
    (world.repo / "metadata" / ".hidden.json").write_text("secret")
    for folder in (".hidden", "extra"):
        (world.repo / folder).mkdir()
        (world.repo / folder / "x.json").write_text("secret")
    (world.repo / "metadata" / "link.json").symlink_to(world.folder / "secret.txt")
    (world.repo / "targets" / "linked").symlink_to(world.folder)
    os.mkfifo(world.repo / "metadata" / "pipe.json")
    for path in NOT_THERE:
        for method in ("GET", "HEAD"):
            status, headers, body = ask(address, path, method)
            assert (path, status) == (path, 404)
            assert b"secret" not in body
            assert headers["x-content-type-options"] == "nosniff"
    before = (world.repo / "metadata" / "timestamp.json").read_bytes()
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"):
        status, headers, _ = ask(address, "/metadata/timestamp.json", method, Content_Length="0")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert (world.repo / "metadata" / "timestamp.json").read_bytes() == before


def test_requests_and_connections_are_bounded(served: tuple[World, str, Any]) -> None:
    _, address, _ = served
    place = urlsplit(address)
    with socket.create_connection((place.hostname or "", place.port or 0)) as endless:
        endless.sendall(b"GET /metadata/timestamp.json HTTP/1.1\r\nX-Long: " + b"a" * (32 << 10))
        assert endless.recv(12) == b"HTTP/1.1 400"
    with contextlib.ExitStack() as held:
        for _ in range(MAX_CONNECTIONS):
            held.enter_context(socket.create_connection((place.hostname or "", place.port or 0)))
        assert ask(address, "/metadata/timestamp.json")[0] == 503
    status = 503
    while status == 503:  # until it has seen that they have gone
        status = ask(address, "/metadata/timestamp.json")[0]
    assert status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_in_the_middle_of_a_download(
    hobby: World, bundle: MakeBundle, number: signal.Signals
) -> None:
    hobby.repository().add(bundle(1, content=bytes(40 << 20)))
    file = hobby.repository().look_up("pets@1.0.1").file
    with serving(hobby.repo) as (address, process):
        place = urlsplit(address)
        with socket.create_connection((place.hostname or "", place.port or 0)) as slow:
            slow.sendall(f"GET /{file} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert slow.recv(12) == b"HTTP/1.1 200"
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_a_taken_port_is_said(served: tuple[World, str, Any]) -> None:
    world, address, _ = served
    command = [sys.executable, "-m", "tinysight_deploy", "repo", "serve", "--repo", str(world.repo)]
    done = subprocess.run(
        [*command, "--port", str(urlsplit(address).port)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "cannot be listened on" in done.stderr
    assert "Choose another --port" in done.stderr


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_part_is_what_was_asked_for_or_is_not_there(size: int, first: int, last: int) -> None:
    try:
        part = parse_range(f"bytes={first}-{last}", size)
    except ValueError:
        assert first >= size
        return
    if last < first:
        assert part is None
    else:
        assert part == Part(first, min(last + 1, size))


@given(st.text(max_size=20))
def test_any_text_is_a_range_that_is_understood_or_not(text: str) -> None:
    for header in (text, f"bytes={text}"):
        with contextlib.suppress(ValueError):
            part = parse_range(header, 10)
            assert part is None or 0 <= part.start < part.end <= 10
