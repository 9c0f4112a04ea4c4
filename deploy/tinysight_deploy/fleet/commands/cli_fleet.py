"""``tinysight fleet``: a server that leads rollouts and is asked over HTTP, and the tokens of those who may ask it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tinysight_contract.errors import ConfigError, StateGone
from tinysight_deploy.fleet.commands.cli_common import (
    AsJson,
    InventoryOption,
    Where,
    holder,
    mirror_file,
    user,
)
from tinysight_deploy.places import RepoOption, StateOption
from tinysight_edge.console import console, finish

__all__ = ["fleet_app", "token_app"]

HELP = {"help_option_names": ["-h", "--help"]}
fleet_app = typer.Typer(context_settings=HELP, no_args_is_help=True)
token_app = typer.Typer(context_settings=HELP, no_args_is_help=True, help="Who may ask the server, and what.")
fleet_app.add_typer(token_app, name="token")


@fleet_app.callback()
def fleet_root() -> None:
    """Lead rollouts as a service, with an API for dashboards and commands."""


@fleet_app.command("serve")
def serve(
    *,
    broker: Annotated[
        str, typer.Option(envvar="TINYSIGHT_BROKER", help="mqtt://[user:password@]host[:port]; also mqtts, ws, wss.")
    ],
    repo: RepoOption = None,
    state: StateOption = None,
    bind: Annotated[str, typer.Option(help="Where to listen; port 0 takes a free one.")] = "127.0.0.1:8440",
    cert: Annotated[Path | None, typer.Option(help="A PEM certificate, for TLS.", show_default=False)] = None,
    key: Annotated[Path | None, typer.Option(help="Its key.", show_default=False)] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A reverse proxy in front has TLS and says who asks.")
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="A web page elsewhere that may ask, such as https://dash.example.com.", show_default=False),
    ] = None,
    inventory: InventoryOption = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="A folder for hard examples of devices, for `tinysight data pull`.", show_default=False),
    ] = None,
    examples_keep: Annotated[
        str, typer.Option(help="No more than so much in it; 512 MiB of its disk stay free besides.")
    ] = "20GiB",
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as one JSON line.")] = False,
) -> None:
    """Lead rollouts, and answer over HTTP. Ctrl-C ends it; rollouts go on when it, or another, is started again.

    Several may run on one state: one leads, and all answer.
    """
    import logging

    from tinysight_contract.mqtt import Address
    from tinysight_deploy.fleet.control.controller import Controller
    from tinysight_deploy.fleet.keeping.examples import Kept, Limits
    from tinysight_deploy.fleet.keeping.mirror import Mirror
    from tinysight_deploy.fleet.server.app import Bind, application, listening
    from tinysight_deploy.fleet.server.app import serve as run
    from tinysight_deploy.fleet.server.taking import Fleet
    from tinysight_deploy.serving import address as url_of

    where, place = Where(state, broker, repo, inventory), Bind.parse(bind)
    place.refuse_plain(tls=cert is not None, behind_proxy=behind_proxy)
    keep = _size(examples_keep)
    address = Address.parse(broker)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    origins = [_origin(each) for each in origin or []]
    with where.opened(make=True) as opened, listening(place) as (socket, port):
        try:
            if not opened.tokens():
                console.print("There are no tokens yet: `tinysight fleet token add NAME --role admin` makes one.")
        except StateGone as error:  # it answers 503 until then
            console.print(f"{error} It is waited for.", markup=False)
        copy = mirror_file(opened)
        mirror = Mirror(copy.parent, copy.name)
        controller = Controller(opened, broker, holder=holder(), inventory=where.book(), mirror=mirror)
        kept = None if examples is None else Kept(examples, Limits(keep_bytes=keep))
        fleet = Fleet(opened, controller, repo=where.repository(), inventory=where.book(), examples=kept)
        app = application(fleet, origins=origins, secure=cert is not None)
        console.print(f"Leading at {address}. Ctrl-C ends it.", markup=False)
        told = {"address": url_of(place, port, tls=cert is not None), "state": opened.url}
        finish(told, as_json=as_json)
        run(app, socket, controller.run, cert=cert, key=key, behind_proxy=behind_proxy)


@token_app.callback()
def token_root() -> None:
    """Who may ask the server, and what."""


@token_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Of whoever gets it; the audit log says it.", show_default=False)],
    *,
    role: Annotated[str, typer.Option(help="read, operate, admin or device.", show_default=False)],
    device: Annotated[
        str | None, typer.Option(help="SITE/DEVICE that it belongs to, with the role device.", show_default=False)
    ] = None,
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, this once: only its SHA-256 is kept."""
    from tinysight_deploy.fleet.keeping.tokens import Role

    if role not in [*Role]:
        raise ConfigError(f"There is no role {role!r}.", mend=f"Choose one of: {', '.join(Role)}.")
    if (role == Role.DEVICE) != (device is not None):
        raise ConfigError("--device goes with --role device.", mend="Give both, or none.")
    site, slash, id_ = (device or "/").partition("/")
    if device is not None and not (slash and site and id_):
        raise ConfigError(f"{device!r} names no device.", mend="Write SITE/DEVICE.")
    with Where(state).opened(make=True) as opened:
        text = opened.add_token(name, Role(role), site=site, device=id_, who=user())
    if as_json:
        finish({"name": name, "role": role, "device": device, "token": text}, as_json=True)
        return
    console.print("Keep it in a file that nobody else can read; it is not shown again.")
    print(text)


@token_app.command("list")
def list_tokens(
    *,
    state: StateOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tokens as one JSON list.")] = False,
) -> None:
    """List who has a token, and for what. The tokens themselves are not kept."""
    import msgspec

    from tinysight_deploy.fleet.commands.showing import tokens
    from tinysight_deploy.tables import show_table

    with Where(state).opened() as opened:
        found = opened.tokens()
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    elif found:
        show_table(tokens((each.name, each.role, f"{each.site}/{each.device}".strip("/")) for each in found))
    else:
        print("There are no tokens. Make one with `tinysight fleet token add`.")


@token_app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="As `list` shows it.", show_default=False)], *, state: StateOption = None
) -> None:
    """Have a token let in nobody any more, from the next request on."""
    with Where(state).opened() as opened:
        opened.drop_token(name, who=user())
    print(f"{name} is let in no more.")


def _size(text: str) -> int:
    """How much is kept.

    Raises:
        ConfigError: it is no size, or less than one picture may have.
    """
    from tinysight_edge.units import Size

    try:
        size = Size.parse(text)
    except ValueError as error:
        raise ConfigError(f"--examples-keep: {error}.", mend="Write it as 20GiB.") from error
    if size < 8 << 20:
        raise ConfigError(f"--examples-keep {text} has no room for one picture.", mend="Give at least 8MiB.")
    return size


def _origin(text: str) -> str:
    """A web page's origin, as a browser sends it.

    Raises:
        ConfigError: it is none.
    """
    from urllib.parse import urlsplit

    from tinysight_deploy.serving import origin

    try:
        parts = urlsplit(text)
        alone = parts.netloc == text.partition("://")[2] and "@" not in parts.netloc
        if parts.scheme in {"http", "https"} and parts.hostname and alone:
            return origin(parts.scheme, parts.hostname, parts.port)
    except ValueError:
        pass
    raise ConfigError(f"--origin {text!r} is no origin.", mend="Write https://HOST[:PORT], without a path.")
