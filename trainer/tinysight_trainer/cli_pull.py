"""``tinysight data pull``: hard examples of devices in the field, for the next training."""

import os
from pathlib import Path
from typing import Annotated

import typer

from tinysight_trainer.cli_shared import Json, Quiet, counting, finish_data

__all__ = ["pull"]


def pull(
    *,
    out: Annotated[Path, typer.Option(help="The data set to make.")],
    fleet: Annotated[
        str, typer.Option(envvar="TINYSIGHT_FLEET", help="https://host[:port], of `tinysight fleet serve`.")
    ],
    group: Annotated[
        str | None, typer.Option(help="Of devices: all, site:NAME, or a group of the inventory.", show_default=False)
    ] = None,
    site: Annotated[str | None, typer.Option(help="Of this site alone.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="Of devices of this name alone.", show_default=False)] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(help="A data set; what it has is not fetched again. May be repeated.", show_default=False),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with a token that may read; else $TINYSIGHT_FLEET_TOKEN.", show_default=False),
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificates to trust instead of the machine's.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch what the models of devices found hard into a data set, with their proposals, to be labelled.

    Each picture says which device kept it, why, and what its model saw; nothing of it counts as labelled.
    """
    from tempfile import TemporaryDirectory

    from tinysight_contract.errors import ConfigError
    from tinysight_contract.files import read_capped
    from tinysight_trainer.data.dataset import check_free, open_dataset
    from tinysight_trainer.data.formats import read_source
    from tinysight_trainer.data.importer import import_pictures
    from tinysight_trainer.data.pull import Server
    from tinysight_trainer.data.pull import pull as fetch

    check_free(out)
    token = os.environ.get("TINYSIGHT_FLEET_TOKEN", "")
    if token_file is not None:
        token = read_capped(token_file, 4096).decode(errors="replace").strip()
    if not token:
        raise ConfigError("No token is given.", mend="Give --token-file, with one from `tinysight fleet token add`.")
    wanted = {"group": group, "site": site, "device": device}
    asked = {name: value for name, value in wanted.items() if value is not None}
    have = {item.sha256 for each in known or () for item in open_dataset(each).items}
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.absolute().parent) as scratch:
        folder = Path(scratch)
        with Server(fleet, token, ca=ca) as server, counting("fetching", quiet=quiet) as count:
            pulled = fetch(server, folder, asked, known=have, progress=lambda done: count(done, None))
        chosen, raws = read_source(str(folder), "coco", names=None)
        with counting("importing", quiet=quiet) as count:
            data = import_pictures(
                raws, out, source={"format": chosen, "from": fleet}, progress=lambda done: count(done, None)
            )
    finish_data(data, as_json=as_json, known=pulled.known, devices=pulled.devices, bundles=pulled.bundles)
