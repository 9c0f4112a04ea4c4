"""What of the hard examples may be sent, and what has been: remembered in ``sent.json``, beside them.

In: the folder of `examples`, the cameras as they are configured.  Out: pictures that are to be sent, the oldest first.
A picture counts only when it was kept under the privacy polygons, crop and turn that its camera has now: whenever these
are not the ones that were remembered, what lies there is marked, for good, as not to be sent. No clock of the day has a
say in that, for it may jump. Used by one thread; no network.
"""

import hashlib
import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tinysight_contract.files import read_capped, replace_file
from tinysight_contract.messages import utc_now
from tinysight_edge.config.types import CameraConfig

__all__ = ["Sent"]

log = logging.getLogger(__name__)

SETTLE_S: Final = 30.0
"""What comes so soon after a change may still be of before it."""
SAVE_EVERY: Final = 20
_MEMORY: Final = "sent.json"
_MEMORY_BYTES: Final = 16 << 20


class _Memory(Struct):
    """What is remembered.

    Attributes:
        names: of pictures that are not to be sent, or not again.
        views: by camera, what its pictures were kept under: a digest of its privacy, crop and turn.
        day: of ``bytes``, UTC.
        bytes: sent on that day.
    """

    names: list[str] = []
    views: dict[str, str] = {}
    day: str = ""
    bytes: int = 0


class _Change(Struct, frozen=True):
    """A camera's view that is new, and since when, in seconds of the monotonic clock."""

    view: str
    since_s: float


class Sent:
    """What may be sent of a folder of examples.

    Args:
        folder: with ``images`` in it; made by whoever keeps pictures.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._images = folder, folder / "images"
        self._changes: dict[str, _Change] = {}
        self._loaded: _Memory | None = None
        self._unsaved = 0

    def look(self, cameras: Mapping[str, CameraConfig]) -> None:
        """See whether a camera's view is still the one that was remembered, and mark its pictures when it is not."""
        memory, now_s, noticed = self._memory, time.monotonic(), False
        for id_, camera in cameras.items():
            view, change = _view(camera), self._changes.get(id_)
            if change is None and memory.views.get(id_) == view:
                continue
            if change is None or change.view != view:
                change = self._changes[id_] = _Change(view, now_s)
                noticed = True
                memory.views.pop(id_, None)
            self._withhold(id_)
            if now_s - change.since_s >= SETTLE_S:
                memory.views[id_] = view
                del self._changes[id_]
                noticed = True
        self._unsaved += noticed
        self.save()

    @property
    def due(self) -> bool:
        """Whether a change has settled, so that what is kept from now on may be sent once `look` has seen it."""
        return any(time.monotonic() - change.since_s >= SETTLE_S for change in self._changes.values())

    def fresh(self, cameras: Collection[str]) -> list[Path]:
        """What is to be sent, the oldest of each camera first. Call `look` before."""
        known = set(self._memory.names)
        sure = {id_ for id_ in cameras if id_ in self._memory.views and id_ not in self._changes}
        return [path for path in self._pictures() if path.parent.name in sure and self._name(path) not in known]

    def left(self, per_day: int) -> int:
        """How many bytes may go today."""
        self._today()
        return max(per_day - self._memory.bytes, 0)

    def spend(self, size: int) -> None:
        """So many bytes go now."""
        self._today()
        self._memory.bytes += size
        self._unsaved = max(self._unsaved, 1)

    def done(self, path: Path) -> None:
        """A picture need not be sent any more."""
        self._memory.names.append(self._name(path))
        self._unsaved += 1
        if self._unsaved >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write down what has changed, without pictures that are gone. A disk that says no costs what is sent again."""
        if not self._unsaved:
            return
        memory = self._memory
        memory.names = [name for name in memory.names if (self._images / name).exists()]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._folder / _MEMORY, msgspec.json.encode(memory))
        except OSError as error:
            log.warning("%s cannot be written: %s", _MEMORY, error.strerror)
        self._unsaved = 0

    @property
    def _memory(self) -> _Memory:
        if self._loaded is None:
            try:
                self._loaded = msgspec.json.decode(read_capped(self._folder / _MEMORY, _MEMORY_BYTES), type=_Memory)
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
                self._loaded = _Memory()  # and what lies there is of unknown views, so it stays
        return self._loaded

    def _today(self) -> None:
        today = f"{utc_now():%Y-%m-%d}"
        if self._memory.day != today:
            self._memory.day, self._memory.bytes = today, 0

    def _withhold(self, camera: str) -> None:
        """Mark what lies there of a camera."""
        known = set(self._memory.names)
        found = [self._name(path) for path in self._pictures() if path.parent.name == camera]
        found = [name for name in found if name not in known]
        if found:
            log.info("%d hard examples of %s were kept under another view, and are not sent", len(found), camera)
            self._memory.names += found
            self._unsaved += 1

    def _pictures(self) -> list[Path]:
        """All, as ``images/<device>/<camera>/<name>.jpg``."""
        return sorted(path for path in self._images.glob("*/*/*.jpg") if not path.name.startswith("."))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._images).as_posix()


def _view(camera: CameraConfig) -> str:
    """A digest of all that says which part of a camera's picture is seen."""
    told = [camera.rotate, camera.flip, camera.crop, camera.privacy]
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:32]
