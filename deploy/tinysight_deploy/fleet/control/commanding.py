"""Commands that somebody has one device carry out, and waits for.

In: an order, and the answers that the controller's session hears.  Out: the device's own `Ack`, or none when it has not
answered in time. Each order is in the audit log before it is sent. Belongs to one event loop; outlives sessions, so an
answer that comes in the next one is taken, too.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.client import Client
from tinysight_contract.errors import BrokerError, ConfigError, NoSuch, Unsure
from tinysight_contract.fleet import Heard
from tinysight_contract.messages import Ack, Command, encode, utc_now
from tinysight_deploy.fleet.control.publishing import TAKEN_WITHIN_S
from tinysight_deploy.fleet.types import Key
from tinysight_edge.orders.ruling import MAX_BYTES

__all__ = ["COMMANDS", "MOST_WAITING", "Orders"]

COMMANDS: Final = ("snapshot", "reload", "restart", "identify", "log-level", "camera-enable")
"""All that a device knows; see docs/commands.md."""
MOST_WAITING: Final = 64
"""Orders that wait at once, whoever gave them."""


class Orders:
    """Those that wait for their answers.

    Args:
        note: writes an entry into the audit log, by who, what and detail; waits for the database, and is run in a
            thread.

    Attributes:
        client: of the session; None while there is none.
    """

    def __init__(self, note: Callable[[str, str, Mapping[str, Any]], object]) -> None:
        self.client: Client | None = None
        self._note = note
        self._waiting: dict[tuple[str, str, str], asyncio.Future[Ack]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def hear(self, heard: Heard) -> None:
        """Hand an answer to who waits for it. What nobody waits for, and what the broker kept, is passed over."""
        if not isinstance(heard.message, Ack) or not isinstance(heard.where, t.AckTopic) or heard.retained:
            return
        where = heard.where
        answer = self._waiting.get((where.site, where.device, where.id))
        if answer is not None and not answer.done() and heard.message.id == where.id:
            answer.set_result(heard.message)

    async def give(
        self, key: Key, name: str, args: Mapping[str, Any], *, within_s: float, who: str
    ) -> tuple[str, Ack | None, float]:
        """Have a device do something once; the order's id, the answer if one came in time, and how long that took.

        Args:
            key: of the device.
            name: one of `COMMANDS`.
            args: of the command.
            within_s: so long the answer is waited for, and the device must not do it later.
            who: for the audit log.

        Raises:
            NoSuch: there is no such command.
            ConfigError: it is longer than a device reads, or is no JSON.
            BrokerError: too many wait, or the broker has gone.
            Unsure: the broker has not taken it.
            FleetError: the audit log cannot be written, or another controller leads.
        """
        if name not in COMMANDS:
            raise NoSuch(f"No device knows a command {name}.", mend=f"Give one of: {', '.join(COMMANDS)}.")
        until = timedelta(seconds=within_s)
        order = Command(id=secrets.token_hex(16), expires_at=utc_now() + until, args=dict(args))
        _refuse_long(order)
        if len(self._waiting) >= MOST_WAITING:
            raise BrokerError(f"{MOST_WAITING} commands wait for their answers.", mend="Send it again in a moment.")
        place = (*key, order.id)
        answer = self._waiting[place] = asyncio.get_running_loop().create_future()
        try:
            detail = {"site": key[0], "device": key[1], "command": name, "id": order.id, "args": order.args}
            await asyncio.to_thread(self._note, who, "command", {**detail, "seconds": within_s})
            if (client := self.client) is None:
                raise BrokerError("The broker has gone: nothing was sent.", mend="Send it again in a moment.")
            begun_s, ack = time.monotonic(), None
            order = replace(order, expires_at=utc_now() + until)  # the log may have waited for its database
            await _send(client, t.CommandTopic(*key, name), order, within_s=min(within_s, TAKEN_WITHIN_S))
            with suppress(TimeoutError):
                ack = await asyncio.wait_for(answer, within_s - (time.monotonic() - begun_s))
            return order.id, ack, time.monotonic() - begun_s
        finally:
            del self._waiting[place]


async def _send(client: Client, topic: t.CommandTopic, order: Command, *, within_s: float) -> None:
    """Publish, and wait until the broker has it.

    Raises:
        Unsure: it has not; the device may have heard it all the same.
    """
    try:
        await client.publish(topic, order, within_s=within_s)
    except BrokerError as error:
        what = f"{error.what} The device may have heard it all the same."
        raise Unsure(what, mend="Look at what it does before you send it again.") from error


def _refuse_long(order: Command) -> None:
    """See that a device reads it.

    Raises:
        ConfigError: it would not.
    """
    try:
        size = len(encode(order))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"These are no arguments: {error}.", mend="Give text, numbers and lists.") from error
    if size > MAX_BYTES:
        raise ConfigError(f"The command has {size:,} bytes, a device reads {MAX_BYTES:,}.", mend="Send less.")
