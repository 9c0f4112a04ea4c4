"""What tests of releases share: bundles, repositories, and a device's view of one, by python-tuf's own client."""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from msgspec.structs import replace
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from tinysight_contract.bundle import file_ref, pack_bundle
from tinysight_contract.manifest import Manifest
from tinysight_deploy import rotation
from tinysight_deploy.keys import KeyFolder
from tinysight_deploy.repository import Repository

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

    def repository(self, **options: Callable[[], datetime]) -> Repository:
        return Repository(self.repo, self.folder / "keys", **options)

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
    policy, roots = (rotation.FLEET, 3) if kind == "fleet" else (rotation.HOBBY, 1)
    rotation.begin(world.repo, world.keys, policy, roots=roots, threshold=min(2, roots), now=datetime.now(UTC))
    return world


@pytest.fixture(params=["hobby", "fleet"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
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
        out = tmp_path / f"killed-{'-'.join(Path(word).stem for word in words)}"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        script = Path(__file__).parent / "killing.py"
        done = subprocess.run([sys.executable, str(script), str(world), str(out), *words], check=False)
        assert done.returncode == 0
        return [out / str(step + 1) for step in range(len(list(out.iterdir())))]

    return run
