"""Commands as a broker delivers them: twice, late, retained, in crowds; and a process that ends between."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from tinysight_contract.messages import Ack, AckCode, Command, Desired, DesiredState, Reported, decode, encode, utc_now
from tinysight_contract.topics import AckTopic, CommandTopic, DesiredTopic, SnapshotTopic, Topic
from tinysight_edge.cameras.hub import Frame
from tinysight_edge.config.types import AgentConfig, BrokerConfig, CameraConfig, ModelConfig, PublishConfig
from tinysight_edge.orders.actions import Hands
from tinysight_edge.orders.desk import TICK_S, WAITING, Desk
from tinysight_edge.orders.lamp import Lamp
from tinysight_edge.orders.ledger import KNOWN, Ledger
from tinysight_edge.orders.portraits import Portraits
from tinysight_edge.orders.ruling import MAX_BYTES, SETTLED_S, Refusal, overdue, read
from tinysight_edge.pictures.jpeg import small_jpeg

ME = ("s", "d")
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


class Device:
    """A desk, what it says, and what was done."""

    def __init__(self, folder: Path, *, clock: bool | None = True, snapshots: bool = True) -> None:
        self.away_since_s: float | None = None
        self.acks: list[Ack] = []
        self.reported: list[Reported] = []
        self.pictures: list[tuple[str, bytes]] = []
        self.restarts = 0
        self.enabled: list[tuple[str, bool]] = []
        self.config = AgentConfig(
            site="s", device="d", state=folder, broker=BrokerConfig(url="mqtt://h"),
            model=ModelConfig(bundle=folder),
            cameras={"gate": CameraConfig(source="0"), "door": CameraConfig(source="1")},
            publish=PublishConfig(snapshots=snapshots),
        )  # fmt: skip
        self.folder, self.portraits = folder, Portraits()
        self.leds = folder / "leds"
        self.hands = Hands(
            config=lambda: self.config,
            watch=None,
            restart=self._restart,
            supervised=False,
            enable=self._enable,
            portraits=self.portraits,
            lamp=Lamp(self.leds),
        )
        self.clock = clock
        self._numbers = itertools.count()
        self.begin()

    def begin(self) -> None:
        """Another process of the same device."""
        ledger = Ledger(self.folder / "commands.json")
        self.desk = Desk(
            *ME, "b00t", bundle="ab" * 32, hands=self.hands, ledger=ledger, clock_synced=lambda: self.clock
        )
        self.desk.start(self)

    def state(self, _topic: Topic, message: Struct | None) -> None:
        assert isinstance(message, Reported)
        self.reported.append(message)

    def once(self, topic: Topic, message: Struct | bytes, *, lives_s: int) -> None:
        assert lives_s > 0
        if isinstance(message, Ack):
            assert topic == AckTopic(*ME, message.id)
            self.acks.append(message)
        else:
            assert isinstance(topic, SnapshotTopic)
            assert isinstance(message, bytes)
            self.pictures.append((topic.event, message))

    def send(
        self, name: str, *, id_: str | None = None, life_s: float = 60.0, retained: bool = False, **args: Any
    ) -> str:
        command = Command(
            id=id_ or f"c{next(self._numbers)}", expires_at=utc_now() + timedelta(seconds=life_s), args=args
        )
        self.desk.hear(str(CommandTopic(*ME, name)), encode(command), retained)
        return command.id

    def _restart(self) -> None:
        self.restarts += 1

    def _enable(self, camera: str, enabled: bool) -> bool:
        self.enabled.append((camera, enabled))
        return True


Make = Callable[..., Device]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Device] = []

    def device(**options: Any) -> Device:
        made.append(Device(tmp_path, **options))
        return made[-1]

    yield device
    for each in made:
        each.desk.stop()


@pytest.fixture
def answer(eventually: Any) -> Callable[[Device, str], Ack]:
    """The newest answer to a command."""

    def wait(device: Device, id_: str) -> Ack:
        eventually(lambda: any(ack.id == id_ for ack in device.acks))
        return [ack for ack in device.acks if ack.id == id_][-1]

    return wait


Answer = Callable[[Device, str], Ack]


def test_a_command_is_carried_out_once_though_it_comes_three_times_and_over_a_restart(
    make: Make, answer: Answer, eventually: Any
) -> None:
    device = make()
    first = answer(device, device.send("camera-enable", id_="x", camera="gate", enabled=False))
    assert (first.ok, first.code, first.result) == (True, AckCode.OK, {"camera": "gate", "enabled": False})
    device.send("camera-enable", id_="x", camera="gate", enabled=False)
    eventually(lambda: len(device.acks) == 2)
    device.desk.stop()
    device.begin()
    device.send("camera-enable", id_="x", camera="gate", enabled=False)
    eventually(lambda: len(device.acks) == 3)
    assert device.acks == [first] * 3, "the answer is the first one"
    assert device.enabled == [("gate", False)]


def test_what_was_being_carried_out_when_the_process_ended_is_told_and_not_done_again(
    make: Make, answer: Answer, tmp_path: Path, eventually: Any
) -> None:
    ledger = Ledger(tmp_path / "commands.json")
    assert list(ledger.open(NOW)) == []
    ledger.begin("x", "camera-enable")
    device = make()
    assert answer(device, "x").code is AckCode.INTERRUPTED
    device.send("camera-enable", id_="x", camera="gate", enabled=False)
    eventually(lambda: len(device.acks) == 2)
    assert device.acks[1] == device.acks[0]
    assert device.enabled == []


def test_a_retained_command_is_never_carried_out_and_the_log_says_how_to_clear_it(
    make: Make, answer: Answer, caplog: pytest.LogCaptureFixture, eventually: Any
) -> None:
    device = make()
    for _ in range(3):
        device.send("restart", id_="x", retained=True)
    eventually(lambda: len(device.acks) == 3)
    assert {ack.code for ack in device.acks} == {AckCode.RETAINED}
    assert device.restarts == 0
    said = [each.getMessage() for each in caplog.records if "mosquitto_pub -r -n -t" in each.getMessage()]
    assert len(said) == 1, "once, though it comes at each connect"
    assert "tinysight/v1/s/d/cmd/restart" in said[0]
    assert answer(device, device.send("restart")).ok
    eventually(lambda: device.restarts == 1)


@pytest.mark.parametrize(
    ("life_s", "clock", "connected_s", "code"),
    [
        (1, True, 0, None),
        (0, True, 99, AckCode.EXPIRED),
        (-1, True, 99, AckCode.EXPIRED),
        (-1, None, 99, AckCode.EXPIRED),
        (1, None, 0, None),
        (1, False, SETTLED_S - 0.1, AckCode.CLOCK),
        (-9e8, False, SETTLED_S - 0.1, AckCode.CLOCK),
        (-9e8, False, SETTLED_S, None),
        (1, False, SETTLED_S, None),
    ],
)
def test_when_a_command_comes_too_late(
    life_s: float, clock: bool | None, connected_s: float, code: AckCode | None
) -> None:
    command = Command(id="x", expires_at=NOW + timedelta(seconds=life_s))
    late = overdue(command, now=NOW, synced=clock, connected_s=connected_s)
    assert (late.code if late else None) is code


def test_an_expired_command_is_refused_and_stays_refused(make: Make, answer: Answer, eventually: Any) -> None:
    device = make()
    assert answer(device, device.send("restart", id_="x", life_s=-5)).code is AckCode.EXPIRED
    device.send("restart", id_="x", life_s=60)
    eventually(lambda: len(device.acks) == 2)
    assert device.acks[1] == device.acks[0]
    assert device.restarts == 0


def test_without_a_clock_only_what_comes_just_after_a_connect_is_refused(
    make: Make, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = make(clock=False)
    assert answer(device, device.send("identify")).code is AckCode.CLOCK
    monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() + SETTLED_S)
    assert answer(device, device.send("identify")).ok
    device.away_since_s = 1.0
    time.sleep(3 * TICK_S)
    device.away_since_s = None
    assert answer(device, device.send("identify")).code is AckCode.CLOCK


@pytest.mark.parametrize(
    ("name", "payload", "code", "why"),
    [
        ("restrat", b'{"id": "x", "expires_at": "2099-01-01T00:00:00Z"}', AckCode.UNKNOWN, "Did you mean 'restart'?"),
        ("restart", b'{"id": "x"}', AckCode.MALFORMED, "expires_at"),
        ("restart", b'{"id": "x", "expires_at": "2099-01-01T00:00:00"}', AckCode.MALFORMED, "timezone"),
        ("restart", b'{"id": "x", "expires_at": "2099-01-01T00:00:00Z", "args": {"now": 1}}', AckCode.MALFORMED, "now"),
        ("restart", b'{"id": "x", "expires_at": "2099-01-01T00:00:00Z", "args": []}', AckCode.MALFORMED, "args"),
        ("log-level", b'{"id": "x", "expires_at": "2099-01-01T00:00:00Z"}', AckCode.MALFORMED, "level"),
        (
            "snapshot",
            b'{"id": "x", "expires_at": "2099-01-01T00:00:00Z", "args": {"camera": "yard"}}',
            AckCode.REFUSED,
            "No camera 'yard' is configured. Known are door, gate.",
        ),
        ("snapshot", b'{"id": "x", "expires_at": "2099-01-01T00:00:00Z"}', AckCode.MALFORMED, "Name one: gate, door."),
        ("reload", b'{"id": "x", "expires_at": "2099-01-01T00:00:00Z"}', AckCode.REFUSED, "runs from flags"),
    ],
)
def test_what_cannot_be_done_is_answered_with_why(
    name: str, payload: bytes, code: AckCode, why: str, make: Make, answer: Answer
) -> None:
    device = make()
    device.desk.hear(str(CommandTopic(*ME, name)), payload, False)
    ack = answer(device, "x")
    assert (ack.ok, ack.code, ack.name) == (False, code, name)
    assert why in (ack.error or "")
    assert device.restarts == 0


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("camera_enable", "Did you mean 'camera-enable'?"),
        ("Restart", "Did you mean 'restart'?"),
        ("", "Known are"),
        ("x" * 60_000, "Known are"),
        ("a\nb", "Known are"),
    ],
    ids=range(5),
)
def test_a_name_that_is_no_id_is_answered_as_unknown(
    name: str, why: str, make: Make, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    device = make()
    payload = encode(Command(id="x", expires_at=utc_now() + timedelta(seconds=60)))
    device.desk.hear(f"tinysight/v1/s/d/cmd/{name}", payload, False)
    ack = answer(device, "x")
    assert (ack.ok, ack.code, ack.name) == (False, AckCode.UNKNOWN, "invalid")
    assert why in (ack.error or "")
    assert decode(encode(ack), Ack) == ack
    said = [each.getMessage() for each in caplog.records]
    assert len(said) == 1
    assert len(said[0]) < 500
    assert "\n" not in said[0]


def test_a_retained_command_whose_name_is_no_id_is_answered_and_its_hint_harms_no_shell(
    make: Make, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    device = make()
    payload = encode(Command(id="x", expires_at=utc_now() + timedelta(seconds=60)))
    device.desk.hear("tinysight/v1/s/d/cmd/a;reboot", payload, True)
    ack = answer(device, "x")
    assert (ack.code, ack.name) == (AckCode.RETAINED, "invalid")
    assert "`mosquitto_pub -r -n -t 'tinysight/v1/s/d/cmd/a;reboot'`" in caplog.text
    assert answer(device, device.send("identify")).ok


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"\xff\xfe", b"[]", b'{"id": "X Y"}', b'{"id": 3}', b"[" * 9999, b" " * (MAX_BYTES + 9)]
)
@pytest.mark.parametrize("retained", [False, True])
def test_what_cannot_be_answered_harms_nobody(payload: bytes, retained: bool, make: Make, answer: Answer) -> None:
    device = make()
    device.desk.hear(str(CommandTopic(*ME, "restart")), payload, retained)
    assert answer(device, device.send("identify")).ok
    assert len(device.acks) == 1


@given(st.binary(max_size=200))
def test_reading_a_command_gives_one_or_a_refusal(payload: bytes) -> None:
    with suppress(Refusal):
        command = read(payload, retained=False)
        assert read(encode(command), retained=False) == command


def test_a_crowd_is_refused_and_each_of_it_hears_so(make: Make, eventually: Any) -> None:
    device = make()
    hold, going = threading.Event(), threading.Event()

    def enable(camera: str, enabled: bool) -> bool:
        device.enabled.append((camera, enabled))
        going.set()
        return hold.wait(20)

    object.__setattr__(device.hands, "enable", enable)
    ids = [device.send("camera-enable", camera="gate", enabled=True)]
    assert going.wait(20)
    ids += [device.send("camera-enable", camera="gate", enabled=True) for _ in range(WAITING + 5)]
    hold.set()
    eventually(lambda: len(device.acks) == len(ids))
    codes = [ack.code for ack in sorted(device.acks, key=lambda ack: ids.index(ack.id))]
    assert codes[:WAITING] == [AckCode.OK] * WAITING
    assert codes[WAITING + 1 :] == [AckCode.REFUSED] * 5
    assert len(device.enabled) <= WAITING + 1


def test_no_more_than_a_burst_is_written_to_disk_however_fast_they_come(make: Make, eventually: Any) -> None:
    device = make()
    for number in range(3 * WAITING):
        device.send("log-level", level="info")
        eventually(lambda number=number: len(device.acks) == number + 1)
    codes = [ack.code for ack in device.acks]
    assert codes[:WAITING] == [AckCode.OK] * WAITING
    assert codes.count(AckCode.REFUSED) >= WAITING, "one a second may pass beyond the burst"


def test_an_action_that_breaks_is_answered_and_the_next_one_is_done(make: Make, answer: Answer) -> None:
    device = make()

    def enable(_camera: str, _enabled: bool) -> bool:
        raise ZeroDivisionError

    object.__setattr__(device.hands, "enable", enable)
    ack = answer(device, device.send("camera-enable", camera="gate", enabled=True))
    assert (ack.code, ack.ok) == (AckCode.FAILED, False)
    assert "ZeroDivisionError" in (ack.error or "")
    assert answer(device, device.send("identify")).ok


def test_a_restart_that_nobody_could_remember_is_refused(make: Make, answer: Answer, tmp_path: Path) -> None:
    device = make()
    (tmp_path / "commands.json").mkdir()
    ack = answer(device, device.send("restart"))
    assert (ack.code, device.restarts) == (AckCode.REFUSED, 0)
    assert answer(device, device.send("identify")).ok, "this one harms nobody when it is done twice"


def test_a_restart_comes_after_its_answer_and_not_too_often_where_starts_are_counted(
    make: Make, answer: Answer
) -> None:
    device = make()
    object.__setattr__(device.hands, "supervised", True)
    ack = answer(device, device.send("restart"))
    assert (ack.code, device.restarts) == (AckCode.REFUSED, 0)
    object.__setattr__(device.hands, "begun_s", time.monotonic() - 61)
    seen: list[int] = []
    object.__setattr__(device.hands, "restart", lambda: seen.append(len(device.acks)))
    assert answer(device, device.send("restart")).ok
    device.desk.stop()
    assert seen == [2]


# Pictures.


def frame(camera: str, image: Any) -> Frame:
    return Frame(camera, image, 0.0, NOW, 0.0, None)


def test_a_snapshot_is_the_next_picture_of_that_camera(make: Make, answer: Answer, eventually: Any) -> None:
    device = make()
    id_ = device.send("snapshot", camera="gate")
    grey, white = np.full((48, 64, 3), 90, np.uint8), np.full((48, 64, 3), 255, np.uint8)

    def offered() -> bool:
        device.portraits.offer(frame("door", white))
        device.portraits.offer(frame("gate", grey))
        return bool(device.pictures)

    eventually(offered)
    ack = answer(device, id_)
    ((event, jpeg),) = device.pictures
    assert (ack.ok, event) == (True, id_)
    assert ack.result == {"camera": "gate", "bytes": len(jpeg), "width": 64, "height": 48}
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert abs(int(shown.mean()) - 90) < 3


def test_a_snapshot_is_refused_where_no_pictures_are_published(make: Make, answer: Answer) -> None:
    ack = answer(device := make(snapshots=False), device.send("snapshot", camera="gate"))
    assert ack.code is AckCode.REFUSED
    assert "[publish]" in (ack.error or "")


def test_a_camera_without_pictures_is_said(make: Make, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    device = make()
    monkeypatch.setattr(Portraits, "next", lambda _self, _camera: None)
    ack = answer(device, device.send("snapshot", camera="gate"))
    assert (ack.code, device.pictures) == (AckCode.FAILED, [])


@pytest.mark.parametrize("most", [200_000, 20_000, 2_000])
def test_a_picture_is_made_coarser_and_smaller_until_it_fits(most: int) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (480, 640, 3), np.uint8)
    jpeg, (width, height) = small_jpeg(noise, most_bytes=most)
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert len(jpeg) <= most
    assert shown.shape[:2] == (height, width)
    assert width / height == pytest.approx(640 / 480, rel=0.1)


def test_a_picture_that_cannot_be_so_small_is_an_error() -> None:
    with pytest.raises(ValueError, match="10 bytes"):
        small_jpeg(np.zeros((480, 640, 3), np.uint8), most_bytes=10)


# The lamp, the log.


def led(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "brightness").write_text("1\n")
    (path / "max_brightness").write_text("255\n")
    (path / "trigger").write_text("none [mmc0] timer\n")
    return path


def test_an_led_blinks_and_is_then_what_it_was(make: Make, answer: Answer, eventually: Any) -> None:
    device = make()
    led(device.leds, "input3::capslock")
    green = led(device.leds, "ACT")
    ack = answer(device, device.send("identify", seconds=1))
    assert ack.result == {"led": "ACT", "seconds": 1}
    seen: set[str] = set()

    def blinked() -> bool:
        seen.add((green / "brightness").read_text())
        return {"0", "255"} <= seen

    eventually(blinked)
    assert (green / "trigger").read_text() == "none"
    eventually(lambda: (green / "trigger").read_text() == "mmc0")
    assert (green / "brightness").read_text() == "1"


def test_stopping_ends_the_blinking_and_restores_the_led(tmp_path: Path) -> None:
    green = led(tmp_path, "PWR")
    lamp = Lamp(tmp_path)
    assert lamp.blink(60) == "PWR"
    lamp.stop()
    assert ((green / "brightness").read_text(), (green / "trigger").read_text()) == ("1", "mmc0")


def test_without_an_led_the_log_alone_says_it(make: Make, answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    ack = answer(device := make(), device.send("identify"))
    assert (ack.ok, ack.result["led"]) == (True, None)
    assert "IDENTIFY" in caplog.text


def test_the_log_level_goes_back_by_itself(make: Make, answer: Answer, eventually: Any) -> None:
    device, logger = make(), logging.getLogger("tinysight_edge")
    assert answer(device, device.send("log-level", level="debug", seconds=1)).ok
    assert logger.level == logging.DEBUG
    eventually(lambda: logger.level == logging.NOTSET)
    assert answer(device, device.send("log-level", level="error")).ok
    device.desk.stop()
    assert logger.level == logging.NOTSET


# What is remembered.


def test_the_newest_commands_are_remembered_and_no_more(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "commands.json")
    for number in range(KNOWN + 3):
        ledger.begin(f"c{number}", "identify")
        ledger.done(Ack(id=f"c{number}", name="identify", ok=True, at=NOW))
        ledger.refused(Ack(id=f"r{number}", name="identify", ok=False, at=NOW, code=AckCode.EXPIRED))
    later = Ledger(tmp_path / "commands.json")
    assert list(later.open(NOW)) == []
    for each in (ledger, later):
        assert [bool(each.answer(f"c{number}")) for number in (2, 3, KNOWN + 2)] == [False, True, True]
    assert [bool(ledger.answer(f"r{number}")) for number in (2, 3)] == [False, True]


@pytest.mark.parametrize("damage", [b"", b"{", b'[{"id": 3}]', b"\xff", b"[" * 9999])
def test_a_damaged_ledger_is_as_if_there_were_none(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "commands.json").write_bytes(damage)
    ledger = Ledger(tmp_path / "commands.json")
    assert list(ledger.open(NOW)) == []
    assert ledger.begin("x", "identify")
    assert len(msgspec.json.decode((tmp_path / "commands.json").read_bytes())) == 1


# The desired state, where there is no file.


def test_an_agent_without_a_file_says_why_it_takes_no_desired_state(make: Make, eventually: Any) -> None:
    device = make()
    eventually(lambda: device.reported)
    assert (device.reported[0].state, device.reported[0].boot_id) == (DesiredState.NONE, "b00t")
    device.desk.hear(str(DesiredTopic(*ME)), encode(Desired(revision=4, config={})), True)
    eventually(lambda: len(device.reported) == 2)
    assert (device.reported[1].revision, device.reported[1].state) == (4, DesiredState.REFUSED)
    assert "--config" in device.reported[1].reason
    device.desk.hear(str(DesiredTopic(*ME)), b"", False)
    eventually(lambda: len(device.reported) == 3)
    assert device.reported[2].state is DesiredState.NONE
