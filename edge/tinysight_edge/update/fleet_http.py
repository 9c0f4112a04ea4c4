"""The fleet's server as one device reaches it: what is desired, over HTTP.

In: ``[fleet]`` of ``agent.toml``.  Out: the document that the broker retains for this device. One question, over one
connection, that costs at most ``MAX_BYTES`` and ``ANSWER_S`` whatever the server does. What is said there is worth as
much as what the broker says: it decides which signed bundle is wanted, never what is signed. When to ask is decided in
`orders.asker`.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

import urllib3

from tinysight_contract import __version__
from tinysight_contract.errors import ConfigError, ContractError, DeviceError, UpdateError
from tinysight_contract.messages import Desired, decode
from tinysight_edge.config.file import secret_of
from tinysight_edge.config.types import FleetConfig
from tinysight_edge.config.wanted import MAX_BYTES
from tinysight_edge.update.http_answer import is_distrust, length_of, short, strong_etag
from tinysight_edge.update.http_line import Line, trusted_context

__all__ = ["ANSWER_S", "Said", "desired", "headers_of", "open_line"]

ANSWER_S: Final = 20.0
SILENCE_S: Final = 10.0
CHUNK_BYTES: Final = 1 << 14
_ANYBODY: Final = "Check the url under [fleet], the network and the server."
_MENDS: Final = {
    401: "Make another token with `tinysight fleet token`, and write it into token_file.",
    403: "Make a token for this very site and device with `tinysight fleet token`.",
    404: "Check the url under [fleet]: it is that of `tinysight fleet serve`, without /v1.",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What the server has answered.

    Attributes:
        payload: a desired state as it came; None when none is wanted, or it is as before.
        etag: names this very answer, for the next question; None when the server gave none.
        same: it is what the question's ETag names.
        revision: of the payload.
    """

    payload: bytes | None = None
    etag: str | None = None
    same: bool = False
    revision: int = 0


def open_line(fleet: FleetConfig) -> Line:
    """Who connects; use it in ``with``. A server on this machine is asked without a proxy.

    Raises:
        DeviceError: ``ca_file`` holds no certificates.
    """
    try:
        return Line(trusted_context(fleet.ca_file), direct=urlsplit(fleet.url).scheme == "http")
    except UpdateError as error:
        raise DeviceError(error.what, mend=error.mend) from error


def headers_of(fleet: FleetConfig) -> dict[str, str]:
    """What is said with every question; the token is read again each time, for it may be replaced.

    Raises:
        DeviceError: there is no token in its file.
    """
    told = {"User-Agent": f"tinysight/{__version__}", "Accept-Encoding": "identity"}
    try:
        token = secret_of(fleet.token_file, None, {})
    except ConfigError as error:
        raise DeviceError(error.what, mend="Write the token of `tinysight fleet token` into it.") from error
    if token is None:
        return told
    if not token.isascii() or not token.isprintable() or " " in token:
        what = f"{fleet.token_file} holds no token."
        raise DeviceError(what, mend="Write the token of `tinysight fleet token` into it, and nothing else.")
    return {**told, "Authorization": f"Bearer {token}"}


def desired(line: Line, fleet: FleetConfig, site: str, device: str, *, etag: str | None = None) -> Said:
    """What is desired of a device.

    Args:
        line: of `open_line`.
        fleet: as configured.
        site: the site's id.
        device: the device's id.
        etag: of what is known already.

    Raises:
        DeviceError: nothing is known of it. The same trouble has the same words.
    """
    url = f"{fleet.url.rstrip('/')}/v1/devices/{quote(site)}/{quote(device)}/desired"
    asked = headers_of(fleet) | ({} if etag is None else {"If-None-Match": etag})
    try:
        with line.within(ANSWER_S):
            answer = line.get(url, asked, silence_s=SILENCE_S)
            try:
                said = _said(answer, url, etag)
            finally:
                answer.close()
    except UpdateError as error:  # a redirect
        raise DeviceError(error.what, mend="Name the server by the address at which it really is.") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _unreachable(url, error, cut=line.cut) from error
    if line.cut:  # and what looks like the end is none
        raise _too_slow(url)
    return said


def _said(answer: urllib3.BaseHTTPResponse, url: str, etag: str | None) -> Said:
    """What an answer means.

    Raises:
        DeviceError: it is no desired state.
    """
    if answer.status == 304 and etag is not None:
        return Said(etag=etag, same=True)
    if answer.status not in {200, 204}:
        mend = _MENDS.get(answer.status, "Look into the server's log; it is asked again.")
        raise DeviceError(f"{url}: the server answers {answer.status}.", mend=mend)
    body = _body(answer, url)
    if not body:  # also a 200: MQTT's empty payload clears, and this must not
        return Said()
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise DeviceError(
            f"{url} is sent in an encoding that was not asked for.", mend="Switch compression off for it."
        )
    try:
        revision = decode(body, Desired).revision
    except ContractError as error:
        raise DeviceError(f"{url} is no desired state: {error.what}", mend=_MENDS[404]) from error
    return Said(body, strong_etag(answer.headers), revision=revision)


def _body(answer: urllib3.BaseHTTPResponse, url: str) -> bytes:
    """All of it.

    Raises:
        DeviceError: it is larger than a desired state may be.
    """
    got = bytearray()
    large = (length_of(answer.headers) or 0) > MAX_BYTES
    while not large and (data := answer.read1(CHUNK_BYTES, decode_content=False)):
        got += data
        large = len(got) > MAX_BYTES
    if large:
        raise DeviceError(f"{url} has more than {MAX_BYTES} bytes.", mend="Ask for less at once.")
    return bytes(got)


def _unreachable(url: str, error: Exception, *, cut: bool) -> DeviceError:
    if is_distrust(error):
        mend = "Check this device's clock, and name the server's CA with ca_file under [fleet] if it has its own."
        return DeviceError(f"{url}: the server's certificate is not trusted: {short(error)}.", mend=mend)
    if cut or isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return _too_slow(url)
    return DeviceError(f"{url} cannot be reached: {short(error)}.", mend=_ANYBODY)


def _too_slow(url: str) -> DeviceError:
    return DeviceError(f"{url} comes too slowly.", mend=_ANYBODY)
