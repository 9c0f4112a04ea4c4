"""What an event costs on the wire and to encode, and how long a thousand devices take to be online at once.

    python benchmarks/wire.py        half a minute

``event_bytes`` is the payload, ``packet_bytes`` the whole PUBLISH as MQTT 5 sends it, with the topic and with an alias
in its place. ``json_us`` is the standard library's encoder with sorted keys and no spaces, given a dictionary that is
ready; the shortest of several turns counts, in both. The storm is `tinysight simulate` with 1,000 devices on one
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from rig import broker, say
from steps import where

from tinysight_contract import topics as t
from tinysight_contract.messages import Event, decode, encode
from tinysight_contract.mqtt import Address, Connection

GOLDEN: Final = Path(__file__).parents[1] / "tests" / "golden" / "event.json"
TURNS: Final = 9
CALLS: Final = 5000
PATIENCE_S: Final = 120.0
LIMITS: Final = ("max_queued_messages 0",)
HEAD_BYTES: Final = 1 + 2 + 2 + 2 + 1  # kind, length, the topic's length, message number, no properties
ALIAS_BYTES: Final = 3


def best_us(call: Callable[[], object]) -> float:
    """Microseconds of one call, in the shortest turn."""
    return min(timeit.repeat(call, number=CALLS, repeat=TURNS)) / CALLS * 1e6


def storm(devices: int) -> dict[str, Any]:
    """Let so many devices connect at once."""
    online: dict[str, float] = {}
    all_there = threading.Event()

    def hear(topic: str, _payload: bytes, _retained: bool) -> None:
        online.setdefault(topic, time.monotonic())
        if len(online) == devices:
            all_there.set()

    with broker(*LIMITS) as url:
        server = mosquitto()
        reader = Connection(Address.parse(url), client_id="", on_message=hear)
        reader.open(timeout_s=10)
        reader.subscribe(t.StatusTopic.filter())
        time.sleep(0.5)
        before_s = cpu_s(server)
        command = [sys.executable, "-m", "tinysight_deploy", "simulate", "--devices", str(devices), "--broker", url]
        with subprocess.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL) as crowd:
            came = all_there.wait(PATIENCE_S)
            used_s = cpu_s(server) - before_s
            crowd.terminate()
        reader.close()
    took_s = max(online.values()) - min(online.values()) if online else 0.0
    return {
        "online_1000_s": round(took_s, 2) if came else None,
        "online": len(online),
        "broker_cpu_s": round(used_s, 2),
    }


def mosquitto() -> int:
    """Its process, our child."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text(encoding="ascii").split()
    return next(int(pid) for pid in children if "mosquitto" in Path(f"/proc/{pid}/comm").read_text(encoding="ascii"))


def cpu_s(pid: int) -> float:
    """Seconds of CPU so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1000, help="in the storm")
    given = parser.parse_args()
    event = decode(GOLDEN.read_bytes(), Event)
    payload, ready = encode(event), msgspec.to_builtins(event)
    dump = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if dump.encode(ready).encode() != payload:
        raise SystemExit("the two encoders do not say the same")
    topic = str(t.EventTopic(event.site, event.device, event.camera))
    figures = {
        "event_bytes": len(payload),
        "packet_bytes": HEAD_BYTES + len(topic) + len(payload),
        "packet_bytes_alias": HEAD_BYTES + ALIAS_BYTES + len(payload),
        "encode_us": round(best_us(lambda: encode(event)), 2),
        "json_us": round(best_us(lambda: dump.encode(ready).encode()), 2),
        "decode_us": round(best_us(lambda: decode(payload, Event)), 2),
        "json_decode_us": round(best_us(lambda: json.loads(payload)), 2),
    }
    say(f"{figures['event_bytes']} bytes, {figures['encode_us']} µs by msgspec, {figures['json_us']} µs by json")
    figures |= storm(given.devices)
    print(json.dumps({**figures, "where": where()}))
    sys.exit(0 if figures["online_1000_s"] is not None else 1)


if __name__ == "__main__":
    main()
