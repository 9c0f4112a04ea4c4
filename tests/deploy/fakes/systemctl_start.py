"""Start a unit's process as systemd would: wait for READY=1 when it is of Type=notify. Its sandbox is not applied.

Started by ``systemctl`` beside this file, with the folder of its state.
"""

import configparser
import contextlib
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path


def main(state: Path) -> int:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read((state / "enabled").read_text())
    notify = unit["Service"].get("Type") == "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, (state / "journal").open("ab") as journal:
        os.chdir(state)  # a socket's path is short
        Path("notify").unlink(missing_ok=True)
        heard.bind("notify")
        heard.settimeout(0.2)
        process = subprocess.Popen(
            shlex.split(unit["Service"]["ExecStart"]),
            env={
                "PATH": "/usr/bin:/bin",
                "LANG": "C.UTF-8",
                **({"NOTIFY_SOCKET": f"{state}/notify"} if notify else {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=journal,
            stderr=journal,
            start_new_session=True,
        )
        Path("pid").write_text(str(process.pid))
        until = time.monotonic() + 60
        while notify and time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in heard.recv(4096):
                    return 0
        if not notify:
            return 0
    sys.stderr.write("Job for the unit failed because the control process exited.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
