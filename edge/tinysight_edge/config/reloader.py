"""Watch ``agent.toml``: read it, lay the desired state over it, keep what is good, and hand changes to the agent.

In: the file, desired states, the states of the cameras.  Out: `Change`s for the runtime to apply, and what to say of
the file. What runs is decided by `reload`; no camera is opened here.

::

    FOLDER/agent.good.toml      the last content that stood its trial, byte for byte; what lay over it is its last line
    FOLDER/agent.trial.json     what is on trial and how often it was started; what was taken back, and why
    FOLDER/agent.desired.json   what was asked for over MQTT, and what of it lies over the file
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import read_capped
from tinysight_contract.messages import CameraState
from tinysight_edge.config.file import MAX_BYTES, parse_config
from tinysight_edge.config.memory import Memory, digest_of
from tinysight_edge.config.overlay import Overlay
from tinysight_edge.config.reload import Bad, Change, Content, Mark, Now, begin, changes, judge, mark_of, offer
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.config.wanted import MAX_BYTES as MAX_WANTED
from tinysight_edge.config.wanted import Became, Wanted
from tinysight_edge.update.wish import Answer, Wish

__all__ = ["EVERY_S", "Reloader"]

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
"""Between two looks at the file. A content counts when two looks have found the same: somebody may still write it."""
AGAIN_S: Final = 10.0
"""A refused content is checked again so often: a password file may have come."""
DELIVERS: Final = {CameraState.ONLINE, CameraState.FROZEN, CameraState.DARK, CameraState.COVERED}
"""States of a camera that gives pictures, whatever they show."""
CLEAR_AGAIN_S: Final = 300.0
"""The file alone did not stand its trial, but nothing is desired any more: it is tried again so often."""
TAKE_S: Final = 10.0
"""Between two desired states that are taken: each may open cameras again, and is written to disk."""
MOST_ASKED: Final = 16
"""Between two of these; of more the newest count."""
MOST_SAID: Final = 16
"""Of the reasons why a desired state is refused."""


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
        excused: cameras that are switched off, so that nobody waits for their pictures.
        became: what became of the desired state; replaced as a whole, so any thread may look.
        check: raises `ConfigError` for what the file alone does not show to be wrong; called by the thread that polls.
    """

    def __init__(self, path: Path, folder: Path, *, environ: Mapping[str, str]) -> None:
        self.path = path
        self.labels: Collection[str] | None = None
        self.excused: frozenset[str] = frozenset()
        self.became = Became()
        self.check: Callable[[AgentConfig], None] = lambda _config: None
        self._memory = Memory(folder)
        self._environ = environ
        self._wanted = Wanted(folder / "agent.desired.json")
        self._asks: deque[bytes] = deque(maxlen=MOST_ASKED)
        self._lock = threading.Lock()
        self._delivering: set[str] = set()
        self._seen = self._asked = ""
        self._look_s = self._again_s = self._take_s = self._clear_s = 0.0
        self._now: Now

    def start(self, now_s: float) -> AgentConfig:
        """What the agent shall run. Marks on disk that it is started.

        Raises:
            ConfigError: the file is wrong or missing, and there is no last good one.
        """
        self._wanted.load()
        read = self._read()
        offered = self._parse(read)
        self._seen, self._asked = digest_of(read, None), self._key(read)
        self._look_s, self._again_s, self._clear_s = now_s + EVERY_S, now_s + AGAIN_S, now_s + CLEAR_AGAIN_S
        kept, mark = self._memory.read()
        good = None if kept is None else self._content(*kept)
        if isinstance(good, Bad):
            log.warning("%s is no longer right: %s", self._memory.good_path, good.error)
        self._now = begin(offered, good if isinstance(good, Content) else None, mark, now_s)
        if isinstance(offered, Content) and self._now.refused is not None:
            self._forgo(offered, self._now)
        self._memory.save(self._now.good, mark_of(self._now))
        self._tell(None, self._now)
        self.became = self._wanted.became(self._now)
        return self._now.running.config

    def runs(self, bundle: str) -> None:
        """The digest of what runs. Call it after `start`, before somebody tells what `became`; then at will."""
        self._wanted.bundle = bundle
        self.became = self._wanted.became(self._now)

    def answers(self, answer: Callable[[], Answer | None]) -> None:
        """Somebody sees to the bundles that are asked for, and says what becomes of the one that is `wish`."""
        self._wanted.answer = answer
        self.became = self._wanted.became(self._now)

    @property
    def wish(self) -> Wish | None:
        """The bundle that is asked for; from any thread."""
        return self._wanted.wish

    def ask(self, payload: bytes) -> None:
        """A payload of ``desired``, for a poll within ``TAKE_S``. From any thread; never waits."""
        self._asks.append(payload[: MAX_WANTED + 1])

    def poll(self, now_s: float, *, at_once: bool = False) -> Change | None:
        """Look at the file and at the cameras; what the agent has to change now, or None.

        Args:
            now_s: as everywhere here.
            at_once: look now, and take a content although it is seen for the first time.
        """
        if now_s < self._look_s and not at_once:
            return None
        self._look_s = now_s + EVERY_S
        before, delivering = self._now, self._snapshot()
        now = judged = judge(before, delivering, now_s)
        self._forgo(before.running, judged)
        self._consider(judged, now_s)
        now = judged = self._clear_again(judged, now_s)
        if (offered := self._look(now_s, at_once=at_once)) is not None:
            now = offer(judged, offered, delivering, now_s)
        error = self._memory.save(now.good, mark_of(now))
        if error is not None and now.trial is not None and now.running.digest != before.running.digest:
            unmarked = ConfigError(f"{self.path} cannot be tried: {error}.", mend="Mend the disk; it is tried again.")
            now = replace(judged, refused=Bad(now.running.digest, unmarked))
        self._now = now
        self._tell(before, now)
        if (became := self._wanted.became(now)) != self.became:
            self.became = became
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
            mark = Mark(trial=self._now.running.digest, starts=starts) if starts else Mark()
            self._memory.save(self._now.good, mark)

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
            return frozenset(self._delivering) | self.excused

    def _forgo(self, tried: Content, now: Now) -> None:
        """What lay over the content that was tried is taken back with it: the file shall not suffer for it."""
        if now.refused is not None and now.refused.digest == tried.digest and now.running.overlay != tried.overlay:
            self._wanted.roll_back(now.refused.error.what, now.running.overlay)

    def _clear_again(self, now: Now, now_s: float) -> Now:
        """Forget after a while that the file was tried without what lies over it.

        That is to go, and a camera may have been unplugged just then.
        """
        if now.trial is not None:
            self._clear_s = now_s + CLEAR_AGAIN_S
        refused, over = now.refused, now.running.overlay
        if refused is None or over is None or self._wanted.overlay is not None or now_s < self._clear_s:
            return now
        if refused.digest != digest_of(now.running.raw, None):  # the file has changed, and may be to blame itself
            return now
        self._asked = ""
        return replace(now, refused=None)

    def _consider(self, now: Now, now_s: float) -> None:
        """Take what was asked for, if it is news and fits; not before there is something to go back to."""
        if self._asks and now_s >= self._take_s:
            self._take_s = now_s + TAKE_S
            self._wanted.ask([self._asks.popleft() for _ in range(len(self._asks))])
        config = self._wanted.due
        if config is None or now.good is None or isinstance(read := self._read(), OSError):
            return
        if isinstance(self._content(read, None), Content):
            if why := self._against(read, config):
                self._wanted.refuse(why)
            else:
                self._wanted.accept()

    def _against(self, read: bytes, patch: Mapping[str, Any]) -> dict[str, str]:
        """By key, why a patch cannot lie over a file that is right."""
        try:
            checked = parse_config(read, source=self.path, environ=self._environ, labels=self.labels, patch=patch)
            if checked.config is not None:
                self.check(checked.config)
        except ConfigError as error:
            return {"config": str(error)}
        except Exception as error:  # as in _content: neither the file nor what runs is to blame
            log.exception("desired: it cannot be checked.")
            return {"config": f"It cannot be checked: {type(error).__name__}. Ask for something simpler."}
        return {each.key or "config": f"{each.what} {each.mend}" for each in checked.errors[:MOST_SAID]}

    def _read(self) -> bytes | OSError:
        try:
            return read_capped(self.path, MAX_BYTES)
        except OSError as error:
            return error

    def _look(self, now_s: float, *, at_once: bool) -> Content | Bad | None:
        """What stands in the file and lies over it, if that is news."""
        read = self._read()
        seen, self._seen = self._seen, digest_of(read, None)
        if self._seen != seen and not at_once:
            return None
        refused, key = self._now.refused, self._key(read)
        again = refused is not None and not refused.tried and (at_once or now_s >= self._again_s)
        if key == self._asked and not again:
            return None
        self._asked, self._again_s = key, now_s + AGAIN_S
        return self._parse(read)

    def _key(self, read: bytes | OSError) -> str:
        return digest_of(read, self._wanted.overlay)

    def _parse(self, read: bytes | OSError) -> Content | Bad:
        """The file with what lies over it; the file alone when that fits no more, for who stands before it is right."""
        self._wanted.unfit = {}
        alone, overlay = self._content(read, None), self._wanted.overlay
        if overlay is None or isinstance(alone, Bad):
            return alone
        both = self._content(read, overlay)
        if isinstance(both, Content):
            return both
        self._wanted.unfit = self._against(alone.raw, overlay.config)
        return alone

    def _content(self, read: bytes | OSError, overlay: Overlay | None) -> Content | Bad:
        digest = digest_of(read, overlay)
        if isinstance(read, OSError):
            what = f"{self.path} cannot be read: {read.strerror}."
            return Bad(digest, ConfigError(what, mend="Check the path and its rights."))
        patch = None if overlay is None else overlay.config
        try:
            checked = parse_config(read, source=self.path, environ=self._environ, labels=self.labels, patch=patch)
            config = checked.must()
            self.check(config)
            return Content(digest, read, config, overlay=overlay)
        except ConfigError as error:
            return Bad(digest, error)
        except Exception as error:  # a file that we cannot judge must not end who watches it
            log.exception("%s cannot be checked.", self.path)
            what = f"{self.path} cannot be checked: {type(error).__name__}."
            return Bad(digest, ConfigError(what, mend="Undo the last change, and report this as a bug."))

    def _tell(self, before: Now | None, now: Now) -> None:
        """Say what is new, once."""
        if now.refused is not None and (before is None or now.refused != before.refused):
            log.error("%s The last good one goes on.", now.refused.error)
        elif before is None or now.running.digest != before.running.digest or (before.trial and not now.trial):
            log.info("%s: %s", self.path, self.status)
