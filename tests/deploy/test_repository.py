"""Releases as a device sees them: python-tuf's own client checks what was written, also after a kill at any step."""

import hashlib
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import ExpiredMetadataError

from tinysight_contract.errors import BundleError, ConfigError, UpdateError
from tinysight_contract.files import locked
from tinysight_contract.updates import Release, UpdateState
from tinysight_edge.store import Store
from tinysight_edge.update import update
from tinysight_edge.update.delta import apply_delta
from tinysight_edge.update.installer import Installer
from tinysight_edge.update.signed import Requires, parse_signed
from tinysight_edge.update.sources import open_source
from tinysight_edge.update.trust import new_trust
from tinysight_edge.update.tuf_client import LIMITS

World = Any  # see conftest
MakeBundle = Callable[..., Path]
KilledAt = Callable[..., list[Path]]

FIRST = "pets/pets-1.0.1.bundle"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_device_that_knows_the_first_root_gets_the_bundle_and_what_is_signed_about_it(
    site: World, bundle: MakeBundle
) -> None:
    path = bundle()
    wanted = Requires(arch=["aarch64", "armv7l"], min_memory_mib=512, min_tinysight="0.1.0")
    listed, new = site.repository().add(path, requires=wanted)
    assert new
    device = site.device("one")
    assert device.gets(site.repo, FIRST) == path.read_bytes()
    info = device.sees(site.repo, FIRST)
    assert info.hashes == {"sha256": digest(path)}
    signed = parse_signed(info.custom)
    assert signed == listed.signed
    assert (signed.name, signed.version, signed.release, signed.requires) == ("pets", "1.0.1", 1, wanted)
    assert device.sees(site.repo, "pets/other-1.0.0.bundle") is None


def test_in_a_fleet_each_project_signs_for_itself_alone(fleet: World, bundle: MakeBundle) -> None:
    repository = fleet.repository()
    repository.add(bundle())
    repository.add(bundle(name="cars"))
    keys = {role: set(fleet.key_ids(role)) for role in repository.chain().roles()}
    assert len(keys["root"]) == 3
    assert keys["snapshot"] == keys["timestamp"]
    for one, other in [("root", "targets"), ("targets", "timestamp"), ("targets", "pets"), ("pets", "cars")]:
        assert keys[one].isdisjoint(keys[other])
    roles = repository.chain().targets.signed.delegations.roles
    assert {name: (role.paths, role.terminating) for name, role in roles.items()} == {
        "pets": (["pets/*"], True),
        "cars": (["cars/*"], True),
    }


def test_the_very_same_file_is_a_release_already_and_nothing_changes(site: World, bundle: MakeBundle) -> None:
    path = bundle()
    site.repository().add(path)
    before = {each: each.stat().st_mtime_ns for each in site.repo.rglob("*")}
    listed, new = site.repository().add(path)
    assert not new
    assert listed.release.target == FIRST
    assert {each: each.stat().st_mtime_ns for each in site.repo.rglob("*")} == before


def test_a_release_must_be_above_all_of_its_name_also_above_retired_ones(hobby: World, bundle: MakeBundle) -> None:
    repository = hobby.repository()
    repository.add(bundle(5))
    with pytest.raises(ConfigError, match=r"has release 4, and 5 was released already.*--release 6"):
        repository.add(bundle(4))
    repository.retire(repository.find("pets@1.0.5"))
    with pytest.raises(ConfigError, match="5 was released already"):
        repository.add(bundle(4))
    with pytest.raises(ConfigError, match="5 was released already"):
        repository.add(bundle(4), project="other")
    repository.add(bundle(1, name="cars"))


def test_a_version_has_one_content(hobby: World, bundle: MakeBundle) -> None:
    repository = hobby.repository()
    repository.add(bundle(1))
    with pytest.raises(ConfigError, match=r"a release already, with other content.*retire that one"):
        repository.add(bundle(1, head=2), number=7)


def test_an_old_bundle_becomes_the_newest_with_a_higher_number_and_keeps_what_it_needs(
    site: World, bundle: MakeBundle
) -> None:
    repository = site.repository()
    repository.add(bundle(1), requires=Requires(arch=["aarch64"]))
    repository.add(bundle(2))
    listed, new = repository.add(bundle(1), number=3)
    assert new
    assert listed.signed.requires.arch == ["aarch64"]
    signed = parse_signed(site.device("one").sees(site.repo, FIRST).custom)
    assert signed.release == 3
    assert digest(bundle(2)) in signed.deltas, "devices go back from what they run"


def installed(site: World, store: Store, target: str) -> Release | None:
    """By a device, from the repository; what it runs then."""
    if not (store.trust / "root.json").exists():
        with store.alone():
            new_trust(store.trust, site.repository().root_bytes(), store.disk)
    told = Installer(store).install(open_source(str(site.repo)), target)
    assert told.state is UpdateState.VERIFIED, told
    with store.alone():  # as after its self-test, and its trial
        state = update.tested(update.attempt(store.state(), told.at), {}, told.at)
        store.save(state if state.candidate is None else update.confirm(state, {}, told.at))
    return store.state().active


def test_the_signed_number_decides_also_on_the_device_and_brings_an_old_bundle_back(
    hobby: World, bundle: MakeBundle, tmp_path: Path
) -> None:
    repository, store = hobby.repository(), Store(tmp_path / "store")
    for path, number in ((bundle(1), 5), (bundle(2), 6)):
        release = repository.add(path, number=number)[0].release
        assert installed(hobby, store, release.target) == release
        assert store.state().floor == {"pets": number}
    back = repository.add(bundle(1), number=7)[0].release
    assert installed(hobby, store, back.target) == back
    assert store.state().floor == {"pets": 7}
    store.path(repository.find("pets@1.0.2").digest).unlink()
    assert store.boot().digest == digest(bundle(1))


@pytest.mark.parametrize("name", ["root", "timestamp", "online", "hobby", "../up", "Shop", ""])
def test_a_name_that_could_be_a_roles_or_a_paths_is_no_project(hobby: World, bundle: MakeBundle, name: str) -> None:
    if not name:
        assert hobby.repository().add(bundle(), project=name)[0].project == "pets"
        return
    with pytest.raises(ConfigError, match=r"cannot be a project's name.*--project"):
        hobby.repository().add(bundle(), project=name)


def test_a_bundle_that_only_an_edge_tpu_runs_needs_one_by_itself(hobby: World, bundle: MakeBundle) -> None:
    listed, _ = hobby.repository().add(bundle(content=b"edgetpu-custom-op"))
    assert listed.signed.requires.accelerator == "edgetpu"


def test_what_is_no_bundle_is_not_signed(hobby: World, tmp_path: Path) -> None:
    path = tmp_path / "x.bundle"
    path.write_bytes(b"x" * 2000)
    with pytest.raises(BundleError, match="damaged or no bundle"):
        hobby.repository().add(path)
    assert list(hobby.repo.glob("targets/*")) == []


def test_differences_are_made_to_the_newest_three_where_they_are_clearly_smaller(
    hobby: World, bundle: MakeBundle
) -> None:
    repository = hobby.repository()
    paths = {release: bundle(release, seed=9 if release == 3 else 0) for release in range(1, 6)}
    for path in paths.values():
        repository.add(path)
    signed = repository.look_up("pets@1.0.5").signed
    assert set(signed.deltas) == {digest(paths[2]), digest(paths[4])}, "3 is too different, 1 too old"
    new = paths[5].read_bytes()
    for base, delta in signed.deltas.items():
        raw = (hobby.repo / delta.path).read_bytes()
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (delta.size_bytes, delta.sha256)
        assert len(raw) < 0.1 * len(new)
        before = next(path for path in paths.values() if digest(path) == base).read_bytes()
        assert apply_delta(before, raw, size=len(new), digest=digest(paths[5])) == new


def test_a_retired_release_is_not_there_for_devices_and_its_file_stays_while_devices_may_start_from_it(
    site: World, bundle: MakeBundle
) -> None:
    repository = site.repository()
    one, two = (repository.add(bundle(release))[0] for release in (1, 2))
    device = site.device("one")
    assert device.sees(site.repo, FIRST) is not None
    assert repository.retire(one.release), "2 has a difference from it"
    assert device.sees(site.repo, FIRST) is None
    assert (site.repo / one.file).exists()
    with pytest.raises(ConfigError, match="no release of"):
        repository.find(FIRST)
    with pytest.raises(ConfigError, match="no release any more"):
        repository.slice(one.release, base=None, to=site.folder / "slice")
    assert not repository.retire(two.release)
    assert not (site.repo / one.file).exists()
    assert not (site.repo / two.file).exists()
    assert list((site.repo / "deltas").iterdir()) == []


def test_a_release_is_found_by_file_by_version_and_by_target(hobby: World, bundle: MakeBundle, tmp_path: Path) -> None:
    repository = hobby.repository()
    release = repository.add(bundle(1))[0].release
    copied = tmp_path / "under another name"
    shutil.copyfile(bundle(1), copied)
    assert repository.find(copied) == repository.find("pets@1.0.1") == repository.find(FIRST) == release
    with pytest.raises(UpdateError, match=r"pets-1\.0\.1.*tinysight release add"):
        repository.find(bundle(2))
    repository.add(bundle(1), project="shop", number=2)
    with pytest.raises(ConfigError, match=r"several projects.*shop/pets-1.0.1.bundle"):
        repository.find("pets@1.0.1")


@pytest.mark.parametrize("base", [None, "one", "stranger", "itself"])
def test_a_slice_is_a_repository_by_itself_with_the_least_that_a_device_needs(
    site: World, bundle: MakeBundle, tmp_path: Path, base: str | None
) -> None:
    repository = site.repository()
    repository.add(bundle(1, name="cars"))
    one, two = (repository.add(bundle(release))[0] for release in (1, 2))
    site.rotate("root")
    device = site.device("one")
    folder = tmp_path / "slice"
    bases = {None: None, "one": one.release.digest, "stranger": "0" * 64, "itself": two.release.digest}
    payload = repository.slice(two.release, base=bases[base], to=folder)
    expected = {
        None: ("full", "runs no bundle yet"),
        "one": ("delta", ""),
        "stranger": ("full", "no difference from what the device runs (000000000000)"),
        "itself": ("none", ""),
    }
    transfer, why = expected[base]
    assert payload.transfer == transfer
    assert why in payload.why_full
    assert bool(payload.why_full) == bool(why)
    found = {str(each.relative_to(folder)): each.stat().st_size for each in folder.rglob("*") if each.is_file()}
    assert set(found) == set(payload.files)
    assert sum(found.values()) == payload.total_bytes
    assert payload.files[-1] == "metadata/timestamp.json"
    assert not [name for name in found if "cars" in name]
    if transfer == "full":
        assert device.gets(folder, two.release.target) == bundle(2).read_bytes()
    else:
        assert device.sees(folder, two.release.target).hashes["sha256"] == two.release.digest
    if transfer == "delta":
        new = apply_delta(
            bundle(1).read_bytes(),
            (folder / payload.path).read_bytes(),
            size=two.release.size_bytes,
            digest=two.release.digest,
        )
        assert new == bundle(2).read_bytes()
    assert "metadata/1.root.json" in repository.slice(two.release, base=None, to=tmp_path / "all").files
    later = repository.slice(two.release, base=None, to=tmp_path / "later", root_version=2)
    assert "metadata/1.root.json" not in later.files
    assert "metadata/2.root.json" in later.files


def test_a_slice_whose_bundle_is_missing_says_so(hobby: World, bundle: MakeBundle, tmp_path: Path) -> None:
    listed, _ = hobby.repository().add(bundle())
    (hobby.repo / listed.file).unlink()
    with pytest.raises(ConfigError, match=r"is missing.*backup"):
        hobby.repository().slice(listed.release, base=None, to=tmp_path / "slice")


def test_signatures_are_renewed_when_half_of_their_life_is_over_and_the_key_is_here(
    fleet: World, bundle: MakeBundle
) -> None:
    fleet.repository().add(bundle())
    assert not fleet.repository().refresh_if_due()
    device = fleet.device("one")
    later = datetime.now(UTC) + timedelta(days=4)
    key = fleet.file_of(fleet.key_ids("timestamp")[0])
    away = key.rename(fleet.folder / key.name)
    assert not fleet.repository(now=lambda: later).refresh_if_due(), "its key is not here"
    away.rename(key)
    with locked(fleet.repo, ConfigError("", mend="")):
        assert not fleet.repository(now=lambda: later).refresh_if_due(), "somebody else is writing"
    assert fleet.repository(now=lambda: later).refresh_if_due()
    assert not fleet.repository(now=lambda: later).refresh_if_due()
    chain = fleet.repository().chain()
    assert chain.timestamp.signed.expires > later + timedelta(days=6)
    assert device.sees(fleet.repo, FIRST) is not None


def test_refresh_renews_what_a_project_signed_too_once_half_of_its_life_is_over(
    fleet: World, bundle: MakeBundle
) -> None:
    fleet.repository().add(bundle())
    assert fleet.repository().refresh() == ["snapshot", "timestamp"]
    later = datetime.now(UTC) + timedelta(days=200)
    fleet.file_of(fleet.key_ids("targets")[0]).unlink()
    assert fleet.repository(now=lambda: later).refresh() == ["pets", "snapshot", "timestamp"]
    assert fleet.device("one").sees(fleet.repo, FIRST) is not None


def test_a_repository_that_nobody_refreshes_stops_installing(fleet: World, bundle: MakeBundle) -> None:
    ago = datetime.now(UTC) - timedelta(days=8)
    fleet.repository(now=lambda: ago).add(bundle())
    with pytest.raises(ExpiredMetadataError):
        fleet.device("one").updater(fleet.repo)
    fleet.repository().refresh()
    assert fleet.device("one").sees(fleet.repo, FIRST) is not None


def test_old_metadata_goes_after_a_while_and_roots_never(hobby: World, bundle: MakeBundle) -> None:
    hobby.repository().add(bundle())
    hobby.rotate("root")
    for _ in range(15):
        hobby.repository().refresh()
    names = [path.name for path in (hobby.repo / "metadata").iterdir()]
    assert len([name for name in names if name.endswith(".snapshot.json")]) == 10
    assert {"1.root.json", "2.root.json"} <= set(names)
    assert hobby.device("one").sees(hobby.repo, FIRST) is not None


def test_more_than_devices_read_is_not_published(
    hobby: World, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    hobby.repository().add(bundle(1))
    monkeypatch.setattr(LIMITS, "targets_max_length", 1000)
    with pytest.raises(ConfigError, match=r"devices read 1000 at most.*release retire"):
        hobby.repository().add(bundle(2))
    assert hobby.device("one").sees(hobby.repo, FIRST) is not None


@pytest.mark.parametrize("what", ["add", "retire", "refresh"])
def test_one_command_writes_at_a_time(hobby: World, bundle: MakeBundle, what: str) -> None:
    release = hobby.repository().add(bundle(1))[0].release
    with locked(hobby.repo, ConfigError("", mend="")), pytest.raises(ConfigError, match=r"is writing.*Wait"):
        {
            "add": lambda: hobby.repository().add(bundle(2)),
            "retire": lambda: hobby.repository().retire(release),
            "refresh": lambda: hobby.repository().refresh(),
        }[what]()


def test_what_was_tampered_with_is_not_signed_again(hobby: World, bundle: MakeBundle) -> None:
    hobby.repository().add(bundle(1))
    path = hobby.repo / "metadata" / "1.pets.json"
    path.write_bytes(path.read_bytes().replace(b"pets-1.0.1", b"pets-6.6.6"))
    with pytest.raises(ConfigError, match=r"1\.pets\.json is damaged or not signed.*backup"):
        hobby.repository().add(bundle(2))


def test_the_repository_of_other_keys_is_not_signed(hobby: World, bundle: MakeBundle, tmp_path: Path) -> None:
    shutil.copytree(hobby.folder / "keys", tmp_path / "keys")
    (tmp_path / "keys" / "root.json").write_bytes(b"{}")
    hobby.folder.joinpath("keys").rename(tmp_path / "away")
    (tmp_path / "keys").rename(hobby.folder / "keys")
    for act in (lambda: hobby.repository().add(bundle()), hobby.repository().root_bytes):
        with pytest.raises(ConfigError, match=r"is not the repository of the keys in.*first root.*backup"):
            act()


def test_where_there_is_no_repository_it_says_how_to_make_one(tmp_path: Path, bundle: MakeBundle, hobby: World) -> None:
    hobby.repo.rename(tmp_path / "away")
    for act in (lambda: hobby.repository().add(bundle()), hobby.repository().releases, hobby.repository().root_bytes):
        with pytest.raises(ConfigError, match=r"There is no repository in.*tinysight keys init"):
            act()


def accepted(site: World, device: Any) -> None:
    """By a device that is new, and by one that has seen the state before; each bundle that is signed can be had."""
    fresh = site.device(f"fresh-{os.urandom(4).hex()}")
    for each in (fresh, device):
        each.updater(site.repo)
    for listed in site.repository().releases():
        assert hashlib.sha256(fresh.gets(site.repo, listed.release.target)).hexdigest() == listed.release.digest
        for delta in listed.signed.deltas.values():
            assert digest(site.repo / delta.path) == delta.sha256


def left_over(site: World) -> list[str]:
    return [str(path) for path in site.repo.rglob(".*.part")]


@pytest.mark.parametrize("kind", ["hobby", "fleet"])
@pytest.mark.parametrize("what", ["first", "second"])
def test_a_kill_at_any_step_of_a_release_leaves_a_repository_that_the_next_command_completes(
    request: pytest.FixtureRequest, bundle: MakeBundle, killed_at: KilledAt, kind: str, what: str
) -> None:
    site = request.getfixturevalue(kind)
    if what == "second":
        site.repository().add(bundle(1))
    seen = site.device("seen")
    seen.updater(site.repo)
    new = bundle(2)
    folders = killed_at(site.folder, "add", str(new))
    assert len(folders) > 5
    for place, folder in enumerate(folders):
        killed = type(site)(folder)
        device = type(seen)(folder / "devices" / "seen", seen.root)
        accepted(killed, device)
        there = device.sees(killed.repo, "pets/pets-1.0.2.bundle") is not None
        assert there or place < len(folders) - 1, "what ended is there"
        listed, added = killed.repository().add(new)
        assert added != there
        assert len(listed.signed.deltas) == (what == "second")
        accepted(killed, device)
        killed.repository().refresh()
        assert not left_over(killed)
        assert len(list((folder / "keys").glob("*.pem"))) == (1 if kind == "hobby" else 6)


def test_a_kill_at_any_step_of_retiring_leaves_a_repository_that_the_next_command_completes(
    fleet: World, bundle: MakeBundle, killed_at: KilledAt
) -> None:
    for release in (1, 2):
        fleet.repository().add(bundle(release))
    seen = fleet.device("seen")
    seen.updater(fleet.repo)
    folders = killed_at(fleet.folder, "retire", "pets@1.0.2")
    assert len(folders) > 4
    for place, folder in enumerate(folders):
        killed = type(fleet)(folder)
        device = type(seen)(folder / "devices" / "seen", seen.root)
        accepted(killed, device)
        there = device.sees(killed.repo, "pets/pets-1.0.2.bundle")
        assert there is None or place < len(folders) - 1
        if there is not None:
            killed.repository().retire(killed.repository().find("pets@1.0.2"))
        killed.repository().refresh()
        accepted(killed, device)
        assert device.sees(killed.repo, "pets/pets-1.0.2.bundle") is None
        assert len(list(killed.repo.glob("targets/*/*"))) == 1
        assert list(killed.repo.glob("deltas/*")) == []
        assert not left_over(killed)
