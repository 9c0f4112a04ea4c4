"""Flash a store in a folder: a mounted SD card, or this machine's own.

In: the store's folder and a signed release.  Out: a `Result`. The same code as on a device installs it; the test is the
device's own, at its agent's next start, since only there can be seen whether the bundle runs.
"""

import time
from pathlib import Path

from msgspec.structs import replace

from tinysight_contract.updates import Update, UpdateState
from tinysight_deploy.flashing.over_ssh import Order, outcome_of
from tinysight_deploy.flashing.report import Result, Step, View
from tinysight_deploy.repo.repository import Repository
from tinysight_edge.store import Store
from tinysight_edge.update.installer import Installer
from tinysight_edge.update.sources import open_source
from tinysight_edge.update.trust import ROOT, new_trust

__all__ = ["flash_folder"]

_WAITS = "Its agent tests it before it runs it, at its next start or now if it runs."


def flash_folder(name: str, path: Path, order: Order, repository: Repository, view: View) -> Result:
    """Flash one folder.

    A store that trusts nobody yet is given this repository's root: whoever can write there decides whom it trusts.

    Raises:
        TinySightError: it cannot be done.
        OSError: the repository cannot be read, or the folder cannot be written.
    """
    began_s = time.monotonic()
    release, store = order.release, Store(path)
    state = store.state()
    active = state.active
    if active is not None and active.digest == release.digest and state.candidate is None:
        if store.is_whole(release.digest):
            return Result(device=name, outcome="unchanged")
    elif state.candidate is not None and state.candidate.bundle == release and store.is_whole(release.digest):
        return Result(device=name, outcome="staged", reason=_WAITS)
    if order.dry_run:
        return Result(device=name, outcome="would-install", moved_bytes=release.size_bytes)

    def tell(update: Update) -> None:
        done = int(update.share * release.size_bytes)
        view.tell(Step(name, update.state.value, done, release.size_bytes))

    if not (store.trust / ROOT).exists():
        with store.alone():
            new_trust(store.trust, repository.root_bytes(), store.disk)
    installer = Installer(store, tell=tell)
    told = installer.install(
        open_source(str(repository.folder)), release.target, digest=release.digest, again=order.again
    )
    result = outcome_of(name, told, runs=False)
    if told.state is UpdateState.VERIFIED:
        result = replace(result, reason=_WAITS)
    transfer = ("full" if told.why_full else "delta") if told.moved_bytes else ""
    return replace(
        result,
        moved_bytes=told.moved_bytes,
        transfer=transfer,
        why_full=told.why_full,
        seconds=round(time.monotonic() - began_s, 3),
    )
