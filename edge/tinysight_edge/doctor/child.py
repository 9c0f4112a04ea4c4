"""One check in a process of its own: ``python -m tinysight_edge.doctor.child NAME``.

In: `Options` as JSON on stdin.  Out: a `Result` as JSON on stdout. What libraries print goes to stderr, and passwords
are taken out of what is said.
"""

import importlib
import os
import sys
from typing import Final

import msgspec

from tinysight_contract.errors import TinySightError
from tinysight_edge.doctor.result import Result, fail
from tinysight_edge.doctor.subject import Options, Subject, subject_of

__all__ = ["CHECKS", "check"]

CHECKS: Final = {
    "python": "machine",
    "packages": "machine",
    "runtime": "machine",
    "cpu": "machine",
    "memory": "machine",
    "temperature": "machine",
    "clock": "machine",
    "config": "places",
    "rights": "places",
    "disk": "places",
    "model": "model",
    "broker": "broker",
    "fleet": "fleet",
    "camera": "camera",
}
"""Name → the module whose function of that name it is. Imported here only, for what it imports may crash."""


def check(name: str, subject: Subject) -> Result:
    """Run a check; whatever goes wrong becomes its result.

    Args:
        name: of the check; a camera's id follows after a space.
        subject: what is checked.
    """
    kind, _, camera = name.partition(" ")
    try:
        function = getattr(importlib.import_module(f"tinysight_edge.doctor.{CHECKS[kind]}"), kind)
        found: Result = function(subject, camera) if camera else function(subject)
    except TinySightError as error:
        found = fail(error.what, error.mend)
    except ImportError as error:
        found = fail(f"{error}.", "Run `pip install 'tinysight[edge]'` in the environment that runs this command.")
    except Exception as error:  # noqa: BLE001 -- a check that breaks is a finding, not the end of the report
        found = fail(f"The check broke: {error!r}.", "Report this as a bug.")
    what, mend = found.what, found.mend
    for secret in subject.secrets():
        what, mend = what.replace(secret, "***"), mend.replace(secret, "***")
    return msgspec.structs.replace(found, check=name, what=what, mend=mend)


def main() -> None:
    """Read, check, answer."""
    answer = os.dup(1)
    os.dup2(2, 1)
    options = msgspec.json.decode(sys.stdin.buffer.read(), type=Options)
    found = check(sys.argv[1], subject_of(options))
    with os.fdopen(answer, "wb") as out:
        out.write(msgspec.json.encode(found))
    os._exit(0)  # a driver that hangs at its end must not hold the answer back


if __name__ == "__main__":
    main()
