"""Whoever signs nothing that counts gets nothing onto a device, whatever he holds back, mixes or repeats."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]  # public, but not listed as such

from tinysight_contract.bundle import MAX_BUNDLE_BYTES
from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.signed import Delta, Requires
from tinysight_edge.update.sources import Budget, open_source
from tinysight_edge.update.trust import Trust, new_trust
from tinysight_edge.update.tuf_client import LIMITS, Client

Device = Callable[..., Trust]
TARGET = "belt/belt-1.2.0.bundle"
DELTA_ELSEWHERE = {"path": "deltas/../../x", "size_bytes": 1, "sha256": "a" * 64}
SPOILT = ["metadata/2.root.json", "metadata/timestamp.json", "metadata/2.snapshot.json", "metadata/2.belt.json"]
FULL, BROKEN = OSError(28, "No space left on device"), OSError(5, "Input/output error")


@pytest.fixture
def repository(simulator: ModuleType) -> Any:
    made = simulator.Repository("belt", "gate")
    made.add(TARGET, b"a belt's bundle", release=3)
    made.publish()
    return made


def refused(call: Callable[..., object], *args: Any) -> UpdateError:
    with pytest.raises(UpdateError) as caught:
        call(*args)
    assert caught.value.mend.endswith(".")
    assert caught.value.what.endswith(".")
    return caught.value


def code(call: Callable[..., object], *args: Any) -> Code:
    return refused(call, *args).code


def test_a_signed_bundle_is_offered_with_all_that_its_project_said(repository: Any, device: Device) -> None:
    base, new = "a" * 64, "b" * 64
    delta = {"path": f"deltas/{base}-{new}.delta", "size_bytes": 7, "sha256": "c" * 64}
    requires = {"arch": ["aarch64"], "min_memory_mib": 400, "accelerator": "edgetpu", "min_tinysight": "0.1.0"}
    repository.add("belt/belt-1.3.0+b2.bundle", b"newer", release=4, requires=requires, deltas={base: delta})
    repository.publish()
    offer = device(repository).resolve("belt/belt-1.3.0+b2.bundle")
    assert offer.release.size_bytes == 5
    assert (offer.release.name, offer.release.version, offer.release.release) == ("belt", "1.3.0+b2", 4)
    assert repository.files[offer.path] == b"newer"
    assert offer.signed.requires == Requires(
        arch=["aarch64"], min_memory_mib=400, accelerator="edgetpu", min_tinysight="0.1.0"
    )
    assert offer.signed.deltas == {base: Delta(path=delta["path"], size_bytes=7, sha256="c" * 64)}  # type: ignore[arg-type]
    assert offer.signed.released_at == repository.now


def test_fields_that_nobody_knows_yet_are_left_alone(repository: Any, device: Device) -> None:
    repository.add(TARGET, requires={"arch": [], "camera": "imx500"}, card={"by": "us"}, deltas={})
    repository.root.unrecognized_fields["x-note"] = "kept"
    repository.rotate_root()
    repository.publish()
    assert device(repository).resolve(TARGET).signed.requires == Requires()


# What somebody without keys can do: nothing but hold back.


def test_an_older_timestamp_is_a_replay(repository: Any, device: Device) -> None:
    old = repository.files["metadata/timestamp.json"]
    repository.publish()
    device(repository).refresh()
    repository.changed["metadata/timestamp.json"] = old
    assert code(device(repository).refresh) is Code.REPLAYED


@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("what", ["snapshot", "targets", "belt"])
def test_files_of_different_times_do_not_go_together(
    simulator: ModuleType, device: Device, what: str, hashes: bool
) -> None:
    repository = simulator.Repository("belt", hashes=hashes)
    repository.add(TARGET)
    repository.publish()
    repository.publish()
    repository.changed[f"metadata/3.{what}.json"] = repository.files[f"metadata/2.{what}.json"]
    assert code(device(repository).resolve, TARGET) is Code.REPLAYED


def test_a_snapshot_may_not_go_back_even_when_the_timestamp_goes_on(repository: Any, device: Device) -> None:
    repository.publish()
    device(repository).refresh()
    repository.snapshot.version = 1
    repository.files.pop("metadata/1.snapshot.json")
    repository.publish_snapshot()
    repository.publish_timestamp()
    assert code(device(repository).refresh) is Code.REPLAYED


def test_a_project_may_neither_go_back_nor_vanish_in_a_new_snapshot(repository: Any, device: Device) -> None:
    repository.publish()
    device(repository).refresh()
    kept = repository.snapshot.meta["belt.json"]
    del repository.snapshot.meta["belt.json"]
    repository.publish_snapshot()
    repository.publish_timestamp()
    assert code(device(repository).refresh) is Code.REPLAYED
    kept.version -= 1
    repository.snapshot.meta["belt.json"] = kept
    repository.publish_snapshot()
    repository.publish_timestamp()
    assert code(device(repository).refresh) is Code.REPLAYED


def test_a_repository_that_stands_still_is_refused_once_its_timestamp_expires(repository: Any, device: Device) -> None:
    device(repository).refresh()
    assert code(device(repository, now=repository.now + timedelta(days=8)).refresh) is Code.EXPIRED


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "belt"])
def test_each_role_may_expire_and_be_signed_again(repository: Any, device: Device, role: str) -> None:
    signed = repository.projects.get(role) or getattr(repository, role)
    for expires, wanted in (
        (repository.now - timedelta(seconds=1), Code.EXPIRED),
        (repository.now.replace(year=2040), None),
    ):
        signed.expires = expires
        if role == "root":
            repository.rotate_root()
        repository.publish()
        if wanted is None:
            device(repository).resolve(TARGET)
        else:
            error = refused(device(repository).resolve, TARGET)
            assert error.code is wanted
            assert "2026-12-01 12:00" in error.what


def test_at_1970_nothing_is_out_of_date_and_in_2040_everything_is(repository: Any, device: Device) -> None:
    device(repository, now=datetime(1970, 1, 1, tzinfo=UTC)).resolve(TARGET)
    assert code(device(repository, now=datetime(2040, 1, 1, tzinfo=UTC)).resolve, TARGET) is Code.EXPIRED
    device(repository).resolve(TARGET)


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "belt"])
def test_endless_data_ends_at_the_limit_of_each_role(repository: Any, device: Device, role: str) -> None:
    class Endless:
        name = "the endless repository"
        most: list[int] = []  # noqa: RUF012 -- one test long

        def read(self, path: str, most: int) -> bytes:
            if path.endswith(f"{role}.json") and (role != "root" or path.endswith("2.root.json")):
                self.most.append(most)
                raise UpdateError(f"{path} does not end.", mend="Look at it.", code=Code.TOO_LARGE)
            return bytes(repository.read(path, most))

    assert code(device(Endless(), root=repository.files["metadata/1.root.json"]).resolve, TARGET) is Code.TOO_LARGE
    limits = (LIMITS.root_max_length, LIMITS.timestamp_max_length, LIMITS.snapshot_max_length)
    assert max(Endless.most) <= max(*limits, LIMITS.targets_max_length)


def test_what_is_signed_may_not_ask_for_more_than_a_device_can_hold(repository: Any, device: Device) -> None:
    asked: list[int] = []
    repository.timestamp.snapshot_meta.length = 1 << 40
    repository.publish_timestamp()
    read = repository.read

    def watched(path: str, most: int) -> bytes:
        asked.append(most)
        return bytes(read(path, most))

    repository.read = watched
    refused(device(repository).refresh)
    assert max(asked) <= LIMITS.targets_max_length


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "belt"])
@pytest.mark.parametrize("hashes", [True, False])
def test_one_flipped_byte_of_a_signed_file_is_seen(
    simulator: ModuleType, device: Device, role: str, hashes: bool
) -> None:
    repository = simulator.Repository("belt", hashes=hashes)
    repository.add(TARGET)
    repository.publish()
    path = "metadata/timestamp.json" if role == "timestamp" else f"metadata/2.{role}.json"
    raw = repository.files[path]
    at = raw.index(b'"expires":"20') + 13
    repository.changed[path] = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
    hashed = hashes and role != "timestamp"
    assert code(device(repository).resolve, TARGET) is (Code.TAMPERED if hashed else Code.UNSIGNED)


def test_what_is_no_metadata_is_malformed(repository: Any, device: Device) -> None:
    for rubbish in (
        b"",
        b"<html>Sign in to the Wi-Fi</html>",
        b"[" * 5000,
        b"\xff\xfe",
        b'{"signed": {}, "signatures": []}',
    ):
        repository.changed["metadata/timestamp.json"] = rubbish
        assert code(device(repository).refresh) is Code.MALFORMED
        repository.changed["metadata/2.root.json"] = rubbish
        assert code(device(repository).refresh) is Code.MALFORMED
        repository.changed.clear()


def test_one_kind_of_metadata_does_not_pass_for_another(repository: Any, device: Device) -> None:
    repository.changed["metadata/timestamp.json"] = repository.files["metadata/1.snapshot.json"]
    assert code(device(repository).refresh) in {Code.UNSIGNED, Code.MALFORMED}


# What strangers and neighbours can sign.


def test_a_foreign_repository_is_not_believed(repository: Any, simulator: ModuleType, device: Device) -> None:
    device(repository)
    foreign = simulator.Repository("belt")
    foreign.add(TARGET, b"evil")
    foreign.publish()
    assert code(device(foreign).resolve, TARGET) is Code.UNSIGNED
    foreign.rotate_root()
    assert code(device(foreign).resolve, TARGET) is Code.UNSIGNED


def test_a_project_signs_for_itself_alone(repository: Any, device: Device) -> None:
    repository.add("gate/gate-1.0.0.bundle", b"evil", by="belt")
    repository.add("belt/belt-9.0.0.bundle", b"evil", by="gate")
    repository.publish()
    assert code(device(repository).resolve, "gate/gate-1.0.0.bundle") is Code.UNSIGNED
    assert code(device(repository).resolve, "belt/belt-9.0.0.bundle") is Code.UNSIGNED


def test_a_projects_list_signed_by_its_neighbour_is_refused(repository: Any, device: Device) -> None:
    repository.signers["belt"] = repository.signers["gate"]
    repository.publish()
    assert code(device(repository).resolve, TARGET) is Code.UNSIGNED


def test_a_bundle_that_nobody_listed_is_unsigned(repository: Any, device: Device) -> None:
    error = refused(device(repository).resolve, "belt/belt-7.0.0.bundle")
    assert error.code is Code.UNSIGNED
    assert "tinysight release add" in error.mend
    assert code(device(repository).resolve, "other/other-1.0.0.bundle") is Code.UNSIGNED


@pytest.mark.parametrize(
    "target",
    [
        "", "belt", "belt/", "/belt/belt-1.2.0.bundle", "belt/../belt-1.2.0.bundle", "../belt-1.2.0.bundle",
        "belt/belt-1.2.0.tar", "belt/x/belt-1.2.0.bundle", "Belt/belt-1.2.0.bundle", "belt/belt-1.2.0.bundle\n",
        "belt/belt.bundle", "belt/belt-1.2.0/x.bundle", "belt\\belt-1.2.0.bundle", f"belt/{'b' * 400}-1.2.0.bundle",
        "belt/belt-1.2.0\0.bundle",
    ],
)  # fmt: skip
def test_paths_that_name_no_bundle_are_refused_before_anything_is_asked(
    repository: Any, device: Device, target: str
) -> None:
    assert code(device(repository).resolve, target) is Code.MALFORMED
    assert repository.asked == []


@pytest.mark.parametrize(
    ("custom", "wanted"),
    [
        pytest.param({"name": "gate"}, Code.MALFORMED, id="another name"),
        pytest.param({"version": "1.2.1"}, Code.MALFORMED, id="another version"),
        pytest.param({"name": "../belt"}, Code.MALFORMED, id="no name"),
        pytest.param({"release": None}, Code.MALFORMED, id="no release"),
        pytest.param({"release": -1}, Code.MALFORMED, id="a release below zero"),
        pytest.param({"release": 2**60}, Code.MALFORMED, id="a release that no JSON number holds"),
        pytest.param({"released_at": "2026-12-01T12:00:00"}, Code.MALFORMED, id="a time of nowhere"),
        pytest.param({"requires": {"arch": ["aarch64"] * 17}}, Code.MALFORMED, id="too many architectures"),
        pytest.param({"requires": {"arch": ["x" * 33]}}, Code.MALFORMED, id="a long architecture"),
        pytest.param({"requires": {"min_tinysight": "new"}}, Code.MALFORMED, id="no version of TinySight"),
        pytest.param({"deltas": {f"{n:064x}": {} for n in range(65)}}, Code.MALFORMED, id="too many deltas"),
        pytest.param({"deltas": {"a" * 64: DELTA_ELSEWHERE}}, Code.MALFORMED, id="a delta elsewhere"),
    ],
)  # fmt: skip
def test_what_is_signed_has_to_make_sense(
    repository: Any, device: Device, custom: dict[str, Any], wanted: Code
) -> None:
    repository.add(TARGET)
    said = repository.projects["belt"].targets[TARGET].unrecognized_fields["custom"]
    said.update(custom)
    for key in [key for key, value in said.items() if value is None]:
        del said[key]
    repository.publish()
    assert code(device(repository).resolve, TARGET) is wanted


@pytest.mark.parametrize(
    ("length", "hashes", "wanted"),
    [
        pytest.param(MAX_BUNDLE_BYTES + 1, {"sha256": "a" * 64}, Code.TOO_LARGE, id="too large"),
        pytest.param(9, {"sha512": "a" * 128}, Code.MALFORMED, id="another hash"),
        pytest.param(9, {"sha512": "a" * 128, "sha256": "a" * 64}, Code.MALFORMED, id="two hashes"),
        pytest.param(9, {"sha256": "A" * 64}, Code.MALFORMED, id="capitals"),
        pytest.param(9, {"sha256": "../../../etc/passwd"}, Code.MALFORMED, id="a path"),
    ],
)
def test_a_bundle_is_named_by_its_sha256_and_no_larger_than_a_bundle(
    repository: Any, device: Device, length: int, hashes: dict[str, str], wanted: Code
) -> None:
    found = TargetFile(length, hashes, TARGET)
    found.unrecognized_fields = repository.projects["belt"].targets[TARGET].unrecognized_fields
    repository.projects["belt"].targets[TARGET] = found
    repository.publish()
    assert code(device(repository).resolve, TARGET) is wanted


def test_a_target_without_custom_is_malformed(repository: Any, device: Device) -> None:
    repository.projects["belt"].targets[TARGET].unrecognized_fields.clear()
    repository.publish()
    assert code(device(repository).resolve, TARGET) is Code.MALFORMED


# Keys come and go.


def test_roots_are_followed_one_by_one_and_only_when_the_one_before_signed(
    repository: Any, simulator: ModuleType, device: Device
) -> None:
    device(repository).refresh()
    for _ in range(3):
        old = repository.signers["root"]
        repository.root.revoke_key(old[0].public_key.keyid, "root")
        repository.signers["root"] = [simulator.new_signer()]
        repository.root.add_key(repository.signers["root"][0].public_key, "root")
        repository.rotate_root(also=old)
    device(repository).resolve(TARGET)
    repository.rotate_root()
    raw = json.loads(repository.files["metadata/5.root.json"])
    repository.root.version = 5
    thief = simulator.new_signer()
    repository.changed["metadata/5.root.json"] = repository.publish_root(signers=[thief])
    assert raw["signed"]["version"] == 5
    assert code(device(repository).refresh) is Code.UNSIGNED


def test_a_threshold_counts_different_keys(simulator: ModuleType, device: Device) -> None:
    repository = simulator.Repository("belt", root_keys=3, root_threshold=2)
    device(repository).refresh()
    one, two, three = repository.signers["root"]
    repository.root.version = 2
    repository.publish_root(signers=[one])
    assert code(device(repository).refresh) is Code.UNSIGNED
    repository.publish_root(signers=[one, one])
    assert code(device(repository).refresh) is Code.UNSIGNED
    repository.publish_root(signers=[one, three])
    device(repository).refresh()
    assert two.public_key.keyid in repository.root.roles["root"].keyids


def test_a_lost_root_key_is_replaced_by_the_others(simulator: ModuleType, device: Device) -> None:
    repository = simulator.Repository("belt", root_keys=3, root_threshold=2)
    device(repository)
    lost, *kept = repository.signers["root"]
    repository.root.revoke_key(lost.public_key.keyid, "root")
    repository.signers["root"] = [*kept, simulator.new_signer()]
    repository.root.add_key(repository.signers["root"][2].public_key, "root")
    repository.rotate_root()
    device(repository).refresh()
    repository.root.version = 3
    repository.publish_root(signers=[lost, kept[0]])
    assert code(device(repository).refresh) is Code.UNSIGNED


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_revoked_key_signs_nothing_any_more(repository: Any, device: Device, role: str) -> None:
    device(repository).resolve(TARGET)
    old = repository.signers[role]
    new = repository.new_key(role)
    repository.rotate_root()
    repository.signers[role] = old
    repository.publish()
    assert code(device(repository).resolve, TARGET) is Code.UNSIGNED
    repository.signers[role] = [new]
    repository.publish()
    device(repository).resolve(TARGET)


def test_a_revoked_project_key_signs_nothing_any_more(repository: Any, simulator: ModuleType, device: Device) -> None:
    device(repository).resolve(TARGET)
    old = repository.signers["belt"]
    repository.targets.revoke_key(old[0].public_key.keyid, "belt")
    new = simulator.new_signer()
    repository.targets.add_key(new.public_key, "belt")
    repository.publish()
    assert code(device(repository).resolve, TARGET) is Code.UNSIGNED
    repository.signers["belt"] = [new]
    repository.publish()
    device(repository).resolve(TARGET)


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_a_version_that_was_run_far_ahead_is_recovered_by_a_new_key(repository: Any, device: Device, role: str) -> None:
    signed = getattr(repository, role)
    right = signed.version
    signed.version = 2**31
    repository.publish_snapshot()
    repository.publish_timestamp()
    device(repository).refresh()
    repository.snapshot.version, repository.timestamp.version = right, right
    del repository.files["metadata/timestamp.json"]
    repository.files.pop(f"metadata/{right}.snapshot.json", None)
    repository.publish_snapshot()
    repository.publish_timestamp()
    assert code(device(repository).refresh) is Code.REPLAYED
    repository.new_key("timestamp")  # the timestamp keeps the snapshot's version: both are renewed
    repository.new_key("snapshot")
    repository.rotate_root()
    repository.publish()
    device(repository).resolve(TARGET)


@pytest.mark.parametrize("role", ["targets", "belt"])
def test_a_list_of_bundles_that_was_run_far_ahead_is_recovered_by_new_keys_above_it(
    repository: Any, device: Device, role: str
) -> None:
    signed = repository.projects.get(role, repository.targets)
    right, signed.version = signed.version, 2**31
    repository.publish()
    device(repository).resolve(TARGET)
    signed.version = right
    repository.publish()
    assert code(device(repository).resolve, TARGET) is Code.REPLAYED
    repository.new_key("snapshot")
    repository.new_key("timestamp")
    repository.rotate_root()
    repository.publish()
    device(repository).resolve(TARGET)


def test_more_rotations_than_a_device_follows_at_once_still_end(repository: Any, device: Device) -> None:
    for _ in range(LIMITS.max_root_rotations + 3):
        repository.rotate_root()
    device(repository).refresh()
    roots = [path for path in repository.asked if path.endswith("root.json")]
    assert len(roots) == LIMITS.max_root_rotations


# What lies on the device.


def cache(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "trust" / "metadata").rglob("*") if path.is_file())


def test_a_second_look_asks_for_next_to_nothing_and_writes_nothing(
    repository: Any, device: Device, tmp_path: Path
) -> None:
    device(repository).resolve(TARGET)
    before = {path: path.stat().st_mtime_ns for path in cache(tmp_path)}
    repository.asked.clear()
    device(repository, disk=_NoDisk()).resolve(TARGET)
    assert repository.asked == ["metadata/2.root.json", "metadata/timestamp.json"]
    assert {path: path.stat().st_mtime_ns for path in cache(tmp_path)} == before
    assert not [path for path in (tmp_path / "trust").rglob("*") if path.is_symlink()]


class _NoDisk(Disk):
    def replace(self, path: Path, data: bytes) -> None:  # noqa: ARG002 -- it must not come here
        raise AssertionError(path)


@pytest.mark.parametrize("damage", ["truncated", "emptied", "noise", "huge", "a folder", "unreadable link"])
def test_a_damaged_cache_counts_as_absent(repository: Any, device: Device, tmp_path: Path, damage: str) -> None:
    repository.rotate_root()
    device(repository).resolve(TARGET)
    files = cache(tmp_path)
    assert [path.name for path in files] == [
        "belt.json", "1.root.json", "2.root.json", "snapshot.json", "targets.json", "timestamp.json",
    ]  # fmt: skip
    for path in files:
        whole = path.read_bytes()
        path.unlink()
        if damage == "a folder":
            path.mkdir()
            offer = refused(device(repository).resolve, TARGET)
            assert offer.code is Code.DISK  # it cannot be put right, and says where
            path.rmdir()
            path.write_bytes(whole)
            continue
        if damage == "unreadable link":
            path.symlink_to("/dev/zero")
        else:
            path.write_bytes(
                {"truncated": whole[: len(whole) // 2], "emptied": b"", "noise": os.urandom(300)}.get(
                    damage, whole + b" " * (1 << 22)
                )
            )
        device(repository).resolve(TARGET)
        device(repository).resolve(TARGET)


def test_a_lost_cache_does_not_bring_back_a_revoked_key(repository: Any, device: Device, tmp_path: Path) -> None:
    old = repository.files["metadata/timestamp.json"]
    repository.new_key("timestamp")
    repository.rotate_root()
    repository.publish()
    device(repository).refresh()
    for path in cache(tmp_path):
        path.unlink()
    repository.changed["metadata/timestamp.json"] = old
    assert code(device(repository).refresh) is Code.UNSIGNED


def test_the_root_of_provisioning_is_never_rewritten(repository: Any, device: Device, tmp_path: Path) -> None:
    given = repository.files["metadata/1.root.json"]
    repository.rotate_root()
    device(repository).refresh()
    assert (tmp_path / "trust" / "root.json").read_bytes() == given


class _Steps(Disk):
    """A disk that fails at one step, or tells what was synced."""

    def __init__(self, fail_at: int, error: OSError) -> None:
        self.steps, self.fail_at, self.error = 0, fail_at, error

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self.fail_at:
            raise self.error

    def make_folder(self, path: Path) -> None:
        self._step()
        super().make_folder(path)

    def write(self, path: Path, data: bytes) -> None:
        self._step()
        super().write(path, data[: len(data) // 2] if self.steps == self.fail_at else data)

    def sync(self, path: Path) -> None:
        self._step()
        super().sync(path)

    def rename(self, path: Path, to: Path) -> None:
        self._step()
        super().rename(path, to)

    def sync_folder(self, path: Path) -> None:
        self._step()
        super().sync_folder(path)


@pytest.mark.parametrize(("error", "wanted"), [(FULL, Code.NO_SPACE), (BROKEN, Code.DISK)])
def test_a_disk_that_fails_at_any_step_leaves_a_cache_that_the_next_look_mends(
    repository: Any, device: Device, error: OSError, wanted: Code
) -> None:
    for fail_at in range(1, 200):
        disk = _Steps(fail_at, error)
        repository.publish()
        trust = device(repository, disk=disk)
        with suppress(UpdateError):
            trust.resolve(TARGET)
            assert disk.steps < fail_at
            break
        repository.publish()
        assert code(device(repository, disk=_Steps(1, error)).resolve, TARGET) is wanted
        device(repository).resolve(TARGET)
    assert fail_at > 12


def test_a_device_without_a_root_trusts_nobody(repository: Any, tmp_path: Path) -> None:
    trust = Trust(tmp_path / "trust", repository, now=repository.now, disk=Disk())
    error = refused(trust.refresh)
    assert error.code is Code.UNSIGNED
    assert "tinysight device add" in error.mend


def test_a_damaged_root_of_provisioning_is_told_as_such(repository: Any, tmp_path: Path) -> None:
    folder = tmp_path / "trust"
    new_trust(folder, repository.files["metadata/1.root.json"], Disk())
    (folder / "root.json").write_bytes(b"{}")
    assert code(Trust(folder, repository, now=repository.now, disk=Disk()).refresh) is Code.MALFORMED


def test_provisioning_gives_a_root_once(repository: Any, simulator: ModuleType, tmp_path: Path) -> None:
    folder, first = tmp_path / "trust", repository.files["metadata/1.root.json"]
    new_trust(folder, first, Disk())
    new_trust(folder, first, _NoDisk())
    new_trust(folder, repository.rotate_root(), _NoDisk())
    foreign = simulator.Repository("belt").files["metadata/1.root.json"]
    assert code(new_trust, folder, foreign, Disk()) is Code.UNSIGNED
    assert (folder / "root.json").read_bytes() == first


@pytest.mark.parametrize("what", ["metadata/timestamp.json", "metadata/1.targets.json"])
def test_only_a_root_becomes_a_root(repository: Any, tmp_path: Path, what: str) -> None:
    assert code(new_trust, tmp_path / "trust", repository.files[what], Disk()) is Code.MALFORMED
    assert code(new_trust, tmp_path / "trust", b"x" * 100_000, Disk()) is Code.MALFORMED
    assert not (tmp_path / "trust").exists()


@pytest.mark.parametrize("path", SPOILT)
def test_what_a_source_cannot_give_is_told_in_its_own_words(repository: Any, device: Device, path: str) -> None:
    for wanted in (Code.UNREACHABLE, Code.TOO_SLOW, Code.NOT_FOUND):
        repository.faults = {path: UpdateError("It rains.", mend="Wait.", code=wanted)}
        if wanted is Code.NOT_FOUND and "root" in path:
            device(repository).refresh()  # there is no newer root
        else:
            assert refused(device(repository).resolve, TARGET) is repository.faults[path]


# The whole way, over real folders and servers.


@pytest.mark.parametrize("kind", ["folder", "http"])
def test_a_bundle_comes_the_whole_way(
    repository: Any, device: Device, serve: Callable[..., Any], faulty: ModuleType, tmp_path: Path, kind: str
) -> None:
    where = str(repository.write(tmp_path / "repo"))
    if kind == "http":
        server = serve(Path(where))
        server.faults = [faulty.Fault(status=503, headers={"Retry-After": "0"}), faulty.Fault(cut_after=5)]
        where = server.url
    root = repository.files["metadata/1.root.json"]
    source = open_source(where, wait=lambda _: None)
    offer = device(source, now=repository.now, root=root).resolve(TARGET)
    to = tmp_path / "x.part"
    source.fetch(offer.path, to, size=offer.release.size_bytes, disk=Disk(), budget=Budget(), tell=lambda _: None)
    assert hashlib.sha256(to.read_bytes()).hexdigest() == offer.release.digest


def test_a_device_needs_no_compiled_cryptography(repository: Any, tmp_path: Path) -> None:
    repository.rotate_root()
    repository.write(tmp_path / "repo")
    code = f"""
import sys
sys.modules["cryptography"] = None
from datetime import datetime, UTC
from pathlib import Path
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.sources import open_source
from tinysight_edge.update.sources import Budget, open_source
from tinysight_edge.update.trust import Trust, new_trust
folder, source = Path({str(tmp_path / "trust")!r}), open_source({str(tmp_path / "repo")!r})
new_trust(folder, source.read("metadata/1.root.json", 9999), Disk())
Trust(folder, source, now=datetime(2026, 12, 1, tzinfo=UTC), disk=Disk()).resolve({TARGET!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# What we know of tuf that it does not promise.


def test_the_time_that_decides_is_the_one_we_give(repository: Any, device: Device) -> None:
    trust = device(repository, now=datetime(2027, 6, 1, tzinfo=UTC))
    assert code(trust.refresh) is Code.EXPIRED
    repository.timestamp.expires = datetime(2027, 6, 2, tzinfo=UTC)
    repository.snapshot.expires = repository.timestamp.expires
    repository.publish()
    device(repository, now=datetime(2027, 6, 1, tzinfo=UTC)).refresh()


def test_tuf_still_has_the_private_methods_that_we_override() -> None:
    from tuf.ngclient.updater import Updater

    own = ("_load_root", "_load_local_metadata", "_persist_root", "_persist_file", "_update_root_symlink")
    for name in own:
        assert name in vars(Updater)
        assert name in vars(Client)


@pytest.fixture(scope="module")
def hostile(simulator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    repository = simulator.Repository("belt")
    repository.add(TARGET, b"a belt's bundle")
    repository.publish()
    folder = tmp_path_factory.mktemp("hostile")
    new_trust(folder, repository.files["metadata/1.root.json"], Disk())
    return repository, folder


leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_a_repository_says_ends_as_an_update_error_or_as_what_was_signed(
    hostile: tuple[Any, Path], data: st.DataObject
) -> None:
    repository, folder = hostile
    path = data.draw(st.sampled_from(SPOILT))
    whole = json.loads(repository.files.get(path, repository.files["metadata/1.root.json"]))
    holder = whole if data.draw(st.booleans()) else whole["signed"]
    for key in data.draw(st.lists(st.sampled_from(sorted(holder)), min_size=1, max_size=3)):
        holder[key] = data.draw(anything)
    repository.changed = {path: json.dumps(whole).encode("utf-8", "surrogatepass")}
    shutil.rmtree(folder / "metadata", ignore_errors=True)
    with suppress(UpdateError):  # tuf takes no spec_version, and other such nothings, for what was signed
        offer = Trust(folder, repository, now=repository.now, disk=Disk()).resolve(TARGET)
        assert repository.files[offer.path] == b"a belt's bundle"
