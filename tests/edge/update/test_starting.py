"""What an agent with a store starts with, and what is done so that it does not stay dark."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle, pack_bundle
from tinysight_contract.errors import RuntimeLoadError
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Release, UpdateState
from tinysight_edge.choice import choose
from tinysight_edge.config.types import AgentConfig, BrokerConfig, CameraConfig, ModelConfig, UpdateConfig
from tinysight_edge.store import Store
from tinysight_edge.units import Size
from tinysight_edge.update import selftest, starting
from tinysight_edge.update import update as decide
from tinysight_edge.update.selftest import Limits, Verdict
from tinysight_edge.update.starting import load_first, open_first

Put = Callable[[str], Bundle]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def put(store: Store, belt_bundle: Path) -> Put:
    """Have a version of the belt's bundle in the store, verified."""

    def make(version: str) -> Bundle:
        first = Bundle.open(belt_bundle)
        files = {name: first.read(name) for name in first.manifest.files}
        raw = pack_bundle(replace(first.manifest, version=version), files)
        bundle = Bundle.parse(raw, source=version)
        release = Release(
            target=f"belt/belt-{version}.bundle", digest=bundle.digest, size_bytes=len(raw), name="belt",
            version=version, release=1,
        )  # fmt: skip
        with store.alone():
            state = decide.queue(store.state(), release, utc_now())
            store.path(bundle.digest).write_bytes(raw)
            store.save(decide.progress(state, utc_now(), UpdateState.VERIFIED))
        return bundle

    return make


def confirm(store: Store) -> None:
    with store.alone():
        store.save(decide.confirm(store.state(), {}, utc_now()))


def config(store: Store, **update: Any) -> AgentConfig:
    return AgentConfig(
        site="s", device="d", state=store.root, broker=BrokerConfig(url="mqtt://h"),
        model=ModelConfig(store=store.root, engine="interpreter", scheme="none-such"),
        cameras={"gate": CameraConfig(source="0")}, update=UpdateConfig(**update),
    )  # fmt: skip


def test_a_variant_that_is_not_there_is_not_insisted_on(store: Store, put: Put) -> None:
    active = put("1.0.0")
    confirm(store)
    bundle, model, trouble = load_first(active, config(store).model, heed=lambda: None)
    assert (bundle, model.variant.scheme, trouble) == (active, active.manifest.variants[0].scheme, None)


def test_when_the_active_one_does_not_load_the_one_before_sees(
    store: Store, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put("1.0.0")
    confirm(store)
    second = put("2.0.0")
    confirm(store)
    fails = {second.digest}

    def picky(bundle: Bundle, **more: Any) -> Any:
        if bundle.digest in fails:
            raise RuntimeLoadError(f"{bundle.manifest.version} does not load.", mend="Convert it.")
        return choose(bundle, **more)

    monkeypatch.setattr(starting, "choose", picky)
    bundle, _, trouble = load_first(second, config(store).model, heed=lambda: None)
    assert bundle.digest == first.digest
    assert trouble is not None
    assert "2.0.0 is active and cannot run: 2.0.0 does not load." in trouble
    assert trouble.endswith("1.0.0 runs instead.")
    fails.add(first.digest)
    with pytest.raises(RuntimeLoadError, match=r"2\.0\.0 does not load"):
        load_first(second, config(store).model, heed=lambda: None)


def test_the_first_bundle_is_tested_within_the_limits_of_the_file_and_systemd_waits(
    store: Store, put: Put, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, given = put("1.0.0"), []

    def test(_bundle: Path, *, limits: Limits, scheme: str | None, heed: Callable[[], None], **_: Any) -> Verdict:
        given.append((limits.memory_mib, limits.max_slowdown, scheme))
        heed()
        return Verdict()

    monkeypatch.setattr(selftest, "run_selftest", test)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        wanted = config(store, memory=Size(64 * 2**20), max_slowdown=3.0)
        assert open_first(store, wanted, heed=lambda: None).digest == first.digest
        assert b"EXTEND_TIMEOUT_USEC=60000000" in systemd.recv(4096)
    assert given == [(64, 3.0, None)]


def test_an_end_that_is_asked_for_ends_the_first_test_and_counts_for_nothing(store: Store, put: Put) -> None:
    put("1.0.0")

    class AskedError(Exception):
        pass

    def heed() -> None:
        coming = store.state().candidate
        assert coming is not None
        if coming.attempts:
            raise AskedError

    with pytest.raises(AskedError):
        open_first(store, config(store), heed=heed)
    coming = store.state().candidate
    assert coming is not None
    assert (coming.state, coming.attempts) == (UpdateState.VERIFIED, 0)
