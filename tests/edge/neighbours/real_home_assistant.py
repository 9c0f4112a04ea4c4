"""Show the golden discovery message to a real Home Assistant, and print what it makes of it.

Not part of the tests: Home Assistant needs another Python and 200 MB. ``docs/neighbours.md`` says when it was run::

    python3.13 -m venv ha && ha/bin/pip install homeassistant==2025.4.4 paho-mqtt==2.1.0
    ha/bin/python tests/edge/neighbours/real_home_assistant.py

Starts Home Assistant without its frontend in this process and Mosquitto beside it; ends with status 1 when a component
of the message is missing, a state is not what the payloads say, or a component stays that is to go.
"""

import asyncio
import importlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[2] / "golden"
MESSAGE = json.loads((GOLDEN / "home-assistant.json").read_bytes())
PAYLOADS = {
    name: (GOLDEN / f"{name}.json").read_text() for name in ("status", "info", "health", "camerastatus", "event")
}
TOPIC, ROOT = "homeassistant/device/tinysight_plant-1/belt-7/config", "tinysight/v1/plant-1/belt-7"
COUNTS = {"objects": {"7": 2, "traffic light": 3}, "zones": {"dock": {"7": 1}}, "lines": {"door": {"in": 4, "out": 1}}}
EXPECTED = {
    "cam0_presence": "on", "cam0_zone_dock": "on", "cam0_zone_dock_7": "1", "cam0_count_7": "2", "cam0_objects": "5",
    "cam0_line_door_in": "4", "cam0_line_door_out": "1", "cam0_status": "online", "cam0_fps": "15.0", "verdict": "ok",
    "temperature": "unknown", "model": "off", "waiting": "0",
}  # fmt: skip


def entry(port: int) -> str:
    """Home Assistant's memory of a broker that somebody has set up."""
    at = "2026-01-01T00:00:00+00:00"
    mqtt: dict[str, Any] = {
        "created_at": at, "modified_at": at, "data": {"broker": "127.0.0.1", "port": port, "protocol": "5"},
        "disabled_by": None, "discovery_keys": {}, "domain": "mqtt", "entry_id": "a", "minor_version": 2, "options": {},
        "pref_disable_new_entities": False, "pref_disable_polling": False, "source": "user", "subentries": [],
        "title": "broker", "unique_id": None, "version": 1,
    }  # fmt: skip
    return json.dumps({"version": 1, "minor_version": 5, "key": "core.config_entries", "data": {"entries": [mqtt]}})


async def show(folder: Path, port: int) -> list[str]:
    """What is wrong."""
    bootstrap: Any = importlib.import_module("homeassistant.bootstrap")
    runner: Any = importlib.import_module("homeassistant.runner")
    registry: Any = importlib.import_module("homeassistant.helpers.entity_registry")
    bootstrap.CRITICAL_INTEGRATIONS = bootstrap.DEFAULT_INTEGRATIONS = set()
    bootstrap.STAGE_0_INTEGRATIONS = tuple(each for each in bootstrap.STAGE_0_INTEGRATIONS if each[0] != "frontend")
    home = await bootstrap.async_setup_hass(runner.RuntimeConfig(config_dir=str(folder), skip_pip=True))
    await home.async_start()

    def shown() -> dict[str, Any]:
        entities = registry.async_get(home).entities.values()
        own = {each.unique_id.removeprefix("tinysight_plant-1_belt-7_"): each for each in entities}
        return {key: home.states.get(each.entity_id) for key, each in own.items() if each.platform == "mqtt"}

    async def publish(topic: str, payload: str, *options: str) -> None:
        command = ["mosquitto_pub", "-p", str(port), "-q", "1", "-t", topic, *options]
        process = await asyncio.create_subprocess_exec(*command, *(["-m", payload] if payload else ["-n"]))
        await process.wait()
        await asyncio.sleep(0.5)

    await publish(TOPIC, json.dumps(MESSAGE), "-r")
    await asyncio.sleep(2)
    for name in ("status", "info", "health"):
        await publish(f"{ROOT}/{name}", PAYLOADS[name], "-r")
    await publish(f"{ROOT}/camera/cam0/status", PAYLOADS["camerastatus"], "-r")
    await publish(f"{ROOT}/camera/cam0/counts", json.dumps(COUNTS), "-r")
    await publish(f"{ROOT}/camera/cam0/event", PAYLOADS["event"])
    wrong, states = [], shown()
    for _, state in sorted(states.items()):
        sys.stdout.write(f"{state.entity_id:55} {state.state}\n")
    wanted = {key for key, component in MESSAGE["components"].items() if len(component) > 1}
    wrong += [f"not made: {wanted - states.keys()}"] if wanted != states.keys() else []
    wrong += [f"{k}: {states[k].state}, not {want}" for k, want in EXPECTED.items() if states[k].state != want]
    if states["cam0_event"].attributes.get("event_type") != "start":
        wrong.append("the event is not told")
    await publish(f"{ROOT}/camera/cam0/status", PAYLOADS["camerastatus"].replace("online", "stalled"), "-r")
    if shown()["cam0_presence"].state != "unavailable":
        wrong.append("a blind camera still counts")
    zone = {key for key in MESSAGE["components"] if "_zone_" in key}
    less = {key: {"platform": c["platform"]} if key in zone else c for key, c in MESSAGE["components"].items()}
    await publish(TOPIC, json.dumps({**MESSAGE, "components": less}), "-r")
    await asyncio.sleep(1)
    wrong += [f"stays: {zone & shown().keys()}"] if zone & shown().keys() else []
    await publish(TOPIC, "", "-r")
    await asyncio.sleep(1)
    wrong += [f"stays: {shown().keys()}"] if shown() else []
    await home.async_stop(force=True)
    return wrong


def main() -> int:
    """Run all of it; 0 when nothing is wrong."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        port = each.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".storage").mkdir()
        (folder / ".storage" / "core.config_entries").write_text(entry(port))
        (folder / "configuration.yaml").write_text("logger:\n  default: error\n")
        (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        broker = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)
        try:
            wrong = asyncio.run(asyncio.wait_for(show(folder, port), 60))
        finally:
            broker.kill()
    sys.stdout.write("\n".join(wrong or ["all as it should be"]) + "\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
