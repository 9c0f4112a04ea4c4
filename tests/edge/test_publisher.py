"""What the publisher says to a real broker, and what it makes of a disk that fails."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.errors import StoreError
from tinysight_contract.messages import Counts, Event, Health, OutboxHealth, Status, decode, utc_now
from tinysight_edge.outbox import Outbox
from tinysight_edge.publisher import Publisher

GOLDEN = Path(__file__).parents[1] / "golden"
EXAMPLE = decode((GOLDEN / "event.json").read_bytes(), Event)
EVENTS = t.EventTopic("plant-1", "belt-7", "cam0")
COUNTS = t.CountsTopic("plant-1", "belt-7", "cam0")

Make = Callable[..., Publisher]


def counts(number: int) -> Counts:
    return Counts(at=utc_now(), boot_id="b1", objects={"7": number}, zones={}, lines={})


def test_events_and_state_arrive_and_the_end_is_told(
    mosquitto: Any, make_reader: Any, make_publisher: Make, eventually: Any
) -> None:
    reader = make_reader(mosquitto.url)
    publisher = make_publisher(mosquitto.url)
    publisher.wait_first_connect()
    for seq in range(1, 301):
        publisher.event(EVENTS, replace(EXAMPLE, seq=seq))
    publisher.state(COUNTS, counts(2))
    assert publisher.close(drain_s=10) == 0
    eventually(lambda: len(reader.of(t.StatusTopic)) == 2)
    assert [event.seq for event in reader.events()] == list(range(1, 301))
    assert not any(event.replayed for event in reader.events())
    assert publisher.sent == 300
    assert [decode(raw, Status).reason for raw in reader.of(t.StatusTopic)] == ["started", "stopped"]
    assert decode(reader.of(t.CountsTopic)[-1], Counts).objects == {"7": 2}


def test_health_comes_at_its_interval(mosquitto: Any, make_reader: Any, make_publisher: Make, eventually: Any) -> None:
    reader = make_reader(mosquitto.url)
    make_publisher(mosquitto.url, every_s=0.2)
    eventually(lambda: len(reader.of(t.HealthTopic)) >= 3)
    assert decode(reader.of(t.HealthTopic)[0], Health).outbox == OutboxHealth(depth=0, discarded={}, last_seq=0)


def test_the_last_status_says_why(mosquitto: Any, make_reader: Any, make_publisher: Make, eventually: Any) -> None:
    reader = make_reader(mosquitto.url)
    publisher = make_publisher(mosquitto.url)
    publisher.wait_first_connect()
    publisher.close(drain_s=5, reason="the model fails")
    eventually(lambda: len(reader.of(t.StatusTopic)) == 2)
    assert decode(reader.of(t.StatusTopic)[-1], Status).reason == "the model fails"


def test_an_event_that_cannot_be_read_is_counted_and_stops_nothing(
    mosquitto: Any, make_reader: Any, make_publisher: Make, tmp_path: Path, eventually: Any
) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.put(str(EVENTS), replace(EXAMPLE, seq=1))
    outbox.put(str(EVENTS), replace(EXAMPLE, seq=2))
    outbox.commit(now=True)
    outbox._file.db.execute("UPDATE event SET payload = '{}' WHERE id = 1")
    outbox.close()
    reader = make_reader(mosquitto.url)
    publisher = make_publisher(mosquitto.url, every_s=0.2)
    eventually(lambda: publisher.sent == 1)
    eventually(lambda: [event.seq for event in reader.events()] == [2])
    eventually(
        lambda: any(decode(raw, Health).outbox.discarded == {"unreadable": 1} for raw in reader.of(t.HealthTopic))
    )


def test_a_publisher_that_breaks_says_so(
    make_publisher: Make, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    publisher = make_publisher("mqtt://127.0.0.1:1")

    def broken_put(*_: object) -> int:
        raise StoreError("The outbox broke.", mend="Start again.")

    monkeypatch.setattr(publisher._outbox, "put", broken_put)
    publisher.event(EVENTS, EXAMPLE)

    def broken() -> bool:
        try:
            publisher.check()
        except StoreError:
            return True
        return False

    eventually(broken)
    assert publisher.close(drain_s=1) == 1, "the event is still counted"


def test_a_full_disk_keeps_no_event_from_the_broker(
    mosquitto: Any, make_publisher: Make, make_reader: Any, eventually: Any
) -> None:
    reader = make_reader(mosquitto.url)
    publisher = make_publisher(mosquitto.url)
    publisher.wait_first_connect()
    publisher._outbox._file.db.execute("PRAGMA max_page_count=1")
    seqs = iter(range(1, 10_000))

    def full() -> bool:
        publisher.event(EVENTS, replace(EXAMPLE, seq=(seq := next(seqs)), id=f"o{seq}"))
        publisher.check()
        return publisher.outbox_trouble is not None

    eventually(full)
    last = next(seqs)
    publisher.event(EVENTS, replace(EXAMPLE, seq=last))
    eventually(lambda: publisher.sent == last)
    eventually(lambda: [event.seq for event in reader.events()] == list(range(1, last + 1)))
    publisher._outbox._file.db.execute("PRAGMA max_page_count=10000")
    eventually(lambda: publisher.outbox_trouble is None)


def test_what_is_cleared_is_gone_from_the_broker(
    mosquitto: Any, make_publisher: Make, make_reader: Any, eventually: Any
) -> None:
    publisher = make_publisher(mosquitto.url)
    publisher.state(COUNTS, counts(1))
    reader = make_reader(mosquitto.url)
    eventually(lambda: reader.of(t.CountsTopic))
    publisher.state(COUNTS, None)
    eventually(lambda: reader.of(t.CountsTopic)[-1] == b"")
    late = make_reader(mosquitto.url)
    eventually(lambda: late.of(t.StatusTopic))
    time.sleep(0.2)
    assert late.of(t.CountsTopic) == []


def test_the_age_at_publish_is_told_of_events_that_did_not_wait_for_the_broker(
    make_mosquitto: Any, make_publisher: Make, eventually: Any
) -> None:
    broker, ages = make_mosquitto(), list[float]()
    publisher = make_publisher(broker.url, published=ages.append)
    away = partial(getattr, publisher, "away_since_s")
    assert away() is not None
    publisher.event(EVENTS, replace(EXAMPLE, seq=1))
    time.sleep(0.5)
    broker.start()
    eventually(lambda: publisher.sent == 1)
    assert away() is None
    assert ages == [], "it waited"
    publisher.event(EVENTS, replace(EXAMPLE, seq=2, latency_ms=replace(EXAMPLE.latency_ms, total=250.0)))
    eventually(lambda: publisher.sent == 2)
    assert len(ages) == 1
    assert ages[0] >= 250.0
    broker.kill()
    eventually(lambda: away() is not None)
