"""``tinysight device``: the devices that are known, and a look at one of them over SSH."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer
from typer.core import TyperCommand

from tinysight_deploy.provisioning.cli import add

if TYPE_CHECKING:
    from rich.table import Table

    from tinysight_deploy.devices.goals import Goal
    from tinysight_deploy.devices.inventory import Device, Inventory
    from tinysight_deploy.devices.run import Answer, Reach

__all__ = ["device_app"]

device_app = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})

_COMMAND: Final = "tinysight.command"
Name = Annotated[str, typer.Argument(help="A device's name, or ssh://user@host.", show_default=False)]
Book = Annotated[
    Path | None,
    typer.Option(
        "--inventory", help="The devices' file; ~/.config/tinysight/devices.toml unless given.", show_default=False
    ),
]
Identity = Annotated[
    Path | None, typer.Option(help="A private key's file, instead of your keys and agent.", show_default=False)
]
Patience = Annotated[float, typer.Option(help="Seconds for a command there.", min=0.1, max=86400)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON line.")]


class _AfterDashes(TyperCommand):
    """A command line with another one in it, behind ``--``."""

    def parse_args(self, ctx: object, args: list[str]) -> list[str]:
        context = cast("typer.Context", ctx)
        if "--" in args:
            at = args.index("--")
            context.meta[_COMMAND] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(context, args)


@device_app.callback()
def _device() -> None:
    """The devices that are known, and a look at one of them over SSH."""


device_app.command("add")(add)


@device_app.command("list")
def list_(
    which: Annotated[
        list[str] | None, typer.Argument(help="NAME, @group, tag:name=value or all.", show_default=False)
    ] = None,
    *,
    inventory: Book = None,
    as_json: AsJson = False,
) -> None:
    """List devices."""
    from rich.table import Table

    from tinysight_deploy.devices.inventory import select
    from tinysight_deploy.tables import show_table

    book = _book(inventory)
    devices = book.devices()
    names = select(devices, which) if which else list(devices)
    if as_json:
        _print_json({name: devices[name] for name in names})
        return
    if not names:
        print(f"{book.path} has no devices. Add one with `tinysight device add`.")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "address", "site/device", "groups", "tags", "machine"):
        table.add_column(column, overflow="fold")
    for name in names:
        _row(table, name, devices[name])
    show_table(table)


@device_app.command("show")
def show(
    name: Name,
    *,
    ask: Annotated[bool, typer.Option("--ask", help="Ask the device what it runs, too.")] = False,
    inventory: Book = None,
    identity: Identity = None,
    timeout: Patience = 60.0,
    as_json: AsJson = False,
) -> None:
    """Show what is known of a device."""
    import msgspec

    from tinysight_deploy.devices.run import held_by
    from tinysight_edge.console import finish

    book = _book(inventory)
    goal, device = _goal(book, name)
    known = {} if device is None else msgspec.to_builtins(device)
    told: dict[str, object] = {"name": goal.name, "address": str(goal.where), **known}
    if ask:
        told["held"] = msgspec.to_builtins(held_by(goal, _reach(book, identity, timeout)))
    if not as_json:
        told = {key: value for key, value in _flat(told) if value not in ("", [], None)}
    finish(told, as_json=as_json)


@device_app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="The device's name.", show_default=False)], *, inventory: Book = None
) -> None:
    """Take a device out of the inventory and forget its host key. The device itself is left as it is."""
    from tinysight_deploy.remote.known_hosts import KnownHosts

    book = _book(inventory)
    gone = book.remove(name)
    host = gone.target.host_name
    if not any(each.target.host_name == host for each in book.devices().values()):
        KnownHosts(book.known_hosts).forget(host)
    print(f"{name} is no longer in {book.path}. What runs there goes on running.")


@device_app.command("forget-key")
def forget_key(name: Name, *, inventory: Book = None) -> None:
    """Forget a device's host key, after it was set up anew; the next connection shows and keeps the new one."""
    from tinysight_deploy.devices.run import forget

    host, *named = forget(_book(inventory), name)
    print(f"The host key of {host} is forgotten{' (' + ', '.join(named) + ')' if named else ''}.")


@device_app.command("exec", cls=_AfterDashes)
def exec_(
    context: typer.Context,
    which: Annotated[
        list[str], typer.Argument(help="NAME, @group, tag:name=value, all or ssh://….", show_default=False)
    ],
    *,
    inventory: Book = None,
    identity: Identity = None,
    timeout: Patience = 60.0,
    parallel: Annotated[int, typer.Option(help="Devices at once.", min=1, max=256)] = 8,
    as_json: AsJson = False,
) -> None:
    """Run a command on devices, as who logs in: tinysight device exec NAME… -- COMMAND.

    Nothing in it is read by a shell; write `-- sh -c '…'` for that. Status 1 when it fails on one of them.
    """
    from dataclasses import replace

    from tinysight_contract.errors import ConfigError
    from tinysight_deploy.devices.goals import goals_of
    from tinysight_deploy.devices.run import run_on

    command = context.meta.get(_COMMAND)
    if not command:
        raise ConfigError("There is no command.", mend="Write it behind --: tinysight device exec NAME -- uptime")
    book = _book(inventory)
    goals = goals_of(which, book)
    answers = run_on(goals, command, replace(_reach(book, identity, timeout), parallel=parallel))
    if as_json:
        _print_json(answers)
    else:
        for answer in answers:
            _say(answer, alone=len(answers) == 1)
    if any(answer.status != 0 for answer in answers):
        raise typer.Exit(1)


@device_app.command("logs")
def logs(
    name: Name,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as more comes; Ctrl-C ends it.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", help="How many of the last.", min=0, max=100_000)] = 100,
    inventory: Book = None,
    identity: Identity = None,
    timeout: Patience = 60.0,
) -> None:
    """Show what a device's agent says."""
    from tinysight_deploy.devices.run import follow as read

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    book = _book(inventory)
    read(_goal(book, name)[0], _reach(book, identity, timeout), lines=lines, on=follow, tell=tell)


@device_app.command("doctor")
def doctor(
    name: Name,
    *,
    inventory: Book = None,
    identity: Identity = None,
    timeout: Patience = 120.0,
    as_json: AsJson = False,
) -> None:
    """Run `tinysight doctor` on a device. Status 1 if anything fails."""
    from rich.table import Table
    from rich.text import Text

    from tinysight_deploy.devices.run import doctor as examine
    from tinysight_deploy.remote.targets import plain
    from tinysight_deploy.tables import show_table
    from tinysight_edge.doctor.result import Verdict

    book = _book(inventory)
    found = examine(_goal(book, name)[0], _reach(book, identity, timeout))
    if as_json:
        _print_json(found)
    else:
        table = Table(show_header=False, box=None, pad_edge=False)
        colours = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.SKIP: "dim"}
        for each in found:
            words = plain(each.what) + (f" → {plain(each.mend)}" if each.mend else "")
            table.add_row(Text(each.verdict.value, style=colours[each.verdict]), Text(plain(each.check)), Text(words))
        show_table(table)
    if any(each.verdict is Verdict.FAIL for each in found):
        raise typer.Exit(1)


def _book(inventory: Path | None) -> "Inventory":
    from tinysight_deploy.devices.inventory import Inventory, inventory_path

    return Inventory(inventory_path(inventory))


def _reach(book: "Inventory", identity: Path | None, timeout_s: float) -> "Reach":
    from tinysight_deploy.devices.run import Reach
    from tinysight_deploy.remote.known_hosts import KnownHosts

    return Reach(KnownHosts(book.known_hosts), identity, timeout_s)


def _goal(book: "Inventory", name: str) -> "tuple[Goal, Device | None]":
    """One device, and what the inventory has of it."""
    from tinysight_contract.errors import ConfigError
    from tinysight_deploy.devices.goals import goals_of

    goals = goals_of([name], book)
    if len(goals) != 1:
        raise ConfigError(f"{name} means {len(goals)} devices.", mend="Give the name of one.")
    return goals[0], book.devices().get(goals[0].name)


def _row(table: "Table", name: str, device: "Device") -> None:
    from rich.text import Text

    from tinysight_deploy.remote.targets import plain

    tags = " ".join(f"{key}={value}" for key, value in device.tags.items())
    machine = str(device.facts.get("machine", ""))
    words = (name, device.address, f"{device.site}/{device.device}", " ".join(device.groups), tags, machine)
    table.add_row(*(Text(plain(word)) for word in words))


def _say(answer: "Answer", *, alone: bool) -> None:
    """What a command did: its lines, behind the device's name when there are several."""
    mark = "" if alone else f"{answer.device}: "
    for line in answer.out:
        sys.stdout.write(f"{mark}{line}\n")
    for line in answer.err:
        sys.stderr.write(f"{mark}{line}\n")
    if answer.status is None:
        sys.stderr.write(f"error: {answer.device}: {answer.reason}\n")
    elif answer.status != 0:
        sys.stderr.write(f"{answer.device}: ended with status {answer.status}\n")


def _flat(told: dict[str, object]) -> list[tuple[str, object]]:
    """A record as lines for people: what is nested stands as ``outer.inner``."""
    from tinysight_deploy.remote.targets import plain

    found: list[tuple[str, object]] = []
    for key, value in told.items():
        if isinstance(value, dict):
            found += [(f"{key}.{inner}", each) for inner, each in _flat(value)]
        else:
            found.append((key, plain(value) if isinstance(value, str) else value))
    return found


def _print_json(told: object) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    sys.stdout.flush()
