"""A real sshd on a port of this machine, with keys of its own; several devices are several folders of one sshd.

It runs as whoever runs the tests and lets that user in alone, by one key. Its sessions can be killed, as by a network.
"""

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

SSHD = "/usr/sbin/sshd"


@dataclass
class Sshd:
    """An sshd that runs.

    Attributes:
        folder: its files.
        port: where it listens, on 127.0.0.1.
        identity: the private key that it lets in.
        stranger: a private key that it does not.
    """

    folder: Path
    port: int
    identity: Path
    stranger: Path
    fakes: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def address(self, prefix: Path | str = "") -> str:
        """The address of the device that is the folder ``prefix``."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{prefix}"

    def sessions(self) -> list[int]:
        """The processes of whoever is logged in, of this sshd alone."""
        return _children(self.process.pid)

    def cut(self) -> int:
        """Kill every session as if the network was gone; how many there were."""
        found = [each for child in self.sessions() for each in (*_children(child), child)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    def stop(self) -> None:
        self.cut()
        self.process.terminate()
        self.process.wait(10)

    def start(self) -> None:
        """Start it again, on the same port."""
        self.process = _started(self.folder, self.port)

    def new_host_key(self) -> None:
        """Set it up anew: another host key."""
        self.stop()
        _key(self.folder / "host", mode=0o600)
        self.start()


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _key(path: Path, *, mode: int) -> str:
    key = asyncssh.generate_private_key("ssh-ed25519")
    path.unlink(missing_ok=True)
    path.touch(mode=mode)
    path.write_bytes(key.export_private_key())
    return key.export_public_key().decode()


def _started(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(folder / "sshd_config"), "-p", str(port)], stdout=log, stderr=log
        )
    until = time.monotonic() + 15
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as peer:
            peer.settimeout(5)
            if peer.recv(4) == b"SSH-":
                return process
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"sshd does not start: {(folder / 'log').read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_sshd(folder: Path, *, sftp: str = "internal-sftp") -> Iterator[Sshd]:
    """An sshd while the ``with`` lasts. Programs in ``folder/fakes`` come first on its PATH; ``sftp`` takes files."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:  # Debian's sshd gives up its rights there, and started by root does not begin without it
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as its service does at each boot; elsewhere it may not lie
    fakes = folder / "fakes"
    fakes.mkdir(exist_ok=True)
    identity, stranger = folder / "identity", folder / "stranger"
    (folder / "authorized_keys").write_text(_key(identity, mode=0o600))
    _key(stranger, mode=0o600)
    _key(folder / "host", mode=0o600)
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nSubsystem sftp {sftp}\nMaxStartups 200\nMaxSessions 100\n"
        f"AllowUsers {getpass.getuser()}\nPrintMotd no\nUseDNS no\nLogLevel ERROR\n"
        # With a SHLVL bash reads no ~/.bashrc, which costs each command 0.1 s where it has pyenv in it.
        f"SetEnv SHLVL=1 PATH={fakes}:{Path(sys.executable).parent}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    )
    port = _free_port()
    sshd = Sshd(folder, port, identity, stranger, fakes, _started(folder, port))
    try:
        yield sshd
    finally:
        sshd.stop()


def install_program(prefix: Path, script: str | None = None, *, arguments: Sequence[str] = ()) -> Path:
    """Make ``prefix`` a device with ``tinysight``: the tests' own, or a script that only says so."""
    program = prefix / "opt/tinysight/bin/tinysight"
    program.parent.mkdir(parents=True, exist_ok=True)
    text = script
    if text is None:
        text = (
            f"#!/bin/sh\nexport PYTHONPATH='{os.environ.get('PYTHONPATH', '')}'\n"
            f"exec '{sys.executable}' -m tinysight_deploy {' '.join(arguments)} \"$@\"\n"
        )
    program.write_text(text)
    program.chmod(0o755)
    return program
