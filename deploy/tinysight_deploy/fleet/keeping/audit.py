"""The audit log: who did what, each entry bound to the one before by its hash. No I/O.

In: what was done.  Out: an `Entry`, and its line: canonical JSON, sorted keys, no spaces. An entry's hash is the
SHA-256 of that line without the hash itself, so it vouches for all before. Who changes one byte of an entry, takes one
away or puts one between breaks the chain there. Cutting off the newest entries does not: for that compare with a head
that was known, or with the mirror (`mirror`).
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from tinysight_contract.errors import ConfigError, FleetError
from tinysight_contract.scalars import Digest, Time

__all__ = [
    "MAX_LINE",
    "MAX_WHAT",
    "ZEROS",
    "Broken",
    "Entry",
    "Examined",
    "cleaned",
    "examine",
    "follow",
    "line_of",
    "read_line",
    "verify",
]

ZEROS: Final = "0" * 64
"""What the first entry has as the hash before."""
MAX_LINE: Final = 1 << 20
"""Bytes of an entry's line."""
MAX_WHO: Final = 100
MAX_WHAT: Final = 40


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that was done.

    Attributes:
        seq: its number, from 1, without gaps.
        at: when, by the clock of the machine that wrote it; decides nothing.
        who: a person's or a controller's name.
        what: in a word, such as ``begin``, ``ask``, ``halt``.
        detail: what is needed to do it again.
        before: hash of the entry before; 64 zeros in the first.
        hash: SHA-256 over all of that.
    """

    seq: Annotated[int, Meta(ge=1)]
    at: Time
    who: str
    what: str
    detail: dict[str, Any]
    before: Digest
    hash: Digest


class Broken(Struct, frozen=True, kw_only=True):
    """Where a log is first not as it was written.

    Attributes:
        seq: of the entry; in a file also the line.
        what: how it is wrong, one sentence.
    """

    seq: int
    what: str


def cleaned(text: str, most: int) -> str:
    """Text of others as the log keeps it: no control characters, no odd spaces, at most so many characters."""
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text[: most * 4])
    return " ".join(kept.split())[:most].rstrip()


def follow(last: tuple[int, str], *, who: str, what: str, detail: Mapping[str, Any], at: datetime) -> Entry:
    """The entry that comes after another.

    Args:
        last: number and hash of the one before; ``(0, ZEROS)`` when there is none.
        who: is bounded and cleaned.
        what: likewise.
        detail: whatever JSON can say.
        at: aware.

    Raises:
        ConfigError: the detail is no JSON, or too long.
    """
    try:
        told = msgspec.json.decode(msgspec.json.encode(detail), type=dict[str, Any])
        entry = Entry(
            seq=last[0] + 1,
            at=at.astimezone(UTC),
            who=cleaned(who, MAX_WHO) or "unknown",
            what=cleaned(what, MAX_WHAT) or "unknown",
            detail=told,
            before=last[1],
            hash=ZEROS,
        )
        entry = msgspec.structs.replace(entry, hash=_hash(entry))
        size = len(line_of(entry))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"The audit log cannot keep that: {error}.", mend="Give text, numbers and lists.") from error
    if size > MAX_LINE:
        raise ConfigError(f"An entry of {size:,} bytes is too long for the audit log.", mend="Say less at a time.")
    return entry


def line_of(entry: Entry) -> bytes:
    """Its canonical JSON, without a line's end."""
    return msgspec.json.encode(entry, order="sorted")


def read_line(line: bytes) -> Entry:
    """The inverse of `line_of`; what was written in any other way is refused.

    Raises:
        FleetError: it is no such line.
    """
    mend = "Run `tinysight audit verify`."
    if len(line) > MAX_LINE:
        raise FleetError(f"A line of {len(line):,} bytes is no entry of an audit log.", mend=mend)
    try:
        entry = msgspec.json.decode(line, type=Entry)
        same = line_of(entry) == line
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise FleetError("The line is no entry of an audit log.", mend=mend) from error
    if not same:
        raise FleetError("The line is not written as an audit log writes.", mend=mend)
    return entry


def verify(
    log: Iterable[bytes | Entry], *, last: tuple[int, str] = (0, ZEROS)
) -> tuple[tuple[int, str], Broken | None]:
    """Number and hash of the last that is as it was written, and what comes wrong then; None when nothing does.

    Args:
        log: entries or their lines without ends, in their order.
        last: number and hash of the entry before them.
    """
    for each in log:
        try:
            entry = each if isinstance(each, Entry) else read_line(each)
        except FleetError as error:
            return last, Broken(seq=last[0] + 1, what=error.what)
        if (wrong := _wrong(entry, last)) is not None:
            return last, wrong
        last = entry.seq, entry.hash
    return last, None


class Examined(Struct, frozen=True, kw_only=True):
    """What a look at a whole log gave.

    Attributes:
        entries: how many are right, from the first on.
        head: hash of the last of them; 64 zeros without one.
        broken: what comes wrong then; null when nothing does.
    """

    entries: int
    head: str
    broken: Broken | None = None


def examine(lines: Iterable[bytes], *, mirror: Iterable[bytes] | None = None, head: str | None = None) -> Examined:
    """Look at a whole log, and at whether all is there that was there once.

    Args:
        lines: each with its end.
        mirror: lines of another copy; it may lag behind, and its last line may be torn.
        head: hash of an entry that was the newest once.
    """
    copy = iter(mirror or ())
    last: tuple[int, str] = (0, ZEROS)
    found = head in {None, ZEROS}
    for line in lines:
        seq = last[0] + 1
        if not line.endswith(b"\n"):
            broken: Broken | None = Broken(seq=seq, what=f"Line {seq} has no end: it is torn, or was changed.")
        else:
            last, broken = verify([line[:-1]], last=last)
        if broken is None and (other := next(copy, None)) is not None and other != line and other.endswith(b"\n"):
            broken = Broken(seq=seq, what=f"Entry {seq} is another one in the mirror.")
        if broken is not None:
            return Examined(entries=seq - 1, head=last[1], broken=broken)
        found = found or last[1] == head
    seq, broken = last[0] + 1, None
    if (other := next(copy, None)) is not None and other.endswith(b"\n"):
        broken = Broken(seq=seq, what=f"Entry {seq} is missing: the mirror has it. The log was cut off.")
    elif not found:
        broken = Broken(seq=seq, what="No entry has the known head: the log was cut off, or written anew.")
    return Examined(entries=last[0], head=last[1], broken=broken)


def _wrong(entry: Entry, last: tuple[int, str]) -> Broken | None:
    seq = last[0] + 1
    if entry.seq != seq:
        return Broken(seq=seq, what=f"Entry {entry.seq} stands where {seq} belongs.")
    if entry.before != last[1]:
        return Broken(seq=seq, what=f"Entry {seq} does not follow the one before it.")
    if _hash(entry) != entry.hash:
        return Broken(seq=seq, what=f"Entry {seq} is not what was written: its hash is another.")
    return None


def _hash(entry: Entry) -> str:
    fields = {name: getattr(entry, name) for name in ("at", "before", "detail", "seq", "what", "who")}
    return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()
