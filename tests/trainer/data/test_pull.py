"""Fetching hard examples: what breaks is tried again and gone on with, what is wrong is passed over and named."""

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import numpy as np
import pytest

from tinysight_contract.errors import ConfigError, DataError, FleetError
from tinysight_contract.messages import FrameSize, ModelRef
from tinysight_edge.pictures.examples import ANNOTATIONS, Example
from tinysight_edge.pictures.jpeg import write_jpeg
from tinysight_trainer.data import pull as pulling
from tinysight_trainer.data.pull import Server, pull

DEVICES = ["cam", "cam-2", "cam0"]
Row = tuple[str, str, str]


def picture(device: str, number: int) -> bytes:
    said = Example(
        site="plant-1",
        device=device,
        camera="gate",
        captured_at=datetime(2026, 11, 26, 12, number, tzinfo=UTC),
        reason="margin",
        frame=FrameSize(width=64, height=48),
        model=ModelRef(name="belt", version="1.0.0", digest="d" * 64),
        task="detect",
        detections=[],
    )
    return write_jpeg(np.full((48, 64, 3), 40 * number, np.uint8), said, quality=90)


class Fake(ThreadingHTTPServer):
    """A fleet's server that can be told to misbehave.

    Attributes:
        pictures: by site, device and digest, in order.
        asked: how often for each of them.
        trouble: what it does the next time it is asked for one: a status, or None to break off in the middle.
        page: rows of a page.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        found = [(device, picture(device, number)) for device in DEVICES for number in (0, 1)]
        self.pictures = dict(
            sorted((("plant-1", device, hashlib.sha256(raw).hexdigest()), raw) for device, raw in found)
        )
        self.asked: Counter[Row] = Counter()
        self.trouble: dict[Row, list[int | None]] = {}
        self.page = 2
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Fake

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/v1/examples":
            after = tuple(parse_qs(parts.query).get("after", [""])[0].split("/"))
            rows = [row for row in self.server.pictures if row > after][: self.server.page]
            items = [dict(zip(("site", "device", "digest"), row, strict=True), size_bytes=1) for row in rows]
            more = "/".join(rows[-1]) if len(rows) == self.server.page else None
            self.answer(200, msgspec.json.encode({"items": items, "next": more}))
            return
        site, device, digest = parts.path.removeprefix("/v1/examples/").split("/")
        row = site, device, digest
        self.server.asked[row] += 1
        if queue := self.server.trouble.get(row):
            if (status := queue.pop(0)) is not None:
                self.answer(status, b"{}")
                return
            self.answer(200, self.server.pictures[row], cut=True)
            self.close_connection = True
            return
        self.answer(200, self.server.pictures[row])

    def answer(self, status: int, body: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setattr(pulling, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # this machine is asked without one
    with Fake() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def shown(folder: Path) -> int:
    return len(msgspec.json.decode((folder / ANNOTATIONS).read_bytes())["images"])


def test_all_pages_come_whatever_the_devices_are_called(fake: Fake, tmp_path: Path) -> None:
    with Server(fake.url, "token") as server:
        done = pull(server, tmp_path, {})
    assert (done.pictures, done.devices, done.skipped, done.more) == (6, 3, (), False)
    assert shown(tmp_path) == 6


def test_what_breaks_is_tried_again_and_what_is_wrong_is_named(fake: Fake, tmp_path: Path) -> None:
    rows = list(fake.pictures)
    fake.trouble = {rows[0]: [None], rows[1]: [503, 429], rows[2]: [404]}
    fake.pictures[rows[3]] = b"something else"
    with Server(fake.url, "token") as server:
        done = pull(server, tmp_path, {})
    assert done.pictures == 4
    gone, wrong = done.skipped
    assert rows[2][2] in gone
    assert "It is gone" in gone
    assert rows[3][2] in wrong
    assert [fake.asked[row] for row in rows] == [2, 3, 1, 1, 1, 1]


def test_what_was_begun_is_gone_on_with(fake: Fake, tmp_path: Path) -> None:
    rows = list(fake.pictures)
    fake.trouble = {rows[3]: [503, None, 503]}
    with Server(fake.url, "token") as server:
        with pytest.raises(FleetError, match="3 pictures are kept"):
            pull(server, tmp_path, {})
        with pytest.raises(ConfigError, match="something else"):
            pull(server, tmp_path, {"site": "plant-1"})
        (damaged := next(tmp_path.glob("images/**/*.jpg"))).write_bytes(b"half")
        some = pull(server, tmp_path, {}, most=4)
        assert (some.pictures, some.more, shown(tmp_path)) == (4, True, 4)
        assert damaged.stat().st_size > 4
        done = pull(server, tmp_path, {}, most=6)
    assert (done.pictures, done.more, shown(tmp_path)) == (6, False, 6)
    assert sum(fake.asked.values()) == 6 + 3 + 1


def test_nothing_new_is_said(fake: Fake, tmp_path: Path) -> None:
    known = {digest for _, _, digest in fake.pictures}
    with Server(fake.url, "token") as server, pytest.raises(DataError, match="6 are in data sets already"):
        pull(server, tmp_path, {}, known=known)
    assert list(tmp_path.iterdir()) == []


def test_a_token_is_in_no_error(fake: Fake) -> None:
    with Server(fake.url, "hunter2\n") as server, pytest.raises(FleetError, match="cannot be reached") as told:
        list(server.rows({}))
    assert "hunter2" not in str(told.value)
    with pytest.raises(ConfigError, match="no address"):
        Server("https://[", "token")


def test_a_server_that_was_never_there_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PAUSES_S", (1e6,))
    with Server("http://127.0.0.1:9", "token") as server:
        with pytest.raises(FleetError, match=re.escape("cannot be reached")) as told:
            list(server.rows({}))
        assert isinstance(told.value.__cause__, httpx.ConnectError)
