"""Watch ``agent.toml``: read it, keep what is good, and hand changes to the agent.

In: the file, and the states of the cameras.  Out: `Change`s for the runtime to apply, and what to say of the file. What
runs is decided by `reload`; no camera is opened here.

::

    FOLDER/agent.good.toml    the last content that stood its trial, byte for byte
    FOLDER/agent.trial.json   what is on trial and how often it was started; what was taken back, and why
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

import msgspec

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import read_capped, replace_file
from tinysight_contract.messages import CameraState
from tinysight_edge.config.file import MAX_BYTES, parse_config
from tinysight_edge.config.reload import Bad, Change, Content, Mark, Now, begin, changes, judge, mark_of, offer
from tinysight_edge.config.types import AgentConfig

__all__ = ["Reloader", "Watch"]

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
"""Between two looks at the file. A content counts when two looks have found the same: somebody may still write it."""
AGAIN_S: Final = 10.0
"""A refused content is checked again so often: a password file may have come."""
DELIVERS: Final = {CameraState.ONLINE, CameraState.FROZEN, CameraState.DARK, CameraState.COVERED}
"""States of a camera that gives pictures, whatever they show."""


class Reloader:
    """One file, and what is known of it.

    Call `start` once, then `poll` about every second from one thread; `note_camera` from any. `poll` reads and may
    write, so it does not belong into the inference loop: `Watch` gives it a thread.

    Args:
        path: the file.
        folder: for what must survive a restart; made when it is missing. One folder for each file.
        environ: the environment, for secrets.

    Attributes:
        labels: of the model, once it is known: a change that names others is refused.
        check: raises `ConfigError` for what the file alone does not show to be wrong; called by the thread that polls.
    """

    def __init__(self, path: Path, folder: Path, *, environ: Mapping[str, str]) -> None:
        self.path = path
        self.labels: Collection[str] | None = None
        self.check: Callable[[AgentConfig], None] = lambda _config: None
        self._good_path, self._mark_path = folder / "agent.good.toml", folder / "agent.trial.json"
        self._environ = environ
        self._lock = threading.Lock()
        self._delivering: set[str] = set()
        self._kept: tuple[str | None, Mark] = None, Mark()
        self._seen = self._asked = ""
        self._look_s = self._again_s = 0.0
        self._unsaved: str | None = None
        self._now: Now

    def start(self, now_s: float) -> AgentConfig:
        """What the agent shall run. Marks on disk that it is started.

        Raises:
            ConfigError: the file is wrong or missing, and there is no last good one.
        """
        offered = self._parse(self._read())
        self._seen = self._asked = offered.digest
        self._look_s, self._again_s = now_s + EVERY_S, now_s + AGAIN_S
        kept, mark = self._remembered()
        self._kept = kept.digest if kept else None, mark
        self._now = begin(offered, kept if isinstance(kept, Content) else None, mark, now_s)
        self._save(self._now)
        self._tell(None, self._now)
        return self._now.running.config

    def poll(self, now_s: float) -> Change | None:
        """Look at the file and at the cameras; what the agent has to change now, or None."""
        if now_s < self._look_s:
            return None
        self._look_s = now_s + EVERY_S
        before, delivering = self._now, self._snapshot()
        now = judged = judge(before, delivering, now_s)
        if (offered := self._look(now_s)) is not None:
            now = offer(judged, offered, delivering, now_s)
        error = self._save(now)
        if error is not None and now.trial is not None and now.running.digest != before.running.digest:
            unmarked = ConfigError(f"{self.path} cannot be tried: {error}.", mend="Mend the disk; it is tried again.")
            now = replace(judged, refused=Bad(now.running.digest, unmarked))
        self._now = now
        self._tell(before, now)
        if now.running.config == before.running.config:
            return None
        why = now.refused.error.what if now.refused is not None else f"{self.path.name} has changed"
        change = changes(before.running.config, now.running, why=why)
        with self._lock:  # what is opened again has to show itself again
            self._delivering -= {*change.removed, *change.reopened}
        return change

    def note_camera(self, id_: str, state: CameraState) -> None:
        """Remember what a camera does. One that has delivered and is now disabled is a file at its end: no fault."""
        with self._lock:
            if state in DELIVERS:
                self._delivering.add(id_)
            elif state is not CameraState.DISABLED:
                self._delivering.discard(id_)

    def close(self) -> None:
        """The agent ends as it should: this start does not count against what is on trial."""
        if self._now.trial is not None:
            starts = self._now.trial.starts - 1
            self._save(self._now, Mark(trial=self._now.running.digest, starts=starts) if starts else Mark())

    @property
    def now(self) -> Now:
        """What runs, and what is known."""
        return self._now

    @property
    def status(self) -> str:
        """One line for people: whether the file is what runs, and if not, why."""
        now = self._now
        if now.refused is not None:
            return f"refused: {now.refused.error}"
        waits = f"; waits for a restart: {', '.join(now.running.restart)}" if now.running.restart else ""
        return ("on trial" if now.trial is not None else "holds") + waits

    def _snapshot(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._delivering)

    def _read(self) -> bytes | OSError:
        try:
            return read_capped(self.path, MAX_BYTES)
        except OSError as error:
            return error

    def _look(self, now_s: float) -> Content | Bad | None:
        """What stands in the file, if that is news."""
        read = self._read()
        seen, self._seen = self._seen, _digest(read)
        if self._seen != seen:
            return None
        refused = self._now.refused
        again = refused is not None and not refused.tried and now_s >= self._again_s
        if seen == self._asked and not again:
            return None
        self._asked, self._again_s = seen, now_s + AGAIN_S
        return self._parse(read)

    def _parse(self, read: bytes | OSError) -> Content | Bad:
        digest = _digest(read)
        if isinstance(read, OSError):
            what = f"{self.path} cannot be read: {read.strerror}."
            return Bad(digest, ConfigError(what, mend="Check the path and its rights."))
        try:
            config = parse_config(read, source=self.path, environ=self._environ, labels=self.labels).must()
            self.check(config)
            return Content(digest, read, config)
        except ConfigError as error:
            return Bad(digest, error)
        except Exception as error:  # a file that we cannot judge must not end who watches it
            log.exception("%s cannot be checked.", self.path)
            what = f"{self.path} cannot be checked: {type(error).__name__}."
            return Bad(digest, ConfigError(what, mend="Undo the last change, and report this as a bug."))

    def _remembered(self) -> tuple[Content | Bad | None, Mark]:
        """The last good content and the mark; what cannot be read is said, and as if it were not there."""
        good: Content | Bad | None = None
        mark = Mark()
        try:
            good = self._parse(read_capped(self._good_path, MAX_BYTES))
            if isinstance(good, Bad):
                log.warning("%s is no longer right: %s", self._good_path, good.error)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s cannot be read: %s", self._good_path, error.strerror)
        try:
            mark = msgspec.json.decode(read_capped(self._mark_path, 4096), type=Mark)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read: %s", self._mark_path, error)
        return good, mark

    def _save(self, now: Now, mark: Mark | None = None) -> str | None:
        """Keep what has changed, the good content before the mark that forgets its trial; why it cannot, once said."""
        good, kept = self._kept
        mark = mark or mark_of(now)
        try:
            self._mark_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if now.good is not None and now.good.digest != good and not now.good.restart:
                replace_file(self._good_path, now.good.raw)
                self._kept = now.good.digest, kept
            if mark != kept:
                replace_file(self._mark_path, msgspec.json.encode(mark))
                self._kept = self._kept[0], mark
        except OSError as error:
            why = f"{self._mark_path.parent} cannot be written ({error.strerror})"
            if why != self._unsaved:
                log.warning("%s: a bad change of %s may outlive a restart.", why, self.path)
            self._unsaved = why
            return why
        self._unsaved = None
        return None

    def _tell(self, before: Now | None, now: Now) -> None:
        """Say what is new, once."""
        if now.refused is not None and (before is None or now.refused != before.refused):
            log.error("%s The last good one goes on.", now.refused.error)
        elif before is None or now.running.digest != before.running.digest or (before.trial and not now.trial):
            log.info("%s: %s", self.path, self.status)


def _digest(read: bytes | OSError) -> str:
    return f"unread: {read.strerror}" if isinstance(read, OSError) else hashlib.sha256(read).hexdigest()


class Watch:
    """A thread that polls a `Reloader` until the ``with`` ends."""

    def __init__(self, reloader: Reloader) -> None:
        self.reloader = reloader
        self._changes: SimpleQueue[Change] = SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="config", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def take(self) -> Change | None:
        """The next change to apply, or None; never waits."""
        try:
            return self._changes.get_nowait()
        except Empty:
            return None

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S / 4):
            try:
                if (change := self.reloader.poll(time.monotonic())) is not None:
                    self._changes.put(change)
            except Exception:  # what runs goes on, and the file is watched as before
                log.exception("Looking at %s failed.", self.reloader.path)
