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
from tinysight_edge.update.examine import Work, examine
from tinysight_edge.update.sources import disk_error
from tinysight_edge.update.update import (
    State,
    confirm,
    end,
    ended,
    outcome_of,
    progress,
    queue,
    refusal,
)

if TYPE_CHECKING:
    from tinysight_edge.update.selftest import Limits
    from tinysight_edge.update.signed import Machine
    from tinysight_edge.update.sources import Budget, Source
    from tinysight_edge.update.trust import Offer

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
        self._tell, self._own_heed, self._synced = tell, heed, synced

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
            coming = Update(target=target, state=UpdateState.FAILED, at=utc_now())
            return self._not_now(coming, disk_error(self._store.root, error))

    def _install(
        self, source: "Source", target: str, *, digest: str | None, again: bool, here: bool, budget: "Budget | None"
    ) -> Update:
        """See install.

        Raises:
            UpdateError: it comes no further.
            OSError: the disk is full or broken.
        """
        from tinysight_edge.update.offered import ask, misfit  # noqa: PLC0415 -- the agent starts without

        store, state = self._store, self._store.state()
        offer, state = ask(store, source, target, digest=digest, state=state, synced=self._synced)
        release, needs = offer.release, offer.signed.requires
        if state.active is not None and state.active.digest == release.digest:
            if self._store.is_whole(release.digest):
                return self._stays(state, release)
        elif (no := refusal(state, release, again=again)) is not None:
            raise no
        if here and (no := misfit(release, needs, self._machine)) is not None:
            raise no
        state = self._save(queue(state, release, utc_now(), needs=needs))
        return self._told(self._bring(source, offer, state, budget))

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
                if coming is None or coming.bundle is None or coming.state not in UNTESTED:
                    return None
                work = Work(self._store, self._machine, self._limits, self._tell, self._heed)
                state = examine(work, state, coming.bundle, scheme=scheme, threads=threads)
                self._store.sweep(state)
                return self._told(state)
        except UpdateError as error:  # it could not be tested, and still waits
            return self._not_now(coming, error)
        except OSError as error:
            if coming is None:
                what = f"{self._store.root} cannot be written: {error.strerror or error}."
                raise StoreError(what, mend="Check its rights and free space.") from error
            return self._not_now(coming, disk_error(self._store.root, error))

    def _heed(self) -> None:
        """Look whether to go on.

        Raises:
            UpdateError: SUPERSEDED, a person waits to go back.
        """
        self._own_heed()
        if self._store.is_wanted_back():
            what = "It was given up, since a person goes back to the bundle before."
            raise UpdateError(what, mend="Ask for it again if it is still wanted.", code=Code.SUPERSEDED)

    def _save(self, state: State) -> State:
        self._store.save(state)
        return state

    def _bring(self, source: "Source", offer: "Offer", state: State, budget: "Budget | None") -> State:
        """Have the candidate's file in the store.

        Raises:
            UpdateError: it cannot be had, or is something else.
            OSError: the disk is full or broken.
        """
        from tinysight_edge.update.sources import Budget  # noqa: PLC0415 -- the agent starts without
        from tinysight_edge.update.transfer import Moved, bring, make_room  # noqa: PLC0415 -- the agent starts without

        moved, release = Moved(0, ""), offer.release
        if self._store.is_whole(release.digest):
            if state.candidate is not None and state.candidate.state in HERE:
                return state  # else a bundle that brings the device down would never use up its attempts
        else:
            state = make_room(self._store, state, release)
            state = self._save(progress(state, utc_now(), UpdateState.DOWNLOADING))
            tell = self._teller(state.candidate, release)
            active = state.active
            moved = bring(self._store, source, offer, active=active, budget=budget or Budget(), tell=tell)
        state = self._save(
            progress(state, utc_now(), UpdateState.VERIFIED, moved_bytes=moved.size_bytes, why_full=moved.why_full)
        )
        self._store.sweep(state)
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
        told = Update(target=release.target, bundle=release, state=UpdateState.CONFIRMED, at=utc_now())
        if state.candidate is not None:
            reason = f"{release.name} {release.version}, which is active, was asked for."
            state = end(state, told.at, UpdateState.FAILED, code=Code.SUPERSEDED, reason=reason)
        if state.last is None or state.last.code is not None or state.last.bundle != release:
            self._save(ended(state, told))  # what went wrong before is no trouble any more
        self._store.sweep(state)
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

    def _not_now(self, coming: Update | None, no: UpdateError) -> Update:
        """Tell what the device cannot do now. What was decided before holds."""
        if coming is None:
            raise no
        log.error("%s", no)
        told = replace(coming, state=UpdateState.FAILED, at=utc_now(), code=no.code, reason=str(no))
        self._tell(told)
        return told

    def _told(self, state: State) -> Update:
        told = state.newest
        if told is None:
            raise StoreError("Nothing became of it.", mend="Report this as a bug.")
        self._tell(told)
        return told
