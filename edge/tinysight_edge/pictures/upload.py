"""Send hard examples to the fleet's server: whole pictures as they lie on disk, in pieces that can be taken up again.

In: the folder of `examples`, ``[fleet]`` of the configuration.  Out: each picture once at the server, no more than so
many bytes a day. Off unless ``upload`` is set. Privacy polygons were blacked in the pictures before anything saw
them. Runs in a thread of its own, never near a frame; a server that is away, full or hostile costs a pause.
"""

import hashlib
import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec
from msgspec import Struct

from tinysight_contract.errors import DeviceError
from tinysight_contract.files import read_capped, replace_file
from tinysight_contract.messages import utc_now
from tinysight_edge.config.types import AgentConfig, FleetConfig

if TYPE_CHECKING:
    from tinysight_edge.update.http_line import Line

__all__ = ["Uploader"]

log = logging.getLogger(__name__)

PIECE_BYTES: Final = 256 << 10
MOST_BYTES: Final = 8 << 20
LOOK_S: Final = 60.0
LATER_S: Final = 900.0
FULL_S: Final = 3600.0
SILENCE_S: Final = 30.0
PIECE_S: Final = 120.0
"""For one piece: a server or a line that is slower is tried again later."""
END_WITHIN_S: Final = 0.5
_MEMORY: Final = "sent.json"
_MEMORY_BYTES: Final = 16 << 20


class _Sent(Struct):
    """What is remembered.

    Attributes:
        names: of pictures that need not be sent.
        day: of ``bytes``, UTC.
        bytes: sent on that day.
    """

    names: list[str] = []
    day: str = ""
    bytes: int = 0


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
        self._folder, self._config, self._dice = folder, config, dice
        self._me = f"{site}/{device}"
        self._memory: _Sent | None = None
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
        while not self._off.wait(pause_s):
            try:
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

    def turn(self) -> None:
        """Send what is there, as far as the day's bytes go.

        Raises:
            _LaterError: not now.
        """
        fleet = self._config().fleet
        if fleet is None or fleet.upload is None or not (images := self._folder / "images").is_dir():
            return
        found = sorted(path for path in images.rglob("*.jpg") if not path.name.startswith("."))
        memory = self._remembered()
        known = set(memory.names)
        fresh = [path for path in found if path.relative_to(images).as_posix() not in known]
        if not fresh:
            return
        memory.names = [name for name in memory.names if (images / name).exists()]
        from tinysight_edge.update.fleet_http import open_line  # noqa: PLC0415 -- the agent starts without

        try:
            with open_line(fleet) as line:
                self._line = line
                for path in fresh:
                    if self._off.is_set() or not self._send(line, fleet, path, memory):
                        return
                    memory.names.append(path.relative_to(images).as_posix())
                    self._remember(memory)
        except DeviceError as error:  # no token, or no certificates
            raise _LaterError(str(error), pause_s=LATER_S) from error
        finally:
            self._line = None

    def _send(self, line: "Line", fleet: FleetConfig, path: Path, memory: _Sent) -> bool:
        """Bring one picture there; False when today's bytes are used up."""
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
        url = f"{fleet.url.rstrip('/')}/v1/examples/{self._me}/{hashlib.sha256(data).hexdigest()}"
        status, at = self._ask(line, "HEAD", url, headers_of(fleet), b"")
        if status not in {200, 204, 404}:
            raise _LaterError(f"the server answers {status}", pause_s=LOOK_S)
        if at >= len(data):
            return True
        while at < len(data):
            piece = data[at : at + PIECE_BYTES]
            today = f"{utc_now():%Y-%m-%d}"
            if memory.day != today:
                memory.day, memory.bytes = today, 0
            if memory.bytes + len(piece) > (fleet.upload or 0):
                return False
            memory.bytes += len(piece)
            told = {"Upload-Offset": str(at), "Upload-Length": str(len(data)), "Content-Type": "image/jpeg"}
            status, there = self._ask(line, "PATCH", url, headers_of(fleet) | told, piece)
            if status in {400, 413, 415, 422}:  # no other try would go better
                self._say(f"the server does not take {path.name}: {status}")
                return True
            if status not in {200, 204, 409} or (status == 409 and there == at):
                raise _LaterError(f"the server answers {status}", pause_s=LOOK_S)
            at = there
        self.sent += 1
        return True

    @staticmethod
    def _ask(line: "Line", method: str, url: str, headers: dict[str, str], body: bytes) -> tuple[int, int]:
        """Status, and how many bytes are there."""
        import urllib3  # noqa: PLC0415 -- the agent starts without

        from tinysight_edge.update.http_answer import length_of, short  # noqa: PLC0415 -- likewise

        try:
            with line.within(PIECE_S):
                answer = line.send(method, url, headers, body, silence_s=SILENCE_S)
                answer.close()
        except urllib3.exceptions.HTTPError as error:
            raise _LaterError(short(error), pause_s=LOOK_S) from error
        if answer.status in {401, 403}:
            raise _LaterError(f"the server does not know this device ({answer.status})", pause_s=LATER_S)
        if answer.status in {429, 503, 507}:
            asked_s = float(min(length_of({"Content-Length": answer.headers.get("Retry-After", "")}) or 0, 86400))
            why = "it has no room for more" if answer.status == 507 else f"the server answers {answer.status}"
            raise _LaterError(why, pause_s=max(asked_s, FULL_S if answer.status == 507 else LOOK_S))
        there = length_of({"Content-Length": answer.headers.get("Upload-Offset", "")})
        return answer.status, min(there or 0, MOST_BYTES)

    def _remembered(self) -> _Sent:
        if self._memory is None:
            try:
                self._memory = msgspec.json.decode(read_capped(self._folder / _MEMORY, _MEMORY_BYTES), type=_Sent)
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
                self._memory = _Sent()  # what the server has it says itself
        return self._memory

    def _remember(self, memory: _Sent) -> None:
        try:
            replace_file(self._folder / _MEMORY, msgspec.json.encode(memory))
        except OSError as error:
            self._say(f"{_MEMORY} cannot be written: {error.strerror}")

    def _say(self, what: str) -> None:
        if what != self._said:
            log.warning("%s", what)
            self._said = what
