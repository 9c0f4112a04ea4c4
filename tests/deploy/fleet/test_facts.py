"""What is known of devices, by a real broker that is cut off and comes back with nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from msgspec import Struct

from tinysight_contract.client import connect
from tinysight_contract.fleet import Device
from tinysight_contract.messages import (
    Desired,
    DesiredState,
    ModelMetrics,
    Reported,
    State,
    Status,
    encode,
    utc_now,
)
from tinysight_contract.metrics import BINS
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.topics import DesiredTopic, ReportedTopic, StatusTopic, Topic
from tinysight_deploy.fleet.control.facts import KINDS, Hearing, facts_of, gather
from tinysight_deploy.fleet.types import Facts, Key

KEY: Key = ("plant-1", "gate")
NEW, OLD = "ab" * 32, "cd" * 32


def status(state: State = State.ONLINE, boot_id: str = "b1") -> Status:
    return Status(state=state, boot_id=boot_id, reason="", at=utc_now())


def reported(revision: int = 3, *, bundle: str | None = NEW, **more: Any) -> Reported:
    given: dict[str, Any] = {"state": DesiredState.APPLIED, "boot_id": "b1", **more}
    return Reported(revision=revision, at=utc_now(), bundle=bundle, **given)


def model(bundle: str, drift: float) -> ModelMetrics:
    now = utc_now()
    return ModelMetrics(
        at=now, boot_id="b1", bundle=bundle, name="n", version="1", since=now, frames=1, scores=[0] * BINS, labels={},
        drift=drift,
    )  # fmt: skip


def device(**told: Any) -> Device:
    return Device(*KEY, **told)


@pytest.mark.parametrize(
    ("known", "online"),
    [
        pytest.param(device(), None, id="nothing told"),
        pytest.param(device(status=status()), True, id="online"),
        pytest.param(device(status=status(State.OFFLINE)), False, id="offline"),
        pytest.param(device(status=status(State.OFFLINE), reported=reported()), False, id="offline, of the same boot"),
        pytest.param(device(status=status(State.OFFLINE, "b0"), reported=reported()), None, id="a late will"),
    ],
)
def test_who_is_online(known: Device, online: bool | None) -> None:
    assert facts_of(known).online is online


def test_drift_counts_of_the_bundle_that_runs() -> None:
    assert facts_of(device(reported=reported(), model=model(NEW, 0.3))).drift == 0.3
    other = facts_of(device(reported=reported(), model=model(OLD, 0.3)))
    assert (other.drift, other.metered) == (None, OLD)


Say = Callable[[Topic, Struct | None], None]


def speaker(url: str) -> tuple[Say, Callable[[], None]]:
    said, taken = [], []
    connection = Connection(Address.parse(url), client_id="", on_ack=lambda *_: taken.append(1))
    connection.open(timeout_s=5)

    def say(topic: Topic, message: Struct | None) -> None:
        said.append(connection.publish(str(topic), b"" if message is None else encode(message), qos=1, retain=True))

    def close() -> None:
        until_s = time.monotonic() + 10
        while len(taken) < len(said) and connection.alive and time.monotonic() < until_s:
            time.sleep(0.01)
        connection.close()

    return say, close


@asynccontextmanager
async def session(hearing: Hearing, url: str) -> AsyncIterator[None]:
    async with connect(url, kinds=KINDS) as client:
        listening = asyncio.create_task(hearing.listen(hearing.begin(client)))
        yield
        listening.cancel()


async def become(hearing: Hearing, true: Callable[[Facts], bool]) -> None:
    async with asyncio.timeout(10):
        while hearing.refresh() or not true(hearing.facts.get(KEY, Facts())):
            await asyncio.sleep(0.02)


def test_gathering_ends_when_nothing_more_comes(mosquitto: Any) -> None:
    say, close = speaker(mosquitto.url)
    say(StatusTopic(*KEY), status())
    say(ReportedTopic(*KEY), reported())
    say(DesiredTopic("plant-2", "other"), Desired(revision=8))
    close()
    assert asyncio.run(gather(mosquitto.url, site="plant-1")).keys() == {KEY}
    facts = asyncio.run(gather(mosquitto.url))
    assert facts[KEY] == Facts(online=True, active=NEW, revision=3, state=DesiredState.APPLIED)
    assert facts["plant-2", "other"].desired == Desired(revision=8)


def test_a_session_begins_with_what_was_reported_and_without_what_was_wanted(make_mosquitto: Any) -> None:
    hearing, config = Hearing(), {"health": {"every": "5s"}}

    async def scene() -> None:
        broker = make_mosquitto()
        broker.start()
        say, close = speaker(broker.url)
        async with session(hearing, broker.url):
            say(StatusTopic(*KEY), status())
            say(ReportedTopic(*KEY), reported(applied=3))
            say(DesiredTopic(*KEY), Desired(revision=3, bundle=NEW, config=config))
            await become(
                hearing, lambda facts: facts.online is True and facts.desired is not None and facts.revision == 3
            )
            assert hearing.config(KEY) == config
            broker.kill()
        close()
        broker.start()
        say, close = speaker(broker.url)
        async with session(hearing, broker.url):
            assert hearing.facts[KEY] == Facts(active=NEW, revision=3, state=DesiredState.APPLIED)
            assert hearing.config(KEY) == config
            await asyncio.sleep(0.1)
            assert not hearing.settled(quiet_s=0.0)  # it was online, and has not come back
            say(StatusTopic(*KEY), status())
            await become(hearing, lambda facts: facts.online is True)
            assert hearing.facts[KEY].revision == 3
            assert hearing.settled(quiet_s=0.0)
            say(DesiredTopic(*KEY), Desired(revision=4))
            await become(hearing, lambda facts: facts.desired == Desired(revision=4))
            assert hearing.config(KEY) is None
        close()

    asyncio.run(scene())


def test_a_configuration_that_nobody_can_say_again_is_told(mosquitto: Any) -> None:
    hearing = Hearing()

    async def scene() -> None:
        say, close = speaker(mosquitto.url)
        async with session(hearing, mosquitto.url):
            say(ReportedTopic(*KEY), reported(applied=3))
            await become(hearing, lambda facts: facts.revision == 3)
            assert hearing.config_lost(KEY)
            say(DesiredTopic(*KEY), Desired(revision=3, config={"state": "x"}))
            await become(hearing, lambda facts: facts.desired is not None)
            assert not hearing.config_lost(KEY)
        close()

    asyncio.run(scene())


def test_what_was_cleared_does_not_come_back_with_the_last_session(mosquitto: Any) -> None:
    hearing = Hearing()

    async def scene() -> None:
        say, close = speaker(mosquitto.url)
        async with session(hearing, mosquitto.url):
            say(StatusTopic(*KEY), status())
            say(ReportedTopic(*KEY), reported())
            await become(hearing, lambda facts: facts.online is True and facts.revision == 3)
        async with session(hearing, mosquitto.url):
            await become(hearing, lambda facts: facts.online is True and facts.revision == 3)
            say(StatusTopic(*KEY), None)
            say(ReportedTopic(*KEY), None)
            await become(hearing, lambda facts: facts == Facts())
            assert KEY not in hearing.facts
        close()

    asyncio.run(scene())


def test_who_is_beyond_the_limit_is_told(
    mosquitto: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tinysight_deploy.fleet.control.facts.MAX_DEVICES", 1)
    say, close = speaker(mosquitto.url)
    for name in ("one", "two"):
        say(StatusTopic("plant-1", name), status())
    close()
    assert len(asyncio.run(gather(mosquitto.url))) == 1
    assert "more than 1 devices" in caplog.text


def wants(revision: int, facts: Facts) -> bool:
    return facts.desired is not None and facts.desired.revision == revision


def test_a_revision_that_was_made_up_does_not_last_into_the_next_session(make_mosquitto: Any) -> None:
    hearing = Hearing()

    async def scene() -> None:
        broker = make_mosquitto()
        broker.start()
        for revision, before in (((1 << 52) + 1, 0), (7, 7)):
            say, close = speaker(broker.url)
            async with session(hearing, broker.url):
                say(DesiredTopic(*KEY), Desired(revision=revision))
                await become(hearing, partial(wants, revision))
                broker.kill()
            close()
            broker.start()
            async with session(hearing, broker.url):
                assert hearing.wanted_before(KEY) == before

    asyncio.run(scene())
