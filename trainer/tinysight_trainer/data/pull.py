"""Fetch hard examples from a fleet's server into a data set, ready to be labelled.

In: a server, and whose examples.  Out: a folder in the form that a device keeps them in, each picture checked
by its SHA-256 and by what it says of itself; `importer` makes the data set of it. Who sent what stays in the picture:
device, bundle and proposals are its comment, and session and proposals are in the data set.
"""

import hashlib
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Struct

from tinysight_contract.errors import ConfigError, DataError, FleetError
from tinysight_contract.scalars import Count, Digest, Id
from tinysight_edge.pictures.examples import ANNOTATIONS, Example, coco
from tinysight_edge.pictures.jpeg import read_comment

__all__ = ["Pulled", "Server", "pull"]

PAGE: Final = 500
MOST_BYTES: Final = 8 << 20
MOST_ANSWER_BYTES: Final = 4 << 20
WAIT_S: Final = 60.0


class _Row(Struct, frozen=True):
    site: Id
    device: Id
    digest: Digest
    size_bytes: Count


class _Page(Struct, frozen=True):
    items: list[_Row]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """What came.

    Attributes:
        pictures: that are in the folder now.
        known: that were passed over, because a data set has them already.
        devices: that they are of.
        bundles: whose models kept them.
    """

    pictures: int
    known: int
    devices: int
    bundles: int


class Server:
    """A fleet's server. Use it in ``with``.

    Args:
        url: ``https://host[:port][/path]``; http only to this machine itself.
        token: of a role that may read.
        ca: certificates to trust instead of the machine's.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(self, url: str, token: str, *, ca: Path | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"{url!r} is no address of a server.", mend="Write it as https://fleet.example.")
        if parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
            raise ConfigError(f"{url} would show the token to everybody on the way.", mend="Use https.")
        try:
            verify = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{ca} cannot be read: {error}.", mend="Name a file of certificates in PEM.") from error
        self._client = httpx.Client(
            base_url=url.rstrip("/"), headers={"Authorization": f"Bearer {token}"}, verify=verify, timeout=WAIT_S
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def rows(self, asked: Mapping[str, str]) -> Iterator[_Row]:
        """What is there of whom.

        Raises:
            FleetError: the server cannot be reached, refuses, or answers something else.
        """
        after = ""
        while True:
            query = {**asked, "most": str(PAGE), **({"after": after} if after else {})}
            raw = self._get("/v1/examples", MOST_ANSWER_BYTES, query)
            try:
                page = msgspec.json.decode(raw, type=_Page)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise FleetError(f"The server's list cannot be read: {error}.", mend="Check its address.") from error
            yield from page.items
            if not page.next or page.next <= after:
                return
            after = page.next

    def picture(self, row: _Row) -> bytes:
        """One picture, unchecked.

        Raises:
            FleetError: as `rows`.
        """
        return self._get(f"/v1/examples/{row.site}/{row.device}/{row.digest}", MOST_BYTES, {})

    def _get(self, path: str, most: int, query: Mapping[str, str]) -> bytes:
        data = bytearray()
        try:
            with self._client.stream("GET", path, params=dict(query)) as answer:
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) > most:
                        raise FleetError(f"{path} has more than {most} bytes.", mend="Look who answers there.")
        except httpx.HTTPError as error:
            raise FleetError(
                f"The server cannot be reached: {str(error) or type(error).__name__}.", mend="Check its address."
            ) from error
        if answer.status_code != 200:
            raise FleetError(
                f"The server answers {answer.status_code} to {path}{_detail(bytes(data))}.",
                mend="Check the token and what is asked for.",
            )
        return bytes(data)


def pull(
    server: Server,
    folder: Path,
    asked: Mapping[str, str],
    *,
    known: Collection[str] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Pulled:
    """Fetch what is there into a folder of examples.

    Args:
        server: asked.
        folder: an empty one.
        asked: ``group``, ``site`` or ``device``; empty for all.
        known: SHA-256 of pictures to pass over.
        progress: told how many came.

    Raises:
        FleetError: as `Server.rows`.
        DataError: a picture is not what the server says, or nothing new is there.
        OSError: the disk is full.
    """
    said: dict[str, Example] = {}
    passed = 0
    for row in server.rows(asked):
        if row.digest in known:
            passed += 1
            continue
        raw = server.picture(row)
        told = read_comment(raw, Example) if hashlib.sha256(raw).hexdigest() == row.digest else None
        if told is None or (told.site, told.device) != (row.site, row.device):
            raise DataError(
                f"{row.site}/{row.device}/{row.digest[:12]} is not the picture that was asked for.",
                mend="Pull again; if it comes again, look who serves them.",
            )
        when = f"{told.captured_at:%Y%m%dT%H%M%S}"
        key = f"{told.site}/{told.device}/{told.camera}/{when}-{told.reason}-{row.digest[:8]}"
        path = folder / "images" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        said[key] = told
        progress(len(said))
    if not said:
        more = f" {passed} are in data sets already." if passed else ""
        raise DataError(
            f"No hard example is there that is new.{more}",
            mend="Let devices send some: `upload` under [fleet] of their agent.toml, and an [examples] table.",
        )
    (folder / ANNOTATIONS).write_bytes(msgspec.json.encode(coco(said)))
    return Pulled(
        len(said),
        passed,
        len({(each.site, each.device) for each in said.values()}),
        len({each.model.digest for each in said.values()}),
    )


def _detail(raw: bytes) -> str:
    """What a problem says, for people; empty when it says nothing."""
    try:
        told = msgspec.json.decode(raw[:4096], type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    words = " ".join(str(told[name]) for name in ("detail", "mend") if name in told)
    return f": {''.join(c for c in words[:300] if c.isprintable()).rstrip('.')}" if words else ""
