"""Events through the outbox against bare paho, to the same Mosquitto, in one run.

    python benchmarks/outbox.py        a minute

A backlog of 100,000 events is put into the outbox while the broker is away. Then it comes, and the backlog is drained,
while a loop like the agent's goes on giving live events, 500 a second, and times each. Before and after, bare
paho (its own network thread, 100 in flight, QoS 1) publishes the same bytes. A subscriber of Mosquitto's own writes
down all that comes, in all turns. ``lost`` are numbers that were given and never came; ``live_wait_p95_ms`` is how
long a live event took to be acknowledged beside the backlog.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import paho.mqtt.client as paho
from msgspec.structs import replace
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from rig import broker, say
from steps import where

from tinysight_contract import topics as t
from tinysight_contract.messages import Event, Health, State, Status, decode, encode, utc_now
from tinysight_contract.mqtt import Address
from tinysight_edge.config.types import OutboxConfig
from tinysight_edge.outbox import Outbox
from tinysight_edge.publisher import Publisher

GOLDEN: Final = Path(__file__).parents[1] / "tests" / "golden"
HERE: Final = t.StatusTopic("plant-1", "belt-7")
EVENTS: Final = t.EventTopic("plant-1", "belt-7", "cam0")
LIVE_EVERY_S: Final = 0.002
LIMITS: Final = ("max_queued_messages 0", "max_inflight_messages 200")  # the listener shall get all
RAW_IN_FLIGHT: Final = 100
SETTLE_S: Final = 60.0


def golden(name: str) -> bytes:
    """An example of a payload."""
    return (GOLDEN / f"{name}.json").read_bytes()


@contextmanager
def listener(url: str, out: Path) -> Iterator[None]:
    """Writes the payload of each event that comes into a file, a line each."""
    address = Address.parse(url)
    command = ["mosquitto_sub", "-h", address.host, "-p", str(address.port), "-q", "1", "-t", str(EVENTS), "-F", "%p"]
    with out.open("ab") as file, subprocess.Popen(command, stdout=file) as process:
        time.sleep(0.5)
        try:
            yield
        finally:
            process.terminate()


def bare(url: str, payload: bytes, count: int) -> float:
    """Events a second by paho alone."""
    address, up, done, acks = Address.parse(url), threading.Event(), threading.Event(), [0]
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bare", protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(RAW_IN_FLIGHT)

    def acknowledged(*_: object) -> None:
        acks[0] += 1
        if acks[0] == count:
            done.set()

    client.on_connect = lambda *_: up.set()
    client.on_publish = acknowledged
    client.connect(address.host, address.port)
    client.loop_start()
    up.wait(10)
    begun_s = time.perf_counter()
    for _ in range(count):
        client.publish(str(EVENTS), payload, qos=1)
    done.wait(SETTLE_S)
    took_s = time.perf_counter() - begun_s
    client.disconnect()
    client.loop_stop()
    return acks[0] / took_s


class Subject:
    """A publisher with its outbox, as the agent has it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.here = False
        self._url, health = url, decode(golden("health"), Health)
        online = Status(state=State.ONLINE, boot_id="b1", reason="started", at=utc_now())
        self.outbox = Outbox(folder / "outbox.db", OutboxConfig(max_events=500_000))
        self.publisher = Publisher(
            self._address,
            self.outbox,
            client_id="tinysight_plant-1_belt-7",
            online=(HERE, online),
            offline=(HERE, replace(online, state=State.OFFLINE, reason="connection lost")),
            every_s=30.0,
            report=lambda outbox, broker: (
                t.HealthTopic("plant-1", "belt-7"),
                replace(health, outbox=outbox, broker=broker),
            ),
        )

    def _address(self) -> Address:
        return Address.parse(self._url if self.here else "mqtt://127.0.0.1:1")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="in the backlog")
    parser.add_argument("--raw", type=int, default=40_000, help="by bare paho, in each of two turns")
    given = parser.parse_args()
    event = decode(golden("event"), Event)
    payload = encode(event)
    with tempfile.TemporaryDirectory(prefix="outbox-") as name, broker(*LIMITS) as url:
        folder = Path(name)
        subject = Subject(url, folder)
        publisher = subject.publisher
        publisher.start()
        begun_s = time.perf_counter()
        for seq in range(1, given.events + 1):
            publisher.event(EVENTS, replace(event, seq=seq))
        while len(subject.outbox) < given.events:
            time.sleep(0.001)
        kept_per_s = given.events / (time.perf_counter() - begun_s)
        say(f"{given.events:,} events kept, {kept_per_s:,.0f} a second")
        with listener(url, folder / "raw.txt"):
            raw = [bare(url, payload, given.raw)]
        say(f"bare paho: {raw[0]:,.0f} a second")
        with listener(url, folder / "drained.txt"):
            subject.here = True
            drained_per_s, last, enqueue_s, live_s = drain(publisher, event, given.events)
            settle(folder / "drained.txt", last)
        say(f"drained: {drained_per_s:,.0f} a second")
        with listener(url, folder / "raw.txt"):
            raw.append(bare(url, payload, given.raw))
        say(f"bare paho: {raw[1]:,.0f} a second")
        publisher.close(drain_s=5.0)
        came = [int(seq) for seq in re.findall(rb'"seq":(\d+)', (folder / "drained.txt").read_bytes())]
    raw_per_s = sum(raw) / 2
    result = {
        "ratio": round(drained_per_s / raw_per_s, 3),
        "drained_per_s": round(drained_per_s),
        "raw_per_s": round(raw_per_s),
        "raw_turns": [round(each) for each in raw],
        "kept_per_s": round(kept_per_s),
        "lost": last - len({*came}),
        "twice": len(came) - len({*came}),
        "enqueue_p99_ms": round(float(np.percentile(enqueue_s, 99)) * 1e3, 4),
        "enqueue_max_ms": round(max(enqueue_s) * 1e3, 3),
        "live_wait_p95_ms": round(float(np.percentile(live_s, 95)) * 1e3, 2),
        "where": where(),
    }
    print(json.dumps(result))
    sys.exit(0 if result["lost"] == 0 else 1)


def drain(publisher: Publisher, event: Event, backlog: int) -> tuple[float, int, list[float], list[float]]:
    """Give live events until the backlog is gone.

    Returns:
        Events a second from the first that is acknowledged, the last number given, seconds to give each live one, and
        seconds until it was handed to the connection.
    """
    enqueue_s: list[float] = []
    live_s: list[float] = []
    publisher._published = lambda age_ms: live_s.append(age_ms / 1e3)
    fresh = replace(event, latency_ms=replace(event.latency_ms, total=0.0))
    while not publisher.sent:  # after an outage events wait a moment for readers
        time.sleep(0.0005)
    before, begun_s, seq = publisher.sent, time.perf_counter(), backlog
    while publisher.waiting > 0 or seq == backlog:
        seq += 1
        one = replace(fresh, seq=seq)
        before_s = time.perf_counter()
        publisher.event(EVENTS, one)
        enqueue_s.append(time.perf_counter() - before_s)
        time.sleep(LIVE_EVERY_S)
        if publisher.sent >= backlog:
            break
    return (publisher.sent - before) / (time.perf_counter() - begun_s), seq, enqueue_s, live_s


def settle(file: Path, last: int) -> None:
    """Wait until the listener has written all, or nothing more comes."""
    until_s, size = time.monotonic() + 5.0, -1
    while time.monotonic() < until_s:
        if file.stat().st_size != size:
            size, until_s = file.stat().st_size, time.monotonic() + 2.0
        time.sleep(0.1)
    say(f"{last:,} events given")


if __name__ == "__main__":
    main()
