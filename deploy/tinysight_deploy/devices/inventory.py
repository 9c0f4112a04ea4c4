"""Which devices there are: ``devices.toml``, a file for people that commands also write.

::

    [devices.gate]                       # its name here
    address = "ssh://pi@gate.local"
    site = "home"
    device = "gate"                      # its id in MQTT
    groups = ["yard"]
    tags = { camera = "imx708" }
    host_key = "SHA256:…"
    added_at = 2026-01-31T12:00:00Z
    facts = { machine = "aarch64" }

Read strictly: what is wrong is said with its line. Written with tomlkit, which keeps comments and order, and replaced
in one step while nobody else writes.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import read_capped, replace_file
from tinysight_contract.scalars import Id, Time
from tinysight_contract.topics import ID
from tinysight_deploy.remote.known_hosts import alone
from tinysight_deploy.remote.targets import SshTarget, plain
from tinysight_edge.config.toml_lines import lines_of

__all__ = ["Device", "Inventory", "inventory_path", "select"]

_MOST_BYTES: Final = 8 << 20
_MOST_DEVICES: Final = 10_000
_Short = Annotated[str, Meta(max_length=200)]
_HEAD: Final = "# The devices of `tinysight device`. Comments stay.\n"


class Device(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device.

    Attributes:
        address: ``ssh://user@host[:port][/prefix]``.
        site: its site in MQTT.
        device: its id in MQTT.
        groups: that it is in, for ``@group``.
        tags: for ``tag:name=value``.
        host_key: the SHA-256 of its host key, as it was when the device was added.
        added_at: when that was.
        facts: of its hardware and software, as they were then.
    """

    address: _Short
    site: Id
    device: Id
    groups: Annotated[list[Id], Meta(max_length=64)] = []
    tags: dict[Id, _Short] = {}
    host_key: Annotated[str, Meta(pattern=r"^(SHA256:[A-Za-z0-9+/]{43})?(?![\s\S])")] = ""
    added_at: Time | None = None
    facts: dict[str, str | int | float | bool] = {}

    @property
    def target(self) -> SshTarget:
        """The address, read.

        Raises:
            ConfigError: it is none.
        """
        return SshTarget.parse(self.address)


class _File(Struct, forbid_unknown_fields=True):
    """What may stand at the top of the file."""

    devices: dict[str, Any] = {}


def inventory_path(given: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the inventory is: as given, as the environment says, or among the user's settings."""
    if given is not None:
        return given
    if named := environ.get("TINYSIGHT_INVENTORY"):
        return Path(named)
    settings = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(settings).expanduser() / "tinysight" / "devices.toml"


class Inventory:
    """The devices by their names. Constructing it reads nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def known_hosts(self) -> Path:
        """Where the host keys of these devices are."""
        return self.path.with_name("known_hosts")

    def devices(self) -> dict[str, Device]:
        """All devices, in the file's order; none while there is no file.

        Raises:
            ConfigError: the file is wrong.
            OSError: it cannot be read.
        """
        return _read(self.path, self._text())

    def put(self, name: str, device: Device) -> None:
        """Add a device, or change what is said of it; comments stay.

        Raises:
            ConfigError: the file is wrong, or the name is none.
            OSError: it cannot be written.
        """
        if ID.fullmatch(name) is None:
            raise ConfigError(f"{plain(name)!r} is no name of a device.", mend="Use a-z, 0-9 and '-', at most 63.")
        given = {key: value for key, value in msgspec.structs.asdict(device).items() if value not in (None, [], {}, "")}
        if device.added_at is not None:
            given["added_at"] = device.added_at.astimezone(UTC).replace(microsecond=0)

        self._change(lambda text: _with(text, name, given))

    def remove(self, name: str) -> Device:
        """Take a device out of the inventory; nothing is done to the device. What it was.

        Raises:
            ConfigError: the file is wrong, or has no such device.
            OSError: it cannot be written.
        """
        gone = _known(self.devices(), name)

        self._change(lambda text: _without(text, name))
        return gone

    def _text(self) -> str:
        try:
            data = read_capped(self.path, _MOST_BYTES)
        except FileNotFoundError:
            return ""
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"{self.path} has more than {_MOST_BYTES} bytes.", mend="Divide it into several.")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.path} is no text: {error}.", mend="Save it as UTF-8.") from error

    def _change(self, change: Callable[[str], str]) -> None:
        """Read, change and replace the file while nobody else does."""
        path = self.path.resolve()
        with alone(path):
            text = self._text()
            _read(path, text)
            written = change(text or _HEAD)
            _read(path, written)  # what we write we can read
            replace_file(path, written.encode())


def select(devices: Mapping[str, Device], wanted: Iterable[str]) -> list[str]:
    """The names that are meant, each once: ``NAME``, ``device:NAME``, ``all``, ``@group``, ``tag:name=value``.

    Raises:
        ConfigError: one means no device.
    """
    found: dict[str, None] = {}
    for each in wanted:
        found |= dict.fromkeys(_meant(devices, each))
    return list(found)


def _meant(devices: Mapping[str, Device], wanted: str) -> list[str]:
    if wanted == "all":
        names = list(devices)
    elif wanted.startswith("@"):
        names = [name for name, device in devices.items() if wanted[1:] in device.groups]
    elif wanted.startswith("tag:"):
        key, _, value = wanted.removeprefix("tag:").partition("=")
        names = [name for name, device in devices.items() if device.tags.get(key) == value]
    else:
        name = wanted.removeprefix("device:")
        _known(devices, name)
        return [name]
    if not names:
        raise ConfigError(f"{plain(wanted)!r} means no device.", mend=_mend(devices))
    return names


def _known(devices: Mapping[str, Device], name: str) -> Device:
    if name not in devices:
        raise ConfigError(f"There is no device {plain(name)!r}.", mend=_mend(devices))
    return devices[name]


def _mend(devices: Mapping[str, Device]) -> str:
    if not devices:
        return "Add one with `tinysight device add`."
    return f"Known: {plain(', '.join(devices), 200)}; `tinysight device list` shows groups and tags."


def _read(path: Path, text: str) -> dict[str, Device]:
    """The file's text as devices, or the first thing that is wrong with it."""
    try:
        given = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {error}.", mend="Mend the file by hand.") from error
    devices = {}
    try:
        tables = msgspec.convert(given, _File).devices
    except msgspec.ValidationError as error:
        raise _wrong(path, text, (), str(error)) from error
    if len(tables) > _MOST_DEVICES:
        raise ConfigError(f"{path} has more than {_MOST_DEVICES} devices.", mend="Divide it into several.")
    for name, table in tables.items():
        if ID.fullmatch(name) is None:
            raise _wrong(path, text, ("devices", name), "a name is of a-z, 0-9 and '-', at most 63")
        try:
            devices[name] = msgspec.convert(table, Device)
            SshTarget.parse(devices[name].address)
        except msgspec.ValidationError as error:
            raise _wrong(path, text, ("devices", name), str(error)) from error
        except ConfigError as error:
            raise _wrong(path, text, ("devices", name), error.what + " - at `$.address`") from error
    return devices


def _wrong(path: Path, text: str, where: tuple[str, ...], why: str) -> ConfigError:
    """``devices.toml:3: devices.gate.site: Expected `str`, got `int```."""
    what, _, at = why.partition(" - at `$")
    unknown = re.search(r"unknown field `([^`]*)`", what)
    inner = [part for part in re.split(r"[.\[\]]+", at.rstrip("`")) if part and part != "..."]
    full = (*where, *inner, *([unknown[1]] if unknown else []))
    lines = lines_of(text)
    line = next((lines[full[:n]] for n in range(len(full), 0, -1) if full[:n] in lines), None)
    place = f"{path}:{line}" if line else str(path)
    return ConfigError(f"{place}: {plain('.'.join(full))}: {plain(what).rstrip('.')}.", mend="Mend the file by hand.")


def _with(text: str, name: str, given: Mapping[str, Any]) -> str:
    """The file's text with a device in it as given; what is the same stays as it was written."""
    import tomlkit  # noqa: PLC0415 -- needed only to write

    document = tomlkit.parse(text)
    devices: dict[str, Any] = document.setdefault("devices", tomlkit.table(is_super_table=True))
    table = devices.setdefault(name, tomlkit.table())
    for key in [key for key in table if key not in given]:
        del table[key]
    for key, value in given.items():
        if table.get(key) == value:
            continue
        if isinstance(value, dict):
            inline = tomlkit.inline_table()
            inline.update(value)
            table[key] = inline
        else:
            table[key] = value
    return tomlkit.dumps(document)


def _without(text: str, name: str) -> str:
    import tomlkit  # noqa: PLC0415 -- as above

    document = tomlkit.parse(text)
    devices: dict[str, Any] = document.get("devices", {})
    devices.pop(name, None)
    return tomlkit.dumps(document)


def now() -> datetime:
    """This second, as `added_at` has it."""
    return datetime.now(UTC).replace(microsecond=0)
