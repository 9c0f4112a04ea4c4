"""The store runs the old bundle or the new one, whatever interrupts the change."""

import fcntl
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import file_ref, pack_bundle
from tinysight_contract.errors import BundleError, StoreError
from tinysight_contract.files import replace_file
from tinysight_contract.manifest import Manifest
from tinysight_edge.store import State, Store, Unsigned

Sample = Callable[..., tuple[Manifest, dict[str, bytes]]]


@pytest.fixture
def bundles(sample: Sample, tmp_path: Path) -> list[Path]:
    made = []
    for release in (1, 2, 3):
        path = tmp_path / f"{release}.bundle"
        replace_file(path, pack_bundle(*sample(release=release)))
        made.append(path)
    return made


def test_an_empty_store_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="tinysight flash"):
        Store(tmp_path / "store").active()
    assert not (tmp_path / "store").exists(), "looking changes nothing"


def test_installing_switches_keeps_the_one_before_and_removes_older_ones(bundles: list[Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    digests = [store.install(path, trust=Unsigned()).digest for path in bundles]
    assert store.active().manifest.release == 3
    state = store.state()
    assert (state.active, state.previous) == (digests[2], digests[1])
    assert {path.stem for path in (tmp_path / "store" / "bundles").iterdir()} == set(digests[1:])


def test_installing_the_same_bundle_again_changes_nothing(bundles: list[Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for path in (bundles[0], bundles[1], bundles[1]):
        store.install(path, trust=Unsigned())
    assert store.active().manifest.release == 2
    assert store.state().previous is not None


def test_installing_the_same_bundle_again_repairs_a_damaged_file(bundles: list[Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    digest = store.install(bundles[0], trust=Unsigned()).digest
    (tmp_path / "store" / "bundles" / f"{digest}.bundle").write_bytes(b"rot")
    with pytest.raises(StoreError, match="Flash it again"):
        store.active()
    store.install(bundles[0], trust=Unsigned())
    assert store.active().digest == digest


def test_a_damaged_bundle_is_not_installed_and_nothing_is_written(bundles: list[Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.install(bundles[0], trust=Unsigned())
    before = sorted((tmp_path / "store").rglob("*"))
    bundles[1].write_bytes(bundles[1].read_bytes()[:5000])
    with pytest.raises(BundleError):
        store.install(bundles[1], trust=Unsigned())
    assert sorted((tmp_path / "store").rglob("*")) == before
    assert store.active().manifest.release == 1


@pytest.mark.parametrize(
    ("state", "said"),
    [
        pytest.param(lambda digest: State(bad=[digest]), "failed on this device", id="known bad"),
        pytest.param(lambda _: State(floor=5), "below 5", id="below the floor"),
    ],
)
def test_what_must_not_be_installed(
    state: Callable[[str], State], said: str, bundles: list[Path], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    digest = Store(tmp_path / "other").install(bundles[0], trust=Unsigned()).digest
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "state.json").write_bytes(msgspec.json.encode(state(digest)))
    with pytest.raises(BundleError, match=said):
        store.install(bundles[0], trust=Unsigned())


@pytest.mark.parametrize("raw", [b"", b"{", b'{"active": "../../etc/passwd"}', b'{"schema": 2}', b'{"attempts": -1}'])
def test_a_damaged_state_is_said_with_a_mend(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(raw)
    with pytest.raises(StoreError):
        Store(tmp_path).state()


def test_two_writers_do_not_meet(bundles: list[Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.install(bundles[0], trust=Unsigned())
    handle = os.open(tmp_path / "store" / "lock", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="being written to"):
        store.install(bundles[1], trust=Unsigned())
    os.close(handle)


def test_a_full_disk_leaves_what_was_active(
    bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    store.install(bundles[0], trust=Unsigned())

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            store.install(bundles[1], trust=Unsigned())
    assert store.active().manifest.release == 1
    store.install(bundles[1], trust=Unsigned())
    assert not list((tmp_path / "store").rglob("*.part"))


def test_killed_at_each_step_of_an_install_the_store_runs_the_old_or_the_new(
    bundles: list[Path], tmp_path: Path
) -> None:
    """Ends the process right before its n-th change of the disk, for every n."""
    code = (
        "import os, sys, pathlib\n"
        "left = int(sys.argv[3])\n"
        "def dying(real):\n"
        "  def call(*a, **k):\n"
        "    global left\n"
        "    if left == 0: os._exit(9)\n"
        "    left -= 1\n"
        "    return real(*a, **k)\n"
        "  return call\n"
        "from tinysight_edge.store import Store, Unsigned\n"
        "for owner, name in ((os, 'fsync'), (pathlib.Path, 'replace'), (pathlib.Path, 'unlink')):\n"
        "  setattr(owner, name, dying(getattr(owner, name)))\n"
        "Store(pathlib.Path(sys.argv[1])).install(pathlib.Path(sys.argv[2]), trust=Unsigned())"
    )
    seen: list[int] = []
    for step in range(40):
        root = tmp_path / f"store-{step}"
        store = Store(root)
        store.install(bundles[0], trust=Unsigned())
        store.install(bundles[1], trust=Unsigned())
        done = subprocess.run([sys.executable, "-c", code, str(root), str(bundles[2]), str(step)], check=False)
        seen.append(store.active().manifest.release)
        store.install(bundles[2], trust=Unsigned())
        assert store.active().manifest.release == 3
        if done.returncode == 0:
            break
        assert done.returncode == 9
    assert done.returncode == 0
    assert len(seen) > 6
    assert seen == sorted(seen), "old first, new from the commit point on"
    assert set(seen) == {2, 3}


def test_flash_killed_at_fifty_random_moments_leaves_the_old_or_the_new(sample: Sample, tmp_path: Path) -> None:
    manifest, files = sample()
    pair = []
    for release in (11, 12):
        files["int8.tflite"] = random.Random(release).randbytes(3_000_000)
        listed = {name: file_ref(data) for name, data in files.items()}
        path = tmp_path / f"big-{release}.bundle"
        replace_file(path, pack_bundle(replace(manifest, release=release, files=listed), files))
        pair.append(path)
    store = Store(tmp_path / "store")
    store.install(pair[0], trust=Unsigned())
    command = [sys.executable, "-m", "tinysight_deploy", "flash"]
    begun = time.monotonic()
    subprocess.run([*command, str(pair[1]), "--to", f"dir:{tmp_path / 'store'}"], check=True, capture_output=True)
    whole_s = time.monotonic() - begun
    dice = random.Random(7)
    for round_ in range(50):
        target = pair[round_ % 2]
        flash = subprocess.Popen(
            [*command, str(target), "--to", f"dir:{tmp_path / 'store'}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(dice.uniform(0.5, 1.1) * whole_s)
        flash.kill()
        flash.wait()
        assert store.active().manifest.release in (11, 12)
    store.install(pair[0], trust=Unsigned())
    assert store.active().manifest.release == 11
    assert not list((tmp_path / "store").rglob("*.part"))
