"""The only file that imports the MQTT client: connections, what their broker offers, and why one failed.

In: an `Address`.  Out: a connected paho client, or a `BrokerError` with its mend. A connection is made once and
never repaired: who needs another opens another, so nothing of an old session can leak into a new one.

Two ways to use one: `open` waits for the broker's answer and leaves the work to a network thread; `dial` does not wait,
and who dialled calls `serve` when a selector says so. The second takes one thread for everything, and is faster.
"""

import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tinysight_contract.address import Address
from tinysight_contract.errors import BrokerError, ConfigError
from tinysight_contract.refusals import FINAL_REFUSALS, TAKEN_OVER, UNTIL_MENDED, Errors, absent, refused, unanswered

__all__ = ["Address", "Connection", "Offers", "Will"]

log = logging.getLogger(__name__)

KEEP_ALIVE_S: Final = 20
MESSAGE_EXPIRY: Final = 0x02  # names of properties on the wire
SESSION_EXPIRY: Final = 0x11
TOPIC_ALIAS: Final = 0x23
MAXIMUM_PACKET_SIZE: Final = 0x27
MORE: Final = "the broker sends more than was asked for"
READS_AT_ONCE: Final = 64
MOST_BYTES: Final = 2**20
"""What a broker may send us at once, with MQTT 5; the contract's largest message is a quarter of it."""
HEADER_BYTES: Final = 64  # of a packet beside its topic and payload; more than it can be


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when this connection is lost."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Offers:
    """What the broker said of itself.

    Attributes:
        resumed: it has kept our session.
        in_flight: how many messages it takes before it has acknowledged the first.
        packet_bytes: the largest packet it takes; None when it names no limit.
        aliases: how many topics may be sent as a number.
    """

    resumed: bool = False
    in_flight: int = 65535
    packet_bytes: int | None = None
    aliases: int = 0


class Connection:
    """One MQTT session, from CONNECT to its end.

    Args:
        address: of the broker.
        client_id: unique at the broker; another client with the same one ends this session.
        will: published by the broker if we vanish.
        on_message: topic, payload and retained flag of what arrives; called in the network thread.
        on_ack: message number, None or why the broker refused it, and whether it will refuse it again; called in the
            network thread.
        keep_alive_s: so often something is said; a broker that is silent for twice as long is gone.
        session_s: so long the broker keeps what we subscribed to and what came for us after we are cut off; 0 to begin
            with nothing. MQTT 3.1.1 cannot name a time: there it is for as long as the broker likes.
        in_flight: so many messages go out unacknowledged, the rest is held back here; 0 for who heeds `Offers` himself.
    """

    def __init__(
        self,
        address: Address,
        *,
        client_id: str,
        will: Will | None = None,
        on_message: Callable[[str, bytes, bool], None] | None = None,
        on_ack: Callable[[int, str | None, bool], None] | None = None,
        keep_alive_s: int = KEEP_ALIVE_S,
        session_s: int = 0,
        in_flight: int = 20,
    ) -> None:
        self.address, self.offers = address, Offers()
        self.ended = ""
        self._keep_alive_s, self._session_s = keep_alive_s, session_s
        self._answered, self._lost = threading.Event(), threading.Event()
        self._refused: tuple[int, str] | None = None
        self._errors = Errors()
        self._asked = self._judged = 0  # subscriptions; the second is counted in the network thread
        self._abandoned = False
        self.denied: list[str] = []
        self._aliases: dict[str, _Packed] = {}
        self._lives: dict[int, _Packed] = {}
        self._five = address.version == 5
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self._five else not session_s,
            protocol=MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311,
            transport="websockets" if address.scheme.startswith("ws") else "tcp",
            reconnect_on_failure=False,
        )
        self._client.enable_logger(self._errors)
        _receive_no_more(self._client)
        self._client.max_inflight_messages_set(in_flight)
        if address.scheme.startswith("ws"):
            self._client.ws_set_options(path=address.path)
        if address.user is not None:
            self._client.username_pw_set(address.user, address.password)
        if will is not None:
            self._client.will_set(will.topic, will.payload, qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_socket_close = self._on_socket_close
        self._client.on_subscribe = self._on_subscribe
        if on_message is not None:
            self._client.on_message = lambda _c, _u, m: self._hear(m, on_message)
        if on_ack is not None:
            self._client.on_publish = lambda _c, _u, mid, code, _p: on_ack(
                mid, str(code) if code.is_failure else None, code.value in FINAL_REFUSALS
            )

    def open(self, *, timeout_s: float) -> None:
        """Connect and wait for the broker's answer.

        Raises:
            BrokerError: nobody is there, the certificate is not to be trusted, or the broker refuses us.
        """
        self._dial(timeout_s)
        self._client.loop_start()
        answered = self._answered.wait(timeout_s)
        if not answered or self._refused is not None or self._lost.is_set():
            why = self.refusal or self.unanswered()
            self.close()
            raise why

    def dial(self, *, timeout_s: float) -> None:
        """Connect and do not wait for the broker's answer; it comes by `serve`.

        Raises:
            BrokerError: nobody is there, or the certificate is not to be trusted.
        """
        self._client.on_socket_register_write = lambda *_: None  # then paho only queues, and `serve` writes
        self._dial(timeout_s)
        self._client.loop_write()

    def _dial(self, timeout_s: float) -> None:
        wanted = _Packed((SESSION_EXPIRY, self._session_s, 4), (MAXIMUM_PACKET_SIZE, MOST_BYTES, 4))
        self._client.connect_timeout = timeout_s
        try:
            if self.address.encrypted:
                context = self.address.trust()
                context.sslsocket_class = _Encrypted
                self._client.tls_set_context(context)
            self._client.connect(
                self.address.host,
                self.address.port,
                keepalive=self._keep_alive_s,
                clean_start=not self._session_s if self._five else paho.MQTT_CLEAN_START_FIRST_ONLY,
                properties=cast("Properties", wanted) if self._five else None,
            )
        except ConfigError as error:
            raise BrokerError(error.what, mend=error.mend) from error
        except (OSError, ValueError, paho.WebsocketConnectionError) as error:
            raise absent(self.address, error) from error
        if self._client.transport == "websockets":
            _send_whole_frames(self._client.socket())
        if self._abandoned:  # while it was dialled
            self._stop()
            raise absent(self.address, TimeoutError("it took too long"))

    def serve(self, *, readable: bool) -> None:
        """Do what the network thread would do. Only for connections that were dialled: then many share one thread.

        Args:
            readable: something has come in; else there is room to write, or it is time to see that all is well.
        """
        if readable:
            self._read()
            for _ in range(READS_AT_ONCE):  # what TLS has decrypted already wakes nobody
                if (held := cast("Any", self._client.socket())) is None or not getattr(held, "pending", int)():
                    break
                self._read()
        if self._client.want_write():
            self._client.loop_write()
        if not readable:
            self._client.loop_misc()

    def _read(self) -> None:
        """Take in what has come; a broker that sends at QoS 2, which nobody asked for, is left: it would be kept."""
        self._client.loop_read()
        if self._client._in_messages:
            self._errors.last = MORE
            self._client._loop_rc_handle(MQTTErrorCode.MQTT_ERR_PROTOCOL)

    def fileno(self) -> int:
        """Of the socket, for a selector; -1 when there is none."""
        waiting = self._client.socket()
        return -1 if waiting is None else waiting.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether something waits for room in the socket."""
        return self._client.want_write()

    @property
    def queued(self) -> int:
        """Messages that wait for room in the socket."""
        return len(self._client._out_packet)

    @property
    def refusal(self) -> BrokerError | None:
        """Why the broker refuses us, if it has said so."""
        if self._refused is None:
            return None
        return refused(self.address, *self._refused)

    @property
    def refused_until_mended(self) -> bool:
        """Whether the broker has refused or ended the session for a reason that does not pass by itself."""
        return self._refused is not None and self._refused[0] in UNTIL_MENDED

    def unanswered(self) -> BrokerError:
        """What to say of a broker that took the connection and did not answer."""
        return unanswered(self.address, self._errors.last, silent=not self._lost.is_set())

    @property
    def alive(self) -> bool:
        """Whether the session still stands, as far as is known."""
        return self._answered.is_set() and self._refused is None and not self._lost.is_set()

    @property
    def answered(self) -> bool:
        """Whether the broker has said yes or no, or hung up."""
        return self._answered.is_set()

    def fits(self, topic: str, payload: bytes) -> bool:
        """Whether the broker takes a message so large; one that is larger would end the session."""
        limit = self.offers.packet_bytes
        return limit is None or len(topic.encode()) + len(payload) + HEADER_BYTES <= limit

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, often: bool = False, lives_s: int | None = None
    ) -> int:
        """Hand a message over to be sent; its number, by which ``on_ack`` will name it.

        Args:
            topic: where.
            payload: what.
            qos: 0 or 1.
            retain: the broker keeps it for who comes later.
            often: this topic comes again and again; it is sent as a number where the broker offers that.
            lives_s: who has not got it by then shall not get it (MQTT 5); None for ever.
        """
        packed = None
        if often and self.offers.aliases:
            packed = self._aliases.get(topic)
            if packed is not None:
                topic = ""
            elif len(self._aliases) < self.offers.aliases:
                packed = self._aliases[topic] = _Packed((TOPIC_ALIAS, len(self._aliases) + 1, 2))
        elif lives_s is not None and self._five:
            packed = self._lives.setdefault(lives_s, _Packed((MESSAGE_EXPIRY, lives_s, 4)))
        return self._client.publish(topic, payload, qos, retain, cast("Properties | None", packed)).mid

    def subscribe(self, *filters: str, qos: int = 1) -> None:
        """Ask for what matches any of the filters."""
        self._asked += 1  # before: its answer may come at once
        self._client.subscribe([(each, qos) for each in filters])

    @property
    def subscribed(self) -> bool:
        """Whether the broker has answered each `subscribe`; what it refused is in the log."""
        return self._judged == self._asked

    def close(self) -> None:
        """Disconnect properly (the will is not sent) and end the network thread."""
        self._client.disconnect()
        self._client.loop_write()
        self._stop()

    def abandon(self) -> None:
        """End without a goodbye: the broker publishes the will."""
        self._abandoned = True
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
        self,
        _client: paho.Client,
        _userdata: object,
        flags: paho.ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self._refused = code.value, str(code)
        else:
            self.offers = _offers(flags.session_present, properties)
        self._answered.set()

    def _on_socket_close(self, _client: paho.Client, _userdata: object, closing: object) -> None:
        """Hear why TLS was refused: who writes first gets an error that does not tell, and then paho reads no more."""
        if not self._answered.is_set() and isinstance(closing, ssl.SSLSocket):
            try:
                closing.recv(1)
            except OSError as error:
                if "ALERT" in str(error):
                    self._errors.last = str(error)

    def _hear(self, message: paho.MQTTMessage, tell: Callable[[str, bytes, bool], None]) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.error("%s sends a topic that is no UTF-8", self.address)
            return
        tell(topic, bytes(message.payload), message.retain)

    def _on_subscribe(
        self, _client: paho.Client, _userdata: object, _mid: int, codes: list[ReasonCode], _properties: object
    ) -> None:
        if no := [str(code) for code in codes if code.is_failure]:
            log.error("%s refuses %d of %d subscriptions: %s", self.address, len(no), len(codes), no[0])
            self.denied = no if len(no) == len(codes) else []
        self._judged += 1

    def _on_disconnect(
        self, _client: paho.Client, _userdata: object, _flags: object, code: ReasonCode, _properties: Properties | None
    ) -> None:
        self.ended = str(code) if code.value != 0x80 else self._errors.last or "connection lost"
        if code.value == TAKEN_OVER:
            self._refused = TAKEN_OVER, "another client has come with our id"
        log.debug("%s: session ended: %s", self.address, self.ended)
        self._lost.set()
        self._answered.set()


class _Encrypted(ssl.SSLSocket):
    """Closes itself when TLS fails; paho leaves one that fails while it connects to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            self.close()
            raise


def _receive_no_more(client: Any) -> None:  # noqa: ANN401 -- reaches into what has no public type
    """Let paho take in no packet beyond `MOST_BYTES`, whatever the broker was asked for."""
    receive = client._sock_recv

    def sock_recv(size: int) -> bytes:
        if size > MOST_BYTES:
            raise ConnectionAbortedError(MORE)
        return cast("bytes", receive(size))

    client._sock_recv = sock_recv


def _send_whole_frames(held: Any) -> None:  # noqa: ANN401 -- paho's wrapper of the socket, which has no public type
    """Let paho keep a packet of which the socket took a part: told that none of it went, it forgets the packet."""
    send = held._send_impl

    def send_impl(data: bytes) -> int:
        if not (sent := send(data)) and held._sendbuffer:
            raise BlockingIOError
        return int(sent)

    held._send_impl = send_impl


class _Packed:
    """Properties of a packet (name, value, bytes of it), packed once: paho packs anew for each, at a message's cost."""

    def __init__(self, *properties: tuple[int, int, int]) -> None:
        packed = b"".join(bytes([name]) + value.to_bytes(size) for name, value, size in properties)
        self._packed = bytes([len(packed)]) + packed

    def pack(self) -> bytes:
        """Length, name and value, as on the wire."""
        return self._packed


def _offers(resumed: bool, properties: Properties | None) -> Offers:
    said = cast("Any", properties).json() if properties is not None else {}
    return Offers(
        resumed=resumed,
        in_flight=said.get("ReceiveMaximum", 65535),
        packet_bytes=said.get("MaximumPacketSize"),
        aliases=said.get("TopicAliasMaximum", 0),
    )
