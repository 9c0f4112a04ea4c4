"""What becomes of the bundle that the operator asks for. Pure.

In: the `Wish`, and what the store has decided.  Out: an `Answer` for ``reported``, and whether it is to be fetched.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from tinysight_contract.messages import DesiredState
from tinysight_contract.updates import Code, Update, UpdateState
from tinysight_edge.update.update import State
from tinysight_edge.update.window import AT_ONCE, Opening

__all__ = ["NO_REPOSITORY", "Answer", "Standing", "Wish", "answer", "has_begun", "pause_s", "refused"]

NO_REPOSITORY: Final = (
    "This agent fetches no bundles. Write `repository` under [update] of its file, or use `tinysight flash`."
)
NO_TARGET: Final = "It is not said where the bundle is. Ask for it with its `target` in the repository."
FINAL: Final = frozenset(
    {
        Code.TOO_OLD, Code.HARDWARE, Code.RUNTIME, Code.SCHEMA, Code.FAILED_BEFORE, Code.CRASHED, Code.HUNG,
        Code.MEMORY, Code.WRONG, Code.SLOW,
    }
)  # fmt: skip
"""Another attempt would end in the same way. What anybody may send on the way, such as a page of HTML, is not here."""
SOON: Final = frozenset({Code.UNREACHABLE, Code.TOO_SLOW, Code.NOT_FOUND, Code.NO_SPACE, Code.DISK, Code.SUPERSEDED})
"""Nobody needs to do anything to the release: it waits."""
ON_ITS_WAY: Final = frozenset({UpdateState.QUEUED, UpdateState.DOWNLOADING})
FIRST_S: Final = 10.0
MOST_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Wish:
    """The operator's. One of a later revision that asks for the same is the same.

    Attributes:
        digest: of the bundle that shall run.
        target: where the repository has it.
        window: when it may begin, in the device's local time; None for at any time. Another one makes no other wish.
    """

    digest: str
    target: str | None
    window: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What has become of it.

    Attributes:
        digest: of the bundle.
        state: so far.
        reason: why it is not more.
        fetch: it is to be fetched.
        due_at: when it goes on, of one that waits for its window.
    """

    digest: str
    state: DesiredState
    reason: str = ""
    fetch: bool = False
    due_at: datetime | None = None


class Standing:
    """Whether a candidate may go on, as wishes come and go. Whoever asks for a bundle last has his way.

    A candidate that the operator has wished for is over when he wishes for another or for none. One that a person
    flashed is over only when a wish comes after it that can be fulfilled: a wish that stood before does not touch it.
    The first wish that is seen stood before; so it is after a restart.
    """

    def __init__(self) -> None:
        self._begun = False
        self._asked: str | None = None
        self._wished = ""  # the last candidate that was one
        self._over = ""

    def wished(self, digest: str) -> None:
        """A candidate with this digest comes by a wish."""
        self._wished = digest

    def is_over(self, coming: str | None, wish: Wish | None, *, vain: bool = False) -> bool:
        """Whether the candidate is to end. To be asked often.

        Args:
            coming: the candidate's digest; None when there is none.
            wish: as it is now.
            vain: the wish cannot be fulfilled here.
        """
        asked = None if wish is None else wish.digest
        is_new = self._begun and not vain and asked not in {None, self._asked}
        if not (self._begun and vain):  # it is new once it can be fulfilled
            self._asked = asked
        self._begun = True
        if coming is not None and coming == asked:
            self._wished, self._over = coming, ""
        elif coming is not None and (is_new or coming == self._wished):
            self._over = coming
        return coming is not None and self._over == coming


def answer(
    wish: Wish,
    state: State,
    *,
    repository: str | None,
    tried: Update | None = None,
    unfit: tuple[str, str] | None = None,
    opening: Opening = AT_ONCE,
) -> Answer:
    """What has become of a wish.

    Args:
        wish: it.
        state: of the store.
        repository: where bundles are fetched from; None for nowhere.
        tried: how fetching it ended the last time, since this wish came.
        unfit: the digest of the active bundle, when it cannot run, and why.
        opening: when it may begin.
    """
    digest, coming, last = wish.digest, state.candidate, state.last
    if state.active is not None and state.active.digest == digest:
        if unfit is not None and unfit[0] == digest:
            return Answer(digest, DesiredState.REFUSED, unfit[1])
        return Answer(digest, DesiredState.APPLIED)
    if coming is not None and coming.bundle is not None and coming.bundle.digest == digest:
        if coming.state not in ON_ITS_WAY:
            return _here(digest, coming, opening)
    elif (bad := next((each for each in state.bad if each.digest == digest), None)) is not None:
        if last is not None and last.bundle is not None and last.bundle.digest == digest:
            return refused(digest, last)
        why = f"It failed here before: {bad.code.value}. Release a mended one, or flash it with --again."
        return Answer(digest, DesiredState.REFUSED, why)
    if repository is None:
        return Answer(digest, DesiredState.REFUSED, NO_REPOSITORY)
    if wish.target is None:
        return Answer(digest, DesiredState.REFUSED, NO_TARGET)
    if opening.due_at is not None and (tried is None or tried.code is None or tried.code in SOON):
        return Answer(digest, DesiredState.WAITING, opening.why, due_at=opening.due_at)
    if tried is None or tried.code is None:
        return Answer(digest, DesiredState.WAITING, f"It is fetched. {opening.why}".rstrip(), fetch=True)
    if tried.code in SOON:
        return Answer(digest, DesiredState.WAITING, tried.reason, fetch=True)
    fetch = tried.code not in FINAL and opening.due_at is None
    return Answer(digest, DesiredState.REFUSED, tried.reason, fetch=fetch)


def _here(digest: str, coming: Update, opening: Opening) -> Answer:
    """Of a candidate whose file is here."""
    if opening.due_at is not None and not has_begun(coming):
        return Answer(digest, DesiredState.WAITING, opening.why, due_at=opening.due_at)
    if coming.state is UpdateState.TRIAL:
        return Answer(digest, DesiredState.TRIAL, "" if opening.due_at else opening.why)
    return Answer(digest, DesiredState.WAITING, f"It is {coming.state.value}. {opening.why}".rstrip())


def has_begun(coming: Update) -> bool:
    """Whether a candidate is so far that it is finished although its window has ended."""
    return coming.state is UpdateState.TRIAL and coming.attempts > 0


def refused(digest: str, told: Update) -> Answer:
    """What it means for the wish that the bundle failed here."""
    back = told.state is UpdateState.ROLLED_BACK
    return Answer(digest, DesiredState.ROLLED_BACK if back else DesiredState.REFUSED, told.reason)


def pause_s(failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row, 1 and more; ``chance`` in 0..1 keeps devices apart."""
    return min(FIRST_S * 2.0 ** min(failures - 1, 20), MOST_S) * (0.75 + 0.5 * chance)
