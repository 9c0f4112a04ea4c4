"""A device's key and certificate.

Each is a step: what is to be done, and how. The private key is made on the device and never leaves it; only a request
for a certificate does, of which the public key is believed and nothing else.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes

from tinysight_contract.errors import DeviceError
from tinysight_deploy.brokers import folder as broker_folder
from tinysight_deploy.brokers import pki
from tinysight_deploy.provisioning.hands import SECRET, SETTING, Hands
from tinysight_deploy.provisioning.probe import Facts
from tinysight_deploy.provisioning.service import Service
from tinysight_deploy.provisioning.types import Act, Wishes

__all__ = ["Credentials", "certificate_sha256"]

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


class Credentials:
    """The steps that give one device its key and its certificate."""

    def __init__(self, hands: Hands, wishes: Wishes, facts: Facts, service: Service) -> None:
        self._hands, self._wishes, self._facts, self._service = hands, wishes, facts, service
        self._etc = hands.path("etc/tinysight")

    def steps(self) -> Iterator[Act]:
        """Both, where the device's authority is here."""
        yield "key", self._key_differs, self._make_key
        yield "certificate", self._certificate_differs, self._sign

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
        await self._service.will_restart()
        for name in ("ca.crt", "device.crt"):
            await self._hands.write(self._etc / name, (self._signed / name).read_bytes(), SETTING)


def certificate_sha256(wishes: Wishes) -> str:
    """The fingerprint of the device's certificate; empty without one."""
    if wishes.broker_config is None:
        return ""
    path = wishes.broker_config / "devices" / wishes.device / "device.crt"
    return pki.read_certificate(path).fingerprint(hashes.SHA256()).hex() if path.exists() else ""
