"""START HERE: bring a bundle into the store, from a repository to the point where it may be tried.

In: a `Source` and the path of a target in it.  Out: the `Update`: what became of it. The way: `trust` says what was
signed, `update` whether this device takes it, `transfer` has its bytes in the store, `selftest` runs it in a process of
its own. Every step is decided durably before the next begins, so whoever runs this again after a kill goes on where it
ended.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import StoreError, UpdateError
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Code, Release, Update, UpdateState
from tinysight_edge.store import Store
from tinysight_edge.update.sources import disk_error
from tinysight_edge.update.update import (
    State,
    attempt,
    confirm,
    end,
    ended,
    outcome_of,
    progress,
    queue,
    refusal,
    tested,
)

if TYPE_CHECKING:
    from tinysight_edge.update.selftest import Limits
    from tinysight_edge.update.signed import Machine, Requires, Signed
    from tinysight_edge.update.sources import Budget, Source

__all__ = ["Installer", "boot"]

log = logging.getLogger(__name__)

TELL_S: Final = 0.5
UNTESTED: Final = {UpdateState.VERIFIED, UpdateState.SELFTEST}
HERE: Final = {*UNTESTED, UpdateState.TRIAL}
"""States of a candidate whose file is in the store."""


def boot(installer: "Installer", store: Store, *, scheme: str | None = None, threads: int = 1) -> Bundle:
    """The bundle to start with: the active one; where nothing is active, the candidate once it has passed its test.

    Raises:
        StoreError: there is none that could run, or the store cannot be read or written.
    """
    try:
        return store.boot()
    except StoreError:
        state = store.state()
        if state.active is not None or state.candidate is None:
            raise
    if state.candidate.state in UNTESTED:
        told = installer.test(scheme=scheme, threads=threads)
        if told is not None and told.code is not None:
            raise StoreError(f"There is nothing to run: {told.reason}", mend="Flash another release.")
    elif state.candidate.state is UpdateState.TRIAL:  # what ran is lost, and this one has passed its test
        with store.alone():
            store.save(confirm(store.state(), {}, utc_now()))
    return store.boot()


class Installer:
    """Brings bundles into one store.

    Args:
        store: where to.
        machine: what this device is; None to find out.
        limits: of the self-test; None for the usual ones.
        tell: hears of progress, and of the end.
        heed: called often; what it raises breaks off, and the next call goes on from there.
        synced: whether the machine's clock is known to be right.
    """

    def __init__(
        self,
        store: Store,
        *,
        machine: "Machine | None" = None,
        limits: "Limits | None" = None,
        tell: Callable[[Update], None] = lambda _update: None,
        heed: Callable[[], None] = lambda: None,
        synced: bool = False,
    ) -> None:
        self._store, self._machine, self._limits = store, machine, limits
        self._tell, self._heed, self._synced = tell, heed, synced

    def install(
        self,
        source: "Source",
        target: str,
        *,
        digest: str | None = None,
        again: bool = False,
        here: bool = True,
        budget: "Budget | None" = None,
    ) -> Update:
        """Verify, fetch and store a release: it is `verified` then, `confirmed` if it is active already, or has ended.

        One that waits for its self-test or its trial already goes on waiting for it, with its attempts.

        Args:
            source: the repository.
            target: the release's path in it.
            digest: only if it is this one.
            again: although it failed here before.
            here: whether this machine is the one that runs it; else that one looks whether it is what is needed.
            budget: what fetching may cost.

        Raises:
            StoreError: the store is being written to, or cannot be read.
        """
        try:
            with self._store.alone():
                try:
                    return self._install(source, target, digest=digest, again=again, here=here, budget=budget)
                except UpdateError as error:
                    return self._end(target, error)
                except OSError as error:
                    return self._end(target, disk_error(self._store.root, error))
        except OSError as error:
            return self._unwritten(Update(target=target, state=UpdateState.FAILED, at=utc_now()), error)

    def _install(
        self, source: "Source", target: str, *, digest: str | None, again: bool, here: bool, budget: "Budget | None"
    ) -> Update:
        """See install.

        Raises:
            UpdateError: it comes no further.
            OSError: the disk is full or broken.
        """
        release, signed, state = self._resolve(source, target, digest, self._store.state())
        if state.active is not None and state.active.digest == release.digest:
            if self._store.is_whole(release.digest):
                return self._stays(state, release)
        elif (no := refusal(state, release, again=again)) is not None:
            raise no
        if here and (no := self._misfit(release, signed.requires)) is not None:
            raise no
        state = self._save(queue(state, release, utc_now(), needs=signed.requires))
        return self._told(self._bring(source, release, signed, state, budget))

    def test(self, *, scheme: str | None = None, threads: int = 1) -> Update | None:
        """Let a candidate pass its self-test: it is on `trial` then, or active where nothing was.

        None when there is none that waits for it. When the disk does not take what was found, that is told, and the
        candidate still waits.

        Raises:
            StoreError: the store is being written to, or cannot be read.
        """
        coming: Update | None = None
        try:
            with self._store.alone():
                state = self._store.state()
                coming = state.candidate
                if coming is None or coming.state not in UNTESTED:
                    return None
                state = self._save(self._begun(state, coming))
                if state.candidate is not None:
                    self._tell(state.candidate)
                    state = self._save(self._found(state, scheme=scheme, threads=threads))
                self._store.sweep(state)
                return self._told(state)
        except OSError as error:
            if coming is None:
                what = f"{self._store.root} cannot be written: {error.strerror or error}."
                raise StoreError(what, mend="Check its rights and free space.") from error
            return self._unwritten(coming, error)

    def _begun(self, state: State, coming: Update) -> State:
        """The self-test is about to begin; or this machine is not what the candidate needs, and that ends it."""
        if state.needs is not None and coming.bundle is not None:
            no = self._misfit(coming.bundle, state.needs)
            if no is not None:
                return end(state, utc_now(), outcome_of(no.code), code=no.code, reason=str(no))
        return attempt(state, utc_now())

    def _found(self, state: State, *, scheme: str | None, threads: int) -> State:
        """Run the self-test: what it makes of the candidate."""
        from tinysight_edge.update.selftest import Limits, run_selftest  # noqa: PLC0415 -- the agent starts without

        coming = None if state.candidate is None else state.candidate.bundle
        if coming is None:
            raise ValueError("there is no candidate")
        found = run_selftest(
            self._store.path(coming.digest),
            active=None if state.active is None else self._store.path(state.active.digest),
            limits=self._limits or Limits(),
            scheme=scheme,
            threads=threads,
            heed=self._heed,
        )
        if found.code is None:
            return tested(state, found.gates, utc_now())
        return end(state, utc_now(), UpdateState.FAILED, code=found.code, reason=found.reason, gates=found.gates)

    def _save(self, state: State) -> State:
        self._store.save(state)
        return state

    def _resolve(
        self, source: "Source", target: str, digest: str | None, state: State
    ) -> tuple[Release, "Signed", State]:
        """What was signed under a path, as of now.

        Raises:
            UpdateError: nothing, or something else.
        """
        from tinysight_edge.update.clock import raise_floor, right_time  # noqa: PLC0415 -- the agent starts without
        from tinysight_edge.update.trust import Trust  # noqa: PLC0415 -- the agent starts without

        now, suspect = right_time(utc_now(), state.clock_floor, synced=self._synced)
        if suspect:
            log.warning("The clock cannot be right; %s counts.", now.isoformat())
        trust = Trust(self._store.trust, source, now=now, disk=self._store.disk)
        trust.refresh()
        offer = trust.resolve(target)
        if digest is not None and digest != offer.release.digest:
            what = f"{target} is signed as {offer.release.digest[:12]}, asked for is {digest[:12]}."
            raise UpdateError(what, mend="Ask for what the repository has.", code=Code.UNSIGNED)
        floor = raise_floor(
            state.clock_floor, system=utc_now(), synced=self._synced, released_at=offer.signed.released_at
        )
        return offer.release, offer.signed, replace(state, clock_floor=floor)

    def _misfit(self, release: Release, needs: "Requires") -> UpdateError | None:
        """Why this machine is not what the release needs, or None."""
        from tinysight_edge.update.signed import Machine, lack  # noqa: PLC0415 -- looks at the machine

        if (lacking := lack(needs, self._machine or Machine.here())) is None:
            return None
        code, why = lacking
        what = f"{release.name} {release.version} does not fit this device: {why}."
        return UpdateError(what, mend="Flash a release that was made for it.", code=code)

    def _bring(
        self, source: "Source", release: Release, signed: "Signed", state: State, budget: "Budget | None"
    ) -> State:
        """Have the candidate's file in the store.

        Raises:
            UpdateError: it cannot be had, or is something else.
            OSError: the disk is full or broken.
        """
        from tinysight_edge.update.sources import Budget  # noqa: PLC0415 -- the agent starts without
        from tinysight_edge.update.transfer import Moved, bring, room  # noqa: PLC0415 -- the agent starts without

        moved = Moved(0, "")
        if self._store.is_whole(release.digest):
            if state.candidate is not None and state.candidate.state in HERE:
                return state  # else a bundle that brings the device down would never use up its attempts
        else:
            state = self._make_room(state, release, room)
            state = self._save(progress(state, utc_now(), UpdateState.DOWNLOADING))
            moved = bring(
                self._store,
                source,
                release,
                signed,
                active=state.active,
                budget=budget or Budget(),
                tell=self._teller(state.candidate, release),
            )
        state = self._save(
            progress(state, utc_now(), UpdateState.VERIFIED, moved_bytes=moved.size_bytes, why_full=moved.why_full)
        )
        self._store.sweep(state)
        return state

    def _make_room(self, state: State, release: Release, room: Callable[[Store, Release], int]) -> State:
        """See that there is room, for which the bundle before the active one may go.

        Raises:
            UpdateError: there is not.
        """
        self._store.sweep(state)
        if room(self._store, release) and state.previous is not None and state.previous.digest != release.digest:
            log.warning("%s %s makes room; there is no way back to it.", state.previous.name, state.previous.version)
            state = self._save(replace(state, previous=None))
            self._store.sweep(state)
        if missing := room(self._store, release):
            what = f"{self._store.root} has {-(-missing >> 20)} MiB too few for {release.name} {release.version}."
            raise UpdateError(what, mend="Free some space on the device.", code=Code.NO_SPACE)
        return state

    def _teller(self, coming: Update | None, release: Release) -> Callable[[int], None]:
        told_s, part = -TELL_S, self._store.part(release.digest)
        here = part.stat().st_size if part.exists() else 0

        def tell(came: int) -> None:
            nonlocal told_s, here
            self._heed()
            here += came
            if coming is not None and (now_s := time.monotonic()) >= told_s + TELL_S:
                told_s = now_s
                self._tell(replace(coming, share=min(here / max(release.size_bytes, 1), 1.0)))

        return tell

    def _stays(self, state: State, release: Release) -> Update:
        """The release runs already; what was on its way instead is given up."""
        if state.candidate is not None:
            reason = f"{release.name} {release.version}, which is active, was asked for."
            state = self._save(end(state, utc_now(), UpdateState.FAILED, code=Code.SUPERSEDED, reason=reason))
        self._store.sweep(state)
        told = Update(target=release.target, bundle=release, state=UpdateState.CONFIRMED, at=utc_now())
        self._tell(told)
        return told

    def _end(self, target: str, error: UpdateError) -> Update:
        """It comes no further; what is active goes on, and so does a candidate whose file is here already."""
        log.error("%s", error)
        state = self._store.state()
        told = Update(target=target, state=outcome_of(error.code), at=utc_now(), code=error.code, reason=str(error))
        coming = state.candidate
        if coming is not None and coming.target == target and coming.state not in HERE:
            state = end(state, told.at, told.state, code=error.code, reason=told.reason)
            told = state.last or told
        else:
            state = ended(state, told)
        try:
            self._save(state)
        except OSError as trouble:  # a disk that is full may not take even this: the state before holds, no worse
            log.error("%s cannot be written: %s", self._store.root, trouble.strerror)
        self._tell(told)
        return told

    def _unwritten(self, update: Update, error: OSError) -> Update:
        """Tell that the disk does not take what was decided. The state before holds."""
        no = disk_error(self._store.root, error)
        log.error("%s", no)
        told = replace(update, state=UpdateState.FAILED, at=utc_now(), code=no.code, reason=str(no))
        self._tell(told)
        return told

    def _told(self, state: State) -> Update:
        told = state.newest
        if told is None:
            raise StoreError("Nothing became of it.", mend="Report this as a bug.")
        self._tell(told)
        return told
