"""Devices that do not exist and update: real sessions, a real repository, and each way to fail that they were told."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.bundle import Bundle, pack_bundle
from tinysight_contract.errors import BrokerError, ConfigError
from tinysight_contract.messages import (
    Desired,
    DesiredState,
    Info,
    ModelMetrics,
    Reported,
    State,
    Status,
    decode,
    encode,
)
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.updates import Code, Release, Update, UpdateState
from tinysight_deploy.repo.repository import Repository
from tinysight_edge.simulate.behave import Behaviour, behaviour_of, parse_shares
from tinysight_edge.simulate.update_plan import UpdatePlan
from tinysight_edge.simulate.updating import running

SITE = "sim"
CONFIRM = (Behaviour.SOUND, Behaviour.SLOW, Behaviour.DRIFT, Behaviour.LIAR)


class Shop:
    """A repository with the belt's bundle as it was, and twice again under higher numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repo"
        repository = Repository(self.folder, folder / "keys")
        self.releases: list[Release] = [each.release for each in reversed(repository.releases())]
        self.root = repository.root_bytes()


@pytest.fixture(scope="session")
def shop(once: Any, belt_repo: Path, belt_bundle: Path) -> Shop:
    def make(folder: Path) -> None:
        for name in ("repo", "keys"):
            shutil.copytree(belt_repo.parent / name, folder / name)
        old = Bundle.open(belt_bundle)
        files = {name: old.read(name) for name in old.manifest.files}
        for number in (2, 3):
            path = folder / "new.bundle"
            path.write_bytes(pack_bundle(replace(old.manifest, version=f"1.{number}.0", release=number), files))
            Repository(folder / "repo", folder / "keys").add(path)

    return Shop(once("updating-repo", make))


class Operator:
    """Wishes for bundles, and knows what was told."""

    def __init__(self, url: str, reader: Any) -> None:
        self.reader = reader
        self._connection = Connection(Address.parse(url), client_id="")
        self._connection.open(timeout_s=5)

    def wish(self, name: str, revision: int, release: Release | None, **more: Any) -> None:
        asked = Desired(
            revision=revision,
            bundle=None if release is None else release.digest,
            target=None if release is None else release.target,
        )
        self.say(name, encode(replace(asked, **more)))

    def say(self, name: str, payload: bytes) -> None:
        self._connection.publish(str(t.DesiredTopic(SITE, name)), payload, qos=1, retain=True)

    def of(self, kind: type[t.Topic], name: str) -> list[bytes]:
        found = [payload for topic, payload, _ in self.reader.heard if topic == str(kind(SITE, name))]
        return [payload for payload in found if payload]

    def reported(self, name: str) -> list[Reported]:
        return [decode(payload, Reported) for payload in self.of(t.ReportedTopic, name)]

    def last(self, name: str) -> Reported | None:
        return next(iter(reversed(self.reported(name))), None)

    def now(self, name: str) -> Reported:
        told = self.last(name)
        assert told is not None
        return told

    def update(self, name: str) -> Update:
        update = self.now(name).update
        assert update is not None
        return update

    def slowdown(self, name: str) -> float:
        gate = self.update(name).gates["trial_p95_ms"]
        assert gate.before is not None
        return gate.value / gate.before

    def model(self, name: str) -> ModelMetrics:
        return decode(self.of(t.ModelTopic, name)[-1], ModelMetrics)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def operator(mosquitto: Any, make_reader: Any) -> Iterator[Operator]:
    made = Operator(mosquitto.url, make_reader(mosquitto.url))
    yield made
    made.close()


@pytest.fixture
def plan(mosquitto: Any, shop: Shop) -> Callable[..., UpdatePlan]:
    def make(devices: int, **more: Any) -> UpdatePlan:
        first = {
            "repository": str(shop.folder),
            "root": shop.root,
            "active": shop.releases[0],
            "update_s": 0.6,
            "cameras": 0,
        }
        return UpdatePlan(address=Address.parse(mosquitto.url), devices=devices, **{**first, **more})

    return make


def names_of(count: int) -> list[str]:
    return [f"sim-{number:04d}" for number in range(1, count + 1)]


def ends(operator: Operator, name: str, state: UpdateState) -> bool:
    told = operator.last(name)
    return told is not None and told.update is not None and told.update.state is state


def test_every_behaviour_is_told_as_a_device_would_that_has_it(
    plan: Any, operator: Operator, shop: Shop, eventually: Any
) -> None:
    named = dict(zip(names_of(len(Behaviour)), Behaviour, strict=True))
    by, others = {kind: name for name, kind in named.items()}, names_of(len(named) + 4)[len(named) :]
    old, new = shop.releases[:2]
    settled = dict.fromkeys((by[kind] for kind in CONFIRM), UpdateState.CONFIRMED)
    settled |= {by[Behaviour.CRASH]: UpdateState.ROLLED_BACK, **dict.fromkeys(others, UpdateState.CONFIRMED)}
    with running(plan(len(named) + 4, named=named, health_s=0.5)) as crowd:
        for name in names_of(len(named) + 4):
            operator.wish(name, 1, new)
        eventually(lambda: all(ends(operator, *each) for each in settled.items()))
        eventually(lambda: operator.model(by[Behaviour.SOUND]).bundle == new.digest)
        eventually(lambda: operator.model(by[Behaviour.DRIFT]).bundle == new.digest)

        assert_sound(operator, by[Behaviour.SOUND], new)
        crashed, slow, liar = (operator.now(by[kind]) for kind in (Behaviour.CRASH, Behaviour.SLOW, Behaviour.LIAR))
        assert (crashed.state, operator.update(by[Behaviour.CRASH]).code) == (DesiredState.ROLLED_BACK, Code.CRASHED)
        assert crashed.bundle == old.digest, "what ran before goes on"
        assert slow.state is DesiredState.APPLIED
        assert operator.slowdown(by[Behaviour.SLOW]) > 1.9
        assert operator.model(by[Behaviour.DRIFT]).drift == 0.9
        assert (liar.state, liar.bundle) == (DesiredState.APPLIED, new.digest)
        assert {crowd.device(by[kind]).state.active for kind in (Behaviour.LIAR, Behaviour.SILENT)} == {old}

        silent = operator.now(by[Behaviour.SILENT])
        assert (silent.revision, silent.state, silent.update) == (1, DesiredState.WAITING, None)
        assert crowd.device(by[Behaviour.SILENT]).ready, "its session stays"
        gone = decode(operator.of(t.StatusTopic, by[Behaviour.VANISH])[-1], Status)
        assert (gone.state, gone.reason) == (State.OFFLINE, "connection lost")
        assert operator.of(t.StatusTopic, by[Behaviour.OFFLINE]) == []

        crowd.come_back_all()
        crowd.behave(Behaviour.SOUND, by[Behaviour.SILENT])
        late = (Behaviour.VANISH, Behaviour.OFFLINE, Behaviour.SILENT)
        eventually(lambda: all(ends(operator, by[kind], UpdateState.CONFIRMED) for kind in late))
        counts = crowd.counts()
    assert (counts["confirmed"], counts["failed"]) == (len(named) + 4 - 2, 1)  # a liar has done nothing
    assert (counts["duplicates_acted"], counts["wrong_bundle"]) == (0, 0)
    assert counts["checks"] == counts["acted"] == len(named) + 4 - 1


def assert_sound(operator: Operator, name: str, new: Release) -> None:
    """It went through every state, in its order, and told what of each."""
    states = [told.update.state for told in operator.reported(name) if told.update is not None]
    way = ["queued", "downloading", "verified", "selftest", "trial", "confirmed"]
    assert [each.value for each in dict.fromkeys(states)] == way
    told, update = operator.now(name), operator.update(name)
    assert (told.revision, told.state, told.bundle) == (1, DesiredState.APPLIED, new.digest)
    assert (update.bundle, update.transfer) == (new, "delta")
    assert 0 < update.moved_bytes < new.size_bytes
    assert set(update.gates) == {"golden", "p95_ms", "memory_mib", "frames", "trial_p95_ms", "agreement"}
    assert operator.slowdown(name) < 1.2
    info, model = decode(operator.of(t.InfoTopic, name)[-1], Info), operator.model(name)
    assert (info.bundle.digest, info.bundle.version, info.bundle.release) == (new.digest, new.version, new.release)
    assert model.drift is not None
    assert model.drift < 0.1


def test_a_wish_that_comes_again_is_acted_upon_once_whatever_happens_to_the_session(
    plan: Any, mosquitto: Any, operator: Operator, shop: Shop, eventually: Any, make_reader: Any
) -> None:
    two, three = shop.releases[1:]
    with running(plan(2)) as crowd:
        eventually(lambda: operator.last("sim-0001"))
        operator.wish("sim-0001", 5, two)
        operator.wish("sim-0001", 5, two)
        operator.wish("sim-0001", 4, three)
        operator.wish("sim-0001", 6, two)  # the same bundle by a later revision is the same wish
        eventually(lambda: ends(operator, "sim-0001", UpdateState.CONFIRMED))
        mosquitto.kill()
        mosquitto.start()
        again = Operator(mosquitto.url, make_reader(mosquitto.url))
        eventually(lambda: (told := again.last("sim-0001")) is not None and told.revision == 6)
        again.wish("sim-0001", 6, two)
        again.wish("sim-0001", 3, three)
        again.wish("sim-0002", 1, three)
        eventually(lambda: ends(again, "sim-0002", UpdateState.CONFIRMED))
        again.close()
        device = crowd.device("sim-0001")
        assert device.acted.total() == 1
        assert device.passed_over == 4
        assert device.state.active == two
        assert crowd.counts()["duplicates_acted"] == 0


def test_only_what_is_signed_and_newer_is_installed_and_the_last_wish_wins(
    plan: Any, operator: Operator, shop: Shop, eventually: Any
) -> None:
    one, two, three = shop.releases

    def became(name: str, revision: int, state: DesiredState) -> Callable[[], bool]:
        return lambda: (told := operator.last(name)) is not None and (told.revision, told.state) == (revision, state)

    with running(plan(4, active=two, update_s=0.3)) as crowd:
        operator.wish("sim-0001", 1, replace(three, digest="0" * 64))
        operator.wish("sim-0002", 1, one)
        operator.wish("sim-0003", 1, replace(three, target="belt/belt-9.9.9.bundle"))
        operator.say("sim-0004", b"{}")
        eventually(became("sim-0001", 1, DesiredState.REFUSED))
        eventually(became("sim-0002", 1, DesiredState.REFUSED))
        eventually(became("sim-0003", 1, DesiredState.REFUSED))
        eventually(became("sim-0004", 0, DesiredState.REFUSED))
        codes = {name: told.update.code for name in names_of(3) if (told := operator.last(name)) and told.update}
        assert codes == {"sim-0001": Code.UNSIGNED, "sim-0002": Code.TOO_OLD, "sim-0003": Code.UNSIGNED}
        assert {device.state.active for device in crowd.devices} == {two}

        operator.wish("sim-0001", 2, three)
        eventually(became("sim-0001", 2, DesiredState.APPLIED))
        operator.say("sim-0001", b"")
        eventually(became("sim-0001", 0, DesiredState.NONE))
        operator.wish("sim-0001", 1, three)  # who was made to forget takes any number
        eventually(became("sim-0001", 1, DesiredState.APPLIED))
        assert crowd.device("sim-0001").acted == {2: 1}

    with running(plan(1, update_s=5.0, prefix="late")) as crowd:
        operator.wish("late-0001", 1, two)
        eventually(lambda: crowd.device("late-0001").state.candidate is not None)
        operator.wish("late-0001", 2, three)
        eventually(lambda: (coming := crowd.device("late-0001").state.candidate) and coming.bundle == three)
        last = crowd.device("late-0001").state.last
        assert last is not None
        assert (last.bundle, last.code) == (two, Code.SUPERSEDED)
        operator.wish("late-0001", 3, None)
        eventually(became("late-0001", 3, DesiredState.APPLIED))
        assert crowd.device("late-0001").state.candidate is None


def test_a_window_is_waited_for_until_a_later_wish_lifts_it(
    plan: Any, operator: Operator, shop: Shop, eventually: Any
) -> None:
    new, begin = shop.releases[1], datetime.now().astimezone() + timedelta(hours=3)
    with running(plan(1)) as crowd:
        operator.wish("sim-0001", 1, new, window=f"{begin:%H:%M}-{begin + timedelta(hours=1):%H:%M}")
        eventually(lambda: (told := operator.last("sim-0001")) is not None and told.due_at is not None)
        assert operator.now("sim-0001").state is DesiredState.WAITING
        assert crowd.counts()["checks"] == 0
        operator.wish("sim-0001", 2, new)
        eventually(lambda: ends(operator, "sim-0001", UpdateState.CONFIRMED))
        assert operator.now("sim-0001").due_at is None
        assert crowd.counts()["duplicates_acted"] == 0


def test_metadata_that_was_tampered_with_moves_nobody(
    plan: Any, operator: Operator, shop: Shop, eventually: Any, tmp_path: Path
) -> None:
    copy = tmp_path / "repo"
    shutil.copytree(shop.folder, copy)
    path = max((copy / "metadata").glob("*.belt.json"))
    path.write_bytes(path.read_bytes().replace(b"1.3.0", b"1.3.9"))
    with running(plan(2, repository=str(copy))) as crowd:
        for name in names_of(2):
            operator.wish(name, 1, shop.releases[2])
        eventually(lambda: all(device.state.last for device in crowd.devices))
        assert {device.state.last.code for device in crowd.devices if device.state.last} == {Code.UNSIGNED}
        assert {device.state.active for device in crowd.devices} == {shop.releases[0]}


def test_a_device_that_is_cut_off_goes_on_and_tells_when_it_is_back(
    plan: Any, operator: Operator, shop: Shop, eventually: Any
) -> None:
    new = shop.releases[2]
    with running(plan(1)) as crowd:
        operator.wish("sim-0001", 1, new)
        eventually(lambda: crowd.device("sim-0001").state.candidate)
        crowd.cut_off("sim-0001")
        eventually(lambda: decode(operator.of(t.StatusTopic, "sim-0001")[-1], Status).state is State.OFFLINE)
        eventually(lambda: crowd.device("sim-0001").state.active == new)
        assert not ends(operator, "sim-0001", UpdateState.CONFIRMED)
        crowd.come_back_all("sim-0001")
        eventually(lambda: ends(operator, "sim-0001", UpdateState.CONFIRMED))


def test_the_command_updates_what_it_simulates(tinysight: Any, mosquitto: Any, operator: Operator, shop: Shop) -> None:
    two, three = shop.releases[1:]
    for name in names_of(3):
        operator.wish(name, 1, three)
    done = tinysight(
        *("simulate", "--broker", mosquitto.url, "--devices", "3", "--cameras", "0", "--duration", "3", "--json"),
        *("--repository", shop.folder, "--root", shop.folder / "metadata" / "1.root.json", "--active", two.target),
        *("--behave", "crash=100%", "--update-seconds", "0.2", "--offline-seconds", "1", "--clear"),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["devices"], told["failed"], told["confirmed"], told["checks"]) == (3, 3, 0, 3)
    assert told["messages_out"] > 30
    assert {each.bundle for name in names_of(3) for each in operator.reported(name)} == {two.digest}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--behave", "crash=2%"), "Name it with --repository", id="nowhere to update from"),
        pytest.param(("--repository", "repo"), "metadata/1.root.json with --root", id="no root"),
        pytest.param(("--repository", "repo", "--root", "none.json"), "none.json cannot be read", id="no such root"),
        pytest.param(("--repository", "repo", "--behave", "crash=200%"), "more than all", id="too many"),
    ],
)
def test_what_cannot_be_simulated_is_one_line_with_status_two(
    arguments: tuple[str, ...], said: str, tinysight: Any
) -> None:
    done = tinysight("simulate", "--broker", "mqtt://127.0.0.1:1", *arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_a_broker_that_is_not_there_is_told_where_the_crowd_was_begun(shop: Shop) -> None:
    plan = UpdatePlan(address=Address.parse("mqtt://127.0.0.1:1"), repository=str(shop.folder), root=shop.root)
    with pytest.raises(BrokerError, match="No broker"), running(plan):
        pass


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        pytest.param("dies=2%", "NAME of: sound, crash", id="unknown"),
        pytest.param("crash=2", "Write NAME=2%", id="no share"),
        pytest.param("crash=2%,crash=1%", "each once", id="twice"),
        pytest.param("crash=60%,slow=50%", "at most 100% together", id="more than all"),
    ],
)
def test_shares_that_cannot_be_are_refused(text: str, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_shares(text)
    assert mend in caught.value.mend


def test_a_devices_behaviour_is_its_names_and_shares_are_about_what_was_asked_for() -> None:
    shares = parse_shares("crash=2%, offline=5%")
    found = [behaviour_of(f"sim-{number:04d}", shares) for number in range(20_000)]
    assert found == [behaviour_of(f"sim-{number:04d}", shares) for number in range(20_000)]
    assert found.count(Behaviour.CRASH) == pytest.approx(400, rel=0.2)
    assert found.count(Behaviour.OFFLINE) == pytest.approx(1000, rel=0.15)
    assert parse_shares("") == {}
