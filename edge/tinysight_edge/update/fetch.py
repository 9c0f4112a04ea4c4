"""Bring in what the operator asks for, when it is due: at once, then with pauses that grow while it fails.

In: the `Wish`.  Out: a candidate in the store, or how it ended, until something else is wished for. Knows nothing of
tests and trials.
"""

import random
import time
from collections.abc import Callable
from typing import Final

from tinysight_contract.errors import UpdateError
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Update
from tinysight_edge.config.types import UpdateConfig
from tinysight_edge.update.body import Otherwise
from tinysight_edge.update.installer import Installer
from tinysight_edge.update.update import outcome_of
from tinysight_edge.update.wish import Wish, pause_s

__all__ = ["Fetcher"]

TURN_S: Final = 0.5


class Fetcher:
    """Of one agent. All in the updates' own thread.

    Args:
        config: what holds now.
        wish: what is asked for now.
        heed: called often; what it raises breaks a fetch off.
        may: whether a wish may be fetched now. A fetch that was begun before is broken off, and goes on later.
    """

    def __init__(
        self,
        config: Callable[[], UpdateConfig],
        wish: Callable[[], Wish | None],
        heed: Callable[[], None],
        *,
        may: Callable[[Wish], bool] = lambda _wish: True,
    ) -> None:
        self._config, self._wish, self._heed, self._may = config, wish, heed, may
        self._errand: object = None
        self._told: Update | None = None
        self._failures, self._due_s = 0, 0.0

    def tried(self, wish: Wish) -> Update | None:
        """How fetching it ended the last time, from where it is fetched now; None when it was not tried yet."""
        return self._told if self._errand == self._errand_of(wish) else None

    def is_due(self, wish: Wish | None) -> bool:
        """Whether it is time to try it. What is not wished for any more is forgotten."""
        if self._errand != (errand := None if wish is None else self._errand_of(wish)):
            self._errand, self._told, self._failures, self._due_s = errand, None, 0, 0.0
        return time.monotonic() >= self._due_s

    def fetch(self, wish: Wish, make_installer: Callable[[Callable[[], None]], Installer]) -> None:
        """Try it once.

        Raises:
            Otherwise: something else is wished for meanwhile, or it is to go on later.
            StoreError: the store is being written to, or cannot be read.
        """
        told = self._try(wish, make_installer)
        if told is not None and told.code is not None:
            self._told, self._failures = told, self._failures + 1
            pause = pause_s(self._failures, random.random())  # noqa: S311 -- it keeps devices apart, no more
            self._due_s = time.monotonic() + pause

    def _try(self, wish: Wish, make_installer: Callable[[Callable[[], None]], Installer]) -> Update | None:
        from tinysight_edge.update.sources import open_source  # noqa: PLC0415 -- the agent starts without

        def heed() -> None:
            self._heed()
            if (now := self._wish()) != wish or now is None or not self._may(now):
                raise Otherwise

        def wait(seconds: float) -> None:
            until_s = time.monotonic() + seconds
            while (left_s := until_s - time.monotonic()) > 0:
                heed()
                time.sleep(min(left_s, TURN_S))

        wanted = self._config()
        if wish.target is None or wanted.repository is None:
            return None
        try:
            source = open_source(wanted.repository, ca=wanted.ca_file, wait=wait)
        except UpdateError as error:  # an address or certificates that cannot be used
            return Update(
                target=wish.target, state=outcome_of(error.code), at=utc_now(), code=error.code, reason=str(error)
            )
        return make_installer(heed).install(source, wish.target, digest=wish.digest)

    def _errand_of(self, wish: Wish) -> object:
        wanted = self._config()
        return wish, wanted.repository, wanted.ca_file
