"""``tinysight dashboard``: what a server of the page says, and to whom; and what it refuses to begin with."""

import gzip
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tinysight_contract.errors import ConfigError
from tinysight_deploy import cli
from tinysight_deploy.dashboard.settings import Settings
from tinysight_deploy.dashboard.site import application, export, policy, read_files
from tinysight_deploy.serving import Bind, address

Get = Callable[..., httpx.Response]
BROKER, API = "wss://broker.example.com:8084/mqtt", "https://fleet.example.com"
SETTINGS = Settings(BROKER, API)


@pytest.fixture(scope="module")
def http(module: Callable[[str], Any], built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server that runs."""
    assert built.is_dir()
    site = module("dashboard/playing").Site(tmp_path_factory.mktemp("site"), "site")
    site.start(BROKER, api=API)
    with httpx.Client(base_url=site.address, timeout=20) as client:
        yield client
    assert site.end() == 0, site.log
    assert f"--origin {site.address}" in site.log, "the fleet's server has to be told whom to answer"


def test_the_page_comes_with_a_policy_that_names_the_broker_and_the_server(http: httpx.Client) -> None:
    answer = http.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self' wss://broker.example.com:8084 https://fleet.example.com; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
    assert answer.headers["cache-control"] == "no-cache"
    assert not re.search(r"<script(?![^>]* src=)|<style|style=| on\w+=", answer.text), "the policy lets nothing inline"
    assert http.get("/index.html").content == answer.content


@pytest.mark.parametrize("path", ["/", "/config.json", "/none", "/../pyproject.toml"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_every_answer_binds_the_browser(http: httpx.Client, path: str, method: str) -> None:
    headers = http.request(method, path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in headers
    assert "strict-transport-security" not in headers, "there is no TLS here"


def test_the_page_is_told_where_the_broker_is(http: httpx.Client) -> None:
    answer = http.get("/config.json")
    assert answer.json() == {"broker": BROKER, "api": API}
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/json", "no-cache")


def test_hashed_files_are_kept_for_ever_and_come_compressed(http: httpx.Client, built: Path) -> None:
    script = next((built / "assets").glob("*.js"))
    path = f"/assets/{script.name}"
    packed = http.get(path, headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < script.stat().st_size / 2
    assert packed.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert packed.headers["content-type"] == "text/javascript; charset=utf-8"
    for accepted in ("identity", "gzip;q=0", ""):
        plain = http.get(path, headers={"Accept-Encoding": accepted})
        assert "content-encoding" not in plain.headers
        assert plain.content == packed.content == script.read_bytes()
        assert plain.headers["vary"] == "Accept-Encoding"


def test_what_a_browser_has_is_not_sent_again(http: httpx.Client) -> None:
    tag = http.get("/").headers["etag"]
    again = http.get("/", headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert http.get("/", headers={"If-None-Match": '"other"'}).status_code == 200


def test_head_says_the_same_without_the_page(http: httpx.Client) -> None:
    for path in ("/", "/config.json"):
        got, head = http.get(path), http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert {**head.headers, "date": ""} == {**got.headers, "date": ""}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_but_get_and_head(http: httpx.Client, method: str) -> None:
    answer = http.request(method, "/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/none", "/assets", "/assets/", "//", "/index.html/", "/.built-from", "/assets/../index.html",
        "/static/index.html", "/../../pyproject.toml", "/%2e%2e/site.py", "/..%2fsite.py",
        "/assets/%2e%2e/%2e%2e/site.py",
        "/..\\site.py", "/%00", "/etc/passwd", "//etc/passwd", "/index.html%00.js", "/" + "a" * 4000,
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_page(http: httpx.Client, path: str) -> None:
    """Sent as it is: clients would tidy it up."""
    where = urlsplit(str(http.base_url))
    with socket.create_connection((where.hostname, where.port), timeout=20) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        said = b"".join(iter(lambda: raw.recv(65536), b""))
    assert said.startswith(b"HTTP/1.1 404 "), said[:200]
    assert b"import" not in said


def test_with_tls_it_stays_with_tls(playing: Any, built: Path, pki: Path, tmp_path: Path) -> None:
    assert built.is_dir()
    site = playing.Site(tmp_path, "site")
    site.start(BROKER, options=("--cert", str(pki / "broker.crt"), "--key", str(pki / "broker.key")))
    try:
        assert site.address.startswith("https://")
        trust = ssl.create_default_context(cafile=pki / "ca.crt")
        answer = httpx.get(site.address, verify=trust, timeout=20)
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
    finally:
        assert site.end() == 0


# --- what it is told -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broker", "told", "origin"),
    [
        ("ws://127.0.0.1:1885?version=3", "ws://127.0.0.1:1885/mqtt?version=3", "ws://127.0.0.1:1885"),
        ("wss://broker.example.com", "wss://broker.example.com/mqtt", "wss://broker.example.com"),
        ("wss://broker.example.com:443/", "wss://broker.example.com/", "wss://broker.example.com"),
        ("ws://Broker.Example.COM:9001/a/b", "ws://broker.example.com:9001/a/b", "ws://broker.example.com:9001"),
        ("wss://bücher.example", "wss://xn--bcher-kva.example/mqtt", "wss://xn--bcher-kva.example"),
    ],
)
def test_a_broker_is_told_as_browsers_need_it(broker: str, told: str, origin: str) -> None:
    settings = Settings.parse(broker)
    assert json.loads(settings.config) == {"broker": told, "api": None}
    assert f"connect-src 'self' {origin};" in policy(settings)


@pytest.mark.parametrize(
    ("broker", "api", "said"),
    [
        pytest.param("mqtt://h", None, r"over WebSockets alone\. Name the broker's WebSocket listener", id="mqtt"),
        pytest.param("mqtts://h", None, "WebSocket listener", id="mqtts"),
        pytest.param("http://h", None, "scheme or port", id="no broker"),
        pytest.param("wss://anna:secret@h", None, "the page asks for them", id="password"),
        pytest.param("wss://h?ca=ca.crt", None, "Install the CA on the machines", id="ca"),
        pytest.param("wss://[::1]:8084", None, "IPv6", id="IPv6"),
        pytest.param("wss://a;script-src:8084", None, "no host|scheme or port", id="a directive for a host"),
        pytest.param("wss://a'b", None, "no host", id="a quote in a host"),
        pytest.param("wss://h/a;b", None, "other characters", id="a directive for a path"),
        pytest.param("wss://h/a b", None, "other characters", id="a blank in a path"),
        pytest.param(BROKER, "http://fleet.example.com", "in plain text", id="tokens in plain text"),
        pytest.param(BROKER, "https://a:b@fleet.example.com", "holds a password", id="password of the server"),
        pytest.param(BROKER, "fleet.example.com", "no address", id="no URL"),
        pytest.param(BROKER, "https://h?x=1", "no address", id="query"),
        pytest.param(BROKER, "https://h:99999", "no address", id="port"),
        pytest.param(BROKER, "https://*", "no host", id="any host"),
    ],
)
def test_what_a_browser_cannot_use_is_refused(broker: str, api: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Settings.parse(broker, api)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--bind", "0.0.0.0:0"), "--behind-proxy", id="plain text for everybody"),
        pytest.param(("--bind", "8400"), "is no address", id="no address"),
        pytest.param(("--cert", "none.crt"), "both --cert and --key", id="half of TLS"),
        pytest.param(("--export", "mine"), "no export of ours", id="a folder of somebody's"),
        pytest.param(("--broker", "ws://broker.example.com", "--behind-proxy"), "wss://", id="mixed content"),
    ],
)
def test_the_command_refuses_what_would_not_work(
    built: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, arguments: tuple[str, ...], said: str
) -> None:
    assert built.is_dir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "keep.txt").write_text("keep")
    assert cli._run(["dashboard", "--broker", "ws://127.0.0.1:1885", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["keep.txt"]


def test_a_page_that_is_not_built_is_said_with_what_mends_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make dashboard"):
        application(SETTINGS, folder=tmp_path)


def test_what_is_no_part_of_a_page_is_not_served(tmp_path: Path) -> None:
    for name in ("index.html", ".built-from", ".hidden.html", "notes.md", "assets/a-12345678.js", "assets/a.js.map"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert sorted(read_files(SETTINGS, tmp_path)) == ["assets/a-12345678.js", "config.json", "index.html"]
    big = tmp_path / "big.js"
    big.write_text("x" * 1000)
    assert gzip.decompress(read_files(SETTINGS, tmp_path)["big.js"].gzipped or b"") == big.read_bytes()


@pytest.mark.parametrize(
    ("bind", "tls", "url"),
    [
        ("127.0.0.1:8400", False, "http://127.0.0.1:8400"),
        ("Dash.Example.com:443", True, "https://dash.example.com"),
        ("[::1]:80", False, "http://[::1]"),
        ("[::1]:80", True, "https://[::1]:80"),
    ],
)
def test_the_address_is_written_as_browsers_send_it(bind: str, tls: bool, url: str) -> None:
    place = Bind.parse(bind)
    assert address(place, place.port, tls=tls) == url


def test_the_fleet_servers_origin_is_not_guessed_behind_a_proxy(playing: Any, built: Path, tmp_path: Path) -> None:
    assert built.is_dir()
    site = playing.Site(tmp_path, "site")
    site.start(BROKER, api=API, options=("--behind-proxy", "--bind", "0.0.0.0:0"))
    assert site.end() == 0
    assert "the origin at which browsers open this page" in " ".join(site.log.split())


def test_a_browser_that_does_not_return_keeps_nobody_from_the_page(playing: Any, built: Path, tmp_path: Path) -> None:
    assert built.is_dir()
    (tmp_path / "text-browser").write_text(f"#!/bin/sh\necho $1 > {tmp_path}/asked\nexec sleep 30\n")
    (tmp_path / "text-browser").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROWSER", f"{tmp_path}/text-browser %s")
        site = playing.Site(tmp_path, "site")
        site.start(BROKER, options=("--open",))
    assert httpx.get(site.address, timeout=20).status_code == 200
    assert site.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_server_that_is_told_to_end_before_it_listens_ends(number: int) -> None:
    """uvicorn hears signals only once it serves."""
    program = (
        "import os\n"
        "from tinysight_deploy.serving import Bind, heed_signals, listening, serve, server_of\n"
        "server = server_of(None)\n"
        "heed_signals(server)\n"
        f"os.kill(os.getpid(), {int(number)})\n"
        "with listening(Bind('127.0.0.1', 0)) as (listener, _):\n"
        "    serve(server, listener)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


# --- for another web server ------------------------------------------------------------------------------------------


def test_the_page_is_exported_for_any_web_server(tinysight: Any, built: Path, tmp_path: Path) -> None:
    done = tinysight("dashboard", "--broker", BROKER, "--api", API, "--export", "www", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    there = {path.relative_to(tmp_path / "www").as_posix() for path in (tmp_path / "www").rglob("*") if path.is_file()}
    own = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    page = (own - {".built-from"}) | {"config.json"}
    assert there == page | {".tinysight-dashboard"}
    assert told["files"] == len(page)
    assert json.loads((tmp_path / "www" / "config.json").read_text()) == {"broker": BROKER, "api": API}
    assert told["content_security_policy"] == policy(SETTINGS)
    assert (tmp_path / "www" / "index.html").read_bytes() == (built / "index.html").read_bytes()


def test_an_export_over_an_earlier_one_keeps_the_files_of_pages_that_are_open(tmp_path: Path) -> None:
    page, out = tmp_path / "page", tmp_path / "out"
    (page / "assets").mkdir(parents=True)
    (page / "index.html").write_text("1")
    (page / "assets" / "a-11111111.js").write_text("1")
    export(SETTINGS, out, folder=page)
    (page / "index.html").write_text("2")
    (page / "assets" / "a-11111111.js").rename(page / "assets" / "a-22222222.js")
    export(Settings(BROKER), out, folder=page)
    assert sorted(path.name for path in (out / "assets").iterdir()) == ["a-11111111.js", "a-22222222.js"]
    assert (out / "index.html").read_text() == "2"
    assert json.loads((out / "config.json").read_text())["api"] is None


def _full(*_: object) -> Path:
    raise OSError("The disk is full.")


def test_an_export_leaves_other_peoples_files_and_takes_up_one_that_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, out, other = tmp_path / "page", tmp_path / "out", tmp_path / "other"
    page.mkdir()
    other.mkdir()
    (page / "index.html").write_text("1")
    (other / "config.json").write_text("theirs")
    (other / "index.html").write_text("theirs")
    with pytest.raises(ConfigError, match="no export of ours"):
        export(SETTINGS, other, folder=page)
    assert {path.read_text() for path in other.iterdir()} == {"theirs"}
    monkeypatch.setattr(Path, "replace", _full)
    with pytest.raises(OSError, match="full"):
        export(SETTINGS, out, folder=page)
    monkeypatch.undo()
    assert export(SETTINGS, out, folder=page) == 2
    assert (out / "index.html").read_text() == "1"
