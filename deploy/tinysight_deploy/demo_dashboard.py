"""What `tinysight demo --dashboard` goes on with: the device on an endless camera, and the page that shows it.

In: the demo's folder, a broker that runs.  Out: a subprocess of ``tinysight run``, and a server until Ctrl-C, or until
the device ends by itself. Nothing is written outside of the folder.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConfigError, TinySightError
from tinysight_contract.mqtt import Address, Connection
from tinysight_contract.topics import StatusTopic
from tinysight_deploy.brokers.broker import Ports
from tinysight_deploy.dashboard.settings import Settings
from tinysight_deploy.dashboard.site import application
from tinysight_deploy.serving import Bind, address, listening, serve, server_of

__all__ = ["Device", "Page", "device_runs", "served"]

BIND: Final = Bind("127.0.0.1", 8400)
BEGIN_S: Final = 60.0
END_S: Final = 20.0
BOUND: Final = """\
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, ctypes.c_ulong(signal.SIGTERM))
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""
"""A program that becomes another one, which the kernel tells to end when its parent is gone (PR_SET_PDEATHSIG)."""
AGENT: Final = """\
# The demo's device; what may stand here is in docs/agent.md.
site = "demo"
device = "belt-1"
state = "agent-state"

[broker]
url = "{broker}"

[model]
store = "device"

[cameras.belt]
source = "synthetic:belt?seed=11&fps=30"

[cameras.belt.zones.scanner]
polygon = [[0.3, 0.0], [0.7, 0.0], [0.7, 1.0], [0.3, 1.0]]

[cameras.belt.lines.middle]
start = [0.5, 0.0]
end = [0.5, 1.0]

[snapshots]
keep = "64MiB"

[publish]
frames = 15
snapshots = true

[health]
every = "5s"
"""


class Device:
    """The demo's device, which runs."""

    def __init__(self, agent: "subprocess.Popen[bytes]", log: Path) -> None:
        self._agent, self._log = agent, log

    def wait_for(self, heard: threading.Event) -> None:
        """Wait until it says something.

        Raises:
            TinySightError: it has ended, or says nothing.
        """
        until_s = time.monotonic() + BEGIN_S
        while not heard.wait(0.1):
            self.check()
            if time.monotonic() > until_s:
                raise TinySightError(f"The device says nothing for {BEGIN_S:.0f} s.", mend=f"Look into {self._log}.")

    def join(self) -> None:
        """Wait until it has ended."""
        self._agent.wait()

    def check(self) -> None:
        """See that it runs.

        Raises:
            TinySightError: it has ended; the last line of its log says why.
        """
        if self._agent.poll() is not None:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
            raise TinySightError(f"The device has ended. Its last words: {lines[-1][:300]}", mend=f"See {self._log}.")


class Page:
    """The dashboard at an address that listens already."""

    def __init__(self, settings: Settings, listener: socket.socket, url: str) -> None:
        self.url, self._settings, self._listener = url, settings, listener

    def serve(self, device: Device) -> None:
        """Serve until Ctrl-C.

        Raises:
            TinySightError: the device has ended before.
        """
        server = server_of(application(self._settings))

        def watch() -> None:
            device.join()
            server.should_exit = True

        threading.Thread(target=watch, name="device", daemon=True).start()
        serve(server, self._listener)
        device.check()


@contextmanager
def served(ports: Ports) -> Iterator[Page]:
    """The dashboard for the demo's broker: at its usual port, or at a free one when that is taken.

    Raises:
        ConfigError: the page is not built.
    """
    settings = Settings.parse(f"ws://127.0.0.1:{ports.websocket}")
    application(settings)
    with contextlib.ExitStack() as stack:
        try:
            listener, port = stack.enter_context(listening(BIND))
        except ConfigError:
            listener, port = stack.enter_context(listening(Bind(BIND.host, 0)))
        yield Page(settings, listener, address(BIND, port, tls=False))


@contextmanager
def device_runs(out: Path, broker: str) -> Iterator[Device]:
    """The demo's device, from its first status on until the ``with`` ends; what it says is in ``agent.log``.

    Args:
        out: the demo's folder.
        broker: its address.

    Raises:
        TinySightError: it does not begin.
    """
    (out / "agent.toml").write_text(AGENT.format(broker=broker), encoding="utf-8")
    own = {name: value for name, value in os.environ.items() if not name.startswith("TINYSIGHT_")}
    bound = [sys.executable, "-P", "-c", BOUND, str(os.getpid())]
    command = [*bound, sys.executable, "-P", "-m", "tinysight_deploy", "run", "--config", "agent.toml"]
    with (out / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            command,
            cwd=out,
            env={**own, "STATE_DIRECTORY": str((out / "agent-state").absolute())},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # else Ctrl-C reaches it as well as us, and it would be told twice
        )
    try:
        device, heard = Device(agent, out / "agent.log"), threading.Event()
        reader = Connection(Address.parse(broker), client_id="tinysight-demo-status", on_message=lambda *_: heard.set())
        reader.open(timeout_s=END_S)
        try:
            reader.subscribe(str(StatusTopic("demo", "belt-1")))
            device.wait_for(heard)
        finally:
            reader.close()
        yield device
    finally:
        agent.send_signal(signal.SIGTERM)
        try:
            agent.wait(END_S)
        except subprocess.TimeoutExpired:
            agent.kill()
            agent.wait()
