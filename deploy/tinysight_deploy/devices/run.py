"""Run a command on devices, many at once; what goes wrong on one is its answer and disturbs no other."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from tinysight_contract.errors import ConfigError, DeviceError, TinySightError
from tinysight_deploy.devices.goals import Goal
from tinysight_deploy.devices.inventory import Inventory
from tinysight_deploy.remote.answers import Held, failed, read_held
from tinysight_deploy.remote.known_hosts import KnownHosts
from tinysight_deploy.remote.ssh import Done, Remote, connect, go
from tinysight_deploy.remote.targets import AGENT_USER, SshTarget, elevate, plain
from tinysight_edge.console import console
from tinysight_edge.doctor.result import Result

__all__ = ["Answer", "Reach", "doctor", "follow", "forget", "held_by", "run_on"]

log = logging.getLogger(__name__)

_LOGS = """
if [ -f "$1" ]; then exec tail -n "$2" ${3:+-F} -- "$1"; fi
exec journalctl --unit tinysight-agent --no-pager --output short-iso --lines "$2" ${3:+--follow}
"""


class Answer(Struct, frozen=True, kw_only=True):
    """What a command did on one device.

    Attributes:
        device: its name.
        status: how the command ended; null when it was not run.
        out: what it printed, each line as it may be shown.
        err: the same of its errors.
        reason: why it was not run.
    """

    device: str
    status: int | None
    out: list[str] = []
    err: list[str] = []
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """How devices are reached.

    Attributes:
        known_hosts: host keys.
        identity: a private key's file instead of the user's own keys.
        timeout_s: for a command.
        parallel: devices at once.
    """

    known_hosts: KnownHosts
    identity: Path | None = None
    timeout_s: float = 60.0
    parallel: int = 8


def run_on(goals: Iterable[Goal], command: Sequence[str], reach: Reach) -> list[Answer]:
    """Run one command on each device, as who logs in."""

    async def all_of_them() -> list[Answer]:
        free = asyncio.Semaphore(reach.parallel)

        async def one(goal: Goal) -> Answer:
            async with free:
                try:
                    done = await _once(goal, command, reach)
                except (TinySightError, OSError) as error:
                    return Answer(device=goal.name, status=None, reason=plain(str(error), 600))
                except Exception as error:  # a hostile device must not end what goes on with the others
                    log.debug("%s", goal.name, exc_info=True)
                    return Answer(device=goal.name, status=None, reason=plain(f"{type(error).__name__}: {error}"))
                return Answer(device=goal.name, status=done.status, out=_shown(done.out), err=_shown(done.err))

        return await asyncio.gather(*(one(goal) for goal in goals))

    return go(all_of_them())


def follow(goal: Goal, reach: Reach, *, lines: int, on: bool, tell: Callable[[str], None]) -> None:
    """Tell the last lines of what a device's agent says, and with ``on`` what it says from now on.

    Raises:
        TinySightError: the device cannot be reached, or has no such thing.
    """

    async def told() -> None:
        async with _reached(goal, reach) as remote:
            target = remote.target
            words = ["sh", "-c", _LOGS, "sh", str(target.log), str(lines), "yes" if on else ""]
            done = await remote.run(
                [*elevate(target), *words],
                line=lambda line: tell(plain(line, 2000)),
                timeout_s=None if on else reach.timeout_s,
                most_bytes=None if on else 64 << 20,
            )
            if done.status != 0:
                raise failed(target, done.status, done.err)

    go(told())


def doctor(goal: Goal, reach: Reach) -> list[Result]:
    """What `tinysight doctor` finds on a device.

    Raises:
        TinySightError: the device cannot be reached, or answers something else.
    """

    async def asked() -> list[Result]:
        async with _reached(goal, reach) as remote:
            target = remote.target
            words = [str(target.program), "doctor", "--config", str(target.config), "--json"]
            done = await remote.run([*elevate(target, AGENT_USER), *words], timeout_s=max(reach.timeout_s, 120.0))
            try:
                return msgspec.json.decode(done.out, type=list[Result])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if done.status != 0:
                    raise failed(target, done.status, done.err) from error
                raise DeviceError(
                    f"{target} answers what no doctor says: {plain(done.out, 80)!r}.",
                    mend="Look at the device: its `tinysight` is broken or not ours.",
                ) from error

    return go(asked())


def held_by(goal: Goal, reach: Reach) -> Held:
    """What a device's store has.

    Raises:
        TinySightError: the device cannot be reached, or answers something else.
    """

    async def asked() -> Held:
        async with _reached(goal, reach) as remote:
            target = remote.target
            words = [str(target.program), "store", "show", "--json", "--store", str(target.store)]
            done = await remote.run([*elevate(target, AGENT_USER), *words], timeout_s=reach.timeout_s)
            if done.status != 0:
                raise failed(target, done.status, done.err)
            return read_held(target, done.out)

    return go(asked())


def forget(inventory: Inventory, wanted: str) -> list[str]:
    """Forget the host key of a device, by its name or address; whose key it was.

    Raises:
        ConfigError: there is no such device, or no key of it is known.
        OSError: the files cannot be written.
    """
    devices = inventory.devices()
    if wanted.startswith("ssh://"):
        host = SshTarget.parse(wanted).host_name
    elif wanted in devices:
        host = devices[wanted].target.host_name
    else:
        raise ConfigError(f"There is no device {plain(wanted)!r}.", mend="Give a name of `tinysight device list`.")
    known = KnownHosts(inventory.known_hosts).forget(host)
    named = [name for name, device in devices.items() if device.target.host_name == host and device.host_key]
    for name in named:
        inventory.put(name, msgspec.structs.replace(devices[name], host_key=""))
    if not known and not named:
        raise ConfigError(f"No host key of {host} is known.", mend="Nothing needs to be done.")
    return [host, *named]


async def _once(goal: Goal, command: Sequence[str], reach: Reach) -> Done:
    async with _reached(goal, reach) as remote:
        return await remote.run(command, timeout_s=reach.timeout_s)


@asynccontextmanager
async def _reached(goal: Goal, reach: Reach) -> AsyncIterator[Remote]:
    """Logged in to a device of the inventory."""
    if isinstance(goal.where, Path):
        raise ConfigError(f"{goal.name} is a folder.", mend="Give a device's name or ssh://user@host.")
    async with connect(
        goal.where,
        reach.known_hosts,
        identity=reach.identity,
        fingerprint=goal.fingerprint,
        tell=lambda line: console.print(line, markup=False),
    ) as remote:
        yield remote


def _shown(raw: bytes) -> list[str]:
    """A command's lines, as they may be shown."""
    return [plain(line, 2000) for line in raw.splitlines()]
