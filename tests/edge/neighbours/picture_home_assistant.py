"""Run a device beside a real Home Assistant with its frontend, check the example dashboard and take its pictures.

Not part of the tests: Home Assistant needs another Python and 300 MB. ``docs/neighbours.md`` says when it was run::

    python3.13 -m venv ha
    ha/bin/pip install homeassistant==2025.4.4 home-assistant-frontend==20250411.0 paho-mqtt==2.1.0 \\
        SQLAlchemy==2.0.39 fnv-hash-fast==1.4.0 psutil-home-assistant==0.0.1 Pillow==11.1.0
    python tests/edge/neighbours/picture_home_assistant.py ha/bin/hass docs/pictures

The second command is run where the agent, Playwright and Chromium are; it takes ten minutes, so that the charts show
something. A person's way is taken: an owner is made, the broker is set up in Home Assistant's own dialogue, and the
device that runs ``examples/agent.toml``, with the drawn belt as both cameras, is found by discovery. Ends with status 1
when the dashboard names an entity that is not there or unavailable, or when a card shows an error.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "examples" / "home-assistant" / "dashboard.yaml"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
CONFIGURATION = """\
homeassistant: {{name: Plant 1, time_zone: UTC, unit_system: metric, currency: EUR, country: DE, language: en}}
http: {{server_host: 127.0.0.1, server_port: {port}}}
frontend:
config:
history:
logbook:
logger: {{default: error}}
lovelace:
  dashboards:
    tinysight-gate:
      {{mode: yaml, filename: tinysight.yaml, title: TinySight, icon: "mdi:cctv", show_in_sidebar: true}}
"""
ASKED = {"done": ["core_config", "analytics", "integration"]}
DONE = {"version": 4, "minor_version": 1, "key": "onboarding", "data": ASKED}


def free_port() -> int:
    """One that nothing listens on."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


def until(what: str, ask: Callable[[], Any], seconds: float = 90) -> Any:
    """Ask until the answer is true."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        try:
            if answer := ask():
                return answer
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise TimeoutError(what)


def agent(folder: Path, broker: int) -> Path:
    """The example's configuration, with cameras that are here, and a broker that is."""
    text = (ROOT / "examples" / "agent.toml").read_text()
    text = text.replace("mqtt://127.0.0.1:1883", f"mqtt://127.0.0.1:{broker}").replace('"../tests', f'"{ROOT}/tests')
    text = text.replace("rtsp://192.0.2.10:554/stream1", "synthetic:belt?fps=10&seed=4").replace(
        'transport = "tcp"', ""
    )
    text = re.sub(r"rotate = 90\ncrop = .*\nprivacy = .*\n.*\n\]\n", "", text)
    text = re.sub(r"prometheus_port = .*\n", "", text).replace('every = "30s"', 'every = "2s"')
    text = re.sub(r"\[fleet\][^\[]*", "", text)
    (folder / "agent.toml").write_text(text)
    return folder / "agent.toml"


def set_up(url: str, broker: int) -> tuple[httpx.Client, dict[str, Any]]:
    """Make the owner and add the broker, as the pages do; gives a client with the owner's rights, and their tokens."""
    home = httpx.Client(base_url=url, timeout=30)
    until("Home Assistant does not start", lambda: home.get("/api/onboarding").status_code == 200)
    owner = {"client_id": f"{url}/", "name": "Owner", "username": "owner", "password": "not-a-secret", "language": "en"}
    code = home.post("/api/onboarding/users", json=owner).raise_for_status().json()["auth_code"]
    grant = {"grant_type": "authorization_code", "code": code, "client_id": f"{url}/"}
    tokens: dict[str, Any] = home.post("/auth/token", data=grant).raise_for_status().json()
    home.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    flow = home.post("/api/config/config_entries/flow", json={"handler": "mqtt"}).raise_for_status().json()
    given = {"broker": "127.0.0.1", "port": broker}
    done = home.post(f"/api/config/config_entries/flow/{flow['flow_id']}", json=given).raise_for_status().json()
    if done["type"] != "create_entry":
        raise ValueError(f"Home Assistant did not take the broker: {done}")
    return home, tokens


def named() -> set[str]:
    """Each entity that the dashboard names."""
    text = re.sub(r"^#.*$", "", DASHBOARD.read_text(), flags=re.M)
    return set(re.findall(r"\b(?:sensor|binary_sensor|event|update)\.plant_1_gate_1_\w+", text))


def keep(page: Page, name: str, folder: Path) -> None:
    """A picture of the page, in few colours so that it stays small."""
    whole = folder / f"{name}.png"
    page.screenshot(path=whole, timeout=180_000)
    Image.open(whole).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(whole, optimize=True)
    sys.stdout.write(f"{whole}: {whole.stat().st_size} bytes\n")


def pictures(url: str, home: httpx.Client, tokens: dict[str, Any], folder: Path) -> list[str]:
    """The device's page and the dashboard; gives what Home Assistant's frontend complained of."""
    complaints: list[str] = []
    expires = int(time.time() * 1000) + 1_800_000
    known = {**tokens, "hassUrl": url, "clientId": f"{url}/", "expires": expires}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 760}, color_scheme="light", locale="en")
        page.add_init_script(f"localStorage.setItem('hassTokens', {json.dumps(json.dumps(known))})")
        page.goto(f"{url}/tinysight-gate/gate-1")
        page.get_by_text("Last event").first.wait_for(timeout=180_000)
        page.wait_for_timeout(8_000)  # charts are drawn late
        if bad := page.locator("hui-error-card, hui-warning").count():
            complaints.append(f"{bad} cards of the dashboard show an error, see the picture")
        keep(page, "home-assistant-dashboard", folder)
        found = "{{ device_id('sensor.plant_1_gate_1_verdict') }}"
        device = home.post("/api/template", json={"template": found}).raise_for_status().text
        page.goto(f"{url}/config/devices/device/{device}")
        page.get_by_text("Device info").wait_for(timeout=180_000)
        page.wait_for_timeout(5_000)
        page.set_viewport_size({"width": 1280, "height": 1720})
        page.wait_for_timeout(2_000)
        keep(page, "home-assistant-device", folder)
        browser.close()
    return complaints


def check(url: str, broker: int, folder: Path, run_s: float) -> list[str]:
    """What is wrong."""
    home, tokens = set_up(url, broker)
    states: dict[str, str] = {}

    def all_there() -> bool:
        states.update({each["entity_id"]: each["state"] for each in home.get("/api/states").raise_for_status().json()})
        return all(states.get(each, "unavailable") != "unavailable" for each in named())

    try:
        until("entities", all_there)
    except TimeoutError:
        return [f"{each}: {states.get(each, 'is not there')}" for each in sorted(named())]
    time.sleep(run_s)  # something for the charts
    all_there()
    for each in sorted(each for each in states if "plant_1_gate_1" in each):
        sys.stdout.write(f"{each:50} {states[each]:30} {'in the dashboard' if each in named() else ''}\n")
    verdict = home.get("/api/states/sensor.plant_1_gate_1_verdict").raise_for_status().json()
    sys.stdout.write(f"verdict: {verdict['attributes']}\n")
    return pictures(url, home, tokens, folder)


def main(program: str, pictures_to: str, run_s: str = "600") -> int:
    """Run all of it, for so many seconds; 0 when nothing is wrong."""
    broker, web = free_port(), free_port()
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".storage").mkdir()
        (folder / ".storage" / "onboarding").write_text(json.dumps(DONE))
        (folder / "configuration.yaml").write_text(CONFIGURATION.format(port=web))
        shutil.copyfile(DASHBOARD, folder / "tinysight.yaml")
        (folder / "mosquitto.conf").write_text(f"listener {broker} 127.0.0.1\nallow_anonymous true\nuser root\n")
        commands = [
            [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(folder / "mosquitto.conf")],
            [program, "-c", str(folder), "--skip-pip"],
            ["tinysight", "run", "--config", str(agent(folder, broker))],
        ]
        wrong = ["it ended early"]
        try:
            for command in commands:
                with (folder / "log").open("ab") as log:
                    started.append(subprocess.Popen(command, stdout=log, stderr=log))
            wrong = check(f"http://127.0.0.1:{web}", broker, Path(pictures_to), float(run_s))
        finally:
            for each in reversed(started):
                each.terminate()
                each.wait(30)
            if wrong:
                sys.stdout.write((folder / "log").read_text())
    sys.stdout.write("\n".join(wrong or ["all as it should be"]) + "\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
