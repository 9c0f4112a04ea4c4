"""Which host key each device had when it was first met.

A file of our own in OpenSSH's form, one line a host: ``host ssh-ed25519 AAAA…``. The first key is taken on trust and
shown; after that another key is refused until a person says that it may be forgotten.
"""

import base64
import binascii
import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import read_capped, replace_file

__all__ = ["HostKey", "KnownHosts", "alone"]

_MOST_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host's public key.

    Attributes:
        kind: such as ``ssh-ed25519``.
        data: as it goes over the wire.
    """

    kind: str
    data: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.data).digest()).decode().rstrip("=")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Have a file to oneself while the ``with`` lasts; waits for who has it. Folders above it are made.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class KnownHosts:
    """Host keys by host."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def key(self, host: str) -> HostKey | None:
        """The key that ``host`` had, or None before it was met.

        Raises:
            ConfigError: the file is not what we write.
            OSError: it cannot be read.
        """
        return self._read().get(host)

    def pin(self, host: str, key: HostKey) -> HostKey:
        """Remember a host's first key; the one that is remembered, which is another when somebody was quicker.

        Raises:
            ConfigError: the file is not what we write.
            OSError: it cannot be written.
        """
        with alone(self.path):
            known = self._read()
            kept = known.setdefault(host, key)
            if kept is key:
                self._write(known)
        return kept

    def forget(self, host: str) -> bool:
        """Forget a host's key; whether there was one.

        Raises:
            ConfigError: the file is not what we write.
            OSError: it cannot be written.
        """
        with alone(self.path):
            known = self._read()
            if known.pop(host, None) is None:
                return False
            self._write(known)
        return True

    def _read(self) -> dict[str, HostKey]:
        try:
            data = read_capped(self.path, _MOST_BYTES)
        except FileNotFoundError:
            return {}
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"{self.path} is too large.", mend="Remove it; devices are then met anew.")
        known = {}
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                host, kind, text = line.split()[:3]
                known[host] = HostKey(kind, base64.b64decode(text, validate=True))
            except (ValueError, binascii.Error) as error:
                raise ConfigError(
                    f"{self.path}, line {number}: not a host and its key.", mend="Mend or remove that line."
                ) from error
        return known

    def _write(self, known: dict[str, HostKey]) -> None:
        lines = [f"{host} {key.kind} {base64.b64encode(key.data).decode()}\n" for host, key in sorted(known.items())]
        replace_file(self.path, "".join(lines).encode())
