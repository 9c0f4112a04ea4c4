"""Neighbours of a real agent on a real Mosquitto: found, told, told late, and taken back."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tinysight_contract.messages import Event, decode
from tinysight_contract.mqtt import Address, Connection

DISCOVERY = "homeassistant/device/tinysight_plant-1/belt-7/config"
TEXT = """\
site = "plant-1"
device = "belt-7"
state = "state"
[broker]
url = "{url}"
[model]
bundle = "{bundle}"
[cameras.belt]
source = "synthetic:belt?fps=15"
[cameras.belt.zones.dock]
polygon = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
"""
SECTIONS = "[home_assistant]\n[frigate]\n"


class Heard:
    """What somebody hears of everything, and what was retained when it began."""

    def __init__(self, url: str) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.retained: dict[str, bytes] = {}
        self._connection = Connection(Address.parse(url), client_id="", on_message=self._hear)
        self._connection.open(timeout_s=5)
        self._connection.subscribe("#")

    def _hear(self, topic: str, payload: bytes, retained: bool) -> None:
        self.messages.append((topic, payload))
        if retained:
            self.retained[topic] = payload

    def last(self, topic: str) -> bytes | None:
        return next((payload for name, payload in reversed(self.messages) if name == topic), None)

    def events(self) -> list[Event]:
        return [decode(payload, Event) for topic, payload in list(self.messages) if topic.endswith("/belt/event")]

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for topic, payload in list(self.messages) if topic == "frigate/events"]

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def agent(tmp_path: Path, belt_bundle: Path, make_mosquitto: Any) -> Iterator[tuple[Any, Path, Any]]:
    broker = make_mosquitto()
    broker.start()
    path = tmp_path / "agent.toml"
    path.write_text(TEXT.format(url=broker.url, bundle=belt_bundle) + SECTIONS)
    command = [sys.executable, "-m", "tinysight_deploy", "run", "--config", str(path), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    yield broker, path, process
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def test_neighbours_hear_all_that_readers_of_the_contract_hear(agent: Any, eventually: Any) -> None:
    broker, path, _ = agent
    first = Heard(broker.url)
    eventually(lambda: first.last(DISCOVERY) and len(first.said()) >= 3)
    components = json.loads(first.last(DISCOVERY) or b"")["components"]
    assert {"belt_status", "belt_zone_dock", "belt_count_7", "model"} <= components.keys()
    eventually(lambda: first.last("frigate/belt/status/detect") == b"online")
    assert first.last("frigate/available") == b"online"
    assert (first.last("frigate/belt/all") or b"").isdigit()
    first.close()

    broker.kill()
    time.sleep(4)  # long enough for several events to wait
    broker.start()  # it has forgotten all that was retained
    second = Heard(broker.url)
    eventually(lambda: [event for event in second.events()[1:] if event.replayed] and second.last(DISCOVERY))
    heard = second.events()[1:]  # of the very first, the translation may have come before we listened
    missing = {(event.id, event.seen_at.timestamp()) for event in heard} - {
        (each["after"]["id"], each["after"]["frame_time"]) for each in second.said()
    }
    assert missing == set(), "an event is never there before its translation"
    second.close()

    path.write_text(path.read_text().replace("[home_assistant]\n", ""))
    third = Heard(broker.url)
    eventually(lambda: third.last(DISCOVERY) == b"")
    assert third.last("frigate/available") == b"online", "the other neighbour stays"
    path.write_text(path.read_text().replace("[frigate]\n", "[home_assistant]\n"))
    eventually(lambda: third.last("frigate/available") == b"" and third.last(DISCOVERY))
    eventually(lambda: third.last("frigate/belt/all") == b"")
    third.close()
    last = Heard(broker.url)
    eventually(lambda: DISCOVERY in last.retained)
    assert not [topic for topic in last.retained if topic.startswith("frigate/")]
    last.close()


def test_who_stops_says_so_to_frigates_readers(agent: Any, eventually: Any, tmp_path: Path) -> None:
    broker, _, process = agent
    heard = Heard(broker.url)
    eventually(lambda: heard.last("frigate/available") == b"online" and heard.last("frigate/belt/status/detect"))
    assert (tmp_path / "state" / "neighbours.json").exists()
    process.send_signal(signal.SIGTERM)
    eventually(lambda: heard.last("frigate/available") == b"offline")
    heard.close()
