"""The Python client against a real Mosquitto: nothing is lost on the way that the broker did not lose."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract import client as client_module
from tinysight_contract import line
from tinysight_contract import topics as t
from tinysight_contract.client import Client, connect, subscribe
from tinysight_contract.errors import BrokerError, ConfigError, ContractError, DeviceError, TinySightError
from tinysight_contract.messages import Ack, Command, Counts, Desired, Event, decode, encode, utc_now
from tinysight_contract.mqtt import Address, Connection

GOLDEN = Path(__file__).parents[1] / "golden"
EVENT = decode((GOLDEN / "event.json").read_bytes(), Event)
ME = ("plant-1", "belt-7")


class Device:
    """Speaks as a device does, and counts what the broker has taken."""

    def __init__(self, url: str, *, answer: Callable[[str, Command], Ack | None] = lambda *_: None) -> None:
        self._answer, self._taken, self._sent = answer, 0, 0
        self._news = threading.Condition()
        self.heard: list[tuple[t.Topic, bytes]] = []
        self._connection = Connection(
            Address.parse(url), client_id="", on_message=self._on_message, on_ack=self._on_ack, in_flight=500
        )
        self._connection.open(timeout_s=5)
        self._connection.subscribe(t.CommandTopic.filter(), t.DesiredTopic.filter())

    def tell(self, *seqs: int, wait: bool = True, **changes: Any) -> None:
        for seq in seqs:
            event = replace(EVENT, seq=seq, **changes)
            self._publish(t.EventTopic(event.site, event.device, event.camera), encode(event))
        if wait:
            with self._news:
                assert self._news.wait_for(lambda: self._taken == self._sent, 20)

    def say(self, topic: t.Topic, payload: bytes) -> None:
        self._publish(topic, payload)

    def close(self) -> None:
        self._connection.close()

    def _publish(self, topic: t.Topic, payload: bytes) -> None:
        self._sent += 1
        self._connection.publish(str(topic), payload, qos=1, retain=topic.RETAIN)

    def _on_ack(self, *_: object) -> None:
        with self._news:
            self._taken += 1
            self._news.notify_all()

    def _on_message(self, topic: str, payload: bytes, _retained: bool) -> None:
        where = t.parse(topic)
        self.heard.append((where, payload))
        if isinstance(where, t.CommandTopic):
            ack = self._answer(where.name, decode(payload, Command))
            if ack is not None:
                self._publish(t.AckTopic(where.site, where.device, ack.id), encode(ack))


@pytest.fixture
def make_device() -> Iterator[Callable[..., Device]]:
    made: list[Device] = []

    def make(*arguments: Any, **more: Any) -> Device:
        made.append(Device(*arguments, **more))
        return made[-1]

    yield make
    for device in made:
        device.close()


async def soon(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def subscribed(client: Client, device: Device) -> None:
    """The broker has heard what the client asked for: a message goes the whole way."""
    topic = t.DesiredTopic("elsewhere", "probe")
    messages = client.messages()
    while not len(messages):
        device.say(topic, encode(Desired(revision=1)))
        await asyncio.sleep(0.02)
    await soon(lambda: ("elsewhere", "probe") in client.fleet.devices)


async def first(stream: AsyncIterator[Event], count: int) -> list[int]:
    taken = []
    async with asyncio.timeout(20):
        async for event in stream:
            taken.append(event.seq)
            if len(taken) == count:
                break
    return taken


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


def test_events_come_each_once_and_only_those_that_fit(mosquitto: Any, make_device: Any) -> None:
    async def work() -> None:
        device = make_device(mosquitto.url)
        async with connect(mosquitto.url) as client:
            await subscribed(client, device)
            everything, sevens = client.subscribe(), client.subscribe(camera="cam1", label="7")
            device.tell(1, 2, 2, 3)
            device.tell(4, camera="cam1")
            device.tell(5, camera="cam1", label="8")
            device.tell(6, camera="cam1")
            assert await first(everything, 6) == [1, 2, 3, 4, 5, 6]
            assert await first(sevens, 2) == [4, 6]
            assert (client.fleet.events, client.fleet.repeated, client.fleet.missing) == (6, 1, 0)

    run(work)


def test_the_shortest_way_reads_one_site(mosquitto: Any, make_device: Any) -> None:
    async def work() -> None:
        device, stop = make_device(mosquitto.url), asyncio.Event()

        async def talk() -> None:
            seq = 0
            while not stop.is_set():
                seq += 1
                device.tell(seq, wait=False)
                device.tell(seq, wait=False, site="plant-2")
                await asyncio.sleep(0.01)

        talking = asyncio.create_task(talk())
        seen = []
        async for event in subscribe(mosquitto.url, site="plant-2", label="7"):
            seen.append(event)
            if len(seen) == 5:
                break
        stop.set()
        await talking
        assert {event.site for event in seen} == {"plant-2"}
        assert [event.seq for event in seen] == list(range(seen[0].seq, seen[0].seq + 5))

    run(work)


def test_every_message_comes_with_its_type_also_what_breaks_the_contract(mosquitto: Any, make_device: Any) -> None:
    async def work() -> None:
        device = make_device(mosquitto.url)
        device.say(t.CountsTopic(*ME, "cam0"), (GOLDEN / "counts.json").read_bytes())
        device.tell(1)
        async with connect(mosquitto.url, device="belt-7") as client:
            messages = client.messages()
            kept = await anext(messages)
            assert isinstance(kept.message, Counts)
            assert kept.retained
            device.say(t.FrameTopic(*ME, "cam0"), (GOLDEN / "frame.json").read_bytes())
            device.say(t.StatusTopic(*ME), b"{")
            broken = await anext(messages)
            assert isinstance(broken.where, t.StatusTopic | None)
            assert broken.broken, "and no frame, which must be asked for"

    run(work)


def test_nothing_is_lost_when_a_reader_is_slow(
    make_mosquitto: Any, make_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket is not read meanwhile; so the broker waits, and keeps what it is allowed to."""
    monkeypatch.setattr(line, "MAX_WAITING", 50)
    monkeypatch.setattr(client_module, "MAX_WAITING", 50)
    broker = make_mosquitto("allow_anonymous true\nmax_queued_messages 0")
    broker.start()

    async def work() -> None:
        device = make_device(broker.url)
        async with connect(broker.url) as client:
            await subscribed(client, device)
            stream = client.subscribe()
            device.tell(*range(1, 3001))
            await soon(lambda: len(stream) >= 50)
            await asyncio.sleep(0.3)
            assert client.fleet.events < 300, "it holds no more than it may"
            assert await first(stream, 3000) == list(range(1, 3001))
            assert client.fleet.missing == 0

    run(work)


def test_who_stops_reading_holds_up_the_others_only_until_its_stream_is_dropped(
    mosquitto: Any, make_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_WAITING", 10)

    async def work() -> None:
        device = make_device(mosquitto.url)
        async with connect(mosquitto.url) as client:
            await subscribed(client, device)
            stopped, other = client.subscribe(), client.subscribe()
            device.tell(*range(1, 101))
            assert await first(other, 10) == list(range(1, 11))
            await asyncio.sleep(0.1)
            assert (len(stopped), len(other)) == (10, 0)
            del stopped
            assert await first(other, 90) == list(range(11, 101))

    run(work)


async def displaced(client: Client, url: str, client_id: str, *, session_s: int) -> None:
    """Another client takes the id and vanishes: the reader is cut off, and is patient before it comes back."""
    cuts = client.cuts
    thief = Connection(Address.parse(url), client_id=client_id, session_s=session_s)
    await asyncio.to_thread(thief.open, timeout_s=5)
    await soon(lambda: client.cuts > cuts)
    await asyncio.to_thread(thief.abandon)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "RETRY_S", (1.0, 1.0))
    monkeypatch.setattr(line, "STABLE_S", 1e9)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("session_s", [0, 3600])
def test_what_was_published_while_the_reader_was_cut_off_is_missing_unless_the_broker_kept_it(
    mosquitto: Any, make_device: Any, session_s: int
) -> None:
    async def work() -> None:
        device = make_device(mosquitto.url)
        async with connect(mosquitto.url, client_id="reader", session_s=session_s) as client:
            await subscribed(client, device)
            device.tell(1)
            await soon(lambda: client.fleet.events == 1)
            await displaced(client, mosquitto.url, "reader", session_s=session_s)
            assert client.trouble is not None
            device.tell(2, 3, 4)
            await soon(lambda: client.trouble is None)
            await subscribed(client, device)
            device.tell(5)
            await soon(lambda: client.fleet.events == (5 if session_s else 2))
            assert client.fleet.missing == (0 if session_s else 3)

    run(work)


def test_a_broker_that_dies_twice_ends_nothing(mosquitto: Any, make_device: Any) -> None:
    async def work() -> None:
        async with connect(mosquitto.url) as client:
            stream, seq = client.subscribe(), 0
            for _ in range(2):
                device = make_device(mosquitto.url)
                await subscribed(client, device)
                device.tell(seq + 1, seq + 2)
                assert await first(stream, 2) == [seq + 1, seq + 2]
                seq += 2
                mosquitto.kill()
                await soon(lambda: client.trouble is not None)
                mosquitto.start()
                await soon(lambda: client.trouble is None)
            assert (client.cuts, client.fleet.missing) == (2, 0)

    run(work)


def answer(ok: bool, error: str | None = None) -> Callable[[str, Command], Ack]:
    return lambda name, order: Ack(id=order.id, name=name, ok=ok, at=utc_now(), result=order.args, error=error)


def test_a_command_is_answered_also_while_nobody_reads(
    mosquitto: Any, make_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_WAITING", 10)
    monkeypatch.setattr(line, "MAX_WAITING", 10)

    async def work() -> None:
        device = make_device(mosquitto.url, answer=answer(ok=True))
        async with connect(mosquitto.url) as client:
            await subscribed(client, device)
            unread = client.subscribe()
            device.tell(*range(1, 101))
            await soon(lambda: len(unread) == 10)
            ack = await client.command(*ME, "snapshot", {"camera": "cam0"}, within_s=20)
            assert (ack.name, ack.ok, ack.result) == ("snapshot", True, {"camera": "cam0"})
        where, payload = device.heard[-1]
        order = decode(payload, Command)
        assert where == t.CommandTopic(*ME, "snapshot")
        assert 0 < (order.expires_at - utc_now()).total_seconds() <= 20

    run(work)


def of_another_device(name: str, order: Command) -> Ack:
    return Ack(id=f"{order.id}x", name=name, ok=True, at=utc_now())


@pytest.mark.parametrize(
    ("says", "raised"),
    [
        pytest.param(
            answer(ok=False, error="there is no camera cam9"), "does not snapshot: there is no camera cam9", id="no"
        ),
        pytest.param(lambda *_: None, "has not answered snapshot within 0.3 s. Nothing was ever heard", id="nothing"),
        pytest.param(of_another_device, "has not answered", id="an answer to something else"),
    ],
)
def test_a_command_that_is_not_done_says_why(mosquitto: Any, make_device: Any, says: Any, raised: str) -> None:
    async def work() -> None:
        device = make_device(mosquitto.url, answer=says)
        async with connect(mosquitto.url) as client:
            await subscribed(client, device)
            with pytest.raises(DeviceError, match=raised):
                await client.command(*ME, "snapshot", within_s=0.3 if "answered" in raised else 20)
            assert client._answers == {}
            assert not client._line.hurried

    run(work)


def test_what_is_desired_is_retained_and_taken_back(mosquitto: Any, make_device: Any) -> None:
    async def work() -> None:
        device = make_device(mosquitto.url)
        async with connect(mosquitto.url) as client:
            await client.desire(*ME, Desired(revision=7))
            await soon(lambda: device.heard == [(t.DesiredTopic(*ME), encode(Desired(revision=7)))])
            async with connect(mosquitto.url) as late:
                kept = await anext(late.messages())
                assert (kept.message, kept.retained) == (Desired(revision=7), True)
            await client.desire(*ME, None)
            await soon(lambda: client.fleet.devices == {})

    run(work)


def test_what_is_published_while_the_broker_is_away_is_sent_when_it_is_back_or_said_to_have_failed(
    mosquitto: Any, make_device: Any
) -> None:
    async def work() -> None:
        async with connect(mosquitto.url) as client:
            mosquitto.kill()
            await soon(lambda: client.trouble is not None)
            with pytest.raises(BrokerError):
                await client.desire(*ME, Desired(revision=1), within_s=0.2)
            saying = asyncio.create_task(client.desire(*ME, Desired(revision=2), within_s=20))
            await asyncio.sleep(0.1)
            mosquitto.start()
            await saying
            device = make_device(mosquitto.url)
            await soon(lambda: device.heard)
            assert decode(device.heard[0][1], Desired).revision == 2, "and the one that was given up is not sent"

    run(work)


def test_what_the_broker_refuses_is_said(make_mosquitto: Any, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic read tinysight/#\n")
    broker = make_mosquitto(f"allow_anonymous true\nacl_file {tmp_path / 'acl'}")
    broker.start()

    async def work() -> None:
        async with connect(broker.url) as client:
            with pytest.raises(BrokerError, match=r"refuses .*desired"):
                await client.desire(*ME, Desired(revision=1))

    run(work)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        pytest.param({"url": "mqtt://127.0.0.1:1"}, BrokerError, "No broker answers", id="no broker"),
        pytest.param({"url": "http://h"}, ConfigError, "no broker address|no scheme", id="no address"),
        pytest.param({"url": "mqtt://127.0.0.1:1", "site": "+"}, ContractError, "site '\\+' is not", id="a wildcard"),
        pytest.param(
            {"url": "mqtt://127.0.0.1:1", "session_s": 60}, ConfigError, "client id", id="a session without a name"
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_begun(
    arguments: dict[str, Any], error: type[TinySightError], said: str
) -> None:
    async def work() -> None:
        with pytest.raises(error, match=said):
            async with connect(**arguments):
                pass
        assert [each.name for each in threading.enumerate() if each.name == "line"] == []

    run(work)


def test_a_reader_needs_the_contract_and_paho_alone() -> None:
    others = ("numpy", "cv2", "rich", "typer", "tinysight_edge", "tinysight_deploy")
    block = f"import sys; sys.modules.update(dict.fromkeys({others!r}))"
    subprocess.run([sys.executable, "-c", f"{block}; import tinysight_contract.client"], check=True)


def test_the_dashboard_of_the_page_is_one(mosquitto: Any, make_device: Any, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "readers.md").read_text()
    (tmp_path / "dashboard.py").write_text(page.split("```python\n")[1].split("```")[0])
    device = make_device(mosquitto.url)
    for topic, name in ((t.CountsTopic(*ME, "cam0"), "counts"), (t.AlertTopic(*ME, "disk-full"), "alert")):
        device.say(topic, (GOLDEN / f"{name}.json").read_bytes())
    command = [sys.executable, "-u", str(tmp_path / "dashboard.py"), mosquitto.url]
    dashboard = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stop = threading.Event()

    def talk() -> None:
        seq = 0
        while not stop.wait(0.05):
            device.tell(seq := seq + 1, wait=False)

    talking = threading.Thread(target=talk)
    talking.start()
    assert dashboard.stdout is not None
    said = [dashboard.stdout.readline() for _ in range(4)]
    stop.set()
    talking.join()
    dashboard.kill()
    dashboard.communicate()
    assert said == [
        "12:30:15 cam0: start of a 7, 94% sure\n",
        "  belt-7/cam0: 2 objects, online: None\n",
        "  belt-7 disk-full: The disk is full. Free some space.\n",
        "  0 of 1 events missing\n",
    ]
