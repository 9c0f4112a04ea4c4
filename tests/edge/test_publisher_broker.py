"""The publisher and brokers that come, go, refuse and keep it waiting."""

import contextlib
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.errors import BrokerError
from tinysight_contract.messages import Counts, Event, Health, State, Status, decode, utc_now
from tinysight_edge import calling
from tinysight_edge import publisher as publisher_module
from tinysight_edge.config.file import address_of
from tinysight_edge.config.types import BrokerConfig
from tinysight_edge.publisher import Publisher

GOLDEN = Path(__file__).parents[1] / "golden"
EXAMPLE = decode((GOLDEN / "event.json").read_bytes(), Event)
EVENTS = t.EventTopic("plant-1", "belt-7", "cam0")
COUNTS = t.CountsTopic("plant-1", "belt-7", "cam0")

Make = Callable[..., Publisher]


def counts(number: int) -> Counts:
    return Counts(at=utc_now(), boot_id="b1", objects={"7": number}, zones={}, lines={})


def test_events_of_an_outage_arrive_once_flagged_as_replayed(
    make_mosquitto: Any, make_reader: Any, make_publisher: Make, eventually: Any
) -> None:
    broker = make_mosquitto()
    broker.start()
    publisher = make_publisher(broker.url)
    publisher.wait_first_connect()
    publisher.event(EVENTS, replace(EXAMPLE, seq=1))
    eventually(lambda: publisher.sent == 1)
    broker.kill()
    for seq in range(2, 52):
        publisher.event(EVENTS, replace(EXAMPLE, seq=seq))
    broker.start()
    reader = make_reader(broker.url)
    eventually(lambda: publisher.sent == 51)
    publisher.event(EVENTS, replace(EXAMPLE, seq=52))
    eventually(lambda: publisher.sent == 52)
    eventually(lambda: len(reader.events()) >= 51)
    heard = {event.seq: event.replayed for event in reader.events()}
    assert sorted(heard) == list(range(2, 53))
    assert [seq for seq, replayed in heard.items() if not replayed] == [52]


def test_state_is_told_again_after_an_outage(
    make_mosquitto: Any, make_reader: Any, make_publisher: Make, eventually: Any
) -> None:
    broker = make_mosquitto()
    broker.start()
    publisher = make_publisher(broker.url)
    publisher.wait_first_connect()
    publisher.state(COUNTS, counts(1))
    broker.kill()
    publisher.state(COUNTS, counts(3))
    broker.start()
    reader = make_reader(broker.url)
    eventually(lambda: reader.of(t.CountsTopic) and reader.of(t.StatusTopic))
    assert decode(reader.of(t.CountsTopic)[-1], Counts).objects == {"7": 3}


def test_what_could_not_be_sent_waits_for_the_next_start(
    make_mosquitto: Any, make_reader: Any, make_publisher: Make, eventually: Any
) -> None:
    broker = make_mosquitto()
    first = make_publisher(broker.url)
    with pytest.raises(BrokerError, match="No broker answers"):
        first.wait_first_connect()
    first.event(EVENTS, replace(EXAMPLE, seq=1))
    assert first.close(drain_s=0.5) == 1
    broker.start()
    reader = make_reader(broker.url)
    second = make_publisher(broker.url)
    eventually(lambda: second.sent == 1)
    eventually(reader.events)
    assert reader.events() == [replace(EXAMPLE, seq=1, replayed=True)]


def test_when_we_vanish_the_broker_says_so(mosquitto: Any, make_reader: Any, eventually: Any) -> None:
    code = (
        "import sys, time; from tinysight_contract.mqtt import *; from tinysight_contract.messages import *\n"
        "gone = Status(state=State.OFFLINE, boot_id='b1', reason='connection lost', at=utc_now())\n"
        "will = Will('tinysight/v1/plant-1/belt-7/status', encode(gone))\n"
        "Connection(Address.parse(sys.argv[1]), client_id='x', will=will).open(timeout_s=5); print('up', flush=True)\n"
        "time.sleep(60)"
    )
    reader = make_reader(mosquitto.url)
    with subprocess.Popen([sys.executable, "-c", code, mosquitto.url], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    eventually(lambda: reader.of(t.StatusTopic))
    assert decode(reader.of(t.StatusTopic)[0], Status).state is State.OFFLINE


def test_a_wrong_password_is_a_refusal_with_its_mend(make_mosquitto: Any, make_publisher: Make, tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("")
    broker = make_mosquitto(f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}")
    broker.start()
    publisher = make_publisher(broker.url.replace("://", "://user:wrong@"))
    with pytest.raises(BrokerError, match=r"refuses the connection: .*password"):
        publisher.wait_first_connect()


def test_a_password_that_was_changed_meanwhile_counts_at_the_next_connect(
    make_mosquitto: Any, make_publisher: Make, tmp_path: Path, eventually: Any
) -> None:
    def let_in(password: str) -> None:
        subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "passwords", "me", password], check=True)

    let_in("old")
    broker = make_mosquitto(f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}")
    broker.start()
    secret = tmp_path / "secret"
    secret.write_text("old")
    config = BrokerConfig(url=broker.url, username="me", password_file=secret)
    publisher = make_publisher(partial(address_of, config, {}))
    publisher.wait_first_connect()
    broker.kill()
    let_in("new")
    secret.unlink()  # half of a change
    broker.start()
    publisher.event(EVENTS, replace(EXAMPLE, seq=1))
    secret.write_text("new")
    eventually(lambda: publisher.sent == 1)


def test_a_password_that_cannot_be_had_is_said_and_tried_again(
    mosquitto: Any, make_publisher: Make, tmp_path: Path, eventually: Any
) -> None:
    secret = tmp_path / "secret"
    config = BrokerConfig(url=mosquitto.url, username="me", password_file=secret)
    publisher = make_publisher(partial(address_of, config, {}))
    with pytest.raises(BrokerError, match="secret cannot be read"):
        publisher.wait_first_connect()
    secret.write_text("any")
    eventually(lambda: publisher.away_since_s is None)


def test_an_event_that_the_broker_refuses_is_counted_and_not_sent_for_ever(
    make_mosquitto: Any, make_reader: Any, make_publisher: Make, tmp_path: Path, eventually: Any
) -> None:
    (tmp_path / "acl").write_text("topic read #\ntopic write tinysight/v1/+/+/health\n")
    broker = make_mosquitto(f"allow_anonymous true\nacl_file {tmp_path / 'acl'}")
    broker.start()
    reader = make_reader(broker.url)
    publisher = make_publisher(broker.url, every_s=0.2)
    publisher.event(EVENTS, replace(EXAMPLE, seq=1))
    eventually(lambda: publisher.waiting == 0)
    eventually(lambda: reader.of(t.HealthTopic) and decode(reader.of(t.HealthTopic)[-1], Health).outbox.discarded)
    assert decode(reader.of(t.HealthTopic)[-1], Health).outbox.discarded == {"refused": 1}
    assert publisher.sent == 0


Fake = Callable[[bytes | None], tuple[str, list[bytes]]]


@pytest.fixture
def fake_broker() -> Iterator[Fake]:
    """Make something that takes connections, gives one answer and hangs up, or with None says nothing for ever.

    Its address, and what each connection said first.
    """
    servers: list[socket.socket] = []

    def make(answer: bytes | None) -> tuple[str, list[bytes]]:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        heard: list[bytes] = []
        silent: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):  # the server is shut down at the end of the test
                while True:
                    client, _ = server.accept()
                    heard.append(client.recv(65536))
                    if answer is None:
                        silent.append(client)
                    else:
                        client.sendall(answer)
                        client.close()
            for client in silent:
                client.close()

        threading.Thread(target=serve, daemon=True).start()
        return f"mqtt://127.0.0.1:{server.getsockname()[1]}?version=3", heard

    yield make
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_something_that_speaks_no_mqtt_is_told_apart_from_a_refusal(fake_broker: Fake, make_publisher: Make) -> None:
    url, _ = fake_broker(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(BrokerError, match="does not speak MQTT"):
        make_publisher(url).wait_first_connect()


def test_something_that_says_nothing_is_told_apart_from_both(
    fake_broker: Fake, make_publisher: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "CONNECT_TIMEOUT_S", 0.3)
    url, _ = fake_broker(None)
    with pytest.raises(BrokerError, match=r"says nothing. Check the network"):
        make_publisher(url).wait_first_connect()


def test_events_are_on_disk_while_a_broker_keeps_us_waiting(
    fake_broker: Fake, make_publisher: Make, tmp_path: Path, eventually: Any
) -> None:
    url, heard = fake_broker(None)
    publisher = make_publisher(url)
    eventually(lambda: heard)
    publisher.event(EVENTS, replace(EXAMPLE, seq=1))
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as other:
        eventually(lambda: other.execute("SELECT count(*) FROM event").fetchone()[0] == 1)
        assert not publisher._first_try.is_set(), "it is still waiting for the broker"


def test_a_broker_that_says_nothing_does_not_keep_a_publisher_from_ending(
    fake_broker: Fake, make_publisher: Make, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr(calling, "CONNECT_TIMEOUT_S", 100.0)
    url, heard = fake_broker(None)
    publisher = make_publisher(url)
    eventually(lambda: heard)
    publisher.event(EVENTS, replace(EXAMPLE, seq=1))
    closing = threading.Thread(target=publisher.close, kwargs={"drain_s": 0.1})
    closing.start()
    eventually(lambda: not closing.is_alive())
    assert publisher.waiting == 1


def test_when_the_broker_takes_no_goodbye_its_will_says_it(
    mosquitto: Any, make_reader: Any, make_publisher: Make, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    reader = make_reader(mosquitto.url)
    publisher = make_publisher(mosquitto.url)
    publisher.wait_first_connect()
    monkeypatch.setattr(publisher_module, "GOODBYE_S", (0.0, 0.0))
    publisher.close(drain_s=5)
    eventually(lambda: any(decode(raw, Status).reason == "connection lost" for raw in reader.of(t.StatusTopic)))


def test_a_broker_that_takes_us_and_drops_us_is_not_stormed(fake_broker: Fake, make_publisher: Make) -> None:
    url, heard = fake_broker(bytes((0x20, 2, 0, 0)))  # CONNACK of MQTT 3.1.1: accepted
    make_publisher(url)
    time.sleep(3.0)
    assert 1 <= len(heard) <= 6


def test_a_refusal_is_a_state_that_ends_when_it_is_mended(
    make_mosquitto: Any,
    make_proxy: Any,
    make_publisher: Make,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    eventually: Any,
) -> None:
    monkeypatch.setattr(publisher_module, "REFUSED_S", 2.0)
    (tmp_path / "passwords").write_text("")
    broker = make_mosquitto(f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}")
    broker.start()
    proxy = make_proxy(broker.port)
    publisher = make_publisher(proxy.url.replace("://", "://me:right@"))
    eventually(lambda: publisher.refusal is not None)
    assert "Check the user name, the password" in str(publisher.refusal)
    publisher.event(EVENTS, replace(EXAMPLE, seq=1))
    asked = len(proxy.links)
    time.sleep(0.9)  # less than the least that it waits
    assert len(proxy.links) == asked, "it is not asked again and again"
    assert publisher.refusal is not None
    assert publisher.waiting == 1
    subprocess.run(["mosquitto_passwd", "-b", tmp_path / "passwords", "me", "right"], check=True)
    broker.process.send_signal(signal.SIGHUP)
    eventually(lambda: publisher.sent == 1)
    assert publisher.refusal is None


def test_another_client_with_our_id_is_a_refusal(fake_broker: Fake, make_publisher: Make, eventually: Any) -> None:
    """Mosquitto 2.0.11 hangs up without saying so; brokers of MQTT 5 may."""
    url, heard = fake_broker(bytes((0x20, 3, 0, 0, 0, 0xE0, 1, 0x8E)))  # CONNACK, then DISCONNECT: taken over
    publisher = make_publisher(url.replace("?version=3", ""))
    eventually(lambda: publisher.refusal is not None)
    assert "give each device an id of its own" in str(publisher.refusal)
    time.sleep(1.5)
    assert len(heard) == 1, "it does not take the id back at once"


def test_what_is_too_large_for_the_broker_is_counted_and_costs_no_session(
    make_mosquitto: Any, make_reader: Any, make_publisher: Make, eventually: Any
) -> None:
    broker = make_mosquitto("allow_anonymous true\nmax_packet_size 3000")
    broker.start()
    reader = make_reader(broker.url)
    publisher = make_publisher(broker.url, every_s=0.2)
    publisher.wait_first_connect()
    large = replace(EXAMPLE, seq=2, label="x" * 3000)
    for event in (replace(EXAMPLE, seq=1), large, replace(EXAMPLE, seq=3)):
        publisher.event(EVENTS, event)
    publisher.foreign("large", bytes(4000))
    eventually(lambda: publisher.sent == 2)
    eventually(lambda: [event.seq for event in reader.events()] == [1, 3])
    eventually(lambda: publisher.waiting == 0)
    assert publisher.outbox_health().discarded == {"oversize": 1}
    assert publisher.broker_health().refused == {"too large for the broker": 1}
    assert publisher.broker_health().sessions == 1


def test_what_is_acknowledged_with_the_last_breath_is_not_sent_again(make_publisher: Make, eventually: Any) -> None:
    """A broker that takes all it is sent and hangs up at once, each time."""
    came: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        client.recv(65536)
                        client.sendall(bytes((0x20, 2, 0, 0)))
                        time.sleep(0.6)
                        packets = _publishes(client.recv(1 << 20))
                        came.extend(seq for _, seq in packets if seq is not None)
                        client.sendall(b"".join(b"\x40\x02" + number for number, _ in packets))

        threading.Thread(target=serve, daemon=True).start()
        publisher = make_publisher(f"mqtt://127.0.0.1:{server.getsockname()[1]}?version=3")
        for seq in range(1, 6):
            publisher.event(EVENTS, replace(EXAMPLE, seq=seq))
        eventually(lambda: publisher.sent == 5)
        assert sorted(came) == [1, 2, 3, 4, 5]
        server.shutdown(socket.SHUT_RDWR)


def _publishes(raw: bytes) -> list[tuple[bytes, int | None]]:
    """Message number of each PUBLISH at QoS 1, and its event's seq."""
    found = []
    while len(raw) > 2:
        at, size, shift = 1, 0, 0
        while True:
            size |= (raw[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if raw[at - 1] < 0x80:
                break
        body, head = raw[at : at + size], raw[0]
        raw = raw[at + size :]
        if head & 0xF6 == 0x32:
            end = 2 + int.from_bytes(body[:2])
            seq = re.search(rb'"seq":(\d+)', body)
            found.append((body[end : end + 2], int(seq[1]) if seq else None))
    return found
