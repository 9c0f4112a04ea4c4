"""WebSockets for the development broker: what a browser sends goes to one of its TCP ports, what that says comes back.

In: RFC 6455 connections that carry MQTT.  Out: the same bytes on TCP, at the port of the version that the client's
CONNECT names. rumqttd has WebSockets of its own, for MQTT 3.1.1 alone, and ends the session of such a reader at the
first message with properties, which our devices send. A page of another machine is refused: whoever visits it would
lend it this machine's broker.
"""

import asyncio
import base64
import hashlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from tinysight_contract.errors import BrokerError

__all__ = ["relaying"]

HEAD_BYTES: Final = 8 << 10
HEAD_S: Final = 10.0
MOST_BYTES: Final = 2 << 20
"""Of one frame; the broker takes messages of half as much."""
CHUNK_BYTES: Final = 64 << 10
CONNECT_BYTES: Final = 64 << 10
"""Of a frame before the client has said that it speaks MQTT; its will and its password are in the same packet."""
MOST_CLIENTS: Final = 256
STALL_S: Final = 30.0
"""A side that takes nothing for so long has gone."""
END_S: Final = 5.0
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SPOKEN: Final = ("mqtt", "mqttv3.1")
_MORE, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x2, 0x8, 0x9, 0xA


class _Refused(Exception):  # noqa: N818 -- it is an answer, no fault
    """The client is told so, with an HTTP status, or is hung up on."""


@contextmanager
def relaying(host: str, port: int, *, mqtt5: int, mqtt3: int) -> Iterator[None]:
    """Take WebSockets for as long as the ``with`` lasts.

    Args:
        host: an address to listen on; the broker is reached there, too.
        port: likewise.
        mqtt5: the broker's TCP port for MQTT 5.
        mqtt3: for MQTT 3.1.1.

    Raises:
        BrokerError: the port is taken.
    """
    relay = _Relay(host, port, mqtt5, mqtt3)
    thread = threading.Thread(target=asyncio.run, args=(relay.run(),), name="websockets", daemon=True)
    thread.start()
    relay.ready.wait()
    try:
        if relay.failure is not None:
            raise BrokerError(f"Port {port} of {host} cannot be listened on: {relay.failure}.", mend="Choose another.")
        yield
    finally:
        relay.stop()
        thread.join(END_S)


class _Relay:
    """The server of one port, in a thread and an event loop of its own."""

    def __init__(self, host: str, port: int, mqtt5: int, mqtt3: int) -> None:
        self.ready = threading.Event()
        self.failure: str | None = None
        self._place, self._to = (host, port), {5: mqtt5}
        self._else = mqtt3
        self._clients: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until `stop`."""
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_server(self._client, *self._place, limit=HEAD_BYTES)
        except OSError as error:
            self.failure = error.strerror or str(error)
            return
        finally:
            self.ready.set()
        await self._over.wait()
        server.close()
        for each in self._clients:
            each.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def stop(self) -> None:
        """End it; from any thread."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._over.set)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)
        try:
            if len(self._clients) > MOST_CLIENTS:
                raise _Refused("503 Service Unavailable")
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_agree(head))
                first, version = await _connect(_payloads(reader, writer, CONNECT_BYTES))
            await self._pass_on(first, version, _payloads(reader, writer, MOST_BYTES), writer)
        except _Refused as error:
            writer.write(f"HTTP/1.1 {error}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # it has gone, or said nothing that we know
        except asyncio.CancelledError:  # we end
            writer.transport.abort()
        await _close(writer)

    async def _pass_on(
        self, first: bytes, version: int, payloads: AsyncIterator[bytes], writer: asyncio.StreamWriter
    ) -> None:
        """Both ways, until one side ends."""
        host = "127.0.0.1" if self._place[0] == "0.0.0.0" else self._place[0]  # noqa: S104 -- compared, not bound to
        broker, out = await asyncio.open_connection(host, self._to.get(version, self._else))

        async def forth() -> None:
            out.write(first)
            async for payload in payloads:
                out.write(payload)
                await _drained(out)

        async def back() -> None:
            while data := await broker.read(CHUNK_BYTES):
                writer.write(_frame(_BINARY, data))
                await _drained(writer)
            writer.write(_frame(_CLOSE, b"\x03\xe8"))  # 1000: a normal end

        ways = [asyncio.ensure_future(forth()), asyncio.ensure_future(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ways:
                each.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            out.close()


async def _drained(writer: asyncio.StreamWriter) -> None:
    """Wait until the other side has taken the most of it.

    Raises:
        OSError: it has gone, or takes no more.
    """
    async with asyncio.timeout(STALL_S):
        await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close it once the client has taken what was written; without mercy when it does not."""
    try:
        async with asyncio.timeout(END_S):
            writer.close()
            await writer.wait_closed()
    except (OSError, asyncio.CancelledError):
        pass
    finally:
        writer.transport.abort()


def _agree(head: bytes) -> bytes:
    """The answer to a request to speak MQTT over WebSockets.

    Raises:
        _Refused: it is none, or comes from a page of another machine.
    """
    request, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    key = fields.get("sec-websocket-key", "")
    asked = [each.strip() for each in fields.get("sec-websocket-protocol", "").split(",")]
    spoken = next((each for each in _SPOKEN if each in asked), None)
    if not request.startswith("GET ") or fields.get("upgrade", "").lower() != "websocket" or not key:
        raise _Refused("426 Upgrade Required\r\nUpgrade: websocket")
    if fields.get("sec-websocket-version") != "13" or spoken is None:
        raise _Refused("400 Bad Request")
    if not _is_welcome(fields):
        raise _Refused("403 Forbidden")
    accept = base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {spoken}\r\n\r\n"
    ).encode("latin-1")


def _is_welcome(fields: Mapping[str, str]) -> bool:
    """Whether no page asks, or one of this machine, or of the address that the client calls the broker.

    An address, not a name: whoever owns a name may have it mean this machine from one moment to the next, and then
    page and broker have the same one. The machine's own names are nobody else's.
    """
    if "origin" not in fields:
        return True
    try:
        origin, host = urlsplit(fields["origin"]).hostname, urlsplit(f"//{fields.get('host', '')}").hostname
    except ValueError:
        return False
    if origin is None:
        return False
    try:
        return ip_address(origin).is_loopback or origin == host
    except ValueError:
        return origin == "localhost" or (origin == host and origin in _own_names())


@cache
def _own_names() -> frozenset[str]:
    """What this machine is called, in lower case as in origins; asked once, as a name server may take its time."""
    return frozenset(name.lower() for name in (socket.gethostname(), socket.getfqdn()))


async def _payloads(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most_bytes: int
) -> AsyncIterator[bytes]:
    """What the client's frames carry; MQTT does not heed where they end.

    Args:
        reader: what it sends; it is read up to the end of a frame.
        writer: what it is answered.
        most_bytes: of a frame.

    Raises:
        EOFError: it broke the protocol, or has gone.
    """
    while True:
        start = await reader.readexactly(2)
        kind, size = start[0] & 0x0F, start[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8))
        if start[0] & 0x70 or not start[1] & 0x80 or size > (125 if kind >= _CLOSE else most_bytes):
            raise EOFError
        mask = await reader.readexactly(4)
        payload = _unmasked(await reader.readexactly(size), mask)
        if kind in {_MORE, _BINARY}:
            yield payload
        elif kind == _CLOSE:
            writer.write(_frame(_CLOSE, payload[:2]))
            return
        elif kind == _PING:
            writer.write(_frame(_PONG, payload))
            await _drained(writer)
        elif kind != _PONG:
            raise EOFError


async def _connect(payloads: AsyncIterator[bytes]) -> tuple[bytes, int]:
    """The beginning of the client's CONNECT, and the version of MQTT that it names.

    Raises:
        EOFError: it sends none.
    """
    data = b""
    async for payload in payloads:
        data += payload
        if data and data[0] != 0x10:
            raise EOFError
        start = next((place for place, each in enumerate(data[1:5], 2) if each < 0x80), None)
        if start is None:
            if len(data) >= 5:
                raise EOFError
            continue
        level = start + 2 + int.from_bytes(data[start : start + 2])
        if len(data) > start + 2 and len(data) > level:
            return data, data[level]
        if len(data) > HEAD_BYTES:
            raise EOFError
    raise EOFError


def _unmasked(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(size)


def _frame(kind: int, data: bytes) -> bytes:
    """A whole frame, as servers send it."""
    size = len(data)
    if size < 126:
        head = bytes((0x80 | kind, size))
    elif size < 1 << 16:
        head = bytes((0x80 | kind, 126)) + size.to_bytes(2)
    else:
        head = bytes((0x80 | kind, 127)) + size.to_bytes(8)
    return head + data
