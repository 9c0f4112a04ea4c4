"""Let one bundle be tried by a process of its own, and say what became of it.

In: a `Task`.  Out: an `Outcome`. The process (`selftest_child`) may crash, hang, eat the memory, or say anything: its
answer is capped and parsed, why it ended is read from its status, and nothing of it is left behind.
"""

import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from tinysight_contract.errors import UpdateError
from tinysight_contract.scalars import Count
from tinysight_contract.updates import Code
from tinysight_edge.update.selftest_child import Task

__all__ = ["Figures", "Outcome", "attempt", "too_much"]

HEED_S: Final = 0.2
KILLED_S: Final = 2.0
MAX_ANSWER_BYTES: Final = 16 << 10
TAIL_BYTES: Final = 4 << 10
PIPE_BYTES: Final = 1 << 20  # one holds 64 KiB
ENDING_S: Final = 0.01
WATCH_S: Final = 0.005
BARE_MIB: Final = 192  # that Python and its libraries use, generously
MAX_TOLD: Final = 200  # characters of what a process said at its end
_CHILD: Final = ("-P", "-B", "-m", "tinysight_edge.update.selftest_child")  # nothing from the folder it is begun in
_CONVERT: Final = "Convert the model again, or update the runtime of the device."
_LONGER: Final = f"Convert a smaller model, or allow it more time. If it hangs: {_CONVERT}"

_Text = Annotated[str, Meta(max_length=2000)]
_Name = Annotated[str, Meta(max_length=100)]
_Figure = Annotated[float, Meta(ge=0.0, le=1e9)]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a bundle that works here, at a low priority beside whatever else runs.

    Attributes:
        variant: its scheme, the one that was taken.
        engine: that runs it the fastest.
        runtime: with its version.
        runs: that were measured.
        p50_ms: of a run.
        p95_ms: of a run.
        memory_mib: the most that it took besides Python and its libraries, loading included.
    """

    variant: str
    engine: str
    runtime: str
    runs: int
    p50_ms: float
    p95_ms: float
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one process.

    Attributes:
        figures: of a bundle that works.
        code: why it does not.
        reason: the same for people, with what to do.
        departing: how many golden pictures it answers otherwise than where it was made.
    """

    figures: Figures | None = None
    code: Code | None = None
    reason: str = ""
    departing: int = 0


class _Good(Struct, frozen=True, forbid_unknown_fields=True, tag_field="bundle", tag="works"):
    """What the process says of a bundle that works."""

    variant: _Name
    engine: _Name
    runtime: _Name
    runs: Annotated[int, Meta(ge=1, le=10_000)]
    p50_ms: _Figure
    p95_ms: _Figure
    memory_mib: _Figure


class _Bad(Struct, frozen=True, forbid_unknown_fields=True, tag_field="bundle", tag="fails"):
    """What it says of one that does not."""

    code: Literal["wrong", "runtime", "malformed", "memory"]
    what: _Text
    mend: _Text
    departing: Count = 0


def attempt(task: Task, heed: Callable[[], None]) -> Outcome:
    """Let a process try a bundle. What ``heed`` raises ends the process, too.

    Raises:
        UpdateError: MEMORY, no process can be begun; of which the bundle is not to blame.
    """
    heed()
    try:
        child = subprocess.Popen(
            [sys.executable, *_CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # which else sets memory aside for each core
            start_new_session=True,
        )
    except OSError as error:
        what = f"No process can be begun to try it: {error.strerror}."
        raise UpdateError(what, mend="Free some memory; it is tried again.", code=Code.MEMORY) from error
    try:
        heard = _heard(child, task, heed)
    finally:
        _end(child)
    return _outcome(heard, task)


@dataclass(slots=True)
class _Heard:
    """What came of a process.

    Attributes:
        said: what it said, at most a little more than an answer may have.
        tail: the last that it said to stderr.
        status: with which it ended, negative by a signal; None if it had to be ended.
        too_much: whether that was for the memory that it took.
    """

    said: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    status: int | None = None
    too_much: bool = False


def _heard(child: subprocess.Popen[bytes], task: Task, heed: Callable[[], None]) -> _Heard:
    """Tell it what to do, and listen until it ends, says too much, or its time is over."""
    heard, until_s = _Heard(), time.monotonic() + task.time_s
    with selectors.DefaultSelector() as selector:
        for pipe, kept in ((child.stdout, heard.said), (child.stderr, heard.tail)):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ, kept)
        if child.stdin is not None:
            with suppress(BrokenPipeError), child.stdin as told:  # it has ended, of which its status tells
                told.write(json.dumps(asdict(task)).encode() + b"\n")
        wait_s = WATCH_S if task.watched else HEED_S
        while (left_s := until_s - time.monotonic()) > 0 and len(heard.said) <= MAX_ANSWER_BYTES:
            heard.status = _status(child)  # asked before the last look at what it has said
            for key, _ in selector.select(0 if heard.status is not None else min(wait_s, left_s)):
                _take(selector, key)
            del heard.tail[:-TAIL_BYTES]
            if heard.status is not None:
                break
            if task.watched and _used_mib(child) > task.memory_mib + BARE_MIB:
                heard.too_much = True
                break
            if not selector.get_map():  # it is about to end
                time.sleep(ENDING_S)
            heed()
    return heard


def _used_mib(child: subprocess.Popen[bytes]) -> float:
    """Memory that it uses now."""
    try:
        pages = int(Path(f"/proc/{child.pid}/statm").read_bytes().split()[1])
    except OSError:
        return 0.0
    return pages * resource.getpagesize() / (1 << 20)


def _take(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """What is in a pipe, which holds no more than is asked for."""
    if more := os.read(key.fd, PIPE_BYTES):
        key.data.extend(more)
    else:
        selector.unregister(key.fileobj)


def _status(child: subprocess.Popen[bytes]) -> int | None:
    """With which it has ended. It is left a zombie, whose number nobody else can get before its group is killed."""
    try:
        ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # somebody else has waited for it: what it has said decides
        return 0
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill it and what it has begun; what hangs in the kernel cannot be killed, and is left behind."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    try:
        child.wait(KILLED_S)
    except subprocess.TimeoutExpired:
        threading.Thread(target=child.wait, name="hung-selftest", daemon=True).start()  # it may end at some time


def _outcome(heard: _Heard, task: Task) -> Outcome:
    """What an end means; nothing in it is trusted."""
    status = heard.status
    if len(heard.said) > MAX_ANSWER_BYTES:
        return _bad(Code.CRASHED, "The process that tried it said more than an answer may have.", _CONVERT)
    if heard.too_much:
        return too_much(task.memory_mib)
    if status is None:
        return _bad(Code.HUNG, f"It was not done after {task.time_s:.3g} s.", _LONGER)
    if status == -signal.SIGXCPU:
        return _bad(Code.HUNG, "It took more of the processor than there is in the time that it has.", _LONGER)
    if status == -signal.SIGKILL:  # not by us
        what = "The process that tried it was killed, as the kernel does when the device is short of memory."
        return _bad(Code.MEMORY, what, "Convert a smaller model, or free some memory.")
    if status < 0:
        return _bad(Code.CRASHED, f"It ended the process that tried it by {_signal_name(-status)}.", _CONVERT)
    if status > 0:
        told = f": {last}" if (last := _last_line(bytes(heard.tail))) else ""
        return _bad(Code.CRASHED, f"It ended the process that tried it with status {status}{told}.", _CONVERT)
    try:
        answer = msgspec.json.decode(heard.said, type=_Good | _Bad)
    except (msgspec.DecodeError, RecursionError):
        return _bad(Code.CRASHED, "The process that tried it ended and gave no answer.", _CONVERT)
    if isinstance(answer, _Bad) and answer.code == "memory":
        return too_much(task.memory_mib)
    if isinstance(answer, _Bad):
        return Outcome(None, Code(answer.code), f"{_plain(answer.what)} {_plain(answer.mend)}", answer.departing)
    return Outcome(Figures(**msgspec.structs.asdict(answer)))


def _bad(code: Code, what: str, mend: str) -> Outcome:
    return Outcome(None, code, f"{what} {mend}")


def too_much(memory_mib: int) -> Outcome:
    """That a bundle takes more memory than this."""
    what = f"It needs more than the {memory_mib} MiB of memory that it may take here."
    return _bad(Code.MEMORY, what, "Convert a smaller model, or free or allow more memory.")


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _last_line(tail: bytes) -> str:
    lines = [line for line in tail.decode(errors="replace").splitlines() if line.strip()]
    return _plain(lines[-1])[:MAX_TOLD].rstrip(".") if lines else ""


def _plain(text: str) -> str:
    """In one line, and nothing in it that a terminal would obey."""
    return "".join(each if each.isprintable() else " " for each in " ".join(text.split()))
