"""Fetch hard examples from a fleet's server into a data set, ready to be labelled.

In: a server, and whose examples.  Out: a folder in the form that a device keeps them in, each picture checked
by its SHA-256 and by what it says of itself; `importer` makes the data set of it. Who sent what stays in the picture:
device, bundle and proposals are its comment, and session and proposals are in the data set. A folder that was begun is
gone on with, and what is in it is not fetched again; a picture that is gone or wrong is passed over and named.
"""

import hashlib
import re
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import httpx
import msgspec
from msgspec import Struct

from tinysight_contract.errors import ConfigError, DataError, FleetError
from tinysight_contract.files import read_capped, replace_file
from tinysight_contract.scalars import Count, Digest, Id
from tinysight_edge.fleet_server import fleet_address
from tinysight_edge.pictures.examples import ANNOTATIONS, Example, coco
from tinysight_edge.pictures.jpeg import read_comment

__all__ = ["Pulled", "Server", "pull"]

PAGE: Final = 500
MOST_BYTES: Final = 8 << 20
MOST_ANSWER_BYTES: Final = 4 << 20
WAIT_S: Final = 60.0
PAUSES_S: Final = (1.0, 5.0, 20.0)
"""Between two tries of one request."""
BEGUN: Final = "pull.json"
_PASSING: Final = {429, 502, 503, 504}


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
        skipped: pictures that are not what they should be, and why.
        more: whether it ended at as many as were asked for.
    """

    pictures: int
    known: int
    devices: int
    bundles: int
    skipped: tuple[str, ...] = ()
    more: bool = False


class Server:
    """A fleet's server. Use it in ``with``. What breaks or is too much for it now is tried again a few times.

    Args:
        url: ``https://host[:port][/path]``; http only to this machine itself, and then without a proxy.
        token: of a role that may read, as `read_token` gives it.
        ca: certificates to trust instead of the machine's.

    Attributes:
        url: its address.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(self, url: str, token: str, *, ca: Path | None = None) -> None:
        self.url = fleet_address(url)
        try:
            verify = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{ca} cannot be read: {error}.", mend="Name a file of certificates in PEM.") from error
        try:
            self._client = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
                verify=verify,
                timeout=WAIT_S,
                trust_env=self.url.startswith("https:"),
            )
        except httpx.InvalidURL as error:
            raise ConfigError(f"{self.url!r} is no address of a server.", mend="Check --fleet.") from error
        self._answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def rows(self, asked: Mapping[str, str]) -> Iterator[_Row]:
        """What is there of whom.

        Raises:
            FleetError: the server cannot be reached, refuses, or answers something else.
        """
        after, seen = "", {""}
        while True:
            query = {**asked, "most": str(PAGE), **({"after": after} if after else {})}
            status, raw = self._get("/v1/examples", MOST_ANSWER_BYTES, query)
            if status != 200 or len(raw) > MOST_ANSWER_BYTES:
                raise _refusal(status, raw)
            try:
                page = msgspec.json.decode(raw, type=_Page)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise FleetError(f"The server's list cannot be read: {error}.", mend="Check its address.") from error
            yield from page.items
            if page.next is None or page.next in seen:
                return
            after = page.next
            seen.add(after)

    def picture(self, row: _Row) -> bytes:
        """One picture, unchecked.

        Raises:
            DataError: it is not there, or larger than it may be.
            FleetError: as `rows`.
        """
        status, raw = self._get(f"/v1/examples/{row.site}/{row.device}/{row.digest}", MOST_BYTES, {})
        if status in {404, 410}:
            raise DataError("It is gone.", mend="Pull again.")
        if status != 200:
            raise _refusal(status, raw)
        if len(raw) > MOST_BYTES:
            raise DataError(f"It has more than {MOST_BYTES} bytes.", mend="Look who answers there.")
        return raw

    def _get(self, path: str, most: int, query: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body, of which no more is read than shows that it is too long.

        Raises:
            FleetError: there is no answer, after some tries.
        """
        for pause_s in (*PAUSES_S, None):
            asked_s = 0.0
            try:
                status, headers, raw = self._once(path, most, query)
                self._answered = True
                if status not in _PASSING:
                    return status, raw
                why: Exception = _refusal(status, raw)
                asked_s = float(text) if re.fullmatch("[0-9]{1,6}", text := headers.get("Retry-After", "")) else 0.0
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                why = FleetError(f"The server cannot be reached: {_words(error)}.", mend="Check its address.")
                why.__cause__ = error
            if pause_s is None or not self._answered:
                raise why
            time.sleep(max(pause_s, min(asked_s, WAIT_S)))
        raise why

    def _once(self, path: str, most: int, query: Mapping[str, str]) -> tuple[int, httpx.Headers, bytes]:
        data = bytearray()
        with self._client.stream("GET", path, params=dict(query)) as answer:
            for chunk in answer.iter_raw():
                data += chunk
                if len(data) > most:
                    break
        return answer.status_code, answer.headers, bytes(data)


def pull(
    server: Server,
    folder: Path,
    asked: Mapping[str, str],
    *,
    known: Collection[str] = (),
    most: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Pulled:
    """Fetch what is there into a folder of examples.

    Args:
        server: asked.
        folder: an empty one, or one that this has begun.
        asked: ``group``, ``site`` or ``device``; empty for all.
        known: SHA-256 of pictures to pass over.
        most: pictures that are to be in the folder; None for all.
        progress: told how many are there.

    Raises:
        FleetError: as `Server.rows`; the folder can be gone on with.
        DataError: nothing new is there.
        ConfigError: the folder was begun with another server, or for others.
        OSError: the disk is full.
    """
    begun = msgspec.json.encode({"fleet": server.url, "asked": dict(asked)}, order="sorted")
    if (note := folder / BEGUN).exists() and read_capped(note, len(begun)) != begun:
        raise ConfigError(f"{folder} was begun for something else.", mend="Ask for the same as then, or remove it.")
    here = {digest: told for digest, told in _kept(folder) if digest not in known}
    said = {_key(told, digest): told for digest, told in here.items()}
    skipped, passed, more = list[str](), 0, False
    try:
        for row in server.rows(asked):
            if row.digest in known:
                passed += 1
            elif row.digest not in here:
                if more := most is not None and len(said) >= most:
                    break
                try:
                    raw, told = _checked(server, row)
                except DataError as error:
                    skipped.append(f"{row.site}/{row.device}/{row.digest}: {error.what}")
                    continue
                path = folder / "images" / f"{_key(told, row.digest)}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                if not note.exists():
                    replace_file(note, begun)
                replace_file(path, raw)
                said[_key(told, row.digest)] = told
                progress(len(said))
    except FleetError as error:
        if not said:
            raise
        raise FleetError(
            error.what, mend=f"{len(said)} pictures are kept in {folder}; the same command goes on from there."
        ) from error
    if not said:
        words = f" {passed} are in data sets already." if passed else ""
        words += f" {len(skipped)} cannot be used, such as {skipped[0]}" if skipped else ""
        raise DataError(
            f"No hard example is there that is new.{words}",
            mend="Let devices send some: `upload` under [fleet] of their agent.toml, and an [examples] table.",
        )
    (folder / ANNOTATIONS).write_bytes(msgspec.json.encode(coco(said)))
    return Pulled(
        len(said),
        passed,
        len({(each.site, each.device) for each in said.values()}),
        len({each.model.digest for each in said.values()}),
        tuple(skipped),
        more,
    )


def _checked(server: Server, row: _Row) -> tuple[bytes, Example]:
    """A picture, and what it says.

    Raises:
        DataError: it is not the one that was asked for.
        FleetError: as `Server.rows`.
    """
    raw = server.picture(row)
    told = read_comment(raw, Example) if hashlib.sha256(raw).hexdigest() == row.digest else None
    if told is None or (told.site, told.device) != (row.site, row.device):
        raise DataError(
            "It is not the picture that was asked for.", mend="Pull again; if it comes again, look who serves them."
        )
    return raw, told


def _kept(folder: Path) -> Iterator[tuple[str, Example]]:
    """What was fetched before, and is as it was."""
    images = folder / "images"
    for path in sorted(images.glob("*/*/*/*.jpg")):
        raw = read_capped(path, MOST_BYTES)
        digest, told = hashlib.sha256(raw).hexdigest(), read_comment(raw, Example)
        if told is not None and path == images / f"{_key(told, digest)}.jpg":
            yield digest, told


def _key(told: Example, digest: str) -> str:
    """Where a picture lies below ``images``, without its ending."""
    when = f"{told.captured_at:%Y%m%dT%H%M%S}"
    return f"{told.site}/{told.device}/{told.camera}/{when}-{told.reason}-{digest[:8]}"


def _words(error: Exception) -> str:
    """What broke, without what was sent: that holds the token."""
    if isinstance(error, httpx.LocalProtocolError | httpx.InvalidURL):
        return type(error).__name__
    words = " ".join("".join(c if c.isprintable() else " " for c in str(error)[:200]).split())
    return words.rstrip(".") or type(error).__name__


def _refusal(status: int, raw: bytes) -> FleetError:
    """What an answer means that is not what was asked for."""
    return FleetError(
        f"The server answers {status}{_detail(raw)}.", mend="Check its address, the token and what is asked for."
    )


def _detail(raw: bytes) -> str:
    """What a problem says, for people; empty when it says nothing."""
    try:
        told = msgspec.json.decode(raw[:4096], type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    words = " ".join(str(told[name]) for name in ("detail", "mend") if name in told)
    return f": {''.join(c for c in words[:300] if c.isprintable()).rstrip('.')}" if words else ""
