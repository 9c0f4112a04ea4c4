"""Who asks, and whether they may: bearer tokens, four roles, and a bound on failed attempts.

In: a request's ``Authorization`` and where it comes from.  Out: a `Token`, or a `Problem`. The tokens are in the state,
as SHA-256 of 256 random bits: there is nothing to guess. So the bound does not protect them, but the database.
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from tinysight_deploy.fleet.keeping.tokens import Role, Token
from tinysight_deploy.fleet.server.problems import Problem
from tinysight_deploy.serving import network

__all__ = ["LADDER", "Attempts", "bearer", "may", "refusal"]

MOST_FAILURES: Final = 10
WITHIN_S: Final = 60.0
MOST_ADDRESSES: Final = 4096
MOST_GOOD: Final = 4096

_BEARER: Final = re.compile(r"[Bb]earer +([A-Za-z0-9._~+/=-]{8,256})", re.ASCII)
LADDER: Final = (Role.READ, Role.OPERATE, Role.ADMIN)
"""Each may do what those before it may."""
_RANK: Final = {role: rank for rank, role in enumerate(LADDER, 1)}


def bearer(header: str | None) -> str | None:
    """The token in an ``Authorization`` header; null when there is none that could be one."""
    found = None if header is None else _BEARER.fullmatch(header.strip())
    return None if found is None else found[1]


def may(token: Token, role: Role, *, site: str | None = None, device: str | None = None) -> bool:
    """Whether who has this token may do what needs a role: those that rank higher may, a device only what is its own.

    Args:
        token: of whoever asks.
        role: that is needed; ``device`` lets in that device, and all who may read.
        site: of the device that it is about.
        device: likewise.
    """
    if token.role is Role.DEVICE:
        return role is Role.DEVICE and (token.site, token.device) == (site, device) and bool(site and device)
    return _RANK[token.role] >= _RANK.get(role, 1)


def refusal(token: Token, role: Role, *, site: str | None = None, device: str | None = None) -> Problem | None:
    """Why not, or None; arguments as those of `may`."""
    if may(token, role, site=site, device=device):
        return None
    if token.role is Role.DEVICE:
        what = f"The token {token.name!r} is that of the device {token.site}/{token.device}, and lets it read its own."
    else:
        what = f"The token {token.name!r} has the role {token.role.value}, this needs {role.value}."
    return Problem(403, what, mend=f"Use a token with the role {role.value}: `tinysight fleet token add`.")


class Attempts:
    """Failed attempts by address, and tokens that were good lately. Bounded, and of one event loop.

    A token that was good lately is let through from any address: who shares it with somebody whose token is wrong,
    behind a router or a proxy, is not locked out by that.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def wait_s(self, address: str, text: str) -> float:
        """How long nothing from there is looked at; 0 when it is."""
        since_s, count = self._failed.get(network(address), (0.0, 0))
        left_s = since_s + WITHIN_S - self._clock()
        if count < MOST_FAILURES or left_s <= 0 or _digest(text) in self._good:
            return 0.0
        return left_s

    def failed(self, address: str, text: str) -> bool:
        """Note that a token was wrong; whether it was the last that is looked at for now."""
        self._good.pop(_digest(text), None)
        place, now_s = network(address), self._clock()
        since_s, count = self._failed.pop(place, (now_s, 0))
        if now_s - since_s >= WITHIN_S:
            since_s, count = now_s, 0
        self._failed[place] = since_s, count + 1
        while len(self._failed) > MOST_ADDRESSES:
            self._failed.popitem(last=False)
        return count + 1 == MOST_FAILURES

    def succeeded(self, text: str) -> None:
        """Note that a token was right."""
        digest = _digest(text)
        self._good[digest] = None
        self._good.move_to_end(digest)
        while len(self._good) > MOST_GOOD:
            self._good.popitem(last=False)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
