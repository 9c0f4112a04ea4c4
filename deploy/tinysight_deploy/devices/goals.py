"""Which devices ``--to`` means: ``dir:PATH``, ``ssh://…``, ``NAME``, ``device:NAME``, ``@group``, ``tag:x=y``, ``all``.

In: the options and the inventory.  Out: `Goal`s, each device once. Pure but for reading the inventory, and that only
when something of it is asked for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tinysight_contract.errors import ConfigError
from tinysight_contract.topics import ID
from tinysight_deploy.devices.inventory import Device, Inventory, select
from tinysight_deploy.remote.targets import SshTarget, plain

__all__ = ["Goal", "goal_of", "goals_of"]


@dataclass(frozen=True, slots=True)
class Goal:
    """One device.

    Attributes:
        name: in the inventory, or the address, or the path.
        where: how it is reached; a path is the store itself.
        fingerprint: of its host key, where the inventory knows it.
    """

    name: str
    where: SshTarget | Path
    fingerprint: str | None = None


def goals_of(wanted: Iterable[str], inventory: Inventory) -> list[Goal]:
    """All devices that are meant, in the order in which they were named.

    Raises:
        ConfigError: one means nothing, or the inventory is wrong.
        OSError: the inventory cannot be read.
    """
    devices: Mapping[str, Device] | None = None
    found: dict[object, Goal] = {}
    for each in wanted:
        if each.startswith("dir:") and each != "dir:":
            path = Path(each.removeprefix("dir:")).expanduser()
            found.setdefault(path.resolve(), Goal(str(path), path))
            continue
        devices = inventory.devices() if devices is None else devices
        if each.startswith("ssh://"):
            goals = [_by_address(devices, SshTarget.parse(each))]
        elif each == "all" or each.startswith(("@", "tag:", "device:")) or ID.fullmatch(each):
            goals = [goal_of(name, devices[name]) for name in select(devices, [each])]
        else:
            raise ConfigError(
                f"There is no target {plain(each)!r}.",
                mend="Give --to dir:PATH, ssh://user@host, a device's name, @group, tag:name=value or all.",
            )
        for goal in goals:
            found.setdefault(goal.where, goal)
    return list(found.values())


def goal_of(name: str, device: Device) -> Goal:
    """A device of the inventory."""
    return Goal(name, device.target, device.host_key or None)


def _by_address(devices: Mapping[str, Device], target: SshTarget) -> Goal:
    """An address, by the name that the inventory has for it."""
    for name, device in devices.items():
        if device.target == target:
            return goal_of(name, device)
    return Goal(str(target), target)
