"""Events that the broker has not acknowledged yet, kept on disk.

In: events in the order of their ``seq``.  Out: the same, until each is acknowledged. While the broker is away, each
`Outbox.commit` writes what is new at once, so that a killed process loses nothing. While it is there, only who begins
is written at once, before anybody is told; all else each 0.25 s, and an event that is acknowledged sooner is never
written. A power cut loses at most what is newer than ``sync_every`` and not yet sent: that often, and only when
something was written, an SD card has to sync.

Bounded: when there are too many, the oldest ``update``s go first, ``start`` and ``end`` last, and every one is counted.
A disk that is full or read-only stops nothing: what is new stays in memory, bounded as well, `Outbox.trouble` says so,
and a write is tried each second. When the file cannot even be opened for such a reason, all of this start stays in
memory, and what is in the file waits for the next one. A file that is damaged is set aside, and what can be read of it
goes on in a new one.

Beside the queue stands what is open: the last event of each object that has no ``end`` yet, so that the next start can
close what this one could not. An ``end`` that is given up leaves its object open there too, because a reader may have
seen its ``start``.

Used by one thread only (the publisher's): the inference loop never waits for the disk.
"""

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tinysight_contract.errors import StoreError
from tinysight_contract.messages import Event, EventType, encode
from tinysight_edge.config.types import OutboxConfig
from tinysight_edge.outbox_file import MAX_OPEN, ROOM, Bounds, OutboxFile, is_damage
from tinysight_edge.outbox_row import Row, event_of, is_sound
from tinysight_edge.outbox_salvage import recover

__all__ = ["Outbox"]

log = logging.getLogger(__name__)

WRITE_EVERY_S: Final = 0.25  # while the broker is there
AGAIN_S: Final = 1.0  # after a write that failed
AGE_EVERY_S: Final = 1.0
TIDY_EVERY_S: Final = 10.0
_UPDATE, _END = EventType.UPDATE, EventType.END
MAX_HELD: Final = 10_000  # about 20 MB in memory while nothing can be written
MAX_ASIDE: Final = 10  # a disk that damages each file is not written to for the rest of this start
_MEND: Final = "Free some space, check the disk, or name another --state folder."


class Outbox:
    """A bounded queue of events in an SQLite file.

    Args:
        path: of the file; its folder exists.
        config: how much is kept, and how often the disk syncs.

    Attributes:
        away: nothing that is put can be told now, so that it is written at once; set by whoever tells.
        discarded: events that were given up, by cause.
        trouble: why the disk failed last, at the start or when written or read; None when it did not. Meanwhile what
            is new is in memory alone.
        set_aside: how often a file was damaged since this start.
        damage: what came of that the last time, in words; None when it never was.
        max_events: as configured; fewer when the file could not be opened.
    """

    def __init__(self, path: Path, config: OutboxConfig = OutboxConfig()) -> None:  # noqa: B008 -- frozen
        self.away = True
        self.max_events = config.max_events
        self.discarded: Counter[str] = Counter()
        self.trouble: StoreError | None = None
        self.set_aside = 0
        self.damage: str | None = None
        self._path, self._config = path, config
        self._new: dict[int, Row] = {}
        self._done: set[int] = set()  # numbers of events in the file
        self._last_done = 0
        self._open: dict[str, tuple[str, bytes] | None] = {}  # by object: topic and payload, None once closed
        self._begun = False  # an object of which nothing was written
        self._dirty_since_s: float | None = None
        self._synced_s = self._aged_s = self._tidied_s = 0.0
        self._unsynced = False
        self._clock: tuple[datetime, float] | None = None  # what a synchronised clock said, and time.monotonic() then
        self._unopened: StoreError | None = None
        try:
            self._file = OutboxFile(path)
        except sqlite3.Error as error:
            if is_damage(error):
                self._recover(error, None)
            else:
                self._go_without(f"cannot be opened: {error}")
        self._last = self._written = self._file.last

    def __len__(self) -> int:
        return max(0, self._file.rows + len(self._new) - len(self._done))

    @property
    def last(self) -> int:
        """Number of the last event that was put, now or by an earlier start; 0 if there is none."""
        return self._last

    @property
    def share(self) -> float:
        """How full it is, 0..1."""
        return min(1.0, max(len(self) / self.max_events, self._file.bytes / self._config.max_size))

    def put(self, topic: str, event: Event) -> int:
        """Keep an event; the number that `done` takes. One that nobody could read is discarded and counted."""
        payload, kind = encode(event), event.type
        self._last += 1
        nulls = (event.ended_at is None) + (event.reason is None) + (event.clock_synced is None)
        if payload.count(b"null") != nulls and event_of(topic, payload) is None:  # JSON knows no NaN
            self._note_unreadable()
            return self._last
        self._new[self._last] = topic, payload, kind is _UPDATE
        if kind is not _END:
            self._open[event.id] = topic, payload
            self._begun |= event.id not in self._file.open
        elif event.id in self._file.open:
            self._open[event.id] = None
        else:
            self._open.pop(event.id, None)
        if event.clock_synced:
            self._clock = event.seen_at, time.monotonic()
        self._soil()
        if self._file.rows + len(self._new) - len(self._done) > self.max_events:
            self.commit(now=not self._failing)
        if self.trouble is not self._unopened:
            self._give_up_held(max(len(self) - self.max_events, len(self._new) - MAX_HELD))
        return self._last

    def after(self, number: int, limit: int, *, up_to: int | None = None) -> list[tuple[int, str, bytes]]:
        """Up to ``limit`` kept events with a number above ``number``, oldest first, each encoded.

        One of the file that is not as it was written is discarded and counted.

        Args:
            number: 0 begins with the oldest.
            limit: of events.
            up_to: no number above it.
        """
        end = self._last if up_to is None else min(up_to, self._last)
        kept, room = list[tuple[int, str, bytes]](), limit
        if number < min(end, self._file.last):
            passed = sum(1 for each in self._done if each > number) if number < self._last_done else 0
            rows = [row for row in self._ask(OutboxFile.read, number, end, limit + passed) if row[0] not in self._done]
            room -= len(rows)
            for row, topic, payload, crc in rows[:limit]:
                if is_sound(topic, payload, crc):
                    kept.append((row, topic, payload))
                else:
                    self._note_unreadable()
                    self.done(row)
        if room > 0:
            first = max(number, self._written) + 1
            few = range(first, end + 1) if end - first < len(self._new) else sorted(self._new)
            new = ((each, self._new.get(each)) for each in few if first <= each <= end)
            kept += islice(((each, row[0], row[1]) for each, row in new if row is not None), room)
        return kept

    def left_open(self) -> list[tuple[str, Event]]:
        """Topic and last event of every object without an ``end``, in the order of those events.

        To be asked for before anything is put: then these are of an earlier start. Each stays until its ``end`` is put.
        """
        self.commit(now=True)
        left = []
        for id_, topic, payload in self._ask(OutboxFile.read_open):
            event = event_of(topic, payload)
            if event is not None and event.id == id_:
                left.append((str(topic), event))
            else:
                self._note_unreadable()
                self._open[id_] = None
                self._soil()
        return left

    def _note_unreadable(self) -> None:
        log.error("an event in the outbox cannot be read")
        self.discarded["unreadable"] += 1

    def done(self, number: int) -> None:
        """Forget an event that the broker has."""
        if self._new.pop(number, None) is None and 0 < number <= self._written:
            self._done.add(number)
            self._last_done = max(number, self._last_done)
            self._soil()

    def commit(self, *, now: bool = False) -> None:
        """Write what is due, or all that is new ``now``; let the disk sync when that is due. To be called often.

        A disk that fails is told by `trouble`, a damaged file by `damage`.
        """
        at_s = time.monotonic()
        wait_s = 0.0 if self.away or self._begun else min(WRITE_EVERY_S, self._config.sync_every)
        wait_s = AGAIN_S if self._failing else wait_s
        due = self._dirty_since_s is not None and (now or at_s - self._dirty_since_s >= wait_s)
        aged = self._config.max_age is not None and at_s - self._aged_s >= AGE_EVERY_S and not self._failing
        try:
            if due or aged:
                self._write(at_s)
            if self._unsynced and at_s - self._synced_s >= self._config.sync_every:
                self._synced_s = at_s
                self._file.sync()
                self._unsynced = False
            if self._dirty_since_s is None and at_s - self._tidied_s >= TIDY_EVERY_S:
                self._tidied_s = at_s
                self._file.tidy()
        except sqlite3.Error as error:
            if self._suffer(error, "written"):
                self.commit(now=now)
        except OSError as error:
            self._note_trouble(f"cannot be synced: {error}")

    def close(self) -> None:
        """Commit and close."""
        self.commit(now=True)
        if lost := len(self) if self._unopened is not None else len(self._new):
            log.error("%d events are lost: %s", lost, self.trouble)
        self._file.close()

    @property
    def _failing(self) -> bool:
        """What is new cannot be written, not even into the database in memory that replaces an unopened file."""
        return self.trouble is not self._unopened

    def _soil(self) -> None:
        if self._dirty_since_s is None:
            self._dirty_since_s = time.monotonic()

    def _write(self, at_s: float) -> None:
        seen_from = None
        if self._config.max_age is not None and self._clock is not None:  # never by the clock as it is set now
            said, then_s = self._clock
            seen_from = said + timedelta(seconds=at_s - then_s - self._config.max_age)
        self._aged_s = at_s
        bounds = Bounds(self.max_events, self._config.max_size, seen_from)
        self.discarded += self._file.write(self._new, self._done, self._open, bounds)
        if self._failing:
            log.info("the outbox %s can be written again", self._path)
        self.trouble, self._dirty_since_s, self._unsynced = self._unopened, None, True
        self._written = self._last
        self._new.clear()
        self._done.clear()
        self._open.clear()
        self._begun = False
        self._last_done = 0

    def _ask(self, what: Callable[..., list[tuple[Any, ...]]], *values: int) -> list[tuple[Any, ...]]:
        """Rows of the file; none while the disk cannot be read."""
        try:
            return what(self._file, *values)
        except sqlite3.Error as error:
            return self._ask(what, *values) if self._suffer(error, "read") else []

    def _suffer(self, error: sqlite3.Error, done: str) -> bool:
        """Take note of what the disk did not do. Whether there is another file now, with which to try it again.

        Raises:
            StoreError: what is in memory is damaged, so the mistake is ours.
        """
        what = f"cannot be {done}: {error}"
        if not is_damage(error):
            self._note_trouble(what)
            return False
        if self._unopened is not None:
            raise StoreError(f"The outbox {what}.", mend="Start again; report this as a bug.") from error
        known = max(0, self._file.rows - len(self._done))
        self._file.close()
        if self.set_aside < MAX_ASIDE:
            self._recover(error, known)
        else:
            self._go_without(what)
        return True

    def _note_trouble(self, what: str) -> None:
        trouble = StoreError(f"The outbox {self._path} {what}.", mend=_MEND)
        if not self._failing:
            log.warning("%s Events are kept in memory.", trouble)
        self.trouble, self._dirty_since_s = trouble, time.monotonic()

    def _go_without(self, what: str) -> None:
        """Without a file until the next start."""
        self.trouble = self._unopened = StoreError(f"The outbox {self._path} {what}.", mend=_MEND)
        log.warning("%s Events are kept in memory until the next start.", self.trouble)
        self.max_events = min(self.max_events, MAX_HELD)
        self._file = OutboxFile(Path(":memory:"))

    def _recover(self, error: sqlite3.Error, known: int | None) -> None:
        """Go on with what can be read of a damaged file, in which ``known`` events were."""
        self.set_aside += 1
        try:
            self._file, lost, self.damage = recover(self._path, error, done=self._done, known=known)
        except (OSError, sqlite3.Error) as another:
            self._go_without(f"is damaged ({error}), and cannot be replaced: {another}")
        else:
            self.discarded += Counter(damaged=lost)
            self._done.clear()

    def _give_up_held(self, count: int) -> None:
        """What goes first when full, of what is in memory while nothing can be written."""
        if count <= 0:
            return
        for number in sorted(self._new, key=lambda each: (not self._new[each][2], each))[: count + MAX_HELD // ROOM]:
            topic, payload, is_update = self._new.pop(number)
            self.discarded["update" if is_update else "start-or-end"] += 1
            end = None if is_update else event_of(topic, payload)
            if end is None or end.type is not _END:
                continue
            if end.id in self._open or len(self._file.open) + len(self._open) < MAX_OPEN:
                self._open[end.id] = topic, payload
