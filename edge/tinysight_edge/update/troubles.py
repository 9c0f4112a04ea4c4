"""What stands in the way of updates on this device, and which of it is an alert.

In: what goes wrong, the store's folder, how the newest bundle ended.  Out: words for people, each with what to do.
Changes nothing. All in the updates' own thread.
"""

import logging
import os
import time
from typing import Final

from tinysight_contract.updates import Code, Update
from tinysight_edge.store import Store

__all__ = ["AGAIN_S", "Troubles", "told_of"]

log = logging.getLogger(__name__)

AGAIN_S: Final = 60.0
"""After something that should not fail did."""


class Troubles:
    """Of one store.

    Args:
        store: it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._what, self._alert_s = "", 0.0  # what goes wrong just now, and when it is to be an alert
        self._closed: str | None = None
        self._closed_s = 0.0

    def note(self, error: Exception) -> str | None:
        """Say once what goes wrong. That somebody else holds the store for a while is no alert yet: None."""
        now_s, what = time.monotonic(), f"Updates: {error}"
        if what != self._what:
            log.warning("%s", what)
            self._what, self._alert_s = what, now_s if isinstance(error, OSError) else now_s + AGAIN_S
        return (self._closed or what) if now_s >= self._alert_s else None

    def clear(self) -> None:
        """It goes well."""
        self._what = ""

    def lasting(self) -> str | None:
        """What goes wrong and is to be an alert."""
        return self._what if self._what and time.monotonic() >= self._alert_s else None

    def closed(self) -> str | None:
        """What of the store this agent may not write, as when another user has made it; looks now and then."""
        if (now_s := time.monotonic()) < self._closed_s:
            return self._closed
        self._closed_s, root, trust = now_s + AGAIN_S, self._store.root, self._store.trust
        needed = [root, root / "bundles", trust, trust / "metadata", root / "lock", root / "running"]
        closed = next((each for each in needed if each.exists() and not os.access(each, os.W_OK)), None)
        before, self._closed = self._closed, None
        if closed is not None:
            what = f"{closed} cannot be written by this agent, so no new bundle is taken in."
            self._closed = f"{what} Let the agent's user own all of {root}, on a disk that can be written."
        if self._closed is not None and before is None:
            log.warning("%s", self._closed)
        return self._closed


def told_of(last: Update | None) -> str | None:
    """What stands until the next success, or until no more is wished for; what a person did himself is no trouble."""
    if last is None or last.code in {None, Code.OPERATOR, Code.SUPERSEDED}:
        return None
    name = last.target if last.bundle is None else f"{last.bundle.name} {last.bundle.version}"
    return f"{name}: {last.state.value} ({last.code}): {last.reason}"
