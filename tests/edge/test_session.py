"""What one session sends, how much at once, and what outlives it: with a real broker, and counted on the wire."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.messages import Ack, Crossing, Event, Frame, Health, Zones, decode, encode
from tinysight_contract.mqtt import Address, Connection
from tinysight_edge.outbox import Outbox
from tinysight_edge.publisher import Publisher
from tinysight_edge.session import as_replayed

GOLDEN = Path(__file__).parents[1] / "golden"
EXAMPLE = decode((GOLDEN / "event.json").read_bytes(), Event)
HEALTH = decode((GOLDEN / "health.json").read_bytes(), Health)
HERE = t.StatusTopic("plant-1", "belt-7")
EVENTS = t.EventTopic("plant-1", "belt-7", "cam0")
COMMANDS = "tinysight/v1/plant-1/belt-7/cmd/#"
PUBLISH = 3

Make = Callable[..., Publisher]

NASTY = st.one_of(
    st.text(),
    st.sampled_from(
        ["replayed", '"replayed":false', '\\"replayed\\":false', '"replayed":', "\\", '"', 'x","replayed":false,"y":"']
    ),
)


@given(
    label=NASTY,
    zones=st.lists(NASTY, max_size=3),
    dwell_s=st.dictionaries(NASTY, st.floats(0, 1e6), max_size=3),
    line=NASTY,
    rule=NASTY,
    reason=st.none() | NASTY,
    replayed=st.booleans(),
)
def test_marking_the_text_is_marking_the_event(
    label: str, zones: list[str], dwell_s: dict[str, float], line: str, rule: str, reason: str | None, replayed: bool
) -> None:
    event = replace(
        EXAMPLE,
        label=label,
        zones=Zones(now=zones, entered=zones, dwell_s=dwell_s),
        crossed=[Crossing(line=line, direction="in")],
        rules=[rule],
        reason=reason,
        replayed=replayed,
        model=replace(EXAMPLE.model, name=label, version=rule),
    )
    assert as_replayed(encode(event)) == encode(replace(event, replayed=True))


@pytest.mark.parametrize(
    ("takes", "also"),
    [
        pytest.param(5, None, id="5"),
        pytest.param(5, lambda payload: ("also", payload), id="5, two for each event"),
        pytest.param(1, None, id="1"),
        pytest.param(2, lambda payload: ("also", payload), id="2, two for each event"),
        pytest.param(1, lambda payload: ("also", payload), id="1, and no second for an event"),
    ],
)
def test_never_more_is_on_its_way_than_the_broker_takes(
    make_mosquitto: Any,
    make_proxy: Any,
    make_publisher: Make,
    tmp_path: Path,
    eventually: Any,
    takes: int,
    also: Any,
) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    for seq in range(1, 101):
        outbox.put(str(EVENTS), replace(EXAMPLE, seq=seq))
    outbox.close()
    broker = make_mosquitto(f"allow_anonymous true\nmax_inflight_messages {takes}")
    broker.start()
    proxy = make_proxy(broker.port)
    proxy.ack_every_s = 0.001  # so that they queue
    publisher = make_publisher(proxy.url, also=also)
    publisher.wait_first_connect()
    for seq in range(101, 301):
        publisher.event(EVENTS, replace(EXAMPLE, seq=seq))
    eventually(lambda: publisher.sent == 300)
    assert 1 <= proxy.most_unacknowledged <= takes
    assert publisher.broker_health().sessions == 1, "the broker was not annoyed"


@pytest.mark.parametrize(("version", "named"), [pytest.param("5", 1, id="5"), pytest.param("3", 50, id="3.1.1")])
def test_a_topic_that_comes_again_is_sent_as_a_number(
    mosquitto: Any, make_proxy: Any, make_reader: Any, make_publisher: Make, eventually: Any, version: str, named: int
) -> None:
    reader, proxy = make_reader(mosquitto.url), make_proxy(mosquitto.port)
    publisher = make_publisher(f"{proxy.url}?version={version}")
    for seq in range(1, 51):
        publisher.event(EVENTS, replace(EXAMPLE, seq=seq))
    eventually(lambda: len(reader.events()) == 50)
    assert [event.seq for event in reader.events()] == list(range(1, 51)), "all under the same topic"
    assert sum(str(EVENTS).encode() in each for each in proxy.links[0].said if each[0] >> 4 == PUBLISH) == named


def test_an_order_that_came_while_we_were_cut_off_waits_at_the_broker(
    mosquitto: Any, make_proxy: Any, make_publisher: Make, eventually: Any
) -> None:
    heard: list[bytes] = []
    proxy = make_proxy(mosquitto.port)
    publisher = make_publisher(proxy.url, listen=(COMMANDS,), hear=lambda _t, said, _r: heard.append(said))
    other = Connection(Address.parse(mosquitto.url), client_id="other")
    other.open(timeout_s=5)
    order = COMMANDS.replace("#", "identify")
    eventually(lambda: other.publish(order, b"1", qos=1, retain=False) and heard)  # as soon as it listens
    proxy.swallows = True
    proxy.cut()
    eventually(lambda: publisher.away_since_s is not None)
    other.publish(order, b"2", qos=1, retain=False)
    other.publish(order, b"lost", qos=0, retain=False)
    proxy.heal()
    eventually(lambda: b"2" in heard)
    assert heard[-1] == b"2"
    assert b"lost" not in heard
    other.close()


def test_what_is_said_once_is_dropped_or_waits_as_its_topic_says(
    make_mosquitto: Any, make_reader: Any, make_publisher: Make, eventually: Any
) -> None:
    broker = make_mosquitto()
    publisher = make_publisher(broker.url)
    assert publisher.away_since_s is not None
    frame, answer = t.FrameTopic("plant-1", "belt-7", "cam0"), t.AckTopic("plant-1", "belt-7", "order-1")
    assert (frame.QOS, answer.QOS) == (0, 1)
    now = decode((GOLDEN / "frame.json").read_bytes(), Frame)
    done = decode((GOLDEN / "ack.json").read_bytes(), Ack)
    publisher.once(frame, replace(now, seen_at=now.seen_at - timedelta(hours=1)), lives_s=60)
    publisher.once(answer, done, lives_s=60)
    broker.start()
    reader = make_reader(broker.url)
    eventually(lambda: reader.of(t.AckTopic) == [encode(done)])
    eventually(lambda: publisher.away_since_s is None)
    publisher.once(frame, now, lives_s=60)
    eventually(lambda: reader.of(t.FrameTopic) == [encode(now)])
    assert len(reader.of(t.AckTopic)) == 1, "once"


def test_what_is_damaged_does_not_end_the_replay_of_what_comes_after_it(
    mosquitto: Any, make_reader: Any, make_publisher: Make, tmp_path: Path, eventually: Any
) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    for seq in range(1, 251):
        outbox.put(str(EVENTS), replace(EXAMPLE, seq=seq))
    outbox.commit(now=True)
    outbox._file.db.execute("UPDATE event SET payload = '{}' WHERE id <= 200")  # more than is sent at once
    outbox.close()
    reader = make_reader(mosquitto.url)
    publisher = make_publisher(mosquitto.url)
    eventually(lambda: publisher.waiting == 0)
    eventually(lambda: [event.seq for event in reader.events()] == list(range(201, 251)))
    assert publisher.broker_health().sessions == 1
