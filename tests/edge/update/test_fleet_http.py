"""While the broker is away a device asks the fleet's server; whatever that answers, MQTT's word is not lost."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract.errors import DeviceError
from tinysight_contract.messages import Desired, encode
from tinysight_edge.config.reloader import TAKE_S, Reloader
from tinysight_edge.config.types import AgentConfig, BrokerConfig, CameraConfig, FleetConfig, ModelConfig
from tinysight_edge.config.wanted import MAX_BYTES
from tinysight_edge.orders.asker import AWAY_S, EVERY_S, MOST_S, SPREAD_S, Asker, pause_s
from tinysight_edge.update import fleet_http
from tinysight_edge.update.fleet_http import Said, desired, open_line

PATH = "v1/devices/plant-1/gate-1/desired"
WISH = Desired(revision=7, bundle="ab" * 32, target="a/a-1.bundle", rollout="night", window="01:00-05:00")
RAW = encode(WISH)


@pytest.fixture
def server(serve: Callable[..., Any]) -> Any:
    """One that desires something of gate-1."""
    return serve({PATH: RAW}, prefix="tiny")


@pytest.fixture
def fleet(server: Any, tmp_path: Path) -> FleetConfig:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    return FleetConfig(url=server.url, token_file=token)


def ask(fleet: FleetConfig, etag: str | None = None) -> Said:
    with open_line(fleet) as line:
        return desired(line, fleet, "plant-1", "gate-1", etag=etag)


def test_it_says_what_the_broker_would_and_is_told_the_token(server: Any, fleet: FleetConfig) -> None:
    for url in (f"{fleet.url}/", fleet.url):
        said = ask(replace(fleet, url=url))
        assert (said.payload, said.revision, said.same) == (RAW, 7, False)
    assert [each.path for each in server.asked] == [PATH, PATH]
    assert server.asked[0].headers["authorization"] == "Bearer s3cret"
    again = ask(fleet, said.etag)
    assert (again.payload, again.etag, again.same) == (None, said.etag, True)
    server.files[PATH] = encode(replace(WISH, revision=8))
    assert ask(fleet, said.etag).revision == 8


def test_a_token_is_read_anew_and_none_is_told_without_a_file(server: Any, fleet: FleetConfig) -> None:
    assert fleet.token_file is not None
    fleet.token_file.write_text("another")
    ask(fleet)
    ask(replace(fleet, token_file=None))
    assert [each.headers.get("authorization") for each in server.asked] == ["Bearer another", None]


@pytest.mark.parametrize("token", [None, "", "two words", "one\rx: y", "ünïcode", "a\x07b"])
def test_what_is_no_token_is_never_sent(token: str | None, server: Any, fleet: FleetConfig) -> None:
    assert fleet.token_file is not None
    if token is None:
        fleet.token_file.unlink()
    else:
        fleet.token_file.write_text(token)
    with pytest.raises(DeviceError, match="tinysight fleet token") as told:
        ask(fleet)
    assert not token or token not in str(told.value)
    assert server.asked == []


@pytest.mark.parametrize(
    "how", [{"status": 204, "body": b""}, {"status": 200, "body": b""}], ids=["204", "an empty answer"]
)
def test_nothing_is_desired_there(how: dict[str, Any], server: Any, faulty: Any, fleet: FleetConfig) -> None:
    server.faults = [faulty.Fault(**how)]
    assert ask(fleet) == Said()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        pytest.param({"status": 401}, "answers 401. Make another token with `tinysight fleet token`", id="401"),
        pytest.param({"status": 403}, "answers 403. Make a token for this very site and device", id="403"),
        pytest.param({"status": 404}, "answers 404. Check the url under [fleet]", id="404"),
        pytest.param({"status": 503}, "answers 503. Look into the server's log", id="503"),
        pytest.param({"status": 304}, "answers 304.", id="304 without an ETag"),
        pytest.param({"status": 206}, "answers 206.", id="a part"),
        pytest.param({"body": b"<html>Please log in</html>"}, "is no desired state", id="a web page"),
        pytest.param({"body": b'{"revision": -1}'}, "is no desired state", id="nonsense"),
        pytest.param({"body": b" " * (MAX_BYTES + 1)}, "more than 65536 bytes", id="too large"),
        pytest.param({"endless": True}, "more than 65536 bytes", id="endless"),
        pytest.param({"length": 10**12, "cut_after": 10}, "more than 65536 bytes", id="said to be endless"),
        pytest.param({"cut_after": 20}, "cannot be reached", id="cut"),
        pytest.param({"garbage": b"SSH-2.0-OpenSSH\r\n"}, "cannot be reached", id="another protocol"),
        pytest.param({"headers": {"Content-Encoding": "gzip"}}, "encoding", id="compressed"),
        pytest.param({"silent": "connected"}, "comes too slowly", id="silent"),
        pytest.param({"silent": "headers"}, "comes too slowly", id="half an answer"),
        pytest.param({"drip_s": 0.05}, "comes too slowly", id="a byte now and then"),
        pytest.param({"drip_s": 0.05, "drip_headers": True}, "comes too slowly", id="headers byte by byte"),
        pytest.param({"status": 302, "headers": {"Location": "ftp://h/"}}, "is not followed", id="led astray"),
    ],
)
def test_what_is_of_no_use_is_told_with_what_to_do(
    how: dict[str, Any], said: str, server: Any, faulty: Any, fleet: FleetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_http, "ANSWER_S", 0.5)
    monkeypatch.setattr(fleet_http, "SILENCE_S", 0.3)
    server.faults = [faulty.Fault(**how)] * 2
    told = []
    for _ in range(2):
        with pytest.raises(DeviceError) as error:
            ask(fleet)
        told.append(str(error.value))
    assert said in told[0]
    assert told[0] == told[1], "the same trouble has the same words"
    assert "s3cret" not in told[0]


def test_a_redirect_to_another_server_is_not_told_the_token(
    server: Any, serve: Callable[..., Any], faulty: Any, fleet: FleetConfig
) -> None:
    other = serve({PATH: RAW}, prefix="tiny")
    server.faults = [faulty.Fault(status=307, headers={"Location": f"{other.url}/{PATH}"})]
    assert ask(fleet).revision == 7
    assert "authorization" not in other.asked[0].headers


def test_over_tls_the_server_is_checked(
    serve: Callable[..., Any], fleet: FleetConfig, pki: Path, tmp_path: Path
) -> None:
    def secured(name: str) -> Any:
        both = tmp_path / f"{name}.pem"
        both.write_bytes((pki / f"{name}.crt").read_bytes() + (pki / f"{name}.key").read_bytes())
        return serve({PATH: RAW}, prefix="tiny", certificate=both)

    good, elsewhere, expired = (secured(name) for name in ("broker", "broker-elsewhere", "broker-expired"))
    mine = replace(fleet, ca_file=pki / "ca.crt")
    assert ask(replace(mine, url=good.url)).revision == 7
    for config in (
        replace(fleet, url=good.url), replace(mine, url=elsewhere.url), replace(mine, url=expired.url),
        replace(mine, url=good.url, ca_file=pki / "other-ca.crt"),
    ):  # fmt: skip
        with pytest.raises(DeviceError, match="certificate is not trusted"):
            ask(config)
    assert len(good.asked) == 1, "nobody is told a token who is not checked"
    assert elsewhere.asked == expired.asked == []
    with pytest.raises(DeviceError, match="cannot be read as certificates"):
        ask(replace(fleet, url=good.url, ca_file=tmp_path / "token"))


def test_a_server_on_this_machine_is_asked_without_a_proxy(
    server: Any, serve: Callable[..., Any], fleet: FleetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve({})
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    assert ask(fleet).revision == 7
    assert (len(server.asked), proxy.asked) == (1, [])


# When it is asked.


class Device:
    """One whose broker and clock obey."""

    def __init__(self, fleet: FleetConfig | None, tmp_path: Path) -> None:
        self.config = AgentConfig(
            site="plant-1", device="gate-1", state=tmp_path, broker=BrokerConfig(url="mqtt://h"),
            model=ModelConfig(store=tmp_path), cameras={"gate": CameraConfig(source="0")}, fleet=fleet,
        )  # fmt: skip
        self.now_s = 1000.0
        self.away: float | None = 1000.0
        self.taken: list[bytes] = []
        self.asker = Asker(
            "plant-1", "gate-1", config=lambda: self.config, away_since_s=lambda: self.away, take=self.taken.append,
            clock=lambda: self.now_s, dice=lambda: 0.5,
        )  # fmt: skip

    def passes(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s = min(self.now_s + 5.0, until_s)
            self.asker.turn()


@pytest.fixture
def device(fleet: FleetConfig, tmp_path: Path) -> Device:
    return Device(fleet, tmp_path)


def test_it_asks_after_a_minute_without_a_broker_and_each_minute_from_then_on(server: Any, device: Device) -> None:
    device.passes(AWAY_S)
    assert server.asked == []
    device.passes(SPREAD_S)
    assert device.taken == [RAW]
    device.passes(10 * EVERY_S)
    assert 10 <= len(server.asked) <= 12
    assert device.taken == [RAW], "the ETag says that it is the same"
    server.files[PATH] = later = encode(replace(WISH, revision=8))
    device.passes(EVERY_S + 5)
    assert device.taken == [RAW, later]


def test_it_asks_nobody_while_there_is_a_broker_or_no_server(server: Any, device: Device) -> None:
    device.away = None
    device.passes(3600)
    device.away = device.now_s
    device.passes(AWAY_S - 5)
    device.away = None
    device.passes(5)
    device.away = device.now_s
    device.passes(AWAY_S - 5)
    assert server.asked == [], "a session in between begins it anew"
    device.config = replace(device.config, fleet=None)
    device.passes(3600)
    assert server.asked == []


def test_after_a_session_at_the_broker_it_is_asked_without_an_etag(server: Any, device: Device) -> None:
    device.passes(AWAY_S + SPREAD_S)
    device.away = None
    device.passes(5)
    device.away = device.now_s
    device.passes(AWAY_S + SPREAD_S)
    assert device.taken == [RAW, RAW], "the broker may have said something else meanwhile"
    assert "if-none-match" not in server.asked[-1].headers


def test_a_server_that_does_not_answer_is_asked_less_often_and_logged_once(
    server: Any, faulty: Any, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for status in (401, 403, 404):
        server.always[PATH] = faulty.Fault(status=status)
        device.passes(3600)
        assert caplog.text.count(f"the server answers {status}") == 1
    assert len(server.asked) < 20
    assert device.taken == []
    del server.always[PATH]
    device.passes(MOST_S + 5)
    assert device.taken == [RAW]
    count = len(server.asked)
    device.passes(4 * EVERY_S)
    assert len(server.asked) >= count + 3, "as often as at first"
    assert "s3cret" not in caplog.text


def test_that_nothing_is_desired_there_is_said_and_handed_to_nobody(
    server: Any, faulty: Any, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.always[PATH] = faulty.Fault(status=204, body=b"")
    device.passes(1800)
    assert len(server.asked) > 20
    assert device.taken == []
    assert caplog.text.count("nothing is desired there") == 1


def test_pauses_grow_to_a_quarter_of_an_hour_and_keep_devices_apart() -> None:
    assert [pause_s(failures, 0.5) for failures in (0, 1, 2, 3, 4, 99)] == [60.0, 120.0, 240.0, 480.0, 900.0, 900.0]
    assert pause_s(0, 0.0) == 45.0
    assert pause_s(0, 1.0) == 75.0


def test_its_thread_asks_by_itself_and_ends_at_once_although_the_server_is_silent(
    server: Any, faulty: Any, device: Device, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr("tinysight_edge.orders.asker.TICK_S", 0.02)
    monkeypatch.setattr(fleet_http, "SILENCE_S", 3600.0)
    monkeypatch.setattr(fleet_http, "ANSWER_S", 3600.0)
    device.now_s += AWAY_S + SPREAD_S
    server.always[PATH] = faulty.Fault(silent="headers")
    with device.asker:
        eventually(lambda: server.asked)
    eventually(lambda: not any(each.name == "asker" for each in threading.enumerate()))
    assert device.taken == []


def test_what_breaks_in_it_ends_nothing_else(
    device: Device, caplog: pytest.LogCaptureFixture, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.now_s += AWAY_S + SPREAD_S

    def broken() -> AgentConfig:
        raise RuntimeError("broken")

    monkeypatch.setattr("tinysight_edge.orders.asker.TICK_S", 0.02)
    monkeypatch.setattr(device.asker, "_config", broken)
    with device.asker:
        eventually(lambda: "report this as a bug" in caplog.text)


# What becomes of it.


def test_it_is_taken_as_mqtts_word_is_and_a_stale_one_is_passed_over(
    server: Any, device: Device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.bundle").touch()
    (tmp_path / "agent.toml").write_text(
        'site = "plant-1"\ndevice = "gate-1"\nstate = "state"\nbroker = {url = "mqtt://h"}\n'
        'model = {bundle = "a.bundle"}\ncameras.gate.source = "0"\n'
    )
    reloader, now_s = Reloader(tmp_path / "agent.toml", tmp_path / "memory", environ={}), 0.0
    reloader.start(now_s)

    def asked() -> int:
        nonlocal now_s
        while device.taken:
            reloader.ask(device.taken.pop(0))
        now_s += TAKE_S
        reloader.poll(now_s)
        return reloader.became.revision

    device.passes(AWAY_S + SPREAD_S)
    assert asked() == 7
    assert reloader.wish is not None
    assert reloader.wish.window == "01:00-05:00"
    server.files[PATH] = encode(replace(WISH, revision=6, bundle="cd" * 32))
    device.passes(EVERY_S + 5)
    assert (asked(), reloader.wish.digest) == (7, "ab" * 32)
    assert "revision 6 is passed over" in caplog.text
    reloader.ask(encode(replace(WISH, revision=9)))  # the broker is back
    server.files[PATH] = encode(replace(WISH, revision=8))
    device.passes(EVERY_S + 5)
    assert asked() == 9
