"""The desired state: what the operator asks for over MQTT, what of it lies over the file, and what became of it.

In: payloads of ``desired``, and what `reloader` makes of them.  Out: the `Overlay` to merge, and `Became` for
``reported``. What was asked survives a restart in one file, so that it holds although the broker is away. Belongs to
the thread that polls; knows nothing of MQTT.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tinysight_contract.errors import ContractError
from tinysight_contract.files import read_capped, replace_file
from tinysight_contract.messages import Desired, DesiredState, decode
from tinysight_contract.orders import Window
from tinysight_contract.scalars import Count, Digest, Id
from tinysight_edge.config.overlay import Overlay
from tinysight_edge.config.reload import Now
from tinysight_edge.update.wish import Answer, Wish

__all__ = ["MAX_BYTES", "Became", "Wanted", "is_news", "read_desired"]

log = logging.getLogger(__name__)

MAX_BYTES: Final = 64 * 1024
MAX_TEXT: Final = 500
"""Characters of each reason: what was asked may stand in it."""
_NO_BUNDLE: Final = (
    "This agent runs a bundle file, which it does not change. Give it a `store` under [model] of its file."
)
_GRAVITY: Final = (
    DesiredState.NONE,
    DesiredState.APPLIED,
    DesiredState.TRIAL,
    DesiredState.WAITING,
    DesiredState.ROLLED_BACK,
    DesiredState.REFUSED,
)
"""Of two parts of one wish the graver is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Became:
    """What ``reported`` says but for times; see `Reported`."""

    revision: int = 0
    state: DesiredState = DesiredState.NONE
    reason: str = ""
    refused: tuple[tuple[str, str], ...] = ()
    applied: int | None = None
    config_digest: str | None = None
    restart: tuple[str, ...] = ()
    due_at: datetime | None = None


class _Asked(Struct, frozen=True, kw_only=True):
    """The newest desired state. ``state`` is set once it is settled that its ``config`` does not hold."""

    revision: Count
    bundle: Digest | None = None
    target: str | None = None
    rollout: Id | None = None
    window: Window | None = None
    config: dict[str, Any] | None = None
    state: DesiredState | None = None
    reason: str = ""
    refused: dict[str, str] = {}

    @classmethod
    def of(cls, desired: Desired) -> "_Asked":
        """As it came."""
        return cls(
            revision=desired.revision,
            bundle=desired.bundle,
            target=desired.target,
            rollout=desired.rollout,
            window=desired.window,
            config=desired.config,
        )


class _Kept(Struct, frozen=True, kw_only=True):
    asked: _Asked | None = None
    overlay: Overlay | None = None


class Wanted:
    """What was asked of one agent.

    Args:
        path: the file that remembers it.

    Attributes:
        bundle: the digest of what is active; None until it is known, and nothing is said of it so long.
        answer: what becomes of the bundle that is asked for; None where nobody fetches any.
        overlay: what lies over the file; None for nothing.
        unfit: by key, why the overlay is passed over for now: the file has changed and it fits no more.
    """

    def __init__(self, path: Path) -> None:
        self.bundle: str | None = None
        self.answer: Callable[[], Answer | None] | None = None
        self.unfit: dict[str, str] = {}
        self._path = path
        self._kept = _Kept()
        self._due = False
        self._unread = ""

    @property
    def overlay(self) -> Overlay | None:
        """What lies over the file."""
        return self._kept.overlay

    @property
    def due(self) -> dict[str, Any] | None:
        """The newest ``config`` as long as nobody has judged it."""
        return self._kept.asked.config if self._due and self._kept.asked is not None else None

    @property
    def wish(self) -> Wish | None:
        """The bundle that is asked for; from any thread."""
        asked = self._kept.asked
        return None if asked is None or asked.bundle is None else Wish(asked.bundle, asked.target, asked.window)

    def load(self) -> None:
        """Remember what was asked before; what cannot be read is said, and as if it were not there."""
        try:
            self._kept = msgspec.json.decode(read_capped(self._path, 4 * MAX_BYTES), type=_Kept)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.warning("%s cannot be read: %s", self._path, error)
        asked, overlay = self._kept.asked, self._kept.overlay
        self._due = asked is not None and asked.state is None and asked.config is not None
        self._due = self._due and (overlay is None or overlay.revision != asked.revision)  # type: ignore[union-attr]  # just seen

    def ask(self, payloads: Iterable[bytes]) -> None:
        """Take desired states as they came: empty means that there is none, an old one changes nothing.

        However many they are, the file is written once.
        """
        kept = self._kept
        for payload in payloads:
            kept = self._take(payload, kept)
        self._keep(kept)

    def _take(self, payload: bytes, kept: _Kept) -> _Kept:
        self._unread = ""
        if not payload:
            if kept != _Kept():
                log.info("the desired state was cleared: the file alone holds")
            self._due = False
            return _Kept()
        try:
            asked = read_desired(payload)
        except ContractError as error:
            self._unread = str(error)
            log.error("desired: %s", self._unread[:MAX_TEXT])
            return kept
        before, fresh = kept.asked, _Asked.of(asked)
        if before is not None and not is_news(asked, before.revision):
            if fresh != replace(before, state=None, reason="", refused={}):
                log.warning("desired: revision %d is passed over, %d is known", asked.revision, before.revision)
            return kept
        self._due = asked.config is not None
        log.info("desired: revision %d", asked.revision)
        return _Kept(asked=fresh, overlay=kept.overlay if self._due else None)

    def accept(self) -> None:
        """What was due lies over the file from now on."""
        asked = self._kept.asked
        if asked is not None and asked.config is not None:
            self._due = False
            self._keep(_Kept(asked=asked, overlay=Overlay(revision=asked.revision, config=asked.config)))

    def refuse(self, why: dict[str, str]) -> None:
        """What was due is not taken: by key, why. What lay over the file before stays."""
        self._settle(DesiredState.REFUSED, "; ".join(f"{key}: {what}" for key, what in why.items()), why)

    def roll_back(self, why: str, to: Overlay | None) -> None:
        """What lay over the file was tried and is taken back; ``to`` lies there again.

        Where nothing is wanted over it that stays so, and the file is to be tried again.
        """
        if self._kept.overlay is None:
            return
        if self._kept.asked is not None and self._kept.asked.state is None:
            self._settle(DesiredState.ROLLED_BACK, why, {})
        self._keep(_Kept(asked=self._kept.asked, overlay=to))

    def became(self, now: Now) -> Became:
        """What to report."""
        asked, running = self._kept.asked, now.running
        due_at: datetime | None = None
        state, reason, refused = self._state(now)
        if asked is not None and asked.bundle is not None and self.bundle not in {None, asked.bundle}:
            state, reason, refused, due_at = self._with_bundle(asked.bundle, state, reason, refused)
        return Became(
            revision=asked.revision if asked else 0,
            state=state,
            reason=reason[:MAX_TEXT],
            refused=tuple(_cut(refused).items()),
            applied=running.overlay.revision if running.overlay else None,
            config_digest=running.digest,
            restart=running.restart,
            due_at=due_at,
        )

    def _state(self, now: Now) -> tuple[DesiredState, str, dict[str, str]]:
        asked, overlay = self._kept.asked, self._kept.overlay
        if self._unread:
            return DesiredState.REFUSED, self._unread, {}
        if asked is not None and asked.state is not None:
            return asked.state, asked.reason, asked.refused
        if overlay is None and now.running.overlay is not None and now.refused is not None and now.refused.tried:
            return DesiredState.ROLLED_BACK, now.refused.error.what, {}
        if asked is None and now.running.overlay is None:
            return DesiredState.NONE, "", {}
        if self.unfit:
            return DesiredState.REFUSED, "; ".join(f"{key}: {what}" for key, what in self.unfit.items()), self.unfit
        if self._due or now.running.overlay != overlay:
            why = "" if now.refused is None else str(now.refused.error)
            return DesiredState.WAITING, why or "What runs has not stood its own trial yet.", {}
        return (DesiredState.APPLIED if now.trial is None else DesiredState.TRIAL), "", {}

    def _with_bundle(
        self, digest: str, state: DesiredState, reason: str, refused: dict[str, str]
    ) -> tuple[DesiredState, str, dict[str, str], datetime | None]:
        """The same with what becomes of the bundle that is asked for, and when it goes on."""
        due_at: datetime | None = None
        if self.answer is None:
            became, why = DesiredState.REFUSED, _NO_BUNDLE
        else:
            answered = self.answer()
            became, why = DesiredState.WAITING, ""
            if answered is not None and answered.digest == digest:
                became, why, due_at = answered.state, answered.reason, answered.due_at
        if became in {DesiredState.REFUSED, DesiredState.ROLLED_BACK}:
            refused = {**refused, "bundle": why}
        reason = f"{reason}; bundle: {why}".removeprefix("; ") if why else reason
        return max(state, became, key=_GRAVITY.index), reason, refused, due_at

    def _settle(self, state: DesiredState, reason: str, refused: dict[str, str]) -> None:
        asked = self._kept.asked
        if asked is None:
            return
        reason = reason[:MAX_TEXT]
        log.error("desired: revision %d is %s: %s", asked.revision, state, reason)
        self._due = False
        settled = replace(asked, state=state, reason=reason, refused=_cut(refused))
        self._keep(_Kept(asked=settled, overlay=self._kept.overlay))

    def _keep(self, kept: _Kept) -> None:
        if kept == self._kept:
            return
        self._kept = kept
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, msgspec.json.encode(kept))
        except OSError as error:  # it holds until the end of this process
            log.warning("%s cannot be written: %s", self._path, error.strerror)


def read_desired(payload: bytes) -> Desired:
    """A desired state, as it came.

    Raises:
        ContractError: it is none, or too large.
    """
    if len(payload) > MAX_BYTES:
        what = f"The desired state has {len(payload)} bytes, more than {MAX_BYTES}."
        raise ContractError(what, mend="Ask for less at once.")
    return decode(payload, Desired)


def is_news(asked: Desired, known: int | None) -> bool:
    """Whether a desired state counts for who knows one of a revision already; None for none."""
    return known is None or asked.revision > known


def _cut(refused: dict[str, str]) -> dict[str, str]:
    return {key[:MAX_TEXT]: what[:MAX_TEXT] for key, what in refused.items()}
