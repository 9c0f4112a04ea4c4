"""How the values of a fleet's state are kept in its tables: as JSON, checked when written and when read."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from tinysight_contract.errors import ConfigError, FleetError
from tinysight_contract.scalars import Count, Time
from tinysight_deploy.fleet.types import Key, Rollout, Wish

__all__ = ["Boxed", "Remade", "asked", "body_of", "failed", "read_body", "rows_of"]

T = TypeVar("T")


class Boxed(Struct, frozen=True, kw_only=True):
    """A device in the penalty box: it failed lately, and comes last.

    Attributes:
        until: when it leaves, by the controller's wall clock; coarse.
        times: how often in a row it came in.
        reason: why, for people.
    """

    until: Time
    times: Annotated[int, Meta(ge=1)] = 1
    reason: Annotated[str, Meta(max_length=500)] = ""


class Remade(Struct, frozen=True, kw_only=True):
    """What an audit log says of the state that it was of (`mirror.rebuild`).

    Attributes:
        rollouts: in the order of their beginning, with the number of the entry that began each.
        wishes: by rollout, as they were asked, and who failed; what else became of them is in the broker.
        boxed: the penalty box.
        epoch: the last leader's.
    """

    rollouts: dict[str, tuple[int, Rollout]] = {}
    wishes: dict[str, dict[Key, Wish]] = {}
    boxed: dict[Key, Boxed] = {}
    epoch: Count = 0


def asked(wish: Wish) -> dict[str, Any]:
    """Of a wish, what is known when it is asked."""
    fields = ("site", "device", "stage", "revision", "sent_s", "before")
    return {name: getattr(wish, name) for name in fields}


def failed(wish: Wish) -> dict[str, Any]:
    """Of a wish, what has to be known when the log is all that is left: who lets it go on forgives what was known."""
    fields = ("site", "device", "outcome", "reached_s", "settled_s")
    return {name: getattr(wish, name) for name in fields}


def rows_of(name: str, wishes: Iterable[Wish]) -> tuple[list[dict[str, str]], dict[Key, Wish]]:
    """As they are kept, and by their devices."""
    given: Sequence[Wish] = list(wishes)
    body_of(given, list[Wish])
    keyed = {wish.key: wish for wish in given}
    if len(keyed) != len(given):
        raise FleetError("A device is named twice.", mend="Give each once.")
    encode = msgspec.json.Encoder().encode
    rows = [
        {"rollout": name, "site": wish.site, "device": wish.device, "body": encode(wish).decode()} for wish in given
    ]
    return rows, keyed


def body_of(value: object, kind: Any) -> str:  # noqa: ANN401 -- a type, or one that takes parameters
    """A value as it is kept, once it is known that it can be read again."""
    try:
        body = msgspec.json.encode(value)
        msgspec.json.decode(body, type=kind)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise ConfigError(f"That cannot be kept: {error}.", mend="Check its ids and numbers.") from error
    return body.decode()


def read_body(body: str, kind: type[T]) -> T:
    """The inverse of `body_of`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, msgspec.MsgspecError) as error:
        raise FleetError(
            f"The state is damaged: {error}.",
            mend="Stop what uses it, and rebuild it of its log's copy with `tinysight audit rebuild`.",
        ) from error
