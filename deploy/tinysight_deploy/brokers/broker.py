"""A broker for development, the demo and tests; not for the field.

It is rumqttd, through the package ``iotcore``: MQTT 3.1.1 and MQTT 5, each on a port of its own; `web.py` adds
WebSockets for both. It knows no passwords and no TLS, so it listens on this machine only unless told otherwise.
A reader that speaks 3.1.1 loses its session when a client of MQTT 5 sends a message with properties, as our devices do
with every event; see `web.py`.
"""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tinysight_contract.errors import BrokerError
from tinysight_deploy.brokers.web import relaying

__all__ = ["Ports", "free_ports", "running_broker"]

_LISTENER: Final = """
[{table}.1]
name = "{name}"
listen = "{host}:{port}"
next_connection_delay_ms = 1
    [{table}.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 1048576
    max_inflight_count = 500
    dynamic_filters = true
"""
_ROUTER: Final = """
id = 0
[router]
id = 0
max_connections = 10000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where each protocol listens.

    Attributes:
        mqtt5: TCP, MQTT 5.
        mqtt3: TCP, MQTT 3.1.1.
        websocket: either over WebSockets.
    """

    mqtt5: int
    mqtt3: int
    websocket: int


def free_ports(host: str = "127.0.0.1") -> Ports:
    """Three ports that nobody uses at this moment."""
    sockets = [socket.socket() for _ in range(3)]
    try:
        for each in sockets:
            each.bind((host, 0))
        return Ports(*(each.getsockname()[1] for each in sockets))
    finally:
        for each in sockets:
            each.close()


@contextmanager
def running_broker(ports: Ports, *, host: str = "127.0.0.1") -> Iterator[None]:
    """The embedded broker, for as long as the ``with`` lasts.

    Raises:
        BrokerError: a port is taken, or the broker does not start.
    """
    from iotcore import Broker  # an extra of its own

    text = _ROUTER + "".join(
        _LISTENER.format(table=table, name=table, host=host, port=port)
        for table, port in (("v5", ports.mqtt5), ("v4", ports.mqtt3))
    )
    with tempfile.TemporaryDirectory(prefix="tinysight-broker-") as folder:
        config = Path(folder) / "rumqttd.toml"
        config.write_text(text, encoding="utf-8")
        try:
            server = Broker(config_path=str(config)).start()
        except (OSError, RuntimeError) as error:
            raise BrokerError(f"The broker does not start: {error}.", mend="Choose other ports with --port.") from error
        try:
            with relaying(host, ports.websocket, mqtt5=ports.mqtt5, mqtt3=ports.mqtt3):
                yield
        finally:
            server.stop()
