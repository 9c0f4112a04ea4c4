"""Whom a controller asks, and what it says when it cannot, on a real broker that hostile or odd devices write to."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from tinysight_contract import messages as m
from tinysight_contract.client import Client, connect
from tinysight_contract.errors import FleetError
from tinysight_contract.topics import DesiredTopic, ReportedTopic, StatusTopic, Topic
from tinysight_deploy.fleet.control import controller as controller_module
from tinysight_deploy.fleet.control.controller import Controller
from tinysight_deploy.fleet.control.leading import Books
from tinysight_deploy.fleet.control.odd import LIES, NEVER_REPORTED, TOO_LONG
from tinysight_deploy.fleet.control.wishing import found, reached, unshown
from tinysight_deploy.fleet.keeping.mirror import Mirror
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Facts, Key, Outcome, Phase, Policy, Rollout, Stage, Wish

KEY: Final = ("plant-1", "belt-0")
OLD: Final = "cd" * 32
FORGED: Final = (1 << 52) + 1
CONFIG: Final = {"health": {"every": "5s"}}
POLICY: Final = Policy(stages=(Stage(share=1.0),))


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    state = State(tmp_path / "fleet.db", lease_s=0.5)
    yield state
    state.close()


@asynccontextmanager
async def leading(
    state: State, url: str, *, speaks_at: str = "", **more: Any
) -> AsyncIterator[tuple[Controller, Client]]:
    """A controller, and who speaks for the devices."""
    given: dict[str, Any] = {"holder": "one", "turn_s": 0.02, "patience_s": 0.0, **more}
    leader = Controller(state, url, **given)
    async with connect(speaks_at or url) as speaker:
        task = asyncio.create_task(leader.run())
        yield leader, speaker
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def say(speaker: Client, topic: Topic, message: Any) -> None:
    """Retained, as a device says it: as a reader it could not."""
    letter = speaker._line.post(topic, b"" if message is None else m.encode(message))
    await asyncio.wait_for(letter.taken, 5)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


def online() -> m.Status:
    return m.Status(state=m.State.ONLINE, boot_id="b1", reason="", at=m.utc_now())


def reported(revision: int, **more: Any) -> m.Reported:
    given: dict[str, Any] = {"state": m.DesiredState.APPLIED, "boot_id": "b1", "bundle": OLD, **more}
    return m.Reported(revision=revision, at=m.utc_now(), **given)


def begun(state: State, make_rollout: Callable[..., Rollout], name: str = "belt-1", **more: Any) -> Rollout:
    rollout = make_rollout(name, policy=POLICY, cutoffs=(1.0,), **more)
    state.begin(rollout, who="ann")
    return rollout


def wanted(speaker: Client) -> m.Desired | None:
    return None if (known := speaker.fleet.devices.get(KEY)) is None else known.desired


def test_who_never_said_what_it_runs_is_not_asked(
    kept: State, mosquitto: Any, make_rollout: Callable[..., Rollout]
) -> None:
    rollout = begun(kept, make_rollout)

    async def scene() -> None:
        async with leading(kept, mosquitto.url) as (leader, speaker):
            await say(speaker, StatusTopic(*KEY), online())
            await until(lambda: leader.held(rollout.id) == {KEY: NEVER_REPORTED})
            await asyncio.sleep(0.1)
            assert kept.wishes(rollout.id) == {}
            await say(speaker, ReportedTopic(*KEY), reported(4))
            await until(lambda: kept.wishes(rollout.id))
            assert kept.wishes(rollout.id)[KEY].revision == 5

    asyncio.run(scene())


def test_nobody_is_asked_before_patience_is_over(
    kept: State, mosquitto: Any, make_rollout: Callable[..., Rollout]
) -> None:
    rollout = begun(kept, make_rollout)

    async def scene() -> None:
        async with leading(kept, mosquitto.url, patience_s=60.0) as (leader, speaker):
            await say(speaker, StatusTopic(*KEY), online())
            await say(speaker, ReportedTopic(*KEY), reported(4))
            await until(lambda: (told := leader.decision(rollout.id)) is not None and told.ask)
            await asyncio.sleep(0.1)
            assert kept.wishes(rollout.id) == {}

    asyncio.run(scene())


def test_what_was_made_up_is_cleared_and_the_configuration_said_again(
    kept: State, mosquitto: Any, make_rollout: Callable[..., Rollout]
) -> None:
    paused = begun(kept, make_rollout, phase=Phase.PAUSED)

    async def scene() -> None:
        async with leading(kept, mosquitto.url) as (leader, speaker):
            stream = speaker.messages()
            await say(speaker, DesiredTopic(*KEY), m.Desired(revision=FORGED, config=CONFIG))
            await say(speaker, ReportedTopic(*KEY), reported(FORGED))
            await say(speaker, StatusTopic(*KEY), online())
            await until(lambda: leader.decision(paused.id) is not None)
            await asyncio.sleep(0.2)
            assert wanted(speaker) == m.Desired(revision=FORGED, config=CONFIG), "a paused one clears nothing"
            rollout = begun(kept, make_rollout, "belt-2")
            kept.change(paused.id, lambda old: replace(old, phase=Phase.DONE), who="ann", what="done")
            await until(lambda: (now := wanted(speaker)) is not None and now.revision == 1)
            assert wanted(speaker) == m.Desired(revision=1, config=CONFIG)
            await say(speaker, ReportedTopic(*KEY), reported(1))
            await until(lambda: (now := wanted(speaker)) is not None and now.rollout == rollout.id)
            assert wanted(speaker) == m.Desired(
                revision=2, bundle=rollout.bundle, target=rollout.target, rollout=rollout.id, config=CONFIG
            )
            said = [heard async for heard in _now(stream) if isinstance(heard.where, DesiredTopic)]
            assert sum(not heard.payload for heard in said) == 1

    asyncio.run(scene())


async def _now(stream: Any) -> AsyncIterator[Any]:
    while len(stream):
        yield await anext(stream)


def test_who_goes_on_lying_is_held(kept: State, mosquitto: Any, make_rollout: Callable[..., Rollout]) -> None:
    rollout = begun(kept, make_rollout)

    async def scene() -> None:
        async with leading(kept, mosquitto.url) as (leader, speaker):
            stream = speaker.messages()
            await say(speaker, StatusTopic(*KEY), online())
            await say(speaker, ReportedTopic(*KEY), reported(FORGED))
            await until(lambda: leader.held(rollout.id) == {KEY: LIES})
            await asyncio.sleep(0.3)
            clears = [each async for each in _now(stream) if isinstance(each.where, DesiredTopic) and not each.payload]
            assert len(clears) == 3
        assert kept.wishes(rollout.id) == {}

    asyncio.run(scene())


def test_a_wish_that_a_device_would_not_read_is_not_made(
    kept: State, mosquitto: Any, make_rollout: Callable[..., Rollout]
) -> None:
    rollout = begun(kept, make_rollout)

    async def scene() -> None:
        async with leading(kept, mosquitto.url) as (leader, speaker):
            await say(speaker, DesiredTopic(*KEY), m.Desired(revision=3, config={"x": "y" * 65_500}))
            await say(speaker, ReportedTopic(*KEY), reported(3))
            await until(lambda: leader.held(rollout.id) == {KEY: TOO_LONG})
            assert kept.wishes(rollout.id) == {}
            await say(speaker, DesiredTopic(*KEY), m.Desired(revision=4, config=CONFIG))
            await until(lambda: kept.wishes(rollout.id))

    asyncio.run(scene())


def test_one_rollout_that_fails_does_not_stop_the_others(
    kept: State, mosquitto: Any, make_rollout: Callable[..., Rollout], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = begun(kept, make_rollout, group="site:plant-1"), begun(kept, make_rollout, "belt-2")
    ask = kept.ask

    def refuse(name: str, *given: Any, **more: Any) -> None:
        if name == first.id:
            raise FleetError("It is odd.", mend="Look.")
        ask(name, *given, **more)

    monkeypatch.setattr(kept, "ask", refuse)

    async def scene() -> None:
        async with leading(kept, mosquitto.url) as (leader, speaker):
            await say(speaker, ReportedTopic(*KEY), reported(4))
            await until(lambda: kept.wishes(second.id) and "belt-1: It is odd. Look." in leader.trouble)
            assert leader.leading

    asyncio.run(scene())


def test_a_copy_that_is_late_holds_up_nothing(
    kept: State,
    mosquitto: Any,
    tmp_path: Path,
    make_rollout: Callable[..., Rollout],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controller_module, "COPY_S", 0.05)
    go_on = threading.Event()
    mirror = Mirror(tmp_path)
    append = mirror.append

    def late(state: State) -> int:
        go_on.wait(10)
        return append(state)

    monkeypatch.setattr(mirror, "append", late)
    rollout = begun(kept, make_rollout)

    async def scene() -> None:
        async with leading(kept, mosquitto.url, mirror=mirror) as (leader, speaker):
            await say(speaker, ReportedTopic(*KEY), reported(4))
            await until(lambda: (now := wanted(speaker)) is not None and now.rollout == rollout.id)
            assert "The copy of the audit log is late" in leader.trouble
            go_on.set()
            await until(lambda: not leader.trouble)
            assert b'"what":"ask"' in mirror.path.read_bytes()

    asyncio.run(scene())


def test_a_broker_that_refuses_what_is_wanted_is_told_and_nobody_is_silent(
    kept: State, make_mosquitto: Any, tmp_path: Path, make_rollout: Callable[..., Rollout]
) -> None:
    (tmp_path / "acl").write_text("topic read #\nuser devices\ntopic readwrite #\n")
    broker = make_mosquitto(f"allow_anonymous true\nacl_file {tmp_path / 'acl'}")
    broker.start()
    rollout = make_rollout(policy=replace(POLICY, deadline_s=1.0), cutoffs=(1.0,), clock_s=100.0)
    kept.begin(rollout, who="ann")

    async def scene() -> None:
        as_devices = broker.url.replace("mqtt://", "mqtt://devices:x@")
        async with leading(kept, broker.url, speaks_at=as_devices) as (leader, speaker):
            await say(speaker, StatusTopic(*KEY), online())
            await say(speaker, ReportedTopic(*KEY), reported(4))
            await until(lambda: kept.rollout(rollout.id).clock_s > 101.5)
            assert "what this user may write" in leader.trouble or "role" in leader.trouble
            asked = kept.wishes(rollout.id)[KEY]
            assert (asked.outcome, asked.reached_s) == (Outcome.GOING, None)

    asyncio.run(scene())


@pytest.mark.parametrize(("most", "ends"), [(1, False), (2, True)])
def test_nothing_is_passed_while_some_devices_cannot_be_known(
    kept: State,
    mosquitto: Any,
    make_rollout: Callable[..., Rollout],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    ends: bool,
) -> None:
    monkeypatch.setattr(controller_module, "MAX_DEVICES", most)
    rollout = make_rollout(policy=replace(POLICY, soak_s=0.0), cutoffs=(1.0,), group="site:plant-1")
    kept.begin(rollout, who="ann")

    async def scene() -> None:
        async with leading(kept, mosquitto.url) as (leader, speaker):
            await say(speaker, StatusTopic(*KEY), online())
            await say(speaker, ReportedTopic(*KEY), reported(4, bundle=rollout.bundle))
            await until(lambda: kept.wishes(rollout.id))
            await say(speaker, StatusTopic("plant-2", "other"), online())
            await say(speaker, ReportedTopic("plant-2", "other"), reported(4))
            await until(lambda: ends or "were not kept" in leader.trouble)
            await say(speaker, ReportedTopic(*KEY), reported(5, bundle=rollout.bundle))
            await until(lambda: kept.wishes(rollout.id)[KEY].outcome is Outcome.CONFIRMED)
            if ends:
                await until(lambda: kept.rollout(rollout.id).phase is Phase.DONE)
            await asyncio.sleep(0.2)
            assert (kept.rollout(rollout.id).phase is Phase.DONE) is ends

    asyncio.run(scene())


def wish(**fields: Any) -> Wish:
    return Wish(site=KEY[0], device=KEY[1], **{"stage": 0, "revision": 3, "sent_s": 1.0, **fields})


def test_nobody_is_reached_by_what_the_broker_does_not_show() -> None:
    asked, going = wish(), wish(reached_s=5.0, outcome=Outcome.GOING)
    assert reached(asked, going, Facts(online=True)) == replace(going, reached_s=None)
    assert reached(asked, going, Facts(online=True, desired=m.Desired(revision=3))) is going
    assert reached(asked, going, Facts(revision=3)) is going
    waits = wish(outcome=Outcome.GOING)
    assert reached(waits, going, Facts(online=True)) is waits


class Kept:
    def __init__(self, rollout: Rollout, one: Wish) -> None:
        self.rollouts, self.wishes = {rollout.id: rollout}, {rollout.id: {one.key: one}}


@pytest.mark.parametrize(
    ("phase", "reached_s", "had", "sends"),
    [
        (Phase.RUNNING, None, 0, True),
        (Phase.PAUSED, None, 0, False),
        (Phase.HALTED, None, 3, True),
        (Phase.HALTED, 2.0, 0, True),
    ],
)
def test_who_does_not_run_sends_again_only_what_the_broker_had(
    make_rollout: Callable[..., Rollout], phase: Phase, reached_s: float | None, had: int, sends: bool
) -> None:
    books: Any = Kept(make_rollout(phase=phase), wish(reached_s=reached_s))
    assert bool(unshown(books, {}, lambda _: had)) is sends


def test_what_ran_before_an_adopted_wish_is_not_known(make_rollout: Callable[..., Rollout]) -> None:
    rollout = make_rollout()
    desired = m.Desired(revision=3, bundle=rollout.bundle, rollout=rollout.id)
    facts: dict[Key, Facts] = {KEY: Facts(active=rollout.bundle, revision=3, desired=desired)}
    assert found(rollout, {}, facts)[KEY].before is None


def test_who_pauses_just_before_devices_are_asked_is_no_error(
    kept: State, make_rollout: Callable[..., Rollout]
) -> None:
    rollout = begun(kept, make_rollout)
    books = Books(kept, "one")
    assert books.open(time.monotonic())
    kept.change(rollout.id, lambda old: replace(old, phase=Phase.PAUSED), who="ann", what="pause")
    books.ask(rollout.id, {KEY: wish()})
    assert kept.wishes(rollout.id) == books.wishes[rollout.id] == {}
    kept.change(rollout.id, lambda old: replace(old, phase=Phase.RUNNING), who="ann", what="resume")
    books.ask(rollout.id, {KEY: wish()})
    with pytest.raises(FleetError, match="was asked"):
        books.ask(rollout.id, {KEY: wish()})


def test_who_fails_is_boxed_with_the_reason_and_more_than_a_batch_keeps_the_lead(
    kept: State, make_rollout: Callable[..., Rollout]
) -> None:
    rollout = begun(kept, make_rollout)
    books, many = Books(kept, "one"), {("p", f"d{n}"): replace(wish(), site="p", device=f"d{n}") for n in range(2500)}
    assert books.open(time.monotonic())
    books.ask(rollout.id, many)
    entries = len(kept.audit(most=10_000))
    failed = {key: replace(each, outcome=Outcome.FAILED, settled_s=2.0) for key, each in many.items()}
    books.settle(rollout.id, failed, dict.fromkeys(many, "crashed: It fell."))
    assert len(kept.audit(most=10_000)) == entries + 3
    assert kept.boxed() == books.boxed
    assert {(each.times, each.reason) for each in books.boxed.values()} == {(1, "crashed: It fell.")}
    books.settle(rollout.id, {("p", "d0"): replace(failed["p", "d0"], outcome=Outcome.CONFIRMED)})
    assert len(kept.boxed()) == 2499
