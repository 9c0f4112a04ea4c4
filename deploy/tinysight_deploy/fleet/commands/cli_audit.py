"""``tinysight audit``: read the log of who did what, prove that nobody changed it, make a lost state of it."""

import re
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinysight_contract.errors import ConfigError, FleetError
from tinysight_deploy.fleet.commands.cli_common import mirror_file
from tinysight_deploy.places import StateOption, fleet_state
from tinysight_edge.console import console, finish

if TYPE_CHECKING:
    from tinysight_deploy.fleet.keeping.state import State

__all__ = ["audit_app"]

audit_app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)

FileOption = Annotated[
    Path | None,
    typer.Option("--file", help="A copy of the log instead, such as fleet.audit.jsonl.", show_default=False),
]
_WIDEST = 160


@audit_app.command("show")
def show(
    *,
    state: StateOption = None,
    file: FileOption = None,
    after: Annotated[int, typer.Option(help="Begin after the entry of this number.", min=0)] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the entries as they are hashed; all of them are a copy to verify.")
    ] = False,
) -> None:
    """Show what was done, a line for each time, the oldest first."""
    with closing(_lines(state, file, after)) as lines:
        for seq, line in enumerate(lines, after + 1):
            if as_json:
                sys.stdout.buffer.write(line)
            else:
                print(_told(seq, line))
        sys.stdout.flush()


@audit_app.command("verify")
def verify(
    *,
    state: StateOption = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="A copy of the log: verify that alone, or with --state compare both. "
            "A state is compared with the copy that a controller writes on this machine unless given.",
            show_default=False,
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="A head that this command printed before; it must still be there.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Prove that the log is as it was written; print its head. Status 1 when it is not.

    One changed byte is found. That the newest entries were cut off is found with a copy, or with a head that was noted
    elsewhere.
    """
    from tinysight_deploy.fleet.keeping.audit import examine
    from tinysight_deploy.fleet.keeping.mirror import lines_of

    if head is not None and not re.fullmatch(r"[0-9a-f]{64}", head):
        raise ConfigError("--head is no head.", mend="Give the 64 hex digits that `tinysight audit verify` printed.")
    if file is not None and state is None:
        where, copy = str(file), None
        found = examine(lines_of(file), head=head)
    else:
        opened = _open(state)
        where, copy = opened.url, file
        if copy is None and (beside := mirror_file(opened)).exists():
            copy = beside
        # The copy as it is now: what is written while we read is in the state first.
        mirror = None if copy is None else lines_of(copy, copy.stat().st_size)
        with closing(_pages(opened, 0)) as lines:
            found = examine(lines, mirror=mirror, head=head)
    result = {
        "log": where,
        "copy": None if copy is None else str(copy),
        "entries": found.entries,
        "head": found.head,
        "broken_at": None if found.broken is None else found.broken.seq,
    }
    if not as_json:
        result = {name: value for name, value in result.items() if value is not None}
    finish(result, as_json=as_json)
    if found.broken is not None:
        console.print(
            f"{where} is not as it was written. {found.broken.what} The {found.entries} entries before are whole.",
            markup=False,
        )
        raise typer.Exit(1)


@audit_app.command("rebuild")
def rebuild(
    *,
    file: Annotated[Path, typer.Option("--file", help="The log's copy, fleet.audit.jsonl.", show_default=False)],
    state: StateOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Make the rollouts again of the log's copy, when the database is gone.

    What became of each device is read from the broker again by the next controller. Tokens have to be made again.
    """
    from tinysight_deploy.fleet.keeping import mirror
    from tinysight_deploy.fleet.keeping.state import State

    opened = State(fleet_state(state))
    try:
        remade = mirror.rebuild(opened, file, who=_user())
    finally:
        opened.close()
    result = {
        "state": opened.url,
        "rollouts": len(remade.rollouts),
        "wishes": sum(map(len, remade.wishes.values())),
        "boxed": len(remade.boxed),
    }
    finish(result, as_json=as_json)
    console.print("Make the tokens of the server's users and devices again: `tinysight fleet token add`.")


def _open(state: str | None) -> "State":
    from tinysight_deploy.fleet.keeping.state import State

    return State(fleet_state(state), make=False)


def _lines(state: str | None, file: Path | None, after: int) -> Generator[bytes, None, None]:
    if file is None:
        return _pages(_open(state), after)
    if state is not None:
        raise ConfigError("--state and --file are both given.", mend="Give the one that shall be shown.")
    from tinysight_deploy.fleet.keeping.mirror import lines_of

    return (line for seq, line in enumerate(lines_of(file), 1) if seq > after)


def _pages(state: "State", after: int) -> Generator[bytes, None, None]:
    try:
        while lines := state.lines(after, 100):
            yield from (line + b"\n" for line in lines)
            after += len(lines)
    finally:
        state.close()


def _told(seq: int, line: bytes) -> str:
    """One entry for people, as wide as a line."""
    import msgspec

    from tinysight_deploy.fleet.keeping.audit import cleaned, read_line

    try:
        entry = read_line(line.removesuffix(b"\n"))
    except FleetError as error:
        return f"{seq:>6}  {error.what}"
    detail = entry.detail
    if entry.what == "ask" and isinstance(asked := detail.get("wishes"), list):
        detail = {**detail, "wishes": f"{len(asked)} devices"}
    elif entry.what == "begin" and isinstance(begun := detail.get("begun"), dict):
        detail = {key: begun.get(key) for key in ("id", "group", "target")}
    more = cleaned(msgspec.json.encode(detail).decode(), _WIDEST)
    return f"{entry.seq:>6}  {entry.at:%Y-%m-%d %H:%M:%S}Z  {cleaned(entry.who, 40):<20}  {entry.what:<12}  {more}"


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"
