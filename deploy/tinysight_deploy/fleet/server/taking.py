"""Let a request in: who asks, whether they may, and what they bring, capped and read strictly.

In: a request, and a route's `Spec`.  Out: a `Call`, or a `Problem` that says what to do.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import anyio
import anyio.to_thread
import msgspec
from starlette.requests import ClientDisconnect, Request

from tinysight_contract.messages import Ack
from tinysight_contract.topics import ID
from tinysight_deploy.fleet.keeping.examples import Kept
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.keeping.tokens import Role, Token
from tinysight_deploy.fleet.server.auth import Attempts, bearer, refusal
from tinysight_deploy.fleet.server.desk import Desk
from tinysight_deploy.fleet.server.desk import Live as Decided
from tinysight_deploy.fleet.server.openapi import Query, Spec
from tinysight_deploy.fleet.server.problems import Problem
from tinysight_deploy.fleet.types import Facts, Key
from tinysight_deploy.repo.repository import Repository

__all__ = ["MAX_BODY_BYTES", "Call", "Fleet", "Live", "admit", "take"]

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 64 << 10
BODY_S: Final = 10.0
T = TypeVar("T")


class Live(Decided, Protocol):
    """A controller, and what it knows."""

    @property
    def facts(self) -> Mapping[Key, Facts]:
        """Of every device that was heard of."""

    @property
    def hears(self) -> bool:
        """Whether it is connected to the broker, and has heard all that this keeps."""

    @property
    def leading(self) -> bool:
        """Whether it leads."""

    @property
    def trouble(self) -> str:
        """What keeps it from going on, with what to do; empty when all is well."""

    async def order(
        self, key: Key, name: str, args: Mapping[str, Any], *, within_s: float, who: str
    ) -> tuple[str, Ack | None, float]:
        """Have a device do something once; the order's id, the answer if one came in time, and how long that took."""

    async def configure(self, key: Key, config: dict[str, Any] | None, *, based_on: int, who: str) -> int:
        """Say what shall lie over a device's own file; the revision that says so."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the routes work on.

    Attributes:
        state: of the rollouts, and the tokens.
        live: what is known of the devices.
        repo: the releases; null when there is no repository here.
        inventory: a file of devices, for its groups.
        examples: that devices have sent; null when none are kept.
        attempts: that failed.
    """

    state: State
    live: Live
    repo: Repository | None = None
    inventory: Path | None = None
    examples: Kept | None = None
    attempts: Attempts = field(default_factory=Attempts)


@dataclass(frozen=True, slots=True)
class Call:
    """One request that was let in.

    Attributes:
        fleet: what it works on.
        request: as it came.
        token: of whoever asks; null on open routes.
        body: what it brings; null when it brings nothing.
        queries: what stands behind the question mark, checked.
    """

    fleet: Fleet
    request: Request
    token: Token | None = None
    body: msgspec.Struct | None = None
    queries: Mapping[str, Any] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """For the audit log."""
        return "nobody" if self.token is None else self.token.name

    def desk(self) -> Desk:
        """Where what is asked for is done, with what is known now."""
        live = self.fleet.live
        return Desk(
            self.fleet.state,
            who=self.who,
            repo=self.fleet.repo,
            inventory=self.fleet.inventory,
            facts=dict(live.facts),
            live=live,
        )

    def inside(self, name: str) -> str:
        """A part of the path.

        Raises:
            Problem: it cannot name anything.
        """
        text = str(self.request.path_params[name])
        if ID.fullmatch(text) is None:
            raise Problem(404, f"There is no such {name}.", mend="Use 1 to 63 of a-z, 0-9 and '-'.")
        return text

    @property
    def page(self) -> dict[str, Any]:
        """After what, and how many."""
        return {"after": self.queries.get("after", ""), "most": self.queries["most"]}


async def admit(
    fleet: Fleet, request: Request, role: Role | None, *, site: str | None = None, device: str | None = None
) -> Token:
    """The token of a request that may do what needs a role.

    Args:
        fleet: with the tokens.
        request: any.
        role: that is needed; None lets in any token.
        site: of the device that it is about.
        device: likewise.

    Raises:
        Problem: 401 without a token that is known, 403 with one that may not, 429 after too many that were wrong.
    """
    challenge = {"WWW-Authenticate": 'Bearer realm="tinysight"'}
    text = bearer(request.headers.get("authorization"))
    if text is None:
        mend = "Send `Authorization: Bearer TOKEN`, with one from `tinysight fleet token add`."
        raise Problem(401, "No token was sent.", mend=mend, headers=challenge)
    address = request.client.host if request.client is not None else ""
    if (wait_s := fleet.attempts.wait_s(address, text)) > 0:
        after = {"Retry-After": f"{wait_s + 1:.0f}"}
        raise Problem(429, "Too many wrong tokens came from there.", mend="Wait, and send a right one.", headers=after)
    token = await anyio.to_thread.run_sync(fleet.state.find_token, text)
    if token is None:
        if fleet.attempts.failed(address, text):
            log.warning("too many wrong tokens from %s: others are not looked at for a while", address)
        mend = "Check the token's file, or make another with `tinysight fleet token add`."
        raise Problem(401, "The token is not known here.", mend=mend, headers=challenge)
    fleet.attempts.succeeded(text)
    if role is not None and (problem := refusal(token, role, site=site, device=device)) is not None:
        raise problem
    return token


async def read_body(request: Request, kind: type[T], *, cap: int = MAX_BODY_BYTES) -> T | None:
    """A body, strictly as a type; None when there is none.

    Raises:
        Problem: it is too large, too slow, or something else.
    """
    close = {"Connection": "close"}  # what is still to come of it is not read
    too_large = Problem(413, f"More than {cap} bytes were sent.", mend="Send less.", headers=close)
    told = request.headers.get("content-length", "0")
    if not told.isdecimal() or len(told) > 18 or int(told) > cap:
        raise too_large
    data = bytearray()
    try:
        with anyio.fail_after(BODY_S):
            async for chunk in request.stream():
                data += chunk
                if len(data) > cap:
                    raise too_large
    except TimeoutError as error:
        mend = "Send it at once."
        raise Problem(408, f"It took more than {BODY_S:.0f} s to send.", mend=mend, headers=close) from error
    except ClientDisconnect as error:
        raise Problem(400, "It ended in the middle.", mend="Send it again.", headers=close) from error
    if not data:
        return None
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "That is no JSON.", mend="Send `Content-Type: application/json`.")
    try:
        return msgspec.json.decode(bytes(data), type=kind)
    except msgspec.ValidationError as error:
        raise Problem(422, f"{error}.", mend="/openapi.json says what is taken.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"That is no JSON: {error}.", mend="Send JSON in UTF-8.") from error


def read_queries(request: Request, known: tuple[Query, ...]) -> dict[str, Any]:
    """What stands behind the question mark, checked.

    Raises:
        Problem: something is not known, stands there twice, or is not what it may be.
    """
    by_name = {each.name: each for each in known}
    found: dict[str, Any] = {each.name: each.default for each in known if each.default is not None}
    seen = set()
    for name, text in request.query_params.multi_items():
        query = by_name.get(name)
        if query is None or name in seen:
            mend = f"Known, each once: {', '.join(by_name)}." if by_name else "Leave it out."
            raise Problem(422, f"{name[:50]!r} is not asked for here.", mend=mend)
        seen.add(name)
        if query.kind == "integer":
            if re.fullmatch(r"[0-9]{1,18}", text) is None or not query.least <= int(text) <= query.most:
                mend = f"Give a number, {query.least} to {query.most}."
                raise Problem(422, f"{name} {text[:50]!r} is none.", mend=mend)
            found[name] = int(text)
        elif len(text) > query.most:
            raise Problem(422, f"{name} is too long.", mend=f"Give at most {query.most} characters.")
        else:
            found[name] = text
    return found


def has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


async def take(fleet: Fleet, spec: Spec, request: Request) -> Call:
    """A request that was let in, with all that it brings.

    Raises:
        Problem: it may not, or brings what is not taken.
    """
    token = None
    if spec.role is not None:
        place = {name: request.path_params.get(name) for name in ("site", "device")}
        token = await admit(fleet, request, None if spec.any_token else spec.role, **place)
    queries = read_queries(request, spec.queries)
    if spec.body is not None:
        return Call(fleet, request, token, await read_body(request, spec.body), queries)
    if spec.raw is None and has_body(request):
        raise Problem(400, "No body is taken here.", mend="Send none.", headers={"Connection": "close"})
    return Call(fleet, request, token, None, queries)
