"""What a web server's answer means for a transfer. No I/O.

In: a status and headers.  Out: nothing when the body is worth reading; an UpdateError when asking again is in vain;
an `AgainError` when it may help, with the pause that the server asks for.
"""

import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code

__all__ = [
    "AgainError",
    "Part",
    "is_distrust",
    "part_of",
    "retry_after_s",
    "short",
    "too_slow",
    "unreachable",
    "verdict",
]

MOST_RETRY_AFTER_S: Final = 600.0
_PASSING: Final = {408, 425, 429}  # and all of 5xx
_ABSENT: Final = {403, 404, 410}  # buckets answer 403 for what is not there
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,200}"')  # a strong one, which may be sent back as it is

Part = tuple[int, int, int | None]
"""First byte, last byte, and the whole file's size when the server says it."""


class AgainError(Exception):
    """This try failed; another may not.

    Attributes:
        error: what to raise when there is no other try.
        pause_s: how long the server asks to be left alone.
    """

    def __init__(self, error: UpdateError, *, pause_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.pause_s = error, pause_s


def verdict(status: int, headers: Mapping[str, str], url: str) -> AgainError | UpdateError | None:
    """Why an answer is of no use, or None."""
    if status in {200, 206}:
        encoding = headers.get("Content-Encoding", "").strip().lower()
        if encoding in {"", "identity"}:
            return None
        return UpdateError(
            f"{url} is sent in the encoding {encoding[:40]!r}.",
            mend="Switch compression off for the repository on the web server.",
            code=Code.MALFORMED,
        )
    if status in _ABSENT:
        return UpdateError(
            f"{url} is not there: the server answers {status}.",
            mend="Check the address, and publish the repository again.",
            code=Code.NOT_FOUND,
        )
    if status in {401, 407}:
        return UpdateError(
            f"{url} needs a login: the server answers {status}.",
            mend="Give it in the address, as https://user:password@host/path.",
            code=Code.UNREACHABLE,
        )
    if status == 416:
        return UpdateError(
            f"{url} ends before the part that is still missing.",
            mend="Publish the repository again: this copy of it is damaged.",
            code=Code.TAMPERED,
        )
    error = unreachable(url, f"the server answers {status}")
    if status in _PASSING or 500 <= status <= 599:
        return AgainError(error, pause_s=retry_after_s(headers, now=datetime.now(UTC)))
    return error


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """How long a server asks to be left alone, 0 to ``MOST_RETRY_AFTER_S``; None when it does not say.

    A date is taken against the server's own ``Date``, so that the clock of the device does not matter.
    """
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+", text):
        return MOST_RETRY_AFTER_S if len(text) > 6 else min(float(text), MOST_RETRY_AFTER_S)
    if (then := _date(text)) is None:
        return None
    since = _date(headers.get("Date", "")) or now
    return min(max((then - since).total_seconds(), 0.0), MOST_RETRY_AFTER_S)


def part_of(headers: Mapping[str, str]) -> Part | None:
    """Which part of a file a 206 holds, or None when that is not said or makes no sense."""
    if (found := _RANGE.fullmatch(headers.get("Content-Range", "").strip())) is None:
        return None
    first, last, whole = int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3])
    return None if first > last or (whole is not None and last >= whole) else (first, last, whole)


def strong_etag(headers: Mapping[str, str]) -> str | None:
    """What names this very content, or None."""
    etag = headers.get("ETag", "").strip()
    return etag if _ETAG.fullmatch(etag) else None


def length_of(headers: Mapping[str, str]) -> int | None:
    """How long the body is to be, or None when that is not said or makes no sense."""
    text = headers.get("Content-Length", "").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,30}", text) else None


def is_distrust(error: BaseException) -> bool:
    """Whether TLS found the server to be another than it says."""
    seen: BaseException | None = error
    while seen is not None:
        if any(isinstance(part, ssl.SSLCertVerificationError) for part in (seen, *seen.args)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def short(error: BaseException) -> str:
    """What went wrong, without the objects that urllib3 prints along."""
    text = re.sub(r"<?[\w.]+\(host=[^)]*\)>?: |<[^>]* at 0x[0-9a-f]+>: ", "", str(error)) or type(error).__name__
    return text[:200].rstrip(".")


def unreachable(url: str, why: str) -> UpdateError:
    """There is no answer, or none of use."""
    return UpdateError(
        f"{url} cannot be fetched: {why}.",
        mend="Check the network and the server, and try again.",
        code=Code.UNREACHABLE,
    )


def too_slow(url: str) -> UpdateError:
    """What comes, if anything, comes too slowly."""
    return UpdateError(
        f"{url} comes too slowly.",
        mend="Try again on a better connection; what is here is kept.",
        code=Code.TOO_SLOW,
    )


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
