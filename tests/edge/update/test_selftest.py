"""A new bundle is tried in a process of its own: real bundles, real processes, and nothing of them is left behind."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle, file_ref, pack_bundle
from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code
from tinysight_edge.update import memory, selftest, selftest_process
from tinysight_edge.update.selftest import Figures, Limits, judge, run_selftest
from tinysight_edge.update.selftest_child import CPU_SPARE_S, NICE

SMALL = Limits(time_s=60, memory_mib=128)
SHORT = Limits(time_s=1, memory_mib=128)
GOOD = Figures(variant="int8", engine="interpreter", runtime="litert 2", runs=30, p50_ms=3, p95_ms=5, memory_mib=20)


def children(of: int) -> list[int]:
    """Its processes, dead ones that nobody has waited for as well."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == of:
            found.append(int(stat.parent.name))
    return found


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process, no zombie, no open file."""
    before = set(children(os.getpid())), len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert (set(children(os.getpid())), len(list(Path("/proc/self/fd").iterdir()))) == before


Repack = Callable[[Path, str, bytes], Path]


@pytest.fixture
def repack(tmp_path: Path) -> Repack:
    """Make a bundle with one file of another content, whole in every other way."""

    def make(path: Path, name: str, fill: bytes) -> Path:
        bundle = Bundle.open(path)
        files = {each: bundle.read(each) for each in bundle.manifest.files}
        files[name] = fill * (len(files[name]) // len(fill))
        manifest = replace(bundle.manifest, files={each: file_ref(data) for each, data in files.items()})
        (tmp_path / "other.bundle").write_bytes(pack_bundle(manifest, files))
        return tmp_path / "other.bundle"

    return make


def test_a_good_bundle_passes_in_little_memory_and_is_compared_with_the_active_one(belt_bundle: Path) -> None:
    verdict = run_selftest(belt_bundle, active=belt_bundle, limits=Limits(time_s=60, memory_mib=64), threads=2)
    assert verdict.code is None, verdict.reason
    assert set(verdict.gates) == {"golden", "p95_ms", "memory_mib"}
    assert all(gate.ok and gate.value <= gate.limit for gate in verdict.gates.values())
    for figures in (verdict.figures, verdict.active):
        assert figures is not None
        assert figures.variant == "int8"
        assert figures.runtime.startswith("litert ")
        assert figures.runs >= 30
        assert 0 < figures.p50_ms <= figures.p95_ms
        assert 1 < figures.memory_mib < 64
    assert (verdict.reason, verdict.active_reason) == ("", "")


@pytest.mark.parametrize("active", ["missing.bundle", "crashes.bundle"])
def test_that_the_active_one_does_not_work_is_said_and_does_not_count(troubles: Path, active: str) -> None:
    verdict = run_selftest(troubles / "fails.bundle", active=troubles / active, limits=SMALL)
    assert verdict.code is None
    assert verdict.active is None
    assert ("There is no bundle" if active == "missing.bundle" else "SIGSEGV") in verdict.active_reason


def test_what_crashes_the_interpreter_is_named_with_its_signal(troubles: Path) -> None:
    verdict = run_selftest(troubles / "crashes.bundle", active=None, limits=SMALL)
    assert (verdict.code, verdict.gates) == (Code.CRASHED, {})
    assert verdict.reason.startswith("It ended the process that tried it by SIGSEGV. Convert ")


def test_what_hangs_is_ended_when_its_time_is_over(troubles: Path, repack: Repack) -> None:
    hangs = repack(troubles / "hangs.bundle", "golden-input.bin", b"\xff")
    verdict = run_selftest(hangs, active=None, limits=SHORT)
    assert verdict.code is Code.HUNG
    assert "not done after 1 s" in verdict.reason


def test_the_processor_has_an_end_too_and_everything_else_that_the_process_does_not_need(
    troubles: Path, repack: Repack
) -> None:
    hangs = repack(troubles / "hangs.bundle", "golden-input.bin", b"\xff")
    before, seen = set(children(os.getpid())), dict[str, Any]()

    def heed() -> None:
        for pid in set(children(os.getpid())) - before:
            soft, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
            status = Path(f"/proc/{pid}/status").read_text()
            first = Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"  # what the process does last
            if first and soft == 61:
                seen["privileges"] = "NoNewPrivs:\t1" in status
                seen["nice"] = os.getpriority(os.PRIO_PROCESS, pid)
                seen["hard"] = hard
                seen["core"] = resource.prlimit(pid, resource.RLIMIT_CORE)
                seen["files"] = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1] <= hangs.stat().st_size + (1 << 20)
                seen["memory"] = resource.prlimit(pid, resource.RLIMIT_DATA)[1] != resource.RLIM_INFINITY
                seen["group"] = os.getpgid(pid) == pid == os.getsid(pid)
                resource.prlimit(pid, resource.RLIMIT_CPU, (1, hard))

    verdict = run_selftest(hangs, active=None, limits=SMALL, heed=heed)
    assert seen == {
        "privileges": True, "nice": NICE, "hard": 61 + CPU_SPARE_S, "core": (0, 0), "files": True, "memory": True,
        "group": True,
    }  # fmt: skip
    assert verdict.code is Code.HUNG
    assert "more of the processor" in verdict.reason


def test_a_stop_of_the_whole_service_does_not_look_like_a_fault_of_the_bundle(belt_bundle: Path) -> None:
    before = set(children(os.getpid()))

    def heed() -> None:
        for pid in set(children(os.getpid())) - before:
            if os.getpriority(os.PRIO_PROCESS, pid) == NICE:
                os.kill(pid, signal.SIGTERM)

    assert run_selftest(belt_bundle, active=None, limits=SMALL, heed=heed).code is None


def test_what_eats_memory_is_told_from_what_the_runtime_cannot_load(troubles: Path) -> None:
    verdict = run_selftest(troubles / "greedy.bundle", active=None, limits=SMALL)
    assert verdict.code is Code.MEMORY
    assert verdict.reason.startswith("It needs more than the 128 MiB of memory that it may take here. Convert ")


def test_other_answers_than_where_it_was_made_are_wrong(belt_bundle: Path, repack: Repack) -> None:
    wrong = repack(belt_bundle, "golden-int8-heatmap.bin", b"\x7f")
    verdict = run_selftest(wrong, active=None, limits=SMALL)
    assert verdict.code is Code.WRONG
    assert "golden picture 0: heatmap is off by" in verdict.reason
    golden = verdict.gates["golden"]
    assert (golden.value, golden.limit, golden.ok) == (Bundle.open(belt_bundle).manifest.golden.count, 0, False)


def test_what_fails_on_a_golden_picture_does_not_run_here(troubles: Path, repack: Repack) -> None:
    fails = repack(troubles / "fails.bundle", "golden-input.bin", b"\xff")
    verdict = run_selftest(fails, active=None, limits=SMALL)
    assert verdict.code is Code.RUNTIME
    assert "fails on a picture" in verdict.reason


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param({"engine": "edgetpu"}, "is not compiled for the Edge TPU", id="another engine"),
        pytest.param({"scheme": "float16"}, "has no float16 variant", id="another variant"),
    ],
)
def test_what_the_device_is_configured_for_must_be_in_it(belt_bundle: Path, asked: Any, said: str) -> None:
    verdict = run_selftest(belt_bundle, active=None, limits=SMALL, **asked)
    assert verdict.code is Code.RUNTIME
    assert said in verdict.reason


def test_a_missing_and_a_garbled_file_are_malformed(belt_bundle: Path, tmp_path: Path) -> None:
    raw = bytearray(belt_bundle.read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "garbled.bundle").write_bytes(raw)
    for path, said in ((tmp_path / "garbled.bundle", "wrong digest"), (tmp_path / "none.bundle", "There is no bundle")):
        verdict = run_selftest(path, active=None, limits=SMALL)
        assert verdict.code is Code.MALFORMED
        assert said in verdict.reason


def test_what_is_much_slower_than_the_active_one_is_refused_unless_it_is_fast_enough_anyway(troubles: Path) -> None:
    slow, active = troubles / "slow.bundle", troubles / "fails.bundle"
    strict = Limits(time_s=60, memory_mib=128, floor_ms=0.01)
    verdict = run_selftest(slow, active=active, limits=strict)
    assert verdict.code is Code.SLOW
    assert "where the active bundle takes" in verdict.reason
    assert verdict.figures is not None
    assert verdict.active is not None
    assert verdict.gates["p95_ms"].value == verdict.figures.p95_ms > verdict.gates["p95_ms"].limit
    assert verdict.gates["p95_ms"].limit == max(0.01, 2 * verdict.active.p95_ms)
    before = {name: gate.before for name, gate in verdict.gates.items()}
    assert before == {"golden": None, "p95_ms": verdict.active.p95_ms, "memory_mib": verdict.active.memory_mib}
    assert run_selftest(active, active=slow, limits=strict).code is None


@pytest.mark.parametrize(
    ("figures", "active_ms", "limits", "code", "limit_ms"),
    [
        pytest.param(GOOD, 5.0, Limits(), None, 20, id="as fast"),
        pytest.param(GOOD, 1.0, Limits(), None, 20, id="five times slower and fast enough"),
        pytest.param(GOOD, 1.0, Limits(floor_ms=4), Code.SLOW, 4, id="slower and not fast enough"),
        pytest.param(GOOD, 2.6, Limits(floor_ms=4), None, 5.2, id="less than twice as slow"),
        pytest.param(GOOD, 1.0, Limits(max_ms=4), Code.SLOW, 4, id="slower than ever allowed"),
        pytest.param(GOOD, None, Limits(max_ms=4), Code.SLOW, 4, id="the same without an active one"),
        pytest.param(GOOD, 1.0, Limits(floor_ms=4, max_ms=9), Code.SLOW, 4, id="the lower of both"),
        pytest.param(GOOD, None, Limits(), None, 120_000, id="nothing to compare with"),
        pytest.param(GOOD, 5.0, Limits(memory_mib=19), Code.MEMORY, 20, id="too large"),
    ],
)
def test_what_a_bundle_may_take(
    figures: Figures, active_ms: float | None, limits: Limits, code: Code | None, limit_ms: float
) -> None:
    active = None if active_ms is None else Figures("int8", "interpreter", "litert 2", 30, active_ms, active_ms, 20)
    verdict = judge(figures, active, limits)
    assert verdict.code is code
    assert verdict.gates["p95_ms"].limit == pytest.approx(limit_ms)
    assert verdict.gates["p95_ms"].before == active_ms
    assert bool(verdict.reason) == (code is not None) == any(not gate.ok for gate in verdict.gates.values())
    if code is Code.SLOW:
        mend = "max_ms" if limits.max_ms == limit_ms else "max_slowdown"
        assert verdict.reason.endswith(f"or raise `{mend}`.")


def test_on_a_small_device_no_more_may_be_taken_than_is_free(
    monkeypatch: pytest.MonkeyPatch, belt_bundle: Path
) -> None:
    monkeypatch.setattr(selftest, "free_mib", lambda: 48)
    verdict = run_selftest(belt_bundle, active=None, limits=Limits(time_s=60))
    assert verdict.code is None
    assert verdict.gates["memory_mib"].limit == 48


@pytest.mark.parametrize(
    ("text", "free_mib"),
    [("MemTotal:  9000 kB\nMemAvailable:    204800 kB\n", 200), ("", sys.maxsize), (None, sys.maxsize)],
)
def test_what_is_free_is_read_where_the_kernel_says_it(tmp_path: Path, text: str | None, free_mib: int) -> None:
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    assert memory.free_mib(tmp_path / "meminfo") == free_mib


FORK = "import os, time, sys; os.fork() or time.sleep(60); sys.exit(4)"
CLOSE = "import os, time; os.close(1); os.close(2); time.sleep(60)"
KILL = "import os, signal; os.kill(os.getpid(), signal.{})"
ANSWER = '{{"bundle": "works", "variant": "int8", "engine": "e", "runtime": "r", "runs": 30, "p50_ms": 1, {}}}'
BAD = '{{"bundle": "fails", "code": {}, "what": "W\\\\u001b[1m\\\\n.", "mend": "M."}}'


def says(text: str) -> str:
    return f"print('{text}')"


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        pytest.param("", Code.CRASHED, "gave no answer", id="nothing"),
        pytest.param(says("hello"), Code.CRASHED, "gave no answer", id="garbage"),
        pytest.param("while 1: print('x' * 4000)", Code.CRASHED, "more than an answer", id="without an end"),
        pytest.param("print('[' * 9000)", Code.CRASHED, "gave no answer", id="deep"),
        pytest.param(says(ANSWER.format('"p95_ms": 1')), Code.CRASHED, "gave no answer", id="half"),
        pytest.param(says(ANSWER.format('"p95_ms": NaN, "memory_mib": 1')), Code.CRASHED, "no answer", id="no number"),
        pytest.param(says(ANSWER.format('"p95_ms": -1, "memory_mib": 1')), Code.CRASHED, "no answer", id="below 0"),
        pytest.param(says(ANSWER.format('"p95_ms": 1e999, "memory_mib": 1')), Code.CRASHED, "no answer", id="endless"),
        pytest.param(says(ANSWER.format('"p95_ms": 1, "memory_mib": 1')) * 2, Code.CRASHED, "invalid", id="no program"),
        pytest.param(says(ANSWER.format('"p95_ms": 1, "memory_mib": 1')), None, "", id="an answer"),
        pytest.param(says(BAD.format('"operator"')), Code.CRASHED, "gave no answer", id="a code that it has not"),
        pytest.param(says(BAD.format('"wrong"')), Code.WRONG, "W [1m . M.", id="what a terminal would obey"),
        pytest.param("import sys; sys.exit('so\\nit is.')", Code.CRASHED, "with status 1: it is. Conv", id="a status"),
        pytest.param(KILL.format("SIGABRT"), Code.CRASHED, "by SIGABRT", id="a signal"),
        pytest.param(KILL.format("SIGRTMIN + 3"), Code.CRASHED, "by signal 37", id="a nameless signal"),
        pytest.param(KILL.format("SIGKILL"), Code.MEMORY, "as the kernel does", id="killed"),
        pytest.param(CLOSE, Code.HUNG, "not done", id="says that it ends and does not"),
        pytest.param(FORK, Code.CRASHED, "with status 4", id="a grandchild keeps the pipes"),
    ],
)
def test_nothing_that_a_process_says_is_believed_unseen(
    monkeypatch: pytest.MonkeyPatch, belt_bundle: Path, program: str, code: Code | None, said: str
) -> None:
    monkeypatch.setattr(selftest_process, "_CHILD", ("-I", "-S", "-c", program))
    verdict = run_selftest(belt_bundle, active=None, limits=SHORT)
    assert verdict.code is code
    assert said in verdict.reason
    assert verdict.reason.isprintable()


def test_what_heed_raises_ends_the_process(troubles: Path, repack: Repack) -> None:
    hangs = repack(troubles / "hangs.bundle", "golden-input.bin", b"\xff")
    before, begun = set(children(os.getpid())), set[int]()

    def heed() -> None:
        if begun:
            raise KeyboardInterrupt
        begun.update(set(children(os.getpid())) - before)

    with pytest.raises(KeyboardInterrupt):
        run_selftest(hangs, active=None, limits=SMALL, heed=heed)
    assert begun
    assert all(is_gone(pid) for pid in begun)


def test_it_ends_with_whoever_began_it(
    troubles: Path, repack: Repack, eventually: Callable[[Callable[[], object]], None]
) -> None:
    hangs = repack(troubles / "hangs.bundle", "golden-input.bin", b"\xff")
    code = (
        "import sys; from pathlib import Path; from tinysight_edge.update.selftest import *; "
        "run_selftest(Path(sys.argv[1]), active=None, limits=Limits(time_s=60))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(hangs)])
    try:
        eventually(lambda: any(os.getpriority(os.PRIO_PROCESS, pid) == NICE for pid in children(parent.pid)))
        (child,) = children(parent.pid)
    finally:
        parent.kill()
        parent.wait(10)
    eventually(lambda: is_gone(child))


def test_a_device_that_can_begin_no_process_is_short_of_memory(
    monkeypatch: pytest.MonkeyPatch, belt_bundle: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "/dev/null")
    with pytest.raises(UpdateError, match="No process can be begun to try it: Per") as raised:
        run_selftest(belt_bundle, active=None, limits=SMALL)
    assert raised.value.code is Code.MEMORY


def test_it_writes_no_file(belt_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("json.py").write_text("raise SystemExit('not from here')\n")
    assert run_selftest(belt_bundle, active=None, limits=SMALL).code is None
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "json.py"]
