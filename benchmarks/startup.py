"""How long a device takes from nothing to its first inference and its first event, and what its install weighs.

    python benchmarks/startup.py            about 2 minutes on 2 cores; needs mosquitto, and PyPI for the install

Builds the wheel, installs it with ``[edge]`` into a new environment, and starts that environment's ``tinysight`` with
the tests' belt bundle against a real broker. All times are from outside, from the start of the process: to the end of
``--help``, to the agent's line ``first inference``, and to the first event at a subscriber. The event's source is a
video that begins with a parcel in view, played at its own pace of 30 frames a second (``realtime = true``), as a camera
would give it. A track must be hit three times before it is told, so the pace costs at least the 67 ms from the first
frame to the third; ``pace_s`` is what it did cost, against the same file at full speed. Files are in the page cache:
one start before is not counted, and of the others the median is. Without PyPI the environment of this script is started
instead, and ``install_mb`` and ``packages`` are null. Prints one JSON line last.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
from rig import broker
from steps import where

from tinysight_contract.messages import Event, EventType, decode
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.topics import ROOT, EventTopic, parse
from tinysight_edge.belt import Belt

REPOSITORY = Path(__file__).parents[1]
BUNDLE = REPOSITORY / "tests" / "golden" / "belt.bundle"
ANSWER_S = 30.0
FPS = 30.0


def main() -> None:
    """Install, start, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="starts of each kind")
    parser.add_argument("--here", action="store_true", help="start this environment instead of a new one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site = None if given.here else install(folder / "env")
        program = [str(folder / "env" / "bin" / "tinysight")] if site else [sys.executable, "-m", "tinysight_deploy"]
        with broker() as url:
            help_s = typical(given.runs, lambda: time_help(program, folder))
            inference_s = typical(given.runs, lambda: time_inference(program, folder, url))
            event_s = typical(given.runs, lambda: time_event(program, folder, url, pace=True))
            unpaced_s = typical(given.runs, lambda: time_event(program, folder, url, pace=False))
        figures = {
            "help_s": round(help_s, 3),
            "first_inference_s": round(inference_s, 3),
            "first_event_s": round(event_s, 3),
            "pace_s": round(event_s - unpaced_s, 3),
            "install_mb": site and round(sum(weight(path) for path in site.rglob("*")) / 1e6, 1),
            "packages": site and len(list(site.glob("*.dist-info"))),
        }
    print(json.dumps({**figures, "where": where()}))


def install(folder: Path) -> Path | None:
    """A new environment with the wheel and its edge extra alone; its site-packages, or None without PyPI."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check"]
    done = subprocess.run([*pip, "install", "-q", f"{wheel}[edge]"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"No edge install, so this environment is measured: {done.stderr.strip().splitlines()[-1]}")
        return None
    (site,) = (folder / "lib").glob("python*/site-packages")
    return site


def weight(path: Path) -> int:
    """Bytes that a file takes on disk, as ``du`` counts."""
    return 0 if path.is_dir() else path.lstat().st_blocks * 512


def typical(runs: int, run: Callable[[], float]) -> float:
    """The median in seconds, after one that fills the page cache."""
    run()
    return median(run() for _ in range(runs))


def clean(program: list[str], folder: Path) -> dict[str, str]:
    """An environment that does not bend an install's import path and keeps what the agent remembers in the folder."""
    here = program[0] == sys.executable
    kept = {name: value for name, value in os.environ.items() if here or name != "PYTHONPATH"}
    return {**kept, "STATE_DIRECTORY": str(folder / "state")}


def time_help(program: list[str], folder: Path) -> float:
    """To the end of ``tinysight --help``."""
    begun_s = time.monotonic()
    subprocess.run([*program, "--help"], check=True, capture_output=True, cwd=folder, env=clean(program, folder))
    return time.monotonic() - begun_s


def start_agent(
    program: list[str], folder: Path, url: str, source: str, *, pace: bool
) -> tuple[subprocess.Popen[str], float]:
    """The agent, and when it was started."""
    config = folder / "agent.toml"
    config.write_text(
        f"""\
site = "s"
device = "d"
state = "{folder / "state"}"
broker = {{ url = "{url}" }}
model = {{ bundle = "{BUNDLE}" }}
cameras.belt = {{ source = "{source}", realtime = {str(pace).lower()} }}
""",
        encoding="utf-8",
    )
    command = [*program, "run", "--config", str(config)]
    begun_s = time.monotonic()
    agent = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=clean(program, folder)
    )
    return agent, begun_s


def end(agent: subprocess.Popen[str]) -> None:
    """As a service manager would."""
    agent.send_signal(signal.SIGTERM)
    agent.communicate(timeout=ANSWER_S)


def time_inference(program: list[str], folder: Path, url: str) -> float:
    """To the agent's own line about its first inference."""
    agent, begun_s = start_agent(program, folder, url, "synthetic:belt", pace=False)
    late = threading.Timer(ANSWER_S, agent.kill)
    late.start()
    took_s = next((time.monotonic() - begun_s for line in agent.stderr or () if "first inference" in line), None)
    late.cancel()
    end(agent)
    if took_s is None:
        raise SystemExit("The agent told of no inference.")
    return took_s


def time_event(program: list[str], folder: Path, url: str, *, pace: bool) -> float:
    """To the first event at a subscriber: a ``start``, since those that the last run left open end first."""
    source = video(folder)
    heard: list[float] = []
    came = threading.Event()

    def on_message(topic: str, payload: bytes, _retained: bool) -> None:
        if isinstance(parse(topic), EventTopic) and decode(payload, Event).type is EventType.START and not heard:
            heard.append(time.monotonic())
            came.set()

    reader = Connection(Address.parse(url), client_id="", on_message=on_message)
    reader.open(timeout_s=5)
    reader.subscribe(f"{ROOT}/#")
    agent, begun_s = start_agent(program, folder, url, str(source), pace=pace)
    try:
        if not came.wait(ANSWER_S):
            raise SystemExit("No event came.")
    finally:
        end(agent)
        reader.close()
    return heard[0] - begun_s


def video(folder: Path) -> Path:
    """The belt as a video whose first frame shows a parcel."""
    path = folder / "belt.avi"
    if not path.exists():
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (320, 240))
        for number in range(200, 800):
            writer.write(Belt(3).frame(number)[0])
        writer.release()
    return path


if __name__ == "__main__":
    main()
