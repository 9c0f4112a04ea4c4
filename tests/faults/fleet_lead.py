"""Controllers in processes of their own, made by forking: ``python fleet_lead.py`` reads a line of JSON for each.

A line: ``state``, ``broker``, ``holder``, ``turn_s``, ``lease_s``, ``patience_s``, ``dies_at``: null, or at which of
its steps the process kills itself; a step is each write of wishes or of a rollout, and each document that is sent, and
the end of either. The answer is the process's number. Standard input that ends ends all.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from tinysight_contract.client import Client
from tinysight_deploy.fleet.control.controller import Controller
from tinysight_deploy.fleet.keeping.state import State

STEPS = ((State, "ask"), (State, "settle"), (State, "change"))


def lead(given: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.INFO, format=f"{given['holder']} %(message)s")
    if given["dies_at"] is not None:
        left = [given["dies_at"]]
        for kind, name in STEPS:
            setattr(kind, name, dying(getattr(kind, name), left))
        Client.desire = dying_later(Client.desire, left)  # type: ignore[method-assign]
    state = State(given["state"], lease_s=given["lease_s"])
    named = {name: given[name] for name in ("holder", "turn_s", "patience_s")}
    controller = Controller(state, given["broker"], **named)
    asyncio.run(controller.run())


def step(left: list[int]) -> None:
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def dying(call: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        step(left)
        done = call(*args, **kwargs)
        step(left)
        return done

    return called


def dying_later(call: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    async def called(*args: Any, **kwargs: Any) -> Any:
        step(left)
        done = await call(*args, **kwargs)
        step(left)
        return done

    return called


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    children = []
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                lead(json.loads(line))
            finally:
                os._exit(1)
        children.append(child)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
