"""How each device of a tape updates, by what it said of its last update. Pure.

In: messages of a tape (``tinysight watch --record``).  Out: a `Habit` for each device.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from msgspec import Struct

from tinysight_contract import topics as t
from tinysight_contract.errors import DataError
from tinysight_contract.fleet import Device, Fleet
from tinysight_contract.messages import Reported
from tinysight_contract.updates import Code, Update, UpdateState
from tinysight_deploy.fleet.types import Key
from tinysight_edge.simulate.tape import Take

__all__ = ["Habit", "habits"]

MOST_S: Final = 6 * 3600.0
"""Longer ones waited for something else: a window, a repository that was gone."""
_ENDED: Final = frozenset({UpdateState.CONFIRMED, UpdateState.REJECTED, UpdateState.FAILED, UpdateState.ROLLED_BACK})
_BLAMELESS: Final = frozenset({Code.SUPERSEDED, Code.FAILED_BEFORE, Code.TOO_OLD, Code.OPERATOR})
"""Ends that say nothing of how another bundle would end."""


class Habit(Struct, frozen=True, kw_only=True):
    """How one device updates.

    Attributes:
        online: it was there when the tape ended.
        takes_s: from its queue to its end; null when that was not told.
        moved_share: of a bundle's size, what was transferred; 1 when that was not told.
        update: how its last update ended; null when it told of none.
        drift: by its model's metrics; null when that was not told.
    """

    online: bool
    takes_s: float | None = None
    moved_share: float = 1.0
    update: Update | None = None
    drift: float | None = None


def habits(tape: Iterable[Take]) -> dict[Key, Habit]:
    """How each device of a tape updates.

    Raises:
        DataError: the tape knows no device.
    """
    fleet, watched = Fleet(), dict[Key, _Watched]()
    for take in tape:
        heard = fleet.hear(take.topic, take.payload, retained=take.retained)
        if isinstance(heard.where, t.ReportedTopic) and isinstance(heard.message, Reported):
            key = heard.where.site, heard.where.device
            if key in fleet.devices:
                watched.setdefault(key, _Watched()).hear(heard.message.update)
    if not fleet.devices:
        raise DataError(
            "There is no device on this tape.",
            mend="Record one with `tinysight watch --record FILE` while devices run.",
        )
    return {key: _habit(device, watched.get(key)) for key, device in fleet.devices.items()}


class _Watched:
    """What one device has said of its updates."""

    def __init__(self) -> None:
        self._queued: Update | None = None
        self._began: datetime | None = None
        self.ended: Update | None = None
        self.takes_s: float | None = None

    def hear(self, update: Update | None) -> None:
        if update is None:
            return
        if update.state not in _ENDED:
            begins = update.state in {UpdateState.QUEUED, UpdateState.DOWNLOADING}
            if self._queued is None or not _is_same(self._queued, update):
                self._queued, self._began = update, update.at if begins else None
            return
        if update == self.ended:
            return
        self.takes_s = None
        if self._queued is not None and _is_same(self._queued, update) and self._began is not None:
            took_s = (update.at - self._began).total_seconds()
            if 0.0 <= took_s <= MOST_S and update.code not in _BLAMELESS:
                self.takes_s = took_s
        self.ended, self._queued, self._began = update, None, None


def _is_same(one: Update, other: Update) -> bool:
    """Whether both are of one bundle; before its metadata is there, only its path is known."""
    if one.bundle is not None and other.bundle is not None:
        return one.bundle.digest == other.bundle.digest
    return one.target == other.target


def _habit(device: Device, watched: _Watched | None) -> Habit:
    update = None if watched is None else watched.ended
    model, reported = device.model, device.reported
    mine = model is not None and reported is not None and model.bundle == reported.bundle
    moved = 1.0
    if update is not None and update.transfer == "delta" and update.bundle is not None and update.bundle.size_bytes:
        moved = min(update.moved_bytes / update.bundle.size_bytes, 1.0)
    return Habit(
        online=device.online is True,
        takes_s=None if watched is None else watched.takes_s,
        moved_share=moved,
        update=None if update is None or update.code in _BLAMELESS else update,
        drift=model.drift if mine and model is not None else None,
    )
