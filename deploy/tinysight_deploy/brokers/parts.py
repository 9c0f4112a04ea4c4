"""The parts that certificates are made of: names, times, uses, keys."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tinysight_contract.errors import ConfigError

__all__ = ["SLOW_CLOCK", "builder_of", "host_of", "name_of", "pem_of", "read_key", "usage_of"]

SLOW_CLOCK: Final = timedelta(days=1)  # a device may believe it is yesterday


def builder_of(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    """A certificate to be, valid from a little before now for so many days."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + timedelta(days=days)) - SLOW_CLOCK)
        .not_valid_after(now + timedelta(days=days))
    )


def name_of(common: str, *, organization: str | None = None, unit: str | None = None) -> x509.Name:
    """A subject or an issuer."""
    pairs = ((NameOID.ORGANIZATION_NAME, organization), (NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    more = [x509.NameAttribute(oid, value) for oid, value in pairs if value is not None]
    return x509.Name([*more, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def host_of(text: str) -> x509.GeneralName:
    """A host by its address or its name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def usage_of(*, signs_certificates: bool) -> x509.KeyUsage:
    """What a key is for: to sign for others, or to prove who one is."""
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as its file holds it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A private key's file, read.

    Raises:
        ConfigError: it is none.
        OSError: it cannot be read.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no private key in PEM.", mend="Take the file from a backup.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is no elliptic-curve key.", mend="Take the file from a backup.")
    return key
