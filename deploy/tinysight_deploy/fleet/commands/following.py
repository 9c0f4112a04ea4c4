"""Lead rollouts in the foreground, or follow one, and show people how far they are.

In: the state, a broker.  Out: a live table on a terminal, else a line for each change; the rollouts that have ended.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Group
from rich.live import Live
from rich.text import Text

from tinysight_contract.errors import BrokerError, ConfigError, FleetError
from tinysight_deploy.fleet.commands.cli_common import Where, holder, mirror_file, user
from tinysight_deploy.fleet.commands.showing import one_line, picture
from tinysight_deploy.fleet.control.controller import Controller
from tinysight_deploy.fleet.control.leading import OPEN
from tinysight_deploy.fleet.control.operate import OVER
from tinysight_deploy.fleet.keeping.mirror import Mirror
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.server import forms
from tinysight_deploy.fleet.server.desk import Desk
from tinysight_deploy.fleet.types import Phase, Rollout
from tinysight_deploy.tables import show_table
from tinysight_edge.console import console

__all__ = ["lead", "open_wishes", "show"]

EVERY_S: Final = 1.0


def show(look: Callable[[], forms.View], *, live: bool, every_s: float = EVERY_S) -> None:
    """Show a rollout once, or live until it ends or Ctrl-C.

    Args:
        look: how far it is now.
        live: until it ends; a look that fails is shown, and another is taken.
        every_s: how often it is looked at.

    Raises:
        ConfigError: there is no such rollout, or the server cannot be asked so.
        TinySightError: the first look failed.
    """
    if not live:
        show_table(picture(look()))
        return
    with contextlib.suppress(KeyboardInterrupt), Live(picture(view := look()), auto_refresh=False) as shown:
        while view.rollout.phase not in OVER:
            time.sleep(every_s)
            try:
                view = look()
            except (BrokerError, FleetError) as error:
                shown.update(Group(picture(view), Text(f"As it was last. {error}", style="yellow")), refresh=True)
            else:
                shown.update(picture(view), refresh=True)


def open_wishes(view: forms.View) -> int:
    """How many devices were asked and may still do it."""
    return sum(row.outcomes.get(outcome, 0) for row in view.stages for outcome in OPEN)


def _has_ended(view: forms.View) -> bool:
    """Whether there is nothing to lead: nothing at all, or a person has to say how it goes on."""
    phase = view.rollout.phase
    return phase in {Phase.DONE, Phase.HALTED} or (phase is Phase.ABORTED and not open_wishes(view))


def _to_lead(state: State, rollout: Rollout) -> bool:
    """Whether a controller has something to do for it: one that was aborted has wishes to take back."""
    if rollout.phase is Phase.ABORTED:
        return any(wish.outcome in OPEN for wish in state.wishes(rollout.id).values())
    return rollout.phase is not Phase.DONE


def lead(where: Where, state: State, *, only: str | None) -> Sequence[str]:
    """Lead until no rollout goes on, or Ctrl-C.

    Args:
        where: with the broker.
        state: of the rollouts.
        only: end when this one has ended.

    Returns:
        The rollouts that have ended, or been left.

    Raises:
        ConfigError: there is none to lead.
        BrokerError: the broker refuses us.
        FleetError: the state cannot be used.
    """
    wanted = [each.id for each in state.rollouts() if only in {None, each.id} and _to_lead(state, each)]
    if not wanted and only is None:
        raise ConfigError("No rollout is to be led.", mend="Begin one with `tinysight rollout start`.")
    copy = mirror_file(state)
    mirror = Mirror(copy.parent, copy.name)
    controller = Controller(state, where.broker or "", holder=holder(), inventory=where.book(), mirror=mirror)
    asyncio.run(_lead(controller, state, where, wanted))
    return wanted


async def _lead(controller: Controller, state: State, where: Where, wanted: Sequence[str]) -> None:
    """Both at once: the controller, and a look at it every second."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    leads = asyncio.create_task(controller.run())
    looks = asyncio.create_task(_look(controller, state, where, wanted))
    stops = asyncio.create_task(stop.wait())
    await asyncio.wait({leads, looks, stops}, return_when=asyncio.FIRST_COMPLETED)
    for task in (leads, looks, stops):
        task.cancel()
    for task in (looks, leads):
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _look(controller: Controller, state: State, where: Where, wanted: Sequence[str]) -> None:
    """Show the rollouts until all have ended."""
    said: dict[str, str] = {}
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with live or contextlib.nullcontext():
        while True:
            desk = Desk(state, who=user(), inventory=where.book(), facts=dict(controller.facts), live=controller)
            try:
                views = await asyncio.to_thread(_views, desk, wanted)
            except FleetError as error:  # the database is gone for a while
                console.print(str(error), markup=False)
                views = []
            if live is not None:
                live.update(Group(*map(picture, views)), refresh=True)
            else:
                _say(views, said)
            if views and all(map(_has_ended, views)):
                return
            await asyncio.sleep(EVERY_S)


def _views(desk: Desk, wanted: Sequence[str]) -> list[forms.View]:
    return [desk.view(each) for each in wanted]


def _say(views: Sequence[forms.View], said: dict[str, str]) -> None:
    """A line for each rollout that is no longer as it was."""
    for view in views:
        line = one_line(view)
        if said.get(view.rollout.id) != line:
            said[view.rollout.id] = line
            console.print(line, markup=False)
