"""Where the repository, its keys and the fleet's state lie on this workstation, unless a command says otherwise."""

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "KeysOption",
    "PassphraseOption",
    "RepoOption",
    "StateOption",
    "fleet_state",
    "keys_folder",
    "repo_folder",
    "state_folder",
]

RepoOption = Annotated[
    Path | None,
    typer.Option(
        "--repo",
        envvar="TINYSIGHT_REPO",
        help="The repository's folder; ~/.local/share/tinysight/repo unless given.",
        show_default=False,
    ),
]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        envvar="TINYSIGHT_KEYS",
        help="The folder with the keys; `keys` beside the repository unless given.",
        show_default=False,
    ),
]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="A file whose first line opens the keys. Else $TINYSIGHT_PASSPHRASE, or it is asked for.",
        show_default=False,
    ),
]
StateOption = Annotated[
    str | None,
    typer.Option(
        "--state",
        help="The fleet's state: a file, or postgresql://USER@HOST/NAME. $TINYSIGHT_FLEET_STATE unless given, "
        "else ~/.local/state/tinysight/fleet/fleet.db.",
        show_default=False,
    ),
]


def repo_folder(given: Path | None = None) -> Path:
    """The repository's folder: as given, else ``$TINYSIGHT_REPO``, else the user's data folder."""
    if given is None and (variable := os.environ.get("TINYSIGHT_REPO")):
        given = Path(variable)
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return given or data / "tinysight" / "repo"


def keys_folder(given: Path | None, repo: Path) -> Path:
    """The folder with the keys: as given, else ``$TINYSIGHT_KEYS``, else ``keys`` beside the repository."""
    if given is None and (variable := os.environ.get("TINYSIGHT_KEYS")):
        given = Path(variable)
    return given or repo.absolute().parent / "keys"


def fleet_state(given: str | None = None) -> str:
    """The fleet's state: as given, else ``$TINYSIGHT_FLEET_STATE``, else a file in the user's state folder."""
    return given or os.environ.get("TINYSIGHT_FLEET_STATE") or str(state_folder() / "fleet.db")


def state_folder() -> Path:
    """What a fleet's controller keeps on this machine."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "tinysight" / "fleet"
