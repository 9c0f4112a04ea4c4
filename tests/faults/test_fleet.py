"""Rollouts whose controller, broker, database, devices or clocks fail.

Real controllers on real brokers and databases; devices that are simulated, and check real signatures as real ones do.
"""

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from msgspec.structs import replace

from tinysight_contract.messages import Desired, DesiredState, Reported, utc_now
from tinysight_contract.topics import DesiredTopic, ReportedTopic
from tinysight_deploy.fleet.control.facts import gather
from tinysight_deploy.fleet.control.operate import abort, revert
from tinysight_deploy.fleet.deciding.buckets import bucket
from tinysight_deploy.fleet.keeping.mirror import rebuild
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Outcome, Phase
from tinysight_edge.simulate.behave import Behaviour

SITE: Final = "sim"
UNSIGNED: Final = "f" * 64
ONCE: Final = "each device was asked once, under one revision, and confirmed"


@pytest.fixture(scope="session")
def fleets(module: Callable[[str], ModuleType]) -> ModuleType:
    """``fleet_field.py``: brokers, devices, controllers."""
    return module("faults/fleet_field")


@pytest.fixture
def make_field(fleets: Any, shops: Any, mosquitto: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Make a fleet that ends with the test."""
    with ExitStack() as ending:
        yield lambda **given: ending.enter_context(fleets.field_of(mosquitto, shops, tmp_path, **given))


@pytest.fixture
def zygote(fleets: Any) -> Iterator[Any]:
    """Starts controllers in processes of their own; they end with the test."""
    made = fleets.Zygote()
    yield made
    made.close()


def gathered(field: Any) -> Any:
    return asyncio.run(gather(field.broker.url, seconds=5))


def ordered(field: Any, rollout: Any) -> list[str]:
    """The devices in the order in which they are asked."""
    return sorted(field.names, key=lambda name: bucket(rollout.salt, (SITE, name)))


def test_a_rollout_goes_through_its_stages(make_field: Any, fleets: Any) -> None:
    field = make_field()
    rollout = field.begin()
    with fleets.leading(field):
        field.wait(rollout.id, Phase.DONE)
    assert field.outcomes(rollout.id) == dict.fromkeys(field.names, Outcome.CONFIRMED)
    assert set(field.active().values()) == {field.second.digest}
    field.check_once(rollout.id)


def test_a_controller_is_killed_again_and_again(make_field: Any, fleets: Any, zygote: Any, tell: Any) -> None:
    field, dice = make_field(), random.Random(8)
    rollout = field.begin()
    pids: list[int] = []

    def over() -> bool:
        return not fleets.alive(pids[-1]) or field.phase(rollout.id) is Phase.DONE

    while field.phase(rollout.id) is not Phase.DONE:
        assert len(pids) < 60, field.state.rollout(rollout.id)
        pids.append(zygote.start(field, f"life-{len(pids)}", dies_at=dice.randint(2, 6)))
        fleets.until(over, "it neither ends nor dies")
    assert field.outcomes(rollout.id) == dict.fromkeys(field.names, Outcome.CONFIRMED)
    field.check_once(rollout.id)
    said = f"{len(pids) - 1} lives ended at a write or amid what was sent, the next went on; {ONCE}"
    tell("a rollout's controller is killed again and again", published=said)


def stopped(field: Any, pid: int, sign: signal.Signals) -> bool:
    """Stop a process; not amid a write if it may go on: nobody else writes to SQLite as long as that lasts."""
    os.kill(pid, sign)
    if sign is signal.SIGKILL:
        return True
    with closing(sqlite3.connect(field.state.path, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
            return False
    return True


@pytest.mark.parametrize(
    ("fault", "sign"),
    [
        pytest.param("of two controllers the leader is killed", signal.SIGKILL, id="killed"),
        pytest.param("of two controllers the leader freezes, and comes back", signal.SIGSTOP, id="frozen"),
    ],
)
def test_of_two_controllers_one_goes_on(
    make_field: Any, fleets: Any, faketime: Path, tell: Any, fault: str, sign: signal.Signals
) -> None:
    """Their clocks are decades apart, and so are the devices': nobody compares them."""
    field = make_field()
    rollout = field.begin()
    zygotes = [fleets.Zygote(env=fleets.shifted(faketime, days)) for days in (-9000, 6000)]
    try:
        first = zygotes[0].start(field, "first")
        fleets.until(lambda: field.leaders() == ["first"], "nobody leads")
        zygotes[1].start(field, "second")
        fleets.until(lambda: field.state.rollout(rollout.id).stage >= 1, "no stage is opened")
        fleets.until(lambda: stopped(field, first, sign), "it always writes")
        begun_s = time.monotonic()
        fleets.until(lambda: field.leaders()[:2] == ["first", "second"], "nobody takes over")
        well_s = time.monotonic() - begun_s
        if sign is signal.SIGSTOP:
            os.kill(first, signal.SIGCONT)
        field.wait(rollout.id, Phase.DONE)
    finally:
        for zygote in zygotes:
            zygote.close()
    assert field.outcomes(rollout.id) == dict.fromkeys(field.names, Outcome.CONFIRMED)
    field.check_once(rollout.id)
    tell(fault, well_s=well_s, published=f"the other leads, though their clocks are 41 years apart; {ONCE}")


def test_the_broker_is_started_again_amid_a_stage(make_field: Any, fleets: Any, tell: Any) -> None:
    """It forgets all: who is there, what they reported, and what is wanted."""
    field = make_field()
    rollout = field.begin()
    with fleets.leading(field):
        fleets.until(
            lambda: field.state.rollout(rollout.id).stage >= 1 and len(field.outcomes(rollout.id)) > 1, "stage"
        )
        field.broker.kill()
        begun_s = time.monotonic()
        field.broker.start()
        field.tap.listen()
        fleets.until(lambda: field.tap.kept, "nothing is wanted again")
        well_s = time.monotonic() - begun_s
        field.wait(rollout.id, Phase.DONE)
    assert field.outcomes(rollout.id) == dict.fromkeys(field.names, Outcome.CONFIRMED)
    field.check_once(rollout.id)
    said = f"what the broker has forgotten is wanted again, under the same revisions; {ONCE}"
    tell("a broker forgets all amid a rollout", well_s=well_s, published=said)


def test_the_broker_and_the_controller_are_killed_at_once(make_field: Any, fleets: Any, zygote: Any, tell: Any) -> None:
    """Nobody is left who knows which devices there were; they come back within five seconds."""
    field = make_field()
    rollout = field.begin()
    pid = zygote.start(field, "first")
    fleets.until(lambda: field.state.rollout(rollout.id).stage >= 1, "no stage is opened")
    os.kill(pid, signal.SIGKILL)
    field.broker.kill()
    begun_s = time.monotonic()
    field.broker.start()
    field.tap.listen()
    with fleets.leading(field, patience_s=7.0):
        fleets.until(lambda: field.tap.kept, "nothing is wanted again")
        well_s = time.monotonic() - begun_s
        field.wait(rollout.id, Phase.DONE)
    assert field.outcomes(rollout.id) == dict.fromkeys(field.names, Outcome.CONFIRMED)
    field.check_once(rollout.id)
    said = f"no stage is passed before devices had the time to come back; {ONCE}"
    tell("broker and controller are killed at once amid a rollout", well_s=well_s, published=said)


@pytest.mark.parametrize(
    ("fault", "behaviour", "reason"),
    [
        pytest.param("a rollout's first device crashes", Behaviour.CRASH, "crashed: ", id="crashes"),
        pytest.param("a rollout's first device is slow", Behaviour.SLOW, "as long for a run", id="is slow"),
        pytest.param("a rollout's first device drifts", Behaviour.DRIFT, "drifts: ", id="drifts"),
        pytest.param("a rollout's first device goes silent", Behaviour.SILENT, "silent: ", id="goes silent"),
        pytest.param("a rollout's first device goes away", Behaviour.VANISH, "silent: ", id="goes away"),
    ],
)
def test_a_bad_canary_halts_the_rollout(
    make_field: Any, fleets: Any, tell: Any, fault: str, behaviour: Behaviour, reason: str
) -> None:
    field = make_field(devices=3)
    rollout = field.begin(max_drift=0.4, deadline_s=1.0, soak_s=0.5)
    first = ordered(field, rollout)[0]
    field.crowd.behave(behaviour, first)
    begun_s = time.monotonic()
    with fleets.leading(field) as controller:
        halted = field.wait(rollout.id, Phase.HALTED)
        found_s = time.monotonic() - begun_s
        fleets.until(lambda: controller.decision(rollout.id), "nothing is decided")
        field.crowd.behave(Behaviour.SOUND, first)  # one that says nothing does not say goodbye either
        fleets.until(lambda: field.crowd.device(first).behave is Behaviour.SOUND, "it does not change")
    assert halted.stage == 0
    assert reason in halted.reason
    assert set(field.tap.revisions(rollout.id)) == {(SITE, first)}
    assert all(active == field.first.digest for name, active in field.active().items() if name != first)
    assert [entry.detail["set"]["reason"] for entry in field.state.audit() if entry.what == "halt"] == [halted.reason]
    assert set(field.state.boxed()) == (set() if behaviour is Behaviour.SLOW else {(SITE, first)})
    said = "the rollout halts in its first stage, and says so; no other device was asked"
    tell(fault, found_s=found_s, published=said)


def test_a_captured_broker_forges_replays_and_reorders(make_field: Any, fleets: Any, tell: Any) -> None:
    field = make_field()
    beyond = field.names[0]
    forged = Desired(revision=(1 << 52) + 9, bundle=UNSIGNED, target=field.second.target)
    field.tap.say(DesiredTopic(SITE, beyond), forged)
    fleets.until(lambda: field.crowd.device(beyond).asked == forged, "it is not heard")
    rollout = field.begin()
    while (left := ordered(field, rollout)[-1]) == beyond:
        abort(field.state, rollout.id, who="test")
        rollout = field.begin()
    with fleets.leading(field):
        dice = random.Random(3)

        def attack() -> bool:
            for (site, device), told in list(field.tap.wanted.items()):
                ours = [each for each in told if each.rollout == rollout.id and each.revision < 1 << 52]
                if not ours:
                    continue
                old = replace(ours[0], revision=ours[0].revision - 1, bundle=UNSIGNED, rollout=None)
                if device == left:
                    other = replace(ours[0], revision=99, bundle=UNSIGNED, rollout=None)
                    field.tap.say(DesiredTopic(site, device), other)
                else:
                    for each in dice.sample([*ours[:2], old], 2):
                        field.tap.say(DesiredTopic(site, device), each)
            time.sleep(0.05)
            return field.phase(rollout.id) is Phase.DONE

        fleets.until(attack, "it does not end")
    others = dict.fromkeys(field.names, Outcome.CONFIRMED)
    assert field.outcomes(rollout.id) == {**others, left: Outcome.LEFT}
    field.check_once(rollout.id)
    said = "the rollout ends; the device of which something else is wanted counts no more, all others confirm"
    tell("a captured broker forges, replays and reorders wishes", published=said)


def test_a_captured_broker_and_controller_bring_nothing_unsigned(make_field: Any, fleets: Any, tell: Any) -> None:
    field = make_field()
    releases = [
        replace(field.second, digest=UNSIGNED),
        replace(field.second, digest=field.first.digest),
        replace(field.second, digest=UNSIGNED, target="pets/pets-9.9.9.bundle"),
    ]
    with fleets.leading(field):
        for release in releases:
            rollout = field.begin(release=release, max_failures=1.0, min_confirmed=0.0)
            field.wait(rollout.id, Phase.DONE)
            assert len(field.outcomes(rollout.id)) == len(field.names)
    assert field.active() == dict.fromkeys(field.names, field.first.digest)
    assert field.crowd.counts()["wrong_bundle"] == 0
    said = f"each device refuses each of {len(releases)} bundles, and runs what it ran"
    tell("a captured broker and controller want what nobody signed", published=said)


def test_captured_devices_lie(make_field: Any, fleets: Any, tell: Any) -> None:
    """One claims what cannot be, one has seen a revision that nobody gave; the others go on as if these were not."""
    field = make_field()
    ghost = Reported(revision=1 << 60, at=utc_now(), bundle=None, state=DesiredState.APPLIED, reason="\x1b[2J" * 50)
    field.tap.say(ReportedTopic(SITE, "ghost"), ghost)
    rollout = field.begin()
    liar = ordered(field, rollout)[0]
    field.crowd.behave(Behaviour.LIAR, liar)
    with fleets.leading(field):
        done = field.wait(rollout.id, Phase.DONE)
    assert "1 held" in done.reason
    assert field.outcomes(rollout.id) == dict.fromkeys(field.names, Outcome.CONFIRMED)
    honest = {name: active for name, active in field.active().items() if name != liar}
    assert set(honest.values()) == {field.second.digest}
    assert field.active()[liar] == field.first.digest
    field.check_once(rollout.id)
    tell("captured devices lie", published="they deceive about themselves alone; all others confirm")


@pytest.fixture
def file(tmp_path: Path) -> tuple[None, Callable[[], object], Callable[[], object]]:
    """A state in a file: no URL, how it goes, how it comes back."""
    kept, gone = tmp_path / "state", tmp_path / "gone"
    return None, lambda: kept.rename(gone), lambda: gone.rename(kept)


@pytest.fixture
def server(module: Callable[[str], ModuleType]) -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """A state in PostgreSQL: its URL, how it goes, how it comes back."""
    databases = module("deploy/fleet/conftest")
    if databases.PROGRAMS is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="tinysight-pg-") as folder:  # short: a socket's path is
        postgres = databases.Postgres(Path(folder))
        postgres.start()
        yield postgres.database(), postgres.stop, postgres.start
        postgres.stop()


@pytest.mark.parametrize(
    ("fault", "database"),
    [
        pytest.param("the file of a fleet's state is away", "file", id="file"),
        pytest.param("the database server of a fleet ends", "server", id="server"),
    ],
)
def test_the_database_is_away_for_a_while(
    make_field: Any, fleets: Any, request: pytest.FixtureRequest, tell: Any, fault: str, database: str
) -> None:
    url, go, come = request.getfixturevalue(database)
    field = make_field(url=url)
    rollout = field.begin()
    with fleets.leading(field, state=url or field.state.path) as controller:
        fleets.until(lambda: field.state.rollout(rollout.id).stage >= 1, "no stage is opened")
        go()
        begun_s = time.monotonic()
        fleets.until(lambda: controller.trouble, "it does not say so")
        found_s = time.monotonic() - begun_s
        assert not controller.leading
        time.sleep(0.3)  # what was under way arrives
        sent = sum(map(len, field.tap.wanted.values()))
        time.sleep(0.3)
        assert sum(map(len, field.tap.wanted.values())) == sent
        come()
        begun_s = time.monotonic()
        fleets.until(lambda: controller.leading and not controller.trouble, "it does not go on")
        well_s = time.monotonic() - begun_s
        field.wait(rollout.id, Phase.DONE)
    assert field.outcomes(rollout.id) == dict.fromkeys(field.names, Outcome.CONFIRMED)
    field.check_once(rollout.id)
    tell(fault, found_s=found_s, well_s=well_s, published=f"nothing is sent meanwhile; {ONCE}")


def test_the_database_is_lost_and_made_again(make_field: Any, fleets: Any, tell: Any) -> None:
    """Of the log, and of what the broker keeps: the last wishes were sent, and the log had not yet heard of them."""
    field = make_field()
    rollout = field.begin()
    with fleets.leading(field, mirror=field.folder):
        fleets.until(lambda: len(field.tap.revisions(rollout.id)) > 1, "no second stage")
    log = field.folder / "audit.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if b'"what":"ask"' in line)
    log.write_bytes(b"".join(lines[:last]))
    field.state.close()
    shutil.rmtree(field.state.path.parent)
    field.state = State(field.folder / "again" / "fleet.db", lease_s=fleets.LEASE_S)
    rebuild(field.state, log)
    assert len(field.state.wishes(rollout.id)) < len(field.tap.revisions(rollout.id))
    with fleets.leading(field, mirror=field.folder):
        field.wait(rollout.id, Phase.DONE)
    assert field.outcomes(rollout.id) == dict.fromkeys(field.names, Outcome.CONFIRMED)
    field.check_once(rollout.id)
    said = f"made again of a log that lacks its end, and of what the broker keeps; {ONCE}"
    tell("the database of a fleet is lost", published=said)


def test_what_is_aborted_is_taken_back_and_what_is_confirmed_can_go_back(make_field: Any, fleets: Any) -> None:
    field = make_field()
    config = {"health": {"every": "5s"}}
    for name in field.names:
        field.tap.say(DesiredTopic(SITE, name), Desired(revision=3, config=config))
    fleets.until(lambda: all(device.asked is not None for device in field.crowd.devices), "they do not hear")
    rollout = field.begin()
    order = ordered(field, rollout)
    field.crowd.behave(Behaviour.SILENT, *order[1:])
    with fleets.leading(field):
        fleets.until(lambda: len(field.tap.revisions(rollout.id)) > 1, "no second stage")
        old = field.shop.add(b"first" * 100, 3)
        revert(field.state, gathered(field), rollout.id, release=old, who="test")
        field.crowd.behave(Behaviour.SOUND, *order)
        (back,) = (each for each in field.state.rollouts() if each.reverts == rollout.id)
        field.wait(back.id, Phase.DONE)
        fleets.until(lambda: Outcome.GOING not in field.outcomes(rollout.id).values(), "nothing is taken back")
    assert field.outcomes(back.id)[order[0]] is Outcome.CONFIRMED
    for told in field.tap.wanted.values():
        assert {each.revision: each.config for each in told} == dict.fromkeys({each.revision for each in told}, config)
        revisions = [each.revision for each in told]
        assert revisions == sorted(revisions)
    assert field.crowd.counts()["wrong_bundle"] == 0
