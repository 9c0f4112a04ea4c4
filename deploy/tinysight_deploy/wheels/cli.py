"""``tinysight wheelhouse``: all that devices need, in a folder."""

from pathlib import Path
from typing import Annotated

import typer

from tinysight_edge.console import console, finish

__all__ = ["wheelhouse"]


def wheelhouse(
    *,
    target: Annotated[
        list[str], typer.Option(help="For which devices, e.g. aarch64-py311; may be repeated.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder to make, or to complete.", show_default=False)],
    also: Annotated[
        list[str] | None, typer.Option("--with", help="A requirement beside TinySight's own.", show_default=False)
    ] = None,
    find_links: Annotated[
        list[Path] | None, typer.Option(help="A folder with wheels that no index has.", show_default=False)
    ] = None,
    extra_index: Annotated[
        list[str] | None, typer.Option(help="An index beside PyPI, e.g. piwheels.", show_default=False)
    ] = None,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Take the newest versions, where a wheelhouse is there too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Download what devices run, chosen for their machine and locked by digest, so that they need no internet.

    `tinysight device add --wheelhouse OUT` brings it there. Run it again to complete it, or after TinySight changed.
    """
    from tinysight_deploy.wheels.choice import Wishes
    from tinysight_deploy.wheels.target import Target
    from tinysight_deploy.wheels.wheelhouse import make

    wishes = Wishes(more=also or (), find_links=find_links or (), indexes=extra_index or (), upgrade=upgrade)
    targets = [Target.parse(each) for each in dict.fromkeys(target)]
    told = {}
    for each in targets:
        house, fetched = make(out, each, wishes, lambda line: console.print(line, markup=False))
        told[str(each)] = {
            "folder": str(out / str(each)),
            "tinysight": house.version,
            "wheels": len(house.wheels),
            "size_mib": round(house.size_bytes / 2**20, 1),
            "fetched_mib": round(fetched / 2**20, 1),
            "changed": fetched > 0,
            "glibc": house.glibc,
        }
    if as_json:
        finish(told, as_json=True)
        return
    lines = {
        name: f"{each['wheels']} wheels, {each['size_mib']} MiB, needs glibc {each['glibc']}; "
        + (f"fetched {each['fetched_mib']} MiB" if each["changed"] else "nothing changed")
        for name, each in told.items()
    }
    finish(lines, as_json=False)
