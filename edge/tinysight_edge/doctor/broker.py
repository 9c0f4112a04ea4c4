"""Check of the broker: name, TCP, TLS, login, by the agent's own client. Listens for a moment, publishes nothing."""

import secrets
import time
from typing import Final

from tinysight_contract import topics as t
from tinysight_contract.errors import ContractError
from tinysight_contract.messages import State, Status, decode
from tinysight_contract.mqtt import Connection
from tinysight_edge.doctor.result import Result, ok, skip, warn
from tinysight_edge.doctor.subject import Subject

__all__ = ["broker"]

CONNECT_S: Final = 8.0
LISTEN_S: Final = 1.0
SLOW_MS: Final = 1000.0


def broker(subject: Subject) -> Result:
    """Connect with a client id of its own, so that an agent that runs is not thrown out.

    Raises:
        ConfigError: its address or password cannot be had.
        BrokerError: it is absent, not to be trusted, or refuses us.
    """
    address = subject.address()
    if address is None:
        return skip("No broker is named.", "Give --broker or --config.")
    heard: list[tuple[str, bytes]] = []
    connection = Connection(
        address,
        client_id=f"tinysight-doctor-{secrets.token_hex(4)}",
        on_message=lambda topic, payload, _retained: heard.append((topic, payload)),
    )
    begun_s = time.monotonic()
    connection.open(timeout_s=CONNECT_S)
    took_ms = (time.monotonic() - begun_s) * 1e3
    here = t.StatusTopic(*subject.who) if subject.who is not None else None
    if here is not None:
        connection.subscribe(str(here))
        time.sleep(LISTEN_S)
    alive = connection.alive
    connection.close()
    figures = {
        "connect_ms": round(took_ms, 1),
        "mqtt": address.version,
        "encrypted": address.encrypted,
    }
    about = f"{address} answers in {took_ms:.0f} ms"
    if not alive:
        mend = "Look into the broker's log; it may limit clients or topics."
        return warn(f"{about} and ends the session again.", mend, figures)
    if took_ms > SLOW_MS:
        return warn(f"{about}; that is slow.", "Check the network: `ping` and `mtr` say where it is slow.", figures)
    if address.exposes_password:
        mend = f"Use {address.scheme}s://, and a certificate at the broker."
        return warn(f"{about}; the password goes over the network unencrypted.", mend, figures)
    known = "; an agent of this name is online now" if here is not None and _online(str(here), heard) else ""
    return ok(f"{about}{known}.", figures)


def _online(topic: str, heard: list[tuple[str, bytes]]) -> bool:
    for where, payload in heard:
        if where == topic and payload:
            try:
                return decode(payload, Status).state is State.ONLINE
            except ContractError:
                return False
    return False
