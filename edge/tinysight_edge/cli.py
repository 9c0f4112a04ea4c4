"""``tinysight run``: the agent from the command line."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

if TYPE_CHECKING:
    from tinysight_contract.bundle import Bundle
    from tinysight_edge.config.types import AgentConfig, ModelConfig
    from tinysight_edge.config.watch import Watch

__all__ = ["from_flags", "memory_of", "open_bundle", "run"]

AGAIN: Final = 75
"""The exit status that asks to be started again: EX_TEMPFAIL of sysexits.h, no success for ``Restart=on-failure``."""


def run(
    context: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The agent's file, instead of all other settings here; see docs/agent.md.", show_default=False
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Where pictures come from: synthetic:belt, a video file, a folder of images, a camera's number. "
            "Repeat for more cameras; name one with NAME=SOURCE.",
            show_default=False,
        ),
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option(
            envvar="TINYSIGHT_BROKER",
            help="mqtt://[user:password@]host[:port]; also mqtts, ws, wss.",
            show_default=False,
        ),
    ] = None,
    site: Annotated[str | None, typer.Option(help="The site's id, a level of every topic.", show_default=False)] = None,
    device: Annotated[
        str | None, typer.Option(help="The device's id, unique within the site.", show_default=False)
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="The bundle to run.", show_default=False)] = None,
    store: Annotated[
        Path | None, typer.Option(help="Run what is active in this device store.", show_default=False)
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder for undelivered events. [default: the store, or a folder of the user]")
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(help="Variant to run. [default: the fastest that passes its self-test]", show_default=False),
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
    import time

    from tinysight_edge.config.file import address_of
    from tinysight_edge.config.reloader import Reloader
    from tinysight_edge.config.watch import Watch
    from tinysight_edge.runtime import Agent
    from tinysight_edge.sources import name_of
    from tinysight_edge.watchdog import Watchdog

    agent: Agent | None = None
    well = asked = False

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if agent is not None:
            agent.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    logging.basicConfig(level=logging.ERROR if quiet else logging.INFO, format="%(levelname)s %(message)s")
    watch = None
    if config is not None:
        _alone(context)
        reloader = Reloader(config, memory_of(config), environ=os.environ)
        told, watch = reloader.start(time.monotonic()), Watch(reloader)
    else:
        told = from_flags(
            source=source,
            broker=broker,
            site=site,
            device=device,
            bundle=bundle,
            store=store,
            state=state,
            scheme=scheme,
            threads=threads,
            start_offline=start_offline,
        )
    address = address_of(told.broker, os.environ)

    agent = Agent(_first(told, watch, is_asked=lambda: asked), told, watch=watch, watchdog=Watchdog())
    lock = _hold(told.state)
    if asked:
        agent.stop()

    def ready() -> None:
        if not quiet:
            names = ", ".join(f"{name} ({name_of(camera)})" for name, camera in told.cameras.items())
            model = agent.swapper.seer.ref
            line = f"{told.site}/{told.device}: {names} → {model.name} {model.version} → {address}. Ctrl-C ends it."
            print(line, file=sys.stderr)

    try:
        result = agent.run(ready=ready)
        well = True
    finally:
        if watch is not None and (well or asked):  # what somebody wants to end speaks against nothing, however it ends
            watch.reloader.close()
        if lock is not None:
            os.close(lock)
    if agent.again:
        _begin_again()
    from tinysight_edge.console import finish  # the last thing that is needed, and 20 ms

    finish(result, as_json=as_json)


def _first(config: "AgentConfig", watch: "Watch | None", *, is_asked: Callable[[], bool]) -> "Bundle":
    """The bundle to start with. Of a store it may have to pass its self-test first, which the end of this process ends.

    Raises:
        TinySightError: there is none.
        typer.Exit: the end is asked for.
    """
    from tinysight_edge.store import Store
    from tinysight_edge.update.starting import open_first

    def heed() -> None:
        if is_asked():
            raise typer.Exit

    if config.model.store is None:
        return open_bundle(config.model)
    try:
        return open_first(Store(config.model.store), config, heed=heed)
    finally:
        if watch is not None and is_asked():
            watch.reloader.close()


def _begin_again() -> NoReturn:
    """Have systemd start another process; without it become one, under the same number."""
    if "NOTIFY_SOCKET" in os.environ:
        raise typer.Exit(AGAIN)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 -- the very command that runs


def open_bundle(model: "ModelConfig") -> "Bundle":
    """What is to run. Changes nothing.

    Raises:
        TinySightError: it is not there or damaged.
    """
    from tinysight_contract.bundle import Bundle
    from tinysight_edge.store import Store

    return Bundle.open(model.bundle) if model.bundle is not None else Store(model.store or Path()).active()


def from_flags(
    *,
    source: list[str] | None,
    broker: str | None,
    site: str | None,
    device: str | None,
    bundle: Path | None = None,
    store: Path | None = None,
    state: Path | None = None,
    scheme: str | None = None,
    threads: int = 1,
    start_offline: bool = False,
) -> "AgentConfig":
    """The same as a file, from the command line; here an address may hold a password.

    Raises:
        ConfigError: something is missing, or two things contradict each other.
        ContractError: the site or the device is no id.
    """
    from tinysight_contract.errors import ConfigError
    from tinysight_contract.topics import check_id
    from tinysight_edge.config.types import AgentConfig, BrokerConfig, CameraConfig, ModelConfig

    if not source or broker is None or site is None or device is None:
        given = {"--source": source, "--broker": broker, "--site": site, "--device": device}
        missing = ", ".join(name for name, value in given.items() if not value)
        raise ConfigError(f"A run needs {missing}.", mend="Give them, or a file with --config.")
    if (bundle is None) == (store is None):
        raise ConfigError("A run needs a bundle or a store.", mend="Give either --bundle or --store.")
    check_id(site, what="--site")
    check_id(device, what="--device")
    return AgentConfig(
        site=site,
        device=device,
        state=state or store or _state_home() / "tinysight" / site / device,
        broker=BrokerConfig(url=broker, start_offline=start_offline),
        model=ModelConfig(bundle=bundle, store=store, scheme=scheme, threads=threads),
        cameras={id_: CameraConfig(source=spec) for id_, spec in _cameras(source).items()},
    )


def memory_of(config: Path) -> Path:
    """The folder in which an agent remembers its file's last good content; it must not depend on what the file says."""
    import hashlib

    home = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd's StateDirectory=
    name = f"{config.stem}-{hashlib.sha256(bytes(config.absolute())).hexdigest()[:8]}"
    return (Path(home) if home else _state_home() / "tinysight") / "config" / name


def _alone(context: typer.Context) -> None:
    """Refuse flags beside --config; what the environment says of the broker then counts for nothing."""
    from tinysight_contract.errors import ConfigError

    others = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in {"config", "as_json", "quiet"}
        and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if others:
        raise ConfigError(f"--config and {', '.join(others)} say the same twice.", mend="Write it into the file.")


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


def _hold(folder: Path) -> int | None:
    """Make the folder and hold its lock, so that two agents never share an outbox. The lock ends with the process.

    None on a disk that is full or cannot be written: the agent goes on seeing and telling there, and says so.
    """
    import errno
    import logging

    from tinysight_contract.errors import ConfigError, StoreError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno in {errno.EROFS, errno.ENOSPC, errno.EDQUOT}:
            log = logging.getLogger(__name__)
            log.warning("%s: %s. Nothing keeps a second agent from it.", folder, error.strerror)
            return None
        raise StoreError(f"{folder} cannot be used: {error.strerror}.", mend="Name another --state folder.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ConfigError(
            f"Another agent runs in {folder}.", mend="Stop it, or give this one another --device or --state."
        ) from error
    return handle
