"""``tinysight dashboard``: serve the browser dashboard, or write it into a folder for another web server."""

import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from tinysight_contract.errors import ConfigError
from tinysight_deploy.dashboard import site
from tinysight_deploy.dashboard.settings import Settings
from tinysight_deploy.serving import Bind, address, heed_signals, listening, serve, server_of, tls
from tinysight_edge.console import console, finish

__all__ = ["dashboard"]


def dashboard(
    *,
    broker: Annotated[
        str, typer.Option(help="Its WebSocket listener: wss://HOST:PORT/PATH, or ws:// on this machine.")
    ],
    api: Annotated[
        str | None, typer.Option(help="The fleet's server: https://host[:port].", show_default=False)
    ] = None,
    bind: Annotated[str, typer.Option(help="Where to listen; port 0 takes a free one.")] = "127.0.0.1:8400",
    cert: Annotated[Path | None, typer.Option(help="A PEM certificate, for TLS.", show_default=False)] = None,
    key: Annotated[Path | None, typer.Option(help="Its key.", show_default=False)] = None,
    behind_proxy: Annotated[bool, typer.Option("--behind-proxy", help="A reverse proxy in front has TLS.")] = False,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in this machine's browser.")] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Write it into this folder instead, for another web server.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as one JSON line.")] = False,
) -> None:
    """Serve the browser dashboard. Ctrl-C ends it.

    The page speaks to the broker by itself; nothing that it shows comes through here. It asks for the broker's user and
    password, and for a token of the fleet's server, and keeps them until its tab is closed.
    """
    settings = Settings.parse(broker, api)
    if settings.plain is not None:
        console.print(f"Passwords go to {settings.plain} in plain text; wss:// encrypts them.", style="yellow")
    if export is not None:
        count = site.export(settings, export)
        finish(
            {"folder": str(export), "files": count, "content_security_policy": site.policy(settings)}, as_json=as_json
        )
        return
    place, secure = Bind.parse(bind), cert is not None
    place.refuse_plain(tls=secure, behind_proxy=behind_proxy, what="Passwords and tokens")
    tls(cert, key)
    if settings.plain is not None and (secure or behind_proxy):
        raise ConfigError(
            f"A page that came with TLS may not speak to {settings.broker}, which has none.",
            mend="Name the broker's listener with TLS: wss://.",
        )
    app = site.application(settings, secure=secure)
    server = server_of(app, cert=cert, key=key, behind_proxy=behind_proxy)
    heed_signals(server)
    with listening(place) as (socket, port):
        url = address(place, port, tls=secure)
        if settings.api is not None:
            known = not (place.everywhere or behind_proxy)
            origin = f"`--origin {url}`" if known else "`--origin` and the origin at which browsers open this page"
            console.print(f"The fleet's server has to be started with {origin}.", markup=False)
        finish({"address": url, "broker": settings.broker, "api": settings.api}, as_json=as_json)
        if open_:
            own = address(Bind("localhost", port), port, tls=secure) if place.everywhere else url
            threading.Thread(target=webbrowser.open, args=(own,), daemon=True).start()  # text browsers do not return
        serve(server, socket)
