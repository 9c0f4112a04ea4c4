"""What a device's ``tinysight`` answers, read with suspicion.

In: bytes that a device has printed.  Out: what they mean, or a `DeviceError`. Pure. Fields that are not known here
are left alone: a device may be newer than this workstation.
"""

import re
from typing import Final

import msgspec
from msgspec import Struct

from tinysight_contract.errors import DeviceError
from tinysight_contract.updates import Release, Update, UpdateState
from tinysight_deploy.remote.targets import SshTarget, plain

__all__ = ["Held", "failed", "read_held", "read_update"]

_NO_PROGRAM: Final = (126, 127)
_NO_USER: Final = re.compile(r"unknown user|user \S+ does not exist|invalid group")
_NO_COMMAND: Final = re.compile(r"/tinysight: (command )?not found")
"""As sudo says it too, whose status is then 1."""
_MEND: Final = "Look at the device: its `tinysight` is broken or not ours; `tinysight device add` installs it anew."
_HERE: Final = {UpdateState.VERIFIED, UpdateState.SELFTEST, UpdateState.TRIAL}
"""States of a candidate whose file is whole."""


class _State(Struct):
    active: Release | None = None
    candidate: Update | None = None


class _Shown(Struct):
    state: _State
    runs: bool = False
    whole: bool = True


class Held(Struct, frozen=True, kw_only=True):
    """What a device has.

    Attributes:
        active: what runs there, or would.
        candidate: what is on its way there.
        runs: whether an agent runs from the store.
        whole: whether the active one's file is what it was.
    """

    active: Release | None
    candidate: Update | None
    runs: bool
    whole: bool = True

    def settled_on(self, digest: str) -> bool:
        """Whether this bundle is active, its file undamaged, and nothing else is to come."""
        coming = None if self.candidate is None else self.candidate.bundle
        is_active = self.active is not None and self.active.digest == digest and self.whole
        return is_active and (coming is None or coming.digest == digest)

    def base(self, digest: str) -> str | None:
        """What a transfer of this bundle starts from: itself if it is there, else what is active and whole."""
        coming = None if self.candidate is None else self.candidate.bundle
        if coming is not None and coming.digest == digest and self.candidate and self.candidate.state in _HERE:
            return digest
        return None if self.active is None or not self.whole else self.active.digest


def read_held(target: SshTarget, answer: bytes) -> Held:
    """The answer to `tinysight store show --json`.

    Raises:
        DeviceError: it is none.
    """
    try:
        shown = msgspec.json.decode(answer, type=_Shown)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _nonsense(target, answer) from error
    return Held(active=shown.state.active, candidate=shown.state.candidate, runs=shown.runs, whole=shown.whole)


def read_update(target: SshTarget, line: bytes) -> Update:
    """A line of `tinysight store install --json`.

    Raises:
        DeviceError: it is none.
    """
    try:
        return msgspec.json.decode(line, type=Update)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _nonsense(target, line) from error


def failed(target: SshTarget, status: int, err: bytes) -> DeviceError:
    """A command of the device that ended badly, as an error with what it said."""
    last = next((line for line in reversed(err.splitlines()) if line.strip()), b"")
    said = plain(last).removeprefix("error: ")
    missing = _NO_COMMAND.search(said) or (status in _NO_PROGRAM and "sudo" not in said)
    if missing or _NO_USER.search(plain(err[-1000:], 1000)):
        return DeviceError(f"{target} has no TinySight: {said}.", mend=f"Run `tinysight device add {target}`.")
    if "sudo:" in said:
        return DeviceError(
            f"{target} does not let {target.user} do that: {said}.",
            mend="Let this user use sudo without a password there, or log in as root.",
        )
    how = f"status {status}" if status >= 0 else "a signal"
    return DeviceError(
        f"{target}: its `tinysight` ended with {how}" + (f": {said.rstrip('.')}." if said else "."),
        mend="Mend that and run the same again.",
    )


def _nonsense(target: SshTarget, answer: bytes) -> DeviceError:
    return DeviceError(f"{target} answers what is no answer: {plain(answer, 80)!r}.", mend=_MEND)
