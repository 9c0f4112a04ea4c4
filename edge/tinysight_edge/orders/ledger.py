"""Which commands were carried out, so that none is twice though it is delivered twice.

In: ids before and after.  Out: the answer to a command that is known; the answers that an ended process still owes. One
file, ``commands.json``, written before a command is carried out and after. Used by one thread.
"""

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tinysight_contract.files import read_capped, replace_file
from tinysight_contract.messages import Ack, AckCode
from tinysight_contract.scalars import Id

__all__ = ["KNOWN", "Ledger"]

log = logging.getLogger(__name__)

KNOWN: Final = 256
"""So many of the newest are remembered."""
MAX_BYTES: Final = 4 * 1024 * 1024


class _Entry(Struct, frozen=True, kw_only=True):
    """One command; ``ack`` is null while it is carried out."""

    id: Id
    name: Id
    ack: Ack | None = None


class Ledger:
    """The commands of one device.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: dict[str, _Entry] = {}
        self._refused: dict[str, Ack] = {}

    def open(self, now: datetime) -> Iterator[Ack]:
        """Read the file; the answers to what was being carried out when the last process ended. Nobody knows of these.

        A file that cannot be read is said, and as if it were not there.
        """
        try:
            entries = msgspec.json.decode(read_capped(self._path, MAX_BYTES), type=list[_Entry])
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("%s cannot be read, so a command may be carried out again: %s", self._path, error)
            return
        self._done = {each.id: each for each in entries[-KNOWN:]}
        for entry in list(self._done.values()):
            if entry.ack is None:
                why = "The agent ended while it was carried out. See how the device is, and send another."
                ack = Ack(id=entry.id, name=entry.name, ok=False, at=now, error=why, code=AckCode.INTERRUPTED)
                self.done(ack)
                yield ack

    def answer(self, id_: str) -> Ack | None:
        """What was answered to a command that is known."""
        entry = self._done.get(id_)
        return self._refused.get(id_) if entry is None else entry.ack

    def begin(self, id_: str, name: str) -> bool:
        """Remember that a command is about to be carried out; whether a restart will know it, too."""
        return self._put(_Entry(id=id_, name=name))

    def forget(self, id_: str) -> None:
        """What was begun is not done after all."""
        self._done.pop(id_, None)

    def done(self, ack: Ack) -> None:
        """Remember what became of it."""
        self._put(_Entry(id=ack.id, name=ack.name, ack=ack))

    def refused(self, ack: Ack) -> None:
        """Remember an answer as long as this process lives: what was not carried out costs no write."""
        self._refused[ack.id] = ack
        if len(self._refused) > KNOWN:
            del self._refused[next(iter(self._refused))]

    def _put(self, entry: _Entry) -> bool:
        self._done.pop(entry.id, None)
        self._done[entry.id] = entry
        if len(self._done) > KNOWN:
            del self._done[next(iter(self._done))]
        try:
            replace_file(self._path, msgspec.json.encode(list(self._done.values())))
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error.strerror)
            return False
        return True
