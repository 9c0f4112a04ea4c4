"""What a device decides about bundles. Pure: no clock, no socket, no file.

In: the `State` that holds, and what has happened.  Out: the `State` that is to hold. The store makes each one durable
before anything is done that relies on it, so a kill or a power cut at any moment finds a state from which the device
goes on. Every start of a self-test or a trial is counted before it begins: a bundle that takes the machine down with
it uses up its attempts.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from tinysight_contract.errors import UpdateError
from tinysight_contract.scalars import Digest, Time
from tinysight_contract.updates import Code, Gate, Release, Update, UpdateState
from tinysight_edge.update.signed import Requires

__all__ = [
    "MAX_ATTEMPTS",
    "SCHEMA",
    "Bad",
    "State",
    "attempt",
    "confirm",
    "end",
    "ended",
    "outcome_of",
    "progress",
    "project_of",
    "queue",
    "recover",
    "refusal",
    "roll_back",
    "spare",
    "tested",
]

SCHEMA: Final = 2
MAX_ATTEMPTS: Final = 3
"""Of a self-test, and of a trial. More than one: the first may have met a power cut that was not its fault."""
MAX_BAD: Final = 64
REJECTS: Final = frozenset(
    {
        Code.UNSIGNED, Code.TAMPERED, Code.TOO_OLD, Code.HARDWARE, Code.RUNTIME, Code.SCHEMA, Code.MALFORMED,
        Code.TOO_LARGE, Code.FAILED_BEFORE, Code.EXPIRED, Code.REPLAYED,
    }
)  # fmt: skip
"""What must not be installed; all else could not be."""


FAULTLESS: Final = frozenset({Code.SUPERSEDED, Code.TAMPERED, Code.DISK, Code.NO_SPACE})
"""Ends of which the bundle is not to blame: its file here is removed, and it may come again."""


class Bad(Struct, frozen=True, kw_only=True):
    """A bundle that failed here.

    Attributes:
        digest: of it.
        code: why.
    """

    digest: Digest
    code: Code


class State(Struct, frozen=True, kw_only=True):
    """All that a store has decided.

    Attributes:
        schema: of the file that holds this.
        active: what runs.
        previous: what ran before, kept to go back to.
        candidate: what is to run next, and how far it has come; null when there is none.
        needs: what the candidate needs of the machine that is to run it; null when that is not known.
        last: the newest that has ended, however.
        floor: by project, the highest release that was ever confirmed: none below it is installed.
        bad: what failed here.
        clock_floor: no time before this is believed.
    """

    schema: int = SCHEMA
    active: Release | None = None
    previous: Release | None = None
    candidate: Update | None = None
    needs: Requires | None = None
    last: Update | None = None
    floor: dict[str, int] = {}
    bad: list[Bad] = []
    clock_floor: Time | None = None

    @property
    def newest(self) -> Update | None:
        """What is to be told of updates: the one on its way, or the last that ended."""
        return self.candidate or self.last

    @property
    def wanted(self) -> set[str]:
        """Digests of the bundles that are kept."""
        coming = None if self.candidate is None else self.candidate.bundle
        return {each.digest for each in (self.active, self.previous, coming) if each is not None}


def project_of(target: str) -> str:
    """Whose key signs a target: the first level of its path."""
    return target.partition("/")[0]


def outcome_of(code: Code) -> UpdateState:
    """How a bundle ends that does not get as far as its self-test."""
    return UpdateState.REJECTED if code in REJECTS else UpdateState.FAILED


def refusal(state: State, release: Release, *, again: bool = False) -> UpdateError | None:
    """Why a signed release is not installed; None when it may be.

    Args:
        state: as it is.
        release: what is asked for.
        again: a person asks for it although it failed here before.
    """
    known = {each.digest: each.code for each in state.bad}
    if release.digest in known and not again:
        what = f"{release.name} {release.version} failed here before: {known[release.digest].value}."
        return UpdateError(what, mend="Release a mended one, or ask for it with --again.", code=Code.FAILED_BEFORE)
    floor = state.floor.get(project_of(release.target), 0)
    if release.release < floor:
        what = f"{release.name} {release.version} is release {release.release}; this device takes none below {floor}."
        mend = "Release the old content again under a higher number, or roll back with `tinysight store rollback`."
        return UpdateError(what, mend=mend, code=Code.TOO_OLD)
    return None


def queue(state: State, release: Release, now: datetime, *, needs: Requires | None = None) -> State:
    """A release that may be installed is to be. What was on its way is given up for it."""
    if state.candidate is not None:
        coming = state.candidate.bundle
        if coming is not None and coming.digest == release.digest:
            return state  # it goes on from where it is
        state = end(
            state, now, UpdateState.FAILED, code=Code.SUPERSEDED, reason="A newer wish came before it had ended."
        )
    fresh = Update(target=release.target, bundle=release, state=UpdateState.QUEUED, at=now)
    return replace(state, candidate=fresh, needs=needs)


def progress(state: State, now: datetime, to: UpdateState, *, moved_bytes: int = 0, why_full: str = "") -> State:
    """The candidate has come so far: downloading or verified."""
    told = replace(_coming(state), state=to, at=now, attempts=0)
    if to is UpdateState.VERIFIED:
        by = "" if not moved_bytes else "full" if why_full else "delta"
        told = replace(told, share=1.0, moved_bytes=moved_bytes, transfer=by, why_full=why_full)
    return replace(state, candidate=told)


def attempt(state: State, now: datetime) -> State:
    """The candidate's self-test or trial is about to begin; or it has begun too often, and the candidate ends.

    Make the new state durable before it begins.
    """
    coming = _coming(state)
    if coming.attempts >= MAX_ATTEMPTS:
        on_trial = coming.state is UpdateState.TRIAL
        outcome = UpdateState.ROLLED_BACK if on_trial else UpdateState.FAILED
        what = "trial" if on_trial else "self-test"
        why = (
            f"The device went down {MAX_ATTEMPTS} times during its {what}. Look into its log, and release a mended one."
        )
        return end(state, now, outcome, code=Code.CRASHED, reason=why)
    to = UpdateState.TRIAL if coming.state is UpdateState.TRIAL else UpdateState.SELFTEST
    return replace(state, candidate=replace(coming, state=to, at=now, attempts=coming.attempts + 1))


def spare(state: State) -> State:
    """The attempt that runs was broken off on purpose, as by the end of the agent: it does not count.

    A self-test for which that was said already is `verified` again, and stays as it is.
    """
    coming = _coming(state)
    if coming.state not in {UpdateState.SELFTEST, UpdateState.TRIAL}:
        return state
    to = UpdateState.TRIAL if coming.state is UpdateState.TRIAL else UpdateState.VERIFIED
    return replace(state, candidate=replace(coming, state=to, attempts=max(coming.attempts - 1, 0)))


def tested(state: State, gates: Mapping[str, Gate], now: datetime) -> State:
    """The candidate has passed its self-test: it comes on trial, or runs at once where nothing else does."""
    coming = _coming(state)
    told = replace(coming, state=UpdateState.TRIAL, at=now, attempts=0, gates={**coming.gates, **gates})
    state = replace(state, candidate=told)
    return state if state.active is not None else confirm(state, {}, now)


def confirm(state: State, gates: Mapping[str, Gate], now: datetime) -> State:
    """The candidate has stood its trial: it is active, and what was is kept to go back to."""
    coming = _coming(state)
    release = _bundle(coming)
    told = replace(coming, state=UpdateState.CONFIRMED, at=now, gates={**coming.gates, **gates})
    project = project_of(release.target)
    floor = {**state.floor, project: max(state.floor.get(project, 0), release.release)}
    same = state.active is not None and state.active.digest == release.digest
    return replace(
        state,
        active=release,
        previous=state.previous if same else state.active,
        candidate=None,
        needs=None,
        last=told,
        floor=floor,
        bad=[each for each in state.bad if each.digest != release.digest],
    )


def end(
    state: State,
    now: datetime,
    outcome: UpdateState,
    *,
    code: Code,
    reason: str,
    gates: Mapping[str, Gate] | None = None,
) -> State:
    """The candidate comes no further. What is active goes on."""
    coming = _coming(state)
    told = replace(coming, state=outcome, code=code, reason=reason, at=now, gates={**coming.gates, **(gates or {})})
    return _against(replace(state, candidate=None, needs=None, last=told), told)


def ended(state: State, told: Update) -> State:
    """Something that was asked for ended before it could become a candidate."""
    return replace(state, last=told)


def roll_back(state: State, now: datetime) -> State | None:
    """A person wants what ran before; None when there is nothing to go back to.

    What is left is not installed again unless a person asks for it.
    """
    left, back = state.active, state.previous
    if left is None or back is None:
        return None
    if state.candidate is not None:
        state = end(state, now, UpdateState.FAILED, code=Code.SUPERSEDED, reason="It was given up for a roll-back.")
    reason = f"A person went back to {back.name} {back.version}."
    told = Update(
        target=left.target, bundle=left, state=UpdateState.ROLLED_BACK, at=now, code=Code.OPERATOR, reason=reason
    )
    return _against(replace(state, active=back, previous=left, last=told), told)


def recover(state: State, now: datetime, *, whole: set[str]) -> State:
    """The active bundle's file is lost: what ran before is active, or nothing is.

    Args:
        state: as it is.
        now: the present time.
        whole: digests of the bundles whose files are right.
    """
    lost = state.active
    if lost is None or lost.digest in whole:
        return state
    back = state.previous if state.previous is not None and state.previous.digest in whole else None
    reason = "Its file was damaged on the disk. Flash it again, and look after the disk."
    told = Update(
        target=lost.target, bundle=lost, state=UpdateState.ROLLED_BACK, at=now, code=Code.TAMPERED, reason=reason
    )
    return replace(state, active=back, previous=None, last=told)


def _against(state: State, told: Update) -> State:
    """Remember what failed here: it is not tried again unless a person asks for it."""
    failed = told.attempts > 0 and told.code not in FAULTLESS
    if told.bundle is None or told.code is None or not (failed or told.code is Code.OPERATOR):
        return state
    others = [each for each in state.bad if each.digest != told.bundle.digest]
    return replace(state, bad=[*others, Bad(digest=told.bundle.digest, code=told.code)][-MAX_BAD:])


def _coming(state: State) -> Update:
    if state.candidate is None:
        raise ValueError("there is no candidate")
    return state.candidate


def _bundle(update: Update) -> Release:
    if update.bundle is None:
        raise ValueError("nothing is known of the candidate")
    return update.bundle
