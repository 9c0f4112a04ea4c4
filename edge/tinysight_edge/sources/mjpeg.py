"""HTTP MJPEG: a camera that answers one request with pictures for ever.

Read by ourselves rather than by FFmpeg: a damaged picture costs that picture and not the connection, and is counted;
limits hold; TLS is verified. Redirects and proxies are not followed: a camera is where it is said to be.
"""

import base64
import http.client
import socket
import ssl
import time
from contextlib import ExitStack
from typing import Final
from urllib.error import URLError
from urllib.request import (
    HTTPDigestAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    Request,
    parse_http_list,
    parse_keqv_list,
)

import numpy as np

from tinysight_contract.errors import CameraError
from tinysight_edge.sources.address import Address, unreachable
from tinysight_edge.sources.base import Image, Source
from tinysight_edge.sources.images import decode_image
from tinysight_edge.sources.multipart import Parts, boundary_of

__all__ = ["MjpegSource", "whole_jpeg"]

MEND: Final = "Check its network and power."


def whole_jpeg(raw: bytes) -> bool:
    """Whether it has the form of a whole JPEG: each segment in its place, and no stray marker in the pixels' code.

    A decoder makes a picture of nearly anything, grey where it lost its way. A flipped bit that keeps the form is not
    seen here. Takes 0.05 ms for 150 kB.
    """
    raw = raw.rstrip(b"\0\r\n")
    if not (raw.startswith(b"\xff\xd8") and raw.endswith(b"\xff\xd9")):
        return False
    at, baseline = 2, False
    while at + 4 <= len(raw):
        marker, length = raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "big")
        if raw[at] != 0xFF or not 0xC0 <= marker <= 0xFE or 0xD0 <= marker <= 0xD9 or length < 2:
            return False
        baseline |= marker in {0xC0, 0xC1}
        at += 2 + length
        if marker == 0xDA:  # the code begins; that of other kinds holds segments between its scans
            return not baseline or _pure_code(raw, at)
    return False


def _pure_code(raw: bytes, at: int) -> bool:
    """Nothing but escaped bytes and restarts until the end."""
    code = np.frombuffer(raw, np.uint8)[at:-2]
    behind = code[1:][code[:-1] == 0xFF]
    return not bool(((behind != 0) & (behind != 0xFF) & ((behind < 0xD0) | (behind > 0xD7))).any())


class MjpegSource(Source):
    """A ``multipart/x-mixed-replace`` stream of JPEGs, with Basic or Digest credentials.

    Args:
        address: of the stream.
        open_timeout_s: until the camera has answered.
        read_timeout_s: between two pictures.
    """

    def __init__(self, address: Address, *, open_timeout_s: float, read_timeout_s: float) -> None:
        self.name, self._read_s = address.shown, read_timeout_s
        self._raw = b""
        self._begun_s = self._due_s = time.monotonic()
        try:
            self._open, connection, self._response, boundary = _ask(address, timeout_s=open_timeout_s)
        except ssl.SSLCertVerificationError as error:
            raise CameraError(
                f"{self.name}: its certificate is not trusted: {error.verify_message}.",
                mend="Install the certificate's authority on this device.",
            ) from error
        except OSError as error:
            raise unreachable(address, error) from error
        except http.client.HTTPException as error:
            raise CameraError(f"{self.name} does not speak HTTP.", mend="Check the port.") from error
        connection.settimeout(read_timeout_s)
        self._parts = Parts(self._more, boundary)

    def grab(self) -> float | None:
        """The next part, not yet decoded; None when the camera ends the stream."""
        self._due_s = time.monotonic() + self._read_s
        try:
            raw = self._parts.next()
        except (OSError, http.client.HTTPException) as error:
            raise CameraError(f"{self.name} delivers no picture.", mend=MEND) from error
        if raw is None:
            return None
        self._raw = raw
        return time.monotonic() - self._begun_s

    def retrieve(self) -> Image | None:
        """Decode it; None when it is damaged."""
        image = decode_image(self._raw) if whole_jpeg(self._raw) else None
        if image is not None:
            self.height, self.width = image.shape[:2]
        return image

    def close(self) -> None:
        """End the connection."""
        self._open.close()

    def _more(self, most: int) -> bytes:
        """Bytes of the current picture; a camera that drips them more slowly than its time-out has stalled."""
        if time.monotonic() > self._due_s:
            raise TimeoutError
        return self._response.read1(most)


def _ask(address: Address, *, timeout_s: float) -> tuple[ExitStack, socket.socket, http.client.HTTPResponse, bytes]:
    """Send the request, and once more with credentials when the camera wants them. The stack closes what is open.

    Raises:
        CameraError: the answer is no stream of pictures.
    """
    authorization: str | None = None
    while True:
        connection = (
            http.client.HTTPSConnection(
                address.host, address.port, timeout=timeout_s, context=ssl.create_default_context()
            )
            if address.scheme == "https"
            else http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
        )
        with ExitStack() as stack:
            stack.callback(connection.close)
            connection.connect()
            kept = stack.enter_context(connection.sock)  # the connection forgets it as soon as it has been answered
            headers = {"User-Agent": "tinysight", "Accept": "multipart/x-mixed-replace"}
            if authorization is not None:
                headers["Authorization"] = authorization
            connection.request("GET", address.target, headers=headers)
            response = stack.enter_context(connection.getresponse())
            if response.status == 401 and authorization is None and address.username is not None:
                authorization = _authorize(address, response.headers.get_all("WWW-Authenticate") or [])
                continue
            boundary = _boundary(address, response)
            return stack.pop_all(), kept, response, boundary


def _authorize(address: Address, challenges: list[str]) -> str:
    """The answer to what the camera asks: Digest (RFC 7616, MD5 or SHA-1) where we can, else Basic where it may be.

    Raises:
        CameraError: it asks for neither. Nobody gets the password in the clear who has not asked for it so.
    """
    login, shown = f"{address.username}:{address.secret}", address.shown
    asked = [(scheme.lower(), rest) for scheme, _, rest in (challenge.partition(" ") for challenge in challenges)]
    schemes = {scheme for scheme, _ in asked}
    for scheme, rest in asked:
        if scheme == "digest" and (answer := _digest(address, rest)) is not None:
            return f"Digest {answer}"
    if "basic" in schemes:
        return "Basic " + base64.b64encode(login.encode()).decode("ascii")
    if not asked:
        raise CameraError(
            f"{shown} refuses us and does not say how to log in.", mend="Check its path, and set the camera to Digest."
        )
    if "digest" in schemes and not login.isascii():
        raise CameraError(f"{shown} asks for Digest, which is ASCII only.", mend="Change the camera's login to ASCII.")
    raise CameraError(f"{shown} asks for credentials in an unknown way.", mend="Set the camera to Digest with MD5.")


def _digest(address: Address, challenge: str) -> str | None:
    """None when Python cannot answer it: another algorithm, ``auth-int`` alone, no realm or nonce, other than ASCII."""
    known = HTTPPasswordMgrWithDefaultRealm()
    known.add_password(None, address.plain, address.username or "", address.secret)
    try:
        asked = parse_keqv_list(list(filter(None, parse_http_list(challenge))))
        return HTTPDigestAuthHandler(known).get_authorization(Request(address.plain), asked)  # noqa: S310 -- only its URL is read
    except (ValueError, IndexError, URLError):
        return None


def _boundary(address: Address, response: http.client.HTTPResponse) -> bytes:
    """What stands between two pictures.

    Raises:
        CameraError: the answer is no stream of pictures.
    """
    match response.status:
        case 200:
            pass
        case 401 | 403 if address.username is None:
            raise CameraError(f"{address.shown} wants a user name and a password.", mend="Give both.")
        case 401 | 403:
            raise CameraError(f"{address.shown} refuses the user name or the password.", mend="Check both.")
        case 301 | 302 | 303 | 307 | 308:
            raise CameraError(f"{address.shown} sends us elsewhere.", mend="Give the address that it sends us to.")
        case status:
            raise CameraError(f"{address.shown} answers with HTTP status {status}.", mend="Check its path.")
    boundary = boundary_of(response.headers.get("Content-Type", ""))
    if boundary is None:
        raise CameraError(f"{address.shown} is no MJPEG stream.", mend="Look its path up in the camera's manual.")
    return boundary
