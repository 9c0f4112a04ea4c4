"""What is done with an outbox's file that is damaged: set it aside, and read out of it what can still be read.

In: the file.  Out: a file beside it, kept for whoever wants to look, and what was readable in a new one.
"""

import logging
import re
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tinysight_contract.messages import EventType
from tinysight_edge.outbox_file import MAX_NUMBER, OutboxFile
from tinysight_edge.outbox_row import check_sum, event_of, is_sound

__all__ = ["recover", "salvage", "set_aside"]

log = logging.getLogger(__name__)

KEEP: Final = 3  # of those set aside; each is as large as an outbox
BATCH: Final = 1000
AT_ONCE: Final = 256
TRIES: Final = 5000  # in a row; the steps grow, so this is far beyond any outbox
_PARTS: Final = ("-shm", "-wal", "")  # the file last: a log that it left behind would be taken for the new one's


def set_aside(path: Path) -> Path:
    """Rename the file, with its log, to ``<name>.damaged-<n>.db`` beside it; the newest three of these are kept.

    Raises:
        OSError: it cannot be renamed.
    """
    name = re.compile(re.escape(path.stem) + r"\.damaged-([0-9]{1,9})" + re.escape(path.suffix), re.ASCII)
    earlier = sorted(int(found[1]) for each in path.parent.iterdir() if (found := name.fullmatch(each.name)))

    def numbered(number: int, part: str) -> Path:
        return path.with_name(f"{path.stem}.damaged-{number}{path.suffix}{part}")

    for number in earlier[: max(0, len(earlier) - KEEP + 1)]:
        for part in _PARTS:
            numbered(number, part).unlink(missing_ok=True)
    aside = numbered(earlier[-1] + 1 if earlier else 1, "")
    _move(path, aside)
    return aside


def _move(old: Path, new: Path) -> None:
    for part in _PARTS:
        try:
            old.with_name(old.name + part).replace(new.with_name(new.name + part))
        except FileNotFoundError:
            new.with_name(new.name + part).unlink(missing_ok=True)


def recover(
    path: Path, error: sqlite3.Error, *, done: Collection[int], known: int | None
) -> tuple[OutboxFile, int, str]:
    """Set the file at ``path`` aside and begin a new one with what can be read of it.

    Args:
        path: of the file; nobody has it open.
        error: what is wrong with it.
        done: numbers of events that are no longer kept.
        known: so many others were in it; None when nobody knows.

    Returns:
        The new file, how many events are lost as far as anybody knows, and all of it in words.

    Raises:
        OSError: it cannot be set aside.
        sqlite3.Error: a new one cannot be made. Then the file is where it was, for the next start.
    """
    aside = set_aside(path)
    try:
        file = OutboxFile(path)
    except sqlite3.Error:
        _move(aside, path)
        raise
    unread, whole = salvage(aside, file, done)
    lost = unread + (not whole) if known is None else max(unread, known - file.rows)
    told = f"at least {lost}" if known is None and not whole else str(lost)
    what = (
        f"The outbox was damaged ({error}) and is set aside as {aside.name}; "
        f"{file.rows} events were read out of it, {told} are lost."
    )
    log.error("%s", what)
    return file, lost, what


def salvage(aside: Path, into: OutboxFile, done: Collection[int]) -> tuple[int, bool]:
    """Read what can be read and is not ``done``, in order and with its numbers.

    How many events were there but are not as they were written, and whether all there was could be read.
    """
    damage = _Damage()
    last: dict[str, tuple[str, bytes]] = {}
    unread = 0

    def events(db: sqlite3.Connection) -> Iterator[tuple[int, str, bytes, bool, int]]:
        nonlocal unread
        crc = "crc" if any(column[1] == "crc" for column in db.execute("PRAGMA table_info(event)")) else "NULL"
        query = f"SELECT id, topic, payload, {crc} FROM event WHERE id > ? ORDER BY id"  # noqa: S608 -- one of two words
        for number, topic, payload, crc_ in damage.rows(db, query):
            if number in done:
                continue
            if not is_sound(topic, payload, crc_) or (event := event_of(topic, payload)) is None:
                unread += 1
                continue
            last.pop(event.id, None)
            if event.type is not EventType.END:
                last[event.id] = topic, payload
            yield number, topic, payload, event.type is EventType.UPDATE, check_sum(topic, payload)

    def open_ones(db: sqlite3.Connection) -> Iterator[tuple[str, str, bytes]]:
        for _, id_, topic, payload in damage.rows(
            db, "SELECT rowid, id, topic, payload FROM open WHERE rowid > ? ORDER BY rowid"
        ):
            if (event := event_of(topic, payload)) is not None and event.id == id_:
                yield event.id, topic, payload

    try:
        with closing(sqlite3.connect(aside, isolation_level=None)) as db:
            found = events(db)
            while batch := list(islice(found, BATCH)):
                into.fill(batch, ())
            whole, damage.seen = not damage.seen, False
            open_ = list(open_ones(db))
            if damage.seen:  # then what is open is told by the events that wait
                open_ += [(id_, *row) for id_, row in last.items() if id_ not in {each[0] for each in open_}]
            into.fill((), open_)
            return unread, whole
    except (sqlite3.Error, OSError) as error:  # the disk is full: what was read until then is kept
        log.warning("%s could not be read to its end: %s", aside, error)
        return unread, False


class _Damage:
    """Reads a table in spite of it.

    Attributes:
        seen: something could not be read.
    """

    def __init__(self) -> None:
        self.seen = False

    def rows(self, db: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
        """Many rows at once; where that fails one by one, and past each that fails, in steps that grow."""
        at, many, failed = 0, AT_ONCE, 0
        while failed < TRIES and at < MAX_NUMBER:
            try:
                rows = db.execute(f"{query} LIMIT {many}", (at,)).fetchall()
                if not all(before[0] < row[0] for before, row in zip([(at,), *rows], rows, strict=False)):
                    raise sqlite3.DatabaseError("its order is broken")
            except sqlite3.Error:
                self.seen = True
                if many == 1:
                    at += 1 + failed // 16
                    failed += 1
                many = 1
                continue
            if not rows:
                return
            yield from rows
            at, many, failed = rows[-1][0], min(2 * many, AT_ONCE), 0
