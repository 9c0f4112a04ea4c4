"""What the files of keys are encrypted with, and that they are for their owner's eyes only."""

import getpass
import os
import sys
from pathlib import Path
from typing import Final

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import read_capped

__all__ = ["PASSPHRASE_VARIABLE", "TYPING_TRIES", "Passphrase", "refuse_open"]

PASSPHRASE_VARIABLE: Final = "TINYSIGHT_PASSPHRASE"  # noqa: S105 -- the name of the variable, not its value
TYPING_TRIES: Final = 3


class Passphrase:
    """What key files are encrypted with: from the environment, a file, or a person at the terminal.

    What is typed to open one file is not what new ones are encrypted with: that is asked for by itself.

    Attributes:
        typed: whether a person typed what opens a file, and may have meant another one.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.typed = False
        self._file = file
        self._known: bytes | None = None
        self._typed: bytes | None = None
        self._chosen: tuple[bytes | None] | None = None

    def to_read(self, path: Path, *, again: bool = False) -> bytes:
        """The passphrase for a file that is encrypted; with ``again`` another one than the one that was typed.

        Raises:
            ConfigError: none was given and nobody can be asked.
        """
        if not again and (known := self._given() or self._typed) is not None:
            return known
        if not sys.stdin.isatty():
            raise ConfigError(
                f"{path} is encrypted.", mend=f"Set ${PASSPHRASE_VARIABLE}, or give --passphrase-file FILE."
            )
        self._typed, self.typed = getpass.getpass(f"Passphrase of {path.name}: ").encode(), True
        return self._typed

    def to_write(self) -> bytes | None:
        """The passphrase for new files, or None to leave them plain. A person is asked once.

        Raises:
            ConfigError: it was typed in two ways.
        """
        if (given := self._given()) is not None or not sys.stdin.isatty():
            return given
        if self._chosen is not None:
            return self._chosen[0]
        first = getpass.getpass("Passphrase for the new keys (empty for none): ").encode()
        if first and getpass.getpass("Again: ").encode() != first:
            raise ConfigError("The two passphrases differ.", mend="Run it again and type the same one twice.")
        self._chosen = (first or None,)
        return self._chosen[0]

    def _given(self) -> bytes | None:
        if self._known is None and self._file is not None:
            refuse_open(self._file)
            lines = read_capped(self._file, 4096).splitlines()
            if not lines or not lines[0]:
                raise ConfigError(f"{self._file} is empty.", mend="Write the passphrase into its first line.")
            self._known = lines[0]
        if self._known is None and (variable := os.environ.get(PASSPHRASE_VARIABLE)):
            self._known = variable.encode()
        return self._known


def refuse_open(path: Path) -> None:
    """Refuse what others than its owner may read or write.

    Raises:
        ConfigError: they may.
        OSError: it is not there.
    """
    if path.stat().st_mode & 0o077:
        rights = "700" if path.is_dir() else "600"
        raise ConfigError(f"Others may read or write {path}.", mend=f"Run `chmod {rights} {path}`.")
