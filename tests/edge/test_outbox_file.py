"""A kill, a cut, a damaged file: what was kept comes back as it was, what did not is counted, and telling goes on."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from tinysight_contract.messages import Event, EventType, decode, encode
from tinysight_contract.topics import EventTopic
from tinysight_edge import outbox as outbox_module
from tinysight_edge import outbox_file
from tinysight_edge.config.types import OutboxConfig
from tinysight_edge.outbox import Outbox
from tinysight_edge.outbox_file import OutboxFile
from tinysight_edge.units import Seconds, Size

GOLDEN = Path(__file__).parents[1] / "golden" / "event.json"
EXAMPLE = decode(GOLDEN.read_bytes(), Event)
TOPIC = str(EventTopic("plant-1", "belt-7", "cam0"))
PAGE, FRAME, HEAD = 4096, 4096 + 24, 32  # of the file and of its log
KINDS = (EventType.START, EventType.UPDATE, EventType.UPDATE, EventType.END)


def event(seq: int) -> Event:
    """Objects of four events each."""
    kind = KINDS[(seq - 1) % 4]
    ended_at = EXAMPLE.seen_at if kind is EventType.END else None
    return replace(EXAMPLE, seq=seq, id=f"o{(seq - 1) // 4}", type=kind, ended_at=ended_at)


def put(outbox: Outbox, seqs: range) -> None:
    for seq in seqs:
        outbox.put(TOPIC, event(seq))
    outbox.commit(now=True)


def kept(outbox: Outbox) -> list[int]:
    """Of what is in it, each is exactly as it was put."""
    rows = outbox.after(0, 1_000_000)
    seqs = [decode(payload, Event).seq for _, _, payload in rows]
    assert [(topic, payload) for _, topic, payload in rows] == [(TOPIC, encode(event(seq))) for seq in seqs]
    assert [number for number, _, _ in rows] == sorted({number for number, _, _ in rows})
    return seqs


def parts(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir() if not each.name.endswith(("-shm", "-wal")))


# Kills and cuts.


def test_a_kill_right_after_a_commit_while_the_broker_is_away_loses_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from tinysight_edge.outbox import Outbox\n"
        "from tinysight_contract.messages import Event, decode; from msgspec.structs import replace\n"
        "e = decode(pathlib.Path(sys.argv[1]).read_bytes(), Event); n = 0\n"
        "for path in sys.stdin:\n"
        " if (writer := os.fork()) == 0:\n"
        "  o = Outbox(pathlib.Path(path.strip())); o.away = True\n"
        "  while True:\n"
        "   n += 1; o.put(sys.argv[2], replace(e, seq=n)); o.commit(); os.write(1, b'%d\\n' % n)\n"
        " os.write(1, b'pid %d\\n' % writer); os.waitpid(writer, 0); os.write(1, b'end\\n')\n"
    )
    chance = random.Random(5)
    command = [sys.executable, "-c", code, str(GOLDEN), TOPIC]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None
        for turn in range(20):
            path, told, writer = tmp_path / f"{turn}.db", 0, 0
            starter.stdin.write(f"{path}\n")
            wanted = chance.randint(1, 400)
            while (line := starter.stdout.readline()) != "end\n":
                if line.startswith("pid "):
                    writer = int(line[4:])
                else:
                    told = int(line)
                if writer and told >= wanted:
                    os.kill(writer, signal.SIGKILL)
                    writer = 0
            outbox = Outbox(path)
            seqs = [decode(payload, Event).seq for _, _, payload in outbox.after(0, 1_000_000)]
            outbox.close()
            assert seqs == list(range(1, len(seqs) + 1))
            assert len(seqs) - told in {0, 1}, "what was committed is there, and no more than was put"
        starter.stdin.close()


def test_the_disk_syncs_as_often_as_configured_and_only_for_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(OutboxFile, "sync", lambda self: synced.append(self.rows))
    for every_s, expected in ((3600.0, 0), (0.0, 50)):
        outbox = Outbox(tmp_path / f"{every_s}.db", OutboxConfig(sync_every=Seconds(every_s)))
        put(outbox, range(1, 2))
        synced.clear()
        for seq in range(2, 52):
            put(outbox, range(seq, seq + 1))
            outbox.commit()
        assert len(synced) == expected
        outbox.close()


def test_a_disk_that_does_not_sync_is_said_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "AGAIN_S", 0.0)
    outbox = Outbox(tmp_path / "o.db", OutboxConfig(sync_every=Seconds(0.0)))

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as fault:
        fault.setattr(os, "fsync", broken)
        put(outbox, range(1, 2))
        assert "cannot be synced" in str(outbox.trouble)
    put(outbox, range(2, 3))
    assert (outbox.trouble, kept(outbox)) == (None, [1, 2])
    outbox.close()


@pytest.fixture(scope="module")
def as_killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """File and log of an outbox of 80 events, the last 20 in the log alone, as a kill leaves them."""
    path = tmp_path_factory.mktemp("killed") / "o.db"
    outbox = Outbox(path)
    for seq in range(1, 81):
        if seq == 61:
            outbox._file.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        put(outbox, range(seq, seq + 1))
    left = path.read_bytes(), path.with_name("o.db-wal").read_bytes()
    outbox.close()
    return left


def revive(folder: Path, file: bytes, written: bytes) -> tuple[Outbox, list[int]]:
    """Open what is left of an outbox; see that it goes on, also at the next start; what came back."""
    path = folder / "o.db"
    path.write_bytes(file)
    path.with_name("o.db-wal").write_bytes(written)
    outbox = Outbox(path)
    outbox.left_open()
    back = kept(outbox)
    assert len(back) + sum(outbox.discarded.values()) <= 81
    assert (outbox.set_aside > 0) == (outbox.damage is not None)
    number = outbox.put(TOPIC, event(1001))
    outbox.commit(now=True)
    assert all(number > each for each, _, _ in outbox.after(0, 1000)[:-1])
    assert (outbox.trouble, kept(outbox)) == (None, [*back, 1001])
    outbox.close()
    again = Outbox(path)
    assert (again.set_aside, kept(again)) == (0, [*back, 1001])
    again.close()
    for each in folder.iterdir():
        each.unlink()
    return outbox, back


def test_a_log_that_was_cut_at_any_place_gives_what_was_written_before(
    as_killed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    file, written = as_killed
    assert (len(written) - HEAD) // FRAME > 50
    before = 60
    torn = range(HEAD + FRAME // 2, len(written), 8 * FRAME)
    for cut in sorted([0, HEAD - 1, *range(HEAD, len(written) + 1, FRAME), *torn]):
        outbox, back = revive(tmp_path, file, written[:cut])
        assert back == list(range(1, len(back) + 1))
        assert len(back) >= before
        assert (outbox.set_aside, outbox.discarded) == (0, {})
        before = len(back)
    assert before == 80


def test_a_file_that_was_cut_at_any_page_is_set_aside_and_gives_what_is_left(
    as_killed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    file, written = as_killed
    pages = len(file) // PAGE
    assert pages > 15
    found = []
    for page in range(pages):
        for rest in (written, b""):
            outbox, back = revive(tmp_path, file[: page * PAGE], rest)
            there = 80 if rest else 60
            if page and len(back) < there:
                assert outbox.set_aside == 1
                assert 1 <= outbox.discarded["damaged"] <= there - len(back), "no more than is known"
                assert "is set aside as o.damaged-1.db" in str(outbox.damage)
            found.append(len(back))
    assert max(found) > 50, "what is before the cut can be read"


def test_garbage_in_any_page_is_never_told_and_what_it_took_is_counted(
    as_killed: tuple[bytes, bytes], tmp_path: Path
) -> None:
    file, _ = as_killed
    chance = random.Random(7)
    most = []
    for place in range(0, len(file), PAGE):
        for length in (1, 40, PAGE):
            at = place + chance.randrange(PAGE - length + 1)
            hurt = file[:at] + chance.randbytes(length) + file[at + length :]
            outbox, back = revive(tmp_path, hurt, b"")
            if back != list(range(1, 61)):
                assert outbox.discarded.total() >= 1
            most.append(len(back))
    assert sorted(most)[len(most) // 3] > 40, "mostly little is lost"


def test_damage_that_shows_while_it_runs_is_set_aside_and_the_queue_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    first = Outbox(path)
    put(first, range(1, 1001))
    first.close()
    outbox = Outbox(path)
    outbox._file.db.execute("PRAGMA cache_size=1")
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in (size // PAGE // 3, size // PAGE // 2):
            file.seek(page * PAGE)
            file.write(bytes(PAGE))
    outbox.done(1)
    outbox.put(TOPIC, event(1001))
    back = kept(outbox)
    assert outbox.set_aside == 1
    assert back[-1] == 1001
    assert back[0] == 2
    assert len(back) > 980
    assert outbox.discarded == {"damaged": 1000 - len(back)}, "all the others are counted"
    assert len(outbox) == len(back)
    outbox.done(2)
    outbox.put(TOPIC, event(1002))
    outbox.commit(now=True)
    assert kept(outbox) == [*back[1:], 1002]
    outbox.close()
    again = Outbox(path)
    assert kept(again) == [*back[1:], 1002]
    assert [(topic, each.id) for topic, each in again.left_open()] == [(TOPIC, "o250")]
    again.close()


def test_what_was_open_is_told_by_the_events_that_wait_when_it_cannot_be_read(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    put(outbox, range(1, 7))
    outbox._file.db.execute("DROP TABLE open")
    put(outbox, range(9, 10))
    assert (outbox.set_aside, kept(outbox)) == (1, [1, 2, 3, 4, 5, 6, 9])
    assert [(each.id, each.seq) for _, each in outbox.left_open()] == [("o1", 6), ("o2", 9)]
    outbox.close()


def test_a_file_that_is_none_of_ours_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def foreign() -> Iterator[str]:
        (tmp_path / "o.db").write_bytes(b"nonsense" * 1000)
        yield "file is not a database"
        for statement, what in (
            ("CREATE TABLE other (id)", "another program"),
            ("CREATE TABLE event (id, name)", "no such column"),
            ("PRAGMA user_version=7", "version (7)"),
            ("CREATE TABLE event (id INTEGER PRIMARY KEY, topic, payload, is_update)", "no such column: crc"),
        ):
            (tmp_path / "o.db").unlink()
            with closing(sqlite3.connect(tmp_path / "o.db")) as db:
                db.execute(statement)
                db.execute("PRAGMA user_version=1") if "crc" in what else None
            yield what

    for turn, what in enumerate(foreign(), start=1):
        outbox = Outbox(tmp_path / "o.db")
        put(outbox, range(1, 3))
        assert kept(outbox) == [1, 2]
        assert outbox.set_aside == 1
        assert outbox.discarded["damaged"] <= 1
        outbox.close()
        names = [f"o.damaged-{number}.db" for number in range(max(1, turn - 2), turn + 1)]
        assert parts(tmp_path / "o.db") == [*names, "o.db"], "the newest three are kept"
        assert what in caplog.text


def test_a_disk_that_damages_every_file_is_left_alone_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_ASIDE", 4)
    outbox = Outbox(tmp_path / "o.db")
    for seq in range(1, 6):
        outbox._file.db.execute("DROP TABLE open")
        put(outbox, range(seq, seq + 1))
    assert outbox.set_aside == 4
    assert "no such table" in str(outbox.trouble)
    put(outbox, range(6, 8))
    assert kept(outbox) == [5, 6, 7], "from now on in memory; what was in the file waits in it for the next start"
    outbox.close()
    assert parts(tmp_path / "o.db") == ["o.damaged-2.db", "o.damaged-3.db", "o.damaged-4.db", "o.db"]
    again = Outbox(tmp_path / "o.db")
    assert kept(again) == [1, 2, 3, 4]
    again.close()


def test_a_file_that_another_program_holds_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_file, "BUSY_S", 0.01)
    outbox = Outbox(tmp_path / "o.db")
    put(outbox, range(1, 2))
    with closing(sqlite3.connect(tmp_path / "o.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        put(outbox, range(2, 3))
        assert "database is locked" in str(outbox.trouble)
        assert kept(outbox) == [1, 2]
    outbox.commit(now=True)
    assert (outbox.trouble, outbox.set_aside, kept(outbox)) == (None, 0, [1, 2])
    outbox.close()


# Bounds.


def test_no_more_than_the_size_is_kept_and_updates_go_first(tmp_path: Path) -> None:
    size = sum(len(encode(event(seq))) for seq in range(1, 9))
    outbox = Outbox(tmp_path / "o.db", OutboxConfig(max_size=Size(size + 20)))
    put(outbox, range(1, 9))
    assert outbox.share > 0.99
    put(outbox, range(9, 11))
    assert kept(outbox) == [1, 4, 5, 6, 7, 8, 9, 10]
    assert outbox.discarded == {"update": 2}
    put(outbox, range(11, 17))
    assert kept(outbox) == [5, 8, 9, 11, 12, 13, 16] or outbox.discarded["start-or-end"]
    assert sum(len(payload) for _, _, payload in outbox.after(0, 100)) <= size + 20
    outbox.close()


def seen(outbox: Outbox, seq: int, *, ago_s: float, sure: bool | None = True) -> int:
    seen_at = EXAMPLE.seen_at - timedelta(seconds=ago_s)
    return outbox.put(TOPIC, replace(event(seq), seen_at=seen_at, started_at=seen_at, clock_synced=sure))


def test_what_is_too_old_goes_unless_its_time_is_not_sure(tmp_path: Path) -> None:
    config = OutboxConfig(max_age=Seconds(3600.0))
    outbox = Outbox(tmp_path / "o.db", config)
    for seq, ago_s, sure in ((1, 7200, True), (2, 7200, False), (3, 7200, None), (4, 3700, True), (5, 3000, True)):
        seen(outbox, seq, ago_s=ago_s, sure=sure)
        outbox.commit(now=True)
    outbox.close()
    outbox = Outbox(tmp_path / "o.db", config)
    outbox.commit(now=True)
    seen(outbox, 6, ago_s=0, sure=False)
    outbox.commit(now=True)
    assert [number for number, _, _ in outbox.after(0, 9)] == [2, 3, 4, 5, 6], "by a clock that is not sure none is old"
    seen(outbox, 7, ago_s=0)
    outbox.commit(now=True)
    assert [number for number, _, _ in outbox.after(0, 9)] == [2, 3, 5, 6, 7]
    assert outbox.discarded == {"old": 1}
    assert {each.id for _, each in outbox.left_open()} == {"o0", "o1"}, "an end that was too old to be told"
    outbox.close()


def test_a_clock_that_is_set_back_makes_nothing_old(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", OutboxConfig(max_age=Seconds(3600.0)))
    for seq, ago_s in enumerate((10, 9, 3609, 3608, 3607), start=1):
        seen(outbox, seq, ago_s=ago_s)
        outbox.commit(now=True)
    assert len(outbox.after(0, 9)) == 5
    assert outbox.discarded == {}
    outbox.close()


def test_age_goes_on_while_nothing_is_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(tmp_path / "o.db", OutboxConfig(max_age=Seconds(3600.0)))
    seen(outbox, 1, ago_s=0)
    outbox.commit()
    late_s = time.monotonic() + 3601
    monkeypatch.setattr(time, "monotonic", lambda: late_s)
    outbox.commit()
    assert outbox.discarded == {"old": 1}
    outbox.close()


def test_a_flood_is_bounded_and_drained_and_leaves_a_small_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(tmp_path / "o.db", OutboxConfig(max_events=80_000))
    story = [event(seq) for seq in range(1, 5)]
    for seq in range(1, 100_001):
        outbox.put(TOPIC, story[seq % 4])
        if seq % 500 == 0:
            outbox.commit()
    assert outbox.discarded.keys() == {"update"}
    assert len(outbox) + outbox.discarded["update"] == 100_000
    assert 79_900 <= len(outbox) <= 80_000
    outbox.away = False
    number = told = 0
    while rows := outbox.after(number, 1000):
        for number, _, _ in rows:
            outbox.done(number)
        told += len(rows)
        outbox.commit()
    assert told + outbox.discarded["update"] == 100_000
    monkeypatch.setattr(outbox_module, "TIDY_EVERY_S", 0.0)
    outbox.commit(now=True)
    outbox.commit()
    assert len(outbox) == 0
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 2**20
    put(outbox, range(1, 3))
    assert kept(outbox) == [1, 2]
    outbox.close()


# What waits and what is new.


def test_what_waits_and_what_came_since_are_read_apart(tmp_path: Path) -> None:
    first = Outbox(tmp_path / "o.db")
    put(first, range(1, 11))
    first.close()
    outbox = Outbox(tmp_path / "o.db")
    waiting = outbox.put(TOPIC, event(11))
    for seq in range(12, 21):
        outbox.put(TOPIC, event(seq))
        if seq == 15:
            outbox.commit(now=True)

    def numbers(number: int, limit: int, up_to: int | None = None) -> list[int]:
        return [each for each, _, _ in outbox.after(number, limit, up_to=up_to)]

    for moment in ("before", "after"):
        assert numbers(0, 4, waiting) == [1, 2, 3, 4], moment
        assert numbers(8, 100, waiting) == [9, 10, 11], moment
        assert numbers(11, 100, waiting) == [], moment
        assert numbers(waiting, 100) == list(range(12, 21)), moment
        assert numbers(14, 3) == [15, 16, 17], moment
        outbox.commit(now=True)
    for number in (3, 12, 17):
        outbox.done(number)
    assert numbers(0, 4, waiting) == [1, 2, 4, 5]
    assert numbers(waiting, 4) == [13, 14, 15, 16]
    outbox.commit(now=True)
    assert numbers(waiting, 100) == [13, 14, 15, 16, 18, 19, 20]
    assert len(outbox) == 17
    for number in (3, 12, 17, 99, 0):  # said twice, or never given
        outbox.done(number)
    outbox.commit(now=True)
    assert len(outbox) == 17
    outbox.close()


def test_an_event_that_nobody_could_read_is_counted_and_not_kept(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    numbers = [
        outbox.put(TOPIC, replace(event(1), score=float("nan"))),
        outbox.put(TOPIC, replace(event(2), label="null and nan")),
    ]
    assert [number for number, _, _ in outbox.after(0, 9)] == numbers[1:]
    assert outbox.discarded == {"unreadable": 1}
    outbox.done(numbers[0])
    outbox.commit(now=True)
    assert len(outbox) == 1
    outbox.close()
