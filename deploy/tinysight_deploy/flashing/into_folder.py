"""Flash a store in a folder: a mounted SD card, or this machine's own.

In: the store's folder and a signed release.  Out: a `Result`. The same code as on a device installs it; whether the
device is what the release needs, and whether the bundle works, is seen at its agent's next start, since only there it
can be. Root writes it as the store's owner, so that the agent can go on with what it finds.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from tinysight_contract.errors import StoreError
from tinysight_contract.files import read_capped
from tinysight_contract.updates import Code, Release, Update, UpdateState
from tinysight_deploy.flashing.over_ssh import Order, outcome_of
from tinysight_deploy.flashing.report import Result, Step, View
from tinysight_deploy.remote.targets import plain
from tinysight_deploy.repo.repository import Repository
from tinysight_deploy.signing.metadata import MAX_METADATA_BYTES
from tinysight_edge.store import Store
from tinysight_edge.update.installer import Installer
from tinysight_edge.update.owner import acting_as_owner
from tinysight_edge.update.sources import open_source
from tinysight_edge.update.trust import ROOT, new_trust
from tinysight_edge.update.update import State, refusal

__all__ = ["flash_folder"]

_WAITS = "Its agent tests it before it runs it, at its next start or now if it runs."


def flash_folder(name: str, path: Path, order: Order, repository: Repository, view: View) -> Result:
    """Flash one folder. For a process that does nothing else meanwhile: root is the store's owner for as long.

    A store that trusts nobody yet is given this repository's root: whoever can write there decides whom it trusts.

    Raises:
        TinySightError: it cannot be done.
        OSError: the repository cannot be read, or the folder cannot be written.
    """
    began_s = time.monotonic()
    release, store = order.release, Store(path)
    state = store.state()
    if (result := _settled(name, store, state, release)) is not None:
        return result
    if order.dry_run:
        return _foreseen(name, store, state, order, repository)

    def tell(update: Update) -> None:
        done = int(update.share * release.size_bytes)
        view.tell(Step(name, update.state.value, done, release.size_bytes))

    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    trusting = (store.trust / ROOT).exists()
    root = b"" if trusting else repository.root_bytes()
    base = None if state.active is None else state.active.digest
    with _readable(repository, release, base, path) as source, acting_as_owner(path):
        _refuse_closed(there)
        if not trusting:
            with store.alone():
                new_trust(store.trust, root, store.disk)
        told = Installer(store, tell=tell).install(
            open_source(str(source)), release.target, digest=release.digest, again=order.again, here=False
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


def _settled(name: str, store: Store, state: State, release: Release) -> Result | None:
    """What there is to say where nothing is to be done."""
    active, coming = state.active, state.candidate
    if active is not None and active.digest == release.digest and coming is None:
        if store.is_whole(release.digest):
            return Result(device=name, outcome="unchanged")
    elif coming is not None and coming.bundle == release and store.is_whole(release.digest):
        return Result(device=name, outcome="staged", reason=_WAITS)
    return None


def _foreseen(name: str, store: Store, state: State, order: Order, repository: Repository) -> Result:
    """What a flash would come to, as far as the folder and the repository can tell.

    Raises:
        TinySightError: the repository is not what it should be.
        OSError: a file cannot be read.
    """
    release, path = order.release, store.trust / ROOT
    if path.exists():
        if read_capped(path, MAX_METADATA_BYTES) not in repository.chain().roots:
            why = f"{path} is not a root of {repository.folder}. Use the repository that the device was set up with."
            return Result(device=name, outcome="rejected", code=Code.UNSIGNED, reason=plain(why, 600))
    else:
        repository.root_bytes()
    if (no := refusal(state, release, again=order.again)) is not None:
        return Result(device=name, outcome="rejected", code=no.code, reason=plain(str(no), 600))
    held = state.active is not None and store.is_whole(state.active.digest)
    part = repository.choice(release, base=state.active.digest if state.active is not None and held else None)
    size = (repository.folder / part.path).stat().st_size if part.path else 0
    transfer = "" if not part.path else "full" if part.why_full else "delta"
    return Result(device=name, outcome="would-install", moved_bytes=size, transfer=transfer, why_full=part.why_full)


@contextmanager
def _readable(repository: Repository, release: Release, base: str | None, store: Path) -> Iterator[Path]:
    """The repository, or where root works for somebody else: a copy of what is needed that is the store's owner's."""
    before = os.geteuid()
    with acting_as_owner(store):
        owner, group = os.geteuid(), os.getegid()
    if owner == before:
        yield repository.folder
        return
    with tempfile.TemporaryDirectory(prefix="tinysight-flash-") as name:
        room, copy = Path(name), Path(name) / "copy"
        for each in (base, None):  # the difference, and the whole in case that it cannot be used
            repository.slice(release, base=each, to=room / "slice")
        shutil.copytree(room / "slice", copy)  # what is in the slice may be the very files of the repository
        for path in (copy, *copy.rglob("*")):
            os.chown(path, owner, group)
        room.chmod(0o711)
        yield copy


def _refuse_closed(there: Path) -> None:
    """Say that the store cannot be written, before anything is tried.

    Raises:
        StoreError: this user, whom root may have become, has no way there.
    """
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        raise StoreError(
            f"{there} cannot be written by user {os.geteuid()}.",
            mend="Be its owner or root; mount a card where everybody may pass, such as below /mnt.",
        )
