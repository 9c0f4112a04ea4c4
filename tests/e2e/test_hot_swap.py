"""A device gets another model while it runs: a real agent, a real broker, a real store."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.bundle import Bundle, file_ref, pack_bundle
from tinysight_contract.messages import (
    Alert,
    Desired,
    DesiredState,
    Event,
    EventType,
    Info,
    Reported,
    decode,
    encode,
    utc_now,
)
from tinysight_contract.updates import Code, Release, UpdateState
from tinysight_edge.belt import Belt
from tinysight_edge.store import Store
from tinysight_edge.update import update as decide
from tinysight_edge.update.update import State

ME = ("plant-1", "belt-7")
TEXT = """\
site = "plant-1"
device = "belt-7"
state = "state"
trial = "1s"
[broker]
url = "{url}"
[model]
store = "store"
engine = "interpreter"
[cameras.gate]
source = "{source}"
realtime = {realtime}
[update]
trial = "{trial}"
{more}
"""


class Device:
    """An agent with a store, and who listens to it."""

    def __init__(self, folder: Path, broker: Any, reader: Any, eventually: Any) -> None:
        self.folder, self.broker, self.reader, self.eventually = folder, broker, reader, eventually
        self.store = Store(folder / "store")
        self.process: subprocess.Popen[bytes] | None = None

    def put(self, bundle: Path, *, on_trial: bool = True) -> str:
        """What installing does, as far as the agent can see it: active where nothing was."""
        found = Bundle.open(bundle)
        manifest = found.manifest
        release = Release(
            target=f"belt/{manifest.name}-{manifest.version}.bundle", digest=found.digest, size_bytes=found.size_bytes,
            name=manifest.name, version=manifest.version, release=manifest.release,
        )  # fmt: skip
        with self.store.alone():
            state = decide.progress(
                decide.queue(self.store.state(), release, utc_now()), utc_now(), UpdateState.VERIFIED
            )
            self.store.path(found.digest).write_bytes(bundle.read_bytes())
            if state.active is None:
                state = decide.confirm(state, {}, utc_now())
            elif on_trial:
                state = decide.tested(state, {}, utc_now())
            self.store.save(state)
        return found.digest

    def write(
        self, *, source: str = "synthetic:belt?fps=30", realtime: bool = False, trial: str = "1s", more: str = ""
    ) -> None:
        text = TEXT.format(url=self.broker.url, source=source, realtime=str(realtime).lower(), trial=trial, more=more)
        new = self.folder / "agent.new"
        new.write_text(text)
        new.replace(self.folder / "agent.toml")

    def start(self, *, before: str = "") -> None:
        """Run it; ``before`` is done in its process first."""
        program = f"{before}\nimport tinysight_deploy.cli\ntinysight_deploy.cli.main()"
        command = [sys.executable, "-c", program, "run", "--config", str(self.folder / "agent.toml")]
        home = {"XDG_STATE_HOME": str(self.folder / "home")}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **home}, stdout=log, stderr=log)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def state(self) -> State:
        return self.store.state()

    def ask(self, wish: Desired) -> None:
        """As a person would."""
        command = ["mosquitto_pub", "-p", str(self.broker.port), "-q", "1", "-s", "-r", "-t", str(t.DesiredTopic(*ME))]
        subprocess.run(command, input=encode(wish), check=True, timeout=20)

    def reported(self) -> Reported | None:
        heard = self.reader.of(t.ReportedTopic)
        return decode(heard[-1], Reported) if heard else None

    def outcome(self, digest: str) -> tuple[UpdateState, Code | None] | None:
        """What the device says became of a bundle, if that is the newest."""
        now = self.reported()
        if now is None or now.update is None or now.update.bundle is None or now.update.bundle.digest != digest:
            return None
        return now.update.state, now.update.code

    def seeing(self) -> str | None:
        """Who saw what was told last."""
        heard = self.reader.of(t.InfoTopic)
        return decode(heard[-1], Info).bundle.digest if heard else None

    def alerts(self) -> dict[str, Alert | None]:
        topic = str(t.AlertTopic(*ME, "update-failed"))
        heard = [raw for each, raw, _ in self.reader.heard if each == topic]
        return {"update-failed": decode(heard[-1], Alert) if heard and heard[-1] else None}


@pytest.fixture
def device(tmp_path: Path, mosquitto: Any, make_reader: Any, eventually: Any) -> Iterator[Device]:
    each = Device(tmp_path, mosquitto, make_reader(mosquitto.url), eventually)
    yield each
    if each.process is not None and each.process.poll() is None:
        each.end(signal.SIGKILL)


@pytest.fixture
def later(belt_bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """A later version of the belt's bundle."""

    def make(version: str, *, wrong: bool = False) -> Path:
        first = Bundle.open(belt_bundle)
        files = {name: first.read(name) for name in first.manifest.files}
        if wrong:
            for name in (name for variant in first.manifest.variants for name in variant.golden.values()):
                files[name] = files[name][::-1]
        path = tmp_path / f"{version}.bundle"
        refs = {name: file_ref(data) for name, data in files.items()}
        manifest = replace(first.manifest, version=version, release=int(version.partition(".")[0]) + 10, files=refs)
        path.write_bytes(pack_bundle(manifest, files))
        return path

    return make


def whole(events: list[Event]) -> None:
    """Each number of a start once, each object begun once and ended once."""
    boots = {event.boot_id for event in events}
    for boot in boots:
        numbers = [event.seq for event in events if event.boot_id == boot]
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
    starts, ends = (
        Counter(event.id for event in events if event.type is kind) for kind in (EventType.START, EventType.END)
    )
    assert set(starts.values()) <= {1}
    assert starts == ends


def test_a_candidate_stands_its_trial_and_a_person_goes_back(
    device: Device, belt_bundle: Path, later: Callable[..., Path], eventually: Any
) -> None:
    first = device.put(belt_bundle)
    device.write(more="shadow = 2")
    device.start()
    eventually(lambda: device.seeing() == first)
    eventually(device.store.is_run)
    second = device.put(later("2.0.0"))
    eventually(lambda: device.outcome(second) == (UpdateState.CONFIRMED, None))
    reported = device.reported()
    assert reported is not None
    assert reported.bundle == second
    assert reported.update is not None
    assert {"frames", "trial_p95_ms", "agreement"} <= reported.update.gates.keys()
    assert all(gate.ok for gate in reported.update.gates.values())
    assert reported.update.gates["agreement"].value == 1.0, "it is the same model"
    eventually(lambda: device.seeing() == second)
    state = device.state()
    assert (state.active and state.active.digest, state.previous and state.previous.digest) == (second, first)

    command = [sys.executable, "-m", "tinysight_deploy", "store", "rollback", "--store", str(device.store.root)]
    eventually(lambda: subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0)
    eventually(lambda: device.seeing() == first)
    eventually(lambda: device.outcome(second) == (UpdateState.ROLLED_BACK, Code.OPERATOR))
    assert device.alerts() == {"update-failed": None}, "what a person does is no trouble"
    assert device.end() == 0
    eventually(lambda: {event.type for event in device.reader.events()[-1:]} == {EventType.END})
    events = device.reader.events()
    whole(events)
    assert {event.model.digest for event in events} == {first, second}
    assert {event.reason for event in events} <= {None, "left", "stopped"}


def test_a_candidate_that_breaks_is_taken_back_and_the_process_lives(
    device: Device, belt_bundle: Path, troubles: Path, tmp_path: Path, eventually: Any
) -> None:
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (320, 240))
    belt = Belt(3)
    for number in range(600):
        video.write(belt.frame(number % 60)[0] // 8 + 220)
    video.release()
    first = device.put(belt_bundle)
    device.write(source=str(tmp_path / "v.avi"), realtime=True, trial="1h")
    device.start()
    eventually(lambda: device.seeing() == first)
    bad = device.put(troubles / "fails.bundle")
    eventually(lambda: device.outcome(bad) == (UpdateState.ROLLED_BACK, Code.BROKE))
    eventually(lambda: device.alerts()["update-failed"])
    assert device.process is not None
    assert device.process.poll() is None
    eventually(lambda: device.seeing() == first)
    assert [each.digest for each in device.state().bad] == [bad]
    assert device.end() == 0
    whole(device.reader.events())


def test_a_device_that_goes_down_in_the_trial_starts_on_what_it_had_and_gives_up(
    device: Device, belt_bundle: Path, later: Callable[..., Path], eventually: Any
) -> None:
    first, second = device.put(belt_bundle), device.put(later("2.0.0"))
    device.write(trial="1h")
    for attempts in (1, 2, 3):
        device.start()
        eventually(lambda attempts=attempts: (coming := device.state().candidate) and coming.attempts == attempts)
        eventually(lambda: device.seeing() == second)
        device.end(signal.SIGKILL)
    device.start()
    eventually(lambda: device.outcome(second) == (UpdateState.ROLLED_BACK, Code.CRASHED))
    eventually(lambda: device.seeing() == first)
    state = device.state()
    assert state.active is not None
    assert (state.active.digest, state.candidate) == (first, None)


def test_when_what_is_active_loads_no_more_the_one_before_sees_and_that_is_told(
    device: Device, belt_bundle: Path, later: Callable[..., Path], eventually: Any
) -> None:
    first = device.put(belt_bundle)
    device.put(later("2.0.0", wrong=True))  # as after an upgrade of the runtime
    with device.store.alone():
        device.store.save(decide.confirm(device.state(), {}, utc_now()))
    device.write(more='repository = "repo"')
    device.start()
    eventually(lambda: device.seeing() == first)
    eventually(lambda: (alert := device.alerts()["update-failed"]) and "is active and cannot run" in alert.what)
    eventually(lambda: (now := device.reported()) and now.bundle == first)
    assert device.end() == 0


def test_the_very_first_bundle_is_tested_and_an_end_meanwhile_is_heeded(
    device: Device, belt_bundle: Path, eventually: Any
) -> None:
    first = Bundle.open(belt_bundle).digest
    device.put(belt_bundle)
    with device.store.alone():
        release = device.state().active
        assert release is not None
        state = decide.queue(State(), release, utc_now())
        device.store.save(decide.progress(state, utc_now(), UpdateState.VERIFIED))
    device.write()
    device.start()
    eventually(lambda: (coming := device.state().candidate) and coming.attempts == 1)
    assert device.end() == 0
    coming = device.state().candidate
    assert coming is not None
    assert (coming.state, coming.attempts) == (UpdateState.VERIFIED, 0)
    device.start()
    eventually(lambda: device.seeing() == first)
    assert device.end() == 0


def test_the_end_of_the_agent_does_not_count_against_a_candidate(
    device: Device, belt_bundle: Path, later: Callable[..., Path], eventually: Any
) -> None:
    device.put(belt_bundle)
    second = device.put(later("2.0.0"))
    device.write(trial="1h")
    device.start()
    eventually(lambda: device.seeing() == second)
    assert device.end() == 0
    coming = device.state().candidate
    assert coming is not None
    assert (coming.state, coming.attempts) == (UpdateState.TRIAL, 0)


def test_a_wish_without_a_repository_is_refused_with_what_to_do(
    device: Device, belt_bundle: Path, later: Callable[..., Path], eventually: Any
) -> None:
    first = device.put(belt_bundle)
    device.write()
    device.start()
    eventually(lambda: device.seeing() == first)
    device.ask(Desired(revision=1, bundle=Bundle.open(later("2.0.0")).digest, target="belt/belt-2.0.0.bundle"))
    eventually(lambda: (now := device.reported()) and now.state is DesiredState.REFUSED)
    now = device.reported()
    assert now is not None
    assert "repository" in now.refused["bundle"]


def test_what_the_operator_asks_for_is_fetched_tested_tried_and_confirmed(
    device: Device, belt_bundle: Path, later: Callable[..., Path], tinysight: Any, tmp_path: Path, eventually: Any
) -> None:
    good, wrong = later("2.0.0"), later("3.0.0", wrong=True)
    for words in (("keys", "init"), ("release", "add", good), ("release", "add", wrong)):
        done = tinysight(*words, "--repo", tmp_path / "repo", "--keys", tmp_path / "keys")
        assert done.returncode == 0, done.stderr
    first = device.put(belt_bundle)
    (device.store.trust / "root.json").write_bytes((tmp_path / "repo/metadata/1.root.json").read_bytes())
    device.write(more='repository = "repo"')
    device.start()
    eventually(lambda: device.seeing() == first)
    second = Bundle.open(good).digest
    device.ask(Desired(revision=1, bundle=second, target="belt/belt-2.0.0.bundle"))
    eventually(lambda: device.outcome(second) == (UpdateState.CONFIRMED, None))
    eventually(lambda: (now := device.reported()) and (now.revision, now.state) == (1, DesiredState.APPLIED))
    told = [decode(raw, Reported) for raw in device.reader.of(t.ReportedTopic)]
    states = [
        each.update.state for each in told if each.update and each.update.bundle and each.update.bundle.digest == second
    ]
    assert states.index(UpdateState.TRIAL) < states.index(UpdateState.CONFIRMED)
    assert {each.state for each in told if each.revision == 1} >= {DesiredState.TRIAL, DesiredState.APPLIED}
    assert all(
        each.bundle == (second if each.state is DesiredState.APPLIED else first) for each in told if each.revision
    )

    third = Bundle.open(wrong).digest
    device.ask(Desired(revision=2, bundle=third, target="belt/belt-3.0.0.bundle"))
    eventually(lambda: (now := device.reported()) and (now.revision, now.state) == (2, DesiredState.REFUSED))
    assert device.outcome(third) == (UpdateState.FAILED, Code.WRONG)
    now = device.reported()
    assert now is not None
    assert (now.bundle, now.update and now.update.gates["golden"].ok) == (second, False)
    assert now.refused["bundle"]
    eventually(lambda: device.alerts()["update-failed"])
    assert device.seeing() == second
    assert [each.digest for each in device.state().bad] == [third]


HASTY = "import tinysight_edge.orders.asker as asker; asker.AWAY_S = asker.SPREAD_S = asker.TICK_S = 0.2"
"""Else it asks the fleet's server after a minute without a broker."""


def test_a_device_waits_for_its_window_and_hears_of_another_wish_over_http_when_the_broker_is_gone(
    device: Device, belt_bundle: Path, later: Callable[..., Path], tinysight: Any, tmp_path: Path, eventually: Any,
    module: Callable[[str], ModuleType], make_reader: Any,
) -> None:  # fmt: skip
    for words in (("keys", "init"), ("release", "add", later("2.0.0"))):
        assert tinysight(*words, "--repo", tmp_path / "repo", "--keys", tmp_path / "keys").returncode == 0
    first, second = device.put(belt_bundle), Bundle.open(later("2.0.0")).digest
    (device.store.trust / "root.json").write_bytes((tmp_path / "repo/metadata/1.root.json").read_bytes())
    (tmp_path / "token").write_text("t0ken")
    (tmp_path / "token").chmod(0o600)
    wish = Desired(revision=1, bundle=second, target="belt/belt-2.0.0.bundle", rollout="night")
    faulty, path = module("edge/update/faulty"), "v1/devices/plant-1/belt-7/desired"
    server = faulty.Server({path: encode(replace(wish, revision=2))}, prefix="tiny")
    server.always[path] = faulty.Fault(status=204, body=b"")
    device.write(more=f'repository = "repo"\n[fleet]\nurl = "{server.url}"\ntoken_file = "token"')
    try:
        device.start(before=HASTY)
        eventually(lambda: device.seeing() == first)
        begins, ends = (utc_now().astimezone() + timedelta(hours=hours) for hours in (3, 4))
        device.ask(replace(wish, window=f"{begins:%H:%M}-{ends:%H:%M}"))
        eventually(lambda: (now := device.reported()) and now.due_at is not None)
        now = device.reported()
        assert now is not None
        assert (now.revision, now.state, now.bundle) == (1, DesiredState.WAITING, first)
        assert now.due_at is not None
        assert now.due_at.astimezone().strftime("%H:%M") == f"{begins:%H:%M}"
        assert server.asked == [], "nobody else is asked while the broker is there"

        device.broker.kill()
        eventually(lambda: server.asked)
        assert server.asked[0].headers["authorization"] == "Bearer t0ken"
        assert device.state().candidate is None, "that nothing is desired there clears nothing"
        del server.always[path]
        device.end()
        device.start(before=HASTY)  # and it starts without a broker, too
        eventually(lambda: (active := device.state().active) and active.digest == second)
        device.end()
        device.broker.start()
        device.reader = make_reader(device.broker.url)
        device.start()
        eventually(lambda: device.outcome(second) == (UpdateState.CONFIRMED, None))
        now = device.reported()
        assert now is not None
        assert now.update is not None
        assert (now.revision, now.state, now.due_at) == (2, DesiredState.APPLIED, None)
        before = {name: gate.before for name, gate in now.update.gates.items()}
        assert before["p95_ms"] is not None
        assert device.end() == 0
    finally:
        server.close()
