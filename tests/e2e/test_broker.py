"""``tinysight broker``: one broker, three ways in."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tinysight_contract.mqtt import Address, Connection, Will
from tinysight_deploy.brokers.broker import free_ports


@pytest.fixture
def urls() -> Iterator[dict[str, str]]:
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
