"""Events that the broker has not acknowledged yet, kept on disk.

In: events in the order of their ``seq``.  Out: the same, until each is acknowledged. What is new is written every
0.25 s in one transaction, which spares the SD card: an event that is acknowledged sooner is never written. A killed
process loses at most what was put in the last quarter second before the kill and not yet sent.

Bounded: when full, the oldest ``update``s go first, ``start`` and ``end`` last, and every one is counted. A disk that
is full or read-only stops nothing: what is new stays in memory, bounded as well, `Outbox.trouble` says so, and a write
is tried each second. When the file cannot even be opened for such a reason, all of this start stays in memory, and what
is in the file waits for the next one.

Beside the queue stands what is open: the last event of each object that has no ``end`` yet, written in the same
transactions, so that the next start can close what this one could not. An ``end`` that is given up for lack of room
leaves its object open there too, because a reader may have seen its ``start``.

Used by one thread only (the publisher's): the inference loop never waits for the disk.
"""

import logging
import sqlite3
import time
from collections import Counter
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tinysight_contract.errors import ContractError, StoreError
from tinysight_contract.messages import Event, EventType, decode, encode

__all__ = ["Outbox"]

log = logging.getLogger(__name__)

COMMIT_EVERY_S: Final = 0.25
AGAIN_S: Final = 1.0  # after a write that failed
MAX_HELD: Final = 10_000  # about 20 MB in memory while nothing can be written
MAX_OPEN: Final = 1000  # ends given up beyond that are not told later; the first ones are those whose start was sent
ROOM: Final = 1000  # once full, a thousandth is given up at a time
OF_THE_DISK: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_MEND: Final = "Free some space, check the disk, or name another --state folder."
_SCHEMA: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    """CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL,
    payload BLOB NOT NULL, is_update INTEGER NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS oldest ON event (is_update DESC, id)",
    "CREATE TABLE IF NOT EXISTS open (id TEXT PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL)",
)
_OPEN: Final = "INSERT OR REPLACE INTO open (id, topic, payload) SELECT ?, ?, ? WHERE (SELECT count(*) FROM open) < ?"


def _is_of_the_disk(error: sqlite3.Error) -> bool:
    """Whether it is full, read-only or broken, and may be well again; else the file is damaged."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in OF_THE_DISK


class Outbox:
    """A bounded queue of events in an SQLite file (write-ahead log, synced at each commit).

    Args:
        path: of the file; its folder exists.
        max_events: more than this are not kept.

    Attributes:
        discarded: events that were given up, by cause.
        trouble: why the disk failed last, at the start or when written or read; None when it did not. Meanwhile what
            is new is in memory alone.
        max_events: as given; fewer when the file could not be opened.

    Raises:
        StoreError: the file is damaged, or cannot be opened for a reason that is not the disk's.
    """

    def __init__(self, path: Path, *, max_events: int = 100_000) -> None:
        self.max_events = max_events
        self.discarded: Counter[str] = Counter()
        self.trouble: StoreError | None = None
        self._path = path
        self._new: dict[int, tuple[str, bytes, bool]] = {}  # by number: topic, payload, whether it is an update
        self._done: set[int] = set()  # numbers of events in the file
        self._last_done = 0
        self._open: dict[str, tuple[str, bytes] | None] = {}  # by object: topic and payload, None once closed
        self._dirty_since_s: float | None = None
        self._unopened: StoreError | None = None
        try:
            self._begin(path)
        except sqlite3.Error as error:
            trouble = StoreError(f"The outbox {path} cannot be opened: {error}.", mend=_MEND)
            if not _is_of_the_disk(error):
                raise trouble from error
            log.warning("%s Events are kept in memory until the next start.", trouble)
            self.trouble = self._unopened = trouble
            self.max_events = min(max_events, MAX_HELD)
            self._begin(Path(":memory:"))

    def _begin(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            for statement in _SCHEMA:
                self._db.execute(statement)
            self._depth = int(self._db.execute("SELECT count(*) FROM event").fetchone()[0])
            self._last = self._written = int(self._db.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0])
            self._filed = {str(id_) for (id_,) in self._db.execute("SELECT id FROM open")}
        except sqlite3.Error:
            self._db.close()
            raise

    def __len__(self) -> int:
        return self._depth

    @property
    def last(self) -> int:
        """Number of the last event that was put, now or by an earlier start; 0 if there is none."""
        return self._last

    def put(self, topic: str, event: Event) -> int:
        """Keep an event; the number that `done` takes.

        Raises:
            StoreError: the file is damaged.
        """
        payload = encode(event)
        self._last += 1
        self._new[self._last] = topic, payload, event.type is EventType.UPDATE
        if event.type is not EventType.END:
            self._open[event.id] = topic, payload
        elif event.id in self._filed:
            self._open[event.id] = None
        else:
            self._open.pop(event.id, None)
        self._depth += 1
        self._soil()
        if self._depth > self.max_events:
            self.commit(now=not self._failing)
        if self._failing:
            self._give_up_held(max(self._depth - self.max_events, len(self._new) - MAX_HELD))
        return self._last

    def after(self, number: int, limit: int, *, up_to: int | None = None) -> list[tuple[int, str, bytes]]:
        """Up to ``limit`` kept events with a number above ``number``, none above ``up_to``, oldest first, each encoded.

        One of the file that cannot be read is discarded and counted.

        Raises:
            StoreError: the file is damaged.
        """
        kept, room = list[tuple[int, str, bytes]](), limit
        if number < self._written:
            query = "SELECT id, topic, payload FROM event WHERE id > ? ORDER BY id LIMIT ?"
            passed = len(self._done) if number < self._last_done else 0
            rows = [row for row in self._ask(query, number, limit + passed) if row[0] not in self._done]
            room -= len(rows)
            for row, topic, payload in rows[:limit]:
                if self._read(payload) is None:
                    self.done(row)
                else:
                    kept.append((int(row), str(topic), payload))
        if room > 0 and number < self._last:
            new = ((each, topic, payload) for each, (topic, payload, _) in self._new.items() if each > number)
            kept += islice(new, room)
        return kept if up_to is None else [row for row in kept if row[0] <= up_to]

    def left_open(self) -> list[tuple[str, Event]]:
        """Topic and last event of every object without an ``end``, in the order of those events.

        To be asked for before anything is put: then these are of an earlier start. Each stays until its ``end`` is put.

        Raises:
            StoreError: the file is damaged.
        """
        self.commit(now=True)
        left = []
        for id_, topic, payload in self._ask("SELECT id, topic, payload FROM open ORDER BY rowid"):
            if (event := self._read(payload)) is None:
                self._open[id_] = None
                self._soil()
            else:
                left.append((str(topic), event))
        return left

    def _read(self, payload: bytes) -> Event | None:
        try:
            return decode(payload, Event)
        except ContractError as error:
            log.error("an event in the outbox cannot be read: %s", error)
            self.discarded["unreadable"] += 1
            return None

    def _end_of(self, payload: bytes) -> Event | None:
        event = self._read(payload)
        return event if event is not None and event.type is EventType.END else None

    def done(self, number: int) -> None:
        """Forget an event that the broker has."""
        if self._new.pop(number, None) is not None:
            self._depth -= 1
        elif number not in self._done and self._ask("SELECT 1 FROM event WHERE id = ?", number):
            self._done.add(number)
            self._last_done = max(number, self._last_done)
            self._depth -= 1
            self._soil()

    def commit(self, *, now: bool = False) -> None:
        """Write what is new if any of it is older than 0.25 s, or all of it ``now``.

        Raises:
            StoreError: the file is damaged. A disk that is full or read-only is told by `trouble`.
        """
        every_s = AGAIN_S if self._failing else COMMIT_EVERY_S
        if self._dirty_since_s is None or (not now and time.monotonic() - self._dirty_since_s < every_s):
            return
        try:
            given_up, kept_open = self._write()
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):  # it may have rolled back by itself
                self._db.execute("ROLLBACK")
            self._suffer(error, "written")
            return
        if self._failing:
            log.info("the outbox %s can be written again", self._path)
        self.trouble, self._dirty_since_s = self._unopened, None
        self._filed.difference_update(self._open)
        self._filed.update(id_ for id_, row in self._open.items() if row is not None)
        self._filed.update(kept_open)
        self._written = self._last
        self._new.clear()
        self._done.clear()
        self._open.clear()
        self.discarded += given_up
        self._depth -= given_up.total()

    def close(self) -> None:
        """Commit and close."""
        self.commit(now=True)
        if lost := len(self) if self._unopened is not None else len(self._new):
            log.error("%d events are lost: %s", lost, self.trouble)
        self._db.close()

    @property
    def _failing(self) -> bool:
        """What is new cannot be written, not even into the database in memory that replaces an unopened file."""
        return self.trouble is not self._unopened

    def _suffer(self, error: sqlite3.Error, done: str) -> None:
        """Take note of what the disk did not do.

        Raises:
            StoreError: the file is damaged.
        """
        trouble = StoreError(f"The outbox {self._path} cannot be {done}: {error}.", mend=_MEND)
        if not _is_of_the_disk(error):
            raise trouble from error
        if not self._failing:
            log.warning("%s Events are kept in memory.", trouble)
        self.trouble, self._dirty_since_s = trouble, time.monotonic()

    def _soil(self) -> None:
        if self._dirty_since_s is None:
            self._dirty_since_s = time.monotonic()

    def _ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the file; none while the disk cannot be read."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._suffer(error, "read")
            return []

    def _write(self) -> tuple[Counter[str], list[str]]:
        """All that is new in one transaction; what was given up for lack of room, and objects left open by that."""
        run, many = self._db.execute, self._db.executemany
        run("BEGIN IMMEDIATE")
        many("INSERT INTO event VALUES (?, ?, ?, ?)", [(number, *row) for number, row in self._new.items()])
        many("DELETE FROM event WHERE id = ?", [(number,) for number in self._done])
        many("DELETE FROM open WHERE id = ?", [(id_,) for id_ in self._open])
        rows = [(id_, *row) for id_, row in self._open.items() if row is not None]
        many("INSERT INTO open (id, topic, payload) VALUES (?, ?, ?)", rows)
        given_up, kept_open = Counter[str](), list[str]()
        if (excess := self._depth - self.max_events) > 0:
            query = "SELECT id, is_update, topic, payload FROM event ORDER BY is_update DESC, id LIMIT ?"
            for number, is_update, topic, payload in run(query, (excess + self.max_events // ROOM,)).fetchall():
                run("DELETE FROM event WHERE id = ?", (number,))
                given_up["update" if is_update else "start-or-end"] += 1
                end = None if is_update else self._end_of(payload)
                if end is not None and run(_OPEN, (end.id, topic, payload, MAX_OPEN)).rowcount:
                    kept_open.append(end.id)
        run("COMMIT")
        return given_up, kept_open

    def _give_up_held(self, count: int) -> None:
        """The same for what is in memory while nothing can be written."""
        if count <= 0:
            return
        for number in sorted(self._new, key=lambda each: (not self._new[each][2], each))[: count + MAX_HELD // ROOM]:
            topic, payload, is_update = self._new.pop(number)
            self._depth -= 1
            self.discarded["update" if is_update else "start-or-end"] += 1
            end = None if is_update else self._end_of(payload)
            if end is not None and (end.id in self._open or len(self._filed) + len(self._open) < MAX_OPEN):
                self._open[end.id] = topic, payload
