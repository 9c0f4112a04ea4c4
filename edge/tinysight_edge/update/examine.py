"""Have a candidate pass its self-test, and decide what becomes of it: what is saved before, and after.

In: the store's `State` with a candidate that waits.  Out: the `State` that was saved. An attempt is saved before it
begins; one that was broken off on purpose, or that the device had no means for, does not count.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinysight_contract.errors import UpdateError
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Code, Release, Update, UpdateState
from tinysight_edge.store import Store
from tinysight_edge.update.update import State, attempt, end, outcome_of, spare, tested

if TYPE_CHECKING:
    from tinysight_edge.update.selftest import Limits
    from tinysight_edge.update.signed import Machine

__all__ = ["Work", "examine"]


@dataclass(frozen=True, slots=True)
class Work:
    """What a test works with.

    Attributes:
        store: held by the caller.
        machine: what this device is; None to find out.
        limits: of the self-test; None for the usual ones.
        tell: hears that it begins.
        heed: called often; what it raises breaks off.
    """

    store: Store
    machine: "Machine | None"
    limits: "Limits | None"
    tell: Callable[[Update], None]
    heed: Callable[[], None]


def examine(work: Work, state: State, release: Release, *, scheme: str | None, threads: int) -> State:
    """Test the candidate: what is saved then.

    Raises:
        UpdateError: it cannot be tested now; that does not count.
        OSError: what was found cannot be saved.
    """
    store = work.store
    if store.owed is not None and store.owed[0] == state:
        return _paid(store, *store.owed)  # it was tested, and the disk did not take what was found
    if (no := _lost(store, release) or _misfit(work, state, release)) is not None:
        return _saved(store, end(state, utc_now(), outcome_of(no.code), code=no.code, reason=str(no)))
    state = _saved(store, attempt(state, utc_now()))
    if state.candidate is None:
        return state
    work.tell(state.candidate)
    try:
        found = _found(work, state, release, scheme=scheme, threads=threads)
    except UpdateError as error:
        if error.code is not Code.SUPERSEDED:
            store.save(spare(state))
            raise
        found = end(state, utc_now(), outcome_of(error.code), code=error.code, reason=str(error))
    except BaseException:  # the agent ends, or a person breaks it off
        with suppress(OSError):
            store.save(spare(state))
        raise
    return _paid(store, state, found)


def _found(work: Work, state: State, release: Release, *, scheme: str | None, threads: int) -> State:
    """Run the self-test: what it makes of the candidate."""
    from tinysight_edge.update.selftest import Limits, run_selftest  # noqa: PLC0415 -- the agent starts without

    found = run_selftest(
        work.store.path(release.digest),
        active=None if state.active is None else work.store.path(state.active.digest),
        limits=work.limits or Limits(),
        scheme=scheme,
        threads=threads,
        heed=work.heed,
    )
    if found.code is None:
        return tested(state, found.gates, utc_now())
    return end(state, utc_now(), UpdateState.FAILED, code=found.code, reason=found.reason, gates=found.gates)


def _lost(store: Store, release: Release) -> UpdateError | None:
    """That the candidate's file is not what came any more, of which the bundle is not to blame; or None."""
    if store.is_whole(release.digest):
        return None
    what = f"The file of {release.name} {release.version} was damaged on the disk."
    return UpdateError(what, mend="Flash it again, and look after the disk.", code=Code.TAMPERED)


def _misfit(work: Work, state: State, release: Release) -> UpdateError | None:
    """Why this machine is not what the candidate needs, or None."""
    from tinysight_edge.update.offered import misfit  # noqa: PLC0415 -- the agent starts without

    return None if state.needs is None else misfit(release, state.needs, work.machine)


def _saved(store: Store, state: State) -> State:
    store.save(state)
    return state


def _paid(store: Store, state: State, found: State) -> State:
    store.owed = state, found
    store.save(found)
    store.owed = None
    return found
