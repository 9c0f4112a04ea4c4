"""``tinysight simulate``: devices that do not exist, for dashboards and load."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

__all__ = ["simulate"]


def simulate(
    *,
    broker: Annotated[
        str, typer.Option(envvar="TINYSIGHT_BROKER", help="mqtt://[user:password@]host[:port]; also mqtts, ws, wss.")
    ],
    devices: Annotated[int, typer.Option(help="How many.", min=1, max=9999)] = 1,
    cameras: Annotated[int, typer.Option(help="Of each.", min=1, max=64)] = 1,
    site: Annotated[str, typer.Option(help="Of all of them.")] = "sim",
    prefix: Annotated[str, typer.Option(help="Of their ids; a number follows.")] = "sim",
    rate: Annotated[float, typer.Option(help="How fast: 1 is as it was recorded.", min=0.01, max=100)] = 1.0,
    tape: Annotated[
        Path | None, typer.Option("--replay", help="Say instead what `tinysight watch --record` heard, at --site.")
    ] = None,
    duration: Annotated[float, typer.Option(help="Seconds; 0 goes on until Ctrl-C.", min=0)] = 0.0,
    clear: Annotated[bool, typer.Option("--clear", help="Take retained messages back at the end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and results.")] = False,
) -> None:
    """Simulate devices: each has its own session, will, status, counts, and events that a real one once told."""
    from tinysight_contract.mqtt import Address
    from tinysight_contract.topics import check_id
    from tinysight_edge.console import console, finish
    from tinysight_edge.simulate.crowd import Crowd
    from tinysight_edge.simulate.recording import read_recording
    from tinysight_edge.simulate.simulate import Plan

    check_id(site, what="--site")
    if tape is not None:
        _replay(tape, broker, site, rate, duration, clear=clear, as_json=as_json, quiet=quiet)
        return
    check_id(f"{prefix}-{devices:04d}", what="--prefix with its number")
    plan = Plan(
        address=Address.parse(broker), site=site, prefix=prefix, devices=devices, cameras=cameras, rate=rate
    )  # fmt: skip
    crowd = Crowd(plan, read_recording())

    def end(_number: int, _frame: FrameType | None) -> None:
        crowd.stop()

    def ready() -> None:
        if not quiet:
            console.print(f"{devices} devices from {site}/{crowd.devices[0].name} on → {plan.address}. Ctrl-C ends it.")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    finish(crowd.run(duration_s=duration or None, clear=clear, ready=ready), as_json=as_json)


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
