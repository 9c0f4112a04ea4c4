"""How the publisher comes to a session: find the broker, reach it, trust it, and be taken in.

In: an address, asked for each time.  Out: a `Connection` that the broker has accepted, or a `BrokerError`. What may
take long runs in a thread of its own, so that events are kept on disk meanwhile.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from tinysight_contract.errors import BrokerError, ConfigError
from tinysight_contract.mqtt import Address, Connection, Will
from tinysight_edge.mailbox import TICK_S
from tinysight_edge.session import Ack

__all__ = ["CONNECT_TIMEOUT_S", "Caller"]

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 5.0
DIAL_S: Final = 20.0
SESSION_S: Final = 3600
Wait = Callable[[Connection | None], None]


class Caller:
    """Calls the broker, each time anew.

    Args:
        address: gives the broker's address with its login, or raises `ConfigError`.
        client_id: of this device.
        will: what the broker shall say when we vanish.
        hear: told topic, payload and retained flag of what comes; None when nothing is listened to. Else the broker
            keeps what comes for us for an hour while we are cut off.
        keep_alive_s: of the connection.
        rouse: ends a wait early.

    Attributes:
        refusal: why the broker refuses us, when waiting does not mend it.
    """

    def __init__(
        self,
        address: Callable[[], Address],
        *,
        client_id: str,
        will: Callable[[], Will],
        hear: Callable[[str, bytes, bool], None] | None,
        keep_alive_s: float,
        rouse: Callable[[], None],
    ) -> None:
        self.refusal: BrokerError | None = None
        self._address, self._client_id, self._will = address, client_id, will
        self._hear, self._keep_alive_s, self._rouse = hear, keep_alive_s, rouse

    def call(self, *, wait: Wait, over: Callable[[], bool]) -> tuple[Connection, deque[Ack]]:
        """A connection that stands, and where what it acknowledges is noted.

        Args:
            wait: passes a moment, and lets the connection work when there is one; does what else is due.
            over: the end came first.

        Raises:
            BrokerError: nobody answers, is not to be trusted, or refuses us.
        """
        acks: deque[Ack] = deque()
        try:
            address = self._address()
        except ConfigError as error:
            raise BrokerError(error.what, mend=error.mend) from error
        connection = Connection(
            address,
            client_id=self._client_id,
            will=self._will(),
            on_ack=lambda *ack: acks.append(ack),
            on_message=self._hear,
            keep_alive_s=int(self._keep_alive_s),
            session_s=SESSION_S if self._hear is not None else 0,
            in_flight=0,
        )
        try:
            self._dial(connection, wait, over)
            until_s = time.monotonic() + CONNECT_TIMEOUT_S
            while not connection.answered and time.monotonic() < until_s and not over():
                wait(connection)
            self.refusal = connection.refusal if connection.refused_until_mended else None
            if not connection.alive:
                raise connection.refusal or connection.unanswered()
        except BaseException:
            connection.abandon()
            raise
        log.info("connected to %s", address)
        return connection, acks

    def _dial(self, connection: Connection, wait: Wait, over: Callable[[], bool]) -> None:
        failed: list[BrokerError] = []

        def dial() -> None:
            try:
                connection.dial(timeout_s=CONNECT_TIMEOUT_S)
            except BrokerError as error:
                failed.append(error)
            self._rouse()

        self.refusal = None
        dialling = threading.Thread(target=dial, name="connect", daemon=True)
        dialling.start()
        until_s = time.monotonic() + DIAL_S
        while dialling.is_alive():
            wait(None)
            if over() or time.monotonic() >= until_s:  # a broker that says nothing, or drips, must not keep us
                connection.abandon()
                dialling.join(TICK_S)
                raise BrokerError(f"{connection.address} does not answer.", mend="Check the network.")
        if failed:
            raise failed[0]
