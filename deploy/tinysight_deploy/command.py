"""``tinysight command``: have a device do something once, and say what it answers."""

import asyncio
import re
from typing import Annotated, Any

import msgspec
import typer

from tinysight_contract.client import connect
from tinysight_contract.errors import ConfigError
from tinysight_contract.messages import Ack
from tinysight_contract.topics import check_id
from tinysight_edge.console import finish

__all__ = ["command"]


def command(
    device: Annotated[str, typer.Argument(help="SITE/DEVICE.", show_default=False)],
    name: Annotated[
        str,
        typer.Argument(
            help="snapshot, reload, restart, identify, log-level or camera-enable; docs/commands.md tells more.",
            show_default=False,
        ),
    ],
    args: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of the command.", show_default=False)
    ] = None,
    *,
    broker: Annotated[
        str, typer.Option(envvar="TINYSIGHT_BROKER", help="mqtt://[user:password@]host[:port]; also mqtts, ws, wss.")
    ],
    within: Annotated[float, typer.Option(help="Seconds; later the device must not do it any more.", min=0.1)] = 15.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as one JSON line.")] = False,
) -> None:
    """Have a device do something once, and wait for its answer."""
    site, slash, id_ = device.partition("/")
    if not slash:
        raise ConfigError(f"{device!r} names no device.", mend="Write SITE/DEVICE.")
    check_id(site, what="site")
    check_id(id_, what="device")
    check_id(name, what="command")
    given = _arguments(args or [])

    async def send() -> Ack:
        async with connect(broker, site=site, device=id_) as client:
            return await client.command(site, id_, name, given, within_s=within)

    ack = asyncio.run(send())
    answer = msgspec.to_builtins(ack) if as_json else {"answer": ack.code, **ack.result}
    finish(answer, as_json=as_json)


def _arguments(given: list[str]) -> dict[str, Any]:
    """``camera=gate enabled=false seconds=5``: numbers, true, false and null are those of JSON, all else is text."""
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or re.fullmatch(r"[a-z][a-z_]{0,62}", key) is None or key in found:
            raise ConfigError(f"{text!r} is no argument of a command.", mend="Write each as KEY=VALUE, once.")
        try:
            found[key] = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeEncodeError):
            found[key] = value
    return found
