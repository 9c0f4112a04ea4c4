"""The device's store of bundles: content-addressed files and one ``state.json``, the only commit point.

::

    STORE/state.json                  which bundle is active, and what else is known
    STORE/bundles/<sha256>.bundle     bundles by content; a file here means nothing until state.json names it

Installing verifies, writes the bundle under its digest, then replaces ``state.json`` in one step. A kill or a power
cut at any moment leaves the old or the new bundle active, never a mixture. Who may install is decided by a `Trust`.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import BundleError, StoreError
from tinysight_contract.files import fsync_folder, replace_file, sha256_of

__all__ = ["State", "Store", "Trust", "Unsigned"]

SCHEMA: Final = 1
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]


class State(Struct, frozen=True, kw_only=True):
    """What the store has decided. Only ``active`` and ``previous`` are used before signed updates exist.

    Attributes:
        schema: of this file.
        active: digest of the bundle that runs.
        previous: digest of the one before, kept to go back to.
        candidate: digest of a bundle on trial.
        attempts: how often the candidate was started.
        floor: no release below this is installed.
        bad: digests that failed here.
    """

    schema: int = SCHEMA
    active: Sha256 | None = None
    previous: Sha256 | None = None
    candidate: Sha256 | None = None
    attempts: Annotated[int, Meta(ge=0)] = 0
    floor: Annotated[int, Meta(ge=0)] = 0
    bad: list[Sha256] = []


class Trust(Protocol):
    """Decides whether a bundle that is whole may also be installed. The seam for signatures."""

    def refusal(self, bundle: Bundle, state: State) -> str | None:
        """Why ``bundle`` must not be installed, or None. No I/O."""


class Unsigned:
    """Trusts whoever can write to the store; refuses only what failed here before or is below the floor."""

    def refusal(self, bundle: Bundle, state: State) -> str | None:
        """Why ``bundle`` must not be installed, or None."""
        if bundle.digest in state.bad:
            return "it has failed on this device before"
        if bundle.manifest.release < state.floor:
            return f"its release {bundle.manifest.release} is below {state.floor}, the lowest this device takes"
        return None


class Store:
    """A device's store in a folder.

    Args:
        root: the folder; made by the first `install`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._state_path = root / "state.json"

    def state(self) -> State:
        """What is decided now.

        Raises:
            StoreError: ``state.json`` cannot be read or is not of this version.
        """
        try:
            raw = self._state_path.read_bytes()
        except FileNotFoundError:
            return State()
        except OSError as error:
            raise StoreError(f"{self._state_path}: {error.strerror}.", mend="Check the path and its rights.") from error
        try:
            state = msgspec.json.decode(raw, type=State)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise StoreError(
                f"{self._state_path} is damaged: {error}.", mend="Delete it and flash the bundle again."
            ) from error
        if state.schema != SCHEMA:
            raise StoreError(
                f"{self._state_path} has schema {state.schema}, this runtime reads {SCHEMA}.", mend="Update TinySight."
            )
        return state

    def active(self) -> Bundle:
        """The bundle that is to run, checked.

        Raises:
            StoreError: none is installed, or its file is missing or damaged.
        """
        digest = self.state().active
        if digest is None:
            raise StoreError(
                f"{self.root} has no bundle installed.",
                mend="Install one with `tinysight flash X.bundle --to dir:PATH`.",
            )
        try:
            bundle = Bundle.open(self._path(digest))
        except BundleError as error:
            raise StoreError(f"The active bundle is lost: {error.what}", mend="Flash it again.") from error
        if bundle.digest != digest:
            raise StoreError(f"{self._path(digest)} is not what was installed.", mend="Flash the bundle again.")
        return bundle

    def install(self, source: Path, *, trust: Trust) -> Bundle:
        """Verify a bundle file and make it the active one; the one before is kept, older ones are removed.

        Raises:
            BundleError: it is damaged or not trusted; the store is as it was.
            StoreError: the store cannot be written or is being written to; the store is as it was.
        """
        bundle = Bundle.open(source)
        try:
            with self._alone():
                state = self.state()
                if (reason := trust.refusal(bundle, state)) is not None:
                    raise BundleError(f"{source} is not installed: {reason}.", mend="Flash a newer or repaired bundle.")
                self._keep(bundle.digest, source)
                if bundle.digest != state.active:
                    state = replace(state, active=bundle.digest, previous=state.active)
                    replace_file(self._state_path, msgspec.json.encode(state, order="sorted"))
                self._sweep(state)
        except OSError as error:
            raise StoreError(
                f"{self.root} cannot be written: {error.strerror or error}.", mend="Check its rights and free space."
            ) from error
        return bundle

    def _path(self, digest: str) -> Path:
        return self.root / "bundles" / f"{digest}.bundle"

    def _keep(self, digest: str, source: Path) -> None:
        """Copy the bundle to where its digest says, unless it is there and whole."""
        path = self._path(digest)
        if not path.is_file() or sha256_of(path) != digest:
            replace_file(path, source.read_bytes())
            if sha256_of(path) != digest:
                raise StoreError(f"{source} changed while it was installed.", mend="Flash it again.")

    def _sweep(self, state: State) -> None:
        """Remove what no state names: older bundles, and the left-overs of killed writes."""
        wanted = {self._path(digest) for digest in (state.active, state.previous, state.candidate) if digest}
        for path in [*(self.root / "bundles").iterdir(), *self.root.glob(".*.part")]:
            if path not in wanted:
                with suppress(OSError):  # the switch is done; the next install tries again
                    path.unlink()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one writer at a time; the lock ends with the process."""
        (self.root / "bundles").mkdir(parents=True, exist_ok=True)
        fsync_folder(self.root)
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"{self.root} is being written to.", mend="Wait for the other flash to end."
                ) from error
            yield
        finally:
            os.close(handle)
