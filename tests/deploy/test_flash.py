"""Flashing devices over a real sshd: once, again, many at once, through cuts, and past liars."""

import asyncio
import fcntl
import getpass
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pytest

from tinysight_contract.updates import Code, Release, UpdateState
from tinysight_deploy.devices.goals import goals_of
from tinysight_deploy.devices.inventory import Inventory
from tinysight_deploy.flashing import over_ssh as flash_ssh
from tinysight_deploy.flashing.cli import Plan, flash_all
from tinysight_deploy.flashing.over_ssh import Order
from tinysight_deploy.flashing.report import Result, Silence, Step, View, line_of, size
from tinysight_deploy.flashing.shared import Slice, Slices
from tinysight_deploy.remote.answers import failed
from tinysight_deploy.remote.known_hosts import KnownHosts
from tinysight_deploy.remote.targets import SshTarget
from tinysight_deploy.repo.repository import Repository
from tinysight_edge.store import Store
from tinysight_edge.update.installer import Installer
from tinysight_edge.update.signed import Requires
from tinysight_edge.update.update import State

Run = Callable[..., Any]
MakeDevice = Callable[..., str]
Settle = Callable[[Path, str], Release]


@pytest.fixture
def flash(sshd: Any, repository: Repository, home: Path, tmp_path: Path) -> Callable[..., list[Result]]:
    """Flash in this process; what became of each device."""

    def run(
        name: str,
        to: Sequence[str],
        *,
        view: View | None = None,
        repo: Repository = repository,
        identity: Path = sshd.identity,
        **order: Any,
    ) -> list[Result]:
        book = Inventory(home / "devices.toml")
        plan = Plan(Order(repo.find(name), wait_s=0, **order), repo, KnownHosts(book.known_hosts), identity)
        room = tmp_path / "room"
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir()
        return asyncio.run(flash_all(plan, goals_of(to, book), view or Silence(), room))

    return run


def folder_of(address: str) -> Path:
    return Path("/" + address.split("/", 3)[3])


def store_of(address: str) -> Store:
    return Store(folder_of(address) / "var/lib/tinysight/store")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_second_flash_changes_nothing_and_says_so(device: MakeDevice, tinysight: Run, flags: list[str]) -> None:
    address = device("gate")
    first = tinysight("flash", "belt@1.0.0", "--to", address, *flags)
    assert first.returncode == 0, first.stderr
    assert "confirmed" in first.stdout
    assert "host key SHA256:" in first.stderr
    assert not (folder_of(address) / "var/lib/tinysight/incoming").is_dir() or not contents(
        folder_of(address) / "var/lib/tinysight/incoming"
    )
    before = contents(folder_of(address))
    second = tinysight("flash", "belt@1.0.0", "--to", address, *flags)
    assert second.returncode == 0, second.stderr
    assert "unchanged" in second.stdout
    assert "nothing was changed" in second.stdout
    assert second.stderr == ""
    assert contents(folder_of(address)) == before


def test_one_that_fails_leaves_the_others_alone_and_the_status_says_so(
    device: MakeDevice, tinysight: Run, flags: list[str], tmp_path: Path, sshd: Any
) -> None:
    good = [device(name) for name in ("a", "b", "c")]
    empty = sshd.address(tmp_path / "empty")
    to = [f"--to={each}" for each in [*good, empty]]
    with store_of(good[0]).run(), store_of(good[1]).run():  # agents, which would test it; the third device does itself
        done = tinysight("flash", "belt@1.1.0", *to, "--wait", "0", "--json", *flags)
    assert done.returncode == 1
    told = {each["device"]: each for each in json.loads(done.stdout)["devices"]}
    assert [told[address]["outcome"] for address in good] == ["staged", "staged", "confirmed"], told
    assert {told[address]["transfer"] for address in good} == {"full"}
    assert "tinysight device add" in told[empty]["reason"]


def test_beside_a_running_agent_the_difference_is_brought_once_and_left_to_its_trial(
    device: MakeDevice, settle: Settle, flash: Callable[..., list[Result]], repository: Repository
) -> None:
    address = device("gate")
    settle(folder_of(address), "belt@1.0.0")
    release = repository.find("belt@1.1.0")
    with store_of(address).run():  # as an agent does; this one never decides
        (first,) = flash("belt@1.1.0", [address])
        assert (first.outcome, first.transfer, first.why_full) == ("staged", "delta", ""), first
        assert 0 < first.moved_bytes < release.size_bytes / 10
        assert "agent has not decided yet" in line_of(release, first)
        (again,) = flash("belt@1.1.0", [address])
        assert (again.outcome, again.transfer) == ("staged", "")  # the bundle is there and is not brought again
        assert again.moved_bytes < 20_000


class Cutter:
    """Kills the connections once when this many bytes have come."""

    def __init__(self, sshd: Any, at_bytes: int) -> None:
        self.sshd, self.at_bytes, self.cuts = sshd, at_bytes, 0
        self.begun_at: list[int] = []
        self._what = ""

    def tell(self, step: Step) -> None:
        if step.what == "sending":
            if self._what != step.what:
                self.begun_at.append(step.done)
            if self.cuts == 0 and step.done >= self.at_bytes:
                self.cuts += 1
                self.sshd.cut()
        self._what = step.what


def test_a_cut_connection_is_mended_by_itself_and_what_came_is_not_brought_again(
    device: MakeDevice, flash: Callable[..., list[Result]], sshd: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(flash_ssh, "PAUSE_S", 0.01)
    address, cutter = device("gate"), Cutter(sshd, 1 << 20)
    with store_of(address).run():
        (result,) = flash("big@1.0.0", [address], view=cutter)
    assert cutter.cuts == 1
    assert (result.outcome, result.tries) == ("staged", 2)
    assert any(0 < at < 4 << 20 for at in cutter.begun_at)


def test_where_it_stays_lost_running_it_again_mends_it(
    device: MakeDevice, flash: Callable[..., list[Result]], sshd: Any, repository: Repository, monkeypatch: Any
) -> None:
    monkeypatch.setattr(flash_ssh, "TRIES", 1)
    address = device("gate")
    (lost,) = flash("big@1.0.0", [address], view=Cutter(sshd, 1 << 20))
    assert lost.outcome == "failed"
    assert "connection was lost" in lost.reason
    assert "Run the same again" in lost.reason
    with store_of(address).run():
        (result,) = flash("big@1.0.0", [address])
    assert (result.outcome, result.transfer) == ("staged", "full")
    assert result.moved_bytes <= repository.find("big@1.0.0").size_bytes - (1 << 19)


def test_a_device_with_another_host_key_is_refused_until_the_old_one_is_forgotten(
    device: MakeDevice, settle: Settle, own_sshd: Any, flash: Callable[..., list[Result]], tinysight: Run, home: Path
) -> None:
    address = device("gate", on=own_sshd)
    settle(folder_of(address), "belt@1.0.0")
    assert flash("belt@1.0.0", [address], identity=own_sshd.identity)[0].outcome == "unchanged"
    own_sshd.new_host_key()
    (refused,) = flash("belt@1.0.0", [address], identity=own_sshd.identity)
    assert refused.outcome == "failed"
    assert f"tinysight device forget-key {address}" in refused.reason
    done = tinysight("device", "forget-key", address, "--inventory", home / "devices.toml")
    assert done.returncode == 0, done.stderr
    assert flash("belt@1.0.0", [address], identity=own_sshd.identity)[0].outcome == "unchanged"


def test_who_is_not_let_in_is_told_how_to_be(device: MakeDevice, flash: Callable[..., list[Result]], sshd: Any) -> None:
    (result,) = flash("belt@1.0.0", [device("gate")], identity=sshd.stranger)
    assert result.outcome == "failed"
    assert "ssh-copy-id" in result.reason
    assert "--identity" in result.reason


LIES = {
    "garbage": "head -c 300 /dev/urandom",
    "endless": "yes",
    "an endless line": "cat /dev/zero",
    "endless errors": "yes >&2",
    "colours": r"printf '\033]0;owned\007\033[2J\033[31mno\n'; printf '\033[2Jerr\n' >&2; exit 3",
    "silent": "sleep 30",
    "nothing": "exit 0",
    "deep": "head -c 100000 /dev/zero | tr '\\0' '['",
    "another shape": """echo '{"state": {"active": {"digest": "../../etc"}}}'""",
    "a number": "echo 7",
    "killed": "kill -9 $$",
    "closed": "exec >&- 2>&-; sleep 30",
}
UPDATE = '{"target": "%s", "state": "confirmed", "at": "2026-01-01T00:00:00Z"}'
HALF = {
    "installs garbage": "echo nonsense",
    "installs for ever": "yes '" + UPDATE % "belt/belt-1.0.0.bundle" + "'",
    "installs another": "echo '" + UPDATE % "cats/cats-1.0.0.bundle" + "'",
    "says confirmed and ends badly": "echo '" + UPDATE % "belt/belt-1.0.0.bundle" + "'; exit 9",
    "installs nothing": "exit 0",
    "colours its reason": (
        "cat <<'E'\n"
        '{"target": "belt/belt-1.0.0.bundle", "state": "failed", "at": "2026-01-01T00:00:00Z", "code": "disk", '
        '"reason": "\\u001b[2J\\u0007 \\u202e full"}'
        "\nE\nexit 1"
    ),
}


def test_whatever_a_device_answers_is_a_line_and_disturbs_no_other(
    device: MakeDevice, flash: Callable[..., list[Result]], monkeypatch: Any, repository: Repository
) -> None:
    monkeypatch.setattr(flash_ssh, "ASK_S", 3.0)
    release = repository.find("belt@1.0.0")
    active = json.dumps({"state": {"active": msgspec.to_builtins(release)}})
    good = device("good", f"#!/bin/sh\necho '{active}'\n")
    show = """[ "$2" = show ] && { echo '{"state": {}}'; exit 0; }"""
    scripts = [
        *(f"#!/bin/sh\n{lie}\n" for lie in LIES.values()),
        *(f"#!/bin/sh\n{show}\n{lie}\n" for lie in HALF.values()),
    ]
    liars = [device(f"liar-{number}", script) for number, script in enumerate(scripts)]
    results = flash("belt@1.0.0", [*liars, good])
    assert results[-1].outcome == "unchanged"
    for name, result in zip([*LIES, *HALF], results, strict=False):
        assert result.outcome == "failed", name
        line = line_of(release, result)
        assert line.isprintable(), name
        assert len(line) < 1000, name
        assert line.endswith((".", "!")) or "full" in line, name


AS_ANOTHER = """#!/bin/sh
# as runuser and sudo: notes what is asked for, and does it on the device that is a folder
echo "${0##*/} $*" >> FOLDER/asked
while :; do case "$1" in -u) shift 2;; -n|--) shift;; *) break;; esac; done
[ "$1" = /opt/tinysight/bin/tinysight ] && { shift; exec FOLDER/opt/tinysight/bin/tinysight "$@"; }
exec "$@"
"""
TAKES_IT = f"""#!/bin/sh
[ "$2" = show ] && {{ echo '{{"state": {{}}}}'; exit 0; }}
ls -ld "$5/.." > FOLDER/seen; ls -R "$5" >> FOLDER/seen
echo '{UPDATE % "belt/belt-1.0.0.bundle"}'
"""


def test_on_a_device_of_its_own_the_agents_user_installs_from_a_folder_that_is_closed_to_others(
    sshd: Any, sshd_module: Any, flash: Callable[..., list[Result]], tmp_path: Path, monkeypatch: Any
) -> None:
    notes = '#!/bin/sh\necho "chgrp $*" >> FOLDER/asked\n'
    fakes = {
        "runuser": AS_ANOTHER,
        "sudo": AS_ANOTHER,
        "chgrp": notes,
        "systemctl": notes.replace("chgrp", "systemctl"),
    }
    for name, script in fakes.items():
        (sshd.fakes / name).write_text(script.replace("FOLDER", str(tmp_path)))
        (sshd.fakes / name).chmod(0o755)
    sshd_module.install_program(tmp_path, TAKES_IT.replace("FOLDER", str(tmp_path)))
    shared = tmp_path / "var-tmp"
    shared.mkdir()
    monkeypatch.setattr(flash_ssh, "SHARED", PurePosixPath(shared))
    room = shared / f"tinysight-{getpass.getuser()}"
    try:
        (result,) = flash("belt@1.0.0", [sshd.address()])
        assert result.outcome == "confirmed", result
        asked = (tmp_path / "asked").read_text()
        seen = (tmp_path / "seen").read_text()
        assert f"chgrp -- tinysight {room}\n" in asked
        assert asked.endswith("systemctl start --no-block tinysight-agent.service\n"), "its first bundle has come"
        assert "-u tinysight -- /opt/tinysight/bin/tinysight store install belt/belt-1.0.0.bundle --from" in asked
        assert "--store /var/lib/tinysight/store" in asked
        assert seen.startswith("drwxr-x---")
        assert ".bundle" in seen
        assert not list(room.iterdir())
        shutil.rmtree(room)
        room.symlink_to(tmp_path)  # as another user of the device might
        (refused,) = flash("belt@1.0.0", [sshd.address()])
        assert refused.outcome == "failed"
        assert "somebody else's" in refused.reason
    finally:
        for name in fakes:
            (sshd.fakes / name).unlink()


def test_a_dry_run_says_what_would_be_moved_and_changes_nothing(
    device: MakeDevice, settle: Settle, flash: Callable[..., list[Result]], home: Path, tmp_path: Path
) -> None:
    empty, held, settled = device("empty"), device("held"), device("settled")
    settle(folder_of(held), "belt@1.0.0")
    settle(folder_of(settled), "belt@1.1.0")
    before = contents(tmp_path)
    to = [empty, held, settled, f"dir:{tmp_path / 'card'}"]
    results = flash("belt@1.1.0", to, dry_run=True)
    assert [each.outcome for each in results] == ["would-install", "would-install", "unchanged", "would-install"]
    assert [each.transfer for each in results[:2]] == ["full", "delta"]
    assert results[1].moved_bytes < results[0].moved_bytes / 5
    after = {name: data for name, data in contents(tmp_path).items() if not name.startswith("room/")}
    assert after == before
    assert not (tmp_path / "card").exists()
    assert not (home / "known_hosts").exists()


def test_a_second_flash_at_once_is_refused_by_the_store(
    device: MakeDevice, settle: Settle, flash: Callable[..., list[Result]]
) -> None:
    address = device("gate")
    settle(folder_of(address), "belt@1.0.0")
    with (folder_of(address) / "var/lib/tinysight/store/lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (result,) = flash("belt@1.1.0", [address])
    assert result.outcome == "failed"
    assert "is being written to" in result.reason
    assert "Wait for the other flash" in result.reason


def test_a_whole_transfer_where_there_could_be_a_difference_has_its_reason(
    device: MakeDevice, settle: Settle, flash: Callable[..., list[Result]], repository: Repository, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(repository.folder, copy)
    shutil.rmtree(copy / "deltas")
    address = device("gate")
    settle(folder_of(address), "belt@1.0.0")
    other = Repository(copy, repository.folder.parent / "keys")
    with store_of(address).run():
        (result,) = flash("belt@1.1.0", [address], repo=other)
    assert (result.outcome, result.transfer) == ("staged", "full")
    assert "is missing in the repository" in line_of(repository.find("belt@1.1.0"), result)


def test_flashed_again_a_damaged_active_bundle_is_whole_again(
    device: MakeDevice, settle: Settle, flash: Callable[..., list[Result]]
) -> None:
    address = device("gate")
    release = settle(folder_of(address), "belt@1.0.0")
    store_of(address).path(release.digest).write_bytes(b"damaged")
    with store_of(address).run():
        (result,) = flash("belt@1.0.0", [address])
    assert (result.outcome, result.transfer) == ("staged", "full")
    assert store_of(address).is_whole(release.digest)


def test_a_difference_that_the_device_cannot_use_is_followed_by_the_whole(
    device: MakeDevice, settle: Settle, flash: Callable[..., list[Result]], repository: Repository, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(repository.folder, copy)
    for delta in (copy / "deltas").iterdir():
        delta.write_bytes(delta.read_bytes()[:-1] + b"!")
    address = device("gate")
    settle(folder_of(address), "belt@1.0.0")
    other = Repository(copy, repository.folder.parent / "keys")
    with store_of(address).run():
        (result,) = flash("belt@1.1.0", [address], repo=other)
    assert (result.outcome, result.transfer) == ("staged", "full")
    assert result.why_full


def test_a_device_whose_active_bundle_is_damaged_gets_the_whole(
    device: MakeDevice, settle: Settle, flash: Callable[..., list[Result]]
) -> None:
    address = device("gate")
    release = settle(folder_of(address), "belt@1.0.0")
    store_of(address).path(release.digest).write_bytes(b"damaged")
    with store_of(address).run():
        (result,) = flash("belt@1.1.0", [address])
    assert (result.outcome, result.transfer) == ("staged", "full")
    assert result.why_full


def test_an_older_release_is_refused_with_the_devices_reason(
    device: MakeDevice, settle: Settle, flash: Callable[..., list[Result]]
) -> None:
    address = device("gate")
    settle(folder_of(address), "belt@1.2.0")
    (result,) = flash("belt@1.0.0", [address])
    assert (result.outcome, result.code) == ("rejected", Code.TOO_OLD)


def test_a_folder_is_given_the_root_and_the_bundle_and_waits_for_its_agent(
    flash: Callable[..., list[Result]], tmp_path: Path, repository: Repository
) -> None:
    card = tmp_path / "card" / "store"
    (first,) = flash("belt@1.0.0", [f"dir:{card}"])
    assert first.outcome == "staged", first
    assert "tests it" in first.reason
    assert (card / "trust/root.json").read_bytes() == repository.root_bytes()
    state = Store(card).state()
    assert state.active is None
    assert state.candidate is not None
    before = contents(card)
    (again,) = flash("belt@1.0.0", [f"dir:{card}"])
    assert again.outcome == "staged"
    assert contents(card) == before


def test_a_folder_for_another_machine_is_filled_and_the_device_looks_whether_it_fits(
    flash: Callable[..., list[Result]], tmp_path: Path, hobby: Any, belt_bundle: Path
) -> None:
    repository = hobby.repository()
    repository.add(belt_bundle, requires=Requires(arch=["riscv64"]))
    card = tmp_path / "card"
    name = repository.releases()[0].release.target
    (dry,) = flash(name, [f"dir:{card}"], repo=repository, dry_run=True)
    (told,) = flash(name, [f"dir:{card}"], repo=repository)
    assert (dry.outcome, told.outcome) == ("would-install", "staged"), told
    assert dry.moved_bytes == told.moved_bytes
    tested = Installer(Store(card)).test()
    assert tested is not None
    assert (tested.state, tested.code) == (UpdateState.REJECTED, Code.HARDWARE)


def test_a_dry_run_into_a_folder_foresees_what_the_flash_will_say(
    flash: Callable[..., list[Result]], tmp_path: Path, hobby: Any, belt_bundle: Path
) -> None:
    card = tmp_path / "card"
    flash("belt@1.0.0", [f"dir:{card}"])
    store = Store(card)
    with store.alone():
        state = store.state()
        assert state.candidate is not None
        release = state.candidate.bundle
        assert release is not None
        store.save(State(active=release, floor={"belt": release.release}))
    (dry,) = flash("belt@1.2.0", [f"dir:{card}"], dry_run=True)
    (told,) = flash("belt@1.2.0", [f"dir:{card}"])
    assert (dry.outcome, dry.transfer, dry.why_full) == ("would-install", "delta", "")
    assert (told.outcome, told.transfer, told.moved_bytes) == ("staged", "delta", dry.moved_bytes)
    with store.alone():
        store.save(State(active=release, floor={"belt": 3}))
    for dry_run in (True, False):
        (old,) = flash("belt@1.1.0", [f"dir:{card}"], dry_run=dry_run)
        assert (old.outcome, old.code) == ("rejected", Code.TOO_OLD)
    hobby.repository().add(belt_bundle)
    (strange,) = flash(
        hobby.repository().releases()[0].release.target, [f"dir:{card}"], repo=hobby.repository(), dry_run=True
    )
    assert (strange.outcome, strange.code) == ("rejected", Code.UNSIGNED)


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_empty_folder_is_not_given_the_root_of_a_repository_that_was_exchanged(
    flash: Callable[..., list[Result]], tmp_path: Path, repository: Repository, hobby: Any, dry_run: bool
) -> None:
    shutil.copytree(repository.folder, tmp_path / "exchanged")
    exchanged = Repository(tmp_path / "exchanged", hobby.folder / "keys")
    (result,) = flash("belt@1.0.0", [f"dir:{tmp_path / 'card'}"], repo=exchanged, dry_run=dry_run)
    assert result.outcome == "failed"
    assert "another first root" in result.reason
    assert not (tmp_path / "card").exists()


def test_root_writes_a_store_as_its_owner_who_need_not_see_the_repository(
    tinysight: Run, flags: list[str], repository: Repository
) -> None:
    owner = 65534 if os.geteuid() == 0 else os.geteuid()  # others write what is theirs anyway
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders let nobody pass
        parent, card = Path(name), Path(name) / "card"
        parent.chmod(0o755)
        card.mkdir(mode=0o750)
        os.chown(card, owner, -1)
        kept = repository.folder.stat().st_mode
        repository.folder.chmod(0o700)
        try:
            done = tinysight("flash", "belt@1.0.0", "--to", f"dir:{card}", *flags)
        finally:
            repository.folder.chmod(kept)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {path.stat().st_uid for path in card.rglob("*")} == {owner}
        assert {path.stat().st_uid for path in repository.folder.rglob("*")} == {os.geteuid()}
        if owner != os.geteuid():  # root passes where the owner may not
            parent.chmod(0o700)
            done = tinysight("flash", "belt@1.1.0", "--to", f"dir:{card}", *flags)
            assert done.returncode == 0, done.stdout + done.stderr
            assert {path.stat().st_uid for path in card.rglob("*")} == {owner}
            return
        card.chmod(0o500)
        done = tinysight("flash", "belt@1.1.0", "--to", f"dir:{card}", *flags)
        card.chmod(0o700)
        assert done.returncode == 1
        assert f"cannot be written by user {owner}. Be its owner or root; mount" in done.stdout


def test_a_folder_that_cannot_be_made_is_one_line_with_what_to_do(tinysight: Run, flags: list[str]) -> None:
    done = tinysight("flash", "belt@1.0.0", "--to", "dir:/proc/tinysight-test", *flags)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert "/proc" in done.stdout
    assert "rights" in done.stdout or "owner" in done.stdout
    assert done.stderr == ""


def test_what_is_rejected_is_said_once(tinysight: Run, flags: list[str], tmp_path: Path, hobby: Any) -> None:
    trust = tmp_path / "card" / "trust"
    trust.mkdir(parents=True)
    (trust / "root.json").write_bytes(hobby.repository().root_bytes())
    done = tinysight("flash", "belt@1.0.0", "--to", f"dir:{tmp_path / 'card'}", *flags)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_a_file_that_was_damaged_is_not_brought_anywhere(
    tinysight: Run, flags: list[str], tmp_path: Path, repository: Repository
) -> None:
    raw = bytearray((repository.folder / repository.look_up("belt@1.0.0").file).read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "belt.bundle").write_bytes(raw)
    done = tinysight("flash", "belt.bundle", "--to", f"dir:{tmp_path / 'card'}", *flags)
    assert done.returncode == 2
    assert "has the wrong digest" in done.stderr
    assert not (tmp_path / "card").exists()


def test_devices_with_strange_bundles_share_one_copy_of_the_whole(repository: Repository, tmp_path: Path) -> None:
    release, bases = repository.find("belt@1.1.0"), [None, "0" * 64, "1" * 64, "1" * 64]
    known = repository.find("belt@1.0.0").digest

    async def get() -> list[Slice]:
        slices = Slices(repository, release, tmp_path)
        return await asyncio.gather(*map(slices.get, [*bases, known, release.digest]))

    *whole, delta, none = asyncio.run(get())
    assert len({each.folder for each in whole}) == 1
    assert [each.payload.transfer for each in [*whole, delta, none]] == [*["full"] * 4, "delta", "none"]
    assert ["0000" in each.payload.why_full for each in whole] == [False, True, False, False]
    assert len([path for path in tmp_path.rglob("*.bundle") if path.is_file()]) == 1
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_trusts_another_repository_takes_nothing_from_this_one(
    flash: Callable[..., list[Result]], tmp_path: Path, repository: Repository
) -> None:
    trust = tmp_path / "card" / "trust"
    trust.mkdir(parents=True)
    stranger = json.loads(repository.root_bytes())
    stranger["signatures"][0]["sig"] = "00" * 64
    (trust / "root.json").write_bytes(json.dumps(stranger).encode())
    (result,) = flash("belt@1.0.0", [f"dir:{tmp_path / 'card'}"])
    assert result.outcome in {"rejected", "failed"}
    assert result.code is not None


@pytest.mark.parametrize(
    ("status", "err", "mend"),
    [
        (127, b"sh: 1: /opt/tinysight/bin/tinysight: not found", "device add ssh://pi@gate"),
        (1, b"runuser: user tinysight does not exist or the user entry does not contain all fields", "device add"),
        (1, b"sudo: unknown user tinysight\nsudo: error initializing audit plugin sudoers_audit", "device add"),
        (1, b"sudo: unknown user tinysight", "device add"),
        (1, b"chgrp: invalid group: 'tinysight'", "device add"),
        (1, b"sudo: a password is required", "sudo without a password"),
        (127, b"bash: line 1: sudo: command not found", "log in as root"),
        (
            2,
            b"warning: x\nerror: The store is being written to. Wait for the other flash.\n",
            "Wait for the other flash",
        ),
        (-9, b"", "with a signal"),
    ],
)
def test_how_a_devices_command_ended_says_what_to_do(status: int, err: bytes, mend: str) -> None:
    assert mend in str(failed(SshTarget.parse("ssh://pi@gate"), status, err))


def test_sizes_are_said_in_powers_of_1024() -> None:
    assert [size(each) for each in (0, 1023, 1024, 1 << 20, 3 << 19)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "1.0 MiB",
        "1.5 MiB",
    ]
