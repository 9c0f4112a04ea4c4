"""The agent's updates, in a thread of their own: the self-test, the trial, and what the operator asks for.

In: ``state.json``, whoever writes it, and the desired state.  Out: the model that sees is the one that is active, or
the candidate on its trial; each step is decided in the store before anything relies on it, and told in ``reported``.
All waiting for disks and networks is done here. What runs never waits for this, and goes on when it fails.

`update` decides what is to become of a bundle, `wish` what becomes of the operator's; `fetch` and `installer` bring it
in and test it, `tryout` gives it its trial, `swap` changes the model.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec.structs import replace

from tinysight_contract.errors import StoreError, TinySightError
from tinysight_contract.messages import DesiredState, utc_now
from tinysight_contract.updates import Code, Release, Update, UpdateState
from tinysight_edge.store import Store
from tinysight_edge.update.body import Body, Off, Otherwise
from tinysight_edge.update.fetch import Fetcher
from tinysight_edge.update.installer import HERE, UNTESTED, Installer
from tinysight_edge.update.report import is_worth_telling
from tinysight_edge.update.starting import forgive, scheme_for
from tinysight_edge.update.trial import Outcome
from tinysight_edge.update.troubles import AGAIN_S, Troubles, told_of
from tinysight_edge.update.tryout import Tryout
from tinysight_edge.update.update import State, attempt, confirm, end
from tinysight_edge.update.window import Hours
from tinysight_edge.update.wish import Answer, Standing, Wish, answer, has_begun, pause_s

__all__ = ["Updater"]

log = logging.getLogger(__name__)

TURN_S: Final = 0.5
END_WITHIN_S: Final = 1.0


class Updater:
    """Keeps what runs as the store wants it, and the store as the operator does.

    Args:
        store: whose active bundle runs.
        body: the agent.
    """

    def __init__(self, store: Store, body: Body) -> None:
        self._store, self._body = store, body
        self._off = threading.Event()
        self._thread = threading.Thread(target=self._live, name="updates", daemon=True)
        self._seen: tuple[int, ...] = ()
        self._state = State()
        self._standing = Standing()
        self._hours = Hours(body.synced)
        self._fetcher = Fetcher(lambda: body.config().update, body.wish, self._heed, may=self._may)
        self._coming: Update | None = None
        self._told_s = 0.0
        self._troubles = Troubles(store)
        self._unfit: tuple[str, str] | None = None  # the digest of what is active and cannot run, and why
        self._unfit_times, self._unfit_s = 0, 0.0

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End. An attempt that was broken off by this does not count."""
        self._off.set()
        self._body.swapper.close()
        if self._thread.is_alive():
            self._thread.join(END_WITHIN_S)

    # Everything below runs in the updates' own thread.

    def _live(self) -> None:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._store.run())
            except OSError as error:
                log.warning("%s cannot be written: %s", self._store.root, error.strerror)
            wait_s = 0.0
            while not self._off.wait(wait_s):
                wait_s = TURN_S
                try:
                    self._turn()
                    self._troubles.clear()
                except Off:
                    return
                except Otherwise:
                    continue
                except (TinySightError, OSError) as error:
                    self._complain(error)
                except Exception:  # what runs goes on; a minute later it is tried again
                    log.exception("An update broke; report this as a bug.")
                    wait_s = AGAIN_S

    def _turn(self) -> None:
        """One look: the most urgent thing is done."""
        state = self._look()
        coming, active, is_over = state.candidate, state.active, self._is_over()
        if active is not None and self._is_to_follow(active):
            self._follow(active)
        elif coming is not None and coming.bundle is not None and is_over:
            self._give_up(coming.bundle)
        elif coming is not None and self._waits(coming):
            self._tell()
        elif coming is not None and coming.bundle is not None and coming.state in UNTESTED:
            self._tell()
            self._test(coming.bundle)
        elif coming is not None and coming.bundle is not None and coming.state is UpdateState.TRIAL:
            self._tell()
            self._try(coming.bundle)
        else:
            self._tell()
            self._fetch()

    def _look(self) -> State:
        """What is decided, read again when it has changed."""
        seen: tuple[int, ...] = ()
        with contextlib.suppress(OSError):
            found = (self._store.root / "state.json").stat()
            seen = found.st_ino, found.st_mtime_ns, found.st_size
        if seen != self._seen or not seen:
            self._state, self._seen = self._store.state(), seen
        return self._state

    def _tell(self, coming: Update | None = None) -> None:
        """Say how it stands; ``coming`` is newer than what is decided."""
        state, wish, swapper = self._state, self._body.wish(), self._body.swapper
        self._coming = coming
        active = None if state.active is None else state.active.digest
        if self._unfit is not None and self._unfit[0] == active:
            active = (swapper.back or swapper.seer).bundle.digest
        answered = None if wish is None else self._answer(wish)
        self._body.told(active, coming or state.newest, answered)
        self._body.alert(self._alert(wish, answered))

    def _alert(self, wish: Wish | None, answered: Answer | None) -> str | None:
        """What is wrong with the store, with what is active, or with what was to follow it."""
        if (closed := self._troubles.closed()) is not None or self._unfit is not None:
            return closed or (self._unfit[1] if self._unfit is not None else None)
        if (trouble := self._troubles.lasting()) is not None:
            return trouble
        if answered is not None and answered.state is DesiredState.APPLIED:
            return None
        tried = None if wish is None or self._state.candidate is not None else self._fetcher.tried(wish)
        return told_of(tried or self._state.last)

    def _complain(self, error: Exception) -> None:
        if (what := self._troubles.note(error)) is not None:
            self._body.alert(what)

    def _answer(self, wish: Wish) -> Answer:
        repository, tried = self._body.config().update.repository, self._fetcher.tried(wish)
        opening = self._hours.opening(wish.digest, wish.window)
        return answer(wish, self._state, repository=repository, tried=tried, unfit=self._unfit, opening=opening)

    def _may(self, wish: Wish) -> bool:
        """Whether it is within its window."""
        return self._hours.opening(wish.digest, wish.window).due_at is None

    def _waits(self, coming: Update) -> bool:
        """Whether a candidate that is here, and that the operator wishes for, waits for its window."""
        wish = self._body.wish()
        if wish is None or coming.bundle is None or coming.bundle.digest != wish.digest or coming.state not in HERE:
            return False
        return not has_begun(coming) and not self._may(wish)

    def _progress(self, update: Update) -> None:
        """A step of a fetch or a test."""
        now_s = time.monotonic()
        if is_worth_telling(self._coming, update, now_s - self._told_s):
            self._told_s = now_s
            self._look()
            self._tell(update)

    def _heed(self) -> None:
        if self._off.is_set():
            raise Off

    def _pause(self, seconds: float) -> None:
        if self._off.wait(seconds):
            raise Off

    def _is_over(self) -> bool:
        """Whether the operator wishes for something else than the candidate."""
        coming, wish = self._state.candidate, self._body.wish()
        digest = None if coming is None or coming.bundle is None else coming.bundle.digest
        vain = wish is not None and self._answer(wish).state in {DesiredState.REFUSED, DesiredState.ROLLED_BACK}
        return self._standing.is_over(digest, wish, vain=vain)

    def _still(self, release: Release) -> None:
        """Whether it is the candidate yet, and wanted.

        Raises:
            Otherwise: it is not.
            Off: the agent ends.
        """
        self._heed()
        coming = self._look().candidate
        if coming is None or coming.bundle is None or coming.bundle.digest != release.digest or self._is_over():
            raise Otherwise

    def _give_up(self, release: Release) -> None:
        """The candidate makes room for what the operator wishes for now."""
        why = "It is not asked for any more." if self._body.wish() is None else "Another bundle was asked for since."
        log.info("%s %s: %s", release.name, release.version, why)
        self._decide(release, lambda each: end(each, utc_now(), UpdateState.FAILED, code=Code.SUPERSEDED, reason=why))

    def _installer(self, heed: Callable[[], None]) -> Installer:
        from tinysight_edge.update.selftest import Limits  # noqa: PLC0415 -- the agent starts without

        wanted = self._body.config().update
        limits = Limits(memory_mib=wanted.memory // 2**20, max_slowdown=wanted.max_slowdown)
        synced = self._body.synced() is True
        return Installer(self._store, limits=limits, tell=self._progress, heed=heed, synced=synced)

    def _decide(self, release: Release, change: Callable[[State], State]) -> State:
        """Write a change of the candidate down; tried until the disk takes it.

        Raises:
            Otherwise: the candidate is another by now.
        """
        while True:
            try:
                with self._store.alone():
                    state = self._store.state()
                    coming = state.candidate
                    if coming is None or coming.bundle is None or coming.bundle.digest != release.digest:
                        raise Otherwise
                    state = change(state)
                    self._store.save(state)
                    self._store.sweep(state)
                    break
            except (OSError, StoreError) as error:
                self._complain(error)
                self._pause(1.0)
        self._troubles.clear()
        self._look()
        self._tell()
        return self._state

    def _is_to_follow(self, active: Release) -> bool:
        if active.digest == self._body.swapper.seer.bundle.digest:
            self._unfit, self._unfit_times = None, 0
            return False
        known = self._unfit is not None and self._unfit[0] == active.digest
        return not known or time.monotonic() >= self._unfit_s

    def _follow(self, active: Release) -> None:
        """Somebody has made another bundle active, as by going back: it sees from now on."""
        swapper, name = self._body.swapper, " ".join(_names(active))
        if self._unfit is None:
            log.info("%s is active now", name)
        try:
            swapper.swap(swapper.load(self._store.open(active), self._body.config().model, heed=self._heed))
            swapper.settle()
            self._unfit, self._unfit_times = None, 0
        except (TinySightError, MemoryError) as error:
            self._heed()
            why = str(error) or "There is no room for it beside the one that sees. Take a smaller model."
            other = swapper.seer.bundle.manifest
            told = f"{name} is active and cannot run: {why} {other.name} {other.version} runs instead."
            if self._unfit != (active.digest, told):
                log.error("%s", told)
            self._unfit, self._unfit_times = (active.digest, told), self._unfit_times + 1
            self._unfit_s = time.monotonic() + pause_s(self._unfit_times, 0.5)
        self._tell()

    def _test(self, release: Release) -> None:
        model = self._body.config().model
        scheme = scheme_for(self._store, release, model)
        try:
            told = self._installer(partial(self._still, release)).test(scheme=scheme, threads=model.threads)
            if told is not None and told.code is not None and self._look().candidate is not None:  # it waits, and this
                self._pause(AGAIN_S)
        except (Off, Otherwise):
            forgive(self._store, release)
            raise
        self._look()
        self._tell()

    def _try(self, release: Release) -> None:
        """The candidate sees the real cameras, and is judged."""
        still = partial(self._still, release)

        def turn() -> None:
            self._pause(TURN_S)
            still()

        tryout = Tryout(self._body, heed=still, turn=turn)
        before = tryout.before()
        state = self._decide(release, lambda each: attempt(each, utc_now()))
        if state.candidate is None:
            return
        log.info("%s %s is on trial", *_names(release))
        try:
            outcome = tryout.stand(release, self._store.open, before)
            if outcome.code is not None:
                try:
                    self._body.swapper.go_back()
                finally:  # what does not go back now follows what is active, which this decides
                    self._decide(release, lambda each: _ended(each, outcome))
            else:
                still()
                self._decide(release, lambda each: _confirmed(each, outcome))
        except Off:
            forgive(self._store, release)
            raise
        except Otherwise:
            self._body.swapper.go_back()
            forgive(self._store, release)
            raise
        log.info("%s %s: %s", *_names(release), outcome.reason or "it has stood its trial")

    def _fetch(self) -> None:
        """Bring in what the operator asks for, if it is due."""
        wish = self._body.wish()
        if not self._fetcher.is_due(wish) or wish is None or not self._answer(wish).fetch:
            return
        self._standing.wished(wish.digest)
        self._fetcher.fetch(wish, self._installer)
        self._look()
        self._tell()


def _names(release: Release) -> tuple[str, str]:
    return release.name, release.version


def _confirmed(state: State, outcome: Outcome) -> State:
    """It has stood its trial; said is what of it could not be judged."""
    state = confirm(state, outcome.gates, utc_now())
    return state if state.last is None else replace(state, last=replace(state.last, reason=outcome.reason))


def _ended(state: State, outcome: Outcome) -> State:
    """It has not stood its trial."""
    code = outcome.code or Code.BROKE
    return end(state, utc_now(), UpdateState.ROLLED_BACK, code=code, reason=outcome.reason, gates=outcome.gates)
