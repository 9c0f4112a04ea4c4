"""A site's own certificate authority: who may speak as a device, and which broker the devices believe.

In: names.  Out: PEM files. One authority signs for one broker, and for nothing else, so that a stolen key is no use
elsewhere. Keys are P-256: small and fast on a device, and any MQTT client knows them.
"""

import os
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import replace_file
from tinysight_deploy.brokers.parts import SLOW_CLOCK, builder_of, host_of, name_of, pem_of, read_key, usage_of

__all__ = [
    "Authority",
    "ends_soon",
    "identity_of",
    "new_identity",
    "read_certificate",
    "requested_key",
    "write_private",
]

CA_DAYS: Final = 20 * 365
CLIENT_DAYS: Final = 5 * 365
SERVER_DAYS: Final = 820  # Apple's browsers believe no server's certificate for longer than 825 days
RENEW_DAYS: Final = 90
TAIL_BYTES: Final = 8
MAX_REQUEST_BYTES: Final = 16 << 10
CN_LETTERS: Final = 64  # X.509 allows no more in a common name


def write_private(path: Path, data: bytes) -> None:
    """Write what only the owner may read; it is never readable for others, not even while it is written.

    Raises:
        OSError: the disk is full, or the folder is not writable.
    """
    before = os.umask(0o077)
    try:
        replace_file(path, data)
    finally:
        os.umask(before)


def read_certificate(path: Path) -> x509.Certificate:
    """A certificate from its PEM file.

    Raises:
        ConfigError: the file holds none.
        OSError: it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path} is no certificate in PEM.", mend="Take the file from a backup.") from error


def ends_soon(certificate: x509.Certificate) -> bool:
    """Whether it is time for the next one: less than 90 days are left."""
    return certificate.not_valid_after_utc < datetime.now(UTC) + timedelta(days=RENEW_DAYS)


def new_identity(device: str) -> str:
    """A user name for a device that nobody can guess, and that a person can still tell from others in the log.

    It is the device's client id as well. Whoever may log in at all could end a session whose client id they know.
    """
    tail = secrets.token_hex(TAIL_BYTES)
    return f"{device[: CN_LETTERS - len(tail) - 1]}_{tail}"


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a certificate request in PEM, whose owner has shown that they hold the private one.

    Raises:
        ConfigError: it is no such request, or of another kind of key.
    """
    mend = "Have the device make its key anew: remove its device.key, and run `tinysight device add` again."
    if len(request) > MAX_REQUEST_BYTES:
        raise ConfigError("The certificate request is too large.", mend=mend)
    try:
        read = x509.load_pem_x509_csr(request)
        key, holds = read.public_key(), read.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError("What the device sent is no certificate request.", mend=mend) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1" or not holds:
        raise ConfigError("The certificate request is not signed by a P-256 key of its own.", mend=mend)
    return key


def identity_of(certificate: x509.Certificate) -> str:
    """The user name in a client's certificate: its common name."""
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@dataclass(frozen=True, slots=True)
class Authority:
    """What signs.

    Attributes:
        certificate: what devices and broker believe.
        key: None where it has been taken away, as it should be; then nothing new can be signed.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | None

    @classmethod
    def found(cls, folder: Path, site: str) -> Self:
        """Begin an authority: ``ca.crt`` and ``ca.key`` in the folder.

        Raises:
            OSError: the disk is full, or the folder is not writable.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = name_of(f"TinySight broker of {site}"[:CN_LETTERS])
        builder = (
            builder_of(name, name, key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage_of(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        certificate = builder.sign(key, hashes.SHA256())
        write_private(folder / "ca.key", pem_of(key))
        replace_file(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))
        return cls(certificate, key)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``ca.crt``, and ``ca.key`` if it is there.

        Raises:
            ConfigError: a file holds something else, or they do not belong together.
            OSError: a file cannot be read.
        """
        certificate, path = read_certificate(folder / "ca.crt"), folder / "ca.key"
        if not path.exists():
            return cls(certificate, None)
        key = read_key(path)
        if key.public_key() != certificate.public_key():
            raise ConfigError(f"{path} is not the key of {folder / 'ca.crt'}.", mend="Bring the right one back.")
        return cls(certificate, key)

    def sign_server(self, stem: Path, hosts: Sequence[str]) -> None:
        """Make or renew ``<stem>.crt`` for these names and addresses; ``<stem>.key`` is kept if it is there.

        Raises:
            ConfigError: the authority's key is not here.
            OSError: a file cannot be read or written.
        """
        names = x509.SubjectAlternativeName([host_of(each) for each in hosts])
        self._sign(stem, name_of(hosts[0][:CN_LETTERS]), SERVER_DAYS, ExtendedKeyUsageOID.SERVER_AUTH, names)

    def sign_client(self, stem: Path, *, site: str, name: str, identity: str, days: int = CLIENT_DAYS) -> None:
        """Make or renew ``<stem>.crt`` for a device or a bridge; ``<stem>.key`` is kept if it is there.

        Args:
            stem: path without its ending.
            site: for people who look at the certificate.
            name: likewise.
            identity: the user name at the broker.
            days: how long it is valid from now on.

        Raises:
            ConfigError: the authority's key is not here.
            OSError: a file cannot be read or written.
        """
        subject = name_of(identity, organization=site, unit=name)
        self._sign(stem, subject, days, ExtendedKeyUsageOID.CLIENT_AUTH)

    def sign_request(
        self, request: bytes, path: Path, *, site: str, name: str, identity: str, days: int = CLIENT_DAYS
    ) -> None:
        """Make or renew a device's certificate for a key that never leaves the device.

        Only the public key is taken from the request; what else it says of itself or asks for is not believed.

        Args:
            request: a certificate request in PEM.
            path: of the certificate.
            site: as in `sign_client`, like the rest.
            name: likewise.
            identity: likewise.
            days: likewise.

        Raises:
            ConfigError: the request is none of an elliptic-curve key P-256, or the authority's key is not here.
            OSError: the file cannot be written.
        """
        subject = name_of(identity, organization=site, unit=name)
        certificate = self._certificate(requested_key(request), subject, days, ExtendedKeyUsageOID.CLIENT_AUTH)
        replace_file(path, certificate.public_bytes(serialization.Encoding.PEM))

    def revoke(self, path: Path, serials: Collection[int]) -> None:
        """Write the list of certificates that are no longer believed.

        It is valid as long as the authority: brokers refuse everybody when their list is out of date.

        Raises:
            ConfigError: the authority's key is not here.
            OSError: the file cannot be written.
        """
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - SLOW_CLOCK)
            .next_update(self.certificate.not_valid_after_utc)
        )
        for serial in sorted(serials):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        signed = builder.sign(self._signing_key(), hashes.SHA256())
        replace_file(path, signed.public_bytes(serialization.Encoding.PEM))

    def _signing_key(self) -> ec.EllipticCurvePrivateKey:
        if self.key is None:
            raise ConfigError(
                "Something has to be signed, and ca.key is not here.",
                mend="Bring it back into the folder for as long as the command runs.",
            )
        return self.key

    def _sign(
        self, stem: Path, subject: x509.Name, days: int, use: x509.ObjectIdentifier, *more: x509.ExtensionType
    ) -> None:
        path = stem.with_name(f"{stem.name}.key")
        self._signing_key()
        key = read_key(path) if path.exists() else ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(key.public_key(), subject, days, use, *more)
        if not path.exists():
            write_private(path, pem_of(key))
        replace_file(stem.with_name(f"{stem.name}.crt"), certificate.public_bytes(serialization.Encoding.PEM))

    def _certificate(
        self,
        key: ec.EllipticCurvePublicKey,
        subject: x509.Name,
        days: int,
        use: x509.ObjectIdentifier,
        *more: x509.ExtensionType,
    ) -> x509.Certificate:
        ours = self._signing_key()
        builder = (
            builder_of(subject, self.certificate.subject, key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage_of(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ours.public_key()), critical=False)
        )
        for each in more:
            builder = builder.add_extension(each, critical=False)
        return builder.sign(ours, hashes.SHA256())
