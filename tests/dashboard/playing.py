"""What a page needs around it: brokers with WebSockets that come and go, a device, a crowd, the page's server.

Each is a real process, started here and ended by its id.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from tinysight_contract.mqtt import Address, Connection

PATIENCE_S = 20.0
AS_ROOT = "user root\n" if os.geteuid() == 0 else ""  # else mosquitto gives up rights and cannot read the test's files


def free_ports(count: int) -> list[int]:
    """Ports that follow each other and that nobody uses at this moment."""
    for first in range(21000 + os.getpid() % 1000 * 10, 60000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, each in enumerate(sockets):
                each.bind(("127.0.0.1", first + number))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        return [first + number for number in range(count)]
    raise AssertionError("there are no free ports")


@dataclass
class Process:
    """A program with its log; it may be started again after it was ended."""

    folder: Path
    name: str
    _process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    @property
    def log(self) -> str:
        path = self.folder / f"{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self, *command: str | Path, listens: Sequence[int] = ()) -> None:
        """Start it, and wait until it listens on these ports."""
        assert self._process is None, f"{self.name} runs already"
        env = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")}
        with (self.folder / f"{self.name}.log").open("a") as log:
            self._process = subprocess.Popen(
                [str(each) for each in command], stdout=subprocess.PIPE, stderr=log, cwd=self.folder, env=env, text=True
            )
        until_s = time.monotonic() + PATIENCE_S
        for port in listens:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
                except OSError:
                    assert self._process.poll() is None, f"{self.name} has ended: {self.log[-2000:]}"
                    assert time.monotonic() < until_s, f"{self.name} does not listen: {self.log[-2000:]}"
                    time.sleep(0.02)
                else:
                    break

    def tinysight(self, *arguments: str | Path, listens: Sequence[int] = ()) -> None:
        self.run(sys.executable, "-m", "tinysight_deploy", *arguments, listens=listens)

    @property
    def said(self) -> IO[str]:
        """Its standard output."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, if it runs; its status, 0 if it did not run."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE_S)
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
        return process.returncode

    def kill(self) -> None:
        """End it without a goodbye."""
        self.end(signal.SIGKILL)


class Broker(Process):
    """Debian's Mosquitto with MQTT and WebSockets; its ports stay the same when it is started again.

    Args:
        folder: for its files.
        users: passwords and rights (``read`` or ``readwrite``) by name; anybody may do everything without them.
        extra: more lines of its configuration.
    """

    def __init__(self, folder: Path, users: Mapping[str, tuple[str, str]] | None = None, extra: str = "") -> None:
        self.tcp, self.web = free_ports(2)
        super().__init__(folder, f"mosquitto-{self.tcp}")
        self._users, self._extra = users, extra

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.tcp}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.web}"

    def url_of(self, user: str) -> str:
        """The address with a user's login, for clients that are no browsers."""
        assert self._users is not None
        return f"mqtt://{user}:{self._users[user][0]}@127.0.0.1:{self.tcp}"

    def start(self) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            pytest.skip("mosquitto is not installed: apt-get install mosquitto mosquitto-clients")
        config = self.folder / f"{self.name}.conf"
        config.write_text(
            f"listener {self.tcp} 127.0.0.1\nlistener {self.web} 127.0.0.1\nprotocol websockets\n"
            f"persistence false\n{self._logins()}\n{self._extra}\n{AS_ROOT}"
        )
        self.run(program, "-c", config, listens=(self.tcp, self.web))

    def _logins(self) -> str:
        if self._users is None:
            return "allow_anonymous true"
        passwords, rules = self.folder / f"{self.name}.passwords", self.folder / f"{self.name}.acl"
        passwords.write_text("")
        passwords.chmod(0o600)
        for user, (password, _) in self._users.items():
            subprocess.run(["mosquitto_passwd", "-b", passwords, user, password], check=True, capture_output=True)
        rules.write_text(
            "".join(f"user {user}\ntopic {rights} tinysight/#\n" for user, (_, rights) in self._users.items())
        )
        rules.chmod(0o600)
        return f"allow_anonymous false\npassword_file {passwords}\nacl_file {rules}"


class Embedded(Process):
    """``tinysight broker``; its ports stay the same when it is started again."""

    def __init__(self, folder: Path) -> None:
        self.ports = free_ports(3)
        super().__init__(folder, f"broker-{self.ports[0]}")

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.ports[0]}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.ports[2]}"

    def start(self) -> None:
        self.tinysight("broker", "--port", str(self.ports[0]), listens=self.ports)


class Site(Process):
    """``tinysight dashboard``; `address` is where the page is."""

    address: str

    def start(self, broker: str, *, api: str | None = None, options: Sequence[str] = ()) -> None:
        more = () if api is None else ("--api", api)
        self.tinysight("dashboard", "--broker", broker, *more, "--bind", "127.0.0.1:0", "--json", *options)
        line = self.said.readline()
        assert line, f"the page is not served: {self.log[-2000:]}"
        self.address = json.loads(line)["address"]


class Device(Process):
    """``tinysight run --config`` on the golden belt, with detections of frames and pictures of events.

    Attributes:
        toml: its file; change it while the agent runs with `configure`.
    """

    def __init__(
        self, folder: Path, bundle: Path, broker: str, *, site: str, device: str, cameras: Mapping[str, str], more: str
    ) -> None:
        home = folder / f"{site}-{device}"
        home.mkdir()
        super().__init__(home, "agent")
        self.site, self.device, self.broker = site, device, broker
        self.toml = (
            f'site = "{site}"\ndevice = "{device}"\nstate = "state"\ntrial = "2s"\n'
            f'[broker]\nurl = "{broker}"\n[model]\nbundle = "{bundle}"\n[health]\nevery = "1s"\n'
            f"[snapshots]\n[publish]\nframes = 10\nsnapshots = true\n{more}\n"
        ) + "".join(f"[cameras.{name}]\n{text}\n" for name, text in cameras.items())

    def configure(self, toml: str) -> None:
        """Replace its file as an editor does."""
        fresh = self.folder / "agent.new"
        fresh.write_text(toml)
        fresh.rename(self.folder / "agent.toml")

    def start(self) -> None:
        self.configure(self.toml)
        self.tinysight("run", "--config", self.folder / "agent.toml")


class Crowd(Process):
    """``tinysight simulate``: devices that are not there."""

    def start(self, broker: str, devices: int, **options: Any) -> None:
        """Start, and wait until all are online. Options are those of the command: ``cameras=2, rate=4``."""
        more = [str(part) for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
        self.tinysight("simulate", "--broker", broker, "--devices", str(devices), *more)
        until_s = time.monotonic() + 60
        while "Ctrl-C ends it" not in self.log:
            assert self._process is not None
            assert self._process.poll() is None, self.log[-2000:]
            assert time.monotonic() < until_s, "the crowd is not online"
            time.sleep(0.05)


class Voice:
    """A client that says what tests want to have said, and hears all."""

    def __init__(self, url: str) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.connection = Connection(Address.parse(url), client_id="", on_message=self._hear)
        self.connection.open(timeout_s=5)

    def _hear(self, topic: str, payload: bytes, retained: bool) -> None:
        self.heard.append((topic, payload, retained))

    def listen(self, *filters: str) -> None:
        self.connection.subscribe(*filters)

    def say(self, topic: object, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Publish bytes, or an empty payload that takes a retained message back."""
        self.connection.publish(str(topic), payload, qos=qos, retain=retain)

    def close(self) -> None:
        self.connection.close()
