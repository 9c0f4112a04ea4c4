"""What an agent with a store starts with: the active bundle, loaded; else what can be had instead of it.

In: the store and the configuration.  Out: a bundle, a warm model, and what is wrong, if the model is another's. A
device goes dark only when nothing in its store runs.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import StoreError, TinySightError
from tinysight_contract.updates import Release
from tinysight_edge.choice import choose, scheme_of
from tinysight_edge.config.types import AgentConfig, ModelConfig
from tinysight_edge.interpreter import Model
from tinysight_edge.notify import notify
from tinysight_edge.store import Store
from tinysight_edge.update.update import spare

__all__ = ["forgive", "load_first", "open_first", "scheme_for"]

log = logging.getLogger(__name__)

EXTEND_S: Final = 60.0
"""So much more time systemd is asked for, again and again, while a bundle is tested or loaded for the start."""


def open_first(store: Store, config: AgentConfig, *, heed: Callable[[], None]) -> Bundle:
    """The active bundle; where nothing is active, the candidate once it has passed its self-test.

    Args:
        store: the agent's.
        config: with the limits of the self-test.
        heed: called several times a second during that; what it raises ends it, and the attempt does not count.

    Raises:
        StoreError: there is none that could run, or the store cannot be read or written.
    """
    from tinysight_edge.update.installer import Installer, boot  # noqa: PLC0415 -- 10 ms, and no agent without a store

    coming = store.state().candidate
    if coming is None or coming.bundle is None:
        return boot(Installer(store), store)
    from tinysight_edge.update.selftest import Limits  # noqa: PLC0415 -- only for a test

    wanted = config.update
    limits = Limits(memory_mib=wanted.memory // 2**20, max_slowdown=wanted.max_slowdown)
    scheme = scheme_for(store, coming.bundle, config.model)
    try:
        return boot(
            Installer(store, limits=limits, heed=_patient(heed)), store, scheme=scheme, threads=config.model.threads
        )
    except TinySightError:
        raise
    except BaseException:  # of heed
        forgive(store, coming.bundle)
        raise


def load_first(bundle: Bundle, wanted: ModelConfig, *, heed: Callable[[], None]) -> tuple[Bundle, Model, str | None]:
    """The bundle's model, warm; where it does not load, that of the bundle before, and why.

    Args:
        bundle: that is to run.
        wanted: how, and where its store is.
        heed: called often; what it raises ends this.

    Raises:
        TinySightError: nothing works here; said is what became of the first.
    """
    heed = _patient(heed)
    try:
        return bundle, _load(bundle, wanted, heed), None
    except (TinySightError, MemoryError) as error:
        if (before := _before(bundle, wanted)) is None:
            raise
        log.error("%s %s is active and cannot run: %s", bundle.manifest.name, bundle.manifest.version, error)
        try:
            model = _load(before, wanted, heed)
        except (TinySightError, MemoryError) as again:
            log.error(
                "%s %s, which ran before, cannot run either: %s", before.manifest.name, before.manifest.version, again
            )
            raise error from again
        name, other = (f"{each.manifest.name} {each.manifest.version}" for each in (bundle, before))
        return before, model, f"{name} is active and cannot run: {error} {other} runs instead."


def scheme_for(store: Store, release: Release, wanted: ModelConfig) -> str | None:
    """The variant to test a bundle of the store with."""
    try:
        return scheme_of(store.open(release), wanted.scheme)
    except StoreError:  # the test says what is wrong
        return wanted.scheme


def forgive(store: Store, release: Release) -> None:
    """The candidate's attempt that was begun does not count: it was broken off, and that was not its fault."""
    with suppress(StoreError, OSError), store.alone():
        state = store.state()
        coming = state.candidate
        if coming is not None and coming.bundle is not None and coming.bundle.digest == release.digest:
            store.save(spare(state))


def _patient(heed: Callable[[], None]) -> Callable[[], None]:
    """The same, and systemd waits longer for who is still starting."""
    asked_s = 0.0

    def go_on() -> None:
        nonlocal asked_s
        heed()
        if (now_s := time.monotonic()) >= asked_s:
            asked_s = now_s + EXTEND_S / 4
            notify(f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1e6:.0f}")

    return go_on


def _load(bundle: Bundle, wanted: ModelConfig, heed: Callable[[], None]) -> Model:
    scheme = wanted.scheme if wanted.store is None else scheme_of(bundle, wanted.scheme)  # a file never changes
    return choose(bundle, scheme=scheme, threads=wanted.threads, engine=wanted.engine, heed=heed)


def _before(bundle: Bundle, wanted: ModelConfig) -> Bundle | None:
    """What ran before the active bundle; None when this one is not of a store, or nothing is left of the other."""
    if wanted.store is None:
        return None
    with suppress(StoreError):
        state = Store(wanted.store).state()
        if state.previous is not None and state.active is not None and state.active.digest == bundle.digest:
            return Store(wanted.store).open(state.previous)
    return None
