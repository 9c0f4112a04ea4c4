"""``tinysight broker``: one broker, three ways in."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from tinysight_contract.mqtt import Address, Connection, Will
from tinysight_deploy.brokers import web as web_relay
from tinysight_deploy.brokers.broker import free_ports


def begun() -> Iterator[dict[str, str]]:
    for _ in range(5):  # three neighbouring free ports are likely, not certain
        port = free_ports().mqtt5
        command = [sys.executable, "-m", "tinysight_deploy", "broker", "--port", str(port), "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if line := process.stdout.readline():
            break
        process.communicate()
    yield json.loads(line)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


@pytest.fixture
def urls() -> Iterator[dict[str, str]]:
    yield from begun()


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """The address for WebSockets of a broker that lives as long as this file."""
    for urls in begun():
        yield urls["websocket"]


def keeper(kept: set[bytes]) -> Callable[[str, bytes, bool], None]:
    return lambda _topic, payload, _retained: kept.add(payload)


def test_a_message_crosses_from_each_protocol_to_each_other(urls: dict[str, str], eventually: Any) -> None:
    heard: dict[str, set[bytes]] = {name: set() for name in urls}
    connections = {}
    for name, url in urls.items():
        connections[name] = Connection(Address.parse(url), client_id=f"test-{name}", on_message=keeper(heard[name]))
        connections[name].open(timeout_s=5)
        connections[name].subscribe("x/#")
    eventually(lambda: all(connection.subscribed for connection in connections.values()))
    for name, connection in connections.items():
        connection.publish("x/y", name.encode(), qos=1, retain=False)
    everyone = {name.encode() for name in urls}
    eventually(lambda: all(said == everyone for said in heard.values()))
    for connection in connections.values():
        connection.close()


def test_retained_messages_and_wills_work_as_the_contract_needs(urls: dict[str, str], eventually: Any) -> None:
    heard: list[tuple[str, bytes, bool]] = []
    speaker = Connection(Address.parse(urls["mqtt5"]), client_id="speaker", will=Will("x/will", b"gone"))
    speaker.open(timeout_s=5)
    speaker.publish("x/state", b"on", qos=1, retain=True)
    time.sleep(0.3)
    reader = Connection(
        Address.parse(urls["mqtt3"]), client_id="reader", on_message=lambda *message: heard.append(message)
    )
    reader.open(timeout_s=5)
    reader.subscribe("x/#")
    eventually(lambda: ("x/state", b"on", True) in heard)
    speaker._client._sock_close()  # the connection dies without a goodbye
    eventually(lambda: any(topic == "x/will" and payload == b"gone" for topic, payload, _ in heard))
    reader.close()
    speaker.abandon()


@pytest.mark.parametrize("host", ["::1", "example", "1.2.3.4.5", '"x'])
def test_a_host_that_is_no_ipv4_address_is_said_in_one_line(host: str, tinysight: Any) -> None:
    done = tinysight("broker", "--host", host)
    assert done.returncode == 2
    assert "no IPv4 address" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_in_use_is_said_in_one_line(urls: dict[str, str], tinysight: Any) -> None:
    port = urls["mqtt5"].rsplit(":", 1)[1]
    done = tinysight("broker", "--port", port)
    assert done.returncode == 2
    assert "does not start" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_browser_hears_what_devices_send_with_mqtt_5(urls: dict[str, str], eventually: Any) -> None:
    """Topic aliases and expiries, for which rumqttd's own WebSockets end a session; and the largest messages."""
    heard: list[tuple[str, bytes, bool]] = []
    reader = Connection(Address.parse(urls["websocket"]), client_id="", on_message=lambda *each: heard.append(each))
    reader.open(timeout_s=5)
    reader.subscribe("x/#")
    eventually(lambda: reader.subscribed)
    device = Connection(Address.parse(urls["mqtt5"]), client_id="device")
    device.open(timeout_s=5)
    for number in range(3):
        device.publish("x/event", b"%d" % number, qos=1, retain=False, often=True)
    device.publish("x/frame", b"y" * 900_000, qos=0, retain=False, lives_s=10)
    eventually(lambda: len(heard) == 4)
    assert [(topic, payload) for topic, payload, _ in heard[:3]] == [("x/event", b"%d" % n) for n in range(3)]
    assert heard[3][1] == b"y" * 900_000
    reader.publish("x/large", b"z" * 900_000, qos=1, retain=False)  # the other way
    eventually(lambda: heard[-1][:2] == ("x/large", b"z" * 900_000))
    assert reader.alive
    for each in (reader, device):
        each.close()


KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455, section 1.3
HEAD = (
    "GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n"
)


def asked(url: str, head: str, *more: bytes) -> tuple[bytes, bytes]:
    """What a raw client is answered: the head, and all after it."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as raw:
        raw.sendall(head.format(port=where.port).encode() + b"\r\n")
        for each in more:
            raw.sendall(each)
        said = b""
        with suppress(ConnectionResetError):
            while part := raw.recv(65536):
                said += part
    head_said, _, rest = said.partition(b"\r\n\r\n")
    return head_said, rest


def masked(kind: int, data: bytes, *, last: bool = True) -> bytes:
    mask = b"\x01\x02\x03\x04"
    assert len(data) < 126
    body = bytes(each ^ mask[place % 4] for place, each in enumerate(data))
    return bytes((kind | (0x80 if last else 0), 0x80 | len(data))) + mask + body


CONNECT = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02me"


def test_frames_may_be_split_anywhere_and_pings_are_answered(web: str) -> None:
    parts = [masked(0x2, CONNECT[:1], last=False), masked(0x0, CONNECT[1:9], last=False), masked(0x9, b"are you there")]
    parts += [masked(0x0, CONNECT[9:]), masked(0x2, b"\xe0\x00")]  # DISCONNECT
    head, rest = asked(web, HEAD, *parts)
    assert b" 101 " in head.splitlines()[0]
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, "as RFC 6455 says of this key"
    assert rest.startswith(b"\x8a\x0dare you there"), "a pong"
    assert b"\x20\x02\x00\x00" in rest, "CONNACK of MQTT 3.1.1"


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        pytest.param([b"\x82\x02ab"], "not masked", id="not masked"),
        pytest.param([b"\x82\xff" + (1 << 40).to_bytes(8) + b"abcd"], "too large", id="too large"),
        pytest.param([masked(0x1, b"text")], "text", id="text"),
        pytest.param([masked(0x2, b"\x30\x03\x00\x01a")], "no CONNECT", id="no CONNECT"),
        pytest.param([masked(0x2, b"\x10\xff\xff\xff\xff\xff")], "no length", id="no length"),
        pytest.param([b"\xc2\x80abcd"], "an extension that nobody agreed on", id="reserved bits"),
    ],
)
def test_what_breaks_the_protocol_is_hung_up_on(web: str, frames: list[bytes], why: str) -> None:
    assert asked(web, HEAD, *frames)[1] == b"", why


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8400", b" 101 "), ("http://localhost:5173", b" 101 "), ("http://[::1]:8400", b" 101 "),
        ("https://evil.example", b" 403 "), ("http://127.0.0.1.evil.example", b" 403 "), ("null", b" 403 "),
        ("http://192.0.2.1", b" 403 "), ("http://[", b" 403 "),
    ],
)  # fmt: skip
def test_a_page_of_another_machine_is_refused(web: str, origin: str, status: bytes) -> None:
    """A browser would lend it the broker of the machine that it runs on."""
    close = masked(0x8, b"\x03\xe8")
    assert status in asked(web, f"{HEAD}Origin: {origin}\r\n", close)[0].splitlines()[0]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("evil.example", b" 403 "),
        ("192.0.2.1", b" 101 "),
        ("[2001:db8::1]", b" 101 "),
        (socket.gethostname(), b" 101 "),
    ],
)
def test_only_an_address_or_a_name_of_this_machine_counts_as_the_same_place(web: str, name: str, status: bytes) -> None:
    """Whoever owns a name may have it mean this machine once the page is loaded; then origin and host agree."""
    head = HEAD.replace("127.0.0.1", name) + f"Origin: http://{name}:8400\r\n"
    assert status in asked(web, head, masked(0x8, b"\x03\xe8"))[0].splitlines()[0]


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, socket.socket]]:
    """A relay in this process whose patience is short for two clients, and what it takes for a broker."""
    monkeypatch.setattr(web_relay, "MOST_CLIENTS", 2)
    monkeypatch.setattr(web_relay, "HEAD_S", 60.0)
    for name in ("STALL_S", "END_S"):
        monkeypatch.setattr(web_relay, name, 0.5)
    port = free_ports().websocket
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.settimeout(20)
        mine = broker.getsockname()[1]
        with web_relay.relaying("127.0.0.1", port, mqtt5=mine, mqtt3=mine):
            yield f"ws://127.0.0.1:{port}", broker


def test_little_is_held_for_a_client_that_has_not_said_that_it_speaks_mqtt(relayed: tuple[str, socket.socket]) -> None:
    start = b"\x82\xff" + (100_000).to_bytes(8) + b"abcd"
    assert asked(relayed[0], HEAD, start)[1] == b"", "it is hung up on before the frame is there"


def test_only_so_many_clients_are_let_in(relayed: tuple[str, socket.socket]) -> None:
    where = urlsplit(relayed[0])
    place = (where.hostname or "", where.port or 0)
    with ExitStack() as stack:
        *_, third = [stack.enter_context(socket.create_connection(place, timeout=20)) for _ in range(3)]
        assert third.recv(100).startswith(b"HTTP/1.1 503 ")


def test_a_client_that_takes_nothing_more_is_left(relayed: tuple[str, socket.socket]) -> None:
    url, broker = relayed
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as client:
        client.sendall(HEAD.format(port=where.port).encode() + b"\r\n" + masked(0x2, CONNECT))
        told, _ = broker.accept()
        told.settimeout(20)
        with told, pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            told.sendall(b"x" * (64 << 20))  # more than all the buffers on the way have room for


def test_what_is_no_websocket_is_told_so(web: str) -> None:
    assert b" 426 " in asked(web, "GET / HTTP/1.1\r\nHost: h\r\n")[0]
    assert b" 400 " in asked(web, HEAD.replace("Protocol: mqtt", "Protocol: chat"))[0]
    assert asked(web, "GET / HTTP/1.1\r\nX: " + "x" * 20_000 + "\r\n") == (b"", b"")
