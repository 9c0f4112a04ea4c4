"""Devices that do not exist, over a real broker: nobody who reads them can tell but by what they say they are."""

import itertools
import json
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract import topics as t
from tinysight_contract.errors import BrokerError, ConfigError
from tinysight_contract.messages import Counts, Event, EventType, Health, Info, State, Status, decode, encode
from tinysight_contract.mqtt import Address
from tinysight_edge.simulate.crowd import Crowd
from tinysight_edge.simulate.recording import read_recording
from tinysight_edge.simulate.simulate import Plan, Play

RECORDING = read_recording()


def test_the_recording_can_be_played_again_and_again_for_all_that_begins_in_it_ends_in_it() -> None:
    lives: dict[str, list[EventType]] = defaultdict(list)
    for step in RECORDING.steps:
        lives[step.event.id].append(step.event.type)
    assert len(lives) > 30
    for told in lives.values():
        assert (told[0], told[-1]) == (EventType.START, EventType.END)
        assert set(told[1:-1]) <= {EventType.UPDATE}
    ends = [step.event for step in RECORDING.steps if step.event.type is EventType.END]
    assert {end.reason for end in ends} == {"left"}
    assert any(end.crossed for end in ends)
    assert any(end.zones.dwell_s for end in ends)
    times = [step.at_s for step in RECORDING.steps]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= RECORDING.duration_s


@given(begin_s=st.floats(0, 200), steps=st.integers(1, 600))
def test_a_story_from_any_place_is_whole(begin_s: float, steps: int) -> None:
    play, now, open_ids, due = Play(RECORDING, begin_s), datetime(2026, 11, 25, tzinfo=UTC), dict[str, Event](), []
    used, crossings = set(), dict[str, Counter[str]]()
    for number in range(steps):
        due.append(play.due_s)
        event = play.step(now + timedelta(seconds=number / 10))
        if event is None:
            continue
        assert decode(encode(event), Event) == event
        assert event.started_at <= event.seen_at
        if event.type is EventType.START:
            assert event.id not in used
            used.add(event.id)
            open_ids[event.id] = event
        else:
            assert event.started_at == open_ids[event.id].started_at
            assert event.track.age_s == pytest.approx((event.seen_at - event.started_at).total_seconds(), abs=1e-3)
            open_ids[event.id] = event
            if event.type is EventType.END:
                del open_ids[event.id]
        present = play.present(RECORDING.info.bundle.labels)
        assert Counter({label: n for label, n in present.items() if n}) == Counter(e.label for e in open_ids.values())
        within = play.present(RECORDING.info.bundle.labels, zone="scale")
        assert sum(within.values()) == sum("scale" in e.zones.now for e in open_ids.values())
        crossings[event.id] = Counter(each.direction for each in event.crossed)
        assert Counter(play.crossed["gate"]) == sum(crossings.values(), Counter({"in": 0, "out": 0}))
    assert due == sorted(due)
    assert {event.id for event in play.stop(now)} == set(open_ids)
    assert sum(play.present(RECORDING.info.bundle.labels).values()) == 0


def simulate(broker: str, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tinysight_deploy", "simulate", "--broker", broker, "--json", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result_of(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    told: dict[str, Any] = json.loads(out)
    return told


def statuses(reader: Any) -> dict[str, Status]:
    """The newest of each device."""
    return {
        topic.device: decode(payload, Status)
        for text, payload, _ in reader.heard
        if isinstance(topic := t.parse(text), t.StatusTopic)
    }


def seqs(events: list[Event]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        found[event.boot_id].append(event.seq)
    return found


def test_fifty_devices_tell_everything_in_the_contracts_words_and_leave_politely(
    make_mosquitto: Any, make_reader: Any, eventually: Any
) -> None:
    broker = make_mosquitto("allow_anonymous true\nmax_queued_messages 0")  # it drops what a slow reader leaves waiting
    broker.start()
    reader = make_reader(broker.url)
    process = simulate(broker.url, "--devices", "50", "--cameras", "2", "--rate", "5", "--site", "plant-1")
    assert process.stderr is not None
    assert "50 devices" in process.stderr.readline()
    eventually(lambda: len(reader.heard) > 4000 and reader.of(t.HealthTopic))
    process.send_signal(signal.SIGINT)
    told = result_of(process)
    assert told["devices"] == 50
    assert told["events_sent"] == told["acknowledged"]
    assert told["sessions_lost"] == 0
    eventually(lambda: len(reader.of(t.EventTopic)) == told["events_sent"])
    assert len(seqs(reader.events())) == 50
    for numbers in seqs(reader.events()).values():
        assert numbers == list(range(1, len(numbers) + 1)), "no event is missing, none comes twice"
    kinds = Counter(type(t.parse(topic)) for topic, _, _ in reader.heard)
    assert set(kinds) == {t.StatusTopic, t.InfoTopic, t.HealthTopic, t.CameraStatusTopic, t.CountsTopic, t.EventTopic}
    assert kinds[t.InfoTopic] == 50
    assert kinds[t.CameraStatusTopic] == 100
    ended = statuses(reader)
    assert sorted(ended) == [f"sim-{number:04d}" for number in range(1, 51)]
    assert {(each.state, each.reason) for each in ended.values()} == {(State.OFFLINE, "stopped")}
    open_ids = Counter(event.id for event in reader.events() if event.type is EventType.START)
    open_ids.subtract(event.id for event in reader.events() if event.type is EventType.END)
    assert set(open_ids.values()) == {0}, "all that began has ended"
    reasons = Counter(event.reason for event in reader.events() if event.type is EventType.END)
    assert set(reasons) == {"left", "stopped"}, "every end says why"
    health = decode(reader.of(t.HealthTopic)[0], Health).cameras
    assert {each.fps_in for each in health.values()} == {each.fps for each in health.values()} != {0.0}
    counts = [decode(payload, Counts) for payload in reader.of(t.CountsTopic)]
    assert {(*each.zones, *each.lines) for each in counts} == {("scale", "gate")}, "what the recorded camera has"
    assert any(sum(each.zones["scale"].values()) for each in counts)
    assert any(sum(each.lines["gate"].values()) for each in counts)
    last = {text: payload for text, payload, _ in reader.heard if isinstance(t.parse(text), t.CountsTopic)}
    assert {sum(decode(payload, Counts).objects.values()) for payload in last.values()} == {0}
    info = decode(reader.of(t.InfoTopic)[0], Info)
    assert info.hardware == {"model": "simulated"}
    assert {(*each.zones, *each.lines) for each in info.cameras.values()} == {("scale", "gate")}, "to be drawn"


def test_a_killed_process_leaves_as_many_wills_as_devices(mosquitto: Any, make_reader: Any, eventually: Any) -> None:
    reader = make_reader(mosquitto.url)
    process = simulate(mosquitto.url, "--devices", "5")
    eventually(lambda: len(statuses(reader)) == 5)
    process.kill()
    process.communicate()
    eventually(lambda: {each.reason for each in statuses(reader).values()} == {"connection lost"})


def test_a_broker_that_goes_away_and_comes_back_has_everything_in_the_end(
    mosquitto: Any, make_reader: Any, eventually: Any
) -> None:
    reader = make_reader(mosquitto.url)
    process = simulate(mosquitto.url, "--devices", "3", "--rate", "20", "--duration", "14")
    eventually(lambda: len(reader.heard) > 200)
    mosquitto.kill()
    time.sleep(0.5)
    mosquitto.start()
    again = make_reader(mosquitto.url)
    told = result_of(process)
    assert told["sessions_lost"] >= 3
    assert told["events_sent"] == told["acknowledged"]
    heard = seqs([*reader.events(), *again.events()])
    assert sum(len(set(numbers)) for numbers in heard.values()) >= told["events_sent"] - lost_with_the_broker(heard)


def lost_with_the_broker(heard: dict[str, list[int]]) -> int:
    """Between the broker's death and the new reader's subscription nobody listened; what was acknowledged then is gone.

    Gaps may only be there, so each boot has at most one.
    """
    lost = 0
    for numbers in heard.values():
        known = sorted(set(numbers))
        gaps = [b - a - 1 for a, b in itertools.pairwise(known) if b > a + 1]
        assert len(gaps) <= 1
        lost += sum(gaps)
    return lost


def test_what_was_retained_is_taken_back_on_demand(mosquitto: Any, make_reader: Any) -> None:
    told = result_of(simulate(mosquitto.url, "--devices", "3", "--duration", "3", "--clear"))
    assert told["events_sent"] == told["acknowledged"]
    late = make_reader(mosquitto.url)
    time.sleep(0.5)
    assert late.heard == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--broker", "mqtt://127.0.0.1:1"), "No broker answers", id="no broker"),
        pytest.param(("--broker", "mqtt://127.0.0.1:1", "--prefix", "Sim"), "not a valid id", id="no id"),
    ],
)
def test_bad_input_is_one_line_with_status_two(arguments: tuple[str, ...], said: str, tinysight: Any) -> None:
    done = tinysight("simulate", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_broker_that_refuses_ends_it_at_once(make_mosquitto: Callable[..., Any], tmp_path: Any) -> None:
    (tmp_path / "passwords").touch()
    broker = make_mosquitto(f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}")
    broker.start()
    with pytest.raises(BrokerError, match="refuses the connection"):
        Crowd(Plan(address=Address.parse(broker.url), devices=3), RECORDING).run(duration_s=20)


def test_more_devices_than_files_is_refused_before_anything_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysight_edge.simulate.crowd.resource.getrlimit", lambda _: (64, 128))
    with pytest.raises(ConfigError, match="may open 128 files"):
        Crowd(Plan(address=Address.parse("mqtt://127.0.0.1:1"), devices=500), RECORDING).run()
