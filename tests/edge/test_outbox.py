"""Nothing put into the outbox is lost before it is done, unless it is counted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from tinysight_contract.errors import StoreError
from tinysight_contract.messages import Event, EventType, decode
from tinysight_edge.outbox import Outbox

EXAMPLE = decode((Path(__file__).parents[1] / "golden" / "event.json").read_bytes(), Event)


def event(seq: int, kind: EventType = EventType.UPDATE) -> Event:
    return replace(EXAMPLE, seq=seq, type=kind, ended_at=EXAMPLE.seen_at if kind is EventType.END else None)


def seqs(outbox: Outbox) -> list[int]:
    return [each.seq for _, _, each in outbox.after(0, 10_000)]


def test_events_come_out_in_order_until_they_are_done(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    numbers = [outbox.put("topic", event(seq)) for seq in (1, 2, 3)]
    outbox.done(numbers[1])
    assert seqs(outbox) == [1, 3]
    assert len(outbox) == 2
    assert [topic for _, topic, _ in outbox.after(numbers[0], 10)] == ["topic"]
    outbox.close()


def test_events_survive_a_restart(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    outbox.put("topic", event(1))
    outbox.close()
    again = Outbox(tmp_path / "o.db")
    assert (seqs(again), len(again)) == ([1], 1)
    again.close()


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    first = outbox.put("topic", event(1))
    outbox.done(first)
    assert outbox.put("topic", event(2)) > first
    outbox.close()


def test_when_full_the_oldest_updates_go_first_and_all_that_went_are_counted(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db", max_events=4)
    for seq, kind in enumerate(["start", "update", "update", "end", "start", "update", "end"], start=1):
        outbox.put("topic", event(seq, EventType(kind)))
    assert seqs(outbox) == [1, 4, 5, 7]
    assert outbox.discarded == {"update": 3}
    outbox.put("topic", event(8, EventType.START))
    assert seqs(outbox) == [4, 5, 7, 8]
    assert outbox.discarded == {"update": 3, "start-or-end": 1}
    outbox.close()


def test_a_killed_process_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tinysight_edge.outbox import Outbox\n"
        "from tinysight_contract.messages import Event, decode; from msgspec.structs import replace\n"
        "e = decode(pathlib.Path(sys.argv[2]).read_bytes(), Event); o = Outbox(pathlib.Path(sys.argv[1])); n = 0\n"
        "while True:\n"
        " n += 1; o.put('t', replace(e, seq=n))\n"
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


def test_a_file_that_is_no_database_is_said_with_a_mend(tmp_path: Path) -> None:
    (tmp_path / "o.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreError, match="cannot be opened"):
        Outbox(tmp_path / "o.db")


def test_a_full_disk_is_said_with_a_mend(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.db")
    outbox._db.execute("PRAGMA max_page_count=8")

    def fill() -> None:
        for seq in range(1, 200):
            outbox.put("topic", event(seq))
            outbox.commit(now=True)

    with pytest.raises(StoreError, match="cannot be written"):
        fill()
    outbox._db.close()
