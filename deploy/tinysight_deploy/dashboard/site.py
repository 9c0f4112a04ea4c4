"""The dashboard's page over HTTP: a few files that are held in memory, and the headers that bind a browser.

In: the folder that `dashboard/build.py` fills, `Settings`.  Out: an application; or a folder for any web server. A path
is looked up in a table of what there is, so none leads out of it.
"""

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tinysight_contract.errors import ConfigError
from tinysight_deploy.dashboard.settings import Settings
from tinysight_deploy.serving import HSTS

__all__ = ["STATIC", "File", "application", "export", "policy", "read_files", "security"]

STATIC: Final = Path(__file__).with_name("static")
CONFIG: Final = "config.json"
INDEX: Final = "index.html"
MARK: Final = ".tinysight-dashboard"
"""An empty file in folders that an export began: what is there is ours."""
FOREVER: Final = "public, max-age=31536000, immutable"
ASK: Final = "no-cache"
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
"""What a page is made of; other files of its folder are not served."""
PACKED: Final = {".ico", ".png", ".woff2"}
"""Files that gzip makes no smaller."""
_HASHED: Final = re.compile(r"assets/.+-[A-Za-z0-9_-]{8,}\.[a-z0-9]+", re.ASCII)
_MEND: Final = "Run `make dashboard` in a checkout, else install TinySight again from its wheel."


@dataclass(frozen=True, slots=True)
class File:
    """One file of the page.

    Attributes:
        body: its bytes.
        gzipped: the same compressed; None where that saves nothing.
        type: its media type.
        tag: its ``ETag``.
        cache: its ``Cache-Control``.
    """

    body: bytes
    gzipped: bytes | None
    type: str
    tag: str
    cache: str

    @classmethod
    def of(cls, name: str, body: bytes) -> "File":
        """A file by its name in the folder."""
        suffix = Path(name).suffix
        small = None if suffix in PACKED else gzip.compress(body, 9, mtime=0)
        return cls(
            body=body,
            gzipped=small if small is not None and len(small) < len(body) else None,
            type=TYPES[suffix],
            tag=f'"{hashlib.sha256(body).hexdigest()[:32]}"',
            cache=FOREVER if _HASHED.fullmatch(name) else ASK,
        )


def read_files(settings: Settings, folder: Path = STATIC) -> dict[str, File]:
    """All that is served, by its path without the first slash.

    Raises:
        ConfigError: the page is not built.
    """
    files = {name: File.of(name, body) for name, body in _bodies(folder).items()}
    return {**files, CONFIG: File.of(CONFIG, settings.config)}


def _bodies(folder: Path) -> dict[str, bytes]:
    """The files of the page by name; those whose name begins with a dot are ours alone."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in TYPES and path.is_file() and not any(each.startswith(".") for each in path.parts[-2:])
    }
    if INDEX not in found:
        raise ConfigError("The dashboard's page is not built.", mend=_MEND)
    return found


def policy(settings: Settings) -> str:
    """The content security policy: scripts and styles of the page alone, connections to what it shows alone."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            " ".join(("connect-src 'self'", *settings.origins)),
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


def security(settings: Settings, *, secure: bool = False) -> dict[str, str]:
    """The headers that every answer has.

    Args:
        settings: of the page.
        secure: it is reached with TLS, and shall be from now on.
    """
    given = {
        "Content-Security-Policy": policy(settings),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return {**given, "Strict-Transport-Security": HSTS} if secure else given


def application(settings: Settings, *, folder: Path = STATIC, secure: bool = False) -> ASGIApp:
    """The web application. It reads the files now: what is built later shows after a restart.

    Raises:
        ConfigError: the page is not built.
    """
    files, headers = read_files(settings, folder), security(settings, secure=secure)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(Request(scope), files, headers)(scope, receive, send)

    return answer


def _answer(request: Request, files: Mapping[str, File], headers: Mapping[str, str]) -> Response:
    """What is said to a request."""
    if request.method not in {"GET", "HEAD"}:
        return _plain(405, "Only GET and HEAD.", {**headers, "Allow": "GET, HEAD"})
    file = files.get(request.scope["path"].removeprefix("/") or INDEX)
    if file is None:
        return _plain(404, "There is no such file. The dashboard is at /.", headers)
    own = {**headers, "Cache-Control": file.cache, "ETag": file.tag, "Vary": "Accept-Encoding"}
    asked = request.headers.get("if-none-match", "")
    if asked == "*" or file.tag in re.findall(r'"[^"]*"', asked):
        return Response(status_code=304, headers=own)
    packed = file.gzipped if _takes_gzip(request.headers.get("accept-encoding", "")) else None
    if packed is not None:
        own["Content-Encoding"] = "gzip"
    return Response(file.body if packed is None else packed, headers={**own, "Content-Type": file.type})


def _takes_gzip(accepted: str) -> bool:
    """Whether ``Accept-Encoding`` lets gzip in."""
    for each in accepted.lower().split(","):
        name, _, quality = each.replace(" ", "").partition(";q=")
        if name == "gzip":
            return quality.rstrip("0.") != "" or not quality
    return False


def _plain(status: int, text: str, headers: Mapping[str, str]) -> Response:
    own = {**headers, "Cache-Control": "no-store", "Content-Type": "text/plain; charset=utf-8"}
    return Response(f"{text}\n", status_code=status, headers=own)


def export(settings: Settings, out: Path, *, folder: Path = STATIC) -> int:
    """Write the page and its ``config.json`` for a web server; how many files.

    What an earlier export left is written over; its hashed files stay, so that pages that are open go on.

    Args:
        settings: of the page.
        out: to make, empty, or made by an earlier export.
        folder: where the page is.

    Raises:
        ConfigError: `out` holds something else, or the page is not built.
        OSError: it cannot be written.
    """
    bodies = {**_bodies(folder), CONFIG: settings.config}
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARK).is_file())):
        raise ConfigError(f"{out} is not empty and no export of ours: it has no {MARK}.", mend="Name another folder.")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()  # first, so that an export that breaks off is taken up again
    for name in sorted(bodies, key=lambda each: each == INDEX):  # the page last: it names the others
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_bytes(bodies[name])
        fresh.replace(path)
    return len(bodies)
