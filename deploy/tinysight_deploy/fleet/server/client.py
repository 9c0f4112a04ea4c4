"""A fleet's server, asked over HTTP: the same answers as `Desk` gives, from elsewhere.

In: the server's address and a token.  Out: the types of `forms`, or the error that the server tells.
"""

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from tinysight_contract.errors import ConfigError, FleetError, NoSuch
from tinysight_deploy.fleet.server import forms
from tinysight_deploy.fleet.server.desk import MOST
from tinysight_deploy.fleet.server.problems import PROBLEM, Told
from tinysight_deploy.fleet.types import Rollout
from tinysight_deploy.remote.targets import plain
from tinysight_edge.fleet_server import fleet_address

__all__ = ["Remote"]

TIMEOUT_S: Final = 30.0
MAX_ANSWER_BYTES: Final = 32 << 20
T = TypeVar("T")


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
        self.url = fleet_address(url)
        try:
            trust = ssl.create_default_context(cafile=None if ca is None else str(ca))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{ca} cannot be used: {error}.", mend="Give a PEM file with --ca.") from error
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        tls = self.url.startswith("https:")  # a proxy of the environment's would read what goes without
        self._client = httpx.Client(base_url=self.url, headers=headers, verify=trust, timeout=TIMEOUT_S, trust_env=tls)

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


def _part(text: str) -> str:
    """A part of a path, with nothing in it that would make it two."""
    return quote(text, safe="")
