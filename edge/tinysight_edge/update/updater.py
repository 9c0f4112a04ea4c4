"""The agent's updates, in a thread of their own: the self-test, the trial, and what the operator asks for.

In: ``state.json``, whoever writes it, and the desired state.  Out: the model that sees is the one that is active, or
the candidate on its trial; each step is decided in the store before anything relies on it, and told in ``reported``.
All waiting for disks and networks is done here. What runs never waits for this, and goes on when it fails.

`update` decides what is to become of a bundle, `installer` fetches and tests it, `swap` changes the model, `trial`
judges it, `wish` says what becomes of the operator's wish.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tinysight_contract.errors import ConfigError, DeviceError, InferenceError, StoreError, TinySightError
from tinysight_contract.messages import DesiredState, utc_now
from tinysight_contract.updates import Code, Gate, Release, Update, UpdateState
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.store import Store
from tinysight_edge.update.installer import UNTESTED, Installer
from tinysight_edge.update.shadow import Shadow, comparable
from tinysight_edge.update.swap import Swapper
from tinysight_edge.update.trial import Before, Outcome, Pulse, Rules, Trial
from tinysight_edge.update.update import State, attempt, confirm, end, spare
from tinysight_edge.update.wish import Answer, Wish, answer, pause_s
from tinysight_edge.view import Seer

__all__ = ["Body", "Updater"]

log = logging.getLogger(__name__)

TURN_S: Final = 0.5
AGAIN_S: Final = 60.0
"""After something that should not fail did."""
BEFORE_S: Final = 20.0
"""So long is waited at most for figures of the model that sees before another one is tried."""
PROGRESS_S: Final = 5.0
END_WITHIN_S: Final = 1.0


class _Off(Exception):  # noqa: N818 -- no error: the agent ends
    """`Updater.stop` was called."""


class _Otherwise(Exception):  # noqa: N818 -- no error: somebody has decided otherwise
    """The candidate is none any more, or the wish is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What is needed of the agent. All may be called from any thread.

    Attributes:
        config: what holds now.
        swapper: changes the model.
        pulse: of the model that sees.
        came: by camera, pictures that were handed over to be seen.
        shadow: sets who is offered frames beside; None for nobody.
        wish: what the operator asks for; None when no bundle is.
        told: the active bundle, what became of the newest one, what became of the wish.
        alert: what is wrong, or None.
        synced: whether the clock is known to be right.
    """

    config: Callable[[], AgentConfig]
    swapper: Swapper
    pulse: Callable[[], Pulse]
    came: Callable[[], Mapping[str, int]]
    shadow: Callable[[Shadow | None], None]
    wish: Callable[[], Wish | None]
    told: Callable[[str | None, Update | None, Answer | None], None]
    alert: Callable[[str | None], None]
    synced: Callable[[], bool | None]


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
        self._tried: dict[Wish, tuple[Update, int, float]] = {}  # how it ended, how often, when to try again
        self._coming: Update | None = None
        self._told_s = 0.0
        self._trouble = ""
        self._unfit = "", 0.0  # what is active and cannot run, and when that is tried again

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
                log.warning("%s cannot be written, so nothing new is taken in: %s", self._store.root, error.strerror)
            wait_s = 0.0
            while not self._off.wait(wait_s):
                wait_s = TURN_S
                try:
                    self._turn()
                    self._trouble = ""
                except _Off:
                    return
                except _Otherwise:
                    continue
                except (TinySightError, OSError) as error:
                    if str(error) != self._trouble:  # such as a store that somebody else holds for a while
                        self._trouble = str(error)
                        log.warning("updates: %s", error)
                except Exception:
                    log.exception("An update broke; report this as a bug.")
                    wait_s = AGAIN_S

    def _turn(self) -> None:
        """One look: the most urgent thing is done."""
        state = self._look()
        self._tell()
        coming, active = state.candidate, state.active
        if active is not None and self._is_to_follow(active):
            self._follow(active)
        elif coming is not None and coming.bundle is not None and coming.state in UNTESTED:
            self._test()
        elif coming is not None and coming.bundle is not None and coming.state is UpdateState.TRIAL:
            self._try(coming.bundle)
        else:
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
        state, wish = self._state, self._body.wish()
        self._coming = coming
        active = None if state.active is None else state.active.digest
        answered = None if wish is None else self._answer(wish)
        self._body.told(active, coming or state.newest, answered)
        as_wished = answered is not None and answered.state is DesiredState.APPLIED
        self._body.alert(None if as_wished else _alert(state.last))

    def _answer(self, wish: Wish) -> Answer:
        tried = self._tried.get(wish)
        repository = self._body.config().update.repository
        return answer(wish, self._state, repository=repository, tried=None if tried is None else tried[0])

    def _progress(self, update: Update) -> None:
        """A step of a fetch or a test: a new state at once, more of the same now and then."""
        now_s = time.monotonic()
        if self._coming is None or self._coming.state is not update.state or now_s >= self._told_s + PROGRESS_S:
            self._told_s = now_s
            self._look()
            self._tell(update)

    def _heed(self) -> None:
        if self._off.is_set():
            raise _Off

    def _pause(self, seconds: float) -> None:
        if self._off.wait(seconds):
            raise _Off

    def _installer(self, heed: Callable[[], None]) -> Installer:
        from tinysight_edge.update.selftest import Limits  # noqa: PLC0415 -- the agent starts without

        wanted = self._body.config().update
        limits = Limits(memory_mib=wanted.memory // 2**20, max_slowdown=wanted.max_slowdown)
        synced = self._body.synced() is True
        return Installer(self._store, limits=limits, tell=self._progress, heed=heed, synced=synced)

    def _decide(self, release: Release, change: Callable[[State], State]) -> State:
        """Write a change of the candidate down; tried until the disk takes it.

        Raises:
            _Otherwise: the candidate is another by now.
        """
        while True:
            try:
                with self._store.alone():
                    state = self._store.state()
                    coming = state.candidate
                    if coming is None or coming.bundle is None or coming.bundle.digest != release.digest:
                        raise _Otherwise
                    state = change(state)
                    self._store.save(state)
                    self._store.sweep(state)
                    break
            except (OSError, StoreError) as error:
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    log.warning("what became of %s %s cannot be written yet: %s", release.name, release.version, error)
                self._pause(1.0)
        self._look()
        self._tell()
        return self._state

    def _is_to_follow(self, active: Release) -> bool:
        known, again_s = self._unfit
        waits = known == active.digest and time.monotonic() < again_s
        return active.digest != self._body.swapper.seer.bundle.digest and not waits

    def _follow(self, active: Release) -> None:
        """Somebody has made another bundle active, as by going back: it sees from now on."""
        log.info("%s %s is active now", active.name, active.version)
        swapper = self._body.swapper
        try:
            swapper.swap(swapper.load(self._store.open(active), self._body.config().model, heed=self._heed))
            swapper.settle()
        except (TinySightError, MemoryError) as error:
            self._heed()
            log.error("%s %s is active and cannot run: %s", active.name, active.version, error)
            self._unfit = active.digest, time.monotonic() + AGAIN_S

    def _test(self) -> None:
        model = self._body.config().model
        try:
            told = self._installer(self._heed).test(scheme=model.scheme, threads=model.threads)
            if told is not None and told.code in {Code.NO_SPACE, Code.DISK}:  # it still waits, and so does this
                self._pause(AGAIN_S)
        except _Off:
            self._spare()
            raise
        self._look()
        self._tell()

    def _spare(self) -> None:
        """The attempt that was begun does not count: the agent was told to end."""
        with contextlib.suppress(StoreError, OSError), self._store.alone():
            state = self._store.state()
            if state.candidate is not None and state.candidate.attempts:
                self._store.save(spare(state))

    def _try(self, release: Release) -> None:
        """The candidate sees the real cameras, and is judged."""
        before = self._before(release)
        state = self._decide(release, lambda each: attempt(each, utc_now()))
        if state.candidate is None:
            return
        log.info("%s %s is on trial", release.name, release.version)
        try:
            outcome = self._stand(release, before)
            if outcome.code is not None:
                self._body.swapper.go_back()
                self._decide(release, lambda each: _ended(each, outcome))
            else:
                self._decide(release, lambda each: confirm(each, outcome.gates, utc_now()))
        except _Off:
            self._spare()
            raise
        except _Otherwise:
            self._body.swapper.go_back()
            raise
        log.info("%s %s: %s", release.name, release.version, outcome.reason or "it has stood its trial")

    def _before(self, release: Release) -> Before:
        """How the model that sees does; waits a while until that is known."""
        until_s = time.monotonic() + BEFORE_S
        while (p95_ms := self._body.pulse().p95_ms) is None and time.monotonic() < until_s:
            self._pause(TURN_S)
            self._still(release)
        return Before(cameras=self._body.pulse().cameras(time.monotonic()), p95_ms=p95_ms)

    def _still(self, release: Release) -> None:
        """Whether it is the candidate yet.

        Raises:
            _Otherwise: it is not.
        """
        coming = self._look().candidate
        if coming is None or coming.bundle is None or coming.bundle.digest != release.digest:
            raise _Otherwise

    def _stand(self, release: Release, before: Before) -> Outcome:
        wanted, swapper = self._body.config().update, self._body.swapper
        rules = Rules(over_s=wanted.trial, max_slowdown=wanted.max_slowdown, min_agreement=wanted.min_agreement)
        gates: dict[str, Gate] = {}
        try:
            seer = swapper.load(self._store.open(release), self._body.config().model, heed=self._heed)
            if wanted.shadow:
                outcome = self._compare(release, seer, rules, every=wanted.shadow)
                if outcome.code is not None:
                    return outcome
                gates = outcome.gates
        except StoreError as error:  # its file, which was right when it came, is not any more
            return Outcome(gates, Code.TAMPERED, str(error))
        except MemoryError:
            return Outcome(
                gates, Code.MEMORY, "There is no room for it beside the one that sees. Take a smaller model."
            )
        except TinySightError as error:
            return Outcome(gates, Code.BROKE, str(error))
        try:
            swapper.swap(seer, keep=True)
        except ConfigError as error:
            return Outcome(gates, Code.BROKE, str(error))
        except DeviceError:
            self._heed()  # the agent has ended
            raise
        del seer  # it is the swapper's, to let go of
        trial = Trial(rules, before, time.monotonic())
        while True:
            self._pause(TURN_S)
            self._still(release)
            failure = None if swapper.failure is None else swapper.failure.what
            now_s = time.monotonic()
            outcome_ = trial.judge(self._body.pulse(), self._body.came(), now_s, failure=failure)
            if outcome_ is None:
                continue
            if outcome_.code is None:
                try:
                    swapper.settle()
                except InferenceError:
                    continue  # it failed just now
            return Outcome({**gates, **outcome_.gates}, outcome_.code, outcome_.reason)

    def _compare(self, release: Release, new: Seer, rules: Rules, *, every: int) -> Outcome:
        """Let it see some frames beside the one that sees, for as long as its trial takes."""
        now = self._body.swapper.seer
        if not comparable(now, new):
            log.info("%s %s has another task than the one that sees, so they are not compared", *_names(release))
            return Outcome()
        shadow = Shadow(now, new, self._body.config().cameras, every=every)
        until_s = time.monotonic() + rules.over_s
        self._body.shadow(shadow)
        try:
            while time.monotonic() < until_s:
                shadow.work(TURN_S)
                self._heed()
                self._still(release)
        finally:
            self._body.shadow(None)
        return shadow.agreement.judge(rules)

    def _fetch(self) -> None:
        """Bring in what the operator asks for, if it is due."""
        wish = self._body.wish()
        self._tried = {each: known for each, known in self._tried.items() if each == wish}
        if wish is None or wish.target is None or not self._answer(wish).fetch:
            return
        _, failures, due_s = self._tried.get(wish, (None, 0, 0.0))
        wanted = self._body.config().update
        if wanted.repository is None or time.monotonic() < due_s:
            return
        from tinysight_edge.update.sources import open_source  # noqa: PLC0415 -- the agent starts without

        def heed() -> None:
            self._heed()
            if self._body.wish() != wish:
                raise _Otherwise

        def wait(seconds: float) -> None:
            until_s = time.monotonic() + seconds
            while (left_s := until_s - time.monotonic()) > 0:
                heed()
                self._off.wait(min(left_s, TURN_S))

        source = open_source(wanted.repository, ca=wanted.ca_file, wait=wait)
        told = self._installer(heed).install(source, wish.target, digest=wish.digest)
        if told.code is not None:
            pause = pause_s(failures + 1, random.random())  # noqa: S311 -- it keeps devices apart, no more
            self._tried[wish] = told, failures + 1, time.monotonic() + pause
        self._look()
        self._tell()


def _names(release: Release) -> tuple[str, str]:
    return release.name, release.version


def _ended(state: State, outcome: Outcome) -> State:
    """It has not stood its trial."""
    code = outcome.code or Code.BROKE
    return end(state, utc_now(), UpdateState.ROLLED_BACK, code=code, reason=outcome.reason, gates=outcome.gates)


def _alert(last: Update | None) -> str | None:
    """What stands until the next success, or until no more is wished for; what a person did himself is no trouble."""
    if last is None or last.code in {None, Code.OPERATOR, Code.SUPERSEDED}:
        return None
    name = last.target if last.bundle is None else " ".join(_names(last.bundle))
    return f"{name}: {last.state.value} ({last.code}): {last.reason}"
