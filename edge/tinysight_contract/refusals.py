"""Why a connection to a broker failed, in words, and what to do about it."""

import logging
import ssl
from typing import Final

from tinysight_contract.address import Address
from tinysight_contract.errors import BrokerError

__all__ = ["FINAL_REFUSALS", "TAKEN_OVER", "UNTIL_MENDED", "Errors", "absent", "refused", "unanswered"]

FINAL_REFUSALS: Final = {0x87, 0x90, 0x95, 0x99}
"""Of a message: not authorized, topic invalid, packet too large, payload invalid. Sent again it is refused again."""
UNTIL_MENDED: Final = {0x82, 0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x8E, 0x9D}
"""Of a session: protocol, version, client id, login, rules, ban, another client, another server. Waiting mends none."""
TAKEN_OVER: Final = 0x8E
MENDS: Final = {
    0x84: "Add ?version=3 to the address for a broker that knows MQTT 3.1.1 only.",
    0x85: "Give the device the id that the broker expects, as its certificate names it.",
    0x8A: "The broker has banned this client; its log says why.",
    TAKEN_OVER: "Another client uses the same id: give each device an id of its own.",
}
FIX_LOGIN: Final = "Check the user name, the password and the broker's access rules."
ALERTS: Final = ("certificate expired", "certificate revoked", "unknown ca", "bad certificate", "certificate unknown")


class Errors(logging.Logger):
    """Paho tells why a socket failed only in its log; this keeps the last of it, and formats nothing else.

    What TLS said of the end is kept for good: nothing that comes after it tells more.
    """

    def __init__(self) -> None:
        super().__init__("paho", logging.ERROR)
        self.last = ""

    def handle(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if "ALERT" not in self.last:
            self.last = record.getMessage().removeprefix("failed to receive on socket: ")


def absent(address: Address, error: Exception) -> BrokerError:
    """No connection came about."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message
        return BrokerError(f"{address} has a certificate that is not to be trusted: {why}.", mend=_mend_trust(why))
    if (told := _distrusted(address, str(error))) is not None:
        return told
    if address.encrypted and isinstance(error, (ssl.SSLError, ConnectionResetError)):
        return BrokerError(
            f"{address} does not speak TLS with us: {getattr(error, 'reason', None) or error}.",
            mend="Check the port; mqtt:// and ws:// go without TLS.",
        )
    return BrokerError(
        f"No broker answers at {address}: {getattr(error, 'strerror', None) or error}.",
        mend="Check the address and that the broker runs; `tinysight broker` starts one.",
    )


def refused(address: Address, code: int, why: str) -> BrokerError:
    """The broker said no."""
    return BrokerError(f"{address} refuses the connection: {why}.", mend=MENDS.get(code, FIX_LOGIN))


def unanswered(address: Address, last: str, *, silent: bool) -> BrokerError:
    """The broker took the connection and did not answer.

    Args:
        address: of the broker.
        last: what the socket said last; TLS 1.3 tells of a refused certificate only after the handshake.
        silent: it has not hung up.
    """
    if (told := _distrusted(address, last)) is not None:
        return told
    if silent:
        mend = "Check the network between, and that the broker is not overloaded."
        return BrokerError(f"{address} accepts the connection and says nothing.", mend=mend)
    return BrokerError(
        f"{address} accepts the connection and does not speak MQTT {address.version}.",
        mend="Check the port, or add ?version=3 for a broker that knows MQTT 3.1.1 only.",
    )


def _distrusted(address: Address, last: str) -> BrokerError | None:
    """The broker wants another certificate of us, if that is what OpenSSL said last."""
    said = last.replace("_", " ").lower()
    if "certificate required" in said or ("handshake failure" in said and address.cert is None):
        mend = "Name it and its key: cert_file and key_file in agent.toml, or ?cert=FILE&key=FILE."
        return BrokerError(f"{address} wants a certificate of us.", mend=mend)
    if (alert := next((each for each in ALERTS if each in said), None)) is not None:
        mend = "Give this device one that the broker's CA signed and that has not expired or been revoked."
        return BrokerError(f"{address} does not trust our certificate: {alert}.", mend=mend)
    return None


def _mend_trust(why: str) -> str:
    if "expired" in why or "not yet valid" in why:
        return "Renew the broker's certificate, or set this machine's clock right."
    if "match" in why.lower():
        return "Write the host name that is in the broker's certificate."
    return "Name the CA that signed it: ca_file in agent.toml, ?ca=FILE in an address."
