"""Whether a command is to be carried out, and if not, why.

In: what came and what is known of the clock.  Out: a `Command` that may be carried out, or a `Refusal`. Pure.
"""

from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from tinysight_contract.errors import ContractError
from tinysight_contract.messages import AckCode, Command, decode
from tinysight_contract.scalars import Id

__all__ = ["MAX_BYTES", "SETTLED_S", "Refusal", "id_of", "overdue", "read"]

MAX_BYTES: Final = 16 * 1024
SETTLED_S: Final = 5.0
"""So long after a connect what the broker has kept for us may still come."""


class Refusal(Exception):  # noqa: N818 -- an answer, and no error of ours
    """A command that is not carried out.

    Attributes:
        code: what the answer says.
    """

    def __init__(self, code: AckCode, what: str, *, mend: str) -> None:
        super().__init__(f"{what} {mend}")
        self.code = code


class _Named(Struct, frozen=True):
    """All that is needed to answer."""

    id: Id


def id_of(payload: bytes) -> str | None:
    """The id of a command that may be wrong in all else; None when nobody can be answered."""
    if len(payload) > MAX_BYTES:
        return None
    try:
        return msgspec.json.decode(payload, type=_Named).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def read(payload: bytes, *, retained: bool) -> Command:
    """The command.

    Raises:
        Refusal: it is none, or the broker keeps it: then it would come again at each connect.
    """
    if retained:
        raise Refusal(
            AckCode.RETAINED,
            "A retained command is not carried out.",
            mend="Send it without the retain flag, and clear the topic with an empty retained message.",
        )
    if len(payload) > MAX_BYTES:
        what = f"A command of {len(payload)} bytes is larger than {MAX_BYTES}."
        raise Refusal(AckCode.MALFORMED, what, mend="Send less.")
    try:
        return decode(payload, Command)
    except ContractError as error:
        raise Refusal(AckCode.MALFORMED, error.what, mend=error.mend) from error


def overdue(command: Command, *, now: datetime, synced: bool | None, connected_s: float) -> Refusal | None:
    """Why a command comes too late; None when it does not.

    A clock that is known to be wrong says nothing about ``expires_at``. But a command that comes while the connection
    stands was sent a moment ago; only what comes just after a connect may have waited at the broker, for nobody knows
    how long.

    Args:
        command: as it came.
        now: by this device's clock.
        synced: whether that is right; None when nobody knows, and then it is believed.
        connected_s: for how long the connection has stood.
    """
    if synced is not False:
        if now < command.expires_at:
            return None
        late_s = (now - command.expires_at).total_seconds()
        what = f"It expired {late_s:.0f} s ago by this device's clock."
        return Refusal(AckCode.EXPIRED, what, mend="Send it again with a later expires_at.")
    if connected_s >= SETTLED_S:
        return None
    what = "This device's clock is not set and it has just connected, so nobody knows whether the command has expired."
    return Refusal(AckCode.CLOCK, what, mend=f"Send it again in {SETTLED_S:.0f} s; let the device reach a time server.")
