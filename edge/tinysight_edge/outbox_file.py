"""The outbox's file: what of it is on disk, and how it comes there.

In: what one write changes, and the bounds.  Out: rows by number. Knows nothing of when to write, and nothing of MQTT.

An SQLite file with a write-ahead log. A `OutboxFile.write` hands one transaction to the kernel, where it outlives the
process; `OutboxFile.sync` brings all of them to the disk, where they outlive a power cut. A cut loses what was not
synced and damages nothing: SQLite syncs the log before it copies from it, and ignores a torn end of it.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tinysight_contract.messages import Event, EventType
from tinysight_edge.outbox_row import Row, check_sum, event_of

__all__ = ["Bounds", "OutboxFile", "is_damage"]

VERSION: Final = 1  # of the tables; 0 are those of before they had one
MAX_OPEN: Final = 1000  # ends given up beyond that are not told later; the first ones are those whose start was sent
ROOM: Final = 1000  # once full, a thousandth is given up at a time
AGED_AT_ONCE: Final = 5000
MAX_NUMBER: Final = 2**53
BUSY_S: Final = 1.0  # for another program that reads the file
LOG_BYTES: Final = 4 * 2**20
SPARE_BYTES: Final = 4 * 2**20
_DAMAGE: Final = {
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_INTERNAL),
    *(sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH),
}
_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL,
    is_update INTEGER NOT NULL, crc INTEGER)""",
    "CREATE TABLE IF NOT EXISTS open (id TEXT PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL)",
    f"PRAGMA user_version={VERSION}",
)
_FROM_0: Final = ("DROP INDEX IF EXISTS oldest", "ALTER TABLE event ADD COLUMN crc INTEGER", *_TABLES)
_TOTALS: Final = "SELECT count(*), coalesce(sum(length(payload)), 0), coalesce(max(id), 0) FROM event"
_EVENT: Final = "INSERT INTO event (id, topic, payload, is_update, crc) VALUES (?, ?, ?, ?, ?)"
_OPEN: Final = "INSERT OR REPLACE INTO open (id, topic, payload) VALUES (?, ?, ?)"


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is damaged or not ours; else the disk is full, read-only or broken, and may be well again."""
    code = getattr(error, "sqlite_errorcode", None)  # none for what Python finds, such as text that is no UTF-8
    return not isinstance(error, sqlite3.ProgrammingError) and (code is None or code & 0xFF in _DAMAGE)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept.

    Attributes:
        max_events: so many.
        max_bytes: of their payloads.
        seen_from: what was seen earlier, by a clock that was synchronised, is old; None keeps it whatever its age.
    """

    max_events: int
    max_bytes: int
    seen_from: datetime | None = None


@dataclass(slots=True)
class _Gone:
    """What a write gave up.

    Attributes:
        causes: how many, by cause.
        ends: objects whose ``end`` was among it: id, topic and payload.
    """

    causes: Counter[str] = field(default_factory=Counter)
    ends: list[tuple[str, str, bytes]] = field(default_factory=list)


class OutboxFile:
    """Open the file at ``path``, make it when it is not there.

    Attributes:
        db: the connection.
        rows: events in it.
        bytes: of their payloads.
        last: the highest number that was in it.
        open: ids of the objects that have no ``end`` yet.

    Raises:
        sqlite3.Error: it is damaged, it is not ours, or the disk fails; `is_damage` tells which. So do all methods.
    """

    def __init__(self, path: Path) -> None:
        self._log = path.with_name(path.name + "-wal")
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        try:
            self._begin()
        except BaseException:
            self.db.close()
            raise

    def _begin(self) -> None:
        run = self.db.execute
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
        run("PRAGMA temp_store=MEMORY")  # what is vacuumed is small by then
        run(f"PRAGMA journal_size_limit={LOG_BYTES}")
        if (found := run("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        tables = {name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'")}
        version = run("PRAGMA user_version").fetchone()[0]
        if (tables and "event" not in tables) or version not in {0, VERSION}:
            raise sqlite3.DatabaseError(f"it is of another program or version ({version})")
        if tables:
            run("SELECT id, topic, payload, is_update FROM event LIMIT 0")
        if version != VERSION:
            with self._at_once():
                for statement in _FROM_0 if tables else _TABLES:
                    run(statement)
        run("SELECT crc FROM event LIMIT 0")
        self.rows, self.bytes, self.last = (int(each) for each in run(_TOTALS).fetchone())
        if not 0 <= self.last < MAX_NUMBER:
            raise sqlite3.DatabaseError(f"it holds the number {self.last}")
        self.open = {str(id_) for (id_,) in run("SELECT id FROM open")}
        self._no_update_to = self._young_from = 0

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """One transaction: all or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # it may have rolled back by itself
                self.db.execute("ROLLBACK")
            raise

    def read(self, number: int, up_to: int, limit: int) -> list[tuple[int, Any, Any, Any]]:
        """Number, topic, payload and check sum of up to ``limit`` events above ``number``, in order; not checked."""
        query = "SELECT id, topic, payload, crc FROM event WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
        return self.db.execute(query, (number, up_to, limit)).fetchall()

    def read_open(self) -> list[tuple[Any, Any, Any]]:
        """Id, topic and payload of every open object, in the order of their events; not checked."""
        return self.db.execute("SELECT id, topic, payload FROM open ORDER BY rowid").fetchall()

    def write(
        self,
        new: Mapping[int, Row],
        done: Collection[int],
        open_: Mapping[str, tuple[str, bytes] | None],
        bounds: Bounds,
    ) -> Counter[str]:
        """Do all of it or nothing, and give up what is beyond the bounds; how much that was, by cause.

        Args:
            new: events by number, above `last`.
            done: numbers that are no longer kept, whether they are in it or not.
            open_: by object, topic and payload of its last event; None once it is closed.
            bounds: of what is in it then.
        """
        many = self.db.executemany
        kept = self.rows, self.bytes, self._no_update_to, self._young_from
        gone = _Gone()
        try:
            with self._at_once():
                many(_EVENT, [(number, *row, check_sum(row[0], row[1])) for number, row in new.items()])
                self.rows += len(new)
                self.bytes += sum(len(payload) for _, payload, _ in new.values())
                self._delete(done)
                many("DELETE FROM open WHERE id = ?", [(id_,) for id_, row in open_.items() if row is None])
                many(_OPEN, [(id_, *row) for id_, row in open_.items() if row is not None])
                if bounds.seen_from is not None:
                    self._give_up_old(bounds.seen_from, gone)
                self._give_up_beyond(bounds, gone)
                if gone.ends:
                    room = MAX_OPEN - int(self.db.execute("SELECT count(*) FROM open").fetchone()[0])
                    del gone.ends[max(room, 0) :]
                    many(_OPEN, gone.ends)
        except BaseException:
            self.rows, self.bytes, self._no_update_to, self._young_from = kept
            raise
        self.last = max(self.last, *new) if new else self.last
        self.open.difference_update(open_)
        self.open.update(id_ for id_, row in open_.items() if row is not None)
        self.open.update(id_ for id_, _, _ in gone.ends)
        return gone.causes

    def _delete(self, numbers: Iterable[int]) -> None:
        run = self.db.execute
        for ends in _ranges(numbers):
            rows, size, _ = run(_TOTALS + " WHERE id BETWEEN ? AND ?", ends).fetchone()
            if rows:
                run("DELETE FROM event WHERE id BETWEEN ? AND ?", ends)
                self.rows, self.bytes = self.rows - rows, self.bytes - size

    def _give_up_old(self, seen_from: datetime, gone: _Gone) -> None:
        """From the oldest on, until one is young. What has no sure time or cannot be read stays, and is passed over."""
        old = []
        query = "SELECT id, topic, payload FROM event WHERE id > ? ORDER BY id LIMIT ?"
        for number, topic, payload in self.db.execute(query, (self._young_from, AGED_AT_ONCE)):
            event = event_of(topic, payload)
            if event is not None and event.clock_synced:
                if event.seen_at >= seen_from:
                    break
                old.append(number)
                _keep_end(event, topic, payload, gone)
            self._young_from = number
        self._delete(old)
        if old:
            gone.causes["old"] += len(old)

    def _give_up_beyond(self, bounds: Bounds, gone: _Gone) -> None:
        """The oldest ``update``s first; ``start`` and ``end`` only when there are no more."""
        many, large = self.rows - bounds.max_events, self.bytes - bounds.max_bytes
        many += bounds.max_events // ROOM if many > 0 else 0
        large += bounds.max_bytes // ROOM if large > 0 else 0
        query = "SELECT id, topic, payload, length(payload) FROM event WHERE id > ? AND is_update = ? ORDER BY id"
        for is_update, cause, begin in ((1, "update", self._no_update_to), (0, "start-or-end", 0)):
            if many <= 0 and large <= 0:
                return
            numbers, last = [], None
            for number, topic, payload, size in self.db.execute(query, (begin, is_update)):
                if many <= 0 and large <= 0:
                    last = number - 1
                    break
                numbers.append(number)
                many, large = many - 1, large - (size or 0)
                if not is_update:
                    _keep_end(event_of(topic, payload), topic, payload, gone)
            if is_update:
                self._no_update_to = (
                    self.db.execute("SELECT max(id) FROM event").fetchone()[0] or 0 if last is None else last
                )
            self._delete(numbers)
            if numbers:
                gone.causes[cause] += len(numbers)

    def fill(
        self, events: Iterable[tuple[int, str, bytes, bool, int]], open_: Iterable[tuple[str, str, bytes]]
    ) -> None:
        """Put in what was read out of another file."""
        with self._at_once():
            self.db.executemany(_EVENT, events)
            self.db.executemany(_OPEN, open_)
        self.rows, self.bytes, self.last = (int(each) for each in self.db.execute(_TOTALS).fetchone())
        self.open = {str(id_) for (id_,) in self.db.execute("SELECT id FROM open")}

    def sync(self) -> None:
        """Wait until what was written is on the disk.

        Raises:
            OSError: the disk fails.
        """
        with suppress(FileNotFoundError):  # there is none for a database in memory
            log = os.open(self._log, os.O_RDONLY)
            try:
                os.fsync(log)
            finally:
                os.close(log)

    def tidy(self) -> None:
        """Give the disk back what a drained backlog took. Cheap, unless there is much to give back.

        A file that vacuums itself would cost every write a page; this costs some milliseconds once it is all but empty.
        """
        run = self.db.execute
        told = ("page_size", "page_count", "freelist_count")
        size, pages, free = (int(run(f"PRAGMA {what}").fetchone()[0]) for what in told)
        spare = free * size > SPARE_BYTES > (pages - free) * size
        if spare:
            run("VACUUM")
        if spare or (self._log.exists() and self._log.stat().st_size > LOG_BYTES):
            run("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Bring everything to the disk and close."""
        self.db.close()


def _keep_end(event: Event | None, topic: str, payload: bytes, gone: _Gone) -> None:
    if event is not None and event.type is EventType.END and len(gone.ends) < MAX_OPEN:
        gone.ends.append((event.id, topic, payload))


def _ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of neighbours."""
    first = last = None
    for number in sorted(numbers):
        if last is None or number != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last
