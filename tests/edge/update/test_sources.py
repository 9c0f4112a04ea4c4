"""Folders that lead elsewhere, and real web servers on 127.0.0.1 that do what web servers do."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.http_answer import MOST_RETRY_AFTER_S, part_of, retry_after_s
from tinysight_edge.update.http_source import FIRST_PAUSE_S, GAIN_BYTES, MOST_PAUSE_S, HttpSource
from tinysight_edge.update.sources import Budget, FolderSource, Source, check_path, open_source

FILE = bytes(range(256)) * 700  # 179,200 bytes
PATH = "targets/belt/x.bundle"
CALM = Budget(tries=3, seconds=120.0, window_s=20.0)  # a busy machine is no fault
QUICK = Budget(tries=3, seconds=60.0, window_s=0.25, least_bytes_s=1000.0)
FULL, BROKEN = OSError(28, "No space left on device"), OSError(5, "Input/output error")
Serve = Callable[..., Any]


class Client:
    """An `HttpSource` that never sleeps, and what it would have slept."""

    def __init__(self, url: str, **options: Any) -> None:
        self.pauses: list[float] = []
        self.moved: list[int] = []
        options = {"small": CALM, "dice": lambda: 1.0, **options}
        self.source = HttpSource(url, wait=self.pauses.append, **options)

    def fetch(self, to: Path, *, size: int = len(FILE), budget: Budget = CALM, disk: Disk | None = None) -> bytes:
        self.source.fetch(PATH, to, size=size, disk=disk or Disk(), budget=budget, tell=self.moved.append)
        return to.read_bytes()


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "x.part"


@pytest.fixture
def server(serve: Serve) -> Any:
    return serve({PATH: FILE, "metadata/timestamp.json": b"{}"})


def refused(call: Callable[..., object], *args: Any, **kwargs: Any) -> UpdateError:
    with pytest.raises(UpdateError) as caught:
        call(*args, **kwargs)
    assert caught.value.mend.endswith(".")
    return caught.value


def begun(part: Path, length: int = 100_000) -> Path:
    part.write_bytes(FILE[:length])
    return part


class Recorder(Disk):
    """What was done to the disk; appending fails after ``room`` bytes."""

    def __init__(self, room: int = 1 << 60, error: OSError = FULL) -> None:
        self.room, self.error = room, error
        self.done: list[str] = []

    def append(self, path: Path, data: bytes) -> None:
        self.done.append("append")
        super().append(path, data[: self.room])
        self.room -= len(data)
        if self.room < 0:
            self.room = 0
            raise self.error

    def sync(self, path: Path) -> None:
        self.done.append("sync")
        super().sync(path)


# Both kinds.


@pytest.fixture(params=["folder", "http"])
def either(request: pytest.FixtureRequest, server: Any, tmp_path: Path) -> Source:
    if request.param == "http":
        return open_source(server.url)
    (tmp_path / "repo" / PATH).parent.mkdir(parents=True)
    (tmp_path / "repo" / PATH).write_bytes(FILE)
    return open_source(str(tmp_path / "repo"))


def test_a_small_file_is_read_and_never_more_of_it_than_was_asked_for(either: Source) -> None:
    assert either.read(PATH, len(FILE)) == FILE
    assert refused(either.read, PATH, len(FILE) - 1).code is Code.TOO_LARGE
    assert refused(either.read, "targets/belt/y.bundle", 10).code is Code.NOT_FOUND


@pytest.mark.parametrize("have", [0, 1, 100_000, len(FILE) - 1, len(FILE), len(FILE) + 1])
def test_a_file_grows_from_where_it_is_and_is_synced_at_the_end(either: Source, part: Path, have: int) -> None:
    if have:
        part.write_bytes((FILE + b"!")[:have])
    moved: list[int] = []
    disk = Recorder()
    either.fetch(PATH, part, size=len(FILE), disk=disk, budget=CALM, tell=moved.append)
    assert part.read_bytes() == FILE
    assert sum(moved) == len(FILE) - (have if have <= len(FILE) else 0)
    assert disk.done[-1] == "sync"


def test_a_file_of_no_bytes_is_there_too(serve: Serve, part: Path) -> None:
    source = open_source(serve({PATH: b""}).url)
    source.fetch(PATH, part, size=0, disk=Disk(), budget=CALM, tell=lambda _: None)
    assert part.read_bytes() == b""


@pytest.mark.parametrize(("error", "code"), [(FULL, Code.NO_SPACE), (BROKEN, Code.DISK)])
def test_a_disk_that_fails_is_told_and_what_it_took_is_gone_on_from(
    either: Source, part: Path, error: OSError, code: Code
) -> None:
    def fetch(disk: Disk) -> None:
        either.fetch(PATH, part, size=len(FILE), disk=disk, budget=CALM, tell=lambda _: None)

    assert refused(fetch, Recorder(70_001, error)).code is code
    assert part.read_bytes() == FILE[:70_001]
    fetch(Disk())
    assert part.read_bytes() == FILE


def test_who_is_told_may_end_it(either: Source, part: Path) -> None:
    stop = UpdateError("Another bundle is wanted now.", mend="Wait for it.", code=Code.SUPERSEDED)

    def tell(_: int) -> None:
        raise stop

    error = refused(either.fetch, PATH, part, size=len(FILE), disk=Disk(), budget=CALM, tell=tell)
    assert error is stop


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a\\b", "a\0b", "a\nb", "ä", "a/" * 300 + "b"]
)
def test_a_path_that_leaves_a_repository_is_in_none(either: Source, path: str) -> None:
    assert refused(either.read, path, 10).code is Code.NOT_FOUND
    assert refused(check_path, path).code is Code.NOT_FOUND


# Folders.


def test_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    repo = tmp_path / "repo"
    (repo / "real").mkdir(parents=True)
    (repo / "real" / "file").write_bytes(b"ok")
    (repo / "link").symlink_to(tmp_path / "secret")
    (repo / "inner").symlink_to(repo / "real")
    os.mkfifo(repo / "fifo")
    (tmp_path / "mount").symlink_to(repo)
    source = FolderSource(tmp_path / "mount")  # the folder itself may be one
    assert source.read("real/file", 10) == b"ok"
    for path in ("link", "inner/file", "fifo", "real", "real/file/x"):
        assert refused(source.read, path, 10).code is Code.NOT_FOUND


def test_a_folder_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "none", tmp_path / "file"):
        error = refused(FolderSource(folder).read, "a", 10)
        assert error.code is Code.UNREACHABLE
        assert "attached" in error.mend


@pytest.mark.parametrize(("size", "code"), [(len(FILE) - 1, Code.TOO_LARGE), (len(FILE) + 1, Code.TAMPERED)])
def test_a_file_of_another_length_is_not_the_one_that_was_signed(
    either: Source, part: Path, size: int, code: Code
) -> None:
    assert refused(either.fetch, PATH, part, size=size, disk=Disk(), budget=CALM, tell=lambda _: None).code is code


def test_a_slow_stick_ends_with_its_time(tmp_path: Path, part: Path) -> None:
    (tmp_path / "x").write_bytes(FILE)
    budget = Budget(seconds=-1.0)
    source = FolderSource(tmp_path)
    error = refused(source.fetch, "x", part, size=len(FILE), disk=Disk(), budget=budget, tell=lambda _: None)
    assert error.code is Code.TOO_SLOW


# Web servers that cut.


def test_what_is_here_is_not_asked_for_again(server: Any, part: Path) -> None:
    client = Client(server.url)
    assert client.fetch(begun(part)) == FILE
    assert server.asked[0].headers["range"] == "bytes=100000-"
    assert server.asked[0].headers["accept-encoding"] == "identity"
    assert server.sent == len(FILE) - 100_000
    assert not client.pauses


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_any_number_of_cuts_is_survived_as_long_as_each_connection_brings_something(
    server: Any, faulty: ModuleType, part: Path, reset: bool, chunked: bool
) -> None:
    server.faults = [faulty.Fault(cut_after=GAIN_BYTES + 4000, reset=reset, chunked=chunked) for _ in range(8)]
    client = Client(server.url)
    assert client.fetch(part) == FILE
    assert len(server.asked) > CALM.tries
    ranges = [int(asked.headers["range"].strip("bytes=-")) for asked in server.asked[1:]]
    assert ranges == sorted(ranges)
    assert all("if-range" in asked.headers for asked in server.asked[1:])
    assert sum(client.moved) == len(FILE)


def test_a_connection_that_ends_just_before_the_end_of_the_answer_has_brought_all(
    server: Any, faulty: ModuleType, part: Path
) -> None:
    server.faults = [faulty.Fault(cut_after=len(FILE), chunked=True)]
    assert Client(server.url).fetch(part) == FILE
    assert len(server.asked) == 1


def test_connections_that_bring_next_to_nothing_are_counted(server: Any, faulty: ModuleType, part: Path) -> None:
    server.always[PATH] = faulty.Fault(cut_after=10)
    client = Client(server.url)
    error = refused(client.fetch, part, budget=Budget(tries=5))
    assert error.code is Code.UNREACHABLE
    assert len(server.asked) == 5
    assert client.pauses == [2.0, 4.0, 8.0, 16.0]
    assert part.read_bytes() == FILE[:50]


def test_pauses_are_jittered_and_bounded(server: Any, faulty: ModuleType) -> None:
    server.always["metadata/timestamp.json"] = faulty.Fault(status=500)
    low = Client(server.url, dice=lambda: 0.0, small=Budget(tries=12, seconds=1e4))
    high = Client(server.url, dice=lambda: 1.0, small=Budget(tries=12, seconds=1e4))
    for client in (low, high):
        assert refused(client.source.read, "metadata/timestamp.json", 10).code is Code.UNREACHABLE
    assert low.pauses == [0.0] * 11
    assert high.pauses[0] == 2 * FIRST_PAUSE_S
    assert high.pauses[-1] == MOST_PAUSE_S


def test_a_server_that_knows_no_range_still_serves_in_the_end(server: Any, faulty: ModuleType, part: Path) -> None:
    server.faults = [faulty.Fault(cut_after=cut, ignore_range=True) for cut in (60_000, 120_000, None)]
    client = Client(server.url)
    assert client.fetch(part) == FILE
    assert sum(client.moved) == 60_000 + 120_000 + len(FILE)


def test_a_part_that_was_not_asked_for_is_not_taken(server: Any, faulty: ModuleType, part: Path) -> None:
    server.faults = [faulty.Fault(shift=1), faulty.Fault(headers={"Content-Range": "bytes 1-2"})]
    assert Client(server.url).fetch(begun(part)) == FILE
    assert "range" in server.asked[0].headers
    assert "range" not in server.asked[1].headers


def test_a_server_may_send_less_than_was_asked_for(server: Any, faulty: ModuleType, part: Path) -> None:
    server.always[PATH] = faulty.Fault(shorten=20_000)
    assert Client(server.url).fetch(begun(part, 1)) == FILE
    assert len(server.asked) == 9


def test_a_file_that_changes_between_two_connections_is_begun_again(
    server: Any, faulty: ModuleType, part: Path
) -> None:
    new = FILE[::-1]

    def change(moved: int) -> None:
        server.files[PATH] = new if moved else server.files[PATH]

    server.faults = [faulty.Fault(cut_after=100_000)]
    source = Client(server.url).source
    source.fetch(PATH, part, size=len(FILE), disk=Disk(), budget=CALM, tell=change)
    assert part.read_bytes() == new
    ranged = {"Content-Range": f"bytes 50000-{len(FILE) - 1}/{len(FILE)}", "ETag": '"another"'}
    part.unlink()
    server.faults = [faulty.Fault(cut_after=50_000), faulty.Fault(status=206, body=FILE[50_000:], headers=ranged)]
    assert Client(server.url).fetch(part) == new  # though If-Range was ignored


@pytest.mark.parametrize("etag", ['W/"weak"', '"with\tcontrol"', "bare", '"' + "x" * 5000 + '"', '"é"'])
def test_only_an_etag_that_names_the_content_is_sent_back(
    server: Any, faulty: ModuleType, part: Path, etag: str
) -> None:
    server.faults = [faulty.Fault(cut_after=50_000, headers={"ETag": etag})]
    assert Client(server.url).fetch(part) == FILE
    assert "if-range" not in server.asked[1].headers


cuts: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    cut_after=st.none() | st.integers(0, 90_000),
    reset=st.booleans(),
    ignore_range=st.booleans(),
    chunked=st.booleans(),
    shift=st.sampled_from([0, 0, 1]),
    shorten=st.none() | st.integers(1, 90_000),
    status=st.sampled_from([None, None, 503]),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(cuts, max_size=8), have=st.integers(0, len(FILE)))
def test_whatever_happens_on_the_way_the_file_is_the_file(
    server: Any, faulty: ModuleType, part: Path, faults: list[dict[str, Any]], have: int
) -> None:
    server.faults = [faulty.Fault(**fault) for fault in faults]
    budget = Budget(tries=10, most_bytes=1 << 22)
    assert Client(server.url).fetch(begun(part, have), budget=budget) == FILE


# Web servers that lie.


def test_endless_data_ends_where_the_file_does(server: Any, faulty: ModuleType, part: Path) -> None:
    endless = faulty.Fault(endless=True)
    server.always = {PATH: endless, "metadata/timestamp.json": endless}
    client = Client(server.url)
    assert refused(client.source.read, "metadata/timestamp.json", 8192).code is Code.TOO_LARGE
    assert refused(client.fetch, part).code is Code.TOO_LARGE
    assert part.stat().st_size <= len(FILE)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("said", "code", "asked"),
    [
        pytest.param(len(FILE) + 1, Code.TOO_LARGE, 1, id="more than was signed"),
        pytest.param(len(FILE) - 1, Code.TAMPERED, 1, id="less than was signed"),
        pytest.param(1 << 62, Code.TOO_LARGE, 1, id="absurd"),
    ],
)
def test_a_length_that_is_not_the_signed_one_is_not_waited_for(
    server: Any, faulty: ModuleType, part: Path, said: int, code: Code, asked: int
) -> None:
    server.always[PATH] = faulty.Fault(length=said)
    assert refused(Client(server.url).fetch, part).code is code
    assert len(server.asked) == asked
    assert not part.exists()


def test_a_part_of_a_file_of_another_length_is_not_taken(server: Any, faulty: ModuleType, part: Path) -> None:
    server.always[PATH] = faulty.Fault(headers={"Content-Range": f"bytes 100000-{len(FILE) - 1}/999999"})
    assert refused(Client(server.url).fetch, begun(part)).code is Code.TOO_LARGE
    assert part.read_bytes() == FILE[:100_000]


def test_a_file_that_ended_before_what_is_here_is_a_damaged_copy(server: Any, part: Path) -> None:
    server.files[PATH] = FILE[:50]
    assert refused(Client(server.url).fetch, begun(part)).code is Code.TAMPERED


def test_a_body_without_a_length_ends_with_its_connection(server: Any, faulty: ModuleType, part: Path) -> None:
    server.faults = [faulty.Fault(length=-1, cut_after=len(FILE))]
    assert Client(server.url).fetch(part) == FILE


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "gzip, identity"])
def test_an_encoding_is_not_undone(server: Any, faulty: ModuleType, part: Path, encoding: str) -> None:
    server.always[PATH] = faulty.Fault(headers={"Content-Encoding": encoding})
    error = refused(Client(server.url).fetch, part)
    assert error.code is Code.MALFORMED
    assert "compression" in error.mend
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x00\x05hello", b"HTTP/1.1 999999 x\r\n\r\n", b"",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
    ],
)  # fmt: skip
def test_what_does_not_speak_http_is_unreachable(server: Any, faulty: ModuleType, garbage: bytes, part: Path) -> None:
    server.always = {PATH: faulty.Fault(garbage=garbage)}
    assert refused(Client(server.url).fetch, part).code in {Code.UNREACHABLE, Code.TAMPERED}
    assert len(server.asked) <= CALM.tries


# Web servers that refuse.


@pytest.mark.parametrize(
    ("status", "code"),
    [(status, Code.NOT_FOUND) for status in (404, 403, 410)]
    + [(status, Code.UNREACHABLE) for status in (401, 400, 204)],
)
def test_a_refusal_is_asked_once(server: Any, faulty: ModuleType, part: Path, status: int, code: Code) -> None:
    server.always[PATH] = faulty.Fault(status=status)
    client = Client(server.url)
    error = refused(client.fetch, part)
    assert error.code is code
    assert str(status) in error.what
    assert len(server.asked) == 1
    assert not client.pauses


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_server_that_is_busy_is_asked_again_when_it_says(
    server: Any, faulty: ModuleType, part: Path, status: int
) -> None:
    date = "Tue, 01 Dec 2026 12:00:05 GMT"  # five seconds after the server's own clock
    waits = [{"Retry-After": "7"}, {"Retry-After": date}, {}, {"Retry-After": "soon"}]
    server.faults = [faulty.Fault(status=status, headers=headers) for headers in waits]
    client = Client(server.url)
    assert client.fetch(part, budget=Budget(tries=9)) == FILE
    assert client.pauses == [7.0, 5.0, 8.0, 16.0]


def test_a_pause_that_is_longer_than_the_time_left_is_not_begun(server: Any, faulty: ModuleType, part: Path) -> None:
    server.always[PATH] = faulty.Fault(status=503, headers={"Retry-After": "86400"})
    client = Client(server.url)
    error = refused(client.fetch, part, budget=Budget(seconds=MOST_RETRY_AFTER_S - 1))
    assert error.code is Code.UNREACHABLE
    assert not client.pauses


def test_bytes_in_total_are_bounded(server: Any, faulty: ModuleType, part: Path) -> None:
    server.always[PATH] = faulty.Fault(cut_after=100_000, ignore_range=True)
    assert refused(Client(server.url).fetch, part, budget=Budget(tries=99, most_bytes=250_000)).code is Code.TOO_LARGE
    assert len(server.asked) == 3
    assert part.read_bytes() == FILE[:100_000]


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("0", 0.0), ("120", 120.0), ("9" * 400, MOST_RETRY_AFTER_S), ("-5", None), ("1.5", None), ("", None),
        ("soon", None), ("Tue, 01 Dec 2026 12:01:00 GMT", 60.0), ("Tue, 01 Dec 2026 11:00:00 GMT", 0.0),
        ("Tuesday, 01-Dec-26 12:01:00 GMT", 60.0), ("Tue Dec  1 12:01:00 2026", 60.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MOST_RETRY_AFTER_S),
    ],
)  # fmt: skip
def test_every_form_of_retry_after(text: str, wait_s: float | None) -> None:
    now = datetime(2026, 12, 1, 12, tzinfo=UTC)
    assert retry_after_s({"Retry-After": text}, now=now) == wait_s
    told = {"Retry-After": text, "Date": "Tue, 01 Dec 2026 12:00:00 GMT"}
    assert retry_after_s(told, now=datetime(1970, 1, 1, tzinfo=UTC)) == wait_s  # the server's clock, not ours


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_header_never_makes_a_device_wait_for_long_or_fail(text: str, date: str) -> None:
    wait_s = retry_after_s({"Retry-After": text, "Date": date}, now=datetime(2026, 12, 1, tzinfo=UTC))
    assert wait_s is None or 0 <= wait_s <= MOST_RETRY_AFTER_S
    found = part_of({"Content-Range": text})
    assert found is None or found[0] <= found[1]


# Web servers that are slow.


@pytest.mark.parametrize("silent", ["connected", "headers", "body"])
def test_a_silent_server_is_left(server: Any, faulty: ModuleType, part: Path, silent: str) -> None:
    server.always[PATH] = faulty.Fault(silent=silent, cut_after=10)
    assert refused(Client(server.url).fetch, part, budget=QUICK).code is Code.TOO_SLOW
    assert 1 <= len(server.asked) <= QUICK.tries


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("tls", [True, False])
def test_a_server_that_drips_is_left(
    serve: Serve, faulty: ModuleType, pki: Path, tmp_path: Path, part: Path, headers: bool, tls: bool
) -> None:
    server = serve({PATH: FILE}, certificate=both(pki, "broker", tmp_path) if tls else None)
    server.always[PATH] = faulty.Fault(drip_s=0.02, drip_headers=headers)
    client = Client(server.url, ca=pki / "ca.crt")
    assert refused(client.fetch, part, budget=QUICK).code is Code.TOO_SLOW
    assert 1 <= len(server.asked) <= QUICK.tries


def test_a_drip_that_is_fast_enough_still_ends_with_the_time(server: Any, faulty: ModuleType, part: Path) -> None:
    server.always[PATH] = faulty.Fault(drip_s=0.001)
    budget = Budget(seconds=1.5, window_s=1.0, least_bytes_s=1.0)
    assert refused(Client(server.url).fetch, part, budget=budget).code is Code.TOO_SLOW
    assert 0 < part.stat().st_size < len(FILE)


def test_nobody_listens(part: Path) -> None:
    assert refused(Client("http://127.0.0.1:9").fetch, part).code is Code.UNREACHABLE
    assert refused(Client("http://no-such-host.invalid").fetch, part).code is Code.UNREACHABLE


# Addresses, redirects, certificates.


@pytest.mark.parametrize(
    "where", ["ftp://x/y", "http://", "https:///x", "http://x?y=1", "http://x#y", "http://x:99999", "http://[::1"]
)
def test_what_is_no_address_of_a_repository_is_refused(where: str) -> None:
    assert refused(open_source, where).code is Code.UNREACHABLE


def test_a_password_is_sent_and_not_told(server: Any, part: Path) -> None:
    client = Client(server.url.replace("://", "://me:pass@") + "/")
    assert client.fetch(part) == FILE
    assert server.asked[0].headers["authorization"].startswith("Basic ")
    assert "pass" not in client.source.name
    assert "pass" not in str(refused(client.source.read, "none", 10))
    assert "pass" not in str(refused(open_source, "http://me:pass@host?x"))


def test_redirects_are_followed_and_passwords_stay_behind(
    server: Any, serve: Serve, faulty: ModuleType, part: Path
) -> None:
    other = serve({PATH: FILE})
    server.always[PATH] = faulty.Fault(status=302, headers={"Location": f"{other.url}/{PATH}"})
    client = Client(server.url.replace("://", "://me:pass@"))
    assert client.fetch(begun(part)) == FILE
    assert other.asked[0].headers["range"] == "bytes=100000-"
    assert "authorization" not in other.asked[0].headers
    server.faults = [faulty.Fault(status=307, headers={"Location": "/repo/metadata/timestamp.json"})]
    assert client.source.read(PATH, 10) == b"{}"
    assert "authorization" in server.asked[-1].headers


@pytest.mark.parametrize("to", ["{url}/again", "file:///etc/passwd", "ftp://x/y", "http://[", "//", "gopher:x"])
def test_redirects_that_lead_nowhere_are_not_followed(server: Any, faulty: ModuleType, part: Path, to: str) -> None:
    moved = faulty.Fault(status=301, headers={"Location": to.format(url=server.url)})
    server.always = {PATH: moved, "again": moved}
    assert refused(Client(server.url).fetch, part).code is Code.UNREACHABLE
    assert len(server.asked) <= 6


def both(pki: Path, name: str, tmp_path: Path) -> Path:
    path = tmp_path / f"{name}.pem"
    path.write_text((pki / f"{name}.crt").read_text() + (pki / f"{name}.key").read_text())
    return path


def test_a_server_with_a_ca_of_its_own_is_believed_by_who_names_it(
    serve: Serve, pki: Path, tmp_path: Path, part: Path
) -> None:
    server = serve({PATH: FILE}, certificate=both(pki, "broker", tmp_path))
    assert Client(server.url, ca=pki / "ca.crt").fetch(part) == FILE
    for ca in (None, pki / "other-ca.crt"):
        client = Client(server.url, ca=ca)
        error = refused(client.source.read, PATH, len(FILE))
        assert error.code is Code.UNREACHABLE
        assert "CA" in error.mend
        assert not client.pauses
    for ca in (tmp_path / "none", both(pki, "broker", tmp_path).with_name("x.part")):
        assert refused(open_source, server.url, ca=ca).code is Code.UNREACHABLE


@pytest.mark.parametrize("name", ["broker-expired", "broker-to-come", "broker-elsewhere"])
def test_a_wrong_certificate_is_not_believed(serve: Serve, pki: Path, tmp_path: Path, name: str) -> None:
    server = serve({PATH: FILE}, certificate=both(pki, name, tmp_path))
    client = Client(server.url, ca=pki / "ca.crt")
    error = refused(client.source.read, PATH, len(FILE))
    assert "certificate" in error.what
    assert "clock" in error.mend
    assert not server.asked


def test_what_was_encrypted_stays_so(serve: Serve, server: Any, faulty: ModuleType, pki: Path, tmp_path: Path) -> None:
    secure = serve({}, certificate=both(pki, "broker", tmp_path))
    secure.always[PATH] = faulty.Fault(status=302, headers={"Location": f"{server.url}/{PATH}"})
    assert refused(Client(secure.url, ca=pki / "ca.crt").source.read, PATH, 10).code is Code.UNREACHABLE
    assert not server.asked


def test_a_proxy_of_the_environment_is_used(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    server.files["http://models.example/repo/a"] = b"by proxy"
    assert Client("http://models.example/repo").source.read("a", 10) == b"by proxy"


def test_the_agent_starts_without_what_updates_need() -> None:
    code = "import sys, tinysight_edge.runtime, tinysight_edge.update.sources, tinysight_edge.update.signed\n"
    code += "sys.exit(sum(name in sys.modules for name in ('urllib3', 'tuf', 'securesystemslib')))"
    subprocess.run([sys.executable, "-c", code], check=True)
