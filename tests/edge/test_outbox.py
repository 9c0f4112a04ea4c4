"""Nothing put into the outbox is lost before it is done, unless it is counted."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.messages import Event, EventType, decode
from tinysight_contract.topics import EventTopic
from tinysight_edge import outbox as outbox_module
from tinysight_edge.config.types import OutboxConfig
from tinysight_edge.outbox import Outbox


def topic(camera: str) -> str:
    return str(EventTopic("plant-1", "belt-7", camera))


TOPIC = topic("cam0")
EXAMPLE = decode((Path(__file__).parents[1] / "golden" / "event.json").read_bytes(), Event)


def event(seq: int, kind: EventType = EventType.UPDATE) -> Event:
    return replace(EXAMPLE, seq=seq, type=kind, ended_at=EXAMPLE.seen_at if kind is EventType.END else None)


def seqs(outbox: Outbox) -> list[int]:
    return [decode(each, Event).seq for _, _, each in outbox.after(0, 10_000)]


def test_events_come_out_in_order_until_they_are_done(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    numbers = [outbox.put(TOPIC, event(seq)) for seq in (1, 2, 3)]
    outbox.done(numbers[1])
    assert seqs(outbox) == [1, 3]
    assert len(outbox) == 2
    assert [topic for _, topic, _ in outbox.after(numbers[0], 10)] == [TOPIC]
    outbox.close()


def test_events_survive_a_restart(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    outbox.put(TOPIC, event(1))
    outbox.close()
    again = Outbox(tmp_path / "o.db")
    assert (seqs(again), len(again)) == ([1], 1)
    again.close()


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    first = outbox.put(TOPIC, event(1))
    outbox.done(first)
    assert outbox.put(TOPIC, event(2)) > first
    outbox.close()


def test_when_full_the_oldest_updates_go_first_and_all_that_went_are_counted(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", OutboxConfig(max_events=4))
    for seq, kind in enumerate(["start", "update", "update", "end", "start", "update", "end"], start=1):
        outbox.put(TOPIC, event(seq, EventType(kind)))
    assert seqs(outbox) == [1, 4, 5, 7]
    assert outbox.discarded == {"update": 3}
    outbox.put(TOPIC, event(8, EventType.START))
    assert seqs(outbox) == [4, 5, 7, 8]
    assert outbox.discarded == {"update": 3, "start-or-end": 1}
    outbox.close()


def test_a_killed_process_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tinysight_edge.outbox import Outbox\n"
        "from tinysight_contract.messages import Event, decode; from msgspec.structs import replace\n"
        "t = 'tinysight/v1/s/d/camera/c/event'\n"
        "e = decode(pathlib.Path(sys.argv[2]).read_bytes(), Event); o = Outbox(pathlib.Path(sys.argv[1])); n = 0\n"
        "while True:\n"
        " n += 1; o.put(t, replace(e, seq=n))\n"
        " if n % 50 == 0: o.commit(now=True); print(n, flush=True)"
    )
    path, golden = tmp_path / "o.db", Path(__file__).parents[1] / "golden" / "event.json"
    for _ in range(3):
        path.unlink(missing_ok=True)
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(golden)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            committed = [int(writer.stdout.readline()) for _ in range(20)][-1]
            time.sleep(0.03)
            os.kill(writer.pid, signal.SIGKILL)
        outbox = Outbox(path)
        kept = seqs(outbox)
        assert kept == list(range(1, len(kept) + 1))
        assert len(kept) >= committed
        outbox.close()


def of(object_id: str, seq: int, kind: str) -> Event:
    return replace(event(seq, EventType(kind)), id=object_id)


def left(outbox: Outbox) -> list[tuple[str, int]]:
    return [(each.id, each.seq) for _, each in outbox.left_open()]


def test_what_has_no_end_is_open_with_its_last_event_although_all_was_delivered(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    story = [("a", "start"), ("b", "start"), ("a", "update"), ("c", "start"), ("b", "end")]
    for seq, (object_id, kind) in enumerate(story, start=1):
        outbox.done(outbox.put(topic(object_id), of(object_id, seq, kind)))
    outbox.close()
    again = Outbox(tmp_path / "o.db")
    assert len(again) == 0
    assert left(again) == [("a", 3), ("c", 4)]
    assert [each for each, _ in again.left_open()] == [topic("a"), topic("c")]
    again.put(topic("a"), of("a", 1, "end"))
    assert left(again) == [("c", 4)]
    again.close()


steps = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["start", "update", "end"])), max_size=30)


@given(steps, st.integers(1, 5))
def test_the_open_ones_are_those_whose_end_was_not_put_or_was_given_up(story: list[tuple[str, str]], room: int) -> None:
    outbox = Outbox(Path(":memory:"), OutboxConfig(max_events=room))
    open_: dict[str, int] = {}
    for seq, (object_id, kind) in enumerate(story, start=1):
        before = {(event := decode(each, Event)).seq: event for _, _, each in outbox.after(0, 99)}
        outbox.put(TOPIC, new := of(object_id, seq, kind))
        open_.pop(object_id, None)
        if kind != "end":
            open_[object_id] = seq
        kept = set(seqs(outbox))
        for given_up in (each for each in [*before.values(), new] if each.seq not in kept):
            if given_up.type is EventType.END:
                open_[given_up.id] = given_up.seq
        assert dict(left(outbox)) == open_
        assert len(outbox) == min(seq, room)
    outbox.close()


def test_ends_that_are_given_up_leave_no_more_than_a_thousand_open(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", OutboxConfig(max_events=2))
    for seq in range(1, 1100):
        outbox.put(TOPIC, of(f"o{seq}", seq, "end"))
    assert left(outbox) == [(f"o{seq}", seq) for seq in range(1, 1001)]
    outbox.close()


def test_after_a_kill_the_open_ones_are_those_of_the_events_that_were_kept(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tinysight_edge.outbox import Outbox\n"
        "from tinysight_contract.messages import Event, EventType, decode; from msgspec.structs import replace\n"
        "t = 'tinysight/v1/s/d/camera/c/event'\n"
        "e = decode(pathlib.Path(sys.argv[2]).read_bytes(), Event); o = Outbox(pathlib.Path(sys.argv[1])); n = 0\n"
        "e = replace(e, type=EventType.START, ended_at=None)\n"
        "while True:\n"
        " n += 1; o.put(t, replace(e, seq=n, id=f'o{n}'))\n"
        " if n > 3: n += 1; o.put(t, replace(e, seq=n, id=f'o{n - 4}', type=EventType.END, ended_at=e.seen_at))\n"
        " o.commit(); print(len(o._new), flush=True)"
    )
    path, golden = tmp_path / "o.db", Path(__file__).parents[1] / "golden" / "event.json"
    for wait_s in (0.0, 0.15, 0.3):
        path.unlink(missing_ok=True)
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(golden)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            while writer.stdout.readline() != "0\n":  # it has not been written for the first time
                pass
            time.sleep(wait_s)
            os.kill(writer.pid, signal.SIGKILL)
            writer.stdout.read()
        outbox = Outbox(path)
        kept = [decode(each, Event) for _, _, each in outbox.after(0, 1_000_000)]
        ended = {each.id for each in kept if each.type is EventType.END}
        assert kept
        assert left(outbox) == [(each.id, each.seq) for each in kept if each.id not in ended]
        outbox.close()


def test_an_outbox_of_before_there_were_open_ones_is_opened_as_it_is(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "o.db", isolation_level=None) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.execute(
            """CREATE TABLE event (id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL,
            is_update INTEGER NOT NULL)"""
        )
        old.execute("CREATE INDEX oldest ON event (is_update DESC, id)")
        payload = (Path(__file__).parents[1] / "golden" / "event.json").read_bytes()
        old.execute("INSERT INTO event (topic, payload, is_update) VALUES (?, ?, 1)", (TOPIC, payload))
    old.close()
    outbox = Outbox(tmp_path / "o.db")
    assert (len(outbox), left(outbox)) == (1, [])
    outbox.put(TOPIC, of("a", 7, "start"))
    assert left(outbox) == [("a", 7)]
    outbox.close()


def test_an_open_one_that_cannot_be_read_is_counted_and_forgotten(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    outbox.put(TOPIC, of("a", 1, "start"))
    outbox.commit(now=True)
    outbox._file.db.execute("UPDATE open SET payload = '{}'")
    assert left(outbox) == []
    assert outbox.discarded == {"unreadable": 1}
    assert left(outbox) == []
    assert outbox.discarded == {"unreadable": 1}
    outbox.close()


def limit(outbox: Outbox, pages: int) -> None:
    """To SQLite the disk is full when it has so many pages."""
    outbox._file.db.execute(f"PRAGMA max_page_count={pages}")


def test_a_full_disk_is_said_and_what_is_new_waits_in_memory_until_there_is_room(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    outbox.put(TOPIC, of("a", 1, "start"))
    outbox.commit(now=True)
    limit(outbox, 1)
    for seq in range(2, 102):
        outbox.put(TOPIC, event(seq))
    outbox.put(TOPIC, of("a", 102, "end"))
    outbox.commit(now=True)
    assert "cannot be written: database or disk is full" in str(outbox.trouble)
    assert seqs(outbox) == list(range(1, 103))
    assert left(outbox) == [("a", 1)], "as it stands in the file"
    for number, _, each in outbox.after(0, 60):
        if decode(each, Event).seq % 2:
            outbox.done(number)
    outbox.commit(now=True)
    kept = [seq for seq in range(1, 103) if seq > 60 or seq % 2 == 0]
    assert (seqs(outbox), len(outbox)) == (kept, len(kept))
    limit(outbox, 10_000)
    outbox.commit(now=True)
    assert outbox.trouble is None
    outbox.close()
    again = Outbox(tmp_path / "o.db")
    assert (seqs(again), len(again)) == (kept, len(kept))
    assert "a" not in dict(left(again))
    again.close()


def test_what_waits_in_memory_is_bounded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_HELD", 5)
    outbox = Outbox(tmp_path / "o.db")
    outbox.commit(now=True)
    limit(outbox, 1)
    while outbox.trouble is None:
        outbox.put(TOPIC, of("x", 1, "start"))
        outbox.commit(now=True)
    for number in [number for number, _, _ in outbox.after(0, 10_000)]:
        outbox.done(number)
    for seq, kind in enumerate(["start", "update", "update", "end", "start", "update", "end", "end"], start=1):
        outbox.put(TOPIC, of(f"o{seq}", seq, kind))
    assert seqs(outbox) == [1, 4, 5, 7, 8]
    outbox.put(TOPIC, of("o9", 9, "start"))
    outbox.put(TOPIC, of("o10", 10, "start"))
    assert seqs(outbox) == [5, 7, 8, 9, 10]
    assert outbox.discarded == {"update": 3, "start-or-end": 2}
    limit(outbox, 10_000)
    assert ("o4", 4) in left(outbox), "an end that was given up is told at the next start"
    outbox.close()


def test_an_event_that_is_acknowledged_at_once_is_never_written(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    outbox.done(outbox.put(TOPIC, event(1)))
    outbox.commit(now=True)
    assert outbox._file.last == 0
    assert outbox._file.db.execute("SELECT count(*) FROM event").fetchone() == (0,)
    outbox.close()


def test_what_ends_while_nothing_can_be_written_leaves_no_trace_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_HELD", 50)
    monkeypatch.setattr(outbox_module, "MAX_OPEN", 20)
    outbox = Outbox(tmp_path / "o.db")
    outbox.put(TOPIC, of("filed", 1, "start"))
    outbox.commit(now=True)
    limit(outbox, 1)
    for seq in range(2, 2000, 2):
        outbox.put(TOPIC, of(f"o{seq}", seq, "start"))
        outbox.put(TOPIC, of(f"o{seq}", seq + 1, "end"))
        outbox.commit(now=outbox.trouble is None)
    assert "cannot be written" in str(outbox.trouble)
    assert len(outbox._new) <= 50
    assert len(outbox._open) <= 20
    outbox.put(TOPIC, of("filed", 2001, "end"))
    limit(outbox, 10_000)
    outbox.commit(now=True)
    assert outbox.trouble is None
    assert "filed" not in dict(left(outbox)), "an end of what is in the file is not forgotten"
    outbox.close()


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow: every write of this process fails as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("old", [True, False], ids=["the file is there", "it is not"])
def test_a_start_on_a_full_disk_keeps_events_in_memory_and_the_old_ones_for_the_next_start(
    old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_HELD", 5)
    if old:
        before = Outbox(tmp_path / "o.db")
        before.put(TOPIC, of("old", 1, "start"))
        before.close()
    with full_disk():
        outbox = Outbox(tmp_path / "o.db")
        assert left(outbox) == []
        for seq in range(1, 9):
            outbox.put(TOPIC, event(seq))
        outbox.commit(now=True)
        trouble = outbox.trouble
        assert trouble is not None
        assert "cannot be opened" in trouble.what
        assert trouble.mend.startswith("Free some space")
        assert seqs(outbox) == [4, 5, 6, 7, 8], "no more than fits into memory"
        assert outbox.discarded == {"update": 3}
        outbox.done(outbox.after(0, 1)[0][0])
    outbox.commit(now=True)
    assert outbox.trouble is trouble, "it stays said until the next start"
    outbox.close()
    assert "4 events are lost" in caplog.text
    again = Outbox(tmp_path / "o.db")
    assert (seqs(again), left(again)) == (([1], [("old", 1)]) if old else ([], []))
    assert again.trouble is None
    again.close()


def test_a_damaged_file_on_a_full_disk_waits_for_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "o.db").write_bytes(b"nonsense" * 1000)
    with full_disk():
        outbox = Outbox(tmp_path / "o.db")
        outbox.put(TOPIC, event(1))
        outbox.commit(now=True)
        assert "is damaged (file is not a database), and cannot be replaced" in str(outbox.trouble)
        assert (seqs(outbox), outbox.damage, outbox.discarded) == ([1], None, {})
    outbox.close()
    assert [each.name for each in tmp_path.iterdir()] == ["o.db"]
    again = Outbox(tmp_path / "o.db")
    assert (again.set_aside, again.trouble, again.discarded) == (1, None, {"damaged": 1})
    again.close()


def test_a_disk_that_cannot_be_read_is_said_and_hides_the_file_meanwhile(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    outbox.put(TOPIC, event(1))
    outbox.commit(now=True)
    whole = outbox._file.db

    class Unread:
        """A connection to a disk that does not answer."""

        def execute(self, *_: object) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
            raise error

    outbox._file.db = Unread()  # type: ignore[assignment]  # a real disk does not fail to read on demand
    outbox.put(TOPIC, event(2))
    assert seqs(outbox) == [2]
    assert "cannot be read: disk I/O error" in str(outbox.trouble)
    outbox._file.db = whole
    outbox.commit(now=True)
    assert (seqs(outbox), outbox.trouble) == ([1, 2], None)
    outbox.close()


def test_a_start_is_written_before_it_can_be_told_and_the_rest_only_when_it_waits(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    outbox.away = False
    with closing(sqlite3.connect(tmp_path / "o.db")) as other:

        def written() -> tuple[int, int]:
            outbox.commit()
            count = "SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM open)"
            events, open_ = other.execute(count).fetchone()
            return events, open_

        outbox.done(outbox.put(TOPIC, of("a", 1, "start")))
        assert written() == (0, 1)
        number = outbox.put(TOPIC, of("b", 2, "start"))
        assert written() == (1, 2)
        outbox.done(number)
        for seq in (3, 4):
            outbox.done(outbox.put(TOPIC, of("ab"[seq - 3], seq, "end")))
        assert written() == (1, 2), "what is acknowledged soon"
        outbox.close()
    again = Outbox(tmp_path / "o.db")
    assert (left(again), len(again)) == ([], 0)
    again.close()
