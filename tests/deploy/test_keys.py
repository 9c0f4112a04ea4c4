"""Keys begin, are replaced and end; devices that know only the first root follow, whatever interrupts it."""

import os
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.exceptions import RepositoryError

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import replace_file
from tinysight_deploy.repo.repository import Repository
from tinysight_deploy.signing import beginning, rotation
from tinysight_deploy.signing.keys import KeyFolder, Passphrase
from tinysight_deploy.signing.metadata import Policy, sign

World = Any  # see conftest
MakeBundle = Callable[..., Path]
KilledAt = Callable[..., list[Path]]

FIRST = "pets/pets-1.0.1.bundle"
NOW = datetime.now(UTC)


def pem_files(site: World) -> list[Path]:
    return sorted((site.folder / "keys").glob("*.pem"))


def begin(folder: Path, policy: Policy, *, roots: int = 1, threshold: int = 1) -> None:
    beginning.begin(
        folder / "repo", KeyFolder(folder / "keys"), policy, roots=roots, threshold=threshold, now=datetime.now(UTC)
    )


def test_a_hobby_has_one_key_and_a_fleet_one_for_each_role(hobby: World, tmp_path: Path) -> None:
    assert len(pem_files(hobby)) == 1
    begin(tmp_path / "fleet", beginning.FLEET, roots=5, threshold=3)
    assert sorted(path.name.rpartition("-")[0] for path in (tmp_path / "fleet" / "keys").glob("*.pem")) == [
        *["online", "root", "root", "root", "root", "root", "targets"]
    ]
    chain = Repository(tmp_path / "fleet" / "repo", tmp_path / "fleet" / "keys").chain()
    assert chain.threshold("root") == 3


@pytest.mark.parametrize(
    ("policy", "days"),
    [
        (beginning.HOBBY, {"root": 3650, "targets": 365, "snapshot": 365, "timestamp": 365}),
        (beginning.FLEET, {"root": 730, "targets": 365, "snapshot": 30, "timestamp": 7}),
    ],
)
def test_how_long_signatures_hold(tmp_path: Path, policy: Policy, days: dict[str, int]) -> None:
    begin(tmp_path, policy)
    chain = Repository(tmp_path / "repo", tmp_path / "keys").chain()
    for role, count in days.items():
        left = chain.of(role).signed.expires - datetime.now(UTC)
        assert timedelta(days=count - 1) < left <= timedelta(days=count)


def test_keys_are_for_their_owner_alone(site: World) -> None:
    assert stat.S_IMODE((site.folder / "keys").stat().st_mode) == 0o700
    for path in pem_files(site):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        assert isinstance(private, Ed25519PrivateKey)


@pytest.mark.parametrize(("what", "mode", "mend"), [("file", 0o640, "chmod 600 "), ("folder", 0o755, "chmod 700 ")])
def test_keys_that_others_may_read_are_refused_with_what_mends_it(
    hobby: World, bundle: MakeBundle, what: str, mode: int, mend: str
) -> None:
    path = pem_files(hobby)[0] if what == "file" else hobby.folder / "keys"
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"{mend}{re.escape(str(path))}"):
        hobby.repository().add(bundle())
    path.chmod(mode & 0o700)
    hobby.repository().add(bundle())


def test_a_second_beginning_is_refused_and_changes_nothing(hobby: World, tmp_path: Path) -> None:
    before = [path.read_bytes() for path in hobby.folder.rglob("*.*") if path.is_file()]
    with pytest.raises(ConfigError, match="There is a repository in"):
        begin(hobby.folder, beginning.HOBBY)
    assert [path.read_bytes() for path in hobby.folder.rglob("*.*") if path.is_file()] == before
    hobby.repo.rename(tmp_path / "away")
    with pytest.raises(ConfigError, match=r"those of a repository that is not in .*backup"):
        begin(hobby.folder, beginning.HOBBY)
    (tmp_path / "away").rename(hobby.repo)
    with pytest.raises(ConfigError, match="of other keys"):
        beginning.begin(hobby.repo, KeyFolder(tmp_path / "other"), beginning.HOBBY, roots=1, threshold=1, now=NOW)


@pytest.mark.parametrize("kind", ["hobby", "fleet"])
def test_a_key_that_lies_in_the_folder_and_is_nobodys_is_not_taken(tmp_path: Path, hobby: World, kind: str) -> None:
    policy, label = (beginning.FLEET, "targets") if kind == "fleet" else (beginning.HOBBY, "hobby")
    (old,) = pem_files(hobby)
    folder = tmp_path / "new" / "keys"
    folder.mkdir(mode=0o700, parents=True)
    stray = folder / old.name.replace("hobby", label)
    stray.write_bytes(old.read_bytes())
    stray.chmod(0o600)
    with pytest.raises(ConfigError, match=rf"lies here already: {re.escape(str(stray))}.*other --keys"):
        begin(tmp_path / "new", policy)
    stray.unlink()
    begin(tmp_path / "new", policy)
    assert sorted(path.suffix for path in folder.iterdir()) == [*[".json"], *[".pem"] * (3 if kind == "fleet" else 1)]


def test_keys_are_not_kept_in_what_is_served(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "repo" / "keys")
    with pytest.raises(ConfigError, match=r"lies in the repository.*--keys outside"):
        beginning.begin(tmp_path / "repo", keys, beginning.HOBBY, roots=1, threshold=1, now=NOW)
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize(("roots", "threshold"), [(2, 3), (0, 0), (17, 2)])
def test_a_threshold_that_cannot_be_met_is_refused(tmp_path: Path, roots: int, threshold: int) -> None:
    with pytest.raises(ConfigError, match=r"cannot be.*--roots 3 --threshold 2"):
        begin(tmp_path, beginning.FLEET, roots=roots, threshold=threshold)


def test_with_a_passphrase_the_files_are_encrypted(
    tmp_path: Path, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYSIGHT_PASSPHRASE", "open sesame")
    begin(tmp_path, beginning.HOBBY)
    (path,) = (tmp_path / "keys").glob("*.pem")
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    secret = tmp_path / "passphrase"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    monkeypatch.delenv("TINYSIGHT_PASSPHRASE")
    given = Repository(tmp_path / "repo", tmp_path / "keys", passphrase=Passphrase(secret))
    assert given.add(bundle())[1]
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(ConfigError, match=r"is encrypted.*TINYSIGHT_PASSPHRASE.*--passphrase-file"):
        Repository(tmp_path / "repo", tmp_path / "keys").refresh()
    monkeypatch.setenv("TINYSIGHT_PASSPHRASE", "open barley")
    with pytest.raises(ConfigError, match="passphrase does not open"):
        Repository(tmp_path / "repo", tmp_path / "keys").refresh()
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Repository(tmp_path / "repo", tmp_path / "keys", passphrase=Passphrase(secret)).refresh()
    secret.chmod(0o600)
    secret.write_text("")
    with pytest.raises(ConfigError, match="is empty"):
        Repository(tmp_path / "repo", tmp_path / "keys", passphrase=Passphrase(secret)).refresh()
    assert capfd.readouterr() == ("", ""), "keys are loaded without a word"


def test_on_a_terminal_the_passphrase_is_asked_for_once(
    tmp_path: Path, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def typed(prompt: str) -> str:
        asked.append(prompt)
        return "open sesame"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", typed)
    begin(tmp_path, beginning.FLEET, roots=3, threshold=2)
    assert len(asked) == 2, "typed twice, for all keys"
    asked.clear()
    repository = Repository(tmp_path / "repo", tmp_path / "keys")
    repository.add(bundle())
    assert len(asked) == 3, "for the keys that sign, and twice for the project's new one"
    asked.clear()
    repository.add(bundle(2))
    assert asked == []
    Repository(tmp_path / "repo", tmp_path / "keys").refresh()
    assert len(asked) == 1
    assert all(b"ENCRYPTED" in path.read_bytes() for path in (tmp_path / "keys").glob("*.pem"))


def test_each_key_may_have_a_passphrase_of_its_own_and_a_person_may_mistype(
    fleet: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: dict[str, str] = {}
    for path in pem_files(fleet):
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        words[path.name] = f"of {path.stem}"
        encryption = serialization.BestAvailableEncryption(words[path.name].encode())
        path.write_bytes(
            private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
    asked: list[str] = []

    def typed(prompt: str) -> str:
        asked.append(prompt)
        name = re.search(r"of (.*\.pem)", prompt)
        return "wrong" if len(asked) == 1 else "" if name is None else words[name[1]]

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", typed)
    fleet.rotate("targets")
    assert len(asked) == 6, "three root keys, of which one was mistyped, the online key, and the new one"
    (new,) = (path for path in pem_files(fleet) if path.name.startswith("targets-") and path.name not in words)
    assert b"ENCRYPTED" not in new.read_bytes(), "what was typed to read others is not what it is written with"
    monkeypatch.setattr("getpass.getpass", lambda _: "never right")
    with pytest.raises(ConfigError, match="does not open"):
        fleet.rotate("targets")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "no private key"), (b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", "no private key")],
)
def test_a_file_that_is_no_key_is_refused(hobby: World, bundle: MakeBundle, content: bytes, reason: str) -> None:
    pem_files(hobby)[0].write_bytes(content)
    with pytest.raises(ConfigError, match=f"{reason}.*backup"):
        hobby.repository().add(bundle())


def test_another_key_under_the_name_is_refused(fleet: World, bundle: MakeBundle) -> None:
    online, root, *_ = pem_files(fleet)
    online.write_bytes(root.read_bytes())
    with pytest.raises(ConfigError, match=r"online-.*\.pem is not the key"):
        fleet.repository().add(bundle())


@pytest.mark.parametrize(
    ("away", "command"),
    [("targets", "add"), ("online", "add"), ("online", "refresh"), ("root", "rotate root"), ("root", "rotate online")],
)
def test_keys_that_are_not_here_are_asked_for_by_name_and_nothing_is_written(
    fleet: World, bundle: MakeBundle, away: str, command: str
) -> None:
    path = bundle()
    files = [each for each in pem_files(fleet) if each.name.startswith(away)][:2]
    for file in files:
        file.unlink()
    before = sorted(fleet.folder.rglob("*"))
    actions = {
        "add": lambda: fleet.repository().add(path),
        "refresh": lambda: fleet.repository().refresh(),
        "rotate root": lambda: fleet.rotate("root"),
        "rotate online": lambda: fleet.rotate("online"),
    }
    with pytest.raises(ConfigError, match=r"must be here: .*Bring it back") as refused:
        actions[command]()
    assert all(str(file) in refused.value.what for file in files)
    assert sorted(fleet.folder.rglob("*")) == before


def test_two_of_three_root_keys_are_enough(fleet: World) -> None:
    pem_files(fleet)[1].unlink()
    device = fleet.device("one")
    fleet.rotate("targets")
    assert device.updater(fleet.repo)._trusted_set.root.version == 2


ROLES = ["root", "targets", "online", "snapshot", "pets"]


@pytest.mark.parametrize("role", ROLES)
def test_devices_follow_when_the_keys_of_a_role_are_replaced(site: World, bundle: MakeBundle, role: str) -> None:
    site.repository().add(bundle(1))
    seen, fresh = site.device("seen"), site.device("fresh")
    seen.updater(site.repo)
    before = {each: site.key_ids(each) for each in site.repository().chain().roles()}
    names = site.rotate(role)
    after = {each: site.key_ids(each) for each in site.repository().chain().roles()}
    top = "timestamp" if role == "online" else role
    assert set(before[top]).isdisjoint(after[top])
    assert len(before[top]) == len(after[top]) == len(names)
    changed = {each for each in before if before[each] != after[each]}
    if len({keyid for keyids in before.values() for keyid in keyids}) == 1:
        assert changed == set(before), "the one key of a hobby signs everything"
    else:
        assert changed == ({"snapshot", "timestamp"} if role in {"online", "snapshot"} else {role})
    for device in (seen, fresh):
        assert device.gets(site.repo, FIRST) == bundle(1).read_bytes()
    site.repository().add(bundle(2))
    assert seen.sees(site.repo, "pets/pets-1.0.2.bundle") is not None
    old = [name for name in names if (site.folder / "keys" / f"{name}.pem").exists()]
    for name in old:
        (site.folder / "keys" / f"{name}.pem").unlink()
    site.repository().add(bundle(3))
    assert site.device("third").sees(site.repo, "pets/pets-1.0.3.bundle") is not None


def test_a_role_that_is_not_there_is_answered_with_those_that_are(hobby: World) -> None:
    with pytest.raises(ConfigError, match=r"no role 'pet'.*root, targets, snapshot, timestamp, online"):
        hobby.rotate("pet")


@pytest.mark.parametrize("role", ["targets", "timestamp", "pets", "root"])
def test_a_revoked_key_signs_nothing_any_more(fleet: World, bundle: MakeBundle, role: str) -> None:
    fleet.repository().add(bundle(1))
    device = fleet.device("one")
    device.updater(fleet.repo)
    keyid = fleet.key_ids(role)[0]
    stolen = fleet.keys.find(fleet.repository().chain().keys(role)[0])
    fleet.file_of(keyid).unlink()
    names = fleet.revoke(keyid[:10])
    assert len(names) == 1
    chain = fleet.repository().chain()
    assert keyid not in rotation.current_keys(chain)
    assert len(chain.keys(role)) == (3 if role == "root" else 1)
    assert device.gets(fleet.repo, FIRST) == bundle(1).read_bytes()
    if role != "root":
        metadata = chain.of(role)
        metadata.signed.version += 1
        sign(metadata, [stolen])
        if role != "timestamp":
            chain.snapshot.signed.meta[f"{role}.json"].version += 1
            chain.snapshot.signed.version += 1
            chain.timestamp.signed.snapshot_meta.version += 1
            chain.timestamp.signed.version += 1
            for each in ("snapshot", "timestamp"):
                sign(chain.of(each), [fleet.keys.find(chain.keys(each)[0])])
        for each in {role, "snapshot", "timestamp"}:
            version = "" if each == "timestamp" else f"{chain.of(each).signed.version}."
            replace_file(fleet.repo / "metadata" / f"{version}{each}.json", chain.of(each).to_bytes())
        with pytest.raises(RepositoryError, match="was signed by 0/1 keys"):
            device.sees(fleet.repo, FIRST)


def test_a_projects_key_is_revoked_without_the_root_keys(fleet: World, bundle: MakeBundle) -> None:
    fleet.repository().add(bundle())
    for path in pem_files(fleet):
        if path.name.startswith(("root-", "pets-")):
            path.unlink()
    assert len(fleet.revoke(fleet.key_ids("pets")[0])) == 1
    assert fleet.device("one").sees(fleet.repo, FIRST) is not None
    assert len(fleet.repository().chain().roots) == 1


def test_revoking_again_changes_nothing_and_a_stranger_is_answered(hobby: World) -> None:
    keyid = hobby.key_ids("root")[0]
    (name,) = (path.stem for path in pem_files(hobby))
    assert list(hobby.revoke(name)) == [name]
    before = sorted((path, path.stat().st_mtime_ns) for path in hobby.folder.rglob("*"))
    assert hobby.revoke(keyid) == {}
    assert sorted((path, path.stat().st_mtime_ns) for path in hobby.folder.rglob("*")) == before
    with pytest.raises(ConfigError, match=r"No key is called 'abc'.*hobby-"):
        hobby.revoke("abc")


def test_a_lost_only_key_cannot_be_replaced_and_it_says_which(hobby: World) -> None:
    (path,) = pem_files(hobby)
    path.unlink()
    with pytest.raises(ConfigError, match=f"To sign root, this key must be here: {re.escape(str(path))}"):
        hobby.revoke(path.stem)


@pytest.mark.parametrize("kind", ["hobby", "fleet"])
def test_a_kill_at_any_step_of_a_beginning_is_completed_by_the_same_command(
    tmp_path: Path, killed_at: KilledAt, bundle: MakeBundle, hobby: World, kind: str
) -> None:
    (tmp_path / "nothing").mkdir()
    folders = killed_at(tmp_path / "nothing", "init", kind)
    assert len(folders) > 5
    policy, roots = (beginning.FLEET, 3) if kind == "fleet" else (beginning.HOBBY, 1)
    for folder in folders[:-1]:
        killed = type(hobby)(folder)
        begin(folder, policy, roots=roots, threshold=min(2, roots))
        assert len(pem_files(killed)) == (5 if kind == "fleet" else 1)
        killed.repository().add(bundle())
        assert killed.device("one").sees(killed.repo, FIRST) is not None
        assert (folder / "keys" / "root.json").read_bytes() == killed.repository().root_bytes()
    with pytest.raises(ConfigError, match="already"):
        begin(folders[-1], policy, roots=roots)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("hobby", ("rotate", "root")),
        ("fleet", ("rotate", "root")),
        ("fleet", ("rotate", "online")),
        ("fleet", ("rotate", "targets")),
        ("fleet", ("revoke", "pets")),
        ("fleet", ("revoke", "root")),
    ],
)
def test_devices_accept_what_a_kill_at_any_step_of_a_replacement_leaves_and_it_is_completed(
    request: pytest.FixtureRequest, bundle: MakeBundle, killed_at: KilledAt, kind: str, words: tuple[str, str]
) -> None:
    site = request.getfixturevalue(kind)
    site.repository().add(bundle(1))
    seen = site.device("seen")
    seen.updater(site.repo)
    role = "timestamp" if words[1] == "online" else words[1]
    old = site.key_ids(role)
    folders = killed_at(site.folder, *words)
    assert len(folders) > 4
    for place, folder in enumerate(folders):
        killed = type(site)(folder)
        device = type(seen)(folder / "devices" / "seen", seen.root)
        for each in (device, killed.device("fresh")):
            assert each.gets(killed.repo, FIRST) == bundle(1).read_bytes(), f"after a kill before step {place + 1}"
        begun = (folder / "keys" / "rotation.json").exists()
        if place % 2 and begun:
            killed.repository().add(bundle(2))  # any command that writes completes it
            assert killed.key_ids(role) != old
        elif place < len(folders) - 1:
            between = killed.key_ids(role)
            killed.rotate(role) if words[0] == "rotate" else killed.revoke(old[0])
            assert begun or between == old or words[0] == "rotate"
        assert not (folder / "keys" / "rotation.json").exists()
        assert old[0] not in rotation.current_keys(killed.repository().chain())
        for each in (device, killed.device("late")):
            assert each.gets(killed.repo, FIRST) == bundle(1).read_bytes()
        if begun:
            assert len(killed.repository().chain().roots) == (1 if words[1] == "pets" else 2), "replaced once"


def test_a_journal_that_cannot_be_understood_stops_writing(hobby: World, bundle: MakeBundle) -> None:
    (hobby.folder / "keys" / "rotation.json").write_bytes(b"{")
    with pytest.raises(ConfigError, match=r"rotation\.json cannot be understood"):
        hobby.repository().add(bundle())


def test_a_name_in_the_metadata_cannot_leave_the_folder(hobby: World) -> None:
    (key,) = hobby.repository().chain().keys("root")
    key.unrecognized_fields["x-tinysight-name"] = "../../etc/passwd"
    with pytest.raises(ConfigError, match="no plain name"):
        hobby.keys.find(key)
    assert os.access(hobby.folder, os.R_OK)
