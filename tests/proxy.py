"""A network between clients and their broker that does what networks do: it swallows, drags, cuts and forgets.

Real sockets on both sides. It reads MQTT just far enough to tell packets apart, so that it can hold back
acknowledgements alone and count what is on its way.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

PUBLISH, PUBACK = 3, 4
RESET = struct.pack("ii", 1, 0)  # with these SO_LINGER, close() sends RST instead of FIN


class Link:
    """One connection through the proxy.

    Attributes:
        said: packets of the client.
        ways: by the socket it comes from, where it goes.
        torn: sockets whose words nobody hears any more, nor that they are gone: once a byte is lost, all is.
    """

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.client, self.broker = client, broker
        self.said: list[bytes] = []
        self.ways = {client: broker, broker: client}
        self.torn: set[socket.socket] = set()
        self.unacknowledged = 0

    def reset(self, side: socket.socket) -> None:
        """End one side with RST; the other is not told."""
        self.torn.add(side)
        with suppress(OSError):
            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            side.shutdown(socket.SHUT_RD)  # wakes its thread, which closes it


class Proxy:
    """Listens on a port of its own and hands on to another.

    Args:
        port: of the broker.
        tls: what goes through is no MQTT that can be read; acknowledgements cannot be told apart.

    Attributes:
        port, url: where it listens.
        links: all connections so far, in their order.
        swallows: all that is said is taken, from both sides, and nobody hears it.
        swallows_acks: the same of what acknowledges a message, and of that alone.
        ack_every_s: so long each acknowledgement takes, one after the other.
        most_unacknowledged: messages of QoS 1 that were on their way at once over one connection.
    """

    def __init__(self, port: int, *, tls: bool = False) -> None:
        self._to, self._tls = port, tls
        self.swallows = self.swallows_acks = False
        self.ack_every_s = 0.0
        self.most_unacknowledged = 0
        self.links: list[Link] = []
        self._threads: list[threading.Thread] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._run(self._serve)

    def heal(self) -> None:
        """Let all through again. Connections that lost something stay silent, as behind a router that forgot them."""
        self.swallows = self.swallows_acks = False

    def forget_broker(self) -> None:
        """Reset the broker's side of every connection; the clients are not told."""
        for link in self.links:
            link.torn.add(link.client)
            link.reset(link.broker)

    def forget_client(self) -> None:
        """Reset the clients' side of every connection; the broker is not told."""
        for link in self.links:
            link.torn.add(link.broker)
            link.reset(link.client)

    def cut(self) -> None:
        """Reset both sides."""
        self.forget_broker()
        self.forget_client()

    def close(self) -> None:
        """End all connections and threads."""
        self._server.shutdown(socket.SHUT_RDWR)
        for link in self.links:
            for side in link.ways:
                link.reset(side)
        for thread in self._threads:
            thread.join(5)
        self._server.close()

    def _run(self, what: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # it is shut down in the end
            while True:
                client, _ = self._server.accept()
                try:
                    broker = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    client.close()
                    continue
                link = Link(client, broker)
                self.links.append(link)
                for side in link.ways:
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._run(self._carry, link, side)

    def _carry(self, link: Link, source: socket.socket) -> None:
        sink = link.ways[source]
        for packet in _chunks(source) if self._tls else _packets(source):
            if source is link.client:
                link.said.append(packet)
            if self._note(link, packet) and self.swallows_acks:
                continue
            if self.swallows:
                link.torn.add(source)
            if source not in link.torn:
                with suppress(OSError):
                    sink.sendall(packet)
        if source not in link.torn and not self.swallows:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)
        source.close()

    def _note(self, link: Link, packet: bytes) -> bool:
        """Count it, and take the time it takes; whether it acknowledges a message."""
        kind = 0 if self._tls else packet[0] >> 4
        if kind == PUBLISH and packet[0] & 0x06:
            link.unacknowledged += 1
            self.most_unacknowledged = max(self.most_unacknowledged, link.unacknowledged)
        elif kind == PUBACK:
            time.sleep(self.ack_every_s)
            link.unacknowledged -= 1
        return kind == PUBACK


def _chunks(source: socket.socket) -> Iterator[bytes]:
    with suppress(OSError):
        while chunk := source.recv(65536):
            yield chunk


def _packets(source: socket.socket) -> Iterator[bytes]:
    """Whole packets: a byte for the kind, one to four for the length, seven bits each, and the rest."""
    held = b""
    for chunk in _chunks(source):
        held += chunk
        while (end := _end(held)) is not None and end <= len(held):
            yield held[:end]
            held = held[end:]


def _end(held: bytes) -> int | None:
    """Where the first packet ends; None while its length is not known."""
    length = 0
    for place, byte in enumerate(held[1:5]):
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return length + place + 2
    return None
