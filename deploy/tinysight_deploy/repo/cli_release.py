"""``tinysight release``: sign bundles, show what is signed, retire it, keep the signatures fresh."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinysight_contract.errors import ConfigError
from tinysight_deploy.places import KeysOption, PassphraseOption, RepoOption, keys_folder, repo_folder
from tinysight_edge.console import console, finish

if TYPE_CHECKING:
    from tinysight_deploy.repo.releases import Listed
    from tinysight_deploy.repo.repository import Repository
    from tinysight_edge.update.signed import Requires

__all__ = ["release_app"]

release_app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="End with one JSON line.")]
WhichArgument = Annotated[
    str, typer.Argument(help="The bundle's file, NAME@VERSION, or the target's path.", show_default=False)
]
_MEMORY = re.compile(r"(\d{1,9})\s*(MiB|GiB)?", re.IGNORECASE)


@release_app.command("add")
def add(
    bundle: Annotated[Path, typer.Argument(help="The bundle to sign.", show_default=False)],
    *,
    project: Annotated[
        str | None, typer.Option(help="Whose it is; the bundle's name unless given.", show_default=False)
    ] = None,
    arch: Annotated[
        list[str] | None,
        typer.Option(help="A machine it is for, as `uname -m` names it; may be repeated.", show_default=False),
    ] = None,
    min_memory: Annotated[
        str | None, typer.Option(help="What a device must have in total, such as 512MiB.", show_default=False)
    ] = None,
    accelerator: Annotated[
        str | None,
        typer.Option(help="edgetpu; found by itself when nothing else runs the bundle.", show_default=False),
    ] = None,
    min_tinysight: Annotated[
        str | None, typer.Option(help="The oldest TinySight that runs it, such as 0.1.", show_default=False)
    ] = None,
    release: Annotated[
        int | None,
        typer.Option(help="Number of the release, instead of the bundle's own.", min=0, show_default=False),
    ] = None,
    repo: RepoOption = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a bundle, so that devices may install it; make the differences to the releases before it.

    An older bundle becomes the newest again with a higher --release.
    """
    repository = _repository(repo, keys, passphrase_file)
    requires = _requires(arch or [], min_memory, accelerator, min_tinysight)
    with _told() as tell:
        listed, new = repository.add(bundle, project=project, requires=requires, number=release, tell=tell)
    if not new:
        console.print(f"{listed.release.target} is already a release; nothing changes.")
    finish({"added": new, **(_full(listed) if as_json else _short(listed))}, as_json=as_json)


@release_app.command("list")
def list_releases(
    *,
    repo: RepoOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the releases as one JSON list.")] = False,
) -> None:
    """List what devices may install, the newest of each name first."""
    import msgspec
    from rich.table import Table

    from tinysight_deploy.tables import show_table

    releases = _repository(repo, None, None).releases()
    if as_json:
        sys.stdout.write(msgspec.json.encode([_full(each) for each in releases]).decode() + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("target", "release", "bytes", "digest", "released", "deltas", "needs"):
        table.add_column(name, overflow="fold", justify="right" if name in {"release", "bytes", "deltas"} else "left")
    for each in releases:
        row = _short(each)
        table.add_row(
            row["target"],
            str(row["release"]),
            f"{row['bytes']:,}",
            each.release.digest[:12],
            f"{each.signed.released_at:%Y-%m-%d}",
            str(len(each.signed.deltas)),
            row["needs"],
        )
    show_table(table)


@release_app.command("show")
def show(which: WhichArgument, *, repo: RepoOption = None, as_json: JsonOption = False) -> None:
    """Show one release, and the differences that lead to it."""
    listed = _repository(repo, None, None).look_up(which)
    if as_json:
        finish(_full(listed), as_json=True)
        return
    deltas = {
        f"from {base[:12]}": f"{delta.size_bytes:,} bytes ({delta.size_bytes / listed.release.size_bytes:.0%})"
        for base, delta in listed.signed.deltas.items()
    }
    finish({**_short(listed), **deltas}, as_json=False)


@release_app.command("retire")
def retire(
    which: WhichArgument,
    *,
    repo: RepoOption = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a release out of what is signed: no device installs it any more. Devices that run it go on."""
    repository = _repository(repo, keys, passphrase_file)
    listed = repository.look_up(which)
    kept = repository.retire(listed.release)
    if kept:
        console.print("Its file stays: differences to later releases start from it.")
    finish({"retired": listed.release.target, "file": "kept" if kept else "removed"}, as_json=as_json)


@release_app.command("refresh")
def refresh(
    *,
    repo: RepoOption = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign snapshot and timestamp again, for cron; and what is half through its life, where its key is here."""
    repository = _repository(repo, keys, passphrase_file)
    signed = repository.refresh()
    chain = repository.chain()
    until = min(chain.of(role).signed.expires for role in chain.roles())
    finish({"signed": ", ".join(signed), "all hold until": f"{until:%Y-%m-%d %H:%M} UTC"}, as_json=as_json)


def _repository(repo: Path | None, keys: Path | None, passphrase_file: Path | None) -> "Repository":
    from tinysight_deploy.repo.repository import Repository
    from tinysight_deploy.signing.keys import Passphrase

    folder = repo_folder(repo)
    return Repository(folder, keys_folder(keys, folder), passphrase=Passphrase(passphrase_file))


def _requires(
    arch: list[str], min_memory: str | None, accelerator: str | None, min_tinysight: str | None
) -> "Requires":
    """What was asked for, checked as a device will.

    Raises:
        ConfigError: a value cannot be.
    """
    import msgspec

    from tinysight_edge.update.signed import EDGE_TPU, Requires

    memory_mib = 0
    if min_memory is not None:
        if (found := _MEMORY.fullmatch(min_memory.strip())) is None:
            raise ConfigError(f"--min-memory {min_memory!r} is no size.", mend="Write it as 512MiB or 2GiB.")
        memory_mib = int(found[1]) * (1024 if (found[2] or "").lower() == "gib" else 1)
    if accelerator not in {None, "", EDGE_TPU}:
        raise ConfigError(f"There is no accelerator {accelerator!r}.", mend=f"Give --accelerator {EDGE_TPU}, or none.")
    version = min_tinysight or ""
    if re.fullmatch(r"\d+(\.\d+)?", version):
        version += ".0" * (2 - version.count("."))
    asked = {"arch": arch, "min_memory_mib": memory_mib, "accelerator": accelerator or "", "min_tinysight": version}
    try:
        return msgspec.convert(asked, Requires)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"What the bundle needs cannot be said so: {error}.",
            mend="Write --arch as `uname -m` does, and --min-tinysight as 0.1.",
        ) from error


def _full(listed: "Listed") -> dict[str, Any]:
    """For programs: all of it."""
    import msgspec

    built: dict[str, Any] = msgspec.to_builtins(listed.signed)
    return {**msgspec.to_builtins(listed.release), **built, "file": listed.file}


def _short(listed: "Listed") -> dict[str, Any]:
    """For people."""
    requires = listed.signed.requires
    needs = [
        " or ".join(requires.arch),
        f"{requires.min_memory_mib} MiB" if requires.min_memory_mib else "",
        requires.accelerator,
        f"TinySight {requires.min_tinysight}" if requires.min_tinysight else "",
    ]
    return {
        "target": listed.release.target,
        "release": listed.release.release,
        "bytes": listed.release.size_bytes,
        "digest": listed.release.digest,
        "released at": f"{listed.signed.released_at:%Y-%m-%d %H:%M} UTC",
        "deltas": len(listed.signed.deltas),
        "needs": ", ".join(filter(None, needs)) or "nothing special",
    }


@contextmanager
def _told() -> Iterator[Callable[[str], None]]:
    """Show people what is being done, from the first word on: until then a passphrase may be asked for."""
    status = console.status("")

    def tell(text: str) -> None:
        status.update(text)
        status.start()

    try:
        yield tell
    finally:
        status.stop()
