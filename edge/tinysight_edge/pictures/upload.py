"""Send hard examples to the fleet's server: whole pictures as they lie on disk, in pieces that can be taken up again.

In: the folder of `examples`, ``[fleet]`` of the configuration.  Out: each picture once at the server, no more than so
many bytes a day. Off unless ``upload`` is set. The configuration is looked at before each piece: once it is another,
nothing of a turn that began before goes out. Which pictures may go is for `sent` to say. Runs in a thread of its own,
never near a frame; a server that is away, full or hostile costs a pause.
"""

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from tinysight_contract.errors import DeviceError
from tinysight_contract.files import read_capped
from tinysight_edge.config.types import AgentConfig, FleetConfig
from tinysight_edge.pictures.sent import Sent

if TYPE_CHECKING:
    from tinysight_edge.update.http_line import Line

__all__ = ["Uploader"]

log = logging.getLogger(__name__)

PIECE_BYTES: Final = 256 << 10
MOST_BYTES: Final = 8 << 20
MOST_JUMPS: Final = 3
LOOK_S: Final = 60.0
NOTICE_S: Final = 1.0
LATER_S: Final = 900.0
FULL_S: Final = 3600.0
SILENCE_S: Final = 30.0
PIECE_S: Final = 120.0
"""For one piece: a server or a line that is slower is tried again later."""
END_WITHIN_S: Final = 0.5


class _Answer(NamedTuple):
    """What a server says.

    Attributes:
        status: of HTTP.
        at: bytes that are there; None when it does not say.
        whole: it has all of the picture.
    """

    status: int
    at: int | None
    whole: bool


class _Turn(NamedTuple):
    """What holds in one turn: the line, the configuration when it began, and ``[fleet]`` of it."""

    line: "Line"
    config: AgentConfig
    fleet: FleetConfig


class _LaterError(Exception):
    """Not now.

    Attributes:
        pause_s: how long to wait.
    """

    def __init__(self, why: str, *, pause_s: float) -> None:
        super().__init__(why)
        self.pause_s = pause_s


class Uploader:
    """Sends the examples of one device, as long as its ``with`` and as the configuration asks for it.

    Args:
        folder: of the examples, with ``images`` in it.
        site: the site's id.
        device: the device's id.
        config: what holds now.
        dice: 0..1, for the length of pauses.

    Attributes:
        sent: pictures that the server has, since the start.
    """

    def __init__(
        self,
        folder: Path,
        site: str,
        device: str,
        *,
        config: Callable[[], AgentConfig],
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._config, self._dice, self._sent = config, dice, Sent(folder)
        self._me = f"{site}/{device}"
        self._looked: AgentConfig | None = None
        self._said = ""
        self._failures = 0
        self.sent = 0
        self._off = threading.Event()
        self._line: Line | None = None
        self._thread = threading.Thread(target=self._live, name="uploads", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:  # what is under way is taken up at the next start
        self._off.set()
        if (line := self._line) is not None:
            line.cut_off()
        self._thread.join(END_WITHIN_S)

    # Everything below runs in the uploads' own thread.

    def _live(self) -> None:
        pause_s = LOOK_S * self._dice()  # a fleet that starts at once does not send at once
        while not self._off.is_set():
            try:
                if self._wait(pause_s):
                    return
                self.turn()
                pause_s, self._failures, self._said = LOOK_S, 0, ""
            except _LaterError as later:
                self._failures += 1
                longest_s = min(later.pause_s * 2.0 ** min(self._failures - 1, 10), max(LATER_S, later.pause_s))
                pause_s = longest_s * (0.5 + 0.5 * self._dice())
                self._say(f"hard examples are not sent: {later}")
            except Exception:
                log.exception("uploads broke; report this as a bug")  # seeing goes on without
                pause_s = FULL_S

    def _wait(self, pause_s: float) -> bool:
        """Wait, with an eye on the configuration; whether it is time to end."""
        until_s = time.monotonic() + pause_s
        while True:
            if (config := self._config()) is not self._looked or self._sent.due:
                self._look(config)
            if self._off.wait(max(min(until_s - time.monotonic(), NOTICE_S), 0.0)):
                return True
            if time.monotonic() >= until_s:
                return False

    def _look(self, config: AgentConfig) -> None:
        """See what a configuration means for the pictures that lie there, whether or not they are sent now."""
        self._looked = config
        if config.examples is not None:
            self._sent.look(config.cameras)

    def turn(self) -> None:
        """Send what is there, as far as the day's bytes go.

        Raises:
            _LaterError: not now.
        """
        config = self._config()
        self._look(config)
        fleet = config.fleet
        if fleet is None or fleet.upload is None or config.examples is None:
            return
        fresh = self._sent.fresh(config.cameras)
        if not fresh or not self._sent.left(fleet.upload):
            return
        from tinysight_edge.update.fleet_http import open_line  # noqa: PLC0415 -- the agent starts without

        try:
            with open_line(fleet) as line:
                self._line = line
                turn = _Turn(line, config, fleet)
                for path in fresh:
                    if not self._may(config) or not self._send(turn, path):
                        return
                    self._sent.done(path)
        except DeviceError as error:  # no token, or no certificates
            raise _LaterError(str(error), pause_s=LATER_S) from error
        finally:
            self._line = None
            self._sent.save()

    def _may(self, config: AgentConfig) -> bool:
        """Whether this turn may go on: it does not end, and what holds is what held when it began."""
        return not self._off.is_set() and self._config() is config

    def _send(self, turn: _Turn, path: Path) -> bool:
        """Bring one picture there; False when the turn is over.

        Raises:
            _LaterError: not now.
        """
        from tinysight_edge.update.fleet_http import headers_of  # noqa: PLC0415 -- the agent starts without

        try:
            data = read_capped(path, MOST_BYTES)
        except FileNotFoundError:
            return True  # it had to make room for newer ones
        except OSError as error:
            self._say(f"{path.name} is not sent: {error.strerror or error}")
            return True
        if len(data) > MOST_BYTES:
            self._say(f"{path.name} is larger than {MOST_BYTES >> 20} MiB and is not sent")
            return True
        url = f"{turn.fleet.url.rstrip('/')}/v1/examples/{self._me}/{hashlib.sha256(data).hexdigest()}"
        there = self._ask(turn.line, "HEAD", url, headers_of(turn.fleet), b"")
        if there.status not in {200, 204, 404}:
            raise _LaterError(f"the server answers {there.status}", pause_s=LOOK_S)
        if there.at is None:
            raise _LaterError("there is no server there that keeps them", pause_s=LATER_S)
        if there.whole:
            return True
        return self._send_from(turn, url, data, there.at)

    def _send_from(self, turn: _Turn, url: str, data: bytes, at: int) -> bool:
        """Send what is not there yet; as `_send`."""
        from tinysight_edge.update.fleet_http import headers_of  # noqa: PLC0415 -- the agent starts without

        jumps = 0
        while True:
            if not self._may(turn.config) or not (left := self._sent.left(turn.fleet.upload or 0)):
                return False
            at = at if at <= len(data) else 0  # more than all of it is nothing of use
            piece = data[at : at + min(PIECE_BYTES, left)]
            self._sent.spend(len(piece))
            told = {"Upload-Offset": str(at), "Upload-Length": str(len(data)), "Content-Type": "image/jpeg"}
            answer = self._ask(turn.line, "PATCH", url, headers_of(turn.fleet) | told, piece)
            if answer.status in {400, 413, 415, 422}:  # no other try would go better
                self._say(f"the server does not take a hard example: {answer.status} to {url}")
                return True
            if answer.status in {200, 204} and answer.at == at + len(piece):
                at = answer.at
                if at == len(data):
                    self.sent += 1
                    return True
            elif answer.status == 409 and answer.at not in {None, at} and jumps < MOST_JUMPS:
                at, jumps = answer.at or 0, jumps + 1
            else:
                raise _LaterError(f"the server answers {answer.status} at {answer.at}", pause_s=LOOK_S)

    @staticmethod
    def _ask(line: "Line", method: str, url: str, headers: dict[str, str], body: bytes) -> _Answer:
        """What the server says.

        Raises:
            _LaterError: nothing, or that it must be left alone.
        """
        import urllib3  # noqa: PLC0415 -- the agent starts without

        from tinysight_edge.update.http_answer import length_of, short  # noqa: PLC0415 -- likewise

        def number(name: str) -> int | None:
            return length_of({"Content-Length": answer.headers.get(name, "")})

        try:
            with line.within(PIECE_S):
                answer = line.send(method, url, headers, body, silence_s=SILENCE_S)
                answer.close()
        except urllib3.exceptions.HTTPError as error:
            raise _LaterError(short(error), pause_s=LOOK_S) from error
        if answer.status in {401, 403}:
            raise _LaterError(f"the server does not know this device ({answer.status})", pause_s=LATER_S)
        if answer.status in {429, 503, 507}:
            asked_s = float(min(number("Retry-After") or 0, 86400))
            why = "it has no room for more" if answer.status == 507 else f"the server answers {answer.status}"
            raise _LaterError(why, pause_s=max(asked_s, FULL_S if answer.status == 507 else LOOK_S))
        return _Answer(answer.status, number("Upload-Offset"), number("Upload-Length") is not None)

    def _say(self, what: str) -> None:
        if what != self._said:
            log.warning("%s", what)
            self._said = what
