"""What a device is given beside its programs and its key: a user, folders, the root of trust, its configuration.

Each is a step: what is to be done, and how. What is there and is the user's own, ``agent.toml``, is never overwritten;
what decides whom the device believes, ``root.json``, is checked before it goes there, and never exchanged.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tinysight_contract.errors import ConfigError, DeviceError
from tinysight_contract.files import read_capped
from tinysight_deploy.brokers import config as broker_config
from tinysight_deploy.brokers import folder as broker_folder
from tinysight_deploy.places import keys_folder
from tinysight_deploy.provisioning.credentials import Credentials
from tinysight_deploy.provisioning.hands import ROOT, SETTING, SETTINGS, STATE, STATE_FILE, Hands
from tinysight_deploy.provisioning.probe import Facts
from tinysight_deploy.provisioning.service import Service
from tinysight_deploy.provisioning.texts import agent_toml, broker_section
from tinysight_deploy.provisioning.types import Act, Wishes
from tinysight_deploy.remote.targets import AGENT_USER, plain
from tinysight_deploy.repo.repository import Repository

__all__ = ["Files", "roots"]

_MOST_BYTES: Final = 1 << 20
_GROUPS: Final = ("video", "render")
_FOLDERS: Final = (
    ("opt/tinysight", ROOT, "root"),
    ("etc/tinysight", SETTINGS, "root"),
    ("var/lib/tinysight", STATE, "root"),
    ("var/lib/tinysight/store", STATE, AGENT_USER),
    ("var/lib/tinysight/store/trust", STATE, AGENT_USER),
)
"""And who makes it: in what is the agent's, root does nothing."""
_USER: Final = r"""
user=$1; shift
id -nG "$user" 2>/dev/null || echo -
for each; do getent group "$each" >/dev/null && printf '%s ' "$each"; done; echo
"""
_ADD_USER: Final = r"""
set -eu; user=$1; shift
getent passwd "$user" >/dev/null || useradd --system --user-group --home-dir /var/lib/tinysight --no-create-home \
  --shell /usr/sbin/nologin "$user"
for each; do ! getent group "$each" >/dev/null || usermod -aG "$each" "$user"; done
"""


class _Finding(Struct):
    """What `tinysight config check` says of one line."""

    level: str
    key: str
    what: str
    mend: str
    line: int | None = None


class _Checked(Struct):
    findings: list[_Finding]


class Files:
    """The steps that write files on one device."""

    def __init__(self, hands: Hands, wishes: Wishes, facts: Facts, trust: tuple[bytes, Sequence[bytes]]) -> None:
        self._hands, self._wishes, self._facts = hands, wishes, facts
        self._etc = hands.path("etc/tinysight")
        self._root_path = hands.path("var/lib/tinysight/store/trust/root.json")
        self._root, self._roots = trust
        self._service: Service | None = None
        self._nobody = False

    def first(self) -> Iterator[Act]:
        """What comes before the programs."""
        if not self._hands.target.own_root:
            yield "user", self._user_differs, self._make_user
        yield "folders", self._folders_differ, self._make_folders
        yield "root of trust", self._root_differs, self._write_root

    def then(self, service: Service) -> Iterator[Act]:
        """What comes after the programs."""
        self._service = service
        if self._wishes.broker_config is not None:
            yield from Credentials(self._hands, self._wishes, self._facts, service).steps()
        elif self._wishes.ca is not None:
            yield "ca", self._ca_differs, self._write_ca
        yield "agent.toml", self._config_differs, self._write_config

    def root_sha256(self) -> str:
        """Of the root of trust that a new device is given."""
        return hashlib.sha256(self._root).hexdigest()

    async def version(self) -> str:
        """TinySight's on the device; empty when it is not there."""
        done = await self._hands.ask([str(self._hands.target.program), "--version"])
        found = re.match(r"tinysight ([0-9A-Za-z.+-]{1,40})\s", done.out[:100].decode("ascii", "replace"))
        return found[1] if found else ""

    async def ready(self, *, program: bool) -> tuple[bool, str]:
        """Whether the agent could run with the configuration that is there, and why not.

        Raises:
            DeviceError: the configuration is wrong.
        """
        if not program or await self._hands.read(self._hands.target.config) is None:
            return False, "it is not installed yet"
        command = [str(self._hands.target.program), "config", "check", str(self._hands.target.config), "--json"]
        done = await self._hands.ask(command, user=AGENT_USER, timeout_s=120)
        if done.status == 0:
            return True, ""
        try:
            found = msgspec.json.decode(done.out, type=_Checked).findings
            wrong = [each for each in found if each.level == "error"]
            finding = next((each for each in wrong if not each.key.startswith("model")), wrong[0])
            what = plain(f"line {finding.line}: {finding.key}: {finding.what} {finding.mend}")
            later = finding.key.startswith("model")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError):
            last = (done.err.strip().splitlines() or [b"it gives no reason"])[-1]
            return False, plain(last).removeprefix("error: ")
        if later:  # a model comes with the first bundle
            return False, what
        raise DeviceError(
            f"{self._hands.target}: agent.toml is wrong: {what}",
            mend="Mend it there, or give another --config after removing it.",
        )

    async def _user_differs(self) -> str:
        told = await self._hands.must("looking for the user", ["sh", "-c", _USER, "sh", AGENT_USER, *_GROUPS])
        lines = [line.split() for line in told.decode("ascii", "replace").splitlines()]
        has, there = (lines[0], lines[1]) if len(lines) == 2 else ([], [])
        self._nobody = "-" in has or not has
        if self._nobody:
            return f"user {AGENT_USER} is made"
        missing = [each for each in _GROUPS if each in there and each not in has]
        return f"{AGENT_USER} joins {', '.join(missing)}" if missing else ""

    async def _make_user(self) -> None:
        await self._hands.must("making the user", ["sh", "-c", _ADD_USER, "sh", AGENT_USER, *_GROUPS])

    async def _folders_differ(self) -> str:
        paths = [self._hands.path(name) for name, _, _ in _FOLDERS]
        stand = await self._hands.stands(paths, [owner for _, owner, _ in _FOLDERS])
        return ", ".join(name for (name, _, _), fine in zip(_FOLDERS, stand, strict=False) if not fine)

    async def _make_folders(self) -> None:
        for name, owner, user in _FOLDERS:
            await self._hands.folder(self._hands.path(name), owner, user=user)

    async def _root_differs(self) -> str:
        there = None if self._nobody else await self._hands.read(self._root_path, user=AGENT_USER)
        if there is None:
            return f"root.json {self.root_sha256()[:16]}"
        if there not in self._roots:
            raise DeviceError(
                f"{self._hands.target} believes another root of trust, {hashlib.sha256(there).hexdigest()[:16]} "
                f"and not {self.root_sha256()[:16]}.",
                mend="It is of another repository: give that with --repo, or, if it is to be yours from now on, "
                f"remove {self._root_path.parent.parent} there.",
            )
        return ""

    async def _write_root(self) -> None:
        await self._hands.write(self._root_path, self._root, STATE_FILE, user=AGENT_USER)

    async def _ca_differs(self) -> str:
        there = await self._hands.read(self._etc / "ca.crt")
        return "" if there == _given(self._wishes.ca) else "ca.crt is brought there"

    async def _write_ca(self) -> None:
        await self._will_restart()
        await self._hands.write(self._etc / "ca.crt", _given(self._wishes.ca), SETTING)

    async def _config_differs(self) -> str:
        if await self._hands.read(self._hands.target.config) is not None:
            return ""
        self._made()
        return "written" if self._wishes.config is None else f"written from {self._wishes.config}"

    async def _write_config(self) -> None:
        await self._will_restart()
        await self._hands.write(self._hands.target.config, self._made(), SETTING)

    def _made(self) -> bytes:
        """The agent's file for a device that has none.

        Raises:
            ConfigError: nothing says which broker.
        """
        wishes = self._wishes
        if wishes.config is not None:
            return _given(wishes.config)
        if wishes.broker is not None:
            broker = broker_section(wishes.broker, ca=wishes.ca is not None)
        elif wishes.broker_config is not None:
            folder = wishes.broker_config
            setup = broker_folder.load(folder / "setup.json")
            if setup is None:
                raise ConfigError(f"{folder} holds no broker's setup.", mend="Make it with `tinysight broker config`.")
            text = broker_config.broker_toml(setup, wishes.device)
            broker = text[text.index("[broker]") :]
        else:
            raise ConfigError(
                "The device has no agent.toml, and nothing says which broker it talks to.",
                mend="Give --broker-config, --broker or --config.",
            )
        target = self._hands.target
        return agent_toml(target, site=wishes.site, device=wishes.device, broker=broker, facts=self._facts).encode()

    async def _will_restart(self) -> None:
        if self._service is not None:
            await self._service.will_restart()


def _given(path: Path | None) -> bytes:
    """A file of the workstation that is to be brought to a device.

    Raises:
        ConfigError: it is too large.
        OSError: it cannot be read.
    """
    data = read_capped(path or Path(), _MOST_BYTES)
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path} has more than 1 MiB.", mend="Give the right file.")
    return data


def roots(wishes: Wishes) -> tuple[bytes, Sequence[bytes]]:
    """The repository's root of trust that a device is given, and all that it may have been given before.

    Raises:
        ConfigError: there is none, it is damaged, or it is not the one whose keys these are.
        OSError: one cannot be read.
    """
    repository = Repository(wishes.repo, keys_folder(wishes.keys, wishes.repo))
    if not (wishes.repo / "metadata").is_dir():
        raise ConfigError(
            f"{wishes.repo} has no root of trust, without which a device would believe nobody.",
            mend="Begin one with `tinysight keys init`, or give --repo.",
        )
    return repository.root_bytes(), repository.chain().roots
