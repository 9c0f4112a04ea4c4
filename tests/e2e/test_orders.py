"""Orders to a device in the field: a real agent, a real broker, and what a person would send with ``mosquitto_pub``."""

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer

from tinysight_contract import topics as t
from tinysight_contract.messages import (
    Ack,
    AckCode,
    CameraState,
    CameraStatus,
    Command,
    Desired,
    DesiredState,
    EventType,
    Frame,
    Info,
    LineShape,
    Reported,
    State,
    Status,
    ZoneShape,
    decode,
    encode,
    utc_now,
)
from tinysight_contract.topics import AckTopic, CommandTopic, DesiredTopic, FrameTopic, SnapshotTopic
from tinysight_edge.cli import AGAIN, _begin_again
from tinysight_edge.pictures.jpeg import read_comment
from tinysight_edge.pictures.snapshots import Snapshot

ME = ("plant-1", "belt-7")
TEXT = """\
site = "plant-1"
device = "belt-7"
state = "state"
trial = "{trial}"
[broker]
url = "{url}"
[model]
bundle = "{bundle}"
engine = "interpreter"
[cameras.gate]
source = "{source}"
privacy = [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]
{more}
"""


class Site:
    """A broker, an agent, and who sends to it and hears from it."""

    def __init__(self, folder: Path, broker: Any, bundle: Path, make_reader: Any, eventually: Any) -> None:
        self.folder, self.broker, self.bundle, self._make_reader = folder, broker, bundle, make_reader
        self.eventually = eventually
        self.reader = make_reader(broker.url)
        self.process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()

    def write(self, *, source: str = "synthetic:belt?fps=30", more: str = "", trial: str = "1s") -> None:
        text = TEXT.format(url=self.broker.url, bundle=self.bundle, source=source, more=more, trial=trial)
        new = self.folder / "agent.new"
        new.write_text(text)
        new.replace(self.folder / "agent.toml")

    def start(self) -> None:
        command = [sys.executable, "-m", "tinysight_deploy", "run", "--config", str(self.folder / "agent.toml")]
        home = {"XDG_STATE_HOME": str(self.folder / "home")}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **home}, stdout=log, stderr=log)

    def end(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def publish(self, topic: t.Topic, payload: bytes, *, retain: bool = False) -> None:
        """As a person would."""
        command = ["mosquitto_pub", "-p", str(self.broker.port), "-q", "1", "-t", str(topic), "-s" if payload else "-n"]
        subprocess.run([*command, *(["-r"] if retain else [])], input=payload, check=True, timeout=20)

    def send(self, name: str, *, id_: str | None = None, **args: Any) -> Ack:
        """Send a command and wait for its newest answer."""
        id_ = id_ or f"c{next(self._numbers)}"
        before = len(self.acks(id_))
        command = Command(id=id_, expires_at=utc_now() + timedelta(seconds=60), args=args)
        self.publish(CommandTopic(*ME, name), encode(command))
        self.eventually(lambda: len(self.acks(id_)) > before)
        return self.acks(id_)[-1]

    def acks(self, id_: str) -> list[Ack]:
        topic = str(AckTopic(*ME, id_))
        return [decode(payload, Ack) for each, payload, _ in self.reader.heard if each == topic]

    def statuses(self) -> list[Status]:
        return [decode(payload, Status) for payload in self.reader.of(t.StatusTopic)]

    def camera(self) -> CameraState | None:
        heard = self.reader.of(t.CameraStatusTopic)
        return decode(heard[-1], CameraStatus).state if heard else None

    def reported(self) -> Reported | None:
        heard = self.reader.of(t.ReportedTopic)
        return decode(heard[-1], Reported) if heard else None

    def info(self) -> Info | None:
        heard = self.reader.of(t.InfoTopic)
        return decode(heard[-1], Info) if heard else None

    def zones(self) -> dict[str, ZoneShape] | None:
        """Where the zones of its camera are."""
        info = self.info()
        return None if info is None else info.cameras["gate"].zones

    def is_(self, revision: int, state: DesiredState, applied: int | None) -> bool:
        now = self.reported()
        return now is not None and (now.revision, now.state, now.applied) == (revision, state, applied)

    def settle(self) -> None:
        """Wait until a machine without a time server takes commands."""
        self.eventually(lambda: self.camera() is CameraState.ONLINE)
        self.eventually(self.tried)

    def tried(self) -> bool:
        """Whether a command that harms nobody is carried out."""
        return self.send("log-level", level="info").code is AckCode.OK


@pytest.fixture
def site(tmp_path: Path, mosquitto: Any, belt_bundle: Path, make_reader: Any, eventually: Any) -> Iterator[Site]:
    each = Site(tmp_path, mosquitto, belt_bundle, make_reader, eventually)
    yield each
    if each.process is not None and each.process.poll() is None:
        each.end()


def test_every_command_is_done_once_and_answered(site: Site) -> None:
    site.write(more="[publish]\nsnapshots = true")
    site.start()
    site.settle()
    assert site.send("log-level", level="debug", seconds=60).result == {"level": "debug", "seconds": 60}
    assert site.send("selfie").code is AckCode.UNKNOWN

    taken = site.send("snapshot")
    ((topic, jpeg),) = [(topic, payload) for topic, payload, _ in site.reader.heard if "/snapshot/" in topic]
    assert topic == str(SnapshotTopic(*ME, "gate", taken.id))
    assert taken.result["bytes"] == len(jpeg)
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert shown[:, : shown.shape[1] // 2 - 8].max() < 40, "the masked half is black"
    assert shown[:, shown.shape[1] // 2 + 8 :].max() > 100

    site.write(more="[publish]\nsnapshots = true\nfarmes = 5.0")
    reloaded = site.send("reload")
    assert (reloaded.ok, reloaded.code) == (False, AckCode.FAILED)
    assert "publish.farmes" in (reloaded.error or "")
    site.write(more="[publish]\nsnapshots = true\n[health]\nevery = '9s'")
    reloaded = site.send("reload")
    assert (reloaded.ok, reloaded.result["config"]) == (True, "on trial"), "though the file was seen for the first time"

    off = site.send("camera-enable", id_="off", camera="gate", enabled=False)
    site.eventually(lambda: site.camera() is CameraState.DISABLED)
    assert site.send("camera-enable", camera="gate", enabled=True).ok, "the agent goes on without any camera"
    site.eventually(lambda: site.camera() is CameraState.ONLINE)
    assert site.send("camera-enable", id_="off", camera="gate", enabled=False) == off, "the first answer again"
    assert site.send("identify").ok
    assert site.camera() is CameraState.ONLINE, "and not done again"

    assert site.process is not None
    before = site.statuses()[-1]
    site.send("camera-enable", camera="gate", enabled=False)
    assert site.send("restart", id_="again").ok
    site.eventually(lambda: site.statuses()[-1].state is State.ONLINE and site.statuses()[-1].boot_id != before.boot_id)
    assert "restarting" in {each.reason for each in site.statuses()}
    assert site.process.poll() is None, "without systemd it starts itself, as the same process"
    site.eventually(lambda: site.camera() is CameraState.ONLINE)
    after = site.statuses()[-1].boot_id
    site.send("restart", id_="again")
    site.send("identify")
    assert site.statuses()[-1].boot_id == after, "delivered twice over the restart, done once"
    assert site.end(signal.SIGTERM) == 0
    assert "Traceback" not in site.log


def test_a_command_is_given_and_its_answer_read_in_a_terminal(site: Site, tinysight: Any) -> None:
    site.write()
    site.start()
    site.eventually(lambda: site.reader.of(t.EventTopic))
    given = ("command", "/".join(ME), "--broker", site.broker.url)
    done = None
    while done is None or ("clock" in done.stderr and done.returncode == 2):  # this machine's may not be set
        done = tinysight(*given, "log-level", "level=debug", "seconds=5", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["code"], answer["result"]) == (True, "ok", {"level": "debug", "seconds": 5})
    for refused, why in (
        (("log-level", "level=loud"), "level"),
        (("fly",), "fly"),
        (("identify", "seconds"), "KEY=VALUE"),
    ):
        done = tinysight(*given, *refused)
        assert done.returncode == 2
        assert why in done.stderr
        assert done.stderr.count("\n") == 1


def test_under_systemd_a_restart_is_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    with pytest.raises(typer.Exit) as ended:
        _begin_again()
    assert ended.value.exit_code == AGAIN


def test_what_waited_at_the_broker_or_is_kept_there_is_not_done(site: Site) -> None:
    site.write()
    site.start()
    site.eventually(lambda: site.camera() is CameraState.ONLINE and site.reported() is not None)
    old = Command(id="kept", expires_at=utc_now() + timedelta(hours=1), args={})
    site.end(signal.SIGTERM)
    boots = len({each.boot_id for each in site.statuses()})
    site.publish(CommandTopic(*ME, "restart"), encode(old), retain=True)
    late = Command(id="late", expires_at=utc_now() - timedelta(seconds=1), args={"camera": "gate", "enabled": False})
    site.publish(CommandTopic(*ME, "camera-enable"), encode(late))
    site.start()
    site.eventually(lambda: site.acks("kept") and site.acks("late"))
    assert {ack.code for ack in site.acks("kept")} <= {AckCode.RETAINED, AckCode.OK, AckCode.CLOCK}
    assert site.acks("late")[-1].code in {AckCode.EXPIRED, AckCode.CLOCK}, "without a clock nobody knows"
    site.eventually(lambda: site.camera() is CameraState.ONLINE)
    assert len({each.boot_id for each in site.statuses()}) <= boots + 2
    assert "mosquitto_pub -r -n -t tinysight/v1/plant-1/belt-7/cmd/restart" in site.log


def test_a_desired_state_is_tried_taken_back_and_holds_over_a_kill_and_a_broker_that_forgot(
    site: Site, mjpeg: Any, eventually: Any
) -> None:
    mjpeg.start()
    site.write(source=mjpeg.url)
    site.start()
    eventually(lambda: site.is_(0, DesiredState.NONE, None) and site.camera() is CameraState.ONLINE)

    zone = {"polygon": [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]}
    good = Desired(revision=1, config={"cameras": {"gate": {"zones": {"yard": zone}}}})
    site.publish(DesiredTopic(*ME), encode(good), retain=True)
    eventually(lambda: site.is_(1, DesiredState.APPLIED, 1))
    eventually(lambda: b'"yard"' in site.reader.of(t.CountsTopic)[-1])
    yard = ZoneShape(polygon=[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
    eventually(lambda: site.zones() == {"yard": yard})
    info = site.info()
    assert info is not None
    assert info.cameras["gate"].width > 0, "known since the camera was opened"
    assert info.publishes == []
    assert not any(b"privacy" in each for each in site.reader.of(t.InfoTopic))
    states = [decode(each, Reported).state for each in site.reader.of(t.ReportedTopic)]
    assert states.index(DesiredState.TRIAL) < states.index(DesiredState.APPLIED)

    forbidden = Desired(revision=2, config={"cameras": {"gate": {"privacy": [], "source": "0"}}}, bundle="cd" * 32)
    site.publish(DesiredTopic(*ME), encode(forbidden), retain=True)
    eventually(lambda: site.is_(2, DesiredState.REFUSED, 1))
    told = site.reported()
    assert told is not None
    assert set(told.refused) == {"cameras.gate.privacy", "cameras.gate.source", "bundle"}
    assert site.zones() == {"yard": yard}, "what holds, not what was asked for"

    mjpeg.status = 503
    blinds = Desired(revision=3, config={"cameras": {"gate": {"max_fps": 15.0}}})
    site.publish(DesiredTopic(*ME), encode(blinds), retain=True)
    eventually(lambda: site.is_(3, DesiredState.ROLLED_BACK, 1))
    mjpeg.status = 200
    eventually(lambda: site.camera() is CameraState.ONLINE)

    better = Desired(revision=4, config={"cameras": {"gate": {"zones": {"park": zone}}}})
    site.publish(DesiredTopic(*ME), encode(better), retain=True)
    eventually(lambda: site.is_(4, DesiredState.APPLIED, 4))
    assert site.zones() == {"park": yard}
    site.end()
    site.broker.kill()
    site.broker.start()
    site.reader = site._make_reader(site.broker.url)
    site.start()
    eventually(lambda: site.is_(4, DesiredState.APPLIED, 4))
    eventually(lambda: any(b'"park"' in each for each in site.reader.of(t.CountsTopic)[-1:]))
    site.publish(DesiredTopic(*ME), b"", retain=True)
    eventually(lambda: site.is_(0, DesiredState.NONE, None))
    eventually(lambda: b'"park"' not in site.reader.of(t.CountsTopic)[-1])
    eventually(lambda: site.zones() == {})


def test_frames_and_pictures_leave_the_device_only_while_its_file_says_so(site: Site, eventually: Any) -> None:
    kept = '[snapshots]\nkeep = "16MiB"\n'
    shapes = """\
[cameras.gate.zones.scale]
polygon = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0]]
[cameras.gate.lines.exit]
start = [0.75, 1.0]
end = [0.75, 0.0]
labels = ["7"]
"""
    site.write(more=shapes + kept + "[publish]\nframes = 1000.0\nsnapshots = true")
    site.start()

    def ended() -> int:
        return sum(event.type is EventType.END for event in site.reader.events())

    eventually(lambda: len(site.reader.of(SnapshotTopic)) >= 2)
    frames = [decode(payload, Frame) for payload in site.reader.of(FrameTopic)]
    followed = {each.track_id for frame in frames for each in frame.detections} - {None}
    events = {event.id: event for event in site.reader.events()}
    assert followed
    assert followed <= events.keys()
    for topic, payload, _ in list(site.reader.heard):
        if "/snapshot/" in topic:
            parsed = SnapshotTopic.parse(topic)
            says = read_comment(payload, Snapshot)
            assert says is not None
            assert (says.event, says.camera) == (parsed.event, "gate")
            assert parsed.event in events
    info = site.info()
    assert info is not None
    gate = info.cameras["gate"]
    assert info.publishes == ["frame", "snapshot"]
    assert gate.zones == {"scale": ZoneShape(polygon=[(0.5, 0.0), (1.0, 0.0), (1.0, 1.0)])}
    assert gate.lines == {"exit": LineShape(start=(0.75, 1.0), end=(0.75, 0.0), labels=["7"])}
    assert (gate.source, gate.width, gate.height) == ("synthetic:belt", 320, 240)
    site.write(more=shapes.replace("0.5", "0.625") + kept)
    wanted = hashlib.sha256((site.folder / "agent.toml").read_bytes()).hexdigest()
    eventually(lambda: (told := site.reported()) is not None and told.config_digest == wanted)
    eventually(lambda: site.zones() == {"scale": ZoneShape(polygon=[(0.625, 0.0), (1.0, 0.0), (1.0, 1.0)])})
    info = site.info()
    assert info is not None
    assert info.publishes == []
    at_change = ended()
    eventually(lambda: ended() > at_change)
    frames_then, pictures_then, ended_then = (
        len(site.reader.of(FrameTopic)),
        len(site.reader.of(SnapshotTopic)),
        ended(),
    )
    eventually(lambda: ended() > ended_then)
    assert len(site.reader.of(FrameTopic)) == frames_then
    assert len(site.reader.of(SnapshotTopic)) == pictures_then
