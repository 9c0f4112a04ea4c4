"""What a reader can prove of one device's events: which came, which came twice, which are missing.

In: the numbers of events as they come, and what the device says of its outbox.  Out: counts. No I/O and no clock.

`seq` rises by one with each event of a boot, so what lies between two numbers must have existed. Of each boot:

- **From where.** The first number heard, or what follows the first living `health` when no event came before it, or 1
  when the reader has seen the boot begin. What lies below is of the time before the reader, and nothing is said of it.
- **Gaps.** A number between there and the highest heard that has not come is missing as of now: what waits on the
  device and is told late fills its gap, and then it is missing no longer.
- **The tail.** `health.outbox.last_seq` tells of numbers above the highest heard. A health message may overtake the
  events before it, so they are only *awaited*, until the device has said that nothing waits with it (`depth` is 0) and
  then something later: another health message, that it is gone, or that it has begun anew. An event that the broker had
  before the first of these words would have come before the second. A device that vanishes with events in its outbox
  may tell them after its return, so they stay awaited until some later boot says that nothing waits.
- **Given up.** What a device had to discard (`health.outbox.discarded`, as far as it grew since the reader came) is not
  missing on the way. Which numbers these were is not told, so at most so many of the absent ones count as given up.

Bounded: so many boots, and so many gaps of each, are kept apart; older ones are summed up. What is summed up as
missing stays so, and what then comes late passes for a repeat.
"""

from bisect import bisect_right
from collections import OrderedDict
from typing import Final

from tinysight_contract.states import OutboxHealth

__all__ = ["Account", "Numbers"]

MAX_BOOTS: Final = 8
MAX_RUNS: Final = 64


class Numbers:
    """A set of whole numbers, held as runs, so that it stays small however many there are."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, number: int) -> bool:
        """Take a number in; False if it is there already."""
        at = bisect_right(self._starts, number)
        if at and number <= self._ends[at - 1]:
            return False
        joins_left = bool(at) and self._ends[at - 1] == number - 1
        joins_right = at < len(self._starts) and self._starts[at] == number + 1
        if joins_left and joins_right:
            self._ends[at - 1] = self._ends.pop(at)
            del self._starts[at]
        elif joins_left:
            self._ends[at - 1] = number
        elif joins_right:
            self._starts[at] = number
        else:
            self._starts.insert(at, number)
            self._ends.insert(at, number)
        return True

    def fill_lowest_gap(self) -> tuple[int, int]:
        """Pretend that the numbers of the lowest gap are there; the first and the last of them."""
        first, last = self._ends[0] + 1, self._starts[1] - 1
        del self._ends[0], self._starts[1]
        return first, last

    def between(self, first: int, last: int) -> int:
        """How many of them are from ``first`` to ``last``."""
        runs = zip(self._starts, self._ends, strict=True)
        return sum(max(min(end, last) - max(start, first) + 1, 0) for start, end in runs)

    @property
    def runs(self) -> int:
        """How many stretches without a gap there are."""
        return len(self._starts)

    @property
    def last(self) -> int:
        """The greatest; 0 when there is none."""
        return self._ends[-1] if self._ends else 0


class _Boot:
    """One boot's numbers: what must have come from ``base`` on, and what its device told of them."""

    def __init__(self) -> None:
        self.base: int | None = None
        self.told = self.settled = 0  # the last number that exists; the last that must have come, as far as was told
        self.discarded = 0
        self.discarded_before: int | None = None
        self._numbers = Numbers()
        self._summed_up = 0

    def take(self, seq: int) -> bool:
        """Note that an event came; False when it came before."""
        if not self._numbers.add(seq):
            return False
        if self.base is None:
            self.base = seq
        if self._numbers.runs > MAX_RUNS:
            first, last = self._numbers.fill_lowest_gap()
            self._summed_up += max(last - max(first, self.base) + 1, 0)
        return True

    @property
    def absent(self) -> int:
        """Numbers that must have come and have not."""
        if self.base is None:
            return 0
        top = max(self._numbers.last, self.settled)
        return self._summed_up + max(top - self.base + 1, 0) - self._numbers.between(self.base, top)

    @property
    def awaited(self) -> int:
        """Numbers that exist, above all that must have come."""
        if self.base is None:
            return 0
        return max(self.told - max(self._numbers.last, self.settled, self.base - 1), 0)

    @property
    def given_up(self) -> int:
        return self.discarded - (self.discarded_before or 0)


class Account:
    """What came of one device.

    Attributes:
        events: how many, each once.
        repeated: those that came again.
    """

    def __init__(self) -> None:
        self.events = self.repeated = 0
        self._boots: OrderedDict[str, _Boot] = OrderedDict()  # the one heard of longest ago first
        self._nothing_waits: dict[str, int] = {}  # by boot: the last number, as of when the outbox was empty last
        self._gone: str | None = None
        self._absent_of_old = self._given_up_of_old = 0

    def __contains__(self, boot_id: str) -> bool:
        return boot_id in self._boots

    def event(self, boot_id: str, seq: int) -> bool:
        """Note that an event came; False when it came before."""
        new = self._boot(boot_id).take(seq)
        self.events += new
        self.repeated += not new
        return new

    def health(self, boot_id: str, outbox: OutboxHealth, *, retained: bool) -> None:
        """Note what a device says of its outbox; a retained word is of the time before the reader's session."""
        boot = self._boot(boot_id)
        if not retained:
            self._settle()
            if boot.base is None:
                boot.base = outbox.last_seq + 1
        boot.told = max(boot.told, outbox.last_seq)
        discarded = sum(outbox.discarded.values())
        if boot.discarded_before is None:
            boot.discarded_before = discarded if retained else 0
        boot.discarded = max(boot.discarded, discarded)
        self._nothing_waits = {name: each.told for name, each in self._boots.items()} if outbox.depth == 0 else {}
        if self._gone == boot_id:
            self._settle()

    def begun(self, boot_id: str, *, witnessed: bool) -> None:
        """Note that a boot is online. ``witnessed``: it has never been at the broker before."""
        self._gone = None
        if boot_id not in self._boots:
            self._settle()
        boot = self._boot(boot_id)
        if witnessed and boot.base is None:
            boot.base = 1
            boot.discarded_before = 0

    def gone(self, boot_id: str) -> None:
        """Note that a boot is offline."""
        self._boot(boot_id)
        self._gone = boot_id
        self._settle()

    @property
    def missing(self) -> int:
        """Events that must have come and have not, without those that the device says it gave up."""
        return self._absent - self.given_up

    @property
    def given_up(self) -> int:
        """Of the events that have not come, those that the device had to discard."""
        return min(self._given_up_of_old + sum(boot.given_up for boot in self._boots.values()), self._absent)

    @property
    def awaited(self) -> int:
        """Events that exist by the device's word, and may still come."""
        return sum(boot.awaited for boot in self._boots.values())

    @property
    def _absent(self) -> int:
        return self._absent_of_old + sum(boot.absent for boot in self._boots.values())

    def _settle(self) -> None:
        """What was told before the outbox was empty must have come by now."""
        for boot_id, told in self._nothing_waits.items():
            if boot_id in self._boots:
                self._boots[boot_id].settled = max(self._boots[boot_id].settled, told)
        self._nothing_waits = {}

    def _boot(self, boot_id: str) -> _Boot:
        if boot_id not in self._boots:
            self._boots[boot_id] = _Boot()
            if len(self._boots) > MAX_BOOTS:
                _, old = self._boots.popitem(last=False)
                self._absent_of_old += old.absent
                self._given_up_of_old += old.given_up
        self._boots.move_to_end(boot_id)
        return self._boots[boot_id]
