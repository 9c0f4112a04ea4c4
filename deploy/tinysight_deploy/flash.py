"""``tinysight flash``: verify a bundle and install it into a device's store."""

from pathlib import Path
from typing import Annotated

import typer

from tinysight_contract.errors import ConfigError
from tinysight_edge.console import finish
from tinysight_edge.store import Store, Unsigned

__all__ = ["flash"]


def flash(
    bundle: Annotated[Path, typer.Argument(help="The bundle to install.", show_default=False)],
    *,
    to: Annotated[str, typer.Option(help="The device: dir:PATH, a store in a folder, e.g. of a mounted SD card.")],
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """Verify a bundle and install it into a device's store.

    The store switches in one step: a kill or a power cut leaves the old or the new bundle active. Bundles are not
    signed yet: whoever can write to the store decides what runs.
    """
    kind, colon, where = to.partition(":")
    if kind != "dir" or not colon or not where:
        raise ConfigError(f"There is no target {to!r}.", mend="Give --to dir:PATH.")
    store = Store(Path(where))
    before = store.state().active
    installed = store.install(bundle, trust=Unsigned())
    manifest = installed.manifest
    finish(
        {
            "installed": f"{manifest.name} {manifest.version}",
            "digest": installed.digest,
            "replaced": before if before != installed.digest else None,
            "store": where,
        },
        as_json=as_json,
    )
