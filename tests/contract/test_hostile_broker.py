"""A broker that says what no broker should: it costs the session, or the message, and nothing else."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tinysight_contract.client import connect
from tinysight_contract.errors import BrokerError
from tinysight_contract.mqtt import MOST_BYTES, Address, Connection

ACCEPTED = bytes((0x20, 2, 0, 0))
Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Something that accepts a session of MQTT 3.1.1 and then does as told, with each connection; its address."""
    servers: list[socket.socket] = []

    def make(then: Callable[[socket.socket], None]) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def run() -> None:
            try:
                while True:
                    client, _ = server.accept()
                    with client:
                        client.recv(65536)
                        client.sendall(ACCEPTED)
                        then(client)
                        while client.recv(65536):
                            pass
            except OSError:  # the server is shut down at the end of the test, or the client has gone
                return

        threading.Thread(target=run, daemon=True).start()
        return f"mqtt://127.0.0.1:{server.getsockname()[1]}?version=3"

    yield make
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def message(topic: bytes, payload: bytes, *, qos: int = 0) -> bytes:
    number = b"\0\1" if qos else b""
    body = len(topic).to_bytes(2) + topic + number + payload
    length, size = b"", len(body)
    while size or not length:
        length += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
        size >>= 7
    return bytes([0x30 | qos << 1]) + length + body


def test_a_topic_that_is_no_text_costs_that_message_alone(serve: Serve, eventually: Any) -> None:
    url = serve(lambda client: client.sendall(message(b"\xff\xfe", b"x") + message(b"a/b", b"y")))
    heard: list[tuple[str, bytes, bool]] = []
    connection = Connection(Address.parse(url), client_id="", on_message=lambda *each: heard.append(each))
    connection.open(timeout_s=5)
    eventually(lambda: heard)
    assert heard == [("a/b", b"y", False)]
    assert connection.alive
    connection.close()


def test_a_packet_larger_than_asked_for_is_not_taken_in(serve: Serve, eventually: Any) -> None:
    url = serve(lambda client: client.sendall(message(b"a/b", bytes(2 * MOST_BYTES))))
    heard: list[tuple[str, bytes, bool]] = []
    connection = Connection(Address.parse(url), client_id="", on_message=lambda *each: heard.append(each))
    with suppress(BrokerError):  # it may have gone before we look
        connection.open(timeout_s=5)
    eventually(lambda: not connection.alive)
    assert "more than was asked for" in connection.ended
    assert heard == []
    connection.close()


def test_a_broker_that_refuses_every_subscription_is_an_error_with_its_mend(serve: Serve) -> None:
    def refuse(client: socket.socket) -> None:
        asked = client.recv(65536)
        filters = asked.count(b"tinysight/v1/")
        client.sendall(bytes((0x90, 2 + filters)) + number_of(asked) + b"\x80" * filters)

    async def read() -> None:
        async with connect(serve(refuse)):
            raise AssertionError("it is deaf")

    with pytest.raises(BrokerError, match=r"refuses to tell anything.*right to read"):
        asyncio.run(read())


def number_of(subscribe: bytes) -> bytes:
    at = 1
    while subscribe[at] & 0x80:
        at += 1
    return subscribe[at + 1 : at + 3]
