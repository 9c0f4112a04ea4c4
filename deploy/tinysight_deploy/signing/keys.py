"""The keys that releases are signed with: files in a folder, for their owner's eyes only.

In: the public half of a key, as the repository's metadata names it.  Out: what signs with the private half.
`Signers` is all that signing asks for. A token (PKCS#11) or an agent could be behind it; making keys and replacing them
is of files alone, in `KeyFolder`. A file is PKCS#8 in PEM, encrypted when there is a passphrase; one that others could
read is refused.
"""

import re
from pathlib import Path
from typing import Final, Protocol

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from securesystemslib.exceptions import KeyMismatchError
from securesystemslib.signer import (  # type: ignore[attr-defined]  # public, though not listed
    CryptoSigner,
    Key,
    Signer,
    SSlibKey,
)

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import fsync_folder, read_capped, replace_file
from tinysight_deploy.brokers.pki import write_private
from tinysight_deploy.signing.passphrase import PASSPHRASE_VARIABLE, TYPING_TRIES, Passphrase, refuse_open

__all__ = ["KeyFolder", "Passphrase", "Signers", "name_of"]

NAME_FIELD: Final = "x-tinysight-name"
"""Where the metadata says what a key's file is called, so that one that is not here can be asked for."""

MADE: Final = "made.json"
"""Beside the keys, while a command runs: the names of those that it makes for what had none."""

MAX_KEY_BYTES: Final = 16 << 10
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,90}")
_ENCRYPTED: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


class Signers(Protocol):
    """Where signatures come from."""

    def find(self, key: Key) -> Signer | None:
        """What signs with this key; None when its private half is not here.

        Raises:
            ConfigError: it is here and cannot be used, with what to do.
        """

    def place_of(self, key: Key) -> str:
        """Where the private half would be, for people."""


class KeyFolder:
    """Keys as files of one folder. Making one touches nothing."""

    def __init__(self, folder: Path, passphrase: Passphrase | None = None) -> None:
        self.folder = folder
        self._passphrase = passphrase or Passphrase()
        self._loaded: dict[str, CryptoSigner] = {}

    def find(self, key: Key) -> Signer | None:
        """As `Signers.find`.

        Raises:
            ConfigError: others may read the file, the passphrase is wrong, or it holds another key.
            OSError: it cannot be read.
        """
        path = self._path(key)
        if key.keyid not in self._loaded and path.exists():
            self._loaded[key.keyid] = self._load(path, key)
        return self._loaded.get(key.keyid)

    def place_of(self, key: Key) -> str:
        """The path of its file."""
        return str(self._path(key))

    def has(self, key: Key) -> bool:
        """Whether its file is here; not whether it can be used."""
        return self._path(key).exists()

    def make(self, label: str, count: int = 1, *, note: bool = False) -> list[SSlibKey]:
        """New keys, each in a file of its own that nobody else may read.

        Args:
            label: what their names begin with.
            count: how many.
            note: name them in a file before, for `take_or_make`.

        Raises:
            ConfigError: others may read the folder, or the passphrase was typed in two ways.
            OSError: the disk is full, or the folder is not writable.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_open(self.folder)
        passphrase = self._passphrase.to_write()
        made = [Ed25519PrivateKey.generate() for _ in range(count)]
        named = [(private, _signer(private, label)) for private in made]
        if note:
            names = [*self._begun(), *(name_of(signer.public_key) for _, signer in named)]
            replace_file(self.folder / MADE, msgspec.json.encode(names))
        return [self._write(private, signer, passphrase) for private, signer in named]

    def take_or_make(self, label: str, count: int = 1) -> list[SSlibKey]:
        """Keys for what never had any: those that an interrupted command left with this label, and then new ones.

        What a command is about to make is named in a file first, until `settle`. A key that lies here and is not named
        there is nobody knows whose, and is never taken.

        Raises:
            ConfigError: as `make`; or one that was left cannot be opened, or one lies here that none left.
            OSError: as `make`.
        """
        pattern = re.compile(rf"{re.escape(label)}-[0-9a-f]{{8}}")
        here = sorted(path for path in self.folder.glob("*.pem") if pattern.fullmatch(path.stem))
        begun = self._begun()
        if strange := [str(path) for path in here if path.stem not in begun]:
            raise ConfigError(
                f"A key that this command has not made lies here already: {', '.join(strange)}.",
                mend="Give other --keys, or move it away.",
            )
        keys = [self._take(path) for path in here[:count]]
        return keys + (self.make(label, count - len(keys), note=True) if len(keys) < count else [])

    def settle(self) -> None:
        """What was made is in use now: the next command that needs new keys makes its own.

        Raises:
            OSError: the folder is not writable.
        """
        if (path := self.folder / MADE).exists():
            path.unlink()
            fsync_folder(self.folder)

    def _begun(self) -> list[str]:
        """Names of keys that a command has made, or was about to, and has not used yet."""
        path = self.folder / MADE
        try:
            return msgspec.json.decode(read_capped(path, MAX_KEY_BYTES), type=list[str])
        except FileNotFoundError:
            return []
        except msgspec.MsgspecError as error:
            raise ConfigError(
                f"{path} cannot be understood: {error}.", mend="Begin with other --keys, or remove it."
            ) from error

    def _write(self, private: Ed25519PrivateKey, signer: CryptoSigner, passphrase: bytes | None) -> SSlibKey:
        encryption = (
            serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
        )
        pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        write_private(self._path(signer.public_key), pem)
        self._loaded[signer.public_key.keyid] = signer
        return signer.public_key

    def _take(self, path: Path) -> SSlibKey:
        signer = _signer(self._read(path), path.stem.rpartition("-")[0])
        if name_of(signer.public_key) != path.stem:
            raise ConfigError(f"{path} holds another key than its name says.", mend="Give it its old name back.")
        self._loaded[signer.public_key.keyid] = signer
        return signer.public_key

    def _load(self, path: Path, key: Key) -> CryptoSigner:
        private = self._read(path)
        try:
            if isinstance(key, SSlibKey):
                return CryptoSigner(private, key)
        except (KeyMismatchError, ValueError) as error:
            raise ConfigError(f"{path} is not the key {key.keyid[:8]}.", mend="Take it from a backup.") from error
        raise ConfigError(f"{key.keyid[:8]} is no key that a file can hold.", mend="Sign where that key is.")

    def _read(self, path: Path) -> Ed25519PrivateKey:
        refuse_open(self.folder)
        refuse_open(path)
        pem = read_capped(path, MAX_KEY_BYTES)
        private = self._opened(path, pem) if _ENCRYPTED in pem else _parsed(pem, None)
        if private is None:
            raise ConfigError(f"{path} is no private key in PEM.", mend="Take the file from a backup.")
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigError(f"{path} is no Ed25519 key.", mend="Take the file from a backup.")
        return private

    def _opened(self, path: Path, pem: bytes) -> PrivateKeyTypes:
        """An encrypted key; a person may type the passphrase several times, and each key may have its own."""
        for attempt in range(TYPING_TRIES + 1):
            found = _parsed(pem, self._passphrase.to_read(path, again=attempt > 0))
            if found is not None:
                return found
            if not self._passphrase.typed:
                break
        raise ConfigError(
            f"The passphrase does not open {path}.",
            mend=f"Check ${PASSPHRASE_VARIABLE} or --passphrase-file; the file may also be damaged.",
        )

    def _path(self, key: Key) -> Path:
        return self.folder / f"{name_of(key)}.pem"


def name_of(key: Key) -> str:
    """What a key's file is called, without its ending.

    Raises:
        ConfigError: the metadata gives it a name that could leave the folder.
    """
    name = key.unrecognized_fields.get(NAME_FIELD, key.keyid[:16])
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigError(f"The key {key.keyid[:8]} has no plain name.", mend="Take the repository from a backup.")
    return name


def _parsed(pem: bytes, passphrase: bytes | None) -> PrivateKeyTypes | None:
    """The key in a PEM file; None when it is none, or the passphrase is another."""
    try:
        return serialization.load_pem_private_key(pem, password=passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _signer(private: Ed25519PrivateKey, label: str) -> CryptoSigner:
    signer = CryptoSigner(private)
    signer.public_key.unrecognized_fields[NAME_FIELD] = f"{label}-{signer.public_key.keyid[:8]}"
    return signer
