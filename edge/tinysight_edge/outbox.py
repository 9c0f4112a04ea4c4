"""Events that the broker has not acknowledged yet, kept on disk.

In: events in the order of their ``seq``.  Out: the same, until each is acknowledged. A killed process loses at most
what was put in the last quarter second before the kill and not yet sent; a commit each 0.25 s spares the SD card.
Bounded: when full, the oldest ``update``s go first, ``start`` and ``end`` last, and every one is counted.

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
        row = (topic, encode(event), event.type is EventType.UPDATE)
        number = self._run("INSERT INTO event (topic, payload, is_update) VALUES (?, ?, ?)", row).lastrowid
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
            try:
                kept.append((int(row), str(topic), decode(payload, Event)))
            except ContractError as error:
                log.error("event %d in the outbox cannot be read: %s", row, error)
                self.discarded["unreadable"] += 1
                self.done(row)
        return kept

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
        oldest = self._run("SELECT id, is_update FROM event ORDER BY is_update DESC, id LIMIT ?", (count,)).fetchall()
        for number, is_update in oldest:
            self.done(int(number))
            self.discarded["update" if is_update else "start-or-end"] += 1
