"""What tests of updates share: a signing repository, a bad web server, a device's trust, an agent that is none."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle, pack_bundle
from tinysight_contract.errors import StoreError
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Release, UpdateState
from tinysight_edge.config.types import AgentConfig, BrokerConfig, CameraConfig, ModelConfig, UpdateConfig
from tinysight_edge.store import Store
from tinysight_edge.units import Seconds
from tinysight_edge.update import update as decide
from tinysight_edge.update import updater
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.trust import Trust, new_trust
from tinysight_edge.update.updater import Updater


@pytest.fixture(scope="session")
def simulator(module: Callable[[str], ModuleType]) -> ModuleType:
    """``simulator.py``: a repository in memory."""
    return module("edge/update/simulator")


@pytest.fixture(scope="session")
def faulty(module: Callable[[str], ModuleType]) -> ModuleType:
    """``faulty.py``: a web server that misbehaves."""
    return module("edge/update/faulty")


@pytest.fixture
def serve(faulty: ModuleType) -> Iterator[Callable[..., Any]]:
    """Start web servers that misbehave; they end with the test."""
    servers: list[Any] = []

    def start(*args: Any, **kwargs: Any) -> Any:
        servers.append(faulty.Server(*args, **kwargs))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def device(tmp_path: Path, simulator: ModuleType) -> Callable[..., Trust]:
    """The trust of one device, provisioned with the first root of the first repository that it is shown."""

    def make(source: Any, *, now: datetime | None = None, root: bytes | None = None, disk: Disk | None = None) -> Trust:
        folder = tmp_path / "trust"
        if not (folder / "root.json").exists():
            new_trust(folder, root or source.files["metadata/1.root.json"], Disk())
        return Trust(folder, source, now=now or simulator.NOW, disk=disk or Disk())

    return make


@pytest.fixture(scope="session")
def players(module: Callable[[str], ModuleType]) -> ModuleType:
    """``player.py``: an agent that is none."""
    return module("edge/update/player")


@pytest.fixture
def store(tmp_path: Path, players: ModuleType) -> Store:
    return Store(tmp_path / "store", disk=players.FullDisk())


@pytest.fixture
def raw_of(belt_bundle: Path) -> Callable[[str], bytes]:
    """A version of the belt's bundle; its first number is that of its release."""

    def make(version: str) -> bytes:
        first = Bundle.open(belt_bundle)
        files = {name: first.read(name) for name in first.manifest.files}
        number = int(version.partition(".")[0])
        return pack_bundle(replace(first.manifest, version=version, release=number), files)

    return make


@pytest.fixture
def put(store: Store, raw_of: Callable[[str], bytes], eventually: Any) -> Callable[..., Release]:
    """Have a version of the belt's bundle in the store: active where nothing was, else on trial."""

    def make(version: str) -> Release:
        raw, number = raw_of(version), int(version.partition(".")[0])
        bundle = Bundle.parse(raw, source=version)
        release = Release(
            target=f"belt/belt-{version}.bundle", digest=bundle.digest, size_bytes=len(raw), name="belt",
            version=version, release=number,
        )  # fmt: skip

        def come() -> bool:
            try:
                with store.alone():
                    state = decide.queue(store.state(), release, utc_now())
                    store.path(release.digest).write_bytes(raw)
                    state = decide.progress(state, utc_now(), UpdateState.VERIFIED)
                    change = decide.confirm if state.active is None else decide.tested
                    store.save(change(state, {}, utc_now()))
            except StoreError:  # the updates hold it just now
                return False
            return True

        eventually(come)
        return release

    return make


@pytest.fixture
def player(
    store: Store, put: Callable[..., Release], players: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """An agent that runs version 1."""
    monkeypatch.setattr(updater, "TURN_S", 0.02)
    put("1.0.0")
    config = AgentConfig(
        site="s", device="d", state=tmp_path, broker=BrokerConfig(url="mqtt://h"),
        model=ModelConfig(store=store.root), cameras={"gate": CameraConfig(source="0")},
        update=UpdateConfig(trial=Seconds(0.2)),
    )  # fmt: skip
    made = players.Player(config, store)
    made.see(SimpleNamespace(bundle=store.active()))
    return made


@pytest.fixture
def start(player: Any, store: Store) -> Iterator[Callable[[], Updater]]:
    made: list[Updater] = []

    def make() -> Updater:
        made.append(Updater(store, player.body()))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()
