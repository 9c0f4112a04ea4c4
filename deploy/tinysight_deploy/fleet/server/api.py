"""The routes of the fleet's API, each with who may and what it takes and gives. `openapi` documents this table.

::

    request ─▶ `taking`: token? role? body? ─▶ handler ─▶ JSON, or a problem that says what to do

Handlers are few lines: what they do is in `desk`, which blocks and is run in a thread. What is known of the devices is
read in the event loop, to which it belongs.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tinysight_contract.errors import TinySightError
from tinysight_contract.messages import Desired, encode
from tinysight_deploy.fleet.control.commanding import COMMANDS
from tinysight_deploy.fleet.keeping.tokens import Role
from tinysight_deploy.fleet.server import forms
from tinysight_deploy.fleet.server.auth import LADDER, may
from tinysight_deploy.fleet.server.desk import MOST
from tinysight_deploy.fleet.server.example_routes import EXAMPLES
from tinysight_deploy.fleet.server.openapi import Header, Query, Spec, document
from tinysight_deploy.fleet.server.problems import Problem, problem_of
from tinysight_deploy.fleet.server.taking import Call, Fleet, take
from tinysight_deploy.fleet.types import Outcome, Rollout

__all__ = ["SPECS", "routes"]

T = TypeVar("T")
Handler = Callable[[Call], Awaitable[msgspec.Struct | Response]]


# --- what each route does ---------------------------------------------------------------------------------------------


async def _health(call: Call) -> forms.Health:
    live = call.fleet.live
    return forms.Health(ok=True, leads=live.leading, connected=live.hears, well=not live.trouble)


async def _openapi(_: Call) -> Response:
    return Response(_DOCUMENT, media_type="application/json")


async def _me(call: Call) -> msgspec.Struct:
    token = call.token
    if token is None:
        raise Problem(401, "No token was sent.", mend="Send one.")
    own = {"site": token.site or None, "device": token.device or None}
    return forms.Me(name=token.name, role=token.role, may=[each for each in LADDER if may(token, each)], **own)


async def _releases(call: Call) -> msgspec.Struct:
    return await anyio.to_thread.run_sync(call.desk().releases)


async def _order(call: Call) -> msgspec.Struct:
    form = forms.Order() if call.body is None else _given(call, forms.Order)
    key = call.inside("site"), call.inside("device")
    name, live = call.inside("name"), call.fleet.live
    id_, ack, waited_s = await live.order(key, name, form.args, within_s=form.seconds, who=call.who)
    return forms.Ordered(id=id_, ack=ack, waited_s=round(waited_s, 3))


async def _configure(call: Call) -> msgspec.Struct:
    form = _given(call, forms.Configure)
    key = call.inside("site"), call.inside("device")
    revision = await call.fleet.live.configure(key, form.config, based_on=form.based_on, who=call.who)
    return forms.Configured(revision=revision)


async def _devices(call: Call) -> msgspec.Struct:
    return await anyio.to_thread.run_sync(lambda desk: desk.devices(**call.page), call.desk())


async def _rollouts(call: Call) -> msgspec.Struct:
    return await anyio.to_thread.run_sync(lambda desk: desk.rollouts(**call.page), call.desk())


async def _rollout(call: Call) -> msgspec.Struct:
    return await anyio.to_thread.run_sync(call.desk().view, call.inside("rollout"))


async def _members(call: Call) -> msgspec.Struct:
    outcome = call.queries.get("outcome")
    if outcome is not None and outcome not in [*Outcome]:
        raise Problem(422, f"{outcome!r} is no outcome.", mend=f"Give one of: {', '.join(Outcome)}.")
    id_, desk = call.inside("rollout"), call.desk()
    wanted = None if outcome is None else Outcome(outcome)
    return await anyio.to_thread.run_sync(lambda: desk.members(id_, outcome=wanted, **call.page))


async def _preview(call: Call) -> msgspec.Struct:
    return await anyio.to_thread.run_sync(call.desk().preview, _given(call, forms.Begin))


async def _begin(call: Call) -> msgspec.Struct:
    return await anyio.to_thread.run_sync(call.desk().begin, _given(call, forms.Begin))


def _act(what: str) -> Handler:
    async def act(call: Call) -> msgspec.Struct:
        form = forms.Act() if call.body is None else _given(call, forms.Act)
        return await anyio.to_thread.run_sync(call.desk().act, call.inside("rollout"), what, form)

    return act


async def _why(call: Call) -> msgspec.Struct:
    id_, site, device = (call.inside(name) for name in ("rollout", "site", "device"))
    return await anyio.to_thread.run_sync(call.desk().why, id_, site, device)


async def _audit(call: Call) -> msgspec.Struct:
    return await anyio.to_thread.run_sync(call.desk().audit, call.queries.get("after", 0), call.queries["most"])


async def _desired(call: Call) -> Response:
    live, key = call.fleet.live, (call.inside("site"), call.inside("device"))
    facts = live.facts.get(key)
    if facts is None or facts.desired is None:
        if live.hears:
            return Response(status_code=204)
        after = {"Retry-After": "30"}  # nobody knows whether anything is wanted
        raise Problem(503, "The broker cannot be heard.", mend="Go on as you are, and ask again.", headers=after)
    body = encode(facts.desired)
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    asked = call.request.headers.get("if-none-match", "")
    if asked.strip() == "*" or tag in re.findall(r'"[^"]*"', asked):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _given(call: Call, kind: type[T]) -> T:
    """The body.

    Raises:
        Problem: there is none.
    """
    if not isinstance(call.body, kind):
        raise Problem(400, "Nothing was sent.", mend="/openapi.json says what is taken.")
    return call.body


# --- the table --------------------------------------------------------------------------------------------------------

_AFTER: Final = Query("after", "The `next` of the page before.")
_MOST: Final = Query("most", "Rows at most.", "integer", least=1, most=MOST, default=100)
_TAG: Final = Header("ETag", "Names this very document, for `If-None-Match`.", "string")
_EXAMPLE: Final = {
    "bundle": "belt@1.2.0",
    "group": "all",
    "policy": {"stages": [{"count": 1}, {"share": 0.05}, {"share": 0.25}, {"share": 1.0}], "soak_s": 1800.0},
}
_ACTS: Final = {
    "pause": "Ask no device and open no stage until somebody resumes.",
    "resume": "Go on after a pause or a halt; what was settled before no longer counts.",
    "abort": "End a rollout and take back what was not done; with `revert`, bring back another release.",
    "approve": "Let the next stage begin that waits for approval.",
}

_TABLE: Final[tuple[tuple[Spec, Handler], ...]] = (
    (Spec("GET", "/healthz", None, "health", "Say whether the server works.", forms.Health), _health),
    (Spec("GET", "/openapi.json", None, "openapi", "This document.", None), _openapi),
    (Spec("GET", "/v1/me", Role.DEVICE, "whoAmI", "Say whose token was sent.", forms.Me, any_token=True), _me),
    (
        Spec(
            "GET", "/v1/devices", Role.READ, "listDevices", "List the devices that were heard of.", forms.DeviceRows,
            queries=(_AFTER, _MOST),
        ),
        _devices,
    ),
    (
        Spec(
            "GET", "/v1/devices/{site}/{device}/desired", Role.DEVICE, "getDesired",
            "Get what is wanted of a device, as the broker keeps it.", Desired,
            also={204: "Nothing is wanted.", 304: "It is what `If-None-Match` names."},
            takes=(Header("If-None-Match", "The `ETag` of what is known already.", "string", required=False),),
            tells={200: (_TAG,), 304: (_TAG,)},
        ),
        _desired,
    ),
    (
        Spec(
            "PUT", "/v1/devices/{site}/{device}/config", Role.OPERATE, "configure",
            "Say what shall lie over a device's own file; all else that is wanted of it stays.", forms.Configured,
            body=forms.Configure, problems=(409,), example={"config": {"health": {"every": "10s"}}, "based_on": 7},
        ),
        _configure,
    ),
    (
        Spec(
            "POST", "/v1/devices/{site}/{device}/commands/{name}", Role.OPERATE, "order",
            f"Have a device do one of {', '.join(COMMANDS)} once, and say what it answers.", forms.Ordered,
            body=forms.Order, example={"args": {"seconds": 5}, "seconds": 10}, optional=True,
        ),
        _order,
    ),
    (
        Spec("GET", "/v1/releases", Role.READ, "listReleases", "List what may be rolled out.", forms.Releases),
        _releases,
    ),
    (
        Spec(
            "GET", "/v1/rollouts", Role.READ, "listRollouts", "List the rollouts, the newest first.",
            forms.RolloutRows, queries=(_AFTER, _MOST), problems=(404,),
        ),
        _rollouts,
    ),
    (
        Spec(
            "POST", "/v1/rollouts", Role.OPERATE, "begin", "Begin a rollout.", Rollout, 201, body=forms.Begin,
            problems=(409,), example=_EXAMPLE,
        ),
        _begin,
    ),
    (
        Spec(
            "POST", "/v1/rollouts/preview", Role.OPERATE, "preview", "Say what a rollout would do, and do nothing.",
            forms.Preview, body=forms.Begin, example=_EXAMPLE,
        ),
        _preview,
    ),
    (
        Spec("GET", "/v1/rollouts/{rollout}", Role.READ, "getRollout", "Say how far a rollout is.", forms.View),
        _rollout,
    ),
    (
        Spec(
            "GET", "/v1/rollouts/{rollout}/devices", Role.READ, "listMembers", "List the devices that were asked.",
            forms.MemberRows, queries=(_AFTER, _MOST, Query("outcome", "Only those: " + ", ".join(Outcome) + ".")),
        ),
        _members,
    ),
    *(
        (
            Spec(
                "POST", f"/v1/rollouts/{{rollout}}/{name}", Role.OPERATE, name, what, forms.Acted, body=forms.Act,
                problems=(409,), example={"reason": "as agreed"}, optional=True,
            ),
            _act(name),
        )
        for name, what in _ACTS.items()
    ),
    (
        Spec(
            "GET", "/v1/rollouts/{rollout}/why/{site}/{device}", Role.READ, "why",
            "Say why a device is where it is, each gate with its figure.", forms.Why,
        ),
        _why,
    ),
    (
        Spec(
            "GET", "/v1/audit", Role.READ, "listAudit", "List who did what, in order.", forms.Audit,
            queries=(Query("after", "The `next` of the page before.", "integer", most=1 << 53, default=0), _MOST),
        ),
        _audit,
    ),
    *EXAMPLES,
)  # fmt: skip
SPECS: Final = tuple(spec for spec, _ in _TABLE)
_DOCUMENT: Final = msgspec.json.encode(document(SPECS), order="sorted")


def routes(fleet: Fleet) -> list[Route]:
    """All routes, for a Starlette application."""
    return [_route(fleet, spec, handle) for spec, handle in _TABLE]


def _route(fleet: Fleet, spec: Spec, handle: Handler) -> Route:
    async def serve(request: Request) -> Response:
        try:
            return _answer(await handle(await take(fleet, spec, request)), spec)
        except Problem as problem:
            return problem.answer()
        except TinySightError as error:
            return problem_of(error).answer()

    return Route(spec.path, serve, methods=[spec.method], name=spec.name)


def _answer(given: msgspec.Struct | Response, spec: Spec) -> Response:
    if isinstance(given, Response):
        return given
    return Response(msgspec.json.encode(given), status_code=spec.status, media_type="application/json")
