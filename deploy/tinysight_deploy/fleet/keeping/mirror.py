"""The audit log once more, as a file: another copy than the database, and what rollouts can be made from again.

In: a `State`.  Out: a file, a line an entry, as they are hashed; or a state again of such a file. The file is only
ever appended to, and what is in it is on the disk. It is never written over when it disagrees with the database: then
one of both was cut off or changed, and a person has to look.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from msgspec.structs import replace

from tinysight_contract.errors import FleetError
from tinysight_contract.files import fsync_folder
from tinysight_deploy.fleet.keeping.audit import MAX_LINE, ZEROS, Entry, read_line, verify
from tinysight_deploy.fleet.keeping.rows import Boxed, Remade
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Key, Rollout, Wish

__all__ = ["NAME", "Mirror", "entries", "lines_of", "rebuild", "replay"]

NAME: Final = "audit.jsonl"
PAGE: Final = 100  # lines in memory at once
_MEND_COPY: Final = "Find out who changed it, then move it away: a whole one is written again."


class Mirror:
    """``audit.jsonl`` in a folder. For one process at a time; others are refused.

    Args:
        folder: where it lies.
        name: another one, of the state's, where several may lie in one folder.
    """

    def __init__(self, folder: Path, name: str = NAME) -> None:
        self.path = folder / name
        self._known: tuple[int, int, int] | None = None
        self._last: tuple[int, str] = (0, ZEROS)

    def append(self, state: State) -> int:
        """Write what is new, and see it on the disk; how many entries that were. A torn line is mended first.

        Raises:
            FleetError: the file cannot be written, another process writes it, or it and the database disagree.
        """
        try:
            return self._append(state)
        except OSError as error:
            self._known = None  # half a line may be there
            raise FleetError(
                f"{self.path} cannot be written: {error.strerror or error}.",
                mend="Check the folder's rights and the free space; what is missing is then written by itself.",
            ) from error

    def _append(self, state: State) -> int:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = not self.path.exists()
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "r+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FleetError(
                    f"{self.path} is being written by another process.",
                    mend="Leave it, it is tried again; when that lasts, give each controller a folder of its own.",
                ) from error
            if made:
                fsync_folder(self.path.parent)
            if self._known is None or _where(file) != self._known:
                self._last = _last_of(file, self.path)
                self._compare(state)
            count = 0
            while lines := state.lines(self._last[0], PAGE):
                last, broken = verify(lines, last=self._last)
                if broken is not None:
                    raise _disagree(self.path, state, broken.what)
                _write_all(file, b"".join(line + b"\n" for line in lines))
                os.fsync(file.fileno())
                self._last, count = last, count + len(lines)
            self._known = _where(file)
        return count

    def _compare(self, state: State) -> None:
        """See that the newest line is the database's of that number."""
        seq, hashed = self._last
        if seq == 0:
            return
        lines = state.lines(seq - 1, 1)
        if not lines:
            raise _disagree(self.path, state, f"the database has no entry {seq}")
        if verify(lines, last=(seq - 1, read_line(lines[0]).before))[0] != (seq, hashed):
            raise _disagree(self.path, state, f"entry {seq} is another one there")


def lines_of(path: Path, most: int | None = None) -> Iterator[bytes]:
    """The lines of such a file, with their ends; what follows the last end too. A line that is too long is cut.

    Args:
        path: of the file.
        most: bytes of it that are looked at; all unless given.

    Raises:
        FleetError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE + 2 if most is None else min(MAX_LINE + 2, most)):
                most = None if most is None else most - len(line)
                yield line
    except OSError as error:
        raise FleetError(f"{path} cannot be read: {error.strerror}.", mend="Check its path and its rights.") from error


def entries(path: Path) -> Iterator[tuple[bytes, Entry]]:
    """Lines and entries, up to a torn last line.

    Raises:
        FleetError: the file cannot be read, or one of them is not as it was written.
    """
    last = (0, ZEROS)
    mend = "Find out who changed it; take another copy of the file, or one that ends before."
    for line in lines_of(path):
        if not line.endswith(b"\n") and len(line) <= MAX_LINE:
            return
        try:
            entry = read_line(line[:-1])
        except FleetError as error:
            raise FleetError(f"{path}, line {last[0] + 1}: {error.what}", mend=mend) from error
        if (broken := verify([entry], last=last)[1]) is not None:
            raise FleetError(f"{path}, line {broken.seq}: {broken.what}", mend=mend)
        last = entry.seq, entry.hash
        yield line[:-1], entry


def rebuild(state: State, path: Path, *, who: str = "rebuild") -> Remade:
    """Make rollouts again of a log, when the database is gone. The log goes on where the file ends.

    What was asked is known again, and who failed; what else became of it is in the broker, and is judged anew. Tokens
    are not in the log: they have to be made again. What the database knew and the file did not is lost.

    Args:
        state: an empty one.
        path: of the file.
        who: for the audit log.

    Raises:
        FleetError: the file cannot be read or was changed, or the state is not empty.
    """
    replaying = _Replay()

    def lines() -> Iterator[bytes]:
        for line, entry in entries(path):
            replaying.take(entry)
            yield line

    return state.restore(lines(), replaying.remade, who=who)


def replay(log: Iterable[Entry]) -> Remade:
    """What a log says that the state was.

    Raises:
        FleetError: an entry says what cannot be.
    """
    replaying = _Replay()
    for entry in log:
        replaying.take(entry)
    return replaying.remade()


class _Replay:
    """Does again what entries say, one after another."""

    def __init__(self) -> None:
        self._rollouts: dict[str, tuple[int, Rollout]] = {}
        self._wishes: dict[str, dict[Key, Wish]] = {}
        self._boxed: dict[Key, Boxed] = {}
        self._epoch = 0

    def remade(self) -> Remade:
        """What the state was after them."""
        return Remade(rollouts=self._rollouts, wishes=self._wishes, boxed=self._boxed, epoch=self._epoch)

    def take(self, entry: Entry) -> None:
        """Do again what the next one says.

        Raises:
            FleetError: that cannot be.
        """
        try:
            if entry.what == "lead":
                self._epoch = max(self._epoch, int(entry.detail["epoch"]))
            elif entry.what == "settle":
                _replay_settle(entry.detail, self._wishes, self._boxed)
            else:
                _replay_rollout(entry, self._rollouts, self._wishes)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise FleetError(
                f"Entry {entry.seq} of the log cannot be done again: {error}.",
                mend="Read it with `tinysight audit show`; was it written by another version of TinySight?",
            ) from error


def _replay_settle(detail: dict[str, Any], wishes: dict[str, dict[Key, Wish]], boxed: dict[Key, Boxed]) -> None:
    asked = wishes.get(detail["rollout"], {})
    for each in detail["failing"]:
        key = str(each["site"]), str(each["device"])
        asked[key] = msgspec.convert({**msgspec.to_builtins(asked[key]), **each}, Wish)
    for each in detail["boxes"]:
        key = str(each["site"]), str(each["device"])
        boxed.pop(key, None)
        if each["penalty"] is not None:
            boxed[key] = msgspec.convert(each["penalty"], Boxed)


def _replay_rollout(entry: Entry, rollouts: dict[str, tuple[int, Rollout]], wishes: dict[str, dict[Key, Wish]]) -> None:
    detail = entry.detail
    if entry.what == "begin":
        begun = msgspec.convert(detail["begun"], Rollout)
        rollouts[begun.id] = entry.seq, begun
        wishes[begun.id] = {}
        if (forgot := detail.get("forgot")) is not None:
            rollouts.pop(forgot, None)
            wishes.pop(forgot, None)
        return
    changes: dict[str, Any]
    if entry.what == "ask":
        asked = msgspec.convert(detail["wishes"], list[Wish])
        wishes[detail["rollout"]].update({wish.key: wish for wish in asked})
        changes, latest_s = {}, max(wish.sent_s for wish in asked)
    elif "set" in detail:
        changes, latest_s = detail["set"], float(detail["clock_s"])
    else:
        return
    seq, old = rollouts[detail["rollout"]]
    new = msgspec.convert({**msgspec.to_builtins(old), **changes}, Rollout)
    rollouts[new.id] = seq, replace(new, clock_s=max(new.clock_s, latest_s, float(detail["clock_s"])))


def _last_of(file: BinaryIO, path: Path) -> tuple[int, str]:
    """Number and hash of the last whole line. What stands behind it, a power cut has left there: it is taken off."""
    size = file.seek(0, os.SEEK_END)
    begin = max(0, size - 4 * (MAX_LINE + 1))  # at least two whole lines, and a torn one
    file.seek(begin)
    tail = b""
    while piece := file.read(size - begin - len(tail)):
        tail += piece
    whole = tail.rfind(b"\n") + 1
    if whole < len(tail):
        os.ftruncate(file.fileno(), begin + whole)
        os.fsync(file.fileno())
    if whole == 0:
        return 0, ZEROS
    lines = tail[:whole].split(b"\n")[0 if begin == 0 else 1 : -1]  # the first may be half of one
    try:
        newest = [read_line(line) for line in lines[-2:]]
    except FleetError as error:
        raise FleetError(f"{path}: a last line is none of an audit log.", mend=_MEND_COPY) from error
    last = newest[-1]
    if last.before != (newest[0].hash if len(newest) == 2 else ZEROS):
        raise FleetError(f"{path}: the last line does not follow the one before it.", mend=_MEND_COPY)
    return last.seq, last.hash


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _where(file: BinaryIO) -> tuple[int, int, int]:
    stat = os.fstat(file.fileno())
    return stat.st_dev, stat.st_ino, stat.st_size


def _disagree(path: Path, state: State, what: str) -> FleetError:
    return FleetError(
        f"{path} and {state.url} disagree: {what.rstrip('.')}.",
        mend="Run `tinysight audit verify`. When the database was begun anew, rebuild it from that file, or move that.",
    )
