"""Devices for the tests: folders of a real sshd, and a repository with releases of the belt's bundle."""

import importlib.util
import os
import random
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from tinysight_contract.bundle import MANIFEST, Bundle, file_ref, pack_bundle
from tinysight_contract.updates import Release
from tinysight_deploy.keys import KeyFolder
from tinysight_deploy.metadata import Days, Policy
from tinysight_deploy.repository import Repository
from tinysight_deploy.rotation import begin
from tinysight_edge.store import Store
from tinysight_edge.update.update import State


def _load(name: str) -> ModuleType:
    """A file beside this one."""
    spec = importlib.util.spec_from_file_location(f"deploy_{name}", Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sshd_module() -> ModuleType:
    """``sshd.py``."""
    return _load("sshd")


@pytest.fixture(scope="session")
def sshd(sshd_module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real sshd for all tests of a process; whoever breaks it starts it again."""
    with sshd_module.running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def own_sshd(sshd_module: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """A real sshd for one test."""
    with sshd_module.running_sshd(tmp_path / "own-sshd") as running:
        yield running


def version_of(bundle: Path, to: Path, *, version: str, release: int, **others: str) -> Path:
    """The same model under another version, or name."""
    whole = Bundle.open(bundle)
    files = {name: whole.read(name) for name in whole.manifest.files if name != MANIFEST}
    if "name" in others:
        files["padding.bin"] = random.Random(7).randbytes(4 << 20)
    named = {name: file_ref(data) for name, data in files.items()}
    manifest = msgspec.structs.replace(whole.manifest, version=version, release=release, files=named, **others)
    to.write_bytes(pack_bundle(manifest, files))
    return to


@pytest.fixture(scope="session")
def repository(belt_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository with releases 1.0.0, 1.1.0, 1.2.0 of the belt, with differences between them, and a big one."""
    root = tmp_path_factory.mktemp("repository")
    days = Days(root=3650, targets=3650, snapshot=3650, timestamp=3650)
    begin(root / "repo", KeyFolder(root / "keys"), Policy("hobby", days), roots=1, threshold=1, now=datetime.now(UTC))
    repository = Repository(root / "repo", root / "keys")
    for number in range(3):
        path = version_of(belt_bundle, root / f"belt-{number}.bundle", version=f"1.{number}.0", release=number + 1)
        repository.add(path)
    repository.add(version_of(belt_bundle, root / "big.bundle", version="1.0.0", release=1, name="big"))
    return repository


@pytest.fixture
def device(sshd: Any, sshd_module: ModuleType, repository: Repository, tmp_path: Path) -> Callable[..., str]:
    """Make a device, a folder with `tinysight` in it that trusts the repository; its address."""

    def make(name: str, script: str | None = None, *, on: Any = None) -> str:
        prefix = tmp_path / name
        sshd_module.install_program(prefix, script)
        trust = prefix / "var/lib/tinysight/store/trust"
        trust.mkdir(parents=True)
        (trust / "root.json").write_bytes(repository.root_bytes())
        return str((on or sshd).address(prefix))

    return make


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folders of their own: no keys, no agent, no inventory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("SSH_AUTH_SOCK", "TINYSIGHT_INVENTORY", "TINYSIGHT_REPO", "TINYSIGHT_KEYS", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir(exist_ok=True)
    return tmp_path / "home"


@pytest.fixture
def flags(sshd: Any, repository: Repository, home: Path) -> list[str]:
    """Options of `tinysight flash` for the tests' repository and key."""
    assert os.environ["HOME"] == str(home)
    repo = ["--repo", str(repository.folder), "--keys", str(repository.folder.parent / "keys")]
    return [*repo, "--identity", str(sshd.identity), "--inventory", str(home / "devices.toml")]


@pytest.fixture
def settle(repository: Repository) -> Callable[[Path, str], Release]:
    """Have a device run a release already, without its test."""

    def make(prefix: Path, name: str) -> Release:
        listed = repository.look_up(name)
        store = Store(prefix / "var/lib/tinysight/store")
        store.make()
        store.path(listed.release.digest).write_bytes((repository.folder / listed.file).read_bytes())
        with store.alone():
            store.save(State(active=listed.release, floor={"belt": listed.release.release}))
        return listed.release

    return make
