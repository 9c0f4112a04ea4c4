"""What an agent remembers of its file over a restart: the last content that was good, and the mark of a trial.

In: `Content` and `Mark`.  Out: two files, each the old one or the new one. Judges nothing; a good content comes back as
bytes, to be read as any other.
"""

import hashlib
import logging
from pathlib import Path
from typing import Final

import msgspec

from tinysight_contract.files import read_capped, replace_file
from tinysight_edge.config.file import MAX_BYTES
from tinysight_edge.config.overlay import Overlay
from tinysight_edge.config.reload import Content, Mark
from tinysight_edge.config.wanted import MAX_BYTES as MAX_WANTED

__all__ = ["Memory", "digest_of"]

log = logging.getLogger(__name__)

_OVER: Final = b"\n#:over "
"""Begins the last line of the good content when something lay over the file."""


def digest_of(read: bytes | OSError, overlay: Overlay | None) -> str:
    """SHA-256 of a file's content and what lies over it; or why there is none."""
    if isinstance(read, OSError):
        return f"unread: {read.strerror}"
    digest = hashlib.sha256(read)
    if overlay is not None:
        digest.update(_OVER + msgspec.json.encode(overlay, order="sorted"))
    return digest.hexdigest()


class Memory:
    """One agent's.

    Args:
        folder: made when it is missing.

    Attributes:
        good_path: the content, byte for byte; what lay over it is its last line, a comment of TOML, so that a power cut
            never parts what was tried together.
    """

    def __init__(self, folder: Path) -> None:
        self.good_path, self._mark_path = folder / "agent.good.toml", folder / "agent.trial.json"
        self._good: str | None = None
        self._mark = Mark()
        self._unsaved: str | None = None

    def read(self) -> tuple[tuple[bytes, Overlay | None] | None, Mark]:
        """The good content and the mark; what cannot be read is said, and as if it were not there."""
        good = None
        try:
            raw, over, words = read_capped(self.good_path, MAX_BYTES + MAX_WANTED).rpartition(_OVER)
            good = (raw, msgspec.json.decode(words, type=Overlay)) if over else (words, None)
            self._good = digest_of(*good)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("%s cannot be read: %s", self.good_path, error)
        try:
            self._mark = msgspec.json.decode(read_capped(self._mark_path, 4096), type=Mark)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("%s cannot be read: %s", self._mark_path, error)
        return good, self._mark

    def save(self, good: Content | None, mark: Mark) -> str | None:
        """Keep what has changed, the good content before the mark that forgets its trial; why it cannot, once said."""
        try:
            self._mark_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if good is not None and good.digest != self._good and not good.restart:
                over = b"" if good.overlay is None else _OVER + msgspec.json.encode(good.overlay, order="sorted")
                replace_file(self.good_path, good.raw + over)
                self._good = good.digest
            if mark != self._mark:
                replace_file(self._mark_path, msgspec.json.encode(mark))
                self._mark = mark
        except OSError as error:
            why = f"{self._mark_path.parent} cannot be written ({error.strerror})"
            if why != self._unsaved:
                log.warning("%s: a bad change may outlive a restart.", why)
            self._unsaved = why
            return why
        self._unsaved = None
        return None
