"""The agent's unit on a device: written, enabled, and running what is installed now.

What changes under a running agent is written down first (``opt/tinysight/restart``) and struck out after the restart,
so that a connection that was lost in between does not leave the old program running for ever. Where the device is a
folder of a machine the unit has a name of its own: the machine may be a device itself.
"""

import hashlib
import re
from typing import Final

from tinysight_contract.errors import DeviceError
from tinysight_deploy.provisioning.hands import ROOT, Hands, Owner
from tinysight_deploy.provisioning.probe import Facts
from tinysight_deploy.provisioning.texts import unit_for
from tinysight_deploy.remote.targets import SshTarget

__all__ = ["UNIT", "Service", "unit_name"]

UNIT: Final = "tinysight-agent.service"
_UNIT_FILE: Final = Owner("root:root", "644")
_MOST_UNIT_BYTES: Final = 64 << 10
_START_S: Final = 180.0

_STATE: Final = r"""
systemctl is-enabled "$1" 2>/dev/null || true; systemctl is-active "$1" 2>/dev/null || true
[ -e "$2" ] && echo restart || echo keep
"""
_UP: Final = r"""
set -eu
systemctl daemon-reload
systemctl enable "$2" >&2
if [ "$4" = yes ]; then
  if [ -e "$3" ]; then systemctl restart "$1"; else systemctl start "$1"; fi
  rm -f "$3"
fi
"""


def unit_name(target: SshTarget) -> str:
    """What systemd calls the agent of a device."""
    if not target.own_root:
        return UNIT
    return f"tinysight-agent-{hashlib.sha256(str(target.prefix).encode()).hexdigest()[:8]}.service"


class Service:
    """The unit of one device."""

    def __init__(self, hands: Hands, facts: Facts) -> None:
        self._hands, self._facts = hands, facts
        self._unit = unit_name(hands.target)
        self._path = hands.path(f"etc/systemd/system/{self._unit}")
        self._restart = hands.path("opt/tinysight/restart")

    async def will_restart(self) -> None:
        """Write down that the agent has to be started again.

        Raises:
            DeviceError: that cannot be written.
        """
        await self._hands.write(self._restart, b"", Owner("root:root", "644"))

    async def _wanted(self) -> bytes | None:
        shipped = await self._hands.read(
            self._hands.path(f"opt/tinysight/venv/lib/systemd/system/{UNIT}"), _MOST_UNIT_BYTES
        )
        return None if shipped is None else unit_for(self._hands.target, shipped)

    async def unit_differs(self) -> str:
        """What is wrong with the unit's file.

        Raises:
            DeviceError: the runtime brings none of ours.
        """
        wanted = await self._wanted()
        there = await self._hands.read(self._path, _MOST_UNIT_BYTES)
        if there is not None and (wanted is None or there == wanted):
            return ""
        return f"etc/systemd/system/{self._unit} {'is written' if there is None else 'is written anew'}"

    async def write_unit(self) -> None:
        """Write the unit's file.

        Raises:
            DeviceError: the runtime brings none, or it cannot be written.
        """
        wanted = await self._wanted()
        if wanted is None:
            raise DeviceError(
                f"{self._hands.target}: the runtime there brings no unit.", mend="Install it with --wheelhouse."
            )
        await self.will_restart()
        await self._hands.folder(self._path.parent, ROOT)
        await self._hands.write(self._path, wanted, _UNIT_FILE)

    async def differs(self, *, ready: bool) -> str:
        """What is wrong with the service; ``ready`` says whether it can run.

        Raises:
            DeviceError: the connection was lost.
        """
        told = await self._hands.must("asking systemd", ["sh", "-c", _STATE, "sh", self._unit, str(self._restart)])
        words = [
            word if re.fullmatch(r"[a-z-]{1,20}", word) else "?" for word in told.decode("ascii", "replace").split()
        ]
        to_do = []
        if words[:1] != ["enabled"]:
            to_do.append("enabled")
        if ready and "active" not in words:
            to_do.append("started")
        elif ready and words[-1:] == ["restart"]:
            to_do.append("restarted")
        return ", ".join(to_do)

    async def bring_up(self, *, ready: bool) -> None:
        """Have systemd read the unit, start it at each boot, and start or restart it now if it can run.

        Raises:
            DeviceError: systemd refuses, or the agent does not come up.
        """
        words = [self._unit, str(self._path), str(self._restart), "yes" if ready else "no"]
        await self._hands.must("starting the agent", ["sh", "-c", _UP, "sh", *words], timeout_s=_START_S)
