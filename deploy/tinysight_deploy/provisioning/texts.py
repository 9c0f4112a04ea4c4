"""The files that a device is given: its agent.toml, and its unit. Pure.

In: who the device is, what it has.  Out: texts, and the folder of a key's request read.
"""

import configparser
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from tinysight_contract.errors import ConfigError, DeviceError
from tinysight_deploy.provisioning.probe import Facts, usb_cameras
from tinysight_deploy.remote.targets import SshTarget

__all__ = ["agent_toml", "broker_section", "sources", "unit_for"]

_OF_A_USER: Final = {
    "User",
    "Group",
    "SupplementaryGroups",
    "StateDirectory",
    "ConfigurationDirectory",
    "RuntimeDirectory",
}
_MOST_CAMERAS: Final = 8


def sources(facts: Facts) -> Sequence[str]:
    """Addresses of the cameras that were found; without any the first that will be plugged in."""
    found = [each.node.removeprefix("video") for each in usb_cameras(facts)]
    if not found and facts.picamera:
        found = ["picamera2"]
    return found[:_MOST_CAMERAS] or ["0"]


def broker_section(url: str, *, ca: bool) -> str:
    """``[broker]`` for a broker that lets the device in without a certificate of its own.

    Raises:
        ConfigError: the address cannot stand in a file.
    """
    if re.fullmatch(r"(mqtts?|wss?)://[\w.\[\]:@%/?=&~+-]{1,300}", url, re.ASCII) is None:
        raise ConfigError(
            f"{url!r} is no address of a broker.", mend="Write mqtts://host[:port] or mqtt://host[:port]."
        )
    return f'[broker]\nurl = "{url}"\n' + ('ca_file = "ca.crt"\n' if ca else "")


def agent_toml(target: SshTarget, *, site: str, device: str, broker: str, facts: Facts) -> str:
    """A first agent.toml, for a device that has none.

    Args:
        target: where it will lie.
        site: of the device.
        device: its id.
        broker: the ``[broker]`` table.
        facts: what was found there.
    """
    cameras = "\n".join(f'[cameras.cam{n}]\nsource = "{source}"\n' for n, source in enumerate(sources(facts)))
    state = target.prefix / "var/lib/tinysight"
    return f"""\
# What this agent is told to do. All keys: docs/agent.md of TinySight. Written once by `tinysight device add`, and
# yours from now on: it is never overwritten.
site = "{site}"
device = "{device}"
state = "{state}"

{broker}
[model]
store = "{target.store}"

{cameras}"""


def unit_for(target: SshTarget, shipped: bytes) -> bytes:
    """The unit that the runtime brings, with the device's own paths.

    Where the device is a folder of a machine there is no user of ours, and its state may be written to.

    Raises:
        DeviceError: what was shipped is not our unit.
    """
    text = shipped.decode("utf-8", "replace")
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read_string(text)
        begins = parser["Service"]["ExecStart"].startswith("/opt/tinysight/bin/tinysight run --config /etc/tinysight/")
    except (configparser.Error, KeyError):
        begins = False
    if not begins:
        raise DeviceError(
            f"{target}: the runtime brings no unit of TinySight's.",
            mend="Make the wheelhouse anew, and run this again.",
        )
    if not target.own_root:
        return shipped
    kept = [line for line in text.splitlines() if line.partition("=")[0] not in _OF_A_USER]
    text = "\n".join(kept) + "\n"
    for path in ("/opt/tinysight/bin/tinysight", "/etc/tinysight/agent.toml"):
        text = text.replace(path, str(target.prefix / PurePosixPath(path).relative_to("/")))
    writable = f"ReadWritePaths={target.prefix / 'var/lib/tinysight'}\n"
    return text.replace("ProtectSystem=strict\n", f"ProtectSystem=strict\n{writable}").encode()
