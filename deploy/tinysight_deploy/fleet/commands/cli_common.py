"""What the commands about rollouts share: their options, and who answers: a server, or the state itself."""

import getpass
import hashlib
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinysight_contract.errors import ConfigError
from tinysight_deploy.places import fleet_state, state_folder

if TYPE_CHECKING:
    from tinysight_deploy.fleet.keeping.state import State
    from tinysight_deploy.fleet.server.desk import Answers, Desk
    from tinysight_deploy.repo.repository import Repository

__all__ = [
    "AsJson",
    "BrokerOption",
    "CaOption",
    "FleetOption",
    "InventoryOption",
    "TokenOption",
    "Where",
    "holder",
    "mirror_file",
    "user",
]

BrokerOption = Annotated[
    str | None,
    typer.Option(
        envvar="TINYSIGHT_BROKER", help="mqtt://[user:password@]host[:port]; also mqtts, ws, wss.", show_default=False
    ),
]
FleetOption = Annotated[
    str | None,
    typer.Option(
        "--fleet",
        envvar="TINYSIGHT_FLEET",
        help="https://HOST[:PORT] of a fleet's server, instead of the state and the broker.",
        show_default=False,
    ),
]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="TINYSIGHT_FLEET_TOKEN_FILE",
        help="A file with the token for that server; fleet.token among your settings unless given.",
        show_default=False,
    ),
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", help="A PEM file of authorities to trust for that server.", show_default=False)
]
InventoryOption = Annotated[
    Path | None,
    typer.Option("--inventory", help="The devices' file, for its groups.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON line.")]


def mirror_file(state: "State") -> Path:
    """Where the audit log is copied to: beside the state's file, of its name; for a server where that would be."""
    if state.path is not None:
        return state.path.with_name(f"{state.path.stem}.audit.jsonl")
    return state_folder() / f"{hashlib.sha256(state.url.encode()).hexdigest()[:12]}.audit.jsonl"


def user() -> str:
    """Who runs this command, for the audit log."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for it
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"[:100]


def holder() -> str:
    """A name for this controller that no other has."""
    return f"{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class Where:
    """Whom a command asks.

    Attributes:
        state: as it was given.
        broker: likewise.
        repo: likewise.
        inventory: likewise.
        fleet: a server's address; with it all of the above is not used.
        token_file: for it.
        ca: for it.
    """

    state: str | None = None
    broker: str | None = None
    repo: Path | None = None
    inventory: Path | None = None
    fleet: str | None = None
    token_file: Path | None = None
    ca: Path | None = None

    @contextmanager
    def answers(self, *, hear: bool = False, make: bool = False) -> Iterator["Answers"]:
        """Who answers.

        Args:
            hear: what the devices say is needed, too.
            make: a state where there is none.

        Raises:
            ConfigError: there is no broker to hear them, no token, no state, or an address cannot be used.
        """
        from tinysight_deploy.fleet.server.client import Remote
        from tinysight_edge.fleet_server import people_token

        if self.fleet is not None:
            with Remote(self.fleet, people_token(self.token_file), ca=self.ca) as remote:
                yield remote
            return
        if hear and self.broker is None:
            raise ConfigError("The devices cannot be heard.", mend="Give --broker, or --fleet for a server.")
        with self.opened(make=make) as state:
            yield self.desk(state)

    @contextmanager
    def opened(self, *, make: bool = False) -> Iterator["State"]:
        """The state itself.

        Args:
            make: it where there is none.

        Raises:
            ConfigError: it is none.
            FleetError: it cannot be used.
        """
        from tinysight_deploy.fleet.keeping.state import State

        state = State(fleet_state(self.state), make=make)
        if not make and state.path is not None and not state.path.exists():
            mend = "Check --state and $TINYSIGHT_FLEET_STATE; `tinysight rollout start` and `fleet serve` make one."
            raise ConfigError(f"There is no fleet state at {state.path}.", mend=mend)
        try:
            yield state
        finally:
            state.close()

    def desk(self, state: "State") -> "Desk":
        """Answers from the state, and from what the broker says now if there is one.

        Raises:
            BrokerError: it cannot be reached.
        """
        import asyncio

        from tinysight_deploy.fleet.control.facts import gather
        from tinysight_deploy.fleet.server.desk import Desk

        facts = None if self.broker is None else asyncio.run(gather(self.broker))
        return Desk(state, who=user(), repo=self.repository(), inventory=self.book(), facts=facts)

    def renewed(self, answers: "Answers") -> "Answers":
        """The same answers, from what the broker says now."""
        from tinysight_deploy.fleet.server.desk import Desk

        return self.desk(answers.state) if isinstance(answers, Desk) and self.broker is not None else answers

    def book(self) -> Path | None:
        """The inventory's file, if there is one."""
        from tinysight_deploy.devices.inventory import inventory_path

        path = inventory_path(self.inventory)
        return path if self.inventory is not None or path.is_file() else None

    def repository(self) -> "Repository":
        """The releases."""
        from tinysight_deploy.places import keys_folder, repo_folder
        from tinysight_deploy.repo.repository import Repository

        folder = repo_folder(self.repo)
        return Repository(folder, keys_folder(None, folder))
