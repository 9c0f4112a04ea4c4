"""Record what an agent tells of a minute of the belt, for `tinysight simulate`.

``python benchmarks/record_belt.py BUNDLE`` needs Mosquitto's port in ``--broker``; writes the package's recording and
prints ``{"lives", "events", "seconds", "bytes"}``. The camera has a zone and a line.
Run it again when the meaning of events has changed.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace

import tinysight_edge
from tinysight_contract.messages import Event, EventType, Info, decode
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.topics import ROOT, EventTopic, InfoTopic, parse
from tinysight_edge.simulate.recording import RECORDING, Recording, Step
from tinysight_edge.tracking.track import LOST_S  # an end is told so long after the object was last seen
from tinysight_trainer.synth import belt_video

FRAMES = 900  # a minute
CONFIG = """
site = "belt"
device = "recorded"
state = "state"
[broker]
url = "{broker}"
[model]
bundle = "{bundle}"
[cameras.belt]
source = "belt.mp4"
[cameras.belt.zones.scale]
polygon = [[0.3, 0.0], [0.7, 0.0], [0.7, 1.0], [0.3, 1.0]]
[cameras.belt.lines.gate]
start = [0.5, 1.0]
end = [0.5, 0.0]
"""


def main() -> None:
    """Run an agent on a video and keep what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--broker", default="mqtt://127.0.0.1:1883")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    heard: list[tuple[str, bytes]] = []
    reader = Connection(
        Address.parse(given.broker), client_id="", on_message=lambda topic, raw, _: heard.append((topic, raw))
    )
    reader.open(timeout_s=5)
    reader.subscribe(f"{ROOT}/#")
    with tempfile.TemporaryDirectory() as folder:
        belt_video(Path(folder) / "belt.mp4", frames=FRAMES, seed=given.seed)
        config = Path(folder) / "agent.toml"
        config.write_text(CONFIG.format(broker=given.broker, bundle=given.bundle.absolute()))
        command = [sys.executable, "-m", "tinysight_deploy", "run", "--config", str(config), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    sent = json.loads(done.stdout)["events_sent"]
    while sum(isinstance(parse(topic), EventTopic) for topic, _ in heard) < sent:
        time.sleep(0.05)
    events = [decode(raw, Event) for topic, raw in heard if isinstance(parse(topic), EventTopic)]
    infos = [decode(raw, Info) for topic, raw in heard if isinstance(parse(topic), InfoTopic) and raw]
    recording = recorded(sorted(events, key=lambda event: event.seq), infos[-1])
    path = Path(tinysight_edge.__file__).parent / "simulate" / RECORDING
    path.write_bytes(gzip.compress(msgspec.json.encode(recording), mtime=0))
    lives = len({step.event.id for step in recording.steps})
    figures = {"lives": lives, "events": len(events), "seconds": recording.duration_s, "bytes": path.stat().st_size}
    print(json.dumps(figures))


def recorded(events: list[Event], info: Info) -> Recording:
    """Times from zero on; ids numbered, so that nothing of the recording machine is in it."""
    began = min(event.started_at for event in events)
    numbers = {id_: f"life-{number}" for number, id_ in enumerate(dict.fromkeys(event.id for event in events))}
    steps, at_s = [], 0.0
    for event in events:
        told_s = (event.seen_at - began).total_seconds() + (LOST_S if event.type is EventType.END else 0.0)
        at_s = round(max(at_s, told_s), 3)
        reason = "left" if event.reason == "camera lost" else event.reason  # the video is over; the camera goes on
        told = replace(event, id=numbers[event.id], boot_id="recorded", reason=reason)
        steps.append(Step(at_s=at_s, event=told))
    bare = replace(
        info,
        boot_id="recorded",
        started_at=datetime.fromtimestamp(0, UTC),
        software={},
        hardware={"model": "simulated"},
    )
    return Recording(
        duration_s=round(at_s + LOST_S, 3),
        info=bare,
        steps=steps,
        zones=sorted({name for event in events for name in event.zones.entered}),
        lines=sorted({crossing.line for event in events for crossing in event.crossed}),
    )


if __name__ == "__main__":
    main()
