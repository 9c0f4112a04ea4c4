"""``tinysight flash``: bring a signed release to devices, many at once, and say what became of it on each.

One way for all: `goals` says which devices, `over_ssh` and `into_folder` bring it to one, `report` tells.
A device that fails, lies or hangs is a line of its own and disturbs no other.
"""

import asyncio
import logging
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BundleError, ConfigError, TinySightError, UpdateError
from tinysight_contract.updates import Code
from tinysight_deploy.devices.goals import Goal, goals_of
from tinysight_deploy.devices.inventory import Inventory, inventory_path
from tinysight_deploy.flashing.into_folder import flash_folder
from tinysight_deploy.flashing.over_ssh import Order, Way, flash_ssh
from tinysight_deploy.flashing.report import GOOD, Bars, Result, Silence, View, show
from tinysight_deploy.flashing.shared import Slices
from tinysight_deploy.places import KeysOption, PassphraseOption, RepoOption, keys_folder, repo_folder
from tinysight_deploy.remote.known_hosts import KnownHosts
from tinysight_deploy.remote.ssh import go
from tinysight_deploy.remote.targets import plain
from tinysight_deploy.repo.repository import Repository
from tinysight_deploy.signing.keys import Passphrase
from tinysight_edge.console import console
from tinysight_edge.update import installer

__all__ = ["Plan", "flash", "flash_all"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a flash needs but the devices.

    Attributes:
        order: what is wanted of each.
        repository: where the release is.
        known_hosts: host keys.
        identity: a private key's file instead of the user's own keys.
        parallel: devices at once.
    """

    order: Order
    repository: Repository
    known_hosts: KnownHosts
    identity: Path | None = None
    parallel: int = 8


def flash(
    bundle: Annotated[
        str, typer.Argument(help="The release: its bundle's file, NAME@VERSION or its target.", show_default=False)
    ],
    *,
    to: Annotated[
        list[str],
        typer.Option(
            help="dir:PATH, ssh://user@host, a device's name, @group, tag:name=value or all. May be repeated."
        ),
    ],
    parallel: Annotated[int, typer.Option(help="Devices at once.", min=1, max=256)] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the devices, and change nothing.")] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the trial by the agent that runs there.", min=0, max=86400)
    ] = 120.0,
    again: Annotated[bool, typer.Option("--again", help="Although it failed there before.")] = False,
    identity: Annotated[
        Path | None, typer.Option(help="A private key's file, instead of your keys and agent.", show_default=False)
    ] = None,
    repo: RepoOption = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    inventory: Annotated[
        Path | None,
        typer.Option(help="The devices' file; ~/.config/tinysight/devices.toml unless given.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Bring a signed release to devices, which verify, test and try it before it stays.

    Status 1 when it does not run on one of them. A device that has it already is left alone. Run the same again to
    mend what a lost connection has left: it goes on where it stopped.
    """
    book = Inventory(inventory_path(inventory))
    goals = goals_of(to, book)
    _look_at(Path(bundle))
    folder = repo_folder(repo)
    repository = Repository(folder, keys_folder(keys, folder), passphrase=Passphrase(passphrase_file))
    if not dry_run:
        _keep_fresh(repository)
    order = Order(repository.find(bundle), wait_s=wait, again=again, dry_run=dry_run)
    plan = Plan(order, repository, KnownHosts(book.known_hosts), identity, parallel)
    logging.getLogger(installer.__name__).addFilter(lambda record: record.levelno < logging.ERROR)  # a result says it
    with nullcontext(Silence()) if quiet or as_json else Bars.shown() as view:
        results = _go(plan, goals, view)
    if as_json:
        told = {"digest": order.release.digest, "bundle": order.release, "devices": results}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    else:
        show(order.release, results)
    if any(each.outcome not in GOOD for each in results):
        raise typer.Exit(1)


def _go(plan: Plan, goals: Sequence[Goal], view: View) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="tinysight-flash-") as room:
        return go(flash_all(plan, goals, view, Path(room)))


async def flash_all(plan: Plan, goals: Sequence[Goal], view: View, room: Path) -> list[Result]:
    """Flash all devices, a bounded number at once, and folders before them, one by one. What goes wrong is a result.

    Args:
        plan: what to do.
        goals: the devices.
        view: who watches.
        room: an empty folder on this machine for what is brought.
    """
    slices = Slices(plan.repository, plan.order.release, room)
    free = asyncio.Semaphore(plan.parallel)

    async def one(goal: Goal) -> Result:
        async with free:
            try:
                return await _one(plan, goal, slices, view)
            except UpdateError as error:
                return Result(device=goal.name, outcome="failed", code=error.code, reason=plain(str(error), 600))
            except TinySightError as error:
                return Result(device=goal.name, outcome="failed", reason=plain(str(error), 600))
            except OSError as error:
                why = f"{error.filename or goal.name}: {error.strerror or error}."
                mend = "Check the path, its rights and the free space."
                return Result(device=goal.name, outcome="failed", reason=plain(f"{why} {mend}", 600))
            except Exception as error:  # a hostile device must not end the flash of the others
                log.debug("%s", goal.name, exc_info=True)
                why = f"{goal.name} answers in a way that was not foreseen: {type(error).__name__}: {error}"
                return Result(device=goal.name, outcome="failed", reason=plain(why, 600))

    done = {goal: await one(goal) for goal in goals if isinstance(goal.where, Path)}
    others = [goal for goal in goals if goal not in done]
    done.update(zip(others, await asyncio.gather(*map(one, others)), strict=True))
    return [done[goal] for goal in goals]


async def _one(plan: Plan, goal: Goal, slices: Slices, view: View) -> Result:
    if isinstance(goal.where, Path):
        return await asyncio.to_thread(flash_folder, goal.name, goal.where, plan.order, plan.repository, view)
    way = Way(
        goal.where, plan.known_hosts, plan.identity, goal.fingerprint, lambda line: console.print(line, markup=False)
    )
    return await flash_ssh(goal.name, way, plan.order, slices, view)


def _look_at(file: Path) -> None:
    """See that what looks like a bundle's file is one; a release's name or target does not.

    Raises:
        BundleError: there is no such file.
        UpdateError: TAMPERED, it is no bundle, or its bytes were changed.
    """
    if file.is_file():
        try:
            Bundle.open(file)
        except BundleError as error:
            raise UpdateError(error.what, mend=error.mend, code=Code.TAMPERED) from error
    elif file.suffix == ".bundle" and file.name == str(file):
        Bundle.open(file)


def _keep_fresh(repository: Repository) -> None:
    """Sign snapshot and timestamp again when it is time and their key is here; else devices may find them expired."""
    try:
        repository.refresh_if_due()
    except ConfigError as error:
        if not repository.folder.is_dir():
            raise
        console.print(f"The repository was not signed again: {error}", markup=False)
