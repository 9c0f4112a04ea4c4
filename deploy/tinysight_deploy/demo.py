"""``tinysight demo``: the whole way in one go, with the same commands a user types.

data → training → int8 bundle with its proof → a device's store → camera inference → events on MQTT → a reader. Each
step is a subprocess of the ``tinysight`` command; the broker and the reader live here. It checks itself. With
``--dashboard`` the device goes on, and a browser shows it; what an earlier demo made then serves again.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from tinysight_contract import __version__
from tinysight_contract.errors import ConfigError, TinySightError
from tinysight_contract.fleet import Fleet
from tinysight_contract.messages import Event, EventType, encode
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.topics import ROOT
from tinysight_deploy.brokers.broker import free_ports, running_broker
from tinysight_edge.console import console, finish

__all__ = ["demo"]

MARK: Final = ".tinysight-demo"
IMAGES: Final = 3000
CAMERA: Final = "synthetic:belt?seed=11&fps=30&frames=600"
MIN_AP50: Final = 0.90


class _Reader:
    """A dashboard's stand-in: hears everything, keeps one event to show."""

    def __init__(self, address: Address) -> None:
        self.fleet = Fleet()
        self.example: Event | None = None
        self.broken: list[str] = []
        self._connection = Connection(address, client_id="tinysight-demo-reader", on_message=self._hear)
        self._connection.open(timeout_s=10.0)
        self._connection.subscribe(f"{ROOT}/#")

    def _hear(self, topic: str, payload: bytes, retained: bool) -> None:
        heard = self.fleet.hear(topic, payload, retained=retained)
        message = heard.message
        if heard.broken is not None:
            self.broken.append(heard.broken)
        elif isinstance(message, Event) and message.type is EventType.END and self._is_better(message):
            self.example = message

    def _is_better(self, event: Event) -> bool:
        return self.example is None or event.best_score > self.example.best_score

    def wait_for(self, events: int, *, timeout_s: float) -> None:
        """Wait until so many events were heard."""
        until_s = time.monotonic() + timeout_s
        while self.fleet.events < events and time.monotonic() < until_s:
            time.sleep(0.05)
        self._connection.close()


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Where data, run, bundle and report stay to be looked at.")] = Path(
        "tinysight-demo"
    ),
    images: Annotated[
        int, typer.Option(help="To draw. Fewer are faster and the model sees less well.", min=600)
    ] = IMAGES,
    seed: Annotated[int, typer.Option(help="Of the data and the training.")] = 7,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Then go on, and show the device in a browser, until Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON line.")] = False,
) -> None:
    """The whole way in one go: data, training, int8 bundle, device, camera, MQTT. About 5 minutes on 2 cores.

    With `--dashboard`, what an earlier demo with the same options made serves again, and it takes seconds.
    """
    _check_installed()
    for number in (signal.SIGTERM, signal.SIGHUP):  # end all that was begun, as after Ctrl-C
        if signal.getsignal(number) != signal.SIG_IGN:  # of nohup
            signal.signal(number, signal.default_int_handler)
    ports, options = free_ports(), f"tinysight {__version__}, {images} images, seed {seed}\n"
    url = f"mqtt://127.0.0.1:{ports.mqtt5}"
    with ExitStack() as stack:
        page = None
        if dashboard:  # what is amiss with it is said at once
            from tinysight_deploy.demo_dashboard import device_runs, served

            page = stack.enter_context(served(ports))
        done, figures = page is not None and _is_done(out, options), dict[str, Any]()
        if not done:
            _make_folder(out)
        stack.enter_context(running_broker(ports))
        if not done:
            figures, failure = _whole_way(_Steps(out), url, images=images, seed=seed)
            if failure is not None or page is None:
                finish(figures, as_json=as_json)
            if failure is not None:
                console.print(f"The demo failed: {failure}.", style="bold red")
                raise typer.Exit(1)
            (out / MARK).write_text(options, encoding="utf-8")
        if page is not None:
            device = stack.enter_context(device_runs(out, url))
            console.print(f"The device goes on (what it says: {out / 'agent.log'}). Ctrl-C ends all.", markup=False)
            finish({**figures, "dashboard": page.url}, as_json=as_json)
            page.serve(device)


def _whole_way(steps: "_Steps", url: str, *, images: int, seed: int) -> tuple[dict[str, Any], str | None]:
    """From drawing pictures to reading events; the figures, and why they are not what was promised, or None.

    Args:
        steps: in the demo's folder.
        url: of a broker.
        images: to draw.
        seed: of the data and the training.

    Raises:
        TinySightError: a step failed.
    """
    begun_s = time.monotonic()
    steps.say("Draw a data set: a conveyor whose parcels carry real handwritten digits")
    steps.run("data", "synth", "belt", "--out", "data", "--images", str(images), "--seed", str(seed))
    steps.say("Train a detector on it (curves: run/curves.png)")
    trained = steps.run("train", "data", "--out", "run", "--seed", str(seed))
    steps.say("Quantize it to int8 and prove it on held-out pictures (report: belt.report.html)")
    proof = steps.run("convert", "run", "--out", "belt.bundle", "--name", "belt")
    steps.say("Sign the bundle, and flash it into a device's store")
    mine = ("--repo", "repo", "--keys", "keys")
    steps.run("keys", "init", *mine)
    steps.run("release", "add", "belt.bundle", *mine)
    steps.run("flash", "belt.bundle", "--to", "dir:device", *mine)
    steps.say("Run the device on a live camera for 20 s, publish to a broker, read it back")
    reader = _Reader(Address.parse(url))
    told = ["--broker", url, "--site", "demo", "--device", "belt-1"]
    ran = steps.run("run", "--store", "device", "--source", CAMERA, *told)
    made = ran["events_start"] + ran["events_update"] + ran["events_end"]
    reader.wait_for(made, timeout_s=10.0)
    figures = {
        "train_s": round(float(trained["train_s"]), 1),
        **{name: round(float(proof[name]), 4) for name in _APS},
        "bundle_kib": round(float(proof["bundle_kib"]), 1),
        "int8_ms": round(float(proof["int8_ms"]), 3),
        "float_ms": round(float(proof["float_ms"]), 3),
        "frames": ran["frames"],
        "events_sent": ran["events_sent"],
        "events_received": reader.fleet.events,
        "missing": made - reader.fleet.events,
        "total_s": round(time.monotonic() - begun_s, 1),
    }
    steps.say("One of the events, as it came over MQTT:")
    if reader.example is not None:
        sys.stdout.write(encode(reader.example).decode() + "\n")
    return figures, _failure(figures, reader)


_APS: Final = ("float_ap50", "float_ap50_95", "int8_ap50", "int8_ap50_95")


def _failure(figures: dict[str, Any], reader: _Reader) -> str | None:
    """Why the demo did not show what it promises, or None."""
    if figures["int8_ap50"] < MIN_AP50:
        return f"int8 AP50 is {figures['int8_ap50']}, at least {MIN_AP50} was promised"
    if figures["missing"] != 0 or figures["events_received"] == 0:
        return f"{figures['missing']} events are missing"
    return f"a message broke the contract: {reader.broken[0]}" if reader.broken else None


class _Steps:
    """Runs the steps in the demo's folder, with a line for each."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._begun_s = time.monotonic()

    def say(self, line: str) -> None:
        console.print(f"[bold cyan]{time.monotonic() - self._begun_s:5.1f} s[/]  {line}")

    def run(self, *arguments: str) -> dict[str, Any]:
        """One ``tinysight`` command with ``--json``; its result. It asks nobody, and sees nothing of the user's own.

        Raises:
            TinySightError: it failed.
        """
        console.print(f"         [dim]$ tinysight {' '.join(arguments)}[/]")
        command = [sys.executable, "-P", "-m", "tinysight_deploy", *arguments, "--json"]
        own = {name: value for name, value in os.environ.items() if not name.startswith("TINYSIGHT_")}
        done = subprocess.run(
            command, cwd=self._out, env=own, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
        )
        if done.returncode != 0:
            raise TinySightError(
                f"`tinysight {arguments[0]}` ended with status {done.returncode}.", mend="See what it said above."
            )
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, Any])


def _check_installed() -> None:
    """Say at once, and not after a minute, what is missing."""
    for module in ("tensorflow", "iotcore"):
        if find_spec(module) is None:
            raise ConfigError(
                f"`tinysight demo` needs {module}.", mend="Install everything with `pip install 'tinysight[all]'`."
            )


def _is_done(out: Path, options: str) -> bool:
    """Whether a demo with these options has come to its end in this folder."""
    mark = out / MARK
    whole = (out / "device" / "state.json").is_file() and mark.is_file()
    return whole and mark.read_text(encoding="utf-8") == options


def _make_folder(out: Path) -> None:
    """An empty folder; one that an earlier demo left is emptied, any other is left alone."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).is_file():
            raise ConfigError(f"{out} is not empty and no demo of ours.", mend="Name another --out.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
