"""``tinysight run``: the agent from the command line."""

import fcntl
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

__all__ = ["run"]


def run(
    *,
    source: Annotated[
        list[str],
        typer.Option(
            help="Where pictures come from: synthetic:belt, a video file, a folder of images, a camera's number. "
            "Repeat for more cameras; name one with NAME=SOURCE.",
            show_default=False,
        ),
    ],
    broker: Annotated[
        str, typer.Option(envvar="TINYSIGHT_BROKER", help="mqtt://[user:password@]host[:port]; also mqtts, ws, wss.")
    ],
    site: Annotated[str, typer.Option(help="The site's id, a level of every topic.")],
    device: Annotated[str, typer.Option(help="The device's id, unique within the site.")],
    bundle: Annotated[Path | None, typer.Option(help="The bundle to run.", show_default=False)] = None,
    store: Annotated[
        Path | None, typer.Option(help="Run what is active in this device store.", show_default=False)
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder for undelivered events. [default: the store, or a folder of the user]")
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="Variant to run. [default: the first that loads]", show_default=False)
    ] = None,
    threads: Annotated[int, typer.Option(help="Of the interpreter.", min=1, max=64)] = 1,
    start_offline: Annotated[
        bool, typer.Option("--start-offline", help="Begin although the broker is away; events wait on disk.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and results.")] = False,
) -> None:
    """Run camera agents: camera → model → tracks → events on MQTT."""
    # The agent multiplies no matrices; starting threads for it costs 30 ms and a thread per core. NumPy reads it once.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    import logging

    from tinysight_contract.bundle import Bundle
    from tinysight_contract.errors import ConfigError
    from tinysight_contract.topics import check_id
    from tinysight_edge.mqtt import Address
    from tinysight_edge.runtime import Agent, Settings
    from tinysight_edge.store import Store

    logging.basicConfig(level=logging.ERROR if quiet else logging.INFO, format="%(levelname)s %(message)s")
    if (bundle is None) == (store is None):
        raise ConfigError("A run needs a bundle or a store.", mend="Give either --bundle or --store.")
    check_id(site, what="--site")
    check_id(device, what="--device")
    address = Address.parse(broker)
    loaded = Bundle.open(bundle) if bundle is not None else Store(store or Path()).active()
    folder = state or store or _state_home() / "tinysight" / site / device
    lock = _hold(folder)
    agent = Agent(
        loaded,
        Settings(
            site=site,
            device=device,
            broker=address,
            cameras=_cameras(source),
            state=folder,
            scheme=scheme,
            threads=threads,
            start_offline=start_offline,
        ),
    )

    def end(_number: int, _frame: FrameType | None) -> None:
        agent.stop()

    def ready() -> None:
        if not quiet:
            names = ", ".join(f"{name} ({spec})" for name, spec in agent.settings.cameras.items())
            manifest = loaded.manifest
            print(
                f"{site}/{device}: {names} → {manifest.name} {manifest.version} → {address}. Ctrl-C ends it.",
                file=sys.stderr,
            )

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        result = agent.run(ready=ready)
    finally:
        os.close(lock)
    from tinysight_edge.console import finish  # the last thing that is needed, and 20 ms

    finish(result, as_json=as_json)


def _cameras(given: list[str]) -> dict[str, str]:
    """Camera id to source; ``NAME=SOURCE`` names one, the others are cam0, cam1 and so on."""
    from tinysight_contract.errors import ConfigError
    from tinysight_contract.topics import ID

    cameras: dict[str, str] = {}
    for number, text in enumerate(given):
        name, equals, spec = text.partition("=")
        if not equals or ID.fullmatch(name) is None:
            name, spec = f"cam{number}", text
        if name in cameras:
            raise ConfigError(f"Two cameras are called {name!r}.", mend="Give each --source a name of its own.")
        cameras[name] = spec
    return cameras


def _state_home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")


def _hold(folder: Path) -> int:
    """Make the folder and hold its lock, so that two agents never share an outbox. The lock ends with the process."""
    from tinysight_contract.errors import ConfigError, StoreError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{folder} cannot be used: {error.strerror}.", mend="Name another --state folder.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ConfigError(
            f"Another agent runs in {folder}.", mend="Stop it, or give this one another --device or --state."
        ) from error
    return handle
