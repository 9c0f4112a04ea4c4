"""A repository on a web server, over connections that break.

In: a path.  Out: its bytes in memory, or a file that grows across any number of connections. A server may be slow, cut,
lie about lengths, ignore Range, or answer for ever: each costs a bounded number of tries, bytes and seconds (`Budget`).
What an answer means is decided in `http_answer`; connections are made in `http_line`, files grow in `http_part`.
"""

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

import urllib3

from tinysight_contract import __version__
from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.http_answer import (
    AgainError,
    is_distrust,
    length_of,
    short,
    too_slow,
    unreachable,
    verdict,
)
from tinysight_edge.update.http_line import Line, trusted_context
from tinysight_edge.update.http_part import Part
from tinysight_edge.update.sources import Budget, check_path, sync, too_large

__all__ = ["HttpSource"]

_log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 1 << 16
GAIN_BYTES: Final = 1 << 14
"""A try that brought at least so much does not count as one."""
SMALL: Final = Budget(tries=4, seconds=120.0, window_s=20.0)
FIRST_PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 60.0


class HttpSource:
    """A repository at an ``http(s)://`` address. Nothing is asked before the first call.

    Args:
        where: the repository's root; may hold ``user:password@``.
        ca: certificates to trust instead of the system's.
        small: what `read` may cost.
        wait: sleeps for so many seconds between tries.
        clock: seconds, monotonic.
        dice: 0..1, for the length of pauses.

    Raises:
        UpdateError: UNREACHABLE, ``where`` is no such address, or ``ca`` no file of certificates.
    """

    def __init__(
        self,
        where: str,
        *,
        ca: Path | None = None,
        small: Budget = SMALL,
        wait: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        try:
            url = urllib3.util.parse_url(where)
        except urllib3.exceptions.LocationParseError:
            url = urllib3.util.Url()
        if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
            raise UpdateError(
                f"{where.rpartition('@')[2][:200]!r} is no address of a repository.",
                mend="Give a folder's path, or an address such as https://models.example.com/repo.",
                code=Code.UNREACHABLE,
            )
        self._root = url._replace(auth=None, path=(url.path or "").rstrip("/")).url
        self._headers = {"User-Agent": f"tinysight/{__version__}", "Accept-Encoding": "identity"}
        if url.auth:
            self._headers["Authorization"] = urllib3.make_headers(basic_auth=url.auth)["authorization"]
        self._context = trusted_context(ca)
        self._small, self._wait, self._clock, self._dice = small, wait, clock, dice

    @property
    def name(self) -> str:
        """The address, without a password."""
        return self._root

    def read(self, path: str, most: int) -> bytes:
        """See `Source.read`."""
        url = self._url(path)
        got = bytearray()

        def take(data: bytes) -> None:
            got.extend(data)
            if len(got) > most:
                raise too_large(url, most)

        def once(tries: _Tries) -> None:
            got.clear()
            with tries.answer({}) as answer:
                if (length_of(answer.headers) or 0) > most:
                    raise too_large(url, most)
                tries.drain(answer, take)

        self._tries(url, self._small).keep_on(once, tell=lambda _: None)
        return bytes(got)

    def fetch(self, path: str, to: Path, *, size: int, disk: Disk, budget: Budget, tell: Callable[[int], None]) -> None:
        """See `Source.fetch`."""
        url = self._url(path)
        part = Part(url, to, size, disk)
        most = 2 * size + (1 << 20) if budget.most_bytes is None else budget.most_bytes
        tries = self._tries(url, budget)

        def take(data: bytes) -> None:
            tell(len(data))
            part.take(data)
            if tries.received > most and part.have < size:
                raise UpdateError(
                    f"{url}: {tries.received} bytes were received, and it is not whole yet.",
                    mend="Check the connection to the server and try again; what is here is kept.",
                    code=Code.TOO_LARGE,
                )

        def once(tries: _Tries) -> None:
            had = part.have
            try:
                with tries.answer(part.wanted()) as answer:
                    part.begin(answer.status, answer.headers)
                    tries.drain(answer, take)
            except AgainError:
                if part.have < size:  # else all is here, and only the end of the answer is not
                    raise
            finally:
                tries.gained = max(part.have - had, 0)
            if part.have < size:
                raise AgainError(unreachable(url, f"it ended after {part.have} of {size} bytes"))

        if part.have < size:
            tries.keep_on(once, tell=tell)
        sync(disk, to)

    def _url(self, path: str) -> str:
        return f"{self._root}/{quote(check_path(path))}"

    def _tries(self, url: str, budget: Budget) -> "_Tries":
        return _Tries(
            url,
            budget,
            headers=self._headers,
            line=lambda: Line(self._context),
            wait=self._wait,
            clock=self._clock,
            dice=self._dice,
        )


class _Tries:
    """One transfer within its budget.

    Attributes:
        received: bytes so far, with those that were thrown away.
        gained: bytes that the last try added.
    """

    def __init__(
        self,
        url: str,
        budget: Budget,
        *,
        headers: Mapping[str, str],
        line: Callable[[], Line],
        wait: Callable[[float], object],
        clock: Callable[[], float],
        dice: Callable[[], float],
    ) -> None:
        self.received = self.gained = 0
        self._url, self._budget, self._headers, self._new_line = url, budget, headers, line
        self._wait, self._clock, self._dice = wait, clock, dice
        self._until_s = clock() + budget.seconds
        self._line = line()

    def keep_on(self, once: Callable[["_Tries"], None], *, tell: Callable[[int], None]) -> None:
        """Try until it is done, or the budget is.

        Raises:
            UpdateError: it is not done.
        """
        fruitless = 0
        while True:
            self.gained = 0
            try:
                with self._new_line() as self._line:
                    once(self)
            except AgainError as trouble:
                fruitless = 0 if self.gained >= GAIN_BYTES else fruitless + 1
                if fruitless >= self._budget.tries:
                    raise trouble.error from trouble
                most_s = min(MOST_PAUSE_S, FIRST_PAUSE_S * 2.0**fruitless)
                pause_s = self._dice() * most_s if trouble.pause_s is None else trouble.pause_s
                if self._clock() + pause_s >= self._until_s:
                    raise UpdateError(
                        f"{self._url} did not come within {self._budget.seconds:g} s. {trouble.error.what}",
                        mend="Check the connection and try again; what is here is kept.",
                        code=trouble.error.code,
                    ) from trouble
                if fruitless == 1:
                    _log.info("%s Trying again.", trouble.error.what)
                tell(0)
                self._wait(pause_s)
            else:
                return

    @contextlib.contextmanager
    def answer(self, headers: Mapping[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
        """An answer with a body that is worth reading; what goes wrong while it is read is told as ours.

        Raises:
            AgainError: another try may help.
            UpdateError: none will.
        """
        window_s, left_s = self._budget.window_s, max(self._until_s - self._clock(), 0.001)
        try:
            with self._line.within(min(2 * window_s, left_s)):
                answer = self._line.get(self._url, {**self._headers, **headers}, silence_s=min(window_s, left_s))
            try:
                if self._line.cut:  # and what looks like the end of the headers is none
                    raise AgainError(too_slow(self._url))
                if (trouble := verdict(answer.status, answer.headers, self._url)) is not None:
                    raise trouble
                yield answer
            finally:
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if is_distrust(error):
                raise UpdateError(
                    f"{self._url}: the server's certificate is not trusted: {short(error)}.",
                    mend="Check this device's clock, and name the server's CA if it has one of its own.",
                    code=Code.UNREACHABLE,
                ) from error
            if self._line.cut or isinstance(error, urllib3.exceptions.ReadTimeoutError):
                raise AgainError(too_slow(self._url)) from error
            raise AgainError(unreachable(self._url, short(error))) from error

    def drain(self, answer: urllib3.BaseHTTPResponse, take: Callable[[bytes], None]) -> None:
        """Hand over the body as it comes, as long as it comes fast enough."""
        with self._line.within(self._until_s - self._clock()):
            began_s, came = self._clock(), 0
            while data := answer.read1(CHUNK_BYTES, decode_content=False):
                self.received += len(data)
                came += len(data)
                take(data)
                if (passed_s := self._clock() - began_s) >= self._budget.window_s:
                    if came < self._budget.least_bytes_s * passed_s:
                        raise AgainError(too_slow(self._url))
                    began_s, came = self._clock(), 0
        if self._line.cut:
            raise AgainError(too_slow(self._url))
