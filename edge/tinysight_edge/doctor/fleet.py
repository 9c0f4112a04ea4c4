"""Check of the fleet's server: name, TCP, TLS, token, by the agent's own client. Asks what it would ask."""

import time

from tinysight_edge.doctor.result import Result, ok, skip, warn
from tinysight_edge.doctor.subject import Subject
from tinysight_edge.update.fleet_http import desired, open_line

__all__ = ["fleet"]


def fleet(subject: Subject) -> Result:
    """Ask once what is desired of this device.

    Raises:
        DeviceError: the server is absent, not to be trusted, or does not take the token.
    """
    if subject.fleet is None or subject.who is None:
        return skip("No fleet's server is named.", "Give --config agent.toml with a [fleet].")
    begun_s = time.monotonic()
    with open_line(subject.fleet) as line:
        said = desired(line, subject.fleet, *subject.who)
    took_ms = (time.monotonic() - begun_s) * 1e3
    figures = {"answer_ms": round(took_ms, 1), "revision": said.revision if said.payload is not None else None}
    wanted = "nothing is desired" if said.payload is None else f"revision {said.revision} is desired"
    about = f"{subject.fleet.url} answers in {took_ms:.0f} ms: {wanted} of {'/'.join(subject.who)}"
    if subject.fleet.token_file is None:
        return warn(f"{about}, without a token.", "Let the server ask for tokens: whoever reaches it may ask.", figures)
    return ok(f"{about}.", figures)
