"""``tinysight repo``: serve the repository to devices, for development."""

from typing import Annotated

import typer

from tinysight_deploy.places import RepoOption, repo_folder
from tinysight_edge.console import console, finish

__all__ = ["repo_app"]

repo_app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)


@repo_app.callback()
def repo_root() -> None:
    """Serve the repository to devices."""


@repo_app.command("serve")
def serve(
    *,
    repo: RepoOption = None,
    port: Annotated[int, typer.Option(help="To listen on; 0 takes a free one.", min=0, max=65535)] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as one JSON line.")] = False,
) -> None:
    """Serve the repository over HTTP, read-only. Ctrl-C ends it.

    For the field any web server or bucket does as well: what counts is signed, not who hands it out.
    """
    from tinysight_deploy.repo.serve import listening, serve_folder

    folder = repo_folder(repo)
    with listening(folder, host, port) as (socket, address):
        console.print(f"Serving {folder}. Ctrl-C ends it.")
        finish({"address": address, "repo": str(folder)}, as_json=as_json)
        serve_folder(folder, socket)
