"""What tests share: bundles, repositories, a device's view of one by python-tuf's client; devices behind an sshd."""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from msgspec.structs import replace
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]  # public, though not listed
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from tinysight_contract.bundle import MANIFEST, Bundle, file_ref, pack_bundle
from tinysight_contract.manifest import Manifest
from tinysight_contract.updates import Release
from tinysight_deploy.repo.repository import Repository
from tinysight_deploy.signing import beginning, rotation
from tinysight_deploy.signing.keys import KeyFolder
from tinysight_edge.store import Store
from tinysight_edge.update.update import State

MakeBundle = Callable[..., Path]
KilledAt = Callable[..., list[Path]]


class Files(FetcherInterface):
    """Fetches file:// addresses as a web server would answer."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield Path(unquote(urlsplit(url).path)).read_bytes()
        except FileNotFoundError as error:
            raise DownloadHTTPError(url, 404) from error


@dataclass
class Device:
    """A client that was given one root, and keeps what it has seen."""

    folder: Path
    root: bytes

    def updater(self, repo: Path | str) -> Updater:
        """Refreshed; an address is used as it is, a folder through file://."""
        base, fetcher = (repo, None) if isinstance(repo, str) else (repo.resolve().as_uri(), Files())
        (self.folder / "targets").mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(self.folder),
            f"{base}/metadata/",
            str(self.folder / "targets"),
            f"{base}/targets/",
            fetcher=fetcher,
            bootstrap=self.root,
        )
        updater.refresh()
        return updater

    def sees(self, repo: Path | str, target: str) -> TargetFile | None:
        return self.updater(repo).get_targetinfo(target)

    def gets(self, repo: Path | str, target: str) -> bytes:
        updater = self.updater(repo)
        info = updater.get_targetinfo(target)
        assert info is not None
        return Path(updater.download_target(info)).read_bytes()


@dataclass
class World:
    """A repository and its keys."""

    folder: Path

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    @property
    def keys(self) -> KeyFolder:
        return KeyFolder(self.folder / "keys")

    def repository(self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Repository:
        return Repository(self.repo, self.folder / "keys", now=now)

    def device(self, name: str) -> Device:
        return Device(self.folder / "devices" / name, self.repository().root_bytes())

    def rotate(self, role: str) -> dict[str, str]:
        return rotation.rotate(self.repo, self.keys, role, now=datetime.now(UTC))

    def revoke(self, key: str) -> dict[str, str]:
        return rotation.revoke(self.repo, self.keys, key, now=datetime.now(UTC))

    def key_ids(self, role: str) -> list[str]:
        return [key.keyid for key in self.repository().chain().keys(role)]

    def file_of(self, keyid: str) -> Path:
        return next((self.folder / "keys").glob(f"*-{keyid[:8]}.pem"))


def begun(folder: Path, kind: str) -> World:
    world = World(folder)
    policy, roots = (beginning.FLEET, 3) if kind == "fleet" else (beginning.HOBBY, 1)
    beginning.begin(world.repo, world.keys, policy, roots=roots, threshold=min(2, roots), now=datetime.now(UTC))
    return world


@pytest.fixture(params=["hobby", "fleet"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return begun(tmp_path / "world", request.param)


@pytest.fixture
def hobby(tmp_path: Path) -> World:
    return begun(tmp_path / "world", "hobby")


@pytest.fixture
def fleet(tmp_path: Path) -> World:
    return begun(tmp_path / "world", "fleet")


@pytest.fixture
def bundle(sample: Callable[..., tuple[Manifest, dict[str, bytes]]], tmp_path: Path) -> MakeBundle:
    """Make a bundle of 64 KiB whose weights share all but ``head`` with its relatives of the same ``seed``."""

    def make(
        release: int = 1, *, seed: int = 0, head: int | None = None, content: bytes = b"", name: str = "pets"
    ) -> Path:
        manifest, files = sample(name=name, version=f"1.0.{release}", release=release)
        weights = random.Random(seed).randbytes(60_000) + random.Random(f"{release} {head}").randbytes(4_000)
        files["int8.tflite"] = weights + content
        refs = {each: file_ref(data) for each, data in files.items()}
        path = tmp_path / f"{name}-{release}-{seed}-{head}-{len(content)}.bundle"
        path.write_bytes(pack_bundle(replace(manifest, files=refs), files))
        return path

    return make


@pytest.fixture
def killed_at(tmp_path: Path) -> KilledAt:
    """Copies of a world in which a command was killed before each of its steps; the last is whole."""

    def run(world: Path, *words: str) -> list[Path]:
        out = Path(tempfile.mkdtemp(prefix="killed-", dir=tmp_path))
        script = Path(__file__).parent / "killing.py"
        done = subprocess.run([sys.executable, str(script), str(world), str(out), *words], check=False)
        assert done.returncode == 0
        return [out / str(step + 1) for step in range(len(list(out.iterdir())))]

    return run


@pytest.fixture(scope="session")
def sshd_module(module: Callable[[str], ModuleType]) -> ModuleType:
    """``sshd.py``."""
    return module("deploy/sshd")


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
    manifest = replace(whole.manifest, version=version, release=release, files=named, **others)
    to.write_bytes(pack_bundle(manifest, files))
    return to


@pytest.fixture(scope="session")
def repository(belt_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository with releases 1.0.0, 1.1.0, 1.2.0 of the belt, with differences between them, and a big one."""
    root = tmp_path_factory.mktemp("repository")
    repository = begun(root, "hobby").repository()
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


@pytest.fixture(scope="session", autouse=True)
def _no_settings() -> Iterator[None]:
    """Nothing of whoever runs the tests: no repository, keys, passphrase or inventory of theirs."""
    folders = {"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"}
    ours = {"TINYSIGHT_NO_SKIPS", "TINYSIGHT_FUZZ_S"}
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name in folders or (name.startswith("TINYSIGHT_") and name not in ours):
                patch.delenv(name)
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folders of their own: no keys, no agent, no inventory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
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
        with store.alone():
            store.path(listed.release.digest).write_bytes((repository.folder / listed.file).read_bytes())
            store.save(State(active=listed.release, floor={"belt": listed.release.release}))
        return listed.release

    return make
