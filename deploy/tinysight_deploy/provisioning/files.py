"""What a device is given beside its programs: a user, folders, the root of trust, a certificate, its configuration.

Each is a step: what is to be done, and how. The device's private key is made there and never leaves it; only a request
for a certificate does, of which the public key is believed and nothing else. What is there and is the user's own,
``agent.toml``, is never overwritten; what decides whom the device believes, ``root.json``, is checked before it goes
there, and never exchanged.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import hashes
from msgspec import Struct

from tinysight_contract.errors import ConfigError, DeviceError
from tinysight_contract.files import read_capped
from tinysight_deploy.brokers import config as broker_config
from tinysight_deploy.brokers import folder as broker_folder
from tinysight_deploy.brokers import pki
from tinysight_deploy.places import keys_folder
from tinysight_deploy.provisioning.hands import ROOT, SECRET, SETTING, SETTINGS, STATE, STATE_FILE, Hands
from tinysight_deploy.provisioning.probe import Facts
from tinysight_deploy.provisioning.service import Service
from tinysight_deploy.provisioning.texts import agent_toml, broker_section
from tinysight_deploy.provisioning.types import Wishes
from tinysight_deploy.remote.targets import AGENT_USER, plain
from tinysight_deploy.repo.repository import Repository

__all__ = ["Files", "roots"]

Act = tuple[str, Callable[[], Awaitable[str]], Callable[[], Awaitable[object]]]

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
_KEY: Final = r"""
set -eu; umask 077; key=$1 part="$1.part"
[ ! -e "$key" ] || exit 0
rm -f "$part"
if [ "$3" = openssl ]; then
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$part" 2>/dev/null
else
  "$4" -I -c '
import sys
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec
key = ec.generate_private_key(ec.SECP256R1())
pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
open(sys.argv[1], "xb").write(pem)' "$part"
fi
chmod 600 "$part"; [ -z "$2" ] || chown -h "$2" "$part"
sync "$part" 2>/dev/null || sync
mv -f "$part" "$key"; sync "$(dirname "$key")" 2>/dev/null || sync
"""
_REQUEST: Final = r"""
[ -e "$1" ] || exit 0
if [ "$2" = openssl ]; then exec openssl req -new -key "$1" -subj /CN=device; fi
exec "$3" -I -c '
import sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization as s
key = s.load_pem_private_key(open(sys.argv[1], "rb").read(), None)
request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
sys.stdout.write(request.public_bytes(s.Encoding.PEM).decode())' "$1"
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
            yield "key", self._key_differs, self._make_key
            yield "certificate", self._certificate_differs, self._sign
        elif self._wishes.ca is not None:
            yield "ca", self._ca_differs, self._write_ca
        yield "agent.toml", self._config_differs, self._write_config

    def root_sha256(self) -> str:
        """Of the root of trust that a new device is given."""
        return hashlib.sha256(self._root).hexdigest()

    def certificate_sha256(self) -> str:
        """The fingerprint of the device's certificate; empty without one."""
        if self._wishes.broker_config is None:
            return ""
        path = self._signed / "device.crt"
        return pki.read_certificate(path).fingerprint(hashes.SHA256()).hex() if path.exists() else ""

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

    async def _key_differs(self) -> str:
        there = await self._hands.stands([self._etc / "device.key"], [SECRET])
        return "" if there[0] else "device.key is made on the device"

    async def _make_key(self) -> None:
        whose = "" if self._hands.target.own_root else SECRET.name
        path = self._etc / "device.key"
        tool = await self._key_tool()
        await self._hands.must("making the key", ["sh", "-c", _KEY, "sh", str(path), whose, *tool], timeout_s=120)
        await self._hands.own(path, SECRET)

    async def _key_tool(self) -> Sequence[str]:
        """``openssl``, or Python with the package cryptography."""
        python = str(self._hands.path("opt/tinysight/venv/bin/python"))
        if self._facts.openssl:
            return ["openssl", python]
        done = await self._hands.ask([python, "-I", "-c", "import cryptography.x509"])
        if done.status != 0:
            raise DeviceError(
                f"{self._hands.target} has no openssl to make its key with.",
                mend="Install openssl there, or make the wheelhouse with `--with cryptography`.",
            )
        return ["python", python]

    async def _request(self) -> bytes:
        """A certificate request for the key that is there; nothing when there is none."""
        tool = await self._key_tool()
        words = [str(self._etc / "device.key"), *tool]
        return await self._hands.must("asking for a certificate", ["sh", "-c", _REQUEST, "sh", *words])

    @property
    def _signed(self) -> Path:
        """What the authority's folder has for the device."""
        return (self._wishes.broker_config or Path()) / "devices" / self._wishes.device

    async def _certificate_differs(self) -> str:
        path = self._signed / "device.crt"
        if not path.exists() or await self._key_differs():
            return "signed for the device's key"
        certificate, request = pki.read_certificate(path), await self._request()
        if not request or certificate.public_key() != pki.requested_key(request):
            return "signed anew, for another key"
        if pki.ends_soon(certificate):
            return "renewed"
        for name in ("device.crt", "ca.crt"):
            if await self._hands.read(self._etc / name) != (self._signed / name).read_bytes():
                return f"{name} is brought there"
        return ""

    async def _sign(self) -> None:
        request, folder = await self._request(), self._wishes.broker_config
        if folder is None:
            return
        asked = broker_folder.Wishes(
            site=self._wishes.site, devices=[self._wishes.device], requests={self._wishes.device: request}
        )
        broker_folder.configure(folder, asked)
        await self._will_restart()
        for name in ("ca.crt", "device.crt"):
            await self._hands.write(self._etc / name, (self._signed / name).read_bytes(), SETTING)

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
