"""Say what becomes of updates: in ``reported``, to the desired state, as an alert, and to Home Assistant.

In: what the updates' thread knows.  Out: what the desk, the reloader, the caretaker and the teller are to say. From any
one thread; never waits.
"""

from typing import Final

from tinysight_contract.messages import DesiredState
from tinysight_contract.updates import Update
from tinysight_edge.config.watch import Watch
from tinysight_edge.health.caretaker import Caretaker
from tinysight_edge.health.verdict import Code
from tinysight_edge.orders.desk import Desk
from tinysight_edge.telling import Teller
from tinysight_edge.update.wish import Answer, Wish

__all__ = ["Report", "is_worth_telling"]

STEP: Final = 0.05
"""A download that has come so much further is told, so that it takes about twenty messages, however large it is."""
LEAST_S: Final = 5.0
MOST_S: Final = 60.0


def is_worth_telling(told: Update | None, now: Update, since_s: float) -> bool:
    """Whether progress is to be told: a new state at once, more of the same now and then.

    Args:
        told: what was told last; None for nothing of it.
        now: how far it is.
        since_s: how long ago that was.
    """
    if told is None or told.state is not now.state:
        return True
    return since_s >= (LEAST_S if now.share - told.share >= STEP else MOST_S)


class Report:
    """Of one agent.

    Args:
        desk: says what is reported.
        watch: knows the desired state; None for an agent without a file.
        caretaker: tells what is wrong.
        teller: says what the device is.

    Attributes:
        coming: the digest of the bundle that is to come; None when none is.
    """

    def __init__(self, *, desk: Desk, watch: Watch | None, caretaker: Caretaker, teller: Teller) -> None:
        self.coming: str | None = None
        self._desk, self._watch, self._caretaker, self._teller = desk, watch, caretaker, teller
        self._answer: Answer | None = None
        if watch is not None:
            watch.reloader.answers(lambda: self._answer)

    def wish(self) -> Wish | None:
        """What the operator asks for."""
        return None if self._watch is None else self._watch.reloader.wish

    def told(self, active: str | None, update: Update | None, answer: Answer | None) -> None:
        """The active bundle, what became of the newest one, what became of the wish."""
        self._desk.update = update
        if active is not None:
            self._desk.bundle = active
        changed = answer != self._answer
        self._answer = answer
        if self._watch is not None and active is not None:
            self._watch.reloader.runs(active)
        on_way = answer is not None and answer.state in {DesiredState.WAITING, DesiredState.TRIAL}
        coming = answer.digest if answer is not None and on_way else None
        if changed and coming != self.coming:
            self.coming = coming
            self._teller.info_due = True

    def alert(self, what: str | None) -> None:
        """What is wrong with the newest bundle, or that nothing is."""
        self._caretaker.say(Code.UPDATE_FAILED, what)
