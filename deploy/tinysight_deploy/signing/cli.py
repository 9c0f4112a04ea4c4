"""``tinysight keys``: make the keys that sign releases, show them, replace them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from tinysight_deploy.places import KeysOption, PassphraseOption, RepoOption, keys_folder, repo_folder
from tinysight_edge.console import console, finish

__all__ = ["keys_app"]

keys_app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="End with one JSON line.")]
SOON_DAYS = 60


@keys_app.command("init")
def init(
    *,
    repo: RepoOption = None,
    keys: KeysOption = None,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="A key for each role, so that one that is stolen is not all.")
    ] = False,
    roots: Annotated[int, typer.Option(help="With --fleet: how many root keys.", min=1, max=16)] = 3,
    threshold: Annotated[int, typer.Option(help="With --fleet: how many of them must sign.", min=1, max=16)] = 2,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make keys and an empty repository: one key for everything, or with --fleet one for each role.

    Devices get the first root of the repository when they are set up, and believe what follows from it.
    """
    from tinysight_deploy.signing.beginning import FLEET, HOBBY, begin
    from tinysight_deploy.signing.keys import KeyFolder, Passphrase, name_of
    from tinysight_deploy.signing.metadata import Chain
    from tinysight_deploy.signing.rotation import current_keys

    folder = repo_folder(repo)
    ring = KeyFolder(keys_folder(keys, folder), Passphrase(passphrase_file))
    policy = FLEET if fleet else HOBBY
    many = (roots, threshold) if fleet else (1, 1)
    begin(folder, ring, policy, roots=many[0], threshold=many[1], now=datetime.now(UTC))
    chain = Chain.read(folder / "metadata")
    files = sorted(f"{name_of(key)}.pem" for key in current_keys(chain).values())
    days = chain.policy.days
    if chain.policy.kind == "hobby":
        console.print(
            f"One key signs everything. Signatures hold long, so that nothing stops while you are away: the root "
            f"{days.root // 365} years, the rest {days.timestamp} days. A thief of the key can sign for your devices, "
            "and what a web server holds back is noticed only after that time: for more than a handful, `--fleet`."
        )
    else:
        console.print(
            f"Signatures hold: root {days.root} days, targets {days.targets}, snapshot {days.snapshot}, timestamp "
            f"{days.timestamp}: have `tinysight release refresh` run daily where the online key is. Take the root keys "
            "and the targets key to media of their own now; a command that needs one asks for it by name."
        )
    console.print(f"Back up {ring.folder}: without its keys no device can be sent anything ever again.")
    finish({"repo": str(folder), "keys": str(ring.folder), "files": ", ".join(files)}, as_json=as_json)


@keys_app.command("show")
def show(
    *,
    repo: RepoOption = None,
    keys: KeysOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the roles as one JSON list.")] = False,
) -> None:
    """Show which keys sign for which role, where they are, and until when their signatures hold."""
    import sys

    import msgspec
    from rich.table import Table

    from tinysight_deploy.repo.repository import Repository
    from tinysight_deploy.signing.keys import name_of
    from tinysight_deploy.tables import show_table

    folder = repo_folder(repo)
    repository = Repository(folder, keys_folder(keys, folder))
    chain, now = repository.chain(), datetime.now(UTC)
    rows: list[dict[str, Any]] = [
        {
            "role": role,
            "version": chain.of(role).signed.version,
            "expires": chain.of(role).signed.expires,
            "days_left": (chain.of(role).signed.expires - now).days,
            "threshold": chain.threshold(role),
            "keys": [
                {"id": key.keyid, "file": f"{name_of(key)}.pem", "here": repository.keys.has(key)}
                for key in chain.keys(role)
            ],
        }
        for role in chain.roles()
    ]
    if as_json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("role", "needs", "key", "file", "here", "holds until"):
        table.add_column(name, overflow="fold")
    for row in rows:
        head = [row["role"], f"{row['threshold']} of {len(row['keys'])}"]
        for key in row["keys"]:
            here = "yes" if key["here"] else "no"
            until = "" if head[0] == "" else f"{row['expires']:%Y-%m-%d}"
            table.add_row(*head, key["id"][:8], key["file"], here, until)
            head = ["", ""]
    show_table(table)
    for row in rows:
        if row["days_left"] < min(SOON_DAYS, chain.lives(row["role"]).days // 3):
            console.print(f"{row['role']} holds for {row['days_left']} days more: {_renewal(row['role'])}.")


@keys_app.command("rotate")
def rotate(
    role: Annotated[str, typer.Argument(help="root, targets, online, or a project.", show_default=False)],
    *,
    repo: RepoOption = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the keys of a role by new ones, wherever they sign. Interrupted, it is finished by running it again."""
    from tinysight_deploy.signing.keys import KeyFolder, Passphrase
    from tinysight_deploy.signing.rotation import rotate as rotate_role

    folder = repo_folder(repo)
    ring = KeyFolder(keys_folder(keys, folder), Passphrase(passphrase_file))
    names = rotate_role(folder, ring, role, now=datetime.now(UTC))
    _tell(ring.folder, names)
    finish({"replaced": _pairs(names), "repo": str(folder)}, as_json=as_json)


@keys_app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="Its id or the beginning of it, or its name.", show_default=False)],
    *,
    repo: RepoOption = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a key that was lost or stolen count no longer: a new one takes its place, and signs what it had signed.

    Look at `tinysight release list` first: what a thief has released is signed again with the rest.
    """
    from tinysight_deploy.signing.keys import KeyFolder, Passphrase
    from tinysight_deploy.signing.rotation import revoke as revoke_key

    folder = repo_folder(repo)
    ring = KeyFolder(keys_folder(keys, folder), Passphrase(passphrase_file))
    names = revoke_key(folder, ring, key.removesuffix(".pem"), now=datetime.now(UTC))
    if names:
        _tell(ring.folder, names)
    else:
        console.print(f"{key} was replaced before; nothing changes.")
    finish({"revoked": _pairs(names), "repo": str(folder)}, as_json=as_json)


def _tell(folder: Path, names: dict[str, str]) -> None:
    for old, new in names.items():
        console.print(f"{new}.pem signs in place of {old}.pem. Back it up.")
        if (path := folder / f"{old}.pem").exists():
            console.print(f"Destroy {path}: a device that has not seen the new root yet would still believe it.")
    console.print("Bring the repository's folder to its web server again, if it has one.")


def _pairs(names: dict[str, str]) -> str:
    return ", ".join(f"{old} → {new}" for old, new in names.items())


def _renewal(role: str) -> str:
    if role == "root":
        return "`tinysight keys rotate root` makes the next"
    return "`tinysight release refresh` signs it again where its key is"
