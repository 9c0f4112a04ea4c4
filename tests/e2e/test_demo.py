"""The whole way in one go, as the README's first screen promises it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tinysight_contract.messages import Event, Frame, State, Status, decode
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.topics import FrameTopic, StatusTopic


@contextmanager
def begun(folder: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """The demo as a user begins it; Ctrl-C ends it well."""
    env = {**os.environ, "TINYSIGHT_KEYS": str(folder / "mine"), "TINYSIGHT_PASSPHRASE": "mine"}
    command = [sys.executable, "-m", "tinysight_deploy", "demo", "--images", "1200", "--json", *options]
    with (folder / "log").open("w") as log:
        demo = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield demo
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0, (folder / "log").read_text()
    finally:
        demo.kill()
        demo.communicate()


def told(demo: "subprocess.Popen[str]", folder: Path) -> tuple[dict[str, Any], str]:
    """Its figures, and the line before them."""
    assert demo.stdout is not None
    before = ""
    for line in demo.stdout:
        if line.startswith('{"') and "dashboard" in json.loads(line):
            return json.loads(line), before
        before = line
    raise AssertionError((folder / "log").read_text())


def check_dashboard(address: str) -> None:
    """The page is there, and at the broker that it is told a device shows what it sees."""
    assert "<title>TinySight</title>" in httpx.get(address, timeout=20).text
    heard: list[tuple[str, bytes]] = []
    broker = Address.parse(httpx.get(f"{address}/config.json", timeout=20).json()["broker"])
    connection = Connection(broker, client_id="", on_message=lambda topic, payload, _: heard.append((topic, payload)))
    connection.open(timeout_s=10)
    connection.subscribe(str(StatusTopic("demo", "belt-1")), str(FrameTopic("demo", "belt-1", "belt")))
    until_s = time.monotonic() + 60
    while not any(topic.endswith("/frame") and decode(payload, Frame).detections for topic, payload in list(heard)):
        assert time.monotonic() < until_s, heard[:5]
        time.sleep(0.05)
    connection.close()
    states = [decode(payload, Status).state for topic, payload in heard if topic.endswith("/status")]
    assert states[-1] is State.ONLINE


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_goes_the_whole_way_checks_itself_and_shows_its_device(tmp_path: Path) -> None:
    """Fewer pictures than its usual 3000, for time's sake: it still promises what it always does."""
    with begun(tmp_path, "--dashboard") as demo:
        figures, event = told(demo, tmp_path)
        check_dashboard(figures["dashboard"])
    assert list(figures) == [
        "train_s", "float_ap50", "float_ap50_95", "int8_ap50", "int8_ap50_95", "bundle_kib", "int8_ms", "float_ms",
        "frames", "events_sent", "events_received", "missing", "total_s", "dashboard",
    ]  # fmt: skip
    assert figures["int8_ap50"] >= 0.90
    assert figures["int8_ap50_95"] >= figures["float_ap50_95"] - 0.01
    assert figures["missing"] == 0
    assert figures["events_received"] == figures["events_sent"] > 30
    assert decode(event.encode(), Event).site == "demo"
    made = tmp_path / "tinysight-demo"
    for name in ("data", "run/curves.png", "belt.bundle", "belt.report.html", "device/state.json"):
        assert (made / name).exists()
    assert not (tmp_path / "mine").exists()
    (key,) = (made / "keys").glob("*.pem")
    assert b"ENCRYPTED" not in key.read_bytes()
    with begun(tmp_path, "--dashboard") as again:  # what was made serves once more
        figures, _ = told(again, tmp_path)
        assert list(figures) == ["dashboard"]
        check_dashboard(figures["dashboard"])
    assert "INFO agent.toml" in (made / "agent.log").read_text()


def test_the_demo_leaves_a_folder_that_is_not_its_own_alone(tinysight: Any, tmp_path: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "keep.txt").write_text("keep")
    done = tinysight("demo", "--out", "mine")
    assert done.returncode == 2
    assert (tmp_path / "mine" / "keep.txt").read_text() == "keep"
