"""Tell systemd how we are: the protocol of sd_notify(3), which is one datagram to the socket in ``NOTIFY_SOCKET``.

Without that variable nothing is sent, so the agent runs the same by hand.
"""

import contextlib
import logging
import os
import socket
from typing import Final

__all__ = ["notify", "watchdog_s"]

log = logging.getLogger(__name__)

_NO_WAIT_S: Final = 0.2


def notify(*lines: str) -> bool:
    """Send ``READY=1``, ``STOPPING=1``, ``STATUS=…`` and the like; whether somebody took it. Never raises or hangs."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return False
    target = "\0" + address[1:] if address[0] == "@" else address  # "@" stands for Linux's abstract sockets
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
            end.settimeout(_NO_WAIT_S)
            end.connect(target)
            end.sendall("\n".join(line.replace("\n", " ") for line in lines).encode())
    except OSError as error:
        log.debug("NOTIFY_SOCKET %s: %s", address, error)
        return False
    return True


def watchdog_s() -> float | None:
    """After how long without ``WATCHDOG=1`` systemd kills this process (sd_watchdog_enabled(3)); None: it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
        return microseconds / 1e6 if microseconds > 0 else None
    return None
