"""What `tinysight demo --dashboard` goes on with: the device on an endless camera, and the page that shows it.

In: the demo's folder, a broker that runs.  Out: a subprocess of ``tinysight run``, and a server until Ctrl-C. Nothing
is written outside of the folder.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConfigError
from tinysight_deploy.brokers.broker import Ports
from tinysight_deploy.dashboard.settings import Settings
from tinysight_deploy.dashboard.site import application
from tinysight_deploy.serving import Bind, address, listening, serve, server_of

__all__ = ["Page", "device_runs", "served"]

BIND: Final = Bind("127.0.0.1", 8400)
END_S: Final = 20.0
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


class Page:
    """The dashboard at an address that listens already."""

    def __init__(self, settings: Settings, listener: socket.socket, url: str) -> None:
        self.url, self._settings, self._listener = url, settings, listener

    def serve(self) -> None:
        """Serve until Ctrl-C."""
        serve(server_of(application(self._settings)), self._listener)


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
def device_runs(out: Path, broker: str) -> Iterator[None]:
    """The demo's device, until the ``with`` ends; what it says is in ``agent.log``.

    Args:
        out: the demo's folder.
        broker: its address.
    """
    (out / "agent.toml").write_text(AGENT.format(broker=broker), encoding="utf-8")
    own = {name: value for name, value in os.environ.items() if not name.startswith("TINYSIGHT_")}
    command = [sys.executable, "-P", "-m", "tinysight_deploy", "run", "--config", "agent.toml"]
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
        yield
    finally:
        agent.send_signal(signal.SIGTERM)
        try:
            agent.wait(END_S)
        except subprocess.TimeoutExpired:
            agent.kill()
            agent.wait()
