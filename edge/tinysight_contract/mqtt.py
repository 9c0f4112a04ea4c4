"""The only file that imports the MQTT client: addresses, connections, and why one failed.

In: a broker's address.  Out: a connected paho client, or a `BrokerError` with its mend. A connection is made once and
never repaired: who needs another opens another, so nothing of an old session can leak into a new one.
"""

import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tinysight_contract.errors import BrokerError, ConfigError

__all__ = ["Address", "Connection", "Will"]

log = logging.getLogger(__name__)

PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
KEEP_ALIVE_S: Final = 20
FINAL_REFUSALS: Final = {0x87, 0x90, 0x95, 0x99}  # not authorized, topic invalid, packet too large, payload invalid
FIX_LOGIN: Final = "Check the user name, the password and the broker's access rules."


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is and how to speak to it.

    Attributes:
        scheme: mqtt, mqtts (TLS), ws (WebSocket) or wss.
        host: name or address.
        port: TCP port.
        path: of the WebSocket.
        user: None to go without.
        password: None to go without.
        version: 5 or 3 (3.1.1).
    """

    scheme: str
    host: str
    port: int
    path: str
    user: str | None
    password: str | None
    version: int

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read ``mqtt://[user:password@]host[:port][?version=3]``; also mqtts, ws and wss.

        Raises:
            ConfigError: it is not such an address.
        """
        mend = "Write it as mqtt://host:1883; mqtts://, ws:// and wss:// and ?version=3 also work."
        try:
            parts = urlsplit(url)
            port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
        except ValueError:
            port = 0
        if not port:  # the address is not shown: it may hold a password
            raise ConfigError("The broker's address has no scheme or port that TinySight can use.", mend=mend) from None
        options = parse_qs(parts.query)
        version = options.pop("version", ["5"])[0]
        if parts.scheme not in PORTS or not parts.hostname or version not in {"3", "5"} or options:
            shown = f"{parts.scheme}://{parts.hostname or ''}"
            raise ConfigError(f"{shown!r} is no broker address TinySight can use.", mend=mend)
        user = unquote(parts.username or "") if parts.username or parts.password else None
        password = unquote(parts.password) if parts.password else None
        return cls(parts.scheme, parts.hostname, port, parts.path or "/mqtt", user, password, int(version))

    def __str__(self) -> str:
        """Without credentials."""
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when this connection is lost."""

    topic: str
    payload: bytes


class Connection:
    """One MQTT session, from CONNECT to its end.

    Args:
        address: of the broker.
        client_id: unique at the broker; another client with the same one ends this session.
        will: published by the broker if we vanish.
        on_message: topic, payload and retained flag of what arrives; called in the network thread.
        on_ack: message number, None or why the broker refused it, and whether it will refuse it again; called in the
            network thread.
    """

    def __init__(
        self,
        address: Address,
        *,
        client_id: str,
        will: Will | None = None,
        on_message: Callable[[str, bytes, bool], None] | None = None,
        on_ack: Callable[[int, str | None, bool], None] | None = None,
    ) -> None:
        self.address = address
        self._answered = threading.Event()
        self._lost = threading.Event()
        self._refused: str | None = None
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if address.version == 5 else MQTTProtocolVersion.MQTTv311,
            transport="websockets" if address.scheme.startswith("ws") else "tcp",
            reconnect_on_failure=False,
        )
        if address.scheme.startswith("ws"):
            self._client.ws_set_options(path=address.path)
        if address.scheme in {"mqtts", "wss"}:
            self._client.tls_set_context(ssl.create_default_context())
        if address.user is not None:
            self._client.username_pw_set(address.user, address.password)
        if will is not None:
            self._client.will_set(will.topic, will.payload, qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        if on_message is not None:
            self._client.on_message = lambda _c, _u, m: on_message(m.topic, bytes(m.payload), m.retain)
        if on_ack is not None:
            self._client.on_publish = lambda _c, _u, mid, code, _p: on_ack(
                mid, str(code) if code.is_failure else None, code.value in FINAL_REFUSALS
            )

    def open(self, *, timeout_s: float) -> None:
        """Connect and wait for the broker's answer.

        Raises:
            BrokerError: nobody is there, the certificate is not to be trusted, or the broker refuses us.
        """
        self.dial(timeout_s=timeout_s)
        self._client.loop_start()
        answered = self._answered.wait(timeout_s)
        if not answered or self._refused is not None or self._lost.is_set():
            self.close()
            raise self.refusal or BrokerError(
                f"{self.address} accepts the connection and does not speak MQTT {self.address.version}.",
                mend="Check the port, or add ?version=3 for a broker that knows MQTT 3.1.1 only.",
            )

    def dial(self, *, timeout_s: float) -> None:
        """Connect and do not wait for the broker's answer; without `open`, it comes by `serve`.

        Raises:
            BrokerError: nobody is there, or the certificate is not to be trusted.
        """
        self._client.connect_timeout = timeout_s
        try:
            self._client.connect(self.address.host, self.address.port, keepalive=KEEP_ALIVE_S)
        except ssl.SSLError as error:
            raise BrokerError(
                f"{self.address} has a certificate that is not to be trusted: {error.reason or error}.",
                mend="Install its CA on this machine, or correct the host name.",
            ) from error
        except (OSError, ValueError, paho.WebsocketConnectionError) as error:
            raise BrokerError(
                f"No broker answers at {self.address}: {getattr(error, 'strerror', None) or error}.",
                mend="Check the address and that the broker runs; `tinysight broker` starts one.",
            ) from error

    def serve(self, *, readable: bool) -> None:
        """Do what the network thread would do. Only for connections that were dialled: then many share one thread.

        Args:
            readable: something has come in; else there is room to write, or it is time to see that all is well.
        """
        if readable:
            self._client.loop_read()
            while isinstance(held := self._client.socket(), ssl.SSLSocket) and held.pending():
                self._client.loop_read()  # what TLS has decrypted already wakes nobody
        if self._client.want_write():
            self._client.loop_write()
        self._client.loop_misc()

    def fileno(self) -> int:
        """Of the socket, for a selector; -1 when there is none."""
        waiting = self._client.socket()
        return -1 if waiting is None else waiting.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether something waits for room in the socket."""
        return self._client.want_write()

    @property
    def refusal(self) -> BrokerError | None:
        """Why the broker refuses us, if it has said so."""
        if self._refused is None:
            return None
        return BrokerError(f"{self.address} refuses the connection: {self._refused}.", mend=FIX_LOGIN)

    @property
    def alive(self) -> bool:
        """Whether the session still stands, as far as is known."""
        return self._answered.is_set() and not self._lost.is_set()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        """Hand a message to the network thread; its number, by which ``on_ack`` will name it."""
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def subscribe(self, *filters: str, qos: int = 1) -> None:
        """Ask for what matches any of the filters."""
        self._client.subscribe([(each, qos) for each in filters])

    def close(self) -> None:
        """Disconnect properly (the will is not sent) and end the network thread."""
        self._client.disconnect()
        self._stop()

    def abandon(self) -> None:
        """End without a goodbye: the broker publishes the will."""
        if (open_socket := self._client.socket()) is not None:
            # Shut down, not closed: the network thread may be waiting on it, and a WebSocket wraps it.
            with suppress(OSError), socket.socket(fileno=os.dup(open_socket.fileno())) as handle:
                handle.shutdown(socket.SHUT_RDWR)
        self._stop()

    def _stop(self) -> None:
        """End the network thread and close its sockets, which paho leaves to the garbage collector."""
        self._client.loop_stop()
        self._client._reset_sockets()

    def _on_connect(
        self, _client: paho.Client, _userdata: object, _flags: object, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._refused = str(code)
        self._answered.set()

    def _on_disconnect(
        self, _client: paho.Client, _userdata: object, _flags: object, code: ReasonCode, _properties: Properties | None
    ) -> None:
        log.debug("%s: session ended: %s", self.address, code)
        self._lost.set()
        self._answered.set()
