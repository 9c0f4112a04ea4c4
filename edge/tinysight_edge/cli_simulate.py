"""``tinysight simulate``: devices that do not exist, for dashboards and load."""

import signal
import threading
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from tinysight_contract.errors import ConfigError

if TYPE_CHECKING:
    from tinysight_edge.simulate.crowd import Crowd
    from tinysight_edge.simulate.simulate import Plan

__all__ = ["simulate"]


def simulate(
    *,
    broker: Annotated[
        str, typer.Option(envvar="TINYSIGHT_BROKER", help="mqtt://[user:password@]host[:port]; also mqtts, ws, wss.")
    ],
    devices: Annotated[int, typer.Option(help="How many.", min=1, max=20_000)] = 1,
    cameras: Annotated[
        int, typer.Option(help="Of each; 0 for devices that tell of themselves alone.", min=0, max=64)
    ] = 1,
    site: Annotated[str, typer.Option(help="Of all of them.")] = "sim",
    prefix: Annotated[str, typer.Option(help="Of their ids; a number follows.")] = "sim",
    rate: Annotated[float, typer.Option(help="How fast: 1 is as it was recorded.", min=0.01, max=100)] = 1.0,
    tape: Annotated[
        Path | None, typer.Option("--replay", help="Say instead what `tinysight watch --record` heard, at --site.")
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option(help="They update from it: a folder or an address, as in agent.toml.", show_default=False),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="The repository's first root.json, which they trust.", show_default=False)
    ] = None,
    active: Annotated[
        str | None, typer.Option(metavar="TARGET", help="The release that they run at first.", show_default=False)
    ] = None,
    behave: Annotated[
        str,
        typer.Option(
            help="Shares that fail, by their names: crash=2%,slow=1%,drift=1%,silent=1%,vanish=1%,liar=1%,offline=5%.",
            show_default=False,
        ),
    ] = "",
    update_seconds: Annotated[
        float, typer.Option(help="What an update takes, a third more or less on each.", min=0, max=86_400)
    ] = 6.0,
    offline_seconds: Annotated[
        float, typer.Option(help="When those come that are offline at first; 0 for never.", min=0)
    ] = 0.0,
    duration: Annotated[float, typer.Option(help="Seconds; 0 goes on until Ctrl-C.", min=0)] = 0.0,
    clear: Annotated[bool, typer.Option("--clear", help="Take retained messages back at the end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and results.")] = False,
) -> None:
    """Simulate devices: each has its own session, will, status, counts, and events that a real one once told.

    With `--repository` they update as well: they heed `desired`, check what is signed, and tell what becomes of it.
    """
    from tinysight_contract.mqtt import Address
    from tinysight_contract.topics import check_id
    from tinysight_edge.console import console, finish
    from tinysight_edge.simulate.crowd import Crowd
    from tinysight_edge.simulate.recording import read_recording
    from tinysight_edge.simulate.simulate import Plan

    if repository is None and (root is not None or active is not None or behave):
        raise ConfigError("Devices without a repository do not update.", mend="Name it with --repository.")
    check_id(site, what="--site")
    if tape is not None:
        _replay(tape, broker, site, rate, duration, clear=clear, as_json=as_json, quiet=quiet)
        return
    check_id(f"{prefix}-{devices:04d}", what="--prefix with its number")
    plan = Plan(
        address=Address.parse(broker), site=site, prefix=prefix, devices=devices, cameras=cameras, rate=rate
    )  # fmt: skip
    if repository is None:
        crowd = Crowd(plan, read_recording())
    else:
        crowd = _updating(
            plan, repository, root, active, behave, update_s=update_seconds, offline_s=offline_seconds or None
        )

    def end(_number: int, _frame: FrameType | None) -> None:
        crowd.stop()

    def ready() -> None:
        if not quiet:
            console.print(f"{devices} devices from {site}/{crowd.devices[0].name} on → {plan.address}. Ctrl-C ends it.")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    finish(crowd.run(duration_s=duration or None, clear=clear, ready=ready), as_json=as_json)


def _updating(
    plan: "Plan",
    repository: str,
    root: Path | None,
    active: str | None,
    behave: str,
    *,
    update_s: float,
    offline_s: float | None,
) -> "Crowd":
    from tinysight_edge.simulate.behave import parse_shares
    from tinysight_edge.simulate.update_plan import UpdatePlan
    from tinysight_edge.simulate.updating import UpdatingCrowd, read_root, release_of

    shares = parse_shares(behave)
    if root is None:
        what = "It is not said what the devices trust."
        raise ConfigError(what, mend="Name the repository's metadata/1.root.json with --root.")
    trusted = read_root(root)
    first = release_of(repository, trusted, active) if active is not None else None
    updating = UpdatePlan(
        **{each.name: getattr(plan, each.name) for each in fields(plan)},
        repository=repository,
        root=trusted,
        active=first,
        shares=shares,
        update_s=update_s,
        offline_s=offline_s,
    )
    return UpdatingCrowd(updating)


def _replay(
    tape: Path, broker: str, site: str, rate: float, duration: float, *, clear: bool, as_json: bool, quiet: bool
) -> None:
    from tinysight_contract.mqtt import Address
    from tinysight_edge.console import console, finish
    from tinysight_edge.simulate.replay import replay
    from tinysight_edge.simulate.tape import read_tape

    address, stop = Address.parse(broker), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())

    def ready() -> None:
        if not quiet:
            console.print(f"{tape} as {site} → {address}. Ctrl-C ends it.")

    result = replay(
        read_tape(tape),
        address,
        site=site,
        rate=rate,
        duration_s=duration or None,
        clear=clear,
        stop=stop,
        ready=ready,
    )
    finish(result, as_json=as_json)
