"""The agent as a user runs it: real processes, a real Mosquitto, its own command-line reader."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tinysight_contract import topics as t
from tinysight_contract.messages import Counts, Event, EventType, Info, State, Status, decode

WHO = ("--site", "plant-1", "--device", "belt-7")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of the belt, with its truth beside it."""
    from tinysight_trainer.synth import belt_video

    path = tmp_path_factory.mktemp("video") / "belt.mp4"
    belt_video(path, frames=300, seed=5)
    return path


class Sub:
    """``mosquitto_sub -v``: somebody else's reader."""

    def __init__(self, port: int, folder: Path) -> None:
        program = shutil.which("mosquitto_sub")
        if program is None:
            pytest.skip("mosquitto_sub is not installed: apt-get install mosquitto-clients")
        command = [program, "-p", str(port), "-v", "-q", "1", "-t", "tinysight/v1/#"]
        self.out = folder / "mosquitto_sub.txt"
        self.heard: list[tuple[str, bytes, bool]] = []
        with self.out.open("wb") as out:  # a pipe would fill up and block it
            self.process = subprocess.Popen(command, stdout=out)
        time.sleep(0.5)  # mosquitto_sub does not say when it has subscribed

    def end(self) -> list[tuple[t.Topic, bytes]]:
        time.sleep(0.5)
        self.process.terminate()
        self.process.wait(10)
        for line in self.out.read_text().splitlines():
            topic, _, payload = line.partition(" ")
            self.heard.append((topic, b"" if payload == "(null)" else payload.encode(), False))
        return [(t.parse(topic), payload) for topic, payload, _ in self.heard if payload]  # an empty one clears


@pytest.fixture
def sub(mosquitto: Any, wire: Any, tmp_path: Path) -> Iterator[Sub]:
    reader = Sub(mosquitto.port, tmp_path)
    yield reader
    reader.process.kill()
    reader.process.wait()
    wire.check(reader.heard)


def events(heard: list[tuple[t.Topic, bytes]]) -> list[Event]:
    return [decode(payload, Event) for topic, payload in heard if isinstance(topic, t.EventTopic)]


def test_what_the_belt_carries_is_read_by_mosquitto_sub_and_fits_the_schemas(
    mosquitto: Any, sub: Sub, belt_bundle: Path, video: Path, tinysight: Any
) -> None:
    done = tinysight(
        "run", "--bundle", belt_bundle, "--source", video, "--broker", mosquitto.url, *WHO, "--json", "--quiet"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    heard = sub.end()
    kinds = Counter(type(topic) for topic, _ in heard)
    assert {t.StatusTopic, t.InfoTopic, t.HealthTopic, t.CountsTopic, t.CameraStatusTopic, t.EventTopic} <= set(kinds)
    told = events(heard)
    assert [event.seq for event in told] == list(range(1, len(told) + 1)), "none missing, none twice"
    assert len(told) == result["events_sent"] == sum(result[f"events_{kind}"] for kind in ("start", "update", "end"))
    assert result["events_start"] == result["events_end"], "every life is closed"
    assert result["frames"] == 300, "a file is read whole"
    truth = json.loads(video.with_suffix(".truth.json").read_text())
    shown = {p["parcel"]: p["label"] for frame in truth["frames"] for p in frame if p["clear"]}
    seen = Counter(event.label for event in told if event.type is EventType.END and event.track.age_s > 1)
    right = sum((seen & Counter(shown.values())).values())
    assert right >= 0.75 * len(shown), f"{right} of {len(shown)} parcels"
    last_counts = [decode(payload, Counts) for topic, payload in heard if isinstance(topic, t.CountsTopic)][-1]
    assert set(last_counts.objects.values()) == {0}
    assert decode(heard[-1][1], Status).state is State.OFFLINE


def test_a_flashed_store_runs_what_was_flashed(
    mosquitto: Any, sub: Sub, belt_bundle: Path, belt_repo: Path, video: Path, tinysight: Any, tmp_path: Path
) -> None:
    flashed = tinysight("flash", belt_bundle, "--to", "dir:device", "--repo", belt_repo, "--json")
    assert flashed.returncode == 0, flashed.stderr
    digest = json.loads(flashed.stdout)["digest"]
    source = ("--source", f"left={video}", "--source", f"right={video}")
    done = tinysight("run", "--store", "device", *source, "--broker", mosquitto.url, *WHO)
    assert done.returncode == 0, done.stderr
    heard = sub.end()
    info = next(decode(payload, Info) for topic, payload in heard if isinstance(topic, t.InfoTopic))
    assert info.bundle.digest == digest
    assert set(info.cameras) == {"left", "right"}
    assert {event.camera for event in events(heard)} == {"left", "right"}
    assert {event.model.digest for event in events(heard)} == {digest}
    assert (tmp_path / "device" / "state.json").is_file()


def agent(bundle: Path, url: str, source: str, state: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tinysight_deploy", "run", "--bundle", str(bundle), "--source", source]
    rest = ["--broker", url, *WHO, "--state", str(state), "--json"]
    return subprocess.Popen([*command, *rest], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_open_events_and_ends_cleanly(
    number: signal.Signals, mosquitto: Any, make_reader: Any, belt_bundle: Path, tmp_path: Path, eventually: Any
) -> None:
    reader = make_reader(mosquitto.url)
    process = agent(belt_bundle, mosquitto.url, "synthetic:belt?seed=5&fps=30", tmp_path / "state")
    eventually(lambda: any(event.type is EventType.START for event in reader.events()))
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert result["events_waiting"] == 0
    eventually(lambda: len(reader.of(t.StatusTopic)) == 2)
    lives = Counter((event.id, event.type) for event in reader.events())
    begun = {life for life, kind in lives if kind is EventType.START}
    assert begun
    assert begun == {life for life, kind in lives if kind is EventType.END}
    assert decode(reader.of(t.StatusTopic)[-1], Status).reason == "stopped"


HANGS = """
import sys
from tinysight_edge import choice, compiled
choice.accelerators = lambda: {"gpu": ""}
compiled.REHEARSAL_S = 3600.0
sys.executable = sys.argv.pop(1)  # what tries the GPU
from tinysight_deploy.cli import main
main()
"""


def test_a_signal_while_an_accelerator_is_tried_ends_the_start_and_the_trial_without_a_word_to_the_broker(
    mosquitto: Any, make_reader: Any, belt_bundle: Path, tmp_path: Path, eventually: Any
) -> None:
    reader, hangs, told = make_reader(mosquitto.url), tmp_path / "hangs", tmp_path / "hangs.pid"
    hangs.write_text('#!/bin/sh\necho $$ > "$0.new"; mv "$0.new" "$0.pid"; exec sleep 3600\n')
    hangs.chmod(0o755)
    given = ["--bundle", str(belt_bundle), "--source", "synthetic:belt", "--broker", mosquitto.url, *WHO, "--json"]
    command = [sys.executable, "-c", HANGS, str(hangs), "run", *given, "--state", str(tmp_path / "state")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually(told.exists)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert {json.loads(out)[name] for name in ("frames", "events_start", "events_sent", "events_waiting")} == {0}
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
    assert reader.heard == []


def test_a_killed_agent_is_said_to_be_offline_by_the_broker(
    mosquitto: Any, make_reader: Any, belt_bundle: Path, tmp_path: Path, eventually: Any
) -> None:
    reader = make_reader(mosquitto.url)
    process = agent(belt_bundle, mosquitto.url, "synthetic:belt", tmp_path / "state")
    eventually(lambda: reader.of(t.StatusTopic))
    process.kill()
    process.communicate()
    eventually(lambda: len(reader.of(t.StatusTopic)) == 2)
    first, last = (decode(raw, Status) for raw in reader.of(t.StatusTopic))
    assert (first.state, last.state, last.reason) == (State.ONLINE, State.OFFLINE, "connection lost")
    assert first.boot_id == last.boot_id


def test_an_outage_in_the_middle_loses_no_event(
    make_mosquitto: Any, make_reader: Any, belt_bundle: Path, tmp_path: Path, eventually: Any
) -> None:
    broker = make_mosquitto()
    broker.start()
    before = make_reader(broker.url)
    process = agent(belt_bundle, broker.url, "synthetic:belt?seed=5&fps=60&frames=600", tmp_path / "state")
    eventually(lambda: len(before.events()) >= 10)
    broker.kill()
    time.sleep(1.5)
    process.send_signal(signal.SIGSTOP)  # else it may tell a broker that nobody listens to yet
    broker.start()
    after = make_reader(broker.url)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    result = json.loads(out)
    made = sum(result[f"events_{kind}"] for kind in ("start", "update", "end"))

    def heard() -> dict[int, bool]:
        return {event.seq: event.replayed for event in [*before.events(), *after.events()]}

    eventually(lambda: len(heard()) >= made)
    assert sorted(heard()) == list(range(1, made + 1))
    assert any(heard().values()), "some of them waited"


def test_events_wait_on_disk_when_the_agent_starts_offline(
    make_mosquitto: Any, make_reader: Any, belt_bundle: Path, video: Path, tinysight: Any, eventually: Any
) -> None:
    broker = make_mosquitto()
    told = ("--bundle", belt_bundle, "--broker", broker.url, *WHO, "--json", "--quiet")
    done = tinysight("run", *told, "--source", video, "--start-offline")
    assert done.returncode == 0, done.stderr
    waiting = json.loads(done.stdout)["events_waiting"]
    assert waiting > 10
    broker.start()
    reader = make_reader(broker.url)
    again = tinysight("run", *told, "--source", "synthetic:belt?frames=5")
    assert again.returncode == 0, again.stderr
    eventually(lambda: len(reader.events()) >= waiting)
    assert all(event.replayed for event in reader.events()[:waiting])


def test_the_events_of_a_killed_agent_come_with_its_next_start(
    make_mosquitto: Any, make_reader: Any, belt_bundle: Path, tmp_path: Path, eventually: Any
) -> None:
    broker = make_mosquitto()
    command = [sys.executable, "-m", "tinysight_deploy", "run", "--bundle", str(belt_bundle), "--broker", broker.url]
    told = [*command, *WHO, "--state", str(tmp_path / "state"), "--start-offline", "--quiet"]
    killed = subprocess.Popen([*told, "--source", "synthetic:belt?seed=5&fps=60"], stderr=subprocess.DEVNULL)
    eventually((tmp_path / "state" / "outbox.db").exists)

    def kept() -> int:
        with contextlib.closing(sqlite3.connect(tmp_path / "state" / "outbox.db")) as db:
            try:
                return int(db.execute("SELECT count(*) FROM event").fetchone()[0])
            except sqlite3.OperationalError:  # the table is about to be made
                return 0

    eventually(lambda: kept() >= 10)
    killed.kill()
    killed.wait()
    before = kept()
    broker.start()
    reader = make_reader(broker.url)
    done = subprocess.run([*told, "--source", "synthetic:belt?frames=1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    eventually(lambda: len(reader.events()) > before)
    boot = reader.events()[0].boot_id
    replayed = [event for event in reader.events() if event.boot_id == boot]
    assert [event.seq for event in replayed] == list(range(1, before + 1))
    assert all(event.replayed for event in replayed)
    open_ = {event.id for event in replayed} - {event.id for event in replayed if event.type is EventType.END}
    closed = [event for event in reader.events() if event.boot_id != boot]
    assert {event.id for event in closed} == open_, "what the killed one left open is closed by the next"
    assert {(event.type, event.reason) for event in closed} == {(EventType.END, "restarted")}


def test_a_classifier_tells_what_each_picture_of_a_folder_shows(
    mosquitto: Any, make_reader: Any, world: Path, tinysight: Any, tmp_path: Path, eventually: Any
) -> None:
    (tmp_path / "pictures").mkdir()
    for number, path in enumerate(sorted((world / "folder" / "0").iterdir())[:5]):
        shutil.copy(path, tmp_path / "pictures" / f"{number}.png")
    reader = make_reader(mosquitto.url)
    told = ("--bundle", world / "classifier.bundle", "--broker", mosquitto.url, *WHO, "--json")
    done = tinysight("run", *told, "--source", "pictures")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["frames"] == 5
    assert result["events_start"] == result["events_end"] <= 5
    eventually(lambda: len(reader.events()) == result["events_sent"])


def test_two_agents_never_share_an_outbox(mosquitto: Any, belt_bundle: Path, tinysight: Any, tmp_path: Path) -> None:
    process = agent(belt_bundle, mosquitto.url, "synthetic:belt", tmp_path / "state")
    try:
        assert process.stderr is not None
        while "Ctrl-C" not in process.stderr.readline():
            pass
        told = ("--broker", mosquitto.url, *WHO, "--state", tmp_path / "state")
        done = tinysight("run", "--bundle", belt_bundle, "--source", "synthetic:belt", *told)
    finally:
        process.kill()
        process.communicate()
    assert done.returncode == 2
    assert "Another agent runs" in done.stderr


def test_watch_prints_each_message_as_a_line_and_counts_what_is_missing(
    mosquitto: Any, belt_bundle: Path, video: Path, tmp_path: Path, tinysight: Any, eventually: Any
) -> None:
    command = [sys.executable, "-m", "tinysight_deploy", "watch", "--broker", mosquitto.url, "--json"]
    printed = tmp_path / "watched.jsonl"
    with printed.open("wb") as file:
        watcher = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True)
    assert watcher.stderr is not None
    assert "Watching" in watcher.stderr.readline()
    time.sleep(0.3)
    done = tinysight("run", "--bundle", belt_bundle, "--source", video, "--broker", mosquitto.url, *WHO, "--json")
    assert done.returncode == 0, done.stderr
    sent = json.loads(done.stdout)["events_sent"]
    eventually(lambda: printed.read_text().count('/event"') >= sent)
    os.kill(watcher.pid, signal.SIGINT)
    watcher.communicate(timeout=20)
    *lines, last = [msgspec.json.decode(line) for line in printed.read_bytes().splitlines()]
    figures = dict.fromkeys(("missing", "awaited", "given_up", "repeated", "broken", "cuts"), 0)
    assert last.items() >= {"devices": 1, "events": sent, **figures}.items()
    told = {line["topic"].split("/")[-1] for line in lines if "/alert/" not in line["topic"]}
    assert told == {"status", "info", "health", "model", "counts", "event", "reported"}
    assert all("message" in line for line in lines)


def test_the_line_at_the_start_shows_no_password_of_a_camera(mosquitto: Any, belt_bundle: Path, tmp_path: Path) -> None:
    process = agent(belt_bundle, mosquitto.url, "http://127.0.0.1:1/login/pw=hush?usr=hush", tmp_path / "state")
    assert process.stderr is not None
    said = ""
    while "Ctrl-C" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGTERM)
    said += "".join(process.communicate(timeout=20))
    assert "cam0 (http://127.0.0.1:1/...)" in said
    assert "hush" not in said
