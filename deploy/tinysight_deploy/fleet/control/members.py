"""Which devices a group is: ``all``, ``site:NAME``, or a group of the inventory."""

from collections.abc import Collection, Mapping
from pathlib import Path

from tinysight_contract.errors import ConfigError
from tinysight_contract.topics import ID
from tinysight_deploy.devices.inventory import Device, Inventory
from tinysight_deploy.fleet.types import Key

__all__ = ["Roll", "members"]


def members(group: str, heard: Collection[Key], inventory: Mapping[str, Device] | None) -> set[Key]:
    """The devices of a group. Those of the inventory belong to it also before anything was heard of them.

    Args:
        group: its name.
        heard: devices of which something was heard at the broker.
        inventory: the devices by their names there; None without one.

    Raises:
        ConfigError: it cannot be a group's name, or there is no such group.
    """
    if group == "all":
        return set(heard)
    if group.startswith("site:"):
        site = group.removeprefix("site:")
        if ID.fullmatch(site) is None:
            raise ConfigError(f"{site!r} is no site.", mend="Use 1 to 63 of a-z, 0-9 and '-', as in the topics.")
        return {key for key in heard if key[0] == site}
    found = {(each.site, each.device) for each in (inventory or {}).values() if group in each.groups}
    if not found:
        known = sorted({name for each in (inventory or {}).values() for name in each.groups})
        raise ConfigError(
            f"There is no group {group!r}.", mend=f"Known: {', '.join(['all', 'site:NAME', *known])[:300]}."
        )
    return found


class Roll:
    """The members of groups as the inventory says now; it is read again when the file is another.

    Args:
        path: of the inventory; None without one.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._devices: Mapping[str, Device] | None = None

    def members(self, group: str, heard: Collection[Key]) -> set[Key]:
        """The devices of a group.

        Raises:
            ConfigError: as `members`, or the inventory cannot be read.
        """
        plain = group == "all" or group.startswith("site:")
        return members(group, heard, None if plain else self._read())

    def _read(self) -> Mapping[str, Device] | None:
        if self._path is None:
            return None
        try:
            now = self._path.stat()
            if (now.st_mtime_ns, now.st_size) != self._seen:
                self._devices = Inventory(self._path).devices()
                self._seen = now.st_mtime_ns, now.st_size
        except OSError as error:
            what = f"The inventory {self._path} cannot be read: {error.strerror}."
            raise ConfigError(what, mend="Name another with --inventory, or mend its rights.") from error
        return self._devices
