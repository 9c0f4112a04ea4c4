"""``tinysight store``: a device's bundles, on the device: show, verify, install, roll back, clean up."""

import signal
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tinysight_contract.updates import Release, Update
    from tinysight_edge.store import Store

__all__ = ["store_app"]

store_app = typer.Typer(no_args_is_help=True)

PLACE: Final = Path("/var/lib/tinysight/store")
POLL_S: Final = 0.2
BACK_S: Final = 30.0
"""So long a roll-back waits for whoever changes the store; a server that hangs is waited for meanwhile."""
Root = Annotated[Path, typer.Option("--store", envvar="TINYSIGHT_STORE", help="The store's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON line at the end; with install one for each step.")]


@store_app.callback()
def _store() -> None:
    """A device's bundles: what runs, what ran before, what is on its way."""


@store_app.command("show")
def show(*, store: Root = PLACE, as_json: AsJson = False) -> None:
    """Say what is active and if its file is whole, what was before, what became of the newest, if an agent runs."""
    from tinysight_edge.console import finish
    from tinysight_edge.store import Store

    here = Store(store)
    state = here.state()
    whole = state.active is None or here.is_whole(state.active.digest)
    if as_json:
        finish({"state": state, "runs": here.is_run(), "whole": whole}, as_json=True)
        return
    told = state.newest
    rows = {
        "active": _said(state.active) + ("" if whole else ", damaged: flash it again"),
        "previous": _said(state.previous),
        "agent": "runs" if here.is_run() else "does not run",
        "newest": "none" if told is None else _line(told),
        "lowest release": ", ".join(f"{name}: {number}" for name, number in sorted(state.floor.items())) or "any",
        "failed here": ", ".join(f"{each.digest[:12]} ({each.code.value})" for each in state.bad) or "none",
    }
    finish(rows, as_json=False)


@store_app.command("verify")
def verify(*, store: Root = PLACE, as_json: AsJson = False) -> None:
    """Read every bundle of the store and check it against its digest; status 1 when one is damaged."""
    from tinysight_edge.console import finish
    from tinysight_edge.store import Store

    here = Store(store)
    state = here.state()
    coming = None if state.candidate is None else state.candidate.bundle
    named = {"active": state.active, "previous": state.previous, "candidate": coming}
    found = {name: here.is_whole(each.digest) for name, each in named.items() if each is not None}
    finish(found if as_json else {name: "whole" if ok else "damaged" for name, ok in found.items()}, as_json=as_json)
    if not all(found.values()):
        raise typer.Exit(1)


@store_app.command("trust")
def trust(
    root: Annotated[Path, typer.Argument(help="The repository's first root: KEYS/root.json.", show_default=False)],
    *,
    store: Root = PLACE,
    as_json: AsJson = False,
) -> None:
    """Have this device believe the owner of a repository; once, by whoever sets it up.

    `tinysight device add` and the first flash into an empty folder do it by themselves.
    """
    from tinysight_contract.files import read_capped
    from tinysight_edge.console import finish
    from tinysight_edge.store import Store
    from tinysight_edge.update.owner import become_owner
    from tinysight_edge.update.trust import new_trust
    from tinysight_edge.update.tuf_client import MAX_ROOT_BYTES

    here = Store(store)
    raw = read_capped(root, MAX_ROOT_BYTES)  # of whoever runs this
    become_owner(store)
    with here.alone():
        new_trust(here.trust, raw, here.disk)
    finish({"root": here.trust / "root.json"}, as_json=as_json)


@store_app.command("install")
def install(
    target: Annotated[str, typer.Argument(help="The release: <project>/<name>-<version>.bundle.", show_default=False)],
    *,
    source: Annotated[str, typer.Option("--from", help="The repository: a folder or an http(s) address.")],
    store: Root = PLACE,
    digest: Annotated[str | None, typer.Option(help="Only if it has this SHA-256.", show_default=False)] = None,
    again: Annotated[bool, typer.Option("--again", help="Although it failed on this device before.")] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the running agent's trial.", min=0)] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Verify a signed release, take it in and test it.

    An agent that runs from this store tests it and tries it under its cameras; without one it is tested here and waits
    for the next start. Status 1 when it was not taken or did not stay; 0 also while that is not decided, which is said.
    """
    from tinysight_contract.updates import UpdateState
    from tinysight_edge.health.machine import clock_synced
    from tinysight_edge.store import Store
    from tinysight_edge.update.installer import UNTESTED, Installer
    from tinysight_edge.update.owner import become_owner
    from tinysight_edge.update.sources import open_source

    become_owner(store)
    here = Store(store)
    synced = clock_synced() is True
    installer = Installer(here, tell=lambda update: _tell(update, as_json=as_json), synced=synced)
    with _undisturbed():
        told = installer.install(open_source(source), target, digest=digest, again=again)
        if told.state in UNTESTED and not here.is_run():
            told = installer.test() or told
    told = _await(here, told, wait, as_json=as_json)
    if told.state in {UpdateState.VERIFIED, UpdateState.SELFTEST, UpdateState.TRIAL}:
        by = "Its agent has not decided yet" if here.is_run() else "No agent runs here: one decides once it does"
        sys.stderr.write(f"{by}; see `tinysight store show`.\n")
    if told.state in {UpdateState.REJECTED, UpdateState.FAILED, UpdateState.ROLLED_BACK}:
        raise typer.Exit(1)


@store_app.command("rollback")
def rollback(*, store: Root = PLACE, as_json: AsJson = False) -> None:
    """Go back to the bundle that ran before; a running agent follows within seconds.

    What is left is not installed again unless somebody asks for it with --again.
    """
    from tinysight_contract.errors import StoreError
    from tinysight_contract.messages import utc_now
    from tinysight_edge.console import finish
    from tinysight_edge.store import Store
    from tinysight_edge.update.owner import become_owner
    from tinysight_edge.update.update import roll_back

    become_owner(store)
    here = Store(store)
    with _given_up(here):
        state = here.state()
        back = roll_back(state, utc_now())
        if back is None or back.active is None:
            raise StoreError("There is nothing to go back to.", mend="Flash a release.")
        here.open(back.active)
        here.save(back)
        here.sweep(back)
    finish({"active": _said(back.active), "left": _said(state.active)}, as_json=as_json)


@store_app.command("gc")
def collect(*, store: Root = PLACE, as_json: AsJson = False) -> None:
    """Remove what no state names: older bundles, and what is left of broken-off transfers."""
    from tinysight_edge.console import finish
    from tinysight_edge.store import Store
    from tinysight_edge.update.owner import become_owner

    become_owner(store)
    here = Store(store)
    with here.alone():
        before = _used(here)
        here.sweep(here.state())
        finish({"freed_bytes": before - _used(here), "kept_bytes": _used(here)}, as_json=as_json)


@contextmanager
def _given_up(store: "Store") -> "Iterator[None]":
    """Have the store alone; whoever fetches or tests something gives it up for this.

    Raises:
        StoreError: it is not given up in time.
        OSError: the store cannot be written.
    """
    from tinysight_contract.errors import StoreError

    until_s = time.monotonic() + BACK_S
    with ExitStack() as held, store.wanted_back():
        while True:
            try:
                held.enter_context(store.alone())
                break
            except StoreError:
                if time.monotonic() >= until_s:
                    raise
            time.sleep(POLL_S)
        yield


@contextmanager
def _undisturbed() -> "Iterator[None]":
    """A lost connection breaks nothing off; a request to end does as Ctrl-C does, so that a test does not count."""

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _await(store: "Store", told: "Update", wait_s: float, *, as_json: bool) -> "Update":
    """Follow the candidate until it has ended, as long as an agent works on it."""
    until_s = time.monotonic() + wait_s
    while time.monotonic() < until_s and store.is_run():
        state = store.state()
        if state.newest is None or state.newest.target != told.target:
            break
        if state.newest != told:
            told = state.newest
            _tell(told, as_json=as_json)
        if state.candidate is None:
            break
        time.sleep(POLL_S)
    return told


def _tell(update: "Update", *, as_json: bool) -> None:
    import msgspec

    line = msgspec.json.encode(update).decode() if as_json else _line(update)
    with suppress(BrokenPipeError):  # nobody listens any more; what was begun is brought to its end
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _line(update: "Update") -> str:
    what = update.target if update.bundle is None else f"{update.bundle.name} {update.bundle.version}"
    how = f" {update.share:.0%}" if update.state.value == "downloading" else ""
    why = f" ({update.code.value}): {update.reason}" if update.code is not None else ""
    return f"{what}: {update.state.value}{how}{why}"


def _said(release: "Release | None") -> str:
    if release is None:
        return "none"
    return f"{release.name} {release.version} (release {release.release}, {release.digest[:12]})"


def _used(store: "Store") -> int:
    return sum(path.stat().st_size for path in (store.root / "bundles").glob("*") if path.is_file())
