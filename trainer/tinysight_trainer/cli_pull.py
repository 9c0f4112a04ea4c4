"""``tinysight data pull``: hard examples of devices in the field, for the next training."""

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
        typer.Option(
            envvar="TINYSIGHT_FLEET_TOKEN_FILE",
            help="A file with a token that may read; fleet.token among your settings unless given.",
            show_default=False,
        ),
    ] = None,
    most: Annotated[int | None, typer.Option(min=1, help="So many pictures at most.", show_default=False)] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificates to trust instead of the machine's.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch what the models of devices found hard into a data set, with their proposals, to be labelled.

    Each picture says which device kept it, why, and what its model saw; nothing of it counts as labelled. What has come
    when it breaks off is kept beside the data set, in OUT.part, and the same command goes on from there.
    """
    import shutil
    from contextlib import suppress

    from tinysight_contract.errors import ConfigError
    from tinysight_contract.files import locked
    from tinysight_edge.console import console
    from tinysight_edge.fleet_server import people_token
    from tinysight_trainer.data.dataset import check_free, open_dataset
    from tinysight_trainer.data.formats import read_source
    from tinysight_trainer.data.importer import import_pictures
    from tinysight_trainer.data.pull import Server
    from tinysight_trainer.data.pull import pull as fetch

    check_free(out)
    token = people_token(token_file)
    wanted = {"group": group, "site": site, "device": device}
    asked = {name: value for name, value in wanted.items() if value is not None}
    have = {item.sha256 for each in known or () for item in open_dataset(each).items}
    folder = out.absolute().with_name(f"{out.absolute().name}.part")
    folder.mkdir(parents=True, exist_ok=True)
    busy = ConfigError(f"{folder} is being written by another one.", mend="Wait until it is done.")
    try:
        with locked(folder, busy), Server(fleet, token, ca=ca) as server:
            with counting("fetching", quiet=quiet) as count:
                pulled = fetch(server, folder, asked, known=have, most=most, progress=lambda done: count(done, None))
            chosen, raws = read_source(str(folder), "coco", names=None)
            with counting("importing", quiet=quiet) as count:
                data = import_pictures(
                    raws, out, source={"format": chosen, "from": fleet}, progress=lambda done: count(done, None)
                )
            shutil.rmtree(folder)
    finally:
        with suppress(OSError):  # something is in it, or it is gone
            folder.rmdir()
    for each in pulled.skipped[:20]:
        console.print(f"not fetched: {each}", markup=False)
    if len(pulled.skipped) > 20:
        console.print(f"... and {len(pulled.skipped) - 20} more")
    if pulled.more:
        console.print(f"There are more; `--known {out}` fetches those into another data set.", markup=False)
    finish_data(
        data,
        as_json=as_json,
        known=pulled.known,
        skipped=len(pulled.skipped),
        devices=pulled.devices,
        bundles=pulled.bundles,
    )
