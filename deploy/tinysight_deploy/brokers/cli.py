"""``tinysight broker``: one for development, started at once; and the files of a site's Mosquitto, for the field."""

import signal
import threading
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated

import typer

from tinysight_contract.errors import BrokerError
from tinysight_deploy.brokers.broker import Ports, running_broker
from tinysight_edge.console import console, finish

__all__ = ["broker_app"]

broker_app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})


@broker_app.callback(invoke_without_command=True)
def broker(
    context: typer.Context,
    *,
    port: Annotated[
        int, typer.Option(help="MQTT 5 over TCP; the two ports above it take 3.1.1 and WebSockets.")
    ] = 1883,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON line.")] = False,
) -> None:
    """Start a broker for development: MQTT 5, MQTT 3.1.1 and WebSockets. Ctrl-C ends it.

    It asks for no password and has no TLS. For the field, `tinysight broker config` sets up Mosquitto.
    """
    if context.invoked_subcommand is not None:
        return
    if not 1 <= port <= 65533:
        raise BrokerError(f"Port {port} is out of range.", mend="Choose one from 1 to 65533.")
    try:
        host = str(IPv4Address("127.0.0.1" if host == "localhost" else host))
    except ValueError as error:
        raise BrokerError(f"{host!r} is no IPv4 address.", mend="Give --host 127.0.0.1 or 0.0.0.0.") from error
    ports = Ports(port, port + 1, port + 2)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    with running_broker(ports, host=host):
        if not IPv4Address(host).is_loopback:
            console.print(f"Whoever reaches {host} may read and write everything here.")
        finish(
            {
                "mqtt5": f"mqtt://{host}:{ports.mqtt5}",
                "mqtt3": f"mqtt://{host}:{ports.mqtt3}?version=3",
                "websocket": f"ws://{host}:{ports.websocket}",
            },
            as_json=as_json,
        )
        stop.wait()


@broker_app.command("config")
def config(
    *,
    out: Annotated[Path, typer.Option(help="Folder to make, or to add to.", show_default=False)],
    site: Annotated[str | None, typer.Option(help="Whose devices these are; needed once.", show_default=False)] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address of the broker, the one devices use first. By default this machine's name."),
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="A device to let in.", show_default=False)] = None,
    reader: Annotated[
        list[str] | None, typer.Option(help="Who hears everything and says nothing.", show_default=False)
    ] = None,
    operator: Annotated[
        list[str] | None, typer.Option(help="Who also sends commands and desired states.", show_default=False)
    ] = None,
    bridge: Annotated[
        list[str] | None, typer.Option(help="Another site, whose broker passes its messages on.", show_default=False)
    ] = None,
    revoke: Annotated[
        list[str] | None, typer.Option(help="A device, bridge or person to let in no longer.", show_default=False)
    ] = None,
    port: Annotated[int | None, typer.Option(help="For devices; 8883 at first.", show_default=False)] = None,
    people_port: Annotated[int | None, typer.Option(help="For people; 8884 at first.", show_default=False)] = None,
    websocket_port: Annotated[int | None, typer.Option(help="For browsers; 8084 at first.", show_default=False)] = None,
    installed_at: Annotated[
        Path | None, typer.Option(help="Where the broker finds its files; OUT/broker at first.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where it keeps messages; /var/lib/mosquitto at first.", show_default=False)
    ] = None,
    home_assistant: Annotated[
        bool | None, typer.Option(help="Let devices announce themselves to Home Assistant.", show_default=False)
    ] = None,
    emqx: Annotated[
        bool | None, typer.Option(help="Write the same for an EMQX cluster, too.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Set up Mosquitto for a site: certificates, passwords, rules, limits. Call it again to add, revoke or renew.

    What was given before is remembered; certificates with less than 90 days left are made anew.
    """
    from tinysight_deploy.brokers.folder import Wishes, configure

    changes = {
        "port": port,
        "people_port": people_port,
        "websocket_port": websocket_port,
        "installed_at": None if installed_at is None else str(installed_at),
        "data": None if data is None else str(data),
        "home_assistant": home_assistant,
        "emqx": emqx,
    }
    wishes = Wishes(
        site=site,
        hosts=host or (),
        devices=device or (),
        bridges=bridge or (),
        readers=reader or (),
        operators=operator or (),
        revoke=revoke or (),
        changes={name: value for name, value in changes.items() if value is not None},
    )
    done = configure(out, wishes)
    if (out / "ca.key").exists():
        console.print(f"Take {out / 'ca.key'} offline now: whoever has it can let anybody in. It is needed to sign.")
    console.print(
        "A broker that runs takes the change over with `systemctl reload mosquitto`; new ports need a restart."
    )
    finish({"broker": str(out / "broker" / "mosquitto.conf"), **done}, as_json=as_json)
