"""Hard examples over HTTP: devices send them in pieces, who may read fetches them, who may operate removes them.

::

    HEAD   …/{sha256}   Upload-Offset: what is here, 404 when nothing is; Upload-Length: all of it is
    PATCH  …/{sha256}   the next piece, with Upload-Offset and Upload-Length; 409 says where to go on

A server that keeps no examples answers 404 without Upload-Offset. A piece is small and comes in one request, so a line
that breaks costs that piece at most.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tinysight_contract.errors import FleetError
from tinysight_deploy.fleet.control.members import Roll
from tinysight_deploy.fleet.keeping.examples import MAX_PIECE_BYTES, Arrived, FullError, Kept, PieceError
from tinysight_deploy.fleet.keeping.tokens import Role
from tinysight_deploy.fleet.server.openapi import Header, Query, Spec
from tinysight_deploy.fleet.server.problems import Problem
from tinysight_deploy.fleet.server.taking import Call
from tinysight_deploy.fleet.types import Key

__all__ = ["EXAMPLES", "ExampleRows"]

PIECE_S: Final = 60.0
_NUMBER: Final = re.compile(r"[0-9]{1,12}")
T = TypeVar("T")


class ExampleRows(Struct, frozen=True, kw_only=True):
    """Examples, by site, device and digest.

    Attributes:
        items: at most as many as were asked for.
        next: what to give as ``after`` to go on; null at the end.
    """

    items: list[Arrived]
    next: str | None = None


def _kept(call: Call) -> Kept:
    if call.fleet.examples is None:
        raise Problem(404, "This server keeps no examples.", mend="Start it with --examples FOLDER.")
    return call.fleet.examples


def _named(call: Call) -> tuple[str, str, str]:
    digest = str(call.request.path_params["digest"])
    if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
        raise Problem(404, "There is no such example.", mend="Name it by its SHA-256.")
    return call.inside("site"), call.inside("device"), digest


async def _done(work: Callable[[], T]) -> T:
    """Do something on the disk, in a thread.

    Raises:
        Problem: the disk says no.
    """
    try:
        return await anyio.to_thread.run_sync(work)
    except OSError as error:
        mend = "Look at the folder of --examples on the server."
        raise Problem(503, f"Examples cannot be reached: {error.strerror}.", mend=mend) from error


async def _list(call: Call) -> ExampleRows:
    kept, most = _kept(call), call.queries["most"]
    site, device, group = (call.queries.get(name) for name in ("site", "device", "group"))

    def look() -> list[Arrived]:
        if group is None and site is None and device is None:
            return kept.listing(after=call.queries.get("after", ""), most=most)
        return kept.listing(keys=_wanted(call, site, device, group), after=call.queries.get("after", ""), most=most)

    rows = await _done(look)
    last = f"{rows[-1].site}/{rows[-1].device}/{rows[-1].digest}" if len(rows) == most else None
    return ExampleRows(items=rows, next=last)


def _wanted(call: Call, site: str | None, device: str | None, group: str | None) -> set[Key]:
    """Whose examples are asked for."""
    heard = set(_kept(call).devices())
    if group is not None:
        heard &= Roll(call.fleet.inventory).members(group, heard)
    return {key for key in heard if site in {None, key[0]} and device in {None, key[1]}}


async def _look(call: Call) -> Response:
    kept, named = _kept(call), _named(call)
    here, whole = await _done(lambda: kept.here(*named))
    headers = {"Upload-Offset": str(here)} | ({"Upload-Length": str(here)} if whole else {})
    return Response(status_code=200 if here else 404, headers=headers)


async def _put(call: Call) -> Response:
    kept, named = _kept(call), _named(call)
    if call.token is None or call.token.role is not Role.DEVICE:
        raise Problem(403, "Only a device sends examples.", mend="Use its own token, with the role device.")
    at, whole = (_number(call.request, name) for name in ("Upload-Offset", "Upload-Length"))
    piece = await _piece(call.request)
    try:
        here = await anyio.to_thread.run_sync(lambda: kept.put(*named, piece, at=at, whole=whole))
    except PieceError as error:
        told = {"Upload-Offset": str(error.at)}
        raise Problem(409, f"{error.at} good bytes are here.", mend="Go on from there.", headers=told) from error
    except FullError as error:
        raise Problem(507, str(error), mend=error.mend, headers={"Retry-After": "3600"}) from error
    except FleetError as error:
        raise Problem(422, error.what, mend=error.mend) from error
    return Response(status_code=204, headers={"Upload-Offset": str(here)})


def _number(request: Request, name: str) -> int:
    text = request.headers.get(name, "")
    if _NUMBER.fullmatch(text) is None:
        raise Problem(400, f"{name} is not said.", mend="Say how many bytes, in decimal.")
    return int(text)


async def _piece(request: Request) -> bytes:
    """The body, as far as one piece may be.

    Raises:
        Problem: it is too large or too slow.
    """
    close = {"Connection": "close"}
    data = bytearray()
    try:
        with anyio.fail_after(PIECE_S):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_PIECE_BYTES:
                    mend = f"Send at most {MAX_PIECE_BYTES} bytes at once."
                    raise Problem(413, "The piece is too large.", mend=mend, headers=close)
    except TimeoutError as error:
        raise Problem(408, "The piece took too long.", mend="Send smaller ones.", headers=close) from error
    except ClientDisconnect as error:
        raise Problem(400, "It ended in the middle.", mend="Send it again.", headers=close) from error
    return bytes(data)


async def _get(call: Call) -> Response:
    kept, named = _kept(call), _named(call)
    raw = await _done(lambda: kept.read(*named))
    if raw is None:
        raise Problem(404, "There is no such example.", mend="`GET /v1/examples` lists what there is.")
    return Response(raw, media_type="image/jpeg", headers={"Content-Disposition": "attachment"})


async def _remove(call: Call) -> Response:
    kept, named = _kept(call), _named(call)
    gone = await _done(lambda: kept.drop(*named))
    if not gone:
        raise Problem(404, "There is no such example.", mend="`GET /v1/examples` lists what there is.")
    return Response(status_code=204)


_AT: Final = Header("Upload-Offset", "How many bytes are here.")
_WHOLE: Final = Header("Upload-Length", "Bytes of the whole example.")
_HERE: Final = Header("Upload-Length", "Bytes of the whole example, once all are here.", required=False)
_NONE: Final = Header("Upload-Offset", "0; left out by a server that keeps no examples.", required=False)
_ONE: Final = "/v1/examples/{site}/{device}/{digest}"
EXAMPLES: Final[tuple[tuple[Spec, Callable[[Call], Awaitable[msgspec.Struct | Response]]], ...]] = (
    (
        Spec(
            "GET", "/v1/examples", Role.READ, "listExamples", "List hard examples that devices have sent.", ExampleRows,
            queries=(
                Query("group", "Of devices: all, site:NAME, or a group of the inventory."),
                Query("site", "Of this site alone."),
                Query("device", "Of devices of this name alone."),
                Query("after", "The `next` of the page before.", most=200),
                Query("most", "Rows at most.", "integer", least=1, most=1000, default=100),
            ),
            problems=(404,),
        ),
        _list,
    ),
    (
        Spec(
            "HEAD", _ONE, Role.DEVICE, "lookAtExample", "Say in `Upload-Offset` how many bytes of an example are here.",
            None, tells={200: (_AT, _HERE), 404: (_NONE,)},
        ),
        _look,
    ),
    (
        Spec(
            "PATCH", _ONE, Role.DEVICE, "sendExample",
            "Take the next piece of an example, of `Upload-Length` bytes from `Upload-Offset` on.", None, 204,
            problems=(408, 409, 413, 507), raw="image/jpeg",
            takes=(Header("Upload-Offset", "Where this piece begins."), _WHOLE), tells={204: (_AT,), 409: (_AT,)},
        ),
        _put,
    ),
    (
        Spec(
            "GET", _ONE, Role.READ, "getExample", "Get an example: a JPEG that says what its model saw.", None,
            gives="image/jpeg",
        ),
        _get,
    ),
    (Spec("DELETE", _ONE, Role.OPERATE, "removeExample", "Remove an example.", None, 204), _remove),
)  # fmt: skip
