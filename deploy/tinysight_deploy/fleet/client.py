"""A fleet's server, asked over HTTP: the same answers as `Desk` gives, from elsewhere.

In: the server's address and a token.  Out: the types of `forms`, or the error that the server tells.
"""

import contextlib
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from tinysight_contract.errors import ConfigError, FleetError
from tinysight_contract.files import read_capped
from tinysight_deploy.fleet import forms
from tinysight_deploy.fleet.auth import bearer
from tinysight_deploy.fleet.desk import MOST
from tinysight_deploy.fleet.problems import PROBLEM, NoSuch, Told
from tinysight_deploy.fleet.types import Rollout
from tinysight_deploy.remote.targets import plain

__all__ = ["Remote", "read_token"]

TIMEOUT_S: Final = 30.0
MAX_ANSWER_BYTES: Final = 32 << 20
MAX_TOKEN_BYTES: Final = 4096
T = TypeVar("T")


def read_token(path: Path) -> str:
    """The token in a file's first line.

    Raises:
        ConfigError: there is none.
        OSError: the file cannot be read.
    """
    data = read_capped(path, MAX_TOKEN_BYTES)
    first = data.decode("ascii", "replace").partition("\n")[0].strip()
    if len(data) > MAX_TOKEN_BYTES or (text := bearer(f"Bearer {first}")) is None:
        raise ConfigError(f"{path} has no token.", mend="Put what `tinysight fleet token add` printed into it.")
    return text


class Remote:
    """A server. Use it in a ``with``; one thread at a time.

    Args:
        url: ``https://HOST[:PORT]``; ``http`` only to this machine.
        token: for it.
        ca: a PEM file of authorities to trust instead of the system's.

    Raises:
        ConfigError: the address or the authorities cannot be used.
    """

    def __init__(self, url: str, token: str, *, ca: Path | None = None) -> None:
        self.url = _checked(url)
        try:
            trust = ssl.create_default_context(cafile=None if ca is None else str(ca))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{ca} cannot be used: {error}.", mend="Give a PEM file with --ca.") from error
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._client = httpx.Client(base_url=self.url, headers=headers, verify=trust, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def preview(self, form: forms.Begin) -> forms.Preview:
        """What a rollout would do; errors as those of `Desk`, and FleetError when the server does not answer."""
        return self._post("/v1/rollouts/preview", form, forms.Preview)

    def begin(self, form: forms.Begin) -> Rollout:
        """Begin a rollout; errors as above."""
        return self._post("/v1/rollouts", form, Rollout)

    def rollouts(self, *, after: str = "", most: int = MOST) -> forms.RolloutRows:
        """The rollouts, the newest first; errors as above."""
        asked = {"most": str(most)} | ({"after": after} if after else {})
        return self._get("/v1/rollouts", forms.RolloutRows, **asked)

    def view(self, id_: str) -> forms.View:
        """A rollout, and how far it is; errors as above."""
        return self._get(f"/v1/rollouts/{_part(id_)}", forms.View)

    def act(self, id_: str, what: str, form: forms.Act) -> forms.Acted:
        """Have something done with a rollout; errors as above."""
        return self._post(f"/v1/rollouts/{_part(id_)}/{_part(what)}", form, forms.Acted)

    def why(self, id_: str, site: str, device: str) -> forms.Why:
        """Why a device is where it is; errors as above."""
        return self._get(f"/v1/rollouts/{_part(id_)}/why/{_part(site)}/{_part(device)}", forms.Why)

    def _get(self, path: str, kind: type[T], **asked: str) -> T:
        return self._ask("GET", path, kind, params=asked)

    def _post(self, path: str, form: msgspec.Struct, kind: type[T]) -> T:
        headers = {"Content-Type": "application/json"}
        return self._ask("POST", path, kind, content=msgspec.json.encode(form), headers=headers)

    def _ask(self, method: str, path: str, kind: type[T], **options: Any) -> T:  # noqa: ANN401 -- those of httpx
        with self._told(), self._client.stream(method, path, **options) as response:
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_ANSWER_BYTES:
                    raise FleetError(f"{self.url} says more than it may.", mend="Check the address.")
        if response.status_code >= 300:
            raise self._problem(response, bytes(data))
        try:
            return msgspec.json.decode(bytes(data), type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FleetError(
                f"{self.url} answers in words that are not known here: {error}.",
                mend="Check the address; bring the command and the server to one version.",
            ) from error

    def _problem(self, response: httpx.Response, data: bytes) -> FleetError | ConfigError:
        """The error that the server tells."""
        if response.headers.get("content-type", "").partition(";")[0] == PROBLEM:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                told = msgspec.json.decode(data, type=Told)
                kind = {404: NoSuch, 422: ConfigError}.get(response.status_code, FleetError)
                return kind(plain(told.detail, 1000), mend=plain(told.mend, 1000))
        what = f"{self.url} answers {response.status_code} {plain(response.reason_phrase, 100)}."
        return FleetError(what, mend="Check that --fleet is the address of a fleet's server.")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            mend = "Check --fleet, the network, and --ca when it has a certificate of its own."
            raise FleetError(f"{self.url} does not answer: {cause}.", mend=mend) from error


def _checked(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        ConfigError: it is none, or would send the token in plain text.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"--fleet {url!r} is no address: {error}.", mend="Write https://HOST[:PORT].") from error
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"--fleet {url!r} is no address.", mend="Write https://HOST[:PORT].")
    if parts.scheme == "http" and not _here(host):
        raise ConfigError(f"The token would reach {host} in plain text.", mend="Use https.")
    return url.rstrip("/")


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _part(text: str) -> str:
    """A part of a path, with nothing in it that would make it two."""
    return quote(text, safe="")
