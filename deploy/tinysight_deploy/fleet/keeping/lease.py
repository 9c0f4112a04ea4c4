"""Which controller leads: one row that the leader keeps moving. No clock of one machine is compared with another's.

The leader raises ``beat``. A follower takes over when it has itself watched the row stand still for `LEASE_S`; that
raises ``epoch``, and each write of a leader is refused when its epoch is not the row's any more. So a leader that was
asleep cannot write, whatever it believes.
"""

from typing import Final

import sqlalchemy as sa
from msgspec import Struct

from tinysight_contract.errors import NotLeading
from tinysight_deploy.fleet.keeping.tables import LEAD

__all__ = ["LEASE_S", "Lead", "Lease", "free", "require"]

LEASE_S: Final = 10.0
"""How long the row stands still before another takes over, by that one's monotonic clock."""


class Lead(Struct, frozen=True, kw_only=True):
    """The right to write as the leader, until another takes over.

    Attributes:
        holder: who has it.
        epoch: rises with each one who takes over.
    """

    holder: str
    epoch: int


class Lease:
    """What one process has seen of the row.

    Args:
        lease_s: see `LEASE_S`; all controllers of a fleet should agree.
    """

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._mine: int | None = None
        self._seen: tuple[int, int] | None = None
        self._seen_s = 0.0

    def look(self, connection: sa.Connection, holder: str, now_s: float) -> bool:
        """Whether `take` has something to do: the lead is ours, or has been nobody's for long enough."""
        row = connection.execute(sa.select(LEAD)).one_or_none()
        if row is None or (row.holder, row.epoch) in {(holder, self._mine), ("", row.epoch)}:
            return True
        if (row.epoch, row.beat) != self._seen:
            self._seen, self._seen_s = (row.epoch, row.beat), now_s
        return now_s - self._seen_s >= self._lease_s

    def take(self, connection: sa.Connection, holder: str, now_s: float) -> tuple[Lead | None, bool]:
        """Renew or take over, in a write of its own; the lead, and whether it is new."""
        if not self.look(connection, holder, now_s):
            return None, False
        row = connection.execute(sa.select(LEAD)).one_or_none()
        if row is not None and (row.holder, row.epoch) == (holder, self._mine):
            connection.execute(sa.update(LEAD).values(beat=LEAD.c.beat + 1))
            return Lead(holder=holder, epoch=row.epoch), False
        epoch = 1 if row is None else row.epoch + 1
        change = sa.insert(LEAD).values(id=1) if row is None else sa.update(LEAD)
        connection.execute(change.values(holder=holder, epoch=epoch, beat=1))
        return Lead(holder=holder, epoch=epoch), True

    def keep(self, lead: Lead | None) -> None:
        """Remember what `take` gave, once it holds."""
        self._mine = None if lead is None else lead.epoch

    def forget(self) -> None:
        """Begin to watch anew: the row could not be seen, and may have moved meanwhile."""
        self._seen = None


def require(connection: sa.Connection, lead: Lead) -> None:
    """See that this leader still leads.

    Raises:
        NotLeading: it does not.
    """
    row = connection.execute(sa.select(LEAD.c.holder, LEAD.c.epoch)).one_or_none()
    if row is None or (row.holder, row.epoch) != (lead.holder, lead.epoch):
        now = "nobody" if row is None else row.holder or "nobody"
        raise NotLeading(
            f"{lead.holder} does not lead any more, {now} does.", mend="Leave it: it goes on as a follower by itself."
        )


def free(connection: sa.Connection, lead: Lead) -> bool:
    """Give the lead away, so that the next need not wait; whether it was this one's."""
    mine = (LEAD.c.holder == lead.holder) & (LEAD.c.epoch == lead.epoch)
    return connection.execute(sa.update(LEAD).where(mine).values(holder="")).rowcount == 1
