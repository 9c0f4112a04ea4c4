"""Events that the broker has not acknowledged yet, kept on disk.

In: events in the order of their ``seq``.  Out: the same, until each is acknowledged. A killed process loses at most
what was put in the last quarter second before the kill and not yet sent; a commit each 0.25 s spares the SD card.
Bounded: when full, the oldest ``update``s go first, ``start`` and ``end`` last, and every one is counted.

Beside the queue stands what is open: the last event of each object that has no ``end`` yet, written in the same
transactions, so that the next start can close what this one could not. An ``end`` that is given up for lack of room
leaves its object open there too, because a reader may have seen its ``start``.

Used by one thread only (the publisher's): the inference loop never waits for the disk.
"""

import logging
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ContractError, StoreError
from tinysight_contract.messages import Event, EventType, decode, encode

__all__ = ["Outbox"]

log = logging.getLogger(__name__)

COMMIT_EVERY_S: Final = 0.25
MAX_OPEN: Final = 1000  # ends given up beyond that are not told later; the first ones are those whose start was sent
_MEND: Final = "Free some space, check the disk, or name another --state folder."


class Outbox:
    """A bounded queue of events in an SQLite file (write-ahead log, synced at each commit).

    Args:
        path: of the file; its folder exists.
        max_events: more than this are not kept.

    Raises:
        StoreError: the file cannot be opened or is damaged.
    """

    def __init__(self, path: Path, *, max_events: int = 100_000) -> None:
        self.max_events = max_events
        self.discarded: Counter[str] = Counter()
        self._path = path
        self._dirty_since_s: float | None = None
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL,"
                " payload BLOB NOT NULL, is_update INTEGER NOT NULL)"
            )
            self._db.execute("CREATE INDEX IF NOT EXISTS oldest ON event (is_update DESC, id)")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS open (id TEXT PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL)"
            )
            self._depth = int(self._db.execute("SELECT count(*) FROM event").fetchone()[0])
        except sqlite3.Error as error:
            raise StoreError(f"The outbox {path} cannot be opened: {error}.", mend=_MEND) from error

    def __len__(self) -> int:
        return self._depth

    def put(self, topic: str, event: Event) -> int:
        """Keep an event; the number that `done` takes.

        Raises:
            StoreError: the disk is full or broken.
        """
        payload = encode(event)
        row = (topic, payload, event.type is EventType.UPDATE)
        number = self._run("INSERT INTO event (topic, payload, is_update) VALUES (?, ?, ?)", row).lastrowid
        if event.type is EventType.END:
            self._run("DELETE FROM open WHERE id = ?", (event.id,))
        else:
            self._run("INSERT OR REPLACE INTO open (id, topic, payload) VALUES (?, ?, ?)", (event.id, topic, payload))
        self._depth += 1
        if self._depth > self.max_events:
            self._discard(self._depth - self.max_events)
        return int(number or 0)

    def after(self, number: int, limit: int) -> list[tuple[int, str, Event]]:
        """Up to ``limit`` kept events with a number above ``number``, oldest first.

        One that cannot be read is discarded and counted.

        Raises:
            StoreError: the disk is broken.
        """
        query = "SELECT id, topic, payload FROM event WHERE id > ? ORDER BY id LIMIT ?"
        kept = []
        for row, topic, payload in self._run(query, (number, limit)).fetchall():
            if (event := self._read(payload)) is None:
                self.done(row)
            else:
                kept.append((int(row), str(topic), event))
        return kept

    def left_open(self) -> list[tuple[str, Event]]:
        """Topic and last event of every object without an ``end``, in the order of those events.

        To be asked for before anything is put: then these are of an earlier start. Each stays until its ``end`` is put.

        Raises:
            StoreError: the disk is full or broken.
        """
        left = []
        for id_, topic, payload in self._run("SELECT id, topic, payload FROM open ORDER BY rowid", ()).fetchall():
            if (event := self._read(payload)) is None:
                self._run("DELETE FROM open WHERE id = ?", (id_,))
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

    def done(self, number: int) -> None:
        """Forget an event that the broker has.

        Raises:
            StoreError: the disk is full or broken.
        """
        self._depth -= self._run("DELETE FROM event WHERE id = ?", (number,)).rowcount

    def commit(self, *, now: bool = False) -> None:
        """Make changes durable if any is older than 0.25 s, or all of them ``now``.

        Raises:
            StoreError: the disk is full or broken.
        """
        if self._dirty_since_s is None or (not now and time.monotonic() - self._dirty_since_s < COMMIT_EVERY_S):
            return
        self._dirty_since_s = None
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"The outbox {self._path} cannot be written: {error}.", mend=_MEND) from error

    def close(self) -> None:
        """Commit and close."""
        self.commit(now=True)
        self._db.close()

    def _run(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            if self._dirty_since_s is None:
                self._db.execute("BEGIN")
                self._dirty_since_s = time.monotonic()
            return self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise StoreError(f"The outbox {self._path} cannot be written: {error}.", mend=_MEND) from error

    def _discard(self, count: int) -> None:
        query = "SELECT id, is_update, topic, payload FROM event ORDER BY is_update DESC, id LIMIT ?"
        for number, is_update, topic, payload in self._run(query, (count,)).fetchall():
            self.done(int(number))
            self.discarded["update" if is_update else "start-or-end"] += 1
            if not is_update and (event := self._read(payload)) is not None and event.type is EventType.END:
                row = (event.id, topic, payload, MAX_OPEN)
                self._run("INSERT OR REPLACE INTO open SELECT ?, ?, ? WHERE (SELECT count(*) FROM open) < ?", row)
