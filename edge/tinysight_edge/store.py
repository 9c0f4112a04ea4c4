"""The device's store of bundles: content-addressed files and one ``state.json``, the only commit point.

::

    STORE/state.json                  what is decided: see `update.update.State`; a line of JSON and its SHA-256
    STORE/state.last.json             the same once more, for a card that damages files
    STORE/bundles/<sha256>.bundle     bundles by content; none has this name before it was verified
    STORE/bundles/<sha256>.json       that it was confirmed here, and as what; for when the state is lost
    STORE/bundles/<sha256>.part       what is here of one that is on its way
    STORE/trust/                      who may sign, and what was last signed: see `update.trust`
    STORE/lock, STORE/running         held by who changes the store; by the agent that runs from it
    STORE/way-back                    held by a person who wants to go back while somebody else changes the store

A kill or a power cut at any moment leaves the old or the new bundle active, never a mixture. How a bundle comes in is
`update.installer`; what is decided, and why, is `update.update`.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BundleError, StoreError
from tinysight_contract.files import read_capped
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Release
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.lock import hold, is_held
from tinysight_edge.update.notes import Note, checked, salvage, unchecked
from tinysight_edge.update.update import SCHEMA, State, recover

__all__ = ["Store"]

log = logging.getLogger(__name__)

MAX_STATE_BYTES: Final = 256 * 1024
_FLASH: Final = "Install one with `tinysight flash X.bundle --to …`."


class Store:
    """A device's store in a folder.

    Args:
        root: the folder; made by whoever first writes.
        disk: what writes.

    Attributes:
        owed: what is decided and was not followed by what was found then, as the disk did not take it; or None.
    """

    def __init__(self, root: Path, *, disk: Disk | None = None) -> None:
        self.root, self.disk = root, disk or Disk()
        self.trust = root / "trust"
        self.owed: tuple[State, State] | None = None
        self._state, self._copy = root / "state.json", root / "state.last.json"

    def path(self, digest: str) -> Path:
        """Where the bundle with this digest lies, if it is here."""
        return self.root / "bundles" / f"{digest}.bundle"

    def part(self, digest: str) -> Path:
        """Where what is here of it lies while it is on its way."""
        return self.root / "bundles" / f"{digest}.part"

    def note(self, digest: str) -> Path:
        """Where it says what this bundle was confirmed as."""
        return self.root / "bundles" / f"{digest}.json"

    def state(self) -> State:
        """What is decided now; from the copy if the file is lost, from what lies beside the bundles if both are.

        Raises:
            StoreError: it cannot be read, or a newer version has written it.
        """
        return self._decided() or salvage(self.root / "bundles")

    def _decided(self) -> State | None:
        """What the state or its copy says; None when both are lost.

        Raises:
            StoreError: it cannot be read, or a newer version has written it.
        """
        unread = None
        for path in (self._state, self._copy):
            try:
                raw = read_capped(path, MAX_STATE_BYTES)
            except FileNotFoundError:
                continue
            except OSError as error:
                unread = unread or error
                continue
            if (state := _parse(path, raw)) is not None:
                return state
            log.error("%s is damaged.", path)
        if unread is not None:  # it may be right, and readable the next time
            what = f"{unread.filename or self._state}: {unread.strerror}."
            raise StoreError(what, mend="Check the path and its rights.") from unread
        return None

    def save(self, state: State) -> None:
        """Decide. Only while the store is held by `alone`.

        Raises:
            OSError: the disk is full or broken; then the state before still holds, or already this one.
        """
        left = {each.digest for each in state.bad}
        for release in (state.active, state.previous):
            if release is not None:
                path, raw = self.note(release.digest), checked(Note(release=release, left=release.digest in left))
                if _raw(path) != raw:
                    self.disk.replace(path, raw)
        raw = checked(state)
        for path in (self._state, self._copy):
            self.disk.replace(path, raw)

    def active(self) -> Bundle:
        """The bundle that is to run, checked. Changes nothing; `boot` goes back to another one when it must.

        Raises:
            StoreError: none is installed, or its file is missing or damaged.
        """
        release = self.state().active
        if release is None:
            raise StoreError(f"{self.root} has no bundle installed.", mend=_FLASH)
        return self.open(release)

    def open(self, release: Release) -> Bundle:
        """A bundle of the store, checked.

        Raises:
            StoreError: its file is missing or damaged.
        """
        try:
            return Bundle.open(self.path(release.digest), digest=release.digest)
        except BundleError as error:
            raise StoreError(f"The bundle is lost: {error.what}", mend="Flash it again.") from error

    def boot(self) -> Bundle:
        """The bundle to start with: the active one, or the one before when its file is damaged.

        Raises:
            StoreError: there is none that could run, or the store cannot be read.
        """
        state = self.state()
        try:
            return self.active()
        except StoreError as error:
            if state.active is None:
                raise
            log.error("%s", error)
        whole = {digest for digest in state.wanted if self.is_whole(digest)}
        mended = recover(state, utc_now(), whole=whole)
        try:
            with self.alone():
                self.save(mended)
        except (OSError, StoreError) as error:  # what runs matters more than what is written
            log.error("%s cannot be written: %s", self.root, error)
        if mended.active is None:
            raise StoreError("The active bundle is lost, and there is none before it.", mend="Flash it again.")
        return self.open(mended.active)

    def is_whole(self, digest: str) -> bool:
        """Whether the bundle's file is here and what it was."""
        try:
            Bundle.open(self.path(digest), digest=digest)
        except BundleError:
            return False
        return True

    def sweep(self, state: State, *, keep_parts: bool = False) -> None:
        """Remove what no state names: older bundles, and what is left of downloads that nobody goes on with."""
        wanted = {path for digest in state.wanted for path in (self.path(digest), self.note(digest))}
        coming = None if state.candidate is None else state.candidate.bundle
        if coming is not None or keep_parts:
            wanted |= {path for path in (self.root / "bundles").glob("[!.]*.part") if _is_of(path, coming)}
        for path in [*(self.root / "bundles").glob("*"), *self.root.glob(".*.part")]:
            if path not in wanted:
                with suppress(OSError):  # the switch is done; the next one tries again
                    shutil.rmtree(path) if path.is_dir() else self.disk.remove(path)

    def make(self) -> None:
        """Make the store's folders.

        Raises:
            OSError: they cannot be made.
        """
        for folder in (self.root, self.root / "bundles", self.trust):
            self.disk.make_folder(folder)

    def tidy(self) -> None:
        """Put right what a kill or a power cut has left; nothing that a download could go on from is removed."""
        try:
            state = self._decided()
            if state is None:
                if (state := salvage(self.root / "bundles")) == State():
                    return
                log.error("%s: what was decided is lost; what lies beside the bundles counts.", self.root)
                self.save(state)  # before what it was found in is swept
            self.sweep(state, keep_parts=True)  # which may make the room for the rest
            if _raw(self._state) != _raw(self._copy):
                self.save(state)
        except (OSError, StoreError) as error:  # who came to change something meets it again, and says so
            log.error("%s cannot be tidied: %s", self.root, error)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one who changes the store; ends with the process, however it ends.

        What was left by one who was cut short is put right first.

        Raises:
            StoreError: somebody else changes it.
            OSError: the store cannot be written.
        """
        self.make()
        with ExitStack() as held:
            try:
                held.enter_context(hold(self.root / "lock", alone=True))
            except BlockingIOError as error:
                what = f"{self.root} is being written to."
                raise StoreError(what, mend="Wait for the other flash or the trial to end.") from error
            self.tidy()
            yield

    @contextmanager
    def run(self) -> Iterator[None]:
        """Say that an agent runs from this store, as long as the ``with`` lasts.

        Raises:
            OSError: the store cannot be written.
        """
        self.make()
        with hold(self.root / "running", alone=False):
            yield

    def is_run(self) -> bool:
        """Whether an agent runs from this store."""
        return is_held(self.root / "running")

    @contextmanager
    def wanted_back(self) -> Iterator[None]:
        """Ask who changes the store to give it up for a way back, as long as the ``with`` lasts.

        Raises:
            OSError: the store cannot be written.
        """
        self.make()
        with hold(self.root / "way-back", alone=False):
            yield

    def is_wanted_back(self) -> bool:
        """Whether a person waits for the store to go back."""
        return is_held(self.root / "way-back")


def _parse(path: Path, raw: bytes) -> State | None:
    """What stands in a file; None when it is damaged.

    Raises:
        StoreError: a newer version has written it.
    """
    if (line := unchecked(raw)) is None:
        return None
    try:
        schema = msgspec.json.decode(line, type=dict[str, object]).get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise StoreError(f"{path} has schema {schema}, this reads {SCHEMA}.", mend="Update TinySight.")
        return msgspec.json.decode(line, type=State)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _raw(path: Path) -> bytes | None:
    try:
        return read_capped(path, MAX_STATE_BYTES)
    except FileNotFoundError:
        return None


def _is_of(part: Path, coming: Release | None) -> bool:
    return coming is None or part.name.startswith(coming.digest)
