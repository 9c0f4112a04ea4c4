"""Processes that update are stopped, killed, and given errors by the kernel: what runs goes on, and so do they."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tinysight_contract.updates import Code, UpdateState
from tinysight_edge.update.selftest import Verdict

ROUNDS: Final = 40


def passes(*_: object, **__: object) -> Verdict:
    """The self-test, where it is not what is tried."""
    return Verdict()


def test_of_two_installs_at_once_one_goes_on_and_the_other_is_told_to_wait(
    device: Any, fields: Any, serve: Any, real: Any, eventually: Any, tell: Any
) -> None:
    device.shop.add(device.make(2), 2)
    server = serve(device.shop.folder)
    first = subprocess.Popen(fields.command_of(*device.command(2, source=server.url)), stdout=subprocess.DEVNULL)
    eventually(lambda: any(asked.path.startswith("targets/") for asked in server.asked))
    first.send_signal(signal.SIGSTOP)
    began = device.store.state()
    assert began.candidate is not None, "it holds the store"
    begun_s = time.monotonic()
    second = real(*device.command(2))
    found_s = time.monotonic() - begun_s
    assert (second.status, second.lines) == (2, [])
    assert "is being written to. Wait for the other" in second.errors
    assert device.store.state() == began
    assert device.store.boot().manifest.release == 1
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 0
    coming = device.store.state().candidate
    assert coming is not None
    assert (coming.state, coming.code) == (UpdateState.TRIAL, None)
    said = "the second ends with status 2 and its mend; the first goes its way"
    tell("two updates at once", found_s=found_s, published=said)


def children(of: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == of:
                found.append(int(stat.parent.name))
    return found


def test_killed_while_it_downloads_waits_or_tests_it_goes_on_from_there_and_gives_up_what_kills_it_each_time(
    device: Any, shops: Any, fields: Any, serve: Any, faulty: Any, troubles: Path, real: Any, eventually: Any, tell: Any
) -> None:
    store, good = device.store, shops.target_of(2)
    device.shop.add(device.make(2), 2)
    server = serve(device.shop.folder)
    payload = device.shop.payload(good).relative_to(device.shop.folder)
    server.always[str(payload)] = faulty.Fault(silent="body", cut_after=100_000)

    def kill(number: int, *, when: UpdateState, source: str = "", wait: str = "0") -> list[int]:
        command = fields.command_of(*device.command(number, "--wait", wait, source=source))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

        def has_come() -> bool:
            coming = store.state().candidate
            return coming is not None and coming.state is when and bool(when is not UpdateState.SELFTEST or testing())

        def testing() -> list[int]:
            return children(process.pid)

        eventually(has_come)
        if when is UpdateState.DOWNLOADING:
            part = store.part(device.shop.targets[good].hashes["sha256"])
            eventually(lambda: part.exists() and part.stat().st_size == 100_000)
        born = testing()
        process.kill()
        process.wait()
        assert store.boot().manifest.release == 1
        coming = store.state().candidate
        assert coming is not None
        assert coming.state is when
        return born

    kill(2, when=UpdateState.DOWNLOADING, source=server.url)
    server.always.clear()
    with store.run():  # an agent runs, so it is left to it
        kill(2, when=UpdateState.VERIFIED, source=server.url, wait="60")
        sent = [asked.headers.get("range") for asked in server.asked if asked.path == str(payload)]
        assert sent == [None, "bytes=100000-"]
    ended = real(*device.command(2))
    assert (ended.status, ended.lines[-1]["state"]) == (0, "trial")
    killed = "downloading, verified"

    hangs = shops.repacked(troubles / "hangs.bundle", 3, golden_input=b"\xff")
    device.shop.add(hangs, 3)
    for attempts in (1, 2, 3):
        born = kill(3, when=UpdateState.SELFTEST)
        coming = store.state().candidate
        assert coming is not None
        assert coming.attempts == attempts, "counted before it began"
        eventually(lambda born=born: not any(Path(f"/proc/{pid}").exists() for pid in born))
    ended = real(*device.command(3))
    assert (ended.status, ended.code) == (1, Code.CRASHED.value)
    device.check_runs(1)
    assert [each.code for each in store.state().bad] == [Code.CRASHED]
    said = f"{killed}: it goes on from there, 100,000 bytes are not sent twice; self-test: 3 times, then `crashed`"
    tell("killed while it updates", published=said)


def test_errors_of_the_kernel_at_random_cost_the_update_and_nothing_else(
    device: Any, forked: Any, tell: Any, quick: Path
) -> None:
    if shutil.which("fiu-run") is None:
        pytest.skip("apt-get install fiu-utils")
    device.shop.add(device.make(2), 2)
    rounds = [device.copied(quick / f"round-{number}") for number in range(ROUNDS)]
    command = ["fiu-run", "-x", sys.executable, str(Path(__file__).with_name("update_errors.py"))]
    done = subprocess.run(
        [*command, json.dumps([each.command(2) for each in rounds])],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    statuses = Counter(json.loads(done.stdout))
    assert set(statuses) <= {0, 1, 2}, f"it went well, it was told, or it ended with a mend: {statuses}"
    assert min(statuses[0], statuses.total() - statuses[0]) >= ROUNDS // 8, f"both happened: {statuses}"
    for each in rounds:
        assert each.store.boot().manifest.release == 1
        ended = forked(*each.command(2), selftest__run_selftest=passes)
        assert (ended.status, ended.lines[-1]["state"]) == (0, "trial"), ended
        each.check_runs(1)
    failed = statuses.total() - statuses[0]
    said = f"{ROUNDS} updates, {failed} of them broken off; what ran goes on, and the next try comes to its end"
    tell("errors of the kernel at random under an update", published=said)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("left_bytes", [0, 8_000, 120_000])
def test_a_file_system_that_is_really_full_costs_the_update_and_nothing_else(
    left_bytes: int, device: Any, fields: Any, small_disk: Path, forked: Any, tell: Any
) -> None:
    device.shop.add(device.make(2), 2)
    shutil.copytree(device.root, small_disk / "store")
    here = fields.Field(device.shop, small_disk / "store", device.make)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - left_bytes))
    blind: dict[str, Any] = {"transfer__RESERVE_BYTES": 0, "transfer___missing": lambda *_: 0}
    for replaced in ({}, blind):  # it sees that there is no room; it would not have seen it
        full = forked(*here.command(2), **replaced)
        assert (full.status, full.code) == (1, Code.NO_SPACE.value), full
        assert "Free some space" in full.lines[-1]["reason"]
        assert here.store.boot().manifest.release == 1
    filler.unlink()
    ended = forked(*here.command(2), transfer__RESERVE_BYTES=0, selftest__run_selftest=passes)
    assert (ended.status, ended.lines[-1]["state"]) == (0, "trial"), ended
    here.check_runs(1)
    said = "`failed`, code `no-space`; the command says so also where not even that can be written"
    tell("a file system is full under an update", published=said)


def test_a_card_that_can_only_be_read_any_more_costs_the_update_and_nothing_else(
    device: Any, fields: Any, small_disk: Path, forked: Any, tell: Any
) -> None:
    device.shop.add(device.make(2), 2)
    shutil.copytree(device.root, small_disk / "store")
    here = fields.Field(device.shop, small_disk / "store", device.make)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    told = forked(*here.command(2))
    assert (told.status, told.code) == (1, Code.DISK.value), told
    assert "Read-only file system" in told.lines[-1]["reason"]
    assert here.store.boot().manifest.release == 1
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    ended = forked(*here.command(2), transfer__RESERVE_BYTES=0, selftest__run_selftest=passes)
    assert (ended.status, ended.lines[-1]["state"]) == (0, "trial"), ended
    here.check_runs(1)
    tell("a file system can only be read under an update", published="`failed`, code `disk`; what runs goes on")
