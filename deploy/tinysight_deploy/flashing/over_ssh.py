"""Flash one device over SSH: ask what it has, bring what it lacks, let it install that itself.

In: an `SshTarget` and a signed release.  Out: a `Result`. What is brought lies in a private folder of the device until
it is installed, under the same name each time, so a connection that was lost goes on where it stopped. Whether
it is installed decides the device, with the keys that it trusts.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from msgspec.structs import replace

from tinysight_contract.errors import DeviceError
from tinysight_contract.files import sha256_of
from tinysight_contract.updates import Code, Release, Update, UpdateState
from tinysight_deploy.flashing.report import Outcome, Result, Step, View
from tinysight_deploy.flashing.shared import Slice, Slices
from tinysight_deploy.remote.answers import Held, failed, read_held, read_update
from tinysight_deploy.remote.known_hosts import KnownHosts
from tinysight_deploy.remote.ssh import Remote, connect, may_pass
from tinysight_deploy.remote.targets import AGENT_USER, SshTarget, elevate, plain
from tinysight_deploy.repo.slices import Payload

__all__ = ["Order", "Way", "flash_ssh", "outcome_of"]

ASK_S: Final = 60.0
TRIES: Final = 4
PAUSE_S: Final = 1.0
INSTALL_S: Final = 1200.0
"""For the self-test and a slow card; the trial's time comes on top."""
SHARED: Final = PurePosixPath("/var/tmp")  # noqa: S108 -- what is made there is checked to be ours, on the device
_MOST_SAID: Final = 4 << 20
_PREPARE: Final = """
umask 022
[ -d "$1" ] || mkdir -p -m 0700 -- "$1" || exit 1
{ [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ]; } || { echo "error: $1 is somebody else's." >&2; exit 1; }
[ -z "$3" ] || { $4 chgrp -- "$3" "$1" && chmod 0750 -- "$1"; } || exit 1
mkdir -p -- "$1/$2" && cd -- "$1/$2" || exit 1
shift 4
for file do mkdir -p -- "${file%/*}" || exit 1; [ ! -f "$file" ] || sha256sum -- "$file" || true; done
"""
"""Make the folder, see that it is ours alone, and say what is in it already."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted of every device.

    Attributes:
        release: to install.
        wait_s: for the trial by a running agent.
        again: although it failed there before.
        dry_run: ask, and change nothing.
    """

    release: Release
    wait_s: float = 120.0
    again: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """How to get to a device.

    Attributes:
        target: its address.
        known_hosts: host keys that are known.
        identity: the private key's file, or the user's own keys.
        fingerprint: of its host key, where the inventory knows it.
        tell: hears of a host key that is new.
    """

    target: SshTarget
    known_hosts: KnownHosts
    identity: Path | None = None
    fingerprint: str | None = None
    tell: Callable[[str], None] = lambda _line: None


async def flash_ssh(name: str, way: Way, order: Order, slices: Slices, view: View) -> Result:
    """Flash one device. A connection that is lost is made again, a bounded number of times.

    Raises:
        TinySightError: it cannot be done; nothing else is disturbed.
        OSError: this machine's disk or files.
    """
    flash = _Flash(name, way, order, slices, view)
    for tries in range(1, TRIES + 1):
        try:
            result = await flash.once()
        except DeviceError as error:
            if not (flash.reached and may_pass(error)) or tries == TRIES:
                raise
            view.tell(Step(name, f"lost; try {tries + 1} of {TRIES}"))
            await asyncio.sleep(PAUSE_S * 2 ** (tries - 1))
        else:
            return replace(result, tries=tries, seconds=round(flash.seconds, 3))
    raise DeviceError(f"{name} was not flashed.", mend="Run the same again.")


def outcome_of(name: str, told: Update, *, runs: bool) -> Result:
    """What the store's last word means for whoever flashes."""
    ended: dict[UpdateState, Outcome] = {
        UpdateState.CONFIRMED: "confirmed",
        UpdateState.REJECTED: "rejected",
        UpdateState.FAILED: "failed",
        UpdateState.ROLLED_BACK: "rolled-back",
    }
    outcome = ended.get(told.state)
    if outcome is None:
        waits = (
            "Its agent has not decided yet: see `tinysight store show`." if runs else "It is tried at the next start."
        )
        return Result(device=name, outcome="staged", reason=waits)
    return Result(device=name, outcome=outcome, code=told.code, reason=plain(told.reason, 600))


_UNIT: Final = "tinysight-agent.service"
_START: Final = f"systemctl is-enabled --quiet {_UNIT} && systemctl start --no-block {_UNIT}"
"""A device that was made without a bundle has an agent that waits for its first one."""


class _Flash:
    """One device's flash, over however many connections."""

    def __init__(self, name: str, way: Way, order: Order, slices: Slices, view: View) -> None:
        self._name, self._way, self._order, self._slices, self._view = name, way, order, slices, view
        self._began_s = time.monotonic()
        self._moved = 0
        self.reached = False

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began_s

    async def once(self) -> Result:
        """Over one connection."""
        way, release = self._way, self._order.release
        self._step("connecting")
        async with connect(
            way.target,
            way.known_hosts,
            identity=way.identity,
            fingerprint=way.fingerprint,
            tell=way.tell,
            remember=not self._order.dry_run,
        ) as remote:
            self.reached = True
            held = await self._ask(remote)
            if held.settled_on(release.digest):
                return Result(device=self._name, outcome="unchanged", moved_bytes=self._moved)
            part = await self._slices.get(held.base(release.digest))
            if self._order.dry_run:
                would = Result(device=self._name, outcome="would-install", moved_bytes=part.payload.total_bytes)
                return _said(would, part.payload, part.payload.why_full)
            told = await self._install(remote, part)
            why = part.payload.why_full
            if part.payload.transfer != "full" and told.code is Code.NOT_FOUND:  # the device wants the whole of it
                part = await self._slices.get(None)
                told = await self._install(remote, part)
                why = plain(told.why_full) or "the device asked for it"
            result = outcome_of(self._name, told, runs=held.runs)
            if result.outcome == "confirmed" and not held.runs and not remote.target.own_root:
                await remote.run([*elevate(remote.target), "sh", "-c", _START])  # where there is one
            return _said(replace(result, moved_bytes=self._moved), part.payload, why)

    async def _ask(self, remote: Remote) -> Held:
        """What the device has."""
        self._step("asking")
        done = await remote.run(self._program("store", "show", "--json"), timeout_s=ASK_S)
        if done.status != 0:
            raise failed(remote.target, done.status, done.err)
        return read_held(remote.target, done.out)

    async def _install(self, remote: Remote, part: Slice) -> Update:
        """Bring a slice, and have it installed."""
        folder = await self._push(remote, part)
        told = await self._run_install(remote, folder)
        if told.state is not UpdateState.FAILED or told.code not in {Code.NO_SPACE, Code.DISK}:
            await remote.run(["rm", "-rf", "--", str(folder)])
        return told

    async def _push(self, remote: Remote, part: Slice) -> PurePosixPath:
        """Bring what is not there yet into the private folder."""
        target = remote.target
        shared = SHARED / f"tinysight-{target.user}"
        room = target.prefix / "var/lib/tinysight/incoming" if target.own_root else shared
        group = "" if target.own_root else AGENT_USER
        name = self._order.release.digest[:32]
        files = part.payload.files
        self._step("preparing")
        words = ["sh", "-c", _PREPARE, "sh", str(room), name, group, " ".join(elevate(target)), *files]
        done = await remote.run(words)
        if done.status != 0:
            raise failed(target, done.status, done.err)
        there = {
            line[66:].decode("utf-8", "replace"): line[:64].decode("ascii", "replace") for line in done.out.splitlines()
        }
        total, before = part.payload.total_bytes, 0
        for each in files:
            local = part.folder / each
            if there.get(each) != await asyncio.to_thread(sha256_of, local):
                self._moved += await remote.push(
                    local,
                    str(room / name / each),
                    tell=self._sending(before, total),
                )
            before += local.stat().st_size
        return room / name

    async def _run_install(self, remote: Remote, folder: PurePosixPath) -> Update:
        """Have the device install from its folder; its last word."""
        target, order = remote.target, self._order
        told: list[Update] = []

        def heard(line: bytes) -> None:
            update = read_update(target, line)
            told[:] = [update]
            size = order.release.size_bytes
            self._step(update.state.value, int(update.share * size), size)

        words = ["store", "install", order.release.target, "--from", str(folder), "--digest", order.release.digest]
        words += ["--wait", f"{order.wait_s:g}", "--json", *(["--again"] if order.again else [])]
        self._step("installing")
        done = await remote.run(
            self._program(*words), line=heard, timeout_s=INSTALL_S + order.wait_s, most_bytes=_MOST_SAID
        )
        bad = told and told[0].state in {UpdateState.REJECTED, UpdateState.FAILED, UpdateState.ROLLED_BACK}
        if not told or (done.status != 0 and not bad):
            raise failed(target, done.status, done.err)
        if told[0].target != order.release.target:
            raise DeviceError(
                f"{target} tells of {plain(told[0].target)!r} instead.", mend="Look what else is installed there."
            )
        return told[0]

    def _program(self, *words: str) -> list[str]:
        target = self._way.target
        return [*elevate(target, AGENT_USER), str(target.program), *words, "--store", str(target.store)]

    def _sending(self, before: int, total: int) -> Callable[[int], None]:
        """Who hears how much of a file has gone, after so many bytes of others."""
        return lambda count: self._step("sending", before + count, total)

    def _step(self, what: str, done: int = 0, total: int = 0) -> None:
        self._view.tell(Step(self._name, what, done, total))


def _said(result: Result, payload: Payload, why_full: str) -> Result:
    """A result with how the bundle came, and why not by its difference alone."""
    transfer = "" if payload.transfer == "none" else payload.transfer
    return replace(result, transfer=transfer, why_full=why_full if transfer == "full" else "")
