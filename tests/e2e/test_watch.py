"""``tinysight watch``, its table, its filters, its tape, and that it tells the truth about what is missing."""

import gzip
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.errors import ConfigError, DataError
from tinysight_contract.fleet import Fleet, Heard
from tinysight_contract.messages import Command, Event, decode, encode
from tinysight_contract.mqtt import Address
from tinysight_deploy.watching.table import picture
from tinysight_deploy.watching.watch import Filter
from tinysight_edge.simulate.replay import moved
from tinysight_edge.simulate.tape import Take, TapeWriter, read_tape

GOLDEN = Path(__file__).parents[1] / "golden"
EVENT = decode((GOLDEN / "event.json").read_bytes(), Event)
WHERE = t.EventTopic("plant-1", "belt-7", "cam0")


def shown(fleet: Fleet, *recent: Event) -> str:
    from rich.console import Console

    console = Console(width=160, record=True, file=io.StringIO())
    console.print(picture(fleet, Address.parse("mqtt://h"), recent))
    return console.export_text()


def test_the_table_shows_the_device_its_camera_its_alerts_and_its_events_whatever_they_are_called() -> None:
    fleet = Fleet()
    for name, topic in {
        "status": t.StatusTopic("plant-1", "belt-7"),
        "info": t.InfoTopic("plant-1", "belt-7"),
        "health": t.HealthTopic("plant-1", "belt-7"),
        "camerastatus": t.CameraStatusTopic("plant-1", "belt-7", "cam0"),
        "counts": t.CountsTopic("plant-1", "belt-7", "cam0"),
        "alert": t.AlertTopic("plant-1", "belt-7", "disk-full"),
    }.items():
        fleet.hear(str(topic), (GOLDEN / f"{name}.json").read_bytes(), retained=True)
    odd = replace(EVENT, label="[bold]7[/nonsense]", replayed=True)
    for seq in (1, 2, 5):
        fleet.hear(str(WHERE), encode(replace(odd, seq=seq)), retained=False)
    text = shown(fleet, odd)
    for part in (
        *("plant-1/belt-7", "online", "belt 1.2.0 int8", "litert 2.3.0", "7:2", "disk-full", "Free some space."),
        *("[bold]7[/nonsense]", "0.94", "(replayed)", "Events: 2 of 5 missing, 12 awaited, 3 replayed"),
    ):
        assert part in text


@pytest.mark.parametrize("year", [1, 9999])
def test_a_time_at_the_end_of_the_calendar_and_letters_that_move_the_terminal_do_no_harm(year: int) -> None:
    at = datetime(year, 1 if year == 1 else 12, 1 if year == 1 else 31, 12, tzinfo=UTC)
    assert "\x1b[2J" not in shown(Fleet(), replace(EVENT, label="\x1b[2J", started_at=at, seen_at=at))


def heard(topic: t.Topic, payload: bytes) -> Heard:
    return Fleet().hear(str(topic), payload, retained=False)


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        pytest.param({}, {"event", "counts", "status", "broken"}, id="nothing"),
        pytest.param({"camera": "cam0"}, {"event", "counts"}, id="a camera"),
        pytest.param({"label": "7"}, {"event"}, id="a label"),
        pytest.param({"label": "8"}, set(), id="another label"),
        pytest.param({"types": ["start"]}, {"event"}, id="a step of a life"),
        pytest.param({"types": ["end"]}, set(), id="another step"),
        pytest.param({"types": ["end", "status"]}, {"status"}, id="two types"),
        pytest.param({"types": ["event"], "camera": "cam1"}, set(), id="a type of another camera"),
    ],
)
def test_what_is_shown_is_what_fits_all_that_is_asked(asked: dict[str, Any], fits: set[str]) -> None:
    messages = {
        "event": heard(WHERE, encode(EVENT)),
        "counts": heard(t.CountsTopic("plant-1", "belt-7", "cam0"), (GOLDEN / "counts.json").read_bytes()),
        "status": heard(t.StatusTopic("plant-1", "belt-7"), (GOLDEN / "status.json").read_bytes()),
        "broken": heard(t.StatusTopic("plant-1", "belt-7"), b"{"),
    }
    assert {name for name, each in messages.items() if Filter(**asked).fits(each)} == fits


def test_a_type_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"status.*start"):
        Filter(types=["strat"])


def write(path: Path, *messages: Heard) -> list[Take]:
    with TapeWriter(path, begun_at=datetime(2026, 11, 26, tzinfo=UTC)) as tape:
        for number, each in enumerate(messages):
            tape.write(each, at_s=number / 4)
    return [Take(at_s=n / 4, topic=m.topic, payload=m.payload, retained=m.retained) for n, m in enumerate(messages)]


ODD = [
    heard(WHERE, encode(EVENT)),
    heard(t.AlertTopic("plant-1", "belt-7", "a"), b""),
    heard(t.SnapshotTopic("plant-1", "belt-7", "cam0", "e1"), b"\xff\xd8\n"),
    heard(WHERE, b"{broken"),
    heard(t.CountsTopic("plant-1", "belt-7", "cam0"), (GOLDEN / "counts.json").read_bytes()),
]


@pytest.mark.parametrize("name", ["tape.jsonl", "tape.jsonl.gz"])
def test_a_tape_holds_every_payload_to_the_byte_and_a_torn_end_costs_what_was_torn(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    takes = write(path, *ODD)
    assert b"\n" in ODD[-1].payload, "JSON of several lines is no line of JSON"
    assert list(read_tape(path)) == takes
    whole = path.read_bytes()
    for size in range(len(whole) - 1, len(whole) // 2, -37):
        path.write_bytes(whole[:size])
        left = list(read_tape(path))
        assert left == takes[: len(left)]


def test_a_recorder_that_is_killed_leaves_what_it_flushed(tmp_path: Path) -> None:
    path = tmp_path / "tape.jsonl.gz"
    tape = TapeWriter(path, begun_at=datetime(2026, 11, 26, tzinfo=UTC))
    with tape:
        tape.write(ODD[0], at_s=0)
        tape.flush()
        cut = path.read_bytes()
        tape.write(ODD[1], at_s=1)
    path.write_bytes(cut)
    assert [take.topic for take in read_tape(path)] == [ODD[0].topic]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "line 1", id="empty"),
        pytest.param(b"a picture\n", "line 1", id="something else"),
        pytest.param(b'{"tinysight_tape": 2, "begun_at": "2026-11-26T00:00:00Z"}\n', "version 2", id="of the future"),
        pytest.param(b'{"tinysight_tape": 1, "begun_at": "2026-11-26T00:00:00Z"}\n[]\n', "line 2", id="broken"),
        pytest.param(
            b'{"tinysight_tape": 1, "begun_at": "2026-11-26T00:00:00Z"}\n'
            b'{"at_s": 0, "topic": "x", "retained": false, "base64": "?"}\n',
            "line 2",
            id="no base64",
        ),
        pytest.param(b"x" * (9 << 20), "longer than", id="a line without end"),
    ],
)
def test_what_is_no_tape_is_refused_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    for path, data in ((tmp_path / "t", content), (tmp_path / "t.gz", gzip.compress(content))):
        path.write_bytes(data)
        with pytest.raises(DataError, match=said):
            list(read_tape(path))


def test_a_file_that_is_not_compressed_and_says_so_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.gz").write_bytes(b'{"tinysight_tape": 1}\n')
    with pytest.raises(DataError, match="line 1"):
        list(read_tape(tmp_path / "t.gz"))


def test_what_is_played_is_of_the_given_site_and_orders_nothing() -> None:
    told = moved(Take(at_s=0, topic=str(WHERE), payload=encode(EVENT), retained=False), "sim")
    assert told == (replace_site(WHERE), encode(replace(EVENT, site="sim")))
    order = encode(Command(id="c1", expires_at=EVENT.seen_at))
    for topic in (t.CommandTopic("s", "d", "restart"), t.DesiredTopic("s", "d"), t.AckTopic("s", "d", "c1")):
        assert moved(Take(at_s=0, topic=str(topic), payload=order, retained=False), "sim") is None
    assert moved(Take(at_s=0, topic="other/topic", payload=b"", retained=False), "sim") is None


def replace_site(topic: t.EventTopic) -> t.EventTopic:
    return t.EventTopic("sim", topic.device, topic.camera)


class Watcher:
    """``tinysight watch --json`` as a process."""

    def __init__(self, folder: Path, url: str, *more: str) -> None:
        command = [sys.executable, "-m", "tinysight_deploy", "watch", "--broker", url, "--json", *more]
        self.out, self.err = folder / "watched.jsonl", folder / "watched.txt"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def end(self) -> dict[str, Any]:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.err.read_text()
        return self.lines()[-1]


@pytest.fixture
def make_watcher(tmp_path: Path) -> Iterator[Callable[..., Watcher]]:
    made: list[Watcher] = []

    def make(url: str, *more: str) -> Watcher:
        made.append(Watcher(tmp_path, url, *more))
        return made[-1]

    yield make
    for each in made:
        each.process.kill()
        each.process.wait()


def test_two_broker_kills_cost_no_event_and_the_tape_of_it_tells_the_same(
    mosquitto: Any,
    make_watcher: Any,
    make_reader: Any,
    eventually: Any,
    belt_bundle: Path,
    tmp_path: Path,
    tinysight: Any,
) -> None:
    """The agent is stopped until the watcher is back: what it told a broker nobody listens to yet would be missing."""
    watcher = make_watcher(mosquitto.url, "--record", "tape.jsonl.gz", "--type", "event")
    eventually(lambda: "Watching" in watcher.err.read_text())
    command = [sys.executable, "-m", "tinysight_deploy", "run", "--broker", mosquitto.url, "--quiet", "--json"]
    more = ["--bundle", belt_bundle, "--source", "synthetic:belt?seed=5&fps=150", "--site", "plant-1", "--device", "b"]
    agent = subprocess.Popen([*command, *map(str, more)], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        for kills in range(2):
            before = len(watcher.lines())
            eventually(lambda before=before: len(watcher.lines()) > before + 6)
            mosquitto.kill()
            time.sleep(0.3)  # events wait
            mosquitto.start()
            eventually(lambda kills=kills: watcher.err.read_text().count("Connected again.") == kills + 1)
        before = len(watcher.lines())
        eventually(lambda: len(watcher.lines()) > before + 6)
        agent.send_signal(signal.SIGTERM)
        out, _ = agent.communicate(timeout=30)
    finally:
        agent.kill()
        agent.wait()
    sent = json.loads(out)["events_sent"]
    eventually(lambda: len({line["message"]["seq"] for line in watcher.lines()}) == sent)
    told = watcher.end()
    assert (told["missing"], told["awaited"], told["given_up"], told["broken"]) == (0, 0, 0, 0)
    assert (told["events"], told["cuts"]) == (sent, 2)
    assert told["replayed"] > 0
    reader = make_reader(mosquitto.url)
    played = tinysight(
        *("simulate", "--broker", mosquitto.url, "--replay", "tape.jsonl.gz", "--site", "tape"),
        *("--rate", "100", "--json", "--clear"),
    )
    assert played.returncode == 0, played.stderr
    again = Fleet()
    eventually(lambda: reader.of(t.StatusTopic)[-1:] == [b""] or json.loads(played.stdout)["said"] <= len(reader.heard))
    for topic, payload, retained in list(reader.heard):
        if topic.startswith("tinysight/v1/tape/"):
            again.hear(topic, payload, retained=retained)
    assert (again.events, again.missing, again.repeated) == (sent, 0, told["repeated"])
    assert again.replayed == told["replayed"]
    assert {event.site for event in reader.events() if event.device == "b"} == {"tape"}


def test_what_was_lost_is_missing_and_is_said_to_be(
    mosquitto: Any, make_watcher: Any, make_reader: Any, eventually: Any
) -> None:
    watcher = make_watcher(mosquitto.url, "--label", "7", "--site", "plant-1")
    eventually(lambda: "Watching" in watcher.err.read_text())
    speaker = make_reader(mosquitto.url)._connection
    speaker.publish(str(t.StatusTopic("plant-2", "x")), (GOLDEN / "status.json").read_bytes(), qos=1, retain=False)
    seqs = [1, 2, 3, 7, 7]
    for seq in seqs:
        speaker.publish(str(WHERE), encode(replace(EVENT, seq=seq, label=str(seq))), qos=1, retain=False)
    eventually(lambda: len(watcher.lines()) == 2)
    told = watcher.end()
    lines = watcher.lines()[:-1]
    assert [line["message"]["seq"] for line in lines] == [7, 7]
    assert [line.get("repeated") for line in lines] == [None, True]
    assert (told["events"], told["missing"], told["repeated"], told["devices"]) == (4, 3, 1, 1)


def test_no_tape_is_one_line_with_status_two(tinysight: Any, mosquitto: Any) -> None:
    for arguments in (
        ("simulate", "--replay", "nothing.jsonl"),
        ("watch", "--record", "no/such/folder/tape.jsonl", "--seconds", "1"),
        ("watch", "--type", "strat"),
    ):
        done = tinysight(*arguments, "--broker", mosquitto.url)
        assert done.returncode == 2
        assert done.stderr.strip().splitlines()[-1].startswith("error: ")
